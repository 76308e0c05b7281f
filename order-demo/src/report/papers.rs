//! What the papers measured, beside what this run measured, and whether that can be compared.

use super::{ModeRun, Report};
use crate::driver::faults::{STATEFUL, STATELESS};

/// The papers.
pub const SOURCES: [&str; 2] = [
    "S. K. Panchakarla, \"Designing Carrier-Grade Microservices for Telecom: Ensuring Availability \
     and Scale in Order Fulfillment Systems\" (2025)",
    "K. Nekkalapudi, \"Design and Implementation of Scalable Event-Driven Microservices \
     Architecture for High-Throughput Enterprise Systems\"",
];

/// Their units, load and hardware are not in the papers.
const UNKNOWN: &str = "no: their units, load and hardware are unknown";

/// One row of the comparison.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// What is compared.
    pub what: &'static str,
    /// What they say.
    pub theirs: &'static str,
    /// What this run says.
    pub ours: String,
    /// Whether the conditions are the same.
    pub same: String,
}

fn mode<'a>(report: &'a Report, name: &str) -> Option<&'a ModeRun> {
    report.modes.iter().find(|mode| mode.mode == name)
}

fn mttr(report: &Report, names: &[&str]) -> String {
    let faults = report.modes.iter().flat_map(|mode| &mode.faults);
    let found = faults.filter(|fault| names.contains(&fault.name.as_str()));
    let times: Vec<String> = found
        .filter_map(|fault| fault.mttr_ms)
        .map(|ms| format!("{:.2} s", ms / 1_000.0))
        .collect();
    if times.is_empty() {
        return "not in this run".to_owned();
    }
    format!("{} ({} kills)", times.join(", "), times.len())
}

const fn row(what: &'static str, theirs: &'static str, ours: String, same: String) -> Row {
    Row {
        what,
        theirs,
        ours,
        same,
    }
}

/// All rows.
#[must_use]
pub fn rows(report: &Report) -> Vec<Row> {
    let unknown = UNKNOWN.to_owned();
    let mut rows = vec![
        row(
            "throughput",
            "48,200 events/s, monolith 12,600",
            throughput(report),
            unknown.clone(),
        ),
        row(
            "p99 at their peak",
            "340 ms, monolith 1,820 ms",
            completions(report, |mode| mode.completion_ms.p99),
            "no: this run is paced below its peak unless --rate says otherwise".to_owned(),
        ),
        row(
            "recovery of a stateless worker",
            "18.2, 10.5, 12.6 s",
            mttr(report, &["stateless-worker"]),
            format!("no: {STATELESS} is killed with SIGKILL and restarted by a supervisor here"),
        ),
        row(
            "recovery of a stateful worker",
            "36.9, 17.3, 20.7 s",
            mttr(report, &["stateful-worker"]),
            format!("no: {STATEFUL} is killed with SIGKILL and restarted by a supervisor here"),
        ),
        row(
            "recovery of a partition's leader",
            "MTTR 18 s",
            mttr(report, &["broker-leader"]),
            "no: kill -9 of a broker; the clock stops at the first acknowledgement".to_owned(),
        ),
    ];
    rows.extend(more_rows(report));
    rows
}

fn more_rows(report: &Report) -> Vec<Row> {
    let unknown = UNKNOWN.to_owned();
    vec![
        row(
            "availability",
            "99.85 to 99.997, 99.90 to 99.998, 99.72 to 99.994 %",
            availability(report),
            "no: ours are minutes and counts, theirs months".to_owned(),
        ),
        row(
            "coupled by REST against decoupled",
            "1,123 ms against 397 ms",
            completions(report, |mode| mode.completion_ms.p50)
                + " (p50 to completion); 202s: "
                + &completions(report, |mode| mode.ack_ms.p50),
            unknown.clone(),
        ),
        row(
            "circuit breaker",
            "opens within 2 s",
            breaker(report),
            unknown.clone(),
        ),
        row(
            "dead letters",
            "100 % kept after 3 attempts",
            dead_letters(report),
            "no: theirs are no counts".to_owned(),
        ),
        row(
            "bursts",
            "4 to 6x absorbed",
            backlog(report),
            "no: their units, load and hardware are unknown; --burst makes one here".to_owned(),
        ),
        row(
            "workers scaled on lag",
            "in 35 to 50 s",
            scaled(report),
            "no: theirs are containers on other machines, ours processes on this one, which add no \
             processor"
                .to_owned(),
        ),
        row(
            "outage of the notifier",
            "no effect",
            outage(report),
            "no: what it changes needs pairs of runs, which --full makes".to_owned(),
        ),
        row(
            "CPU per order",
            "not given",
            cpu(report),
            "theirs is missing".to_owned(),
        ),
    ]
}

fn throughput(report: &Report) -> String {
    let modes = report.modes.iter().map(|mode| {
        let events = if mode.mode == "event" {
            format!(", {:.0} workflow events/s", mode.workflow_events_per_s)
        } else {
            String::new()
        };
        format!(
            "{} {:.0} orders/s{events} (paced at {:.0})",
            mode.mode, mode.ended_per_s, mode.rate
        )
    });
    modes.collect::<Vec<_>>().join("; ")
}

fn completions(report: &Report, figure: fn(&ModeRun) -> f64) -> String {
    let modes = report
        .modes
        .iter()
        .map(|mode| format!("{} {:.1} ms", mode.mode, figure(mode)));
    modes.collect::<Vec<_>>().join("; ")
}

/// The share of orders that ended in time, with its 95 % interval (Wilson, 1927).
fn availability(report: &Report) -> String {
    let Some(mode) = mode(report, "event").or(report.modes.first()) else {
        return "not in this run".to_owned();
    };
    let (of, late) = (
        mode.verdict.acknowledged,
        mode.verdict.acknowledged.saturating_sub(mode.in_time),
    );
    let (low, high) = wilson(mode.in_time, of);
    format!(
        "{} of {of} accepted orders ended within 5 s, {late} later: between {:.3} and {:.3} % \
         (95 % interval; parked ones count as late)",
        mode.in_time,
        low * 100.0,
        high * 100.0
    )
}

/// The 95 % interval of a share.
#[allow(clippy::cast_precision_loss)]
pub(crate) fn wilson(good: u64, of: u64) -> (f64, f64) {
    if of == 0 {
        return (0.0, 1.0);
    }
    const Z: f64 = 1.96;
    let (n, share) = (of as f64, good.min(of) as f64 / of as f64);
    let middle = share + Z * Z / (2.0 * n);
    let spread = Z * (share * (1.0 - share) / n + Z * Z / (4.0 * n * n)).sqrt();
    let scale = 1.0 + Z * Z / n;
    (
        ((middle - spread) / scale).max(0.0),
        ((middle + spread) / scale).min(1.0),
    )
}

fn backlog(report: &Report) -> String {
    let Some(mode) = mode(report, "event") else {
        return "not in this run".to_owned();
    };
    let open = mode.samples.iter();
    let open = open.map(|s| s.acknowledged.saturating_sub(s.ended)).max();
    let drain = (mode.to_last_end_s - mode.duration_s).max(0.0);
    format!(
        "{} orders open at the most; the last had ended {drain:.1} s after the last was accepted",
        open.unwrap_or(0)
    )
}

fn scaled(report: &Report) -> String {
    mode(report, "event").map_or("not in this run".to_owned(), super::scaled::row)
}

fn outage(report: &Report) -> String {
    let faults = report.modes.iter().flat_map(|mode| &mode.faults);
    let found = faults.filter(|fault| fault.name == "notifier-outage");
    let found: Vec<String> = found.map(|fault| fault.proof.clone()).collect();
    if found.is_empty() {
        return "not in this run".to_owned();
    }
    found.join("; ")
}

fn breaker(report: &Report) -> String {
    let faults = report.modes.iter().flat_map(|mode| &mode.faults);
    let found = faults
        .filter(|fault| fault.name == "payment-errors")
        .map(|fault| fault.proof.clone());
    let found: Vec<String> = found.collect();
    if found.is_empty() {
        return "not in this run".to_owned();
    }
    found.join("; ")
}

fn dead_letters(report: &Report) -> String {
    match mode(report, "event") {
        Some(mode) if mode.verdict.parked > 0 => format!(
            "{} poisoned orders parked after 3 attempts, all redriven: {}",
            mode.verdict.parked,
            if mode.passed() {
                "every one has ended"
            } else {
                "see the violations"
            }
        ),
        _ => "not in this run".to_owned(),
    }
}

#[allow(clippy::cast_precision_loss)]
fn cpu(report: &Report) -> String {
    let modes = report.modes.iter().map(|mode| {
        let seconds: f64 = mode
            .cpu_s
            .iter()
            .filter(|(name, _)| *name != "driver")
            .map(|(_, s)| s)
            .sum();
        let each = seconds * 1_000.0 / (mode.verdict.acknowledged.max(1) as f64);
        format!("{} {each:.2} ms", mode.mode)
    });
    modes.collect::<Vec<_>>().join("; ") + " (brokers and services, idle time included)"
}
