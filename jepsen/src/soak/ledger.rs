//! The ledger of a soak: one line for each block, appended when its result is known.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::Path;

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

use super::coverage;
use crate::recovery::Sample;
use crate::run::{Report, RunConfig};
use crate::verdict::word;
use crate::workload::AsideCounts;

/// The verdict of a block that was not made.
pub(super) const ERROR: &str = "ERROR";

/// One block.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Entry {
    /// Which, from 0.
    pub block: u64,
    /// Its seed.
    pub seed: u64,
    /// When it ended.
    pub ended: String,
    /// Seconds that clients worked.
    pub seconds: f64,
    /// `PASS`, `FAIL`, `UNKNOWN`, or `ERROR`: it could not be made.
    pub verdict: String,
    /// What the broker's program says of itself: its version, and its commit if the build was told.
    #[serde(default)]
    pub broker: String,
    /// Brokers. 0 in lines that do not say.
    #[serde(default)]
    pub brokers: u32,
    /// `usual` or `tiny`.
    #[serde(default)]
    pub checkpoints: String,
    /// Operations: all, ok, failed, unknown.
    pub operations: [u64; 4],
    /// Acknowledged records.
    pub acknowledged: u64,
    /// Faults that took place, by kind: how many, and how many of them were proven active.
    pub faults: BTreeMap<String, (u64, u64)>,
    /// Faults that were both proven active and overlapped, by their kinds in the order of the
    /// alphabet: `halves + kill-leader`.
    #[serde(default)]
    pub pairs: BTreeMap<String, u64>,
    /// What could not be done there, one sentence each.
    #[serde(default)]
    pub skipped: Vec<String>,
    /// What was done to members of groups, and how often.
    #[serde(default)]
    pub members: BTreeMap<String, u64>,
    /// What became of the topics beside the main one.
    #[serde(default)]
    pub asides: AsideCounts,
    /// Anomalies by name.
    pub anomalies: BTreeMap<String, u64>,
    /// Other findings, and why a verdict is unknown.
    pub remarks: Vec<String>,
    /// What recoveries took.
    pub recovery: Vec<Sample>,
}

impl Entry {
    /// Of a block that was made.
    pub(super) fn of(block: u64, report: &Report) -> Self {
        let history = &report.judgement.history;
        let mut faults: BTreeMap<String, (u64, u64)> = BTreeMap::new();
        for fault in report.faults.iter().filter(|fault| fault.begun) {
            let counts = faults.entry(fault.kind.name().to_owned()).or_default();
            counts.0 += 1;
            counts.1 += u64::from(fault.proven);
        }
        let mut remarks = report.judgement.findings.clone();
        remarks.extend(history.vacuous.iter().cloned());
        let deaths = report.judgement.deaths.iter();
        remarks
            .extend(deaths.map(|death| format!("broker {} ended: {}", death.node, death.status)));
        let anomalies = history.anomalies.iter();
        let members = report.groups.disturbances.iter();
        Self {
            block,
            seed: report.seed,
            ended: jiff::Timestamp::now().to_string(),
            seconds: report.seconds,
            verdict: word(report.judgement.conclusion()).to_owned(),
            broker: report.broker.clone(),
            brokers: report.brokers,
            checkpoints: checkpoints(report.tiny_checkpoints),
            operations: [
                history.operations,
                history.ok,
                history.failed,
                history.unknown,
            ],
            acknowledged: report.acknowledged,
            faults,
            pairs: coverage::pairs(&report.faults),
            skipped: report.judgement.skipped.clone(),
            members: members.map(|(how, n)| ((*how).to_owned(), *n)).collect(),
            asides: report.asides.clone(),
            anomalies: anomalies
                .map(|(name, found)| (name.to_string(), found.count))
                .collect(),
            remarks,
            recovery: report.recovery.clone(),
        }
    }

    /// Of a block that could not be made: the cluster did not form, or the harness failed.
    pub(super) fn of_error(block: u64, config: &RunConfig, error: &anyhow::Error) -> Self {
        Self {
            block,
            seed: config.seed,
            ended: jiff::Timestamp::now().to_string(),
            verdict: ERROR.to_owned(),
            brokers: config.brokers,
            checkpoints: checkpoints(config.checkpoints.tiny(config.seed)),
            remarks: vec![format!("{error:#}")],
            ..Self::default()
        }
    }

    /// The exit code of a run that ended so; with `require_all`, skipping is a failure.
    pub(super) fn exit_code(&self, require_all: bool) -> u8 {
        match self.verdict.as_str() {
            "PASS" | "UNKNOWN" if require_all && !self.skipped.is_empty() => 1,
            "PASS" => 0,
            "UNKNOWN" => 2,
            ERROR => 3,
            _ => 1,
        }
    }

    /// It in a few lines.
    pub(super) fn line(&self) -> String {
        let faults: u64 = self.faults.values().map(|(count, _)| count).sum();
        let remarks = self.remarks.iter().map(|remark| format!("\n    {remark}"));
        let skipped = self
            .skipped
            .iter()
            .map(|what| format!("\n    skipped: {what}"));
        format!(
            "block {} seed {}, {} brokers: {}, {} operations, {} acknowledged, {faults} faults, anomalies {:?}{}",
            self.block,
            self.seed,
            self.brokers,
            self.verdict,
            self.operations[0],
            self.acknowledged,
            self.anomalies,
            remarks.chain(skipped).collect::<String>(),
        )
    }
}

fn checkpoints(tiny: bool) -> String {
    if tiny { "tiny" } else { "usual" }.to_owned()
}

/// The exit code of all blocks together: an anomaly is worse than a block that could not be made, and that is worse
/// than not knowing.
pub(super) fn exit_code(entries: &[Entry], require_all: bool) -> u8 {
    let codes = entries.iter().map(|entry| entry.exit_code(require_all));
    let severity = |code: &u8| match code {
        1 => 3,
        3 => 2,
        2 => 1,
        _ => 0,
    };
    codes.max_by_key(severity).unwrap_or(0)
}

/// Reads a ledger. A last line without an end was being written when the soak was ended.
///
/// # Errors
/// When any other line is none of a ledger.
pub fn read_ledger(path: &Path) -> anyhow::Result<Vec<Entry>> {
    let shown = path.display();
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {shown}"))?;
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    let lines = whole
        .lines()
        .enumerate()
        .filter(|(_, line)| !line.is_empty());
    lines
        .map(|(at, line)| {
            serde_json::from_str(line)
                .with_context(|| format!("{shown}, line {}: not of a ledger", at + 1))
        })
        .collect()
}

pub(super) fn append(path: &Path, entry: &Entry) -> anyhow::Result<()> {
    // A torn last line of an earlier soak is cut, so that this one begins a line.
    if let Ok(text) = fs::read_to_string(path) {
        let whole = text.rfind('\n').map_or(0, |end| end + 1);
        OpenOptions::new()
            .write(true)
            .open(path)?
            .set_len(whole as u64)?;
    }
    let mut file = OpenOptions::new().create(true).append(true).open(path)?;
    writeln!(file, "{}", serde_json::to_string(entry)?)?;
    file.sync_all().context("cannot write the ledger")
}

#[cfg(test)]
#[path = "ledger_tests.rs"]
mod tests;
