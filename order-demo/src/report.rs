//! The report of a run, as text for people and JSON for programs.

use std::fmt;

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::verify::{Verification, Violation, Violations};
use std::collections::BTreeMap;

/// Latencies in milliseconds, from the intended start of a send to its acknowledgement.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
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
}

/// Microseconds as milliseconds. Latencies below 285 years lose nothing that matters.
#[allow(clippy::cast_precision_loss)]
pub(crate) fn millis(micros: u64) -> f64 {
    micros as f64 / 1_000.0
}

/// One second of a run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Sample {
    /// Counted from the first order.
    pub second: u64,
    /// Orders sent up to its end.
    pub sent: u64,
    /// Orders acknowledged up to its end.
    pub acknowledged: u64,
    /// Orders priced up to its end.
    pub priced: u64,
}

/// The fault of a run and how the cluster came out of it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Failover {
    /// The broker that was killed.
    pub broker: u32,
    /// The shard that it led and that is measured.
    pub shard: u32,
    /// Orders acknowledged when it was killed.
    pub acknowledged_before: u64,
    /// From the kill to the acknowledgement of an order that was sent after it to the same shard.
    pub failover_ms: Option<f64>,
    /// From the restart until the broker held everything again.
    pub caught_up_ms: Option<f64>,
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

/// A whole run.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// Whether every promise was kept and the fault was measured.
    pub passed: bool,
    /// Orders in the plan.
    pub orders: u64,
    /// Acknowledged.
    pub acknowledged: u64,
    /// Certainly not written.
    pub refused: u64,
    /// May or may not be written.
    pub unknown: u64,
    /// Acknowledged and gone.
    pub lost: u64,
    /// Stored or priced more than once.
    pub duplicated: u64,
    /// Never sent.
    pub phantom: u64,
    /// Order within a key or partition broken.
    pub out_of_order: u64,
    /// Prices that are not those of the input.
    pub price_mismatch: u64,
    /// Orders with a price.
    pub priced: u64,
    /// From the input alone.
    pub expected_total_cents: i64,
    /// As priced.
    pub priced_total_cents: i64,
    /// Whether all copies of all partitions hold the same.
    pub replicas_equal: bool,
    /// Copies compared.
    pub replica_copies: u64,
    /// Acknowledged orders per second, from the first send to the last acknowledgement.
    pub orders_per_s: f64,
    /// Orders per second that were aimed at.
    pub rate: f64,
    /// From the first send to the last acknowledgement, in seconds.
    pub duration_s: f64,
    /// Acknowledge latencies; the clock starts at the intended send.
    pub ack_ms: Latency,
    /// See [`Failover::failover_ms`]; null when no broker was killed.
    pub failover_ms: Option<f64>,
    /// The fault.
    pub failover: Option<Failover>,
    /// Machine, commit, source, seeds.
    #[serde(flatten)]
    pub setting: Setting,
    /// Why the run does not pass beside violations, one sentence each.
    pub problems: Vec<String>,
    /// Broken promises; only kinds that occur.
    pub violations: BTreeMap<Violation, Violations>,
    /// Second by second.
    pub samples: Vec<Sample>,
}

/// What the driver measured.
#[derive(Debug, Clone)]
pub struct Measured {
    /// Orders in the plan.
    pub orders: u64,
    /// Orders per second that were aimed at.
    pub rate: f64,
    /// From the first send to the last acknowledgement, in seconds.
    pub duration_s: f64,
    /// Acknowledge latencies in microseconds.
    pub latencies: Histogram<u64>,
    /// The fault, when there was one.
    pub failover: Option<Failover>,
    /// Second by second.
    pub samples: Vec<Sample>,
    /// What went wrong beside what the checker looks for.
    pub problems: Vec<String>,
}

impl Report {
    /// Puts together what was measured and what was verified.
    #[must_use]
    pub fn new(setting: Setting, measured: Measured, verification: Verification) -> Self {
        let count = |kind| verification.count(kind);
        let acknowledged = verification.acknowledged;
        let mut problems = measured.problems;
        if acknowledged == 0 {
            problems.push("no order was acknowledged".to_owned());
        }
        Self {
            passed: verification.passed() && problems.is_empty(),
            orders: measured.orders,
            acknowledged,
            refused: verification.refused,
            unknown: verification.unknown,
            lost: count(Violation::Lost),
            duplicated: count(Violation::Duplicated),
            phantom: count(Violation::Phantom),
            out_of_order: count(Violation::OutOfOrder),
            price_mismatch: count(Violation::PriceMismatch),
            priced: verification.priced,
            expected_total_cents: verification.expected_total_cents.0,
            priced_total_cents: verification.priced_total_cents.0,
            replicas_equal: count(Violation::ReplicasDiffer) == 0,
            replica_copies: verification.replica_copies,
            orders_per_s: per_second(acknowledged, measured.duration_s),
            rate: measured.rate,
            duration_s: measured.duration_s,
            ack_ms: Latency::from_micros(&measured.latencies),
            failover_ms: measured
                .failover
                .as_ref()
                .and_then(|fault| fault.failover_ms),
            failover: measured.failover,
            setting,
            problems,
            violations: verification.violations,
            samples: measured.samples,
        }
    }

    /// As JSON.
    #[must_use]
    pub fn to_json(&self) -> serde_json::Value {
        // Only a map with keys that are no strings could fail, and there is none.
        serde_json::to_value(self).unwrap_or_default()
    }
}

#[allow(clippy::cast_precision_loss)]
fn per_second(count: u64, seconds: f64) -> f64 {
    if seconds > 0.0 {
        count as f64 / seconds
    } else {
        0.0
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let commit = self.setting.commit.as_deref().unwrap_or("unknown");
        writeln!(f, "{}", if self.passed { "PASSED" } else { "FAILED" })?;
        writeln!(f, "  machine         {}", self.setting.machine)?;
        writeln!(f, "  commit          {commit}")?;
        let seeds: Vec<String> = self
            .setting
            .seeds
            .iter()
            .map(|(what, seed)| format!("{what} {seed}"))
            .collect();
        writeln!(
            f,
            "  accounts        {}; seeds: {}",
            self.setting.source,
            seeds.join(", ")
        )?;
        writeln!(
            f,
            "  orders          {} planned, {} acknowledged, {} refused, {} unknown, {} priced",
            self.orders, self.acknowledged, self.refused, self.unknown, self.priced
        )?;
        writeln!(
            f,
            "  checked         {} lost, {} duplicated, {} out of order, {} phantom, {} mispriced",
            self.lost, self.duplicated, self.out_of_order, self.phantom, self.price_mismatch
        )?;
        let cents = crate::money::Cents;
        writeln!(
            f,
            "  money           {} priced, {} expected from the input",
            cents(self.priced_total_cents),
            cents(self.expected_total_cents)
        )?;
        let equal = if self.replicas_equal {
            "equal"
        } else {
            "DIFFERENT"
        };
        writeln!(
            f,
            "  replicas        {} copies of partitions, {equal}",
            self.replica_copies
        )?;
        writeln!(
            f,
            "  throughput      {:.0} orders/s over {:.1} s (paced at {:.0}/s)",
            self.orders_per_s, self.duration_s, self.rate
        )?;
        let ack = self.ack_ms;
        writeln!(
            f,
            "  acknowledged in {:.1} ms p50, {:.1} ms p99, {:.1} ms p99.9, {:.1} ms at most \
             (from the intended send)",
            ack.p50, ack.p99, ack.p999, ack.max
        )?;
        self.fmt_failover(f)?;
        for problem in &self.problems {
            writeln!(f, "  problem         {problem}")?;
        }
        for (kind, found) in &self.violations {
            writeln!(f, "  {kind:?}: {}", found.count)?;
            for example in &found.examples {
                writeln!(f, "    {example}")?;
            }
        }
        Ok(())
    }
}

impl Report {
    fn fmt_failover(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(fault) = &self.failover else {
            return writeln!(f, "  failover        no broker was killed");
        };
        let time = |ms: Option<f64>| ms.map_or("never".to_owned(), |ms| format!("{ms:.0} ms"));
        writeln!(
            f,
            "  failover        broker {} killed after {} acknowledgements; shard {} acknowledged \
             again after {}; restarted and caught up after {}",
            fault.broker,
            fault.acknowledged_before,
            fault.shard,
            time(fault.failover_ms),
            time(fault.caught_up_ms)
        )
    }
}
