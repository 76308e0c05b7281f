//! A run, or many of them in a row.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::ensure;
use clap::{Args, ValueEnum};

use super::progress::Progress;
use crate::cluster::binary;
use crate::run::RunConfig;
use crate::schedule::{Kind, parse_kinds};
use crate::{recovery, soak};

/// A run's settings.
#[derive(Debug, Args)]
pub(super) struct RunArgs {
    /// Seconds for which clients work
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..))]
    time: u64,
    /// Decides what is broken when, and what clients do; printed when it is not given
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Kinds of faults, or groups of them: kill, pause, partition, power, composite, transfer, all, none
    #[arg(long, value_name = "KIND,...", default_value = "all", value_parser = kinds)]
    faults: Kinds,
    /// Operations per second of all writers together
    #[arg(long, value_name = "N", default_value_t = 300.0)]
    rate: f64,
    /// Clients: six of ten write, three read, one asks for ends
    #[arg(long, value_name = "N", default_value_t = 12, value_parser = clap::value_parser!(u32).range(3..=1000))]
    clients: u32,
    /// Brokers to start
    #[arg(long, value_name = "N", default_value = "3", value_parser = ["1", "3", "5"])]
    brokers: String,
    /// Partitions of the topic
    #[arg(long, value_name = "N", default_value_t = 12, value_parser = clap::value_parser!(u32).range(1..=1000))]
    partitions: u32,
    /// Where the history, the logs, the timeline and the report go; must be empty or not exist
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// The broker's program; without it the one beside this program, or one that is built
    #[arg(long, value_name = "PATH")]
    broker: Option<PathBuf>,
    /// Brokers of your own: only faults that need no power over them
    #[arg(long, value_name = "HOST:PORT,...", value_delimiter = ',', conflicts_with_all = ["broker", "brokers"])]
    bootstrap: Vec<String>,
    /// Sets a configuration key of every broker; may be repeated
    #[arg(long, value_name = "SECTION.KEY=VALUE")]
    set: Vec<String>,
    /// What cannot be done here makes the run fail
    #[arg(long)]
    require_all: bool,
    /// One run, or blocks of runs for hours
    #[arg(long, default_value = "once")]
    profile: Profile,
    /// Seconds of one block of a soak
    #[arg(long, value_name = "SECONDS", default_value_t = 300, value_parser = clap::value_parser!(u64).range(10..))]
    block: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Profile {
    /// One run of --time seconds
    Once,
    /// Runs of --block seconds until --time seconds are in the ledger of --out; goes on where it
    /// stopped
    Soak,
}

/// A list that clap takes for one value.
#[derive(Debug, Clone)]
struct Kinds(Vec<Kind>);

fn kinds(text: &str) -> Result<Kinds, String> {
    parse_kinds(text).map(Kinds)
}

/// Keeps a broker under test small: a run should not fill the disk, and should see checkpoints,
/// recycled files and followers that fell behind.
const SETTINGS: [(&str, &str); 5] = [
    ("wal.budget_bytes", "256MiB"),
    ("wal.file_bytes", "4MiB"),
    ("storage.reserve_bytes", "128MiB"),
    ("storage.checkpoint_interval_ms", "5s"),
    ("storage.checkpoint_bytes", "4MiB"),
];

pub(super) fn run(arguments: &RunArgs, verb: &[&str]) -> anyhow::Result<ExitCode> {
    ensure!(arguments.rate.is_finite() && arguments.rate > 0.0, "--rate must be more than 0");
    let config = config(arguments, verb)?;
    super::runtime()?.block_on(async {
        let stop = super::stop_on_signals()?;
        if arguments.profile == Profile::Soak {
            let time = Duration::from_secs(arguments.time);
            return soak::run(config, time, arguments.require_all, &stop).await;
        }
        eprintln!("seed {}, everything in {}", config.seed, config.out.display());
        let progress = Progress::new(config.time);
        let report = crate::run::run(&config, &stop, &progress.listener()).await;
        progress.end();
        let report = report?;
        println!("{}", recovery::by_kind(&report.recovery));
        println!("{}", recovery::beside_others(&report.recovery));
        print!("{}", report.judgement);
        println!("seed {}, everything in {}", config.seed, config.out.display());
        Ok(report.judgement.exit(arguments.require_all))
    })
}

fn config(arguments: &RunArgs, verb: &[&str]) -> anyhow::Result<RunConfig> {
    let executable = if arguments.bootstrap.is_empty() {
        binary::find(arguments.broker.as_deref())?
    } else {
        PathBuf::new()
    };
    let mut settings: Vec<(String, String)> = SETTINGS
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect();
    for setting in &arguments.set {
        let Some((key, value)) = setting.split_once('=') else {
            anyhow::bail!("--set {setting} has no value: write --set SECTION.KEY=VALUE");
        };
        settings.retain(|(known, _)| known != key);
        settings.push((key.to_owned(), value.to_owned()));
    }
    let out = arguments.out.clone().unwrap_or_else(|| {
        let now = jiff::Zoned::now().strftime("%Y%m%d-%H%M%S").to_string();
        PathBuf::from(format!("highwater-verify-{now}"))
    });
    let seconds = match arguments.profile {
        Profile::Once => arguments.time,
        Profile::Soak => arguments.block,
    };
    Ok(RunConfig {
        out: std::path::absolute(out)?,
        time: Duration::from_secs(seconds),
        seed: arguments.seed.unwrap_or_else(|| u64::from(rand::random::<u32>())),
        kinds: arguments.faults.0.clone(),
        rate: arguments.rate,
        clients: arguments.clients,
        brokers: arguments.brokers.parse()?,
        partitions: arguments.partitions,
        executable,
        disk_server: super::disk_server(verb)?,
        bootstrap: arguments.bootstrap.clone(),
        settings,
        environment: Vec::new(),
    })
}
