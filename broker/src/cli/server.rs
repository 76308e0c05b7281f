//! `highwater server`: one broker, in the foreground, until it is told to stop.

use std::path::PathBuf;
use std::process::ExitCode;

use crate::config::{Config, Sources};
use crate::observe::logs;
use anyhow::Context as _;
use clap::Args;

use super::exit::Failure;
use super::parent::die_with;
use super::signals::stop_on_signals;

/// Names the file when `--config` does not.
const CONFIG_VARIABLE: &str = "HIGHWATER_CONFIG";
/// Shards that this machine asks for, whatever it is: with one each, the brokers that are left when one is
/// gone could not share its leaders.
const FEWEST_SHARDS: u32 = 2;
const MOST_SHARDS: u32 = 8;

#[derive(Args)]
pub struct ServerArgs {
    /// The configuration file [variable: HIGHWATER_CONFIG]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// This broker's number, unique in the cluster (node.id)
    #[arg(long, value_name = "NUMBER")]
    node_id: Option<String>,
    /// Where everything durable lies (node.data_dir)
    #[arg(long, value_name = "PATH")]
    data_dir: Option<String>,
    /// The brokers that form the cluster, the same list on each (node.join)
    #[arg(long, value_name = "HOST:PORT,...")]
    join: Option<String>,
    /// Where clients and brokers reach this one (node.advertised_address)
    #[arg(long, value_name = "HOST:PORT")]
    advertised_address: Option<String>,
    /// The failure domain (node.rack)
    #[arg(long, value_name = "NAME")]
    rack: Option<String>,
    /// Where to listen for clients and brokers (listen.grpc)
    #[arg(long, value_name = "IP:PORT")]
    grpc_address: Option<String>,
    /// Where to listen for metrics and health (listen.admin)
    #[arg(long, value_name = "IP:PORT")]
    admin_address: Option<String>,
    /// Sets any configuration key; may be repeated
    #[arg(long, value_name = "SECTION.KEY=VALUE")]
    set: Vec<String>,
    /// Checks the configuration and exits
    #[arg(long)]
    check: bool,
    /// Ends at once when the process with this id, which must be the parent, is gone
    #[arg(long, value_name = "PID", hide = true)]
    die_with_parent: Option<u32>,
}

/// Runs the broker.
pub fn run(args: ServerArgs) -> Result<ExitCode, Failure> {
    if let Some(parent) = args.die_with_parent {
        die_with(parent)?;
    }
    #[cfg(feature = "mutant")]
    highwater_mutant::start().map_err(Failure::usage)?;
    let mut config = Config::load(&sources(&args)?)?;
    if config.node.shards_per_broker == 0 {
        config.node.shards_per_broker = shards_for_this_machine();
    }
    if args.check {
        println!("The configuration is valid.");
        return Ok(ExitCode::SUCCESS);
    }
    let filter = std::env::var(logs::LOG_VARIABLE).ok();
    logs::init(filter.as_deref()).map_err(Failure::usage)?;
    super::runtime()?.block_on(async {
        let stop = stop_on_signals().context("no signal handlers")?;
        crate::node::run(config, stop).await
    })?;
    Ok(ExitCode::SUCCESS)
}

/// A shard for each processor. Each is a group of its own that writes, sends and syncs its own entries, so
/// more of them cost more per record, and fewer keep fewer processors busy.
fn shards_for_this_machine() -> u32 {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    u32::try_from(processors)
        .unwrap_or(u32::MAX)
        .clamp(FEWEST_SHARDS, MOST_SHARDS)
}

/// Everything that has a say in the configuration.
fn sources(args: &ServerArgs) -> Result<Sources, Failure> {
    let path = args
        .config
        .clone()
        .or_else(|| std::env::var_os(CONFIG_VARIABLE).map(PathBuf::from));
    let file = match path {
        Some(path) => {
            let name = path.display().to_string();
            let text = std::fs::read_to_string(&path)
                .with_context(|| format!("the configuration file {name} cannot be read"))
                .map_err(Failure::usage)?;
            Some((name, text))
        }
        None => None,
    };
    let environment = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect();
    Ok(Sources {
        file,
        environment,
        flags: flags(args)?,
    })
}

/// The flags as (spelling, key, value); named ones beat `--set`.
fn flags(args: &ServerArgs) -> Result<Vec<(String, String, String)>, Failure> {
    let mut flags = Vec::new();
    for setting in &args.set {
        let Some((key, value)) = setting.split_once('=') else {
            return Err(Failure::usage(anyhow::anyhow!(
                "--set {setting} has no value: write --set SECTION.KEY=VALUE"
            )));
        };
        flags.push(("--set".to_owned(), key.trim().to_owned(), value.to_owned()));
    }
    for (flag, key, value) in [
        ("--node-id", "node.id", &args.node_id),
        ("--data-dir", "node.data_dir", &args.data_dir),
        ("--join", "node.join", &args.join),
        (
            "--advertised-address",
            "node.advertised_address",
            &args.advertised_address,
        ),
        ("--rack", "node.rack", &args.rack),
        ("--grpc-address", "listen.grpc", &args.grpc_address),
        ("--admin-address", "listen.admin", &args.admin_address),
    ] {
        if let Some(value) = value {
            flags.push((flag.to_owned(), key.to_owned(), value.clone()));
        }
    }
    Ok(flags)
}
