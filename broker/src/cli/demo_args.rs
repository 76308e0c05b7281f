//! The options of `highwater demo`, and the run that they ask for.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use highwater_order_demo::account::{Account, read_accounts};
use highwater_order_demo::driver::RunConfig;
use highwater_order_demo::driver::faults::{Fault, FaultKind, NAMES, STATEFUL, STATELESS};
use highwater_order_demo::driver::scale::Scaling;
use highwater_order_demo::driver::schedule::Burst;
use highwater_order_demo::generate::generate_accounts;
use highwater_order_demo::order::RunId;
use highwater_order_demo::plan::Plan;
use highwater_order_demo::report::Setting;
use highwater_order_demo::series::Block;
use highwater_order_demo::services::config::{Mode, Mutant};

use super::demo::PATIENCE;
use super::exit::Failure;

/// Orders of a run without a file of accounts: usual, quick.
const DEFAULT_ORDERS: usize = 3_000;
const QUICK_ORDERS: usize = 1_000;

/// Orders that are poisoned when poison is among the faults.
const POISON: u64 = 10;

/// A lag of a second or more at the rates that a small machine bears.
const SCALE_LAG: u64 = 250;

/// The modes that can be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Modes {
    /// Services over the broker
    Event,
    /// Services coupled by HTTP calls, naive and hardened
    Rest,
    /// One process, without replication and with it
    Monolith,
    /// All of them, one after the other, on the same orders
    All,
}

/// Services that can be broken on purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum MutantName {
    /// The inventory handles every delivery as if it were the first
    InventoryWithoutInbox,
    /// The payment provider takes some customers' money twice
    DoubleCharge,
    /// The catalogue publishes prices that are not those of the input
    WrongPrice,
}

#[derive(Args)]
pub struct DemoArgs {
    /// A table of accounts, one order each; without it accounts are generated
    #[arg(long, value_name = "PATH")]
    orders: Option<PathBuf>,
    /// How many orders; accounts are repeated under fresh order ids
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// Orders per second; without it sending takes about 30 s
    #[arg(long, value_name = "N")]
    pub rate: Option<f64>,
    /// So many times the rate for five seconds, from then on: 6x@30s; may be repeated
    #[arg(long, value_name = "TIMESx@TIME")]
    burst: Vec<Burst>,
    /// Generates these accounts, and decides what is special about which order
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// How the services are put together
    #[arg(long, value_enum, default_value_t = Modes::Event)]
    mode: Modes,
    /// Breaks this, at a time in seconds or when it suits; may be repeated. Without it: poison,
    /// broker-leader, stateless-worker, stateful-worker
    #[arg(long, value_name = "NAME[@TIME]", help = format!(
        "Breaks this, at that second or when it suits; may be repeated [default: poison, \
         broker-leader, stateless-worker, stateful-worker] [possible: {NAMES}]"
    ))]
    fault: Vec<Fault>,
    /// Breaks nothing
    #[arg(long, conflicts_with = "fault")]
    no_kill: bool,
    /// A shorter run, of 1,000 orders
    #[arg(long, conflicts_with = "full")]
    quick: bool,
    /// The series behind the claims: the peak, and then over a hundred runs of a few minutes each, which
    /// go on where the last call stopped
    #[arg(long)]
    pub full: bool,
    /// Where the results of --full are appended
    #[arg(
        long,
        value_name = "PATH",
        default_value = "highwater-demo.jsonl",
        requires = "full"
    )]
    pub results: PathBuf,
    /// Stops --full after so many runs; 0 only shows what is there
    #[arg(long, value_name = "N", requires = "full")]
    pub blocks: Option<u64>,
    /// Partitions of the larger topics, the smaller ones in proportion [default: 6]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000))]
    partitions: Option<u32>,
    /// Workers of a stateless service at the most, started while its group is behind [default: 2 with
    /// --burst, otherwise 1]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=16))]
    workers: Option<u32>,
    /// Messages that such a group has not committed for a second, before it gets another worker [default: 250,
    /// in bursts of --full 80]
    #[arg(long, value_name = "N",
        value_parser = clap::value_parser!(u64).range(1..))]
    scale_lag: Option<u64>,
    /// How long a call to a provider takes, the same in every mode, in microseconds
    #[arg(long, value_name = "MICROSECONDS", default_value_t = 0)]
    service_time: u64,
    /// Also shows the state of every order as it was so many seconds after the first
    #[arg(long, value_name = "SECONDS")]
    replay_at: Option<f64>,
    /// Breaks a service on purpose: the run must fail
    #[arg(long, value_enum, hide = true)]
    mutant: Option<MutantName>,
    /// Writes the report there as JSON too
    #[arg(long, value_name = "PATH")]
    pub json: Option<PathBuf>,
    /// Writes the report there as one HTML page too
    #[arg(long, value_name = "PATH")]
    pub html: Option<PathBuf>,
    /// Keeps all data, logs and journals here; must be empty or not exist
    #[arg(long, value_name = "PATH")]
    pub data_dir: Option<PathBuf>,
}

pub fn accounts(args: &DemoArgs) -> anyhow::Result<(Vec<Account>, String)> {
    let Some(path) = &args.orders else {
        let count = if args.quick {
            QUICK_ORDERS
        } else {
            DEFAULT_ORDERS
        };
        let accounts = generate_accounts(args.seed, count);
        return Ok((accounts, format!("{count} generated")));
    };
    let shown = path.display();
    let file = File::open(path).with_context(|| format!("{shown} cannot be read"))?;
    let accounts =
        read_accounts(file).with_context(|| format!("{shown} is no table of accounts"))?;
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let source = format!("{} from {name}", accounts.len());
    Ok((accounts, source))
}

fn faults(args: &DemoArgs) -> Vec<Fault> {
    if args.no_kill {
        return Vec::new();
    }
    if !args.fault.is_empty() {
        return args.fault.clone();
    }
    let kinds = [
        FaultKind::Poison,
        FaultKind::BrokerLeader,
        FaultKind::Kill(STATELESS.name()),
        FaultKind::Kill(STATEFUL.name()),
    ];
    let fault = |kind| Fault { kind, at: None };
    kinds.into_iter().map(fault).collect()
}

fn scaling(args: &DemoArgs) -> Scaling {
    let usual = if args.burst.is_empty() { 1 } else { 2 };
    Scaling {
        most: args.workers.unwrap_or(usual),
        lag: args.scale_lag.unwrap_or(SCALE_LAG),
    }
}

pub fn run_config(
    args: &DemoArgs,
    accounts: Vec<Account>,
    source: String,
    home: &Path,
) -> Result<RunConfig, Failure> {
    let quick = if args.quick {
        QUICK_ORDERS as u64
    } else {
        u64::MAX
    };
    let count = args.count.unwrap_or(quick.min(accounts.len() as u64));
    let faults = faults(args);
    let plan = Plan::new(RunId(rand::random()), args.seed, accounts, count)
        .ok_or_else(|| Failure::usage(anyhow::anyhow!("there is no account to order for")))?;
    let poisoned = faults.iter().any(|fault| fault.kind == FaultKind::Poison);
    let modes = match args.mode {
        Modes::Event => vec![Mode::Event],
        Modes::Rest => vec![Mode::RestNaive, Mode::RestHardened],
        Modes::Monolith => vec![Mode::Monolith, Mode::MonolithReplicated],
        Modes::All => Mode::ALL.to_vec(),
    };
    let mutant = args.mutant.map(|mutant| match mutant {
        MutantName::InventoryWithoutInbox => ("inventory".to_owned(), Mutant::NoInbox),
        MutantName::DoubleCharge => ("payment".to_owned(), Mutant::DoubleCharge),
        MutantName::WrongPrice => ("catalogue".to_owned(), Mutant::WrongPrice),
    });
    let replay_at = args.replay_at.map(Duration::try_from_secs_f64);
    Ok(RunConfig {
        replay_at: replay_at.transpose().map_err(Failure::usage)?,
        plan: plan.with_poison(if poisoned { POISON } else { 0 }),
        rate: args.rate,
        bursts: args.burst.clone(),
        faults,
        modes,
        scaling: scaling(args),
        mutant,
        partitions: args.partitions,
        service_time_us: args.service_time,
        fault_lasts: Duration::from_secs(10),
        executable: std::env::current_exe().context("cannot find this executable")?,
        directory: home.to_owned(),
        patience: PATIENCE,
        setting: setting(source, args.seed),
    })
}

fn setting(source: String, seed: u64) -> Setting {
    Setting {
        machine: machine(),
        commit: commit(),
        source,
        seeds: BTreeMap::from([("orders".to_owned(), seed)]),
    }
}

/// The commit that the build was told, or, for a program inside a checkout, the one that is checked out there.
fn commit() -> Option<String> {
    if let Some(told) = option_env!("HIGHWATER_COMMIT") {
        return Some(told.to_owned());
    }
    let executable = std::env::current_exe().ok()?;
    let git = |arguments: &[&str]| {
        let mut git = std::process::Command::new("git");
        let output = git
            .arg("-C")
            .arg(executable.parent()?)
            .args(arguments)
            .output();
        let output = output.ok().filter(|output| output.status.success())?;
        Some(String::from_utf8(output.stdout).ok()?.trim().to_owned())
    };
    // A checkout of this, and not of whatever the program was installed below.
    git(&["cat-file", "-e", "HEAD:broker/src/cli/demo_args.rs"])?;
    let head = git(&["rev-parse", "--short", "HEAD"])?;
    let changed = git(&["status", "--porcelain", "--untracked-files=no"])?;
    Some(match changed.is_empty() {
        true => head,
        false => format!("{head} with changes"),
    })
}

/// The run that a block of the series asks for.
pub fn block_config(args: &DemoArgs, block: &Block, home: &Path) -> Result<RunConfig, Failure> {
    let (accounts, source) = match &args.orders {
        Some(_) => accounts(args).map_err(Failure::usage)?,
        None => {
            let accounts = generate_accounts(block.seed, DEFAULT_ORDERS);
            (accounts, format!("{DEFAULT_ORDERS} generated"))
        }
    };
    let plan = Plan::new(RunId(rand::random()), block.seed, accounts, block.count)
        .ok_or_else(|| Failure::usage(anyhow::anyhow!("there is no account to order for")))?;
    Ok(RunConfig {
        replay_at: None,
        plan: plan.with_poison(block.poison),
        rate: Some(block.rate),
        bursts: block.bursts.clone(),
        faults: block.faults.clone(),
        modes: block.modes.clone(),
        scaling: Scaling {
            most: block.workers,
            lag: args.scale_lag.or(block.scale_lag).unwrap_or(SCALE_LAG),
        },
        mutant: None,
        partitions: block.partitions,
        service_time_us: args.service_time,
        fault_lasts: block.fault_lasts,
        executable: std::env::current_exe().context("cannot find this executable")?,
        directory: home.to_owned(),
        patience: PATIENCE,
        setting: setting(source, block.seed),
    })
}

/// Processor, cores and system, as far as they can be found out.
fn machine() -> String {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info
        .lines()
        .find_map(|line| line.strip_prefix("model name"))
        .map_or("unknown processor", |rest| {
            rest.trim_start_matches([' ', '\t', ':'])
        });
    format!(
        "{model}, {cores} cores, {} {}",
        std::env::consts::OS,
        std::env::consts::ARCH
    )
}
