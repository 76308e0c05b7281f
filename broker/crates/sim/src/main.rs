//! The simulator's command line: one seed in this process, or many, each in its own.

mod fixed;

use std::process::ExitCode;

use clap::Parser;
use highwater_sim::{run, seeds, trace};

/// Runs the real broker in a simulated world.
#[derive(Debug, Parser)]
struct Arguments {
    /// Run this seed in this process.
    #[arg(long, required_unless_present = "seeds")]
    seed: Option<u64>,
    /// Write the trace to this file, `-` for standard output.
    #[arg(long, requires = "seed")]
    trace: Option<std::path::PathBuf>,
    /// A control: disks lie about what is durable, so that the run must fail.
    #[arg(long, requires = "seed")]
    lying_disks: bool,
    /// Run every seed of `A..B` (B not included), each in its own process.
    #[arg(long, conflicts_with = "seed")]
    seeds: Option<seeds::Range>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let outcome = match (arguments.seed, arguments.seeds) {
        (Some(seed), _) => one(seed, arguments.lying_disks, arguments.trace.as_deref()),
        (None, Some(range)) => seeds::run(range),
        (None, None) => Ok(false),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn one(seed: u64, lying: bool, file: Option<&std::path::Path>) -> anyhow::Result<bool> {
    fixed::fix(seed);
    trace::start(file.is_some());
    let report = run::run(seed, lying, fixed::set_time);
    let (summary, lines) = trace::finish();
    if let Some(file) = file {
        trace::save(file, &lines)?;
    }
    match &report {
        Ok(report) => println!("{report}"),
        Err(error) => println!("FAILED: {error:#}"),
    }
    println!("seed {seed} {summary}");
    Ok(report.is_ok())
}
