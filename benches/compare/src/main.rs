//! The same workload against Kafka, NATS JetStream and Highwater: interleaved blocks on one
//! machine, each with three fresh brokers, appended to a file as they end.

mod kafka;
mod nats;
mod peer;
mod report;
mod run;

use std::path::PathBuf;

use clap::{Parser, Subcommand};

/// Compares brokers on this machine, fairly
#[derive(Debug, Parser)]
#[command(name = "highwater-compare", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs blocks, skipping those that the results file has already
    Run(run::Options),
    /// Prints medians, ranges and ratios of a results file
    Report {
        /// The results file
        #[arg(default_value = "compare.jsonl")]
        results: PathBuf,
    },
    /// Produces or consumes, as told on standard input
    #[command(hide = true)]
    Worker {
        /// The kind of broker
        kind: peer::Kind,
        /// Where its brokers are
        connection: String,
    },
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    match Arguments::parse().command {
        Command::Run(options) => run::run(&options).await,
        Command::Report { results } => report::print(&results),
        Command::Worker { kind, connection } => {
            let backend = kind.backend(&connection);
            highwater_load::bench::worker::serve(backend.as_ref()).await
        }
    }
}
