//! The report of a run, as text for people, JSON for programs, and one HTML page.

mod html;
mod papers;
mod scaled;
mod svg;
mod text;

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use crate::checker::{Invariant, Verdict, Violation, Violations};
use crate::domain::state::OrderState;
use crate::services::admin::Retries;
use crate::services::dependency::CallCounts;

pub(crate) use html::STYLE;
pub use html::page;
pub(crate) use papers::{SOURCES, wilson};
pub(crate) use scaled::slowest;
pub(crate) use svg::{bars, escape};

/// The slowest that is told apart, in microseconds: one hour.
pub(crate) const SLOWEST_MICROS: u64 = 3_600_000_000;

/// Latencies in milliseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Latency {
    /// Half are faster.
    pub p50: f64,
    /// 99 of 100 are faster.
    pub p99: f64,
    /// 999 of 1000 are faster.
    pub p999: f64,
    /// The slowest.
    pub max: f64,
}

impl Latency {
    /// From a histogram of microseconds.
    #[must_use]
    pub fn from_micros(histogram: &Histogram<u64>) -> Self {
        let at = |quantile| millis(histogram.value_at_quantile(quantile));
        Self {
            p50: at(0.5),
            p99: at(0.99),
            p999: at(0.999),
            max: millis(histogram.max()),
        }
    }

    /// From a histogram of milliseconds.
    #[must_use]
    #[allow(clippy::cast_precision_loss)]
    pub fn from_millis(histogram: &Histogram<u64>) -> Self {
        let at = |quantile| histogram.value_at_quantile(quantile) as f64;
        Self {
            p50: at(0.5),
            p99: at(0.99),
            p999: at(0.999),
            max: histogram.max() as f64,
        }
    }
}

/// Microseconds as milliseconds. Latencies below 285 years lose nothing that matters.
#[allow(clippy::cast_precision_loss)]
pub(crate) fn millis(micros: u64) -> f64 {
    micros as f64 / 1_000.0
}

/// A time in milliseconds.
pub(crate) fn as_millis(time: Duration) -> f64 {
    millis(u64::try_from(time.as_micros()).unwrap_or(u64::MAX))
}

/// One second of a run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Sample {
    /// Counted from the first order.
    pub second: u64,
    /// Orders sent up to its end.
    pub sent: u64,
    /// Orders accepted up to its end.
    pub acknowledged: u64,
    /// Orders priced up to its end.
    pub priced: u64,
    /// Orders ended up to its end.
    pub ended: u64,
    /// Order events up to its end.
    pub events: u64,
    /// Messages that each group has not committed, when the brokers said so in time.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub lag: BTreeMap<String, u64>,
}

/// The death of a broker and how the cluster came out of it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Failover {
    /// The broker that was killed.
    pub broker: u32,
    /// The shard that it led and that is measured.
    pub shard: u32,
    /// From the kill to the acknowledgement of a record that was sent after it to the same shard.
    pub failover_ms: Option<f64>,
    /// From the restart until the broker held everything again.
    pub caught_up_ms: Option<f64>,
}

/// A fault, with the proof that it was active.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct FaultReport {
    /// Its name.
    pub name: String,
    /// When, in seconds from the first order on.
    pub at_s: f64,
    /// Whether it was shown to be active.
    pub active: bool,
    /// How that was shown.
    pub proof: String,
    /// From the fault to the first thing done again, where something was killed.
    pub mttr_ms: Option<f64>,
    /// The death of a broker.
    pub failover: Option<Failover>,
    /// The circuit breaker afterwards.
    pub breaker: Option<CallCounts>,
    /// By how much fewer calls were made while the circuit was not closed than before the fault, in
    /// percent.
    pub calls_down_percent: Option<f64>,
}

/// A further worker that a service got because its group was behind.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Scaled {
    /// The service.
    pub service: String,
    /// When that was decided, in seconds from the first order on.
    pub at_s: f64,
    /// Messages that its group had not committed then.
    pub behind: u64,
    /// From the decision to the first message that the worker handled; none when it handled none.
    pub assigned_ms: Option<f64>,
    /// From the moment when the workers before it no longer worked on what they gave up to that
    /// message: nobody worked on these partitions meanwhile.
    pub pause_ms: Option<f64>,
    /// From the decision to the moment since when the lag was gone.
    pub gone_s: Option<f64>,
    /// From the decision to the one to stop the worker; none when it was there to the end.
    pub stopped_s: Option<f64>,
    /// From the decision to stop it until the others had its partitions.
    pub handed_back_ms: Option<f64>,
}

/// What the caller knows and a reader of the report needs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Setting {
    /// Processor, cores, system.
    pub machine: String,
    /// The commit the programs were built from, when known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub commit: Option<String>,
    /// Where the accounts came from, for people.
    pub source: String,
    /// The seeds of the run, by what they seed.
    pub seeds: BTreeMap<String, u64>,
}

/// The state of every order at a moment of the run.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Replay {
    /// The moment, in seconds from the first order on.
    pub at_s: f64,
    /// How many orders were in each state.
    pub states: BTreeMap<OrderState, u64>,
    /// Each order's.
    pub orders: BTreeMap<String, OrderState>,
}

/// What a service has done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Work {
    /// Messages handled for the first time.
    pub handled: u64,
    /// Commits of its store.
    pub commits: u64,
    /// What it retried, within one budget for all of its layers.
    pub retries: Retries,
}

/// One mode's run, measured and judged.
#[derive(Debug, Clone, Default, Serialize)]
pub struct ModeRun {
    /// `event`, `rest-naive`, `rest-hardened` or `monolith`.
    pub mode: String,
    /// What an answered order has been through.
    pub durability: String,
    /// Orders in the plan.
    pub orders: u64,
    /// Orders per second that were aimed at.
    pub rate: f64,
    /// From the first intended request to the last 202, in seconds.
    pub duration_s: f64,
    /// From the first intended request to the last end, in seconds.
    pub to_last_end_s: f64,
    /// Accepted orders per second.
    pub orders_per_s: f64,
    /// Ended orders per second, until the last has ended.
    pub ended_per_s: f64,
    /// Messages in all topics per second, until the last order has ended.
    pub workflow_events_per_s: f64,
    /// From the intended request to the 202.
    pub ack_ms: Latency,
    /// From the intended request to the end of completed orders.
    pub completion_ms: Latency,
    /// From the intended request to each stage.
    pub stage_ms: BTreeMap<String, Latency>,
    /// Orders that ended within five seconds.
    pub in_time: u64,
    /// Processor seconds by process.
    pub cpu_s: BTreeMap<String, f64>,
    /// Messages handled and commits, by service, since each was last started.
    pub work: BTreeMap<String, Work>,
    /// Second by second.
    pub samples: Vec<Sample>,
    /// Further workers, in the order in which they were started.
    pub scaled: Vec<Scaled>,
    /// The faults.
    pub faults: Vec<FaultReport>,
    /// What went wrong beside what the checker looks for.
    pub problems: Vec<String>,
    /// The past, when it was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replay: Option<Replay>,
    /// What the checker found.
    pub verdict: Verdict,
}

impl ModeRun {
    /// Whether every promise was kept, and every fault was active.
    #[must_use]
    pub fn passed(&self) -> bool {
        self.verdict.passed && self.problems.is_empty() && self.faults.iter().all(|f| f.active)
    }

    fn failover(&self) -> Option<&Failover> {
        self.faults.iter().find_map(|fault| fault.failover.as_ref())
    }
}

/// A whole run: the event mode, and whatever else was run beside it.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Whether every mode kept every promise.
    pub passed: bool,
    /// Orders in the plan.
    pub orders: u64,
    /// Accepted.
    pub acknowledged: u64,
    /// Certainly not taken over.
    pub refused: u64,
    /// May or may not be taken over.
    pub unknown: u64,
    /// Accepted and gone.
    pub lost: u64,
    /// Orders or events that are there twice, and effects that happened twice.
    pub duplicated: u64,
    /// Never sent.
    pub phantom: u64,
    /// Events of an order with a gap or in an order that may not be.
    pub out_of_order: u64,
    /// Prices that are not those of the input.
    pub price_mismatch: u64,
    /// Orders that were priced and invoiced.
    pub priced: u64,
    /// From the input alone.
    pub expected_total_cents: i64,
    /// As invoiced.
    pub priced_total_cents: i64,
    /// Whether all copies of all partitions hold the same.
    pub replicas_equal: bool,
    /// Copies compared.
    pub replica_copies: u64,
    /// Accepted orders per second, from the first request to the last 202.
    pub orders_per_s: f64,
    /// Messages in all topics per second, until the last order has ended.
    pub workflow_events_per_s: f64,
    /// Orders per second that were aimed at.
    pub rate: f64,
    /// From the first request to the last 202, in seconds.
    pub duration_s: f64,
    /// From the intended request to the 202.
    pub ack_ms: Latency,
    /// From the intended request to the end of completed orders.
    pub completion_ms: Latency,
    /// From the kill of a broker to the first acknowledgement of what was sent after it; null when
    /// no broker was killed.
    pub failover_ms: Option<f64>,
    /// The death of a broker.
    pub failover: Option<Failover>,
    /// Machine, commit, source, seeds.
    #[serde(flatten)]
    pub setting: Setting,
    /// 4 KiB made durable, a hundred times.
    pub fsync_ms: Latency,
    /// Why the run does not pass beside violations, one sentence each.
    pub problems: Vec<String>,
    /// The invariants, judged.
    pub invariants: Vec<Invariant>,
    /// Broken promises; only kinds that occur.
    pub violations: BTreeMap<Violation, Violations>,
    /// Second by second.
    pub samples: Vec<Sample>,
    /// Every mode's run.
    pub modes: Vec<ModeRun>,
}

impl Report {
    /// Puts together what was measured; the first run is the one that the report is about.
    #[must_use]
    pub fn new(setting: Setting, fsync_ms: Latency, modes: Vec<ModeRun>) -> Self {
        let first = modes.first().cloned().unwrap_or_default();
        let verdict = &first.verdict;
        let count = |kinds: &[Violation]| kinds.iter().map(|kind| verdict.count(*kind)).sum();
        Self {
            passed: !modes.is_empty() && modes.iter().all(ModeRun::passed),
            orders: first.orders,
            acknowledged: verdict.acknowledged,
            refused: verdict.refused,
            unknown: verdict.unknown,
            lost: count(&[Violation::Lost]),
            duplicated: count(&[Violation::Duplicated, Violation::EffectTwice]),
            phantom: count(&[Violation::Phantom]),
            out_of_order: count(&[Violation::OutOfOrder, Violation::IllegalState]),
            price_mismatch: count(&[Violation::PriceMismatch]),
            priced: verdict.priced,
            expected_total_cents: verdict.expected_total_cents,
            priced_total_cents: verdict.priced_total_cents,
            replicas_equal: verdict.count(Violation::ReplicasDiffer) == 0,
            replica_copies: verdict.replica_copies,
            orders_per_s: first.orders_per_s,
            workflow_events_per_s: first.workflow_events_per_s,
            rate: first.rate,
            duration_s: first.duration_s,
            ack_ms: first.ack_ms,
            completion_ms: first.completion_ms,
            failover_ms: first.failover().and_then(|fault| fault.failover_ms),
            failover: first.failover().cloned(),
            setting,
            fsync_ms,
            problems: modes
                .iter()
                .flat_map(|mode| mode.problems.clone())
                .collect(),
            invariants: verdict.invariants.clone(),
            violations: verdict.violations.clone(),
            samples: first.samples.clone(),
            modes,
        }
    }

    /// As JSON.
    #[must_use]
    pub fn to_json(&self) -> serde_json::Value {
        // Only a map with keys that are no strings could fail, and there is none.
        serde_json::to_value(self).unwrap_or_default()
    }
}

/// How many per second; zero when no time has passed.
#[allow(clippy::cast_precision_loss)]
pub(crate) fn per_second(count: u64, seconds: f64) -> f64 {
    if seconds > 0.0 {
        count as f64 / seconds
    } else {
        0.0
    }
}

#[cfg(test)]
#[path = "report_tests.rs"]
mod tests;
