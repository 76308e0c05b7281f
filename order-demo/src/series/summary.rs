//! What a series says, beside the papers: medians with their ranges, counts with their intervals.

use std::fmt::Write as _;

use super::block::{is_borne, peak, total};
use super::done::{Done, DoneMode};
use super::spread::{Rounds, Spread, rounds};
use crate::report::{Scaled, slowest, wilson};

/// The blocks whose names begin so.
pub(super) fn blocks<'a>(results: &'a [Done], prefix: &str) -> impl Iterator<Item = &'a Done> {
    results
        .iter()
        .filter(move |done| done.block.starts_with(prefix))
}

fn events<'a>(results: &'a [Done], prefix: &str) -> impl Iterator<Item = (&'a Done, &'a DoneMode)> {
    blocks(results, prefix).filter_map(|done| Some((done, done.event()?)))
}

/// Times of recovery after one kind of kill, in milliseconds, sorted.
pub(super) fn recoveries(results: &[Done], fault: &str) -> Vec<f64> {
    let runs = events(results, "kills-").flat_map(|(_, run)| &run.faults);
    let found = runs.filter(|found| found.name == fault);
    let mut times: Vec<f64> = found.filter_map(|found| found.mttr_ms).collect();
    times.sort_by(f64::total_cmp);
    times
}

/// One line: theirs, ours, the aim.
struct Line {
    what: &'static str,
    theirs: &'static str,
    aim: &'static str,
    ours: String,
}

/// The mode over the broker.
const EVENT: &str = "event";

const MISSING: &str = "not measured yet";

fn line(what: &'static str, theirs: &'static str, aim: &'static str, ours: String) -> Line {
    let ours = if ours.is_empty() {
        MISSING.to_owned()
    } else {
        ours
    };
    Line {
        what,
        theirs,
        aim,
        ours,
    }
}

fn throughput(results: &[Done]) -> String {
    let (borne, fails) = peak(results);
    let Some(borne) = borne else {
        return String::new();
    };
    let at = |done: &&Done| is_borne(done) && (done.rate - borne).abs() < 0.5;
    let found = blocks(results, "peak-").find(at).and_then(Done::event);
    let events = found.map_or(0.0, |run| run.events_per_s);
    let at_peak = rounds(results, "load-100");
    let at_peak = at_peak
        .first()
        .and_then(|rounds| rounds.of(EVENT, |run| run.events_per_s));
    let again = at_peak.map_or(String::new(), |events| {
        format!("; at that rate {events:.0} again")
    });
    let above = fails.map_or(String::new(), |fails| format!(", {fails:.0}/s are not"));
    format!("{borne:.0} orders/s are borne ({events:.0} workflow events/s){above}{again}")
}

fn latency(results: &[Done]) -> String {
    let one = |load: Rounds<'_>| {
        let share = load.name.trim_start_matches("load-").to_owned();
        let p50 = load.of(EVENT, |run| run.completion_ms.p50)?;
        let p99 = load.of(EVENT, |run| run.completion_ms.p99)?;
        Some(format!("{share} %: p50 {p50:.0}, p99 {p99:.0} ms"))
    };
    each(results, "load-", one)
}

fn recovery(results: &[Done], fault: &str) -> String {
    let times = recoveries(results, fault);
    let Some(spread) = Spread::new(times.iter().copied()) else {
        return String::new();
    };
    let rank = (times.len() * 99).div_ceil(100).saturating_sub(1);
    let p99 = times.get(rank).copied().unwrap_or(spread.high);
    format!(
        "median {:.0} ms, {:.0} to {:.0}, p99 {p99:.0} ms ({} kills)",
        spread.median, spread.low, spread.high, spread.of
    )
}

fn availability(results: &[Done]) -> String {
    let (mut accepted, mut in_time, mut kills) = (0, 0, 0);
    for (_, run) in events(results, "kills-") {
        accepted += run.accepted;
        in_time += run.in_time;
        kills += run.faults.len();
    }
    if accepted == 0 {
        return String::new();
    }
    let (low, high) = wilson(in_time, accepted);
    format!(
        "{in_time} of {accepted} orders ended within 5 s under {kills} kills: {:.3} to {:.3} % (95 % \
         interval)",
        low * 100.0,
        high * 100.0
    )
}

fn modes(results: &[Done]) -> String {
    let one = |rounds: Rounds<'_>| {
        let mode = |name: &&str| {
            let completed = rounds.of(name, |run| run.completion_ms.p50)?;
            let accepted = rounds.of(name, |run| run.ack_ms.p50)?;
            let cpu = rounds.of(name, |run| run.cpu_s * 1_000.0 / per(run.accepted))?;
            Some(format!(
                "{name} {completed:.1} [202: {accepted:.1}], {cpu:.1} ms CPU"
            ))
        };
        let modes: Vec<String> = rounds.modes().iter().filter_map(mode).collect();
        let which = rounds.name.trim_start_matches("modes-");
        let rate = rounds.rate();
        Some(format!("{which}, at {rate:.0}/s: {}", modes.join(", ")))
    };
    each(results, "modes-", one)
}

fn bursts(results: &[Done]) -> String {
    let one = |rounds: Rounds<'_>| {
        let times = rounds.name.trim_start_matches("burst-").to_owned();
        let rate = rounds.rate();
        #[allow(clippy::cast_precision_loss)]
        let open = rounds.of(EVENT, |run| run.backlog as f64)?;
        let drained = rounds.of(EVENT, |run| run.drain_s)?;
        Some(format!(
            "{times} of {rate:.0}/s: {open:.0} orders open at the most, all ended {drained:.1} s after \
             the last was accepted"
        ))
    };
    each(results, "burst-", one)
}

/// Further workers: the slowest of all bursts.
fn scaled(results: &[Done]) -> String {
    let mut bursts = events(results, "burst-").peekable();
    if bursts.peek().is_none() {
        return String::new();
    }
    let all: Vec<&Scaled> = bursts.flat_map(|(_, run)| &run.scaled).collect();
    let ms = |ms: Option<f64>| ms.map_or("-".to_owned(), |ms| format!("{ms:.0} ms"));
    let (assigned, pause) = slowest(all.iter().copied());
    format!(
        "{} workers started; at the most {} to the first message, {} with nobody at work on what moved",
        all.len(),
        ms(assigned),
        ms(pause)
    )
}

fn fault_of(results: &[Done], prefix: &str) -> String {
    let proofs = events(results, prefix).flat_map(|(_, run)| &run.faults);
    proofs
        .map(|fault| fault.proof.clone())
        .collect::<Vec<_>>()
        .join("; ")
}

fn letters(results: &[Done]) -> String {
    let one = |(done, run): (&Done, &DoneMode)| {
        let rest = if done.passed {
            "all ended after the redrive"
        } else {
            "FAILED"
        };
        format!("{} of {} orders parked, {rest}", run.parked, run.accepted)
    };
    events(results, "poison-")
        .map(one)
        .collect::<Vec<_>>()
        .join("; ")
}

/// What the outage of the notifier changed, pair by pair, in percent.
fn outage(results: &[Done]) -> String {
    let figure = |what: &str, pair: usize, of: fn(&DoneMode) -> f64| {
        let name = format!("notifier-{what}-{pair}");
        let found = results.iter().find(|done| done.block == name)?;
        found.event().map(of)
    };
    let change = |of: fn(&DoneMode) -> f64| {
        Spread::new((1..=5).filter_map(|pair| {
            let (with, without) = (figure("with", pair, of)?, figure("without", pair, of)?);
            Some((without / with - 1.0) * 100.0)
        }))
    };
    let (rate, slow) = (
        change(|run| run.ended_per_s),
        change(|run| run.completion_ms.p99),
    );
    match (rate, slow) {
        (Some(rate), Some(slow)) => format!(
            "throughput {:+.1} % ({:+.1} to {:+.1}), p99 {:+.1} % ({:+.1} to {:+.1}), {} pairs",
            rate.median, rate.low, rate.high, slow.median, slow.low, slow.high, rate.of
        ),
        _ => String::new(),
    }
}

fn partitions(results: &[Done]) -> String {
    let one = |rounds: Rounds<'_>| {
        let count = rounds.name.trim_start_matches("partitions-").to_owned();
        let ended = rounds.of(EVENT, |run| run.ended_per_s)?;
        let p99 = rounds.of(EVENT, |run| run.completion_ms.p99)?;
        Some(format!("{count}: {ended:.0} orders/s, p99 {p99:.0} ms"))
    };
    each(results, "partitions-", one)
}

/// What is said of each thing that was measured under names that begin so.
fn each(results: &[Done], prefix: &str, say: impl FnMut(Rounds<'_>) -> Option<String>) -> String {
    let said: Vec<String> = rounds(results, prefix)
        .into_iter()
        .filter_map(say)
        .collect();
    said.join("; ")
}

#[allow(clippy::cast_precision_loss)]
fn per(count: u64) -> f64 {
    count.max(1) as f64
}

fn lines(results: &[Done]) -> Vec<Line> {
    let mut lines = survival(results);
    lines.extend(load(results));
    lines
}

/// Throughput, and what is left of it when something dies.
fn survival(results: &[Done]) -> Vec<Line> {
    vec![
        line(
            "throughput",
            "48,200 events/s, monolith 12,600",
            "12,600 workflow events/s, stretch 48,200",
            throughput(results),
        ),
        line(
            "p99 to the end",
            "340 ms at peak, monolith 1,820 ms",
            "100 ms at 50 %, 340 ms at 80 % of the peak",
            latency(results),
        ),
        line(
            "recovery, stateless worker",
            "18.2, 10.5, 12.6 s",
            "3 s at p99",
            recovery(results, "stateless-worker"),
        ),
        line(
            "recovery, stateful worker",
            "36.9, 17.3, 20.7 s",
            "5 s at p99",
            recovery(results, "stateful-worker"),
        ),
        line(
            "recovery, partition leader",
            "MTTR 18 s",
            "1 s at p99",
            recovery(results, "broker-leader"),
        ),
        line(
            "availability",
            "99.85 to 99.997, 99.90 to 99.998, 99.72 to 99.994 %",
            "99.999 % of 300,000 orders",
            availability(results),
        ),
    ]
}

/// Other modes, and other loads.
fn load(results: &[Done]) -> Vec<Line> {
    vec![
        line(
            "coupled by REST against decoupled",
            "1,123 ms against 397 ms",
            "2.83x when a dependency is slow",
            modes(results),
        ),
        line(
            "bursts",
            "4 to 6x absorbed",
            "a 6x backlog drained in 60 s",
            bursts(results),
        ),
        line(
            "workers scaled on lag",
            "in 35 to 50 s",
            "assigned within 5 s, a pause of 500 ms",
            scaled(results),
        ),
        line(
            "circuit breaker",
            "opens within 2 s",
            "within 100 ms of the call that crosses the threshold",
            fault_of(results, "payment-"),
        ),
        line(
            "dead letters",
            "100 % kept after 3 attempts",
            "exactly 1,000, the rest unharmed, redrive exact",
            letters(results),
        ),
        line(
            "outage of the notifier",
            "no effect",
            "at most 1 % in throughput and p99, five pairs",
            outage(results),
        ),
        line(
            "partitions per topic",
            "24",
            "at most 20 % lost at 24",
            partitions(results),
        ),
    ]
}

/// Theirs, ours and the aim, line by line.
#[must_use]
pub fn summary(results: &[Done]) -> String {
    let mut text = String::new();
    let after = results.iter().filter(|d| !d.block.starts_with("peak-"));
    let broken: Vec<&str> = results
        .iter()
        .filter(|done| !done.passed)
        .map(|done| done.block.as_str())
        .collect();
    // Writing to a String cannot fail.
    let _ = writeln!(text, "{} of {} blocks are done", after.count(), total());
    if let Some(last) = results.last() {
        let commit = last.commit.as_deref().unwrap_or("unknown");
        let _ = writeln!(text, "  {}; commit {commit}", last.machine);
    }
    for line in lines(results) {
        let _ = write!(
            text,
            "  {}\n    theirs  {}\n    aim     {}\n    ours    {}\n",
            line.what, line.theirs, line.aim, line.ours
        );
    }
    text.push_str("  same conditions? no: their units, load and hardware are unknown\n");
    if !broken.is_empty() {
        let _ = writeln!(text, "  FAILED blocks: {}", broken.join(", "));
    }
    text
}

/// The same as rows, for a table.
pub(super) fn rows(results: &[Done]) -> Vec<[String; 4]> {
    let row = |line: Line| {
        [
            line.what.to_owned(),
            line.theirs.to_owned(),
            line.aim.to_owned(),
            line.ours,
        ]
    };
    lines(results).into_iter().map(row).collect()
}
