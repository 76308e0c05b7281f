//! Hours of runs in blocks. Each block's result is appended to a ledger when it is known, so that a
//! soak that was ended goes on where it stopped.

mod coverage;
mod ledger;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tokio_util::sync::CancellationToken;

use crate::recovery::{Sample, availability, beside_others, by_kind};
use crate::run::{Event, Listener, RunConfig};
use crate::settings::Brokers;

pub use ledger::{Entry, read_ledger};
use ledger::{append, exit_code};

/// The ledger's name in the directory of a soak.
pub const LEDGER: &str = "ledger.jsonl";

/// The page that shows it, beside it.
pub const PAGE: &str = "ledger.html";

/// A block that failed is kept whole; of the others, only this.
const KEPT: [&str; 2] = ["report.json", "timeline.html"];

/// So many blocks in a row that could not be made end a soak: the next one will not be made either.
const ERRORS: u32 = 3;

/// What to do.
#[derive(Debug)]
pub struct Soak {
    /// Settings of every block.
    pub config: RunConfig,
    /// Brokers of each.
    pub brokers: Brokers,
    /// So much work is wanted in the ledger.
    pub time: Duration,
    /// Whether what is skipped makes it fail.
    pub require_all: bool,
    /// So many proven faults of each kind are wanted in the ledger.
    pub require_counts: u64,
}

impl Soak {
    /// The settings of a block.
    fn config_of(&self, block: u64, first_seed: u64) -> RunConfig {
        let mut config = self.config.clone();
        config.seed = first_seed.wrapping_add(block);
        config.brokers = self.brokers.of(config.seed);
        if self.brokers == Brokers::BySeed {
            // What means nothing with the brokers of this block comes in others.
            config.named.clear();
        }
        config.out = self.config.out.join(format!("block-{block:05}"));
        config
    }
}

/// Makes blocks until enough seconds of work are in the ledger. The worst verdict in it counts, also of blocks that
/// were made before.
///
/// # Errors
/// When the ledger cannot be read or written.
pub async fn run(soak: &Soak, stop: &CancellationToken) -> anyhow::Result<ExitCode> {
    let out = &soak.config.out;
    fs::create_dir_all(out).with_context(|| format!("cannot create {}", out.display()))?;
    let path = out.join(LEDGER);
    let mut entries = if path.exists() {
        read_ledger(&path)?
    } else {
        Vec::new()
    };
    let first_seed = entries.first().map_or(soak.config.seed, |entry| {
        entry.seed.wrapping_sub(entry.block)
    });
    let mut errors = 0;
    loop {
        let done: f64 = entries.iter().map(|entry| entry.seconds).sum();
        if done >= soak.time.as_secs_f64() || errors >= ERRORS {
            break;
        }
        let block = entries.last().map_or(0, |entry| entry.block + 1);
        let config = soak.config_of(block, first_seed);
        let Some(entry) = make(block, &config, stop).await? else {
            break;
        };
        errors = match entry.verdict.as_str() {
            ledger::ERROR => errors + 1,
            _ => 0,
        };
        append(&path, &entry)?;
        eprintln!("{}", entry.line());
        entries.push(entry);
        show(&out.join(PAGE), &entries)?;
    }
    let samples: Vec<Sample> = entries
        .iter()
        .flat_map(|entry| entry.recovery.clone())
        .collect();
    println!("{}\n{}", by_kind(&samples), availability(&samples));
    println!("{}", beside_others(&samples));
    println!("{}", summary(&entries));
    let short = short_of(soak, &entries);
    for what in &short {
        println!("too few: {what}");
    }
    let code = match exit_code(&entries, soak.require_all) {
        code if short.is_empty() => code,
        _ => 1,
    };
    Ok(ExitCode::from(code))
}

/// Makes a block; nothing: it was interrupted. What it leaves is kept when it did not pass.
async fn make(
    block: u64,
    config: &RunConfig,
    stop: &CancellationToken,
) -> anyhow::Result<Option<Entry>> {
    if stop.is_cancelled() {
        return Ok(None);
    }
    // What an interrupted attempt at this block left is no result.
    if config.out.exists() {
        fs::remove_dir_all(&config.out)
            .with_context(|| format!("cannot remove {}", config.out.display()))?;
    }
    let quiet: Listener = Arc::new(|_: Event<'_>| {});
    let report = match crate::run::run(config, stop, &quiet).await {
        Ok(report) => report,
        Err(error) if stop.is_cancelled() => {
            eprintln!("block {block} was interrupted: {error:#}");
            return Ok(None);
        }
        Err(error) => return Ok(Some(Entry::of_error(block, config, &error))),
    };
    if report.judgement.interrupted {
        return Ok(None);
    }
    let entry = Entry::of(block, &report);
    if entry.exit_code(false) == 0 {
        thin_out(&config.out)?;
    }
    Ok(Some(entry))
}

/// What the ledger has too little of.
fn short_of(soak: &Soak, entries: &[Entry]) -> Vec<String> {
    match soak.require_counts {
        0 => Vec::new(),
        wanted => coverage::short_of(entries, &soak.config.kinds, soak.config.groups > 0, wanted),
    }
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
    text.push_str("\nmembers of groups:");
    for (how, count) in coverage::members(entries) {
        let _ = write!(text, " {how} {count};");
    }
    let _ = write!(text, "\nanomalies: {anomalies:?}");
    text
}
