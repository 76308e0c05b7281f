//! Known-bad brokers: a harness that never fails proves nothing, so each of these must fail. Nor does one that
//! always fails: the same broker with nothing broken must pass under the same faults from the same seed.
//!
//! The broker's profile `mutant` builds in all of them; one is chosen at start by a variable of
//! the environment.

mod signs;
mod table;

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use comfy_table::{Table, presets};
use highwater_checker::Conclusion;
use serde::Serialize;
use tokio_util::sync::CancellationToken;

pub use table::{ELSEWHERE, Finding, MUTANTS, Mutant};

use crate::run::{Event, Listener, Report, RunConfig};
use crate::schedule::parse_kinds;
use crate::settings::Checkpoints;
use crate::verdict::word;

/// Chooses the mutant when the broker starts.
pub const VARIABLE: &str = "HIGHWATER_MUTANT";

/// How one mutant fared.
#[derive(Debug, Clone, Serialize)]
pub struct Outcome {
    /// Its name.
    pub mutant: String,
    /// The rule that it breaks.
    pub breaks: String,
    /// The faults it met.
    pub faults: String,
    /// Whether the harness found it out.
    pub caught: bool,
    /// Runs until then, or all.
    pub runs: u32,
    /// Seconds until then, or all.
    pub seconds: f64,
    /// What gave it away.
    pub by: String,
    /// The verdict on the broker that breaks nothing, under what caught the mutant; empty if nothing did.
    pub control: String,
    /// Seeds of the runs.
    pub seeds: Vec<u64>,
}

impl Outcome {
    /// Whether the mutant was told from a good broker.
    #[must_use]
    pub fn proves(&self) -> bool {
        self.caught && self.control == word(Conclusion::Pass)
    }
}

/// Runs of each mutant before it counts as missed, unless told otherwise.
pub const RUNS: u32 = 5;

/// What to try.
#[derive(Debug)]
pub struct Trial {
    /// Settings of every run; its broker is the one with the mutants.
    pub config: RunConfig,
    /// Mutants by name; empty: all.
    pub only: Vec<String>,
    /// Runs of each before it counts as missed.
    pub runs: u32,
}

/// Tries each mutant until it is caught.
///
/// # Errors
/// Errors of the harness; a name that is no mutant.
pub async fn run(
    trial: &Trial,
    stop: &CancellationToken,
    told: &mut (dyn FnMut(&Outcome) + Send),
) -> anyhow::Result<Vec<Outcome>> {
    for name in &trial.only {
        let known = MUTANTS.iter().any(|mutant| mutant.name == name);
        anyhow::ensure!(known, "there is no mutant {name:?}");
    }
    let mut outcomes = Vec::new();
    let chosen = |m: &&Mutant| trial.only.is_empty() || trial.only.iter().any(|n| n == m.name);
    for mutant in MUTANTS.iter().filter(chosen) {
        let outcome = try_one(trial, mutant, stop).await;
        let outcome = outcome.with_context(|| format!("the mutant {}", mutant.name))?;
        told(&outcome);
        outcomes.push(outcome);
        if stop.is_cancelled() {
            break;
        }
    }
    Ok(outcomes)
}

async fn try_one(
    trial: &Trial,
    mutant: &Mutant,
    stop: &CancellationToken,
) -> anyhow::Result<Outcome> {
    let began = Instant::now();
    let mut outcome = Outcome {
        mutant: mutant.name.to_owned(),
        breaks: mutant.breaks.to_owned(),
        faults: mutant.faults.join(","),
        caught: false,
        runs: 0,
        seconds: 0.0,
        by: String::new(),
        control: String::new(),
        seeds: Vec::new(),
    };
    while outcome.runs < trial.runs && !outcome.caught && !stop.is_cancelled() {
        let config = config(trial, mutant, outcome.runs, true)?;
        outcome.seeds.push(config.seed);
        outcome.runs += 1;
        let _ = fs::remove_dir_all(&config.out);
        let quiet: Listener = Arc::new(|_: Event<'_>| {});
        // A mutant may keep its cluster from forming. That proves nothing about faults: the next
        // run may get further.
        match crate::run::run(&config, stop, &quiet).await {
            Ok(report) => {
                let shown = mutant.shown_by(&report.judgement);
                outcome.caught = !shown.is_empty();
                outcome.by = if outcome.caught {
                    shortened(shown.join(", "))
                } else {
                    format!("not by {}", evidence(&report))
                };
            }
            Err(error) => outcome.by = shortened(format!("no run: {error:#}")),
        }
    }
    outcome.seconds = began.elapsed().as_secs_f64();
    if outcome.caught && !stop.is_cancelled() {
        let config = config(trial, mutant, outcome.runs - 1, false)?;
        let _ = fs::remove_dir_all(&config.out);
        let quiet: Listener = Arc::new(|_: Event<'_>| {});
        let report = crate::run::run(&config, stop, &quiet).await;
        outcome.control = match report {
            Ok(report) if report.judgement.conclusion() == Conclusion::Pass => {
                word(Conclusion::Pass).to_owned()
            }
            Ok(report) => evidence(&report),
            Err(error) => shortened(format!("no run: {error:#}")),
        };
    }
    Ok(outcome)
}

/// The settings of a run of a mutant, or of the broker that breaks nothing under what that mutant meets.
fn config(trial: &Trial, mutant: &Mutant, run: u32, broken: bool) -> anyhow::Result<RunConfig> {
    let mut config = trial.config.clone();
    config.kinds = parse_kinds(&mutant.faults.join(",")).map_err(anyhow::Error::msg)?;
    config.seed = config.seed.wrapping_add(run.into());
    let directory = if broken {
        config
            .environment
            .push((VARIABLE.to_owned(), mutant.name.to_owned()));
        format!("{}-{run}", mutant.name)
    } else {
        format!("{}-control", mutant.name)
    };
    config.out = config.out.join(directory);
    config.checkpoints = Checkpoints::Usual;
    for (key, value) in mutant.settings {
        config.settings.retain(|(known, _)| known != key);
        config
            .settings
            .push(((*key).to_owned(), (*value).to_owned()));
    }
    Ok(config)
}

/// What a report holds against a broker, in a few words.
fn evidence(report: &Report) -> String {
    let judgement = &report.judgement;
    let anomalies = judgement.history.anomalies.iter();
    let mut words: Vec<String> = anomalies
        .map(|(name, found)| format!("{name} {}", found.count))
        .collect();
    words.extend(judgement.findings.iter().cloned());
    words.extend(
        judgement
            .deaths
            .iter()
            .map(|death| format!("broker {} died", death.node)),
    );
    if words.is_empty() {
        words.push(word(judgement.conclusion()).to_owned());
        words.extend(judgement.history.vacuous.iter().cloned());
    }
    shortened(words.join(", "))
}

/// One line of at most 160 characters.
fn shortened(text: String) -> String {
    let mut text = text.replace('\n', " ");
    if let Some((end, _)) = text.char_indices().nth(160) {
        text.truncate(end);
        text.push_str(" ...");
    }
    text
}

/// The outcomes as a table.
#[must_use]
pub fn table(outcomes: &[Outcome]) -> String {
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED);
    table.set_header(["mutant", "faults", "", "runs", "after", "by", "control"]);
    for outcome in outcomes {
        table.add_row([
            outcome.mutant.clone(),
            outcome.faults.clone(),
            if outcome.caught { "caught" } else { "MISSED" }.to_owned(),
            outcome.runs.to_string(),
            format!(
                "{:.0} s",
                Duration::from_secs_f64(outcome.seconds).as_secs_f64()
            ),
            outcome.by.clone(),
            outcome.control.clone(),
        ]);
    }
    let caught = outcomes.iter().filter(|outcome| outcome.caught).count();
    let passed = outcomes.iter().filter(|outcome| outcome.proves()).count();
    format!(
        "{table}\n{caught} of {} caught; {passed} of the controls passed",
        outcomes.len()
    )
}

/// Where the broker with the mutants lies, built if need be.
///
/// # Errors
/// When it cannot be built.
pub fn broker() -> anyhow::Result<PathBuf> {
    crate::cluster::binary::build(&["--profile", "mutant", "--features", "mutant"])
}
