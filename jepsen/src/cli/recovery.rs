//! What recoveries took, over all runs of a ledger.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use crate::recovery::{Sample, availability, beside_others, by_kind};
use crate::soak;

/// Which ledgers.
#[derive(Debug, Args)]
pub(super) struct RecoveryArgs {
    /// Ledgers that soaks wrote
    #[arg(required = true, value_name = "LEDGER")]
    ledgers: Vec<PathBuf>,
    /// Writes a page of HTML there: faults by kind and by pairs that overlapped, recoveries, blocks
    #[arg(long, value_name = "PATH")]
    html: Option<PathBuf>,
}

pub(super) fn run(arguments: &RecoveryArgs) -> anyhow::Result<ExitCode> {
    let mut entries = Vec::new();
    for path in &arguments.ledgers {
        entries.extend(soak::read_ledger(path)?);
    }
    if let Some(path) = &arguments.html {
        soak::show(path, &entries)?;
    }
    let samples: Vec<Sample> = entries
        .iter()
        .flat_map(|entry| entry.recovery.clone())
        .collect();
    println!("{}", soak::summary(&entries));
    println!("{}", by_kind(&samples));
    println!("{}", availability(&samples));
    println!("{}", beside_others(&samples));
    Ok(ExitCode::SUCCESS)
}
