//! A run as text for people.

use std::fmt::Write as _;

use super::histogram::Latencies;
use super::result::Outcome;
use crate::stats::machine;

/// Others on the machine may use this part of its CPU before a run says nothing.
pub const MOST_OTHERS: f64 = 0.05;
/// The host may take this part of the machine's CPU before a run says nothing.
pub const MOST_STEAL: f64 = 0.01;

/// The whole report.
pub fn text(outcome: &Outcome) -> String {
    let mut out = String::new();
    // Writing to a string cannot fail.
    let _ = head(&mut out, outcome);
    let _ = latencies(&mut out, outcome);
    let _ = costs(&mut out, outcome);
    let _ = warnings(&mut out, outcome);
    out
}

fn head(out: &mut String, outcome: &Outcome) -> std::fmt::Result {
    let (whole, calibration) = (&outcome.whole, &outcome.calibration);
    writeln!(out, "{}: {}", outcome.driver, outcome.workload.name)?;
    writeln!(out, "machine      {}", machine())?;
    writeln!(
        out,
        "fsync        4 KiB {:.3} ms p50, {:.3} ms p99; 64 KiB {:.0} MB/s; 1 MiB {:.0} MB/s",
        calibration.small_p50_ms,
        calibration.small_p99_ms,
        calibration.at_64_kib,
        calibration.at_1_mib
    )?;
    let loop_kind = if outcome.workload.producer_rate > 0.0 {
        format!("open loop, {} records/s", outcome.workload.producer_rate)
    } else {
        format!(
            "closed loop, window {} per producer",
            outcome.workload.window()
        )
    };
    writeln!(out, "load         {loop_kind}, {:.1} s", outcome.span())?;
    writeln!(
        out,
        "produced     {:>10.0} records/s  {:>8.2} MB/s  {} failed",
        outcome.rate(),
        outcome.mb_per_second(),
        whole.failed
    )?;
    writeln!(
        out,
        "consumed     {:>10.0} records/s  {:>8.2} MB/s  {} not read at the end",
        whole.received as f64 / outcome.span(),
        whole.received_bytes as f64 / 1e6 / outcome.span(),
        outcome.unread
    )?;
    if whole.caught_up_bytes > 0 {
        writeln!(
            out,
            "caught up    {:>10.2} MB in all",
            whole.caught_up_bytes as f64 / 1e6
        )?;
    }
    Ok(())
}

fn latencies(out: &mut String, outcome: &Outcome) -> std::fmt::Result {
    writeln!(
        out,
        "{:<12} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9}",
        "latency, ms", "mean", "p50", "p95", "p99", "p99.9", "max"
    )?;
    let whole = &outcome.whole;
    line(out, "publish", &whole.publish)?;
    line(out, "send delay", &whole.delay)?;
    line(out, "end to end", &whole.end_to_end)?;
    if outcome.workload.catch_up_readers > 0 {
        let (mut before, mut beside) = (Latencies::default(), Latencies::default());
        for second in &outcome.seconds {
            let half = if second.caught_up_bytes > 0 {
                &mut beside
            } else {
                &mut before
            };
            half.add(&second.end_to_end);
        }
        line(out, " tail alone", &before)?;
        line(out, " beside", &beside)?;
    }
    Ok(())
}

fn line(out: &mut String, name: &str, latencies: &Latencies) -> std::fmt::Result {
    if latencies.len() == 0 {
        return Ok(());
    }
    let at = |percentile| latencies.percentile_ms(percentile);
    writeln!(
        out,
        "{name:<12} {:>9.3} {:>9.3} {:>9.3} {:>9.3} {:>9.3} {:>9.3}",
        latencies.mean_ms(),
        at(50.0),
        at(95.0),
        at(99.0),
        at(99.9),
        latencies.max_ms()
    )
}

fn costs(out: &mut String, outcome: &Outcome) -> std::fmt::Result {
    let (costs, span) = (&outcome.costs, outcome.span());
    writeln!(
        out,
        "{:<16} {:>8} {:>9} {:>12} {:>12} {:>12} {:>9}",
        "process", "CPU s", "CPU s/GB", "dirtied, MB", "switches/s", "preempted/s", "RSS, MB"
    )?;
    for process in &costs.processes {
        let usage = &process.usage;
        writeln!(
            out,
            "{:<16} {:>8.2} {:>9.2} {:>12.1} {:>12.0} {:>12.0} {:>9.0}",
            process.name,
            usage.cpu_seconds,
            outcome.per_gb(usage.cpu_seconds),
            usage.write_bytes as f64 / 1e6,
            usage.voluntary_switches as f64 / span,
            usage.involuntary_switches as f64 / span,
            usage.resident_bytes as f64 / 1e6
        )?;
    }
    let (brokers, clients) = (costs.brokers(), costs.clients());
    let count = costs
        .processes
        .iter()
        .filter(|one| one.name.starts_with("broker"))
        .count();
    if count > 0 {
        writeln!(
            out,
            "CPU          brokers {:.2} s/GB; clients {:.2} s/GB",
            outcome.per_gb(brokers.cpu_seconds),
            outcome.per_gb(clients.cpu_seconds)
        )?;
    }
    let machine = &costs.machine;
    let megabytes = (outcome.whole.bytes as f64 / 1e6).max(1e-9);
    if let Some(fsyncs) = costs.fsyncs {
        writeln!(
            out,
            "log syncs    {:.0} per second, {:.2} per MB, by all brokers",
            fsyncs / span,
            fsyncs / megabytes
        )?;
    }
    writeln!(
        out,
        "disk         {:.1} MB/s at the block layer, {:.2} bytes per byte produced and broker, {:.0} flushes/s",
        machine.disk_bytes as f64 / 1e6 / span,
        machine.disk_bytes as f64 / 1e6 / megabytes / count.max(1) as f64,
        machine.disk_flushes as f64 / span
    )
}

fn warnings(out: &mut String, outcome: &Outcome) -> std::fmt::Result {
    for failure in &outcome.failures {
        writeln!(out, "failed       {failure}")?;
    }
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let steal = outcome.costs.machine.steal_seconds / (outcome.span() * cores as f64);
    if steal > MOST_STEAL {
        writeln!(
            out,
            "DISTURBED    the host took {:.1} % of the CPU",
            steal * 1e2
        )?;
    }
    if let Some(others) = outcome.costs.others().filter(|&part| part > MOST_OTHERS) {
        writeln!(
            out,
            "DISTURBED    others used {:.1} % of the CPU",
            others * 1e2
        )?;
    }
    for key in outcome.workload.ignored() {
        writeln!(out, "ignored      {key}")?;
    }
    Ok(())
}
