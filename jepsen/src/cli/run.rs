//! A run, or many of them in a row.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::ensure;
use clap::{Args, ValueEnum};

use super::progress::Progress;
use crate::cluster::binary;
use crate::recovery;
use crate::run::RunConfig;
use crate::schedule::{Kind, named_kinds, parse_kinds};
use crate::settings::{Brokers, Checkpoints};
use crate::soak::{self, Soak};

/// A run's settings.
#[derive(Debug, Args)]
pub(super) struct RunArgs {
    /// Kinds of faults, or groups of them: kill, pause, partition,
    /// link, power, composite, disk, bad-disk, restart, members, clock, transfer, storm, all, none
    #[arg(long, value_name = "KIND,...", default_value = "all", value_parser = kinds)]
    faults: Kinds,
    #[command(flatten)]
    common: Common,
    /// Brokers of your own: only faults that need no power over them
    #[arg(long, value_name = "HOST:PORT,...", value_delimiter = ',', conflicts_with_all = ["broker", "brokers"])]
    bootstrap: Vec<String>,
    /// What cannot be done here makes the run fail
    #[arg(long)]
    require_all: bool,
    /// One run, or blocks of runs for hours
    #[arg(long, default_value = "once")]
    profile: Profile,
    /// A soak fails while its ledger has fewer proven faults of any kind
    #[arg(long, value_name = "N", default_value_t = 0)]
    require_counts: u64,
    /// Seconds of one block of a soak
    #[arg(long, value_name = "SECONDS", default_value_t = 300, value_parser = clap::value_parser!(u64).range(10..))]
    block: u64,
}

/// What a run and a trial of mutants have in common.
#[derive(Debug, Args)]
pub(super) struct Common {
    /// Seconds for which clients work
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..))]
    time: u64,
    /// Decides what is broken when, and what clients do; printed when it is not given
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Operations per second of all writers together
    #[arg(long, value_name = "N", default_value_t = 300.0)]
    rate: f64,
    /// Clients: six of ten write, three read, one asks for ends
    #[arg(long, value_name = "N", default_value_t = 12, value_parser = clap::value_parser!(u32).range(3..=1000))]
    clients: u32,
    /// Brokers to start: 1, 3, 5, or by-seed, which is 5 for every fourth seed. Without it 3, in a soak by-seed
    #[arg(long, value_name = "N")]
    brokers: Option<Brokers>,
    /// Partitions of the topic
    #[arg(long, value_name = "N", default_value_t = 12, value_parser = clap::value_parser!(u32).range(1..=1000))]
    partitions: u32,
    /// Consumer groups whose members come, go, die and stand still; with any, also one that has
    /// dead letters
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u32).range(..=20))]
    groups: u32,
    /// Leaves out the topics beside the main one: with deleted records, retention, compaction, and one
    /// that is deleted and made again
    #[arg(long)]
    no_asides: bool,
    /// How often shards are checkpointed, and how large the log is
    #[arg(long, value_name = "HOW", default_value = "by-seed")]
    checkpoints: Checkpoints,
    /// Where the history, the logs, the timeline and the report go; must be empty or not exist
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// The broker's program; without it the one beside this program, or one that is built
    #[arg(long, value_name = "PATH")]
    pub(super) broker: Option<PathBuf>,
    /// Sets a configuration key of every broker; may be repeated
    #[arg(long, value_name = "SECTION.KEY=VALUE")]
    set: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Profile {
    /// One run of --time seconds
    Once,
    /// Runs of --block seconds until --time seconds are in the ledger of --out; goes on where it
    /// stopped
    Soak,
}

/// A list that clap takes for one value: all of it, and what has its own name in it.
#[derive(Debug, Clone)]
struct Kinds {
    all: Vec<Kind>,
    named: Vec<Kind>,
}

fn kinds(text: &str) -> Result<Kinds, String> {
    Ok(Kinds {
        all: parse_kinds(text)?,
        named: named_kinds(text),
    })
}

pub(super) fn run(arguments: &RunArgs, verb: &[&str]) -> anyhow::Result<ExitCode> {
    let config = config(arguments, verb)?;
    super::runtime()?.block_on(async {
        let stop = super::stop_on_signals()?;
        if arguments.profile == Profile::Soak {
            let soak = Soak {
                config,
                brokers: arguments.common.brokers.unwrap_or(Brokers::BySeed),
                time: Duration::from_secs(arguments.common.time),
                require_all: arguments.require_all,
                require_counts: arguments.require_counts,
            };
            return soak::run(&soak, &stop).await;
        }
        eprintln!(
            "seed {}, everything in {}",
            config.seed,
            config.out.display()
        );
        let progress = Progress::new(config.time);
        let report = crate::run::run(&config, &stop, &progress.listener()).await;
        progress.end();
        let report = report?;
        println!("{}", recovery::by_kind(&report.recovery));
        println!("{}", recovery::availability(&report.recovery));
        println!("{}", recovery::beside_others(&report.recovery));
        print!("{}", report.judgement);
        println!(
            "seed {}, everything in {}",
            config.seed,
            config.out.display()
        );
        Ok(report.judgement.exit(arguments.require_all))
    })
}

fn config(arguments: &RunArgs, verb: &[&str]) -> anyhow::Result<RunConfig> {
    let mut config = if arguments.bootstrap.is_empty() {
        arguments.common.config(verb)?
    } else {
        arguments.common.config_of(PathBuf::new(), verb)?
    };
    config.kinds.clone_from(&arguments.faults.all);
    config.named.clone_from(&arguments.faults.named);
    config.bootstrap.clone_from(&arguments.bootstrap);
    if arguments.profile == Profile::Soak {
        config.time = Duration::from_secs(arguments.block);
    }
    Ok(config)
}

impl Common {
    /// A run without faults, over brokers of our own.
    pub(super) fn config(&self, verb: &[&str]) -> anyhow::Result<RunConfig> {
        self.config_of(binary::find(self.broker.as_deref())?, verb)
    }

    fn config_of(&self, executable: PathBuf, verb: &[&str]) -> anyhow::Result<RunConfig> {
        ensure!(
            self.rate.is_finite() && self.rate > 0.0,
            "--rate must be more than 0"
        );
        let mut settings: Vec<(String, String)> = Vec::new();
        for setting in &self.set {
            let Some((key, value)) = setting.split_once('=') else {
                anyhow::bail!("--set {setting} has no value: write --set SECTION.KEY=VALUE");
            };
            settings.retain(|(known, _)| known != key);
            settings.push((key.to_owned(), value.to_owned()));
        }
        let out = self.out.clone().unwrap_or_else(|| {
            let now = jiff::Zoned::now().strftime("%Y%m%d-%H%M%S").to_string();
            PathBuf::from(format!("highwater-verify-{now}"))
        });
        let seed = self
            .seed
            .unwrap_or_else(|| u64::from(rand::random::<u32>()));
        Ok(RunConfig {
            out: std::path::absolute(out)?,
            time: Duration::from_secs(self.time),
            seed,
            kinds: Vec::new(),
            named: Vec::new(),
            rate: self.rate,
            clients: self.clients,
            brokers: self.brokers.unwrap_or(Brokers::Exactly(3)).of(seed),
            partitions: self.partitions,
            groups: self.groups,
            asides: !self.no_asides,
            executable,
            disk_server: super::disk_server(verb)?,
            bootstrap: Vec::new(),
            settings,
            checkpoints: self.checkpoints,
            environment: Vec::new(),
        })
    }
}
