//! The hidden verbs of the order demo: one service as a process, and the checker as another.

use std::path::PathBuf;
use std::process::ExitCode;

use crate::observe::logs;
use anyhow::Context as _;
use clap::Args;
use highwater_order_demo::checker::{gather, judge};
use highwater_order_demo::services::config::ServiceConfig;
use highwater_order_demo::services::run;

use super::exit::Failure;
use super::parent::die_with;
use super::signals::stop_on_signals;

#[derive(Args)]
pub struct ServiceArgs {
    /// Which service
    name: String,
    /// Its configuration
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Ends at once when the process with this id, which must be the parent, is gone
    #[arg(long, value_name = "PID")]
    die_with_parent: Option<u32>,
}

#[derive(Args)]
pub struct CheckArgs {
    /// The directory of the run
    #[arg(long, value_name = "PATH")]
    run: PathBuf,
    /// Writes the verdict there as JSON
    #[arg(long, value_name = "PATH")]
    json: Option<PathBuf>,
}

/// Runs one service until it is told to stop.
pub fn service(args: ServiceArgs) -> Result<ExitCode, Failure> {
    if let Some(parent) = args.die_with_parent {
        die_with(parent)?;
    }
    let shown = args.config.display();
    let text = std::fs::read(&args.config)
        .with_context(|| format!("{shown} cannot be read"))
        .map_err(Failure::usage)?;
    let config: ServiceConfig = serde_json::from_slice(&text)
        .with_context(|| format!("{shown} does not read"))
        .map_err(Failure::usage)?;
    let filter = std::env::var(logs::LOG_VARIABLE).ok();
    logs::init(filter.as_deref()).map_err(Failure::usage)?;
    // One thread beside the store's: a dozen and more of services share a machine, and what a service
    // does for a message is too little to be handed from thread to thread.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("no runtime")?;
    runtime.block_on(async {
        let stop = stop_on_signals().context("no signal handlers")?;
        run::run(&args.name, config, stop).await
    })?;
    Ok(ExitCode::SUCCESS)
}

/// Judges a run whose services have stopped. 0: every promise was kept; 1: not, or not shown.
pub fn check(args: CheckArgs) -> Result<ExitCode, Failure> {
    let (evidence, messages) = super::runtime()?.block_on(gather(&args.run))?;
    let mut verdict = judge(&evidence);
    verdict.messages = messages;
    print!("{verdict}");
    if let Some(path) = &args.json {
        let json = serde_json::to_vec_pretty(&verdict).context("the verdict")?;
        std::fs::write(path, json).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(if verdict.passed {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
