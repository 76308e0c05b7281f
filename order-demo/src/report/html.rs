//! The report as one HTML page that needs nothing else: no script, no font, no picture from
//! anywhere.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::papers;
use super::scaled;
use super::svg::{bars, escape, lines, pairs};
use super::{ModeRun, Report, Sample};

pub(crate) const STYLE: &str = "body{font:15px/1.5 system-ui,sans-serif;max-width:820px;margin:2em auto;\
padding:0 1em;color:#1f2328}table{border-collapse:collapse;width:100%;margin:1em 0}\
td,th{border-bottom:1px solid #d0d7de;padding:4px 8px;text-align:left;vertical-align:top}\
svg{width:100%;font-size:11px}.ok{color:#1a7f37}.bad{color:#cf222e;font-weight:600}\
.legend{margin:0;font-size:12px}";

/// The page.
#[must_use]
pub fn page(report: &Report) -> String {
    let mut html = format!(
        "<!doctype html><html lang='en'><meta charset='utf-8'><meta name='viewport' \
         content='width=device-width'><title>Highwater order demo</title><style>{STYLE}</style>\
         <h1>Order fulfilment over Highwater: {}</h1>",
        judged(report.passed)
    );
    let setting = &report.setting;
    let commit = setting.commit.as_deref().unwrap_or("unknown");
    let seeds: Vec<String> = setting
        .seeds
        .iter()
        .map(|(what, n)| format!("{what} {n}"))
        .collect();
    let _ = write!(
        html,
        "<p>{}; commit {}; accounts {}; seeds {}; an fsync of 4 KiB takes {:.2} ms at the median, \
         {:.2} ms at p99.</p>",
        escape(&setting.machine),
        escape(commit),
        escape(&setting.source),
        escape(&seeds.join(", ")),
        report.fsync_ms.p50,
        report.fsync_ms.p99
    );
    for mode in &report.modes {
        html.push_str(&section(mode));
    }
    html.push_str(&comparison(report));
    html + "</html>\n"
}

fn judged(passed: bool) -> &'static str {
    if passed {
        "<span class='ok'>passed</span>"
    } else {
        "<span class='bad'>FAILED</span>"
    }
}

fn section(mode: &ModeRun) -> String {
    let verdict = &mode.verdict;
    let mut html = format!(
        "<h2>Mode {}: {}</h2><p>{} orders planned, {} accepted, {} refused, {} unknown. {:.0} \
         orders/s ended, {:.0} workflow events/s. Durability: {}.</p>",
        escape(&mode.mode),
        judged(mode.passed()),
        mode.orders,
        verdict.acknowledged,
        verdict.refused,
        verdict.unknown,
        mode.ended_per_s,
        mode.workflow_events_per_s,
        escape(&mode.durability)
    );
    html.push_str(&flow(mode));
    html.push_str(&costs(mode));
    html.push_str(&further(mode));
    html.push_str(&checks(mode));
    html
}

/// What happened second by second.
fn flow(mode: &ModeRun) -> String {
    let faults = mode.faults.iter().filter(|fault| fault.name != "poison");
    let faults = faults.map(|fault| (fault.at_s, fault.name.clone()));
    let workers = mode.scaled.iter();
    let workers = workers.map(|scaled| (scaled.at_s, format!("+1 {}", scaled.service)));
    let marks: Vec<(f64, String)> = faults.chain(workers).collect();
    let mut html = String::from("<h3>Orders over time, per second</h3>");
    let rates = [
        ("accepted", rate(&mode.samples, |s| s.acknowledged)),
        ("ended", rate(&mode.samples, |s| s.ended)),
    ];
    html.push_str(&lines(&rates, &marks));
    html.push_str("<h3>Order events over time, per second</h3>");
    let events = [("order events", rate(&mode.samples, |s| s.events))];
    html.push_str(&lines(&events, &marks));
    html.push_str("<h3>Backlog and drain: orders accepted and not ended</h3>");
    let open = mode
        .samples
        .iter()
        .map(|s| (second(s), to_f64(s.acknowledged.saturating_sub(s.ended))));
    html.push_str(&lines(&[("open orders", open.collect())], &marks));
    let lags = lags(mode);
    if !lags.is_empty() {
        html.push_str("<h3>Lag of the groups that were most behind, messages not committed</h3>");
        let lags: Vec<(&str, Vec<(f64, f64)>)> = lags
            .iter()
            .map(|(name, points)| (name.as_str(), points.clone()))
            .collect();
        html.push_str(&lines(&lags, &marks));
    }
    html
}

/// The lags over time of the groups that were most behind.
fn lags(mode: &ModeRun) -> Vec<(String, Vec<(f64, f64)>)> {
    const SHOWN: usize = 4;
    let mut groups: BTreeMap<&str, Vec<(f64, f64)>> = BTreeMap::new();
    for sample in &mode.samples {
        for (group, lag) in &sample.lag {
            let points = groups.entry(group).or_default();
            points.push((second(sample), to_f64(*lag)));
        }
    }
    let most = |points: &[(f64, f64)]| points.iter().map(|(_, y)| *y).fold(0.0, f64::max);
    let mut groups: Vec<_> = groups.into_iter().collect();
    groups.sort_by(|a, b| most(&b.1).total_cmp(&most(&a.1)));
    groups
        .into_iter()
        .take(SHOWN)
        .map(|(name, points)| (name.to_owned(), points))
        .collect()
}

/// Latencies, recoveries, processors.
fn costs(mode: &ModeRun) -> String {
    let mut html = String::from("<h3>Latency from the intended request, p50 and p99 in ms</h3>");
    let (ack, end) = (mode.ack_ms, mode.completion_ms);
    let mut rows = vec![("202".to_owned(), ack.p50, ack.p99)];
    let stages = mode.stage_ms.iter();
    let mut stages: Vec<_> = stages.map(|(n, l)| (n.clone(), l.p50, l.p99)).collect();
    stages.sort_by(|a, b| a.1.total_cmp(&b.1));
    rows.extend(stages);
    rows.push(("completed".to_owned(), end.p50, end.p99));
    html.push_str(&pairs(&rows, "ms"));
    let mttr = mode.faults.iter();
    let mttr = mttr.filter_map(|f| Some((f.name.clone(), f.mttr_ms?)));
    let mttr: Vec<(String, f64)> = mttr.collect();
    if !mttr.is_empty() {
        html.push_str("<h3>Recovery after kills</h3>");
        html.push_str(&bars(&mttr, "ms"));
    }
    html.push_str("<h3>Processor seconds by process</h3>");
    let mut cpu: Vec<(String, f64)> = mode.cpu_s.iter().map(|(n, s)| (n.clone(), *s)).collect();
    cpu.sort_by(|a, b| b.1.total_cmp(&a.1));
    html.push_str(&bars(&cpu, "s"));
    html
}

/// Further workers, and retries.
fn further(mode: &ModeRun) -> String {
    let mut html = String::new();
    if !mode.scaled.is_empty() {
        html.push_str(
            "<h3>Workers started on lag</h3><table><tr><th>service<th>at<th>messages behind<th>first \
             message<th>nobody at work<th>lag gone<th>stopped<th>handed back",
        );
        let ms = |value: Option<f64>| value.map_or("-".to_owned(), |ms| format!("{ms:.0} ms"));
        let s = |value: Option<f64>| value.map_or("-".to_owned(), |s| format!("{s:.1} s"));
        for scaled in &mode.scaled {
            let _ = write!(
                html,
                "<tr><td>{}<td>{:.1} s<td>{}<td>{}<td>{}<td>{}<td>{}<td>{}",
                escape(&scaled.service),
                scaled.at_s,
                scaled.behind,
                ms(scaled.assigned_ms),
                ms(scaled.pause_ms),
                s(scaled.gone_s),
                s(scaled.stopped_s),
                ms(scaled.handed_back_ms)
            );
        }
        html.push_str("</table>");
    }
    let (those, sum) = scaled::retries(&mode.work);
    let _ = write!(
        html,
        "<h3>Retries, one budget for all layers of a process</h3><p>{} of {} calls were tried again, \
         {} times the budget refused it.</p>",
        sum.retries, sum.calls, sum.refused
    );
    if !those.is_empty() {
        html.push_str("<table><tr><th>service<th>calls<th>retries<th>refused");
        for (name, own) in those {
            let _ = write!(
                html,
                "<tr><td>{}<td>{}<td>{}<td>{}",
                escape(name),
                own.calls,
                own.retries,
                own.refused
            );
        }
        html.push_str("</table>");
    }
    html
}

fn checks(mode: &ModeRun) -> String {
    let mut html =
        String::from("<h3>Invariants</h3><table><tr><th><th>promise<th>checked<th>broken");
    for invariant in &mode.verdict.invariants {
        let class = if invariant.violated == 0 { "ok" } else { "bad" };
        let _ = write!(
            html,
            "<tr><td>{}<td>{}<td>{}<td class='{class}'>{}",
            invariant.number,
            escape(&invariant.name),
            invariant.checked,
            invariant.violated
        );
    }
    html.push_str("</table><h3>Faults</h3><table><tr><th>fault<th>at<th>active<th>proof");
    for fault in &mode.faults {
        let _ = write!(
            html,
            "<tr><td>{}<td>{:.1} s<td>{}<td>{}",
            escape(&fault.name),
            fault.at_s,
            fault.active,
            escape(&fault.proof)
        );
    }
    html.push_str("</table>");
    for problem in &mode.problems {
        let _ = write!(html, "<p class='bad'>{}</p>", escape(problem));
    }
    for (kind, found) in &mode.verdict.violations {
        let _ = write!(html, "<p class='bad'>{kind:?}: {}</p><ul>", found.count);
        for example in &found.examples {
            let _ = write!(html, "<li>{}", escape(example));
        }
        html.push_str("</ul>");
    }
    html
}

fn comparison(report: &Report) -> String {
    let mut html = String::from(
        "<h2>Beside the papers</h2><table><tr><th><th>theirs<th>ours<th>same conditions?",
    );
    for row in papers::rows(report) {
        let _ = write!(
            html,
            "<tr><td>{}<td>{}<td>{}<td>{}",
            escape(row.what),
            escape(row.theirs),
            escape(&row.ours),
            escape(&row.same)
        );
    }
    html.push_str("</table><ul>");
    for source in papers::SOURCES {
        let _ = write!(html, "<li>{}", escape(source));
    }
    html + "</ul>"
}

fn second(sample: &Sample) -> f64 {
    to_f64(sample.second + 1)
}

#[allow(clippy::cast_precision_loss)]
fn to_f64(count: u64) -> f64 {
    count as f64
}

/// How much a counter grew in each second.
fn rate(samples: &[Sample], counter: fn(&Sample) -> u64) -> Vec<(f64, f64)> {
    let mut before = 0;
    samples
        .iter()
        .map(|sample| {
            let now = counter(sample);
            let grown = now.saturating_sub(before);
            before = now;
            (second(sample), to_f64(grown))
        })
        .collect()
}
