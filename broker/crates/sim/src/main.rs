//! The simulator's command line: one seed in this process, or many, each in its own.

mod fixed;
mod memory;

use std::num::NonZeroUsize;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use highwater_sim::settings::Settings;
use highwater_sim::{mutants, run, seeds, trace};

/// The broker's own; the C library's takes a tenth of a run's time.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Runs the real broker in a simulated world.
#[derive(Debug, Parser)]
struct Arguments {
    /// Run this seed in this process.
    #[arg(long)]
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
    /// Of those, only seeds whose settings say this, such as `Wipe` or `trims: true`; may be repeated.
    #[arg(long, requires = "seeds")]
    with: Vec<String>,
    /// Begin no more of them after so many seconds.
    #[arg(long, requires = "seeds")]
    seconds: Option<u64>,
    /// Fail when fewer than this were run.
    #[arg(long, requires = "seeds", default_value = "0")]
    at_least: usize,
    /// Run each of them twice, and compare the traces.
    #[arg(long, requires = "seeds")]
    twice: bool,
    /// Run the seeds that have found something once.
    #[arg(long, conflicts_with_all = ["seed", "seeds"])]
    corpus: bool,
    /// Seeds that run at a time; each keeps one processor busy.
    #[arg(long, default_value = "2")]
    jobs: NonZeroUsize,
    /// Run seeds of `A..B` with each known-bad broker until one fails.
    #[arg(long, conflicts_with_all = ["seed", "seeds", "corpus"], num_args = 0..=1,
          default_missing_value = mutants::RANGE)]
    mutants: Option<seeds::Range>,
    /// Only this known-bad broker.
    #[arg(long, requires = "mutants")]
    only: Option<String>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let many = seeds::Many {
        jobs: arguments.jobs,
        limit: arguments.seconds.map(Duration::from_secs),
        at_least: arguments.at_least,
        twice: arguments.twice,
    };
    let outcome = match (arguments.seed, arguments.seeds) {
        (Some(seed), _) => one(seed, arguments.lying_disks, arguments.trace.as_deref()),
        (None, Some(range)) => {
            let wanted = |seed: &u64| {
                let says = format!("{:?}", Settings::of(*seed));
                arguments.with.iter().all(|what| says.contains(what))
            };
            if arguments.with.is_empty() {
                seeds::run(range.seeds(), many)
            } else {
                let some: Vec<u64> = range.seeds().filter(wanted).collect();
                seeds::run(some.into_iter(), many)
            }
        }
        (None, None) if arguments.corpus => {
            seeds::corpus().and_then(|seeds| seeds::run(seeds.into_iter(), many))
        }
        (None, None) => match arguments.mutants {
            Some(range) => mutants::run(range, arguments.jobs, arguments.only.as_deref()),
            None => Err(anyhow::anyhow!(
                "say --seed, --seeds, --corpus or --mutants"
            )),
        },
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
    seeds::bound_processor()?;
    fixed::fix(seed);
    trace::start(file.is_some());
    let settings = Settings::of(seed);
    let report = run::run(&settings, lying, fixed::set_time);
    let simulated = trace::now();
    let (summary, lines) = trace::finish();
    if let Some(file) = file {
        trace::save(file, &lines)?;
    }
    let peak_mib = memory::peak_mib()?;
    // The lines that are kept need some, too.
    let fits = file.is_some() || peak_mib <= memory::MOST_MIB;
    match &report {
        Ok(_) if !fits => println!(
            "FAILED: {peak_mib} MiB were needed, more than {}\n{settings:?}",
            memory::MOST_MIB
        ),
        Ok(report) => println!("{report}"),
        Err(error) => println!("FAILED: {error:#}\n{settings:?}"),
    }
    println!(
        "seed {seed} {summary}; simulated {:.3} s",
        simulated.as_secs_f64()
    );
    // Apart from the rest, which is the same whenever the seed is run.
    eprintln!("memory; peak {peak_mib} MiB");
    Ok(report.is_ok() && fits)
}
