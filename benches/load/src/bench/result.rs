//! What came out of a run: the OpenMessaging Benchmark's result fields, so that its charts work,
//! and what it cost.
//!
//! Latencies are milliseconds from the time a record was meant to be sent. Lists have a value per
//! second.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::calibrate::Calibration;
use super::collect::Second;
use super::coordinate::Subject;
use super::histogram::Latencies;
use super::procfs::{MachineUse, Usage};
use super::workload::Workload;
use crate::stats::machine;

/// The percentiles that results name, with the endings of their fields.
const PERCENTILES: [(&str, f64); 8] = [
    ("50pct", 50.0),
    ("75pct", 75.0),
    ("95pct", 95.0),
    ("99pct", 99.0),
    ("999pct", 99.9),
    ("9999pct", 99.99),
    ("99999pct", 99.999),
    ("Max", 100.0),
];

/// The percentiles of distribution charts.
const QUANTILES: [f64; 25] = [
    0.0, 10.0, 20.0, 30.0, 40.0, 50.0, 60.0, 70.0, 75.0, 80.0, 85.0, 90.0, 92.5, 95.0, 97.5, 98.0,
    99.0, 99.5, 99.75, 99.9, 99.95, 99.99, 99.995, 99.999, 100.0,
];

/// The seconds that were measured, and what was used in them.
pub struct Span {
    /// Seconds since 1970.
    pub from: u64,
    /// Seconds since 1970.
    pub to: u64,
    /// What was used.
    pub costs: Costs,
}

/// What a process used.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ProcessCost {
    /// What it is.
    pub name: String,
    /// What it used.
    #[serde(flatten)]
    pub usage: Usage,
}

impl ProcessCost {
    /// Of a name and a usage.
    pub fn new(name: String, usage: Usage) -> Self {
        Self { name, usage }
    }
}

/// What a run used.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Costs {
    /// Brokers first, then clients.
    pub processes: Vec<ProcessCost>,
    /// The whole machine.
    pub machine: MachineUse,
    /// Syncs of the brokers' logs, as they count them.
    pub fsyncs: Option<f64>,
}

impl Costs {
    /// All brokers together.
    pub fn brokers(&self) -> Usage {
        self.sum(|name| name.starts_with("broker"))
    }
    /// All clients together.
    pub fn clients(&self) -> Usage {
        self.sum(|name| !name.starts_with("broker"))
    }
    /// The part of the machine's CPU that neither brokers nor clients used, 0 to 1; absent when
    /// the brokers are not known.
    pub fn others(&self) -> Option<f64> {
        let brokers = self.brokers();
        if brokers == Usage::default() {
            return None;
        }
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let ours = brokers.cpu_seconds + self.clients().cpu_seconds;
        let whole = self.machine.seconds * cores as f64;
        Some(((self.machine.busy_seconds - ours) / whole).max(0.0))
    }
    fn sum(&self, wanted: impl Fn(&str) -> bool) -> Usage {
        let mut sum = Usage::default();
        for process in self.processes.iter().filter(|one| wanted(&one.name)) {
            sum.cpu_seconds += process.usage.cpu_seconds;
            sum.write_bytes += process.usage.write_bytes;
            sum.voluntary_switches += process.usage.voluntary_switches;
            sum.involuntary_switches += process.usage.involuntary_switches;
            sum.resident_bytes += process.usage.resident_bytes;
        }
        sum
    }
}

/// A run's outcome.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// The name of what was driven.
    pub driver: String,
    /// What was done.
    pub workload: Workload,
    /// What a synced write cost before it.
    pub calibration: Calibration,
    /// What it used.
    pub costs: Costs,
    /// Records acknowledged and not read at the end.
    pub unread: u64,
    /// Different failures of records.
    pub failures: Vec<String>,
    /// Per second.
    pub seconds: Vec<Second>,
    /// All seconds together.
    pub whole: Second,
}

impl Outcome {
    pub(super) fn of(subject: &Subject<'_>, workload: &Workload, span: &Span) -> Self {
        Self {
            driver: subject.driver.clone(),
            workload: workload.clone(),
            calibration: Calibration::default(),
            costs: span.costs.clone(),
            unread: 0,
            failures: Vec::new(),
            seconds: Vec::new(),
            whole: Second::default(),
        }
    }
    pub(super) fn fill(&mut self, seconds: &[Second]) {
        for second in seconds {
            let whole = &mut self.whole;
            whole.sent += second.sent;
            whole.acknowledged += second.acknowledged;
            whole.failed += second.failed;
            whole.bytes += second.bytes;
            whole.received += second.received;
            whole.received_bytes += second.received_bytes;
            whole.caught_up_bytes += second.caught_up_bytes;
            whole.publish.add(&second.publish);
            whole.delay.add(&second.delay);
            whole.end_to_end.add(&second.end_to_end);
        }
        self.seconds = seconds.to_vec();
    }
    /// Length of the measured span, in seconds.
    pub fn span(&self) -> f64 {
        self.costs.machine.seconds.max(1e-9)
    }
    /// Payload megabytes (10^6) acknowledged per second.
    pub fn mb_per_second(&self) -> f64 {
        self.whole.bytes as f64 / 1e6 / self.span()
    }
    /// Records acknowledged per second.
    pub fn rate(&self) -> f64 {
        self.whole.acknowledged as f64 / self.span()
    }
    /// A quantity per gigabyte (10^9) of payload acknowledged.
    pub fn per_gb(&self, quantity: f64) -> f64 {
        quantity / (self.whole.bytes as f64 / 1e9).max(1e-9)
    }
    /// The result file.
    pub fn to_json(&self) -> Value {
        let mut json = Map::new();
        let workload = &self.workload;
        let consumers = workload.subscriptions_per_topic * workload.consumer_per_subscription;
        let mut put = |name: &str, value: Value| json.insert(name.to_owned(), value);
        put("workload", json!(workload.name));
        put("driver", json!(self.driver));
        put("messageSize", json!(workload.message_size));
        put("topics", json!(workload.topics));
        put("partitions", json!(workload.partitions_per_topic));
        put("producersPerTopic", json!(workload.producers_per_topic));
        put("consumersPerTopic", json!(consumers));
        put("sampleRateMillis", json!(1000));
        let list = |of: &dyn Fn(&Second) -> u64| -> Value {
            self.seconds.iter().map(|s| of(s) as f64).collect()
        };
        put("publishRate", list(&|second| second.acknowledged));
        put("publishErrorRate", list(&|second| second.failed));
        put("consumeRate", list(&|second| second.received));
        put("backlog", self.backlog());
        self.put_latencies(&mut json, "publishLatency", |second| &second.publish);
        self.put_latencies(&mut json, "publishDelayLatency", |second| &second.delay);
        self.put_latencies(&mut json, "endToEndLatency", |second| &second.end_to_end);
        json.insert("highwater".to_owned(), self.extras());
        Value::Object(json)
    }
    /// Records acknowledged and not yet read, second by second.
    fn backlog(&self) -> Value {
        let times = i128::from(self.workload.subscriptions_per_topic);
        let mut behind = 0i128;
        let backlog = self.seconds.iter().map(|second| {
            behind += i128::from(second.acknowledged) * times - i128::from(second.received);
            // Seconds of different processes end at different moments.
            i64::try_from(behind.max(0)).unwrap_or(i64::MAX)
        });
        backlog.collect()
    }
    fn put_latencies(
        &self,
        json: &mut Map<String, Value>,
        name: &str,
        of: impl Fn(&Second) -> &Latencies,
    ) {
        let capital = format!("aggregated{}{}", name[..1].to_uppercase(), &name[1..]);
        let whole = of(&self.whole);
        let means: Value = self.seconds.iter().map(|s| of(s).mean_ms()).collect();
        json.insert(format!("{name}Avg"), means);
        json.insert(format!("{capital}Avg"), json!(whole.mean_ms()));
        for (ending, percentile) in PERCENTILES {
            let values: Value = self
                .seconds
                .iter()
                .map(|second| of(second).percentile_ms(percentile))
                .collect();
            json.insert(format!("{name}{ending}"), values);
            let value = whole.percentile_ms(percentile);
            json.insert(format!("{capital}{ending}"), json!(value));
        }
        let quantiles: BTreeMap<String, f64> = QUANTILES
            .iter()
            .map(|&at| (format!("{at:?}"), whole.percentile_ms(at)))
            .collect();
        json.insert(format!("{capital}Quantiles"), json!(quantiles));
    }
    /// What the original does not have.
    fn extras(&self) -> Value {
        json!({
            "machine": machine(),
            "calibration": self.calibration,
            "costs": self.costs,
            "seconds": self.span(),
            "acknowledgedRecords": self.whole.acknowledged,
            "acknowledgedBytes": self.whole.bytes,
            "failedRecords": self.whole.failed,
            "failures": self.failures,
            "receivedBytes": self.whole.received_bytes,
            "caughtUpBytes": self.whole.caught_up_bytes,
            "unreadRecords": self.unread,
            "workload": self.workload,
        })
    }
}

#[cfg(test)]
#[path = "result_tests.rs"]
mod tests;
