//! Known-bad brokers, each of which must be caught.

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Args;

use super::run::Common;
use crate::mutants::{self, Trial};

/// Which, and how often.
#[derive(Debug, Args)]
pub(super) struct MutantsArgs {
    /// Only these
    #[arg(long, value_name = "NAME,...", value_delimiter = ',')]
    only: Vec<String>,
    /// Runs of each before it counts as missed
    #[arg(long, value_name = "N", default_value_t = mutants::RUNS, value_parser = clap::value_parser!(u32).range(1..))]
    runs: u32,
    /// Prints their names
    #[arg(long)]
    list: bool,
    /// Writes the outcomes there as JSON too
    #[arg(long, value_name = "PATH")]
    json: Option<PathBuf>,
    #[command(flatten)]
    common: Common,
}

pub(super) fn run(mut arguments: MutantsArgs, verb: &[&str]) -> anyhow::Result<ExitCode> {
    if arguments.list {
        for mutant in mutants::MUTANTS {
            println!(
                "{}: {} [{}]",
                mutant.name,
                mutant.breaks,
                mutant.faults.join(", ")
            );
        }
        for (name, why) in mutants::ELSEWHERE {
            println!("{name}: not here; {why}");
        }
        return Ok(ExitCode::SUCCESS);
    }
    if arguments.common.broker.is_none() {
        arguments.common.broker = Some(mutants::broker()?);
    }
    let trial = Trial {
        config: arguments.common.config(verb)?,
        only: arguments.only,
        runs: arguments.runs,
    };
    let outcomes = super::runtime()?.block_on(async {
        let stop = super::stop_on_signals()?;
        let mut told = |outcome: &mutants::Outcome| {
            let what = if outcome.caught { "caught" } else { "MISSED" };
            eprintln!(
                "{}: {what} after {:.0} s, {}; control: {}",
                outcome.mutant, outcome.seconds, outcome.by, outcome.control
            );
        };
        mutants::run(&trial, &stop, &mut told).await
    })?;
    println!("{}", mutants::table(&outcomes));
    if let Some(path) = &arguments.json {
        let text = format!("{:#}\n", serde_json::to_value(&outcomes)?);
        fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    let all = outcomes.iter().all(mutants::Outcome::proves);
    Ok(if all {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
