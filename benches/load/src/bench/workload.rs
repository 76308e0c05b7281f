//! Workloads as the OpenMessaging Benchmark writes them, and keys of our own beside its.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use serde::{Deserialize, Serialize};

/// A workload. Keys that it does not know are kept in `other` and reported, not refused.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Workload {
    /// For reports.
    pub name: String,
    /// Topics to make.
    pub topics: u32,
    /// Partitions of each.
    pub partitions_per_topic: u32,
    /// How keys are chosen.
    pub key_distributor: KeyDistributor,
    /// Bytes of each payload.
    pub message_size: usize,
    /// Whether payloads hold random bytes.
    pub use_randomized_payloads: bool,
    /// The part of a payload that is random, 0 to 1.
    pub random_bytes_ratio: f64,
    /// How many random payloads there are.
    pub randomized_payload_pool_size: usize,
    /// The payload itself, relative to the workload's folder or the one above it.
    pub payload_file: Option<PathBuf>,
    /// How often each topic is read; 0: not at all.
    pub subscriptions_per_topic: u32,
    /// Consumers that share the partitions of a subscription.
    pub consumer_per_subscription: u32,
    /// Producers of each topic.
    pub producers_per_topic: u32,
    /// Messages per second of all producers together, open loop; 0: as fast as it goes.
    pub producer_rate: f64,
    /// Gigabytes of backlog to build before consumers begin; 0: none.
    #[serde(rename = "consumerBacklogSizeGB")]
    pub consumer_backlog_size_gb: f64,
    /// Minutes before measuring; absent: one.
    pub warmup_duration_minutes: Option<f64>,
    /// Minutes of measuring.
    pub test_duration_minutes: f64,

    /// Ours: records outstanding per producer when there is no rate; 1: one at a time.
    pub window: Option<usize>,
    /// Ours: how many different keys there are; absent: 10,000.
    pub key_count: Option<usize>,
    /// Ours: settings of the topics.
    pub topic_config: BTreeMap<String, String>,
    /// Ours: milliseconds that a producer waits for a fuller batch.
    pub linger_ms: Option<f64>,
    /// Ours: bytes of a full batch.
    pub batch_bytes: Option<usize>,
    /// Ours: the leader of partition 0 is killed this many seconds into measuring.
    pub kill_leader_after_seconds: Option<f64>,
    /// Ours: this many readers begin at the first record in the middle of measuring.
    pub catch_up_readers: u32,

    /// Keys that no version of this program knows.
    #[serde(flatten)]
    pub other: BTreeMap<String, serde_json::Value>,
}

/// How keys are chosen.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum KeyDistributor {
    /// None: the client spreads batches.
    #[default]
    NoKey,
    /// One after the other.
    KeyRoundRobin,
    /// At random, each as likely.
    RandomNano,
    /// At random, the n-th with a likelihood of 1/n (ours).
    Zipf,
}

/// Keys of the original that change nothing here.
const WITHOUT_EFFECT: [&str; 10] = [
    "acceptableBacklog",
    "logIntervalMillis",
    "messageRateReceivedForSubscription",
    "producerIncrementRate",
    "producerIncrementSeconds",
    "producerPauseBeforeDrain",
    "producerPauseDuringDrain",
    "producerStartRate",
    "sampleRateMillis",
    "subscriptions",
];

impl Workload {
    /// Reads a workload and its payload.
    ///
    /// # Errors
    /// When it cannot be read, is not YAML of this shape, or makes no sense.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("cannot read {}", path.display()))?;
        let mut workload = Self::parse(&text).with_context(|| path.display().to_string())?;
        if workload.name.is_empty() {
            let stem = path.file_stem().unwrap_or_default();
            workload.name = stem.to_string_lossy().into_owned();
        }
        if let Some(payload) = &workload.payload_file {
            workload.payload_file = Some(beside(path, payload));
        }
        Ok(workload)
    }
    /// Of a text.
    ///
    /// # Errors
    /// When it is not YAML of this shape, or makes no sense.
    pub fn parse(text: &str) -> anyhow::Result<Self> {
        let workload: Self = serde_saphyr::from_str(text)?;
        workload.check()?;
        Ok(workload)
    }
    /// Whether it can be run.
    ///
    /// # Errors
    /// Naming what is missing.
    pub fn check(&self) -> anyhow::Result<()> {
        if self.topics == 0 || self.partitions_per_topic == 0 {
            bail!("topics and partitionsPerTopic must be at least 1");
        }
        if self.message_size == 0 && self.payload_file.is_none() {
            bail!("messageSize or payloadFile is needed");
        }
        if self.test_duration_minutes <= 0.0 || !self.test_duration_minutes.is_finite() {
            bail!("testDurationMinutes must be above 0");
        }
        if self.producer_rate < 0.0 || !self.producer_rate.is_finite() {
            bail!("producerRate must be 0 or more");
        }
        if self.producers_per_topic == 0 {
            bail!("producersPerTopic must be at least 1");
        }
        if self.subscriptions_per_topic > 0 && self.consumer_per_subscription == 0 {
            bail!("consumerPerSubscription must be at least 1");
        }
        if self.consumer_backlog_size_gb > 0.0 && self.subscriptions_per_topic == 0 {
            bail!("a backlog needs subscriptions that drain it");
        }
        Ok(())
    }
    /// Keys that are not understood, or understood and without effect.
    pub fn ignored(&self) -> Vec<String> {
        let mut ignored = Vec::new();
        for key in self.other.keys() {
            if WITHOUT_EFFECT.contains(&key.as_str()) {
                ignored.push(format!("{key} (no effect here)"));
            } else {
                ignored.push(format!("{key} (not known)"));
            }
        }
        ignored
    }
    /// Records outstanding per producer.
    pub fn window(&self) -> usize {
        const BYTES_OUTSTANDING: usize = 8 << 20;
        self.window.unwrap_or_else(|| {
            let all = BYTES_OUTSTANDING / self.message_size.max(256);
            (all / self.producers_per_topic.max(1) as usize).max(64)
        })
    }
}

/// The payload's path: beside the workload, in the folder above (as the original's files have
/// it), or as it stands.
fn beside(workload: &Path, payload: &Path) -> PathBuf {
    let folder = workload.parent().unwrap_or(Path::new(""));
    let above = folder.join("..");
    for base in [folder, above.as_path()] {
        let found = base.join(payload);
        if found.exists() {
            return found;
        }
    }
    payload.to_owned()
}

#[cfg(test)]
#[path = "workload_tests.rs"]
mod tests;
