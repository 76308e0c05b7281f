//! What a history was found to show, as data, text and JSON.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

use crate::history::{Key, Offset, Process, Value};

/// The anomalies this crate looks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Anomaly {
    /// An offset holds two values.
    InconsistentOffset,
    /// A value lies at two offsets.
    Duplicate,
    /// A committed value was passed over by every reader.
    LostWrite,
    /// Acknowledged, never polled.
    Unseen,
    /// Read, never sent.
    Phantom,
    /// Read, although its send certainly failed.
    AbortedRead,
    /// An operation read what it was itself still sending.
    PrecommittedRead,
    /// A reader jumped over records that exist.
    PollSkip,
    /// A reader went back.
    NonMonotonicPoll,
    /// One process's sends lie in another order than it sent them.
    NonMonotonicSend,
    /// Read before its send began.
    ReadBeforeSend,
    /// The leader named an end below what it had acknowledged before.
    StaleLatest,
    /// A group's offset went back, or passed what the group had processed.
    GroupRegress,
    /// Two replicas hold different records below the same offset.
    ReplicaDivergence,
    /// Records came back that had been deleted.
    TrimRegress,
    /// Records went that nobody had asked to delete.
    OverTrim,
    /// Of a key, an older record was read than the latest, or none.
    StaleKey,
    /// A record of a deleted topic appeared in another one.
    Revenant,
}

impl Anomaly {
    /// All of them, in the order of reports.
    pub const ALL: [Self; 18] = [
        Self::InconsistentOffset,
        Self::Duplicate,
        Self::LostWrite,
        Self::Unseen,
        Self::Phantom,
        Self::AbortedRead,
        Self::PrecommittedRead,
        Self::PollSkip,
        Self::NonMonotonicPoll,
        Self::NonMonotonicSend,
        Self::ReadBeforeSend,
        Self::StaleLatest,
        Self::GroupRegress,
        Self::ReplicaDivergence,
        Self::TrimRegress,
        Self::OverTrim,
        Self::StaleKey,
        Self::Revenant,
    ];

    /// Its name in reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::InconsistentOffset => "inconsistent-offset",
            Self::Duplicate => "duplicate",
            Self::LostWrite => "lost-write",
            Self::Unseen => "unseen",
            Self::Phantom => "phantom",
            Self::AbortedRead => "aborted-read",
            Self::PrecommittedRead => "precommitted-read",
            Self::PollSkip => "poll-skip",
            Self::NonMonotonicPoll => "non-monotonic-poll",
            Self::NonMonotonicSend => "non-monotonic-send",
            Self::ReadBeforeSend => "read-before-send",
            Self::StaleLatest => "stale-latest",
            Self::GroupRegress => "group-regress",
            Self::ReplicaDivergence => "replica-divergence",
            Self::TrimRegress => "trim-regress",
            Self::OverTrim => "over-trim",
            Self::StaleKey => "stale-key",
            Self::Revenant => "revenant",
        }
    }
}

impl fmt::Display for Anomaly {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// One instance of an anomaly.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Which partition.
    pub key: Key,
    /// The record concerned, when it is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<Value>,
    /// Where, when that is one place.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub offset: Option<Offset>,
    /// Whose operation, when one process is concerned.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub process: Option<Process>,
    /// History indexes of the entries that show it.
    pub entries: Vec<u64>,
    /// One sentence.
    pub detail: String,
}

impl Finding {
    pub(crate) const fn new(key: Key, entries: Vec<u64>, detail: String) -> Self {
        Self {
            key,
            value: None,
            offset: None,
            process: None,
            entries,
            detail,
        }
    }

    pub(crate) const fn value(mut self, value: Value) -> Self {
        self.value = Some(value);
        self
    }

    pub(crate) const fn offset(mut self, offset: Offset) -> Self {
        self.offset = Some(offset);
        self
    }

    pub(crate) const fn process(mut self, process: Process) -> Self {
        self.process = Some(process);
        self
    }
}

/// All instances of one anomaly: how many, and the first few.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Found {
    /// How many there are.
    pub count: u64,
    /// The first of them, at most as many as the options allow.
    pub examples: Vec<Finding>,
}

/// Collects the instances of one anomaly. The sentence of an instance is built only while examples
/// are still wanted, so that a history full of anomalies costs no more than a clean one.
pub(crate) struct Collector {
    found: Found,
    wanted: usize,
}

impl Collector {
    pub(crate) fn new(wanted: usize) -> Self {
        Self {
            found: Found::default(),
            wanted,
        }
    }

    pub(crate) fn add(&mut self, describe: impl FnOnce() -> Finding) {
        self.found.count += 1;
        if self.found.examples.len() < self.wanted {
            self.found.examples.push(describe());
        }
    }

    pub(crate) fn finish(self) -> Found {
        self.found
    }
}

/// The one-word conclusion.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Conclusion {
    /// Enough happened, and nothing that must not.
    Pass,
    /// Something happened that must not.
    Fail,
    /// Nothing forbidden was found, but too little happened to conclude from that.
    Unknown,
}

/// Everything a check of a history has to say.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// The conclusion.
    pub conclusion: Conclusion,
    /// Operations in the history (an invocation and its completion are one).
    pub operations: u64,
    /// Of them, those that ended ok, fail, and info or not at all.
    pub ok: u64,
    /// Certainly without effect.
    pub failed: u64,
    /// Unknown.
    pub unknown: u64,
    /// What was found; only anomalies that occur.
    pub anomalies: BTreeMap<Anomaly, Found>,
    /// Of those found, the ones that do not count against the history, with the reason.
    pub tolerated: BTreeMap<Anomaly, String>,
    /// Why the history is too weak to pass; empty when it is not.
    pub vacuous: Vec<String>,
}

impl Verdict {
    /// How often an anomaly occurs.
    #[must_use]
    pub fn count(&self, anomaly: Anomaly) -> u64 {
        self.anomalies.get(&anomaly).map_or(0, |found| found.count)
    }

    /// As JSON.
    #[must_use]
    pub fn to_json(&self) -> serde_json::Value {
        serde_json::to_value(self).unwrap_or_else(|error| {
            // Only a map with keys that are no strings could fail, and there is none.
            serde_json::Value::String(error.to_string())
        })
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let conclusion = match self.conclusion {
            Conclusion::Pass => "PASS",
            Conclusion::Fail => "FAIL",
            Conclusion::Unknown => "UNKNOWN",
        };
        writeln!(
            f,
            "{conclusion}: {} operations ({} ok, {} failed, {} unknown)",
            self.operations, self.ok, self.failed, self.unknown
        )?;
        for reason in &self.vacuous {
            writeln!(f, "  vacuous: {reason}")?;
        }
        for (anomaly, found) in &self.anomalies {
            let note = self
                .tolerated
                .get(anomaly)
                .map_or(String::new(), |why| format!(" ({why})"));
            writeln!(f, "  {anomaly}: {}{note}", found.count)?;
            for example in &found.examples {
                writeln!(f, "    {} [entries {:?}]", example.detail, example.entries)?;
            }
            let more = found.count.saturating_sub(example_count(found));
            if more > 0 {
                writeln!(f, "    and {more} more")?;
            }
        }
        Ok(())
    }
}

fn example_count(found: &Found) -> u64 {
    found.examples.len() as u64
}
