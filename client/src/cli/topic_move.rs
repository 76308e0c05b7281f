//! `topic move`, and the replicas of `topic alter`: partitions go to other shards by a plan, which `cluster
//! plan` shows and cancels.

use std::process::ExitCode;

use clap::Args;
use highwater_proto::{PartitionId, ShardId};

use super::lifecycle::{self, PlanArgs};
use super::{CliError, GlobalOptions};
use crate::lifecycle::NewPlan;

/// What `topic move` takes.
#[derive(Debug, Args)]
pub struct MoveArgs {
    /// Its name
    name: String,
    /// The partition
    #[arg(short, long)]
    partition: u32,
    /// Where it goes: a shard with as many replicas, as `cluster status --shards` shows them
    #[arg(short, long)]
    shard: u32,
    /// How it is done
    #[command(flatten)]
    plan: PlanArgs,
}

pub(super) async fn run(args: MoveArgs, global: &GlobalOptions) -> Result<ExitCode, CliError> {
    let MoveArgs {
        name,
        partition,
        shard,
        plan,
    } = args;
    let what = format!("topic {name}");
    let wanted = NewPlan::move_partition(name, PartitionId(partition), ShardId(shard));
    let admin = global.connect().await?.admin();
    lifecycle::start(what, wanted, plan, &admin, global).await
}

pub(super) async fn replicate(
    name: String,
    replication_factor: u32,
    plan: PlanArgs,
    global: &GlobalOptions,
) -> Result<ExitCode, CliError> {
    let what = format!("topic {name}");
    let wanted = NewPlan::replicate(name, replication_factor);
    let admin = global.connect().await?.admin();
    lifecycle::start(what, wanted, plan, &admin, global).await
}
