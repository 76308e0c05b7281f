//! Load generator and the project's own experiments, each a subcommand that anyone can run again.

mod compaction;
mod copies;
mod failover;
mod groups;
mod moving;
mod partitions;
mod probe;
mod raw;
mod recovery;
mod scale;

use std::path::PathBuf;

use clap::{Parser, Subcommand};
use highwater_load::{bench, cluster, stats};

/// Experiments on a cluster of three brokers on this machine.
#[derive(Debug, Parser)]
#[command(name = "highwater-load", version)]
struct Arguments {
    /// The broker binary; without it the one beside this program is taken, or built.
    #[arg(long, global = true)]
    broker: Option<PathBuf>,
    #[command(subcommand)]
    experiment: Experiment,
}

#[derive(Debug, Subcommand)]
enum Experiment {
    /// Drives a workload through a cluster and prints what it took; also `highwater bench`.
    Bench(Box<bench::Bench>),
    /// Cost of an acknowledged write with many active partitions against one.
    Partitions(partitions::Options),
    /// Leader killed to next acknowledgement, over many kills.
    Failover(failover::Options),
    /// All brokers killed with a long log behind the checkpoints: time until every partition
    /// acknowledges again.
    Recovery(recovery::Options),
    /// Bytes copied in user space per byte produced, by process.
    Copies(copies::Options),
    /// Log compaction: bytes a second, and its effect on the latency of acknowledgements.
    Compaction(compaction::Options),
    /// Consumer groups: commits a second, rebalances, latency up to the handler.
    Groups(groups::Options),
    /// A large shard moves to another broker under load.
    Moving(moving::Options),
    /// Many partitions: creation, idle cost, restart, failover.
    Scale(scale::Options),
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    if let Experiment::Bench(options) = arguments.experiment {
        return bench::run(*options, arguments.broker, &["bench"]).await;
    }
    let broker = cluster::find_broker(arguments.broker)?;
    match arguments.experiment {
        Experiment::Bench(_) => Ok(()), // has returned above
        Experiment::Partitions(options) => partitions::run(&broker, &options).await,
        Experiment::Failover(options) => failover::run(&broker, &options).await,
        Experiment::Recovery(options) => recovery::run(&broker, &options).await,
        Experiment::Copies(options) => copies::run(&broker, &options).await,
        Experiment::Compaction(options) => compaction::run(&broker, &options).await,
        Experiment::Groups(options) => groups::run(&broker, &options).await,
        Experiment::Moving(options) => moving::run(&broker, &options).await,
        Experiment::Scale(options) => scale::run(&broker, &options).await,
    }
}
