//! Hours of runs in blocks. Each block's result is appended to a ledger when it is known, so that a
//! soak that was ended goes on where it stopped.

mod coverage;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use highwater_checker::Conclusion;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use crate::recovery::{Sample, availability, beside_others, by_kind};
use crate::run::{Event, Listener, Report, RunConfig};
use crate::verdict::word;

/// The ledger's name in the directory of a soak.
pub const LEDGER: &str = "ledger.jsonl";

/// The page that shows it, beside it.
pub const PAGE: &str = "ledger.html";

/// A block that failed is kept whole; of the others, only this.
const KEPT: [&str; 2] = ["report.json", "timeline.html"];

/// One block.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Entry {
    /// Which, from 0.
    pub block: u64,
    /// Its seed.
    pub seed: u64,
    /// When it ended.
    pub ended: String,
    /// Seconds that clients worked.
    pub seconds: f64,
    /// `PASS`, `FAIL` or `UNKNOWN`.
    pub verdict: String,
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
    /// Anomalies by name.
    pub anomalies: BTreeMap<String, u64>,
    /// Other findings, and why a verdict is unknown.
    pub remarks: Vec<String>,
    /// What recoveries took.
    pub recovery: Vec<Sample>,
}

/// Makes blocks until `time` seconds of work are in the ledger. The worst verdict counts.
///
/// # Errors
/// Errors of the harness.
pub async fn run(
    config: RunConfig,
    time: Duration,
    require_all: bool,
    stop: &CancellationToken,
) -> anyhow::Result<ExitCode> {
    fs::create_dir_all(&config.out)
        .with_context(|| format!("cannot create {}", config.out.display()))?;
    let path = config.out.join(LEDGER);
    let mut entries = if path.exists() {
        read_ledger(&path)?
    } else {
        Vec::new()
    };
    let first_seed = entries.first().map_or(config.seed, |entry| entry.seed);
    let mut worst = 0;
    loop {
        let done: f64 = entries.iter().map(|entry| entry.seconds).sum();
        if done >= time.as_secs_f64() || stop.is_cancelled() {
            break;
        }
        let block = entries.last().map_or(0, |entry| entry.block + 1);
        let seed = first_seed.wrapping_add(block);
        let mut one = config.clone();
        one.seed = seed;
        one.out = config.out.join(format!("block-{block:05}"));
        // What an interrupted attempt at this block left is no result.
        let _ = fs::remove_dir_all(&one.out);
        let quiet: Listener = Arc::new(|_: Event<'_>| {});
        let report = crate::run::run(&one, stop, &quiet).await?;
        if report.judgement.interrupted {
            break;
        }
        let entry = entry(block, &report);
        append(&path, &entry)?;
        entries.push(entry);
        show(&config.out.join(PAGE), &entries)?;
        let Some(entry) = entries.last() else { break };
        eprintln!("{}", line(entry));
        worst = worst.max(severity(report.judgement.exit_code(require_all)));
        if report.judgement.conclusion() == Conclusion::Pass {
            thin_out(&one.out)?;
        }
    }
    let samples: Vec<Sample> = entries
        .iter()
        .flat_map(|entry| entry.recovery.clone())
        .collect();
    println!("{}\n{}", by_kind(&samples), availability(&samples));
    println!("{}", beside_others(&samples));
    println!("{}", summary(&entries));
    Ok(ExitCode::from(match worst {
        2 => 1,
        1 => 2,
        _ => 0,
    }))
}

/// Of exit codes, an anomaly is worse than not knowing.
const fn severity(exit_code: u8) -> u8 {
    match exit_code {
        1 => 2,
        2 => 1,
        _ => 0,
    }
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

fn append(path: &Path, entry: &Entry) -> anyhow::Result<()> {
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

fn entry(block: u64, report: &Report) -> Entry {
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
    remarks.extend(deaths.map(|death| format!("broker {} ended: {}", death.node, death.status)));
    let anomalies = history.anomalies.iter();
    Entry {
        block,
        seed: report.seed,
        ended: jiff::Timestamp::now().to_string(),
        seconds: report.seconds,
        verdict: word(report.judgement.conclusion()).to_owned(),
        operations: [
            history.operations,
            history.ok,
            history.failed,
            history.unknown,
        ],
        acknowledged: report.acknowledged,
        faults,
        pairs: coverage::pairs(&report.faults),
        anomalies: anomalies
            .map(|(name, found)| (name.to_string(), found.count))
            .collect(),
        remarks,
        recovery: report.recovery.clone(),
    }
}

fn line(entry: &Entry) -> String {
    let faults: u64 = entry.faults.values().map(|(count, _)| count).sum();
    let remarks = entry.remarks.iter().map(|remark| format!("\n    {remark}"));
    format!(
        "block {} seed {}: {}, {} operations, {} acknowledged, {faults} faults, anomalies {:?}{}",
        entry.block,
        entry.seed,
        entry.verdict,
        entry.operations[0],
        entry.acknowledged,
        entry.anomalies,
        remarks.collect::<String>(),
    )
}

/// Writes the page of a ledger anew.
///
/// # Errors
/// When the file cannot be written.
pub fn show(path: &Path, entries: &[Entry]) -> anyhow::Result<()> {
    fs::write(path, coverage::page(entries))
        .with_context(|| format!("cannot write {}", path.display()))
}

/// Drops what only an investigation would need.
fn thin_out(directory: &Path) -> anyhow::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        if KEPT.iter().any(|kept| name == *kept) {
            continue;
        }
        let path = entry.path();
        if entry.file_type()?.is_dir() {
            fs::remove_dir_all(&path)
        } else {
            fs::remove_file(&path)
        }
        .with_context(|| format!("cannot remove {}", path.display()))?;
    }
    Ok(())
}

/// Everything in a ledger, in a few lines.
#[must_use]
pub fn summary(entries: &[Entry]) -> String {
    let mut verdicts: BTreeMap<&str, u64> = BTreeMap::new();
    let mut faults: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
    let mut anomalies: BTreeMap<&str, u64> = BTreeMap::new();
    let (mut operations, mut acknowledged, mut seconds) = ([0; 4], 0, 0.0);
    for entry in entries {
        *verdicts.entry(&entry.verdict).or_default() += 1;
        for (sum, count) in operations.iter_mut().zip(entry.operations) {
            *sum += count;
        }
        acknowledged += entry.acknowledged;
        seconds += entry.seconds;
        for (kind, (count, proven)) in &entry.faults {
            let counts = faults.entry(kind).or_default();
            counts.0 += count;
            counts.1 += proven;
        }
        for (name, count) in &entry.anomalies {
            *anomalies.entry(name).or_default() += count;
        }
    }
    let [all, ok, failed, unknown] = operations;
    let mut text = format!(
        "{} blocks, {:.1} h: {verdicts:?}\n{all} operations ({ok} ok, {failed} failed, {unknown} \
         unknown), {acknowledged} acknowledged records\n",
        entries.len(),
        seconds / 3_600.0,
    );
    let total: u64 = faults.values().map(|(count, _)| count).sum();
    let _ = write!(text, "{total} faults:");
    for (kind, (count, proven)) in faults {
        let _ = write!(text, " {kind} {count}");
        if proven < count {
            let _ = write!(text, " ({proven} proven)");
        }
    }
    let _ = write!(text, "\nanomalies: {anomalies:?}");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(block: u64) -> Entry {
        Entry {
            block,
            seed: 7 + block,
            ended: String::new(),
            seconds: 60.0,
            verdict: "PASS".into(),
            operations: [10, 8, 1, 1],
            acknowledged: 16,
            faults: BTreeMap::from([("pause".to_owned(), (2, 2))]),
            pairs: BTreeMap::new(),
            anomalies: BTreeMap::new(),
            remarks: Vec::new(),
            recovery: Vec::new(),
        }
    }

    #[test]
    fn a_ledger_whose_last_line_is_torn_goes_on_behind_the_whole_ones() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join(LEDGER);
        append(&path, &one(0)).expect("written");
        append(&path, &one(1)).expect("written");
        let mut text = fs::read_to_string(&path).expect("written");
        text.push_str("{\"block\":2,\"se");
        fs::write(&path, text).expect("written");
        assert_eq!(read_ledger(&path).expect("readable").len(), 2);
        append(&path, &one(2)).expect("written");
        let entries = read_ledger(&path).expect("readable");
        assert_eq!(
            entries.iter().map(|entry| entry.block).collect::<Vec<_>>(),
            [0, 1, 2]
        );
        let text = summary(&entries);
        assert!(
            text.contains("30 operations (24 ok, 3 failed, 3 unknown)"),
            "{text}"
        );
        assert!(text.contains("6 faults: pause 6\n"), "{text}");
    }

    #[test]
    fn a_line_in_the_middle_that_is_none_is_an_error() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join(LEDGER);
        fs::write(&path, "odd\n{}\n").expect("written");
        assert!(read_ledger(&path).is_err());
    }
}
