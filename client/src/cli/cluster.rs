//! `cluster status`; the verbs that change the cluster are in `lifecycle.rs`.

use std::process::ExitCode;

use clap::Subcommand;
use highwater_proto::v1;
use serde_json::json;

use super::error::PROBLEMS;
use super::lifecycle::{self, LifeCommand};
use super::output::{GREEN, RED, coloured, print_json, print_line, print_table, table};
use super::{CliError, GlobalOptions, OutputFormat};

/// What to look at, or to change.
#[derive(Debug, Subcommand)]
pub enum ClusterCommand {
    /// Brokers, leaders and problems; exit code 6 when there are problems
    Status {
        /// Each shard too
        #[arg(long)]
        shards: bool,
    },
    /// What changes the cluster.
    #[command(flatten)]
    Life(LifeCommand),
}

pub(super) async fn run(
    command: ClusterCommand,
    global: &GlobalOptions,
) -> Result<ExitCode, CliError> {
    let shards = match command {
        ClusterCommand::Status { shards } => shards,
        ClusterCommand::Life(command) => return lifecycle::run(command, global).await,
    };
    let admin = global.connect().await?.admin();
    let mut status = admin
        .describe_cluster()
        .await
        .map_err(CliError::admin("cluster"))?;
    status.brokers.sort_by_key(|broker| broker.id);
    status.shards.sort_by_key(|shard| shard.shard);
    match global.output {
        OutputFormat::Json => print_json(&as_json(&status))?,
        OutputFormat::Table => print(&status, shards)?,
    }
    let healthy = status.problems.is_empty();
    Ok(if healthy {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(PROBLEMS)
    })
}

fn leads(status: &v1::DescribeClusterResponse, broker: u32) -> usize {
    status
        .shards
        .iter()
        .filter(|shard| shard.leader == Some(broker))
        .count()
}

fn print(status: &v1::DescribeClusterResponse, shards: bool) -> std::io::Result<()> {
    let leader = status
        .metadata_leader
        .map_or_else(|| "none".to_owned(), |l| l.to_string());
    print_line(&format!("CLUSTER          {}", status.cluster_id))?;
    print_line(&format!("METADATA-LEADER  {leader}"))?;
    print_line(&format!("TOPICS           {}", status.topics))?;
    print_line(&format!("PARTITIONS       {}", status.partitions))?;
    let led = status
        .shards
        .iter()
        .filter(|shard| shard.leader.is_some())
        .count();
    print_line(&format!(
        "SHARDS           {}, {led} with a leader",
        status.shards.len()
    ))?;
    print_line("")?;
    let mut rows = table(["BROKER", "ADDRESS", "RACK", "STATE", "LEADS", "VERSION"]);
    for broker in &status.brokers {
        let state = if broker.alive { "alive" } else { "down" };
        rows.add_row([
            broker.id.to_string(),
            broker.address.clone(),
            broker.rack.clone(),
            state.to_owned(),
            leads(status, broker.id).to_string(),
            broker.version.clone(),
        ]);
    }
    print_table(&rows)?;
    if shards {
        print_line("")?;
        print_shards(&status.shards)?;
    }
    print_line("")?;
    if status.problems.is_empty() {
        return print_line(&coloured("No problems.", GREEN));
    }
    for problem in &status.problems {
        print_line(&format!("{} {problem}", coloured("PROBLEM", RED)))?;
    }
    Ok(())
}

fn print_shards(shards: &[v1::ShardStatus]) -> std::io::Result<()> {
    let mut rows = table([
        "SHARD",
        "LEADER",
        "PREFERRED",
        "REPLICAS",
        "PARTITIONS",
        "APPLIED",
    ]);
    let or_dash = |id: Option<u32>| id.map_or_else(|| "-".to_owned(), |id| id.to_string());
    for shard in shards {
        let replicas: Vec<_> = shard.replicas.iter().map(u32::to_string).collect();
        rows.add_row([
            shard.shard.to_string(),
            or_dash(shard.leader),
            or_dash(shard.preferred_leader),
            replicas.join(","),
            shard.partitions.to_string(),
            shard.applied_index.to_string(),
        ]);
    }
    print_table(&rows)
}

fn as_json(status: &v1::DescribeClusterResponse) -> serde_json::Value {
    let broker = |b: &v1::Broker| {
        json!({
            "id": b.id, "address": b.address, "rack": b.rack, "alive": b.alive,
            "version": b.version, "incarnation": b.incarnation, "leads": leads(status, b.id),
        })
    };
    let shard = |s: &v1::ShardStatus| {
        json!({
            "shard": s.shard, "replication_factor": s.replication_factor, "replicas": s.replicas,
            "preferred_leader": s.preferred_leader, "leader": s.leader, "term": s.term,
            "applied_index": s.applied_index, "partitions": s.partitions,
        })
    };
    json!({
        "cluster_id": status.cluster_id,
        "metadata_leader": status.metadata_leader,
        "topics": status.topics,
        "partitions": status.partitions,
        "brokers": status.brokers.iter().map(broker).collect::<Vec<_>>(),
        "shards": status.shards.iter().map(shard).collect::<Vec<_>>(),
        "problems": status.problems,
        "healthy": status.problems.is_empty(),
    })
}
