//! The report as text.

use std::fmt;

use super::papers;
use super::scaled;
use super::{ModeRun, Report};
use crate::money::Cents;

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let commit = self.setting.commit.as_deref().unwrap_or("unknown");
        writeln!(f, "{}", if self.passed { "PASSED" } else { "FAILED" })?;
        writeln!(f, "  machine         {}", self.setting.machine)?;
        writeln!(f, "  commit          {commit}")?;
        let seeds = self.setting.seeds.iter();
        let seeds: Vec<String> = seeds.map(|(what, seed)| format!("{what} {seed}")).collect();
        let source = &self.setting.source;
        writeln!(f, "  accounts        {source}; seeds: {}", seeds.join(", "))?;
        writeln!(
            f,
            "  fsync of 4 KiB  {:.2} ms p50, {:.2} ms p99",
            self.fsync_ms.p50, self.fsync_ms.p99
        )?;
        for mode in &self.modes {
            write_mode(f, mode)?;
        }
        writeln!(f, "\nBeside the papers")?;
        for row in papers::rows(self) {
            writeln!(f, "  {}", row.what)?;
            writeln!(f, "    theirs  {}", row.theirs)?;
            writeln!(f, "    ours    {}", row.ours)?;
            writeln!(f, "    same conditions? {}", row.same)?;
        }
        for source in papers::SOURCES {
            writeln!(f, "  {source}")?;
        }
        Ok(())
    }
}

fn write_mode(f: &mut fmt::Formatter<'_>, mode: &ModeRun) -> fmt::Result {
    let verdict = &mode.verdict;
    let judged = if mode.passed() { "passed" } else { "FAILED" };
    writeln!(f, "\nMode {}: {judged}", mode.mode)?;
    writeln!(f, "  durability      {}", mode.durability)?;
    writeln!(
        f,
        "  orders          {} planned, {} accepted, {} refused, {} unknown",
        mode.orders, verdict.acknowledged, verdict.refused, verdict.unknown
    )?;
    let ends = verdict.ends.iter();
    let ends: Vec<String> = ends
        .map(|(state, count)| format!("{count} {state}"))
        .collect();
    writeln!(f, "  ended           {}", ends.join(", "))?;
    writeln!(
        f,
        "  money           {} invoiced, {} expected from the input",
        Cents(verdict.priced_total_cents),
        Cents(verdict.expected_total_cents)
    )?;
    let effects = verdict.effects.iter();
    let effects: Vec<String> = effects.map(|(kind, n)| format!("{kind} {n}")).collect();
    writeln!(
        f,
        "  effects         {}; {} came again and were suppressed",
        effects.join(", "),
        verdict.suppressed
    )?;
    writeln!(
        f,
        "  throughput      {:.0} orders/s accepted over {:.1} s (paced at {:.0}/s); {:.0} orders/s \
         and {:.0} workflow events/s until the last had ended after {:.1} s",
        mode.orders_per_s,
        mode.duration_s,
        mode.rate,
        mode.ended_per_s,
        mode.workflow_events_per_s,
        mode.to_last_end_s
    )?;
    for (what, latency) in [
        ("202 after", mode.ack_ms),
        ("completed after", mode.completion_ms),
    ] {
        writeln!(
            f,
            "  {what:<15} {:.1} ms p50, {:.1} ms p99, {:.1} ms p99.9, {:.1} ms at most (from the \
             intended request)",
            latency.p50, latency.p99, latency.p999, latency.max
        )?;
    }
    write_faults(f, mode)?;
    write!(f, "{verdict}")
}

/// What was tried again, and what was not.
fn write_retries(f: &mut fmt::Formatter<'_>, mode: &ModeRun) -> fmt::Result {
    let (those, sum) = scaled::retries(&mode.work);
    if sum.calls == 0 {
        return Ok(());
    }
    let those: Vec<String> = those
        .into_iter()
        .map(|(name, own)| format!("{name} {} ({} refused)", own.retries, own.refused))
        .collect();
    let who = if those.is_empty() {
        String::new()
    } else {
        format!(": {}", those.join(", "))
    };
    writeln!(
        f,
        "  retries         {} of {} calls, {} times refused by the budget of their process{who}",
        sum.retries, sum.calls, sum.refused
    )
}

/// Faults, costs, the past and problems.
fn write_faults(f: &mut fmt::Formatter<'_>, mode: &ModeRun) -> fmt::Result {
    for fault in &mode.faults {
        let active = if fault.active {
            ""
        } else {
            "NOT SHOWN ACTIVE; "
        };
        let back = fault
            .mttr_ms
            .map_or(String::new(), |ms| format!("; back after {ms:.0} ms"));
        writeln!(
            f,
            "  fault           {} at {:.1} s: {active}{}{back}",
            fault.name, fault.at_s, fault.proof
        )?;
    }
    for scaled in &mode.scaled {
        writeln!(f, "  scaled          {}", scaled.sentence())?;
    }
    let mut cpu: Vec<_> = mode.cpu_s.iter().collect();
    cpu.sort_by(|a, b| b.1.total_cmp(a.1));
    let total: f64 = mode.cpu_s.values().sum();
    let cpu: Vec<String> = cpu
        .into_iter()
        .map(|(name, s)| format!("{name} {s:.1}"))
        .collect();
    writeln!(f, "  CPU seconds     {total:.1}: {}", cpu.join(", "))?;
    let work = mode.work.iter().filter(|(_, work)| work.commits > 0);
    #[allow(clippy::cast_precision_loss)]
    let each = |(name, work): (&String, &super::Work)| {
        format!("{name} {:.1}", work.handled as f64 / work.commits as f64)
    };
    let work: Vec<String> = work.map(each).collect();
    if !work.is_empty() {
        writeln!(f, "  handled/commit  {}", work.join(", "))?;
    }
    write_retries(f, mode)?;
    if let Some(replay) = &mode.replay {
        let states = replay.states.iter();
        let states: Vec<String> = states.map(|(state, n)| format!("{n} {state:?}")).collect();
        let at = replay.at_s;
        writeln!(
            f,
            "  as it was       at {at:.1} s: {} (each order's in the JSON)",
            states.join(", ")
        )?;
    }
    for problem in &mode.problems {
        writeln!(f, "  problem         {problem}")?;
    }
    Ok(())
}
