//! What a block has measured, one line of JSON each.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::path::Path;

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

use super::block::Block;
use crate::report::{Latency, ModeRun, Report, Scaled};

/// A fault of a block.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DoneFault {
    /// Its name.
    pub name: String,
    /// Whether it was shown to be active.
    pub active: bool,
    /// From the fault to the first thing done again, in milliseconds.
    pub mttr_ms: Option<f64>,
    /// How it was shown.
    pub proof: String,
}

/// One mode of a block.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DoneMode {
    /// Its name.
    pub mode: String,
    /// Whether every promise was kept.
    pub passed: bool,
    /// Orders accepted.
    pub accepted: u64,
    /// Of those, orders that ended within five seconds.
    pub in_time: u64,
    /// Orders that ended per second, until the last one had.
    pub ended_per_s: f64,
    /// Messages in all topics per second, until the last order had ended.
    pub events_per_s: f64,
    /// From the last 202 to the last end, in seconds.
    pub drain_s: f64,
    /// The most orders that were accepted and had not ended, at the end of any second.
    pub backlog: u64,
    /// From the intended request to the 202.
    pub ack_ms: Latency,
    /// From the intended request to the end of completed orders.
    pub completion_ms: Latency,
    /// Processor seconds of brokers and services.
    pub cpu_s: f64,
    /// Orders parked.
    pub parked: u64,
    /// Further workers.
    #[serde(default)]
    pub scaled: Vec<Scaled>,
    /// The faults.
    pub faults: Vec<DoneFault>,
}

/// One block, done.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Done {
    /// Its name.
    pub block: String,
    /// The seed of its orders.
    pub seed: u64,
    /// The commit that was measured, when known.
    pub commit: Option<String>,
    /// The machine.
    pub machine: String,
    /// When it ended, in milliseconds since 1970.
    pub ended_unix_ms: i64,
    /// Orders per second that were aimed at.
    pub rate: f64,
    /// Orders.
    pub orders: u64,
    /// Whether every promise was kept in every mode.
    pub passed: bool,
    /// What went wrong.
    pub problems: Vec<String>,
    /// 4 KiB made durable, a hundred times.
    pub fsync_ms: Latency,
    /// Its modes.
    pub modes: Vec<DoneMode>,
}

impl Done {
    /// What a report says of a block.
    #[must_use]
    pub fn of(block: &Block, report: &Report, ended_unix_ms: i64) -> Self {
        let kinds = report
            .modes
            .iter()
            .flat_map(|mode| &mode.verdict.violations);
        let kinds = kinds.map(|(kind, found)| format!("{kind:?}: {}", found.count));
        Self {
            block: block.name.clone(),
            seed: block.seed,
            commit: report.setting.commit.clone(),
            machine: report.setting.machine.clone(),
            ended_unix_ms,
            rate: report.rate,
            orders: report.orders,
            passed: report.passed,
            problems: report.problems.iter().cloned().chain(kinds).collect(),
            fsync_ms: report.fsync_ms,
            modes: report.modes.iter().map(DoneMode::of).collect(),
        }
    }

    /// The mode over the broker.
    #[must_use]
    pub fn event(&self) -> Option<&DoneMode> {
        self.modes.iter().find(|mode| mode.mode == "event")
    }
}

impl DoneMode {
    fn of(run: &ModeRun) -> Self {
        let open = run.samples.iter();
        let open = open.map(|s| s.acknowledged.saturating_sub(s.ended));
        let own = run.cpu_s.iter().filter(|(name, _)| *name != "driver");
        let fault = |fault: &crate::report::FaultReport| DoneFault {
            name: fault.name.clone(),
            active: fault.active,
            mttr_ms: fault.mttr_ms,
            proof: fault.proof.clone(),
        };
        Self {
            mode: run.mode.clone(),
            passed: run.passed(),
            accepted: run.verdict.acknowledged,
            in_time: run.in_time,
            ended_per_s: run.ended_per_s,
            events_per_s: run.workflow_events_per_s,
            drain_s: (run.to_last_end_s - run.duration_s).max(0.0),
            backlog: open.max().unwrap_or(0),
            ack_ms: run.ack_ms,
            completion_ms: run.completion_ms,
            cpu_s: own.map(|(_, seconds)| seconds).sum(),
            parked: run.verdict.parked,
            scaled: run.scaled.clone(),
            faults: run.faults.iter().map(fault).collect(),
        }
    }
}

/// The blocks of a file, in the order in which they were done. A missing file has none; a torn last
/// line is left out, as the process died while it wrote it.
///
/// # Errors
/// When the file cannot be read, or another line does not read.
pub fn load(path: &Path) -> anyhow::Result<Vec<Done>> {
    let shown = path.display();
    let mut text = String::new();
    match File::open(path) {
        Ok(mut file) => file.read_to_string(&mut text),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => Err(error),
    }
    .with_context(|| format!("{shown} cannot be read"))?;
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    let line = |(at, line): (usize, &str)| {
        serde_json::from_str(line).with_context(|| format!("{shown}: line {}", at + 1))
    };
    whole.lines().enumerate().map(line).collect()
}

/// Appends a block; it is on the disk when this returns. A torn last line is cut off first.
///
/// # Errors
/// Those of the file system.
pub fn append(path: &Path, done: &Done) -> anyhow::Result<()> {
    let shown = || format!("cannot write {}", path.display());
    let mut file = OpenOptions::new()
        .create(true)
        .read(true)
        .append(true)
        .open(path)
        .with_context(shown)?;
    let mut text = Vec::new();
    file.read_to_end(&mut text).with_context(shown)?;
    let whole = text.iter().rposition(|byte| *byte == b'\n');
    let whole = whole.map_or(0, |end| end + 1);
    if whole < text.len() {
        file.set_len(whole as u64).with_context(shown)?;
    }
    let mut line = serde_json::to_string(done)?;
    line.push('\n');
    file.write_all(line.as_bytes()).with_context(shown)?;
    file.sync_all().with_context(shown)
}
