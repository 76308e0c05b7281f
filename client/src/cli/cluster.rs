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
    /// Who is in the cluster, what each broker holds and leads, and how it stands
    Members,
    /// What changes the cluster.
    #[command(flatten)]
    Life(LifeCommand),
}

pub(super) async fn run(
    command: ClusterCommand,
    global: &GlobalOptions,
) -> Result<ExitCode, CliError> {
    let shown = match command {
        ClusterCommand::Status { shards } => Shown::Status { shards },
        ClusterCommand::Members => Shown::Members,
        ClusterCommand::Life(command) => return lifecycle::run(command, global).await,
    };
    let admin = global.connect().await?.admin();
    let mut status = admin
        .describe_cluster()
        .await
        .map_err(CliError::admin("cluster"))?;
    status.brokers.sort_by_key(|broker| broker.id);
    status.shards.sort_by_key(|shard| shard.shard);
    if matches!(shown, Shown::Members) {
        print_members(&status, global.output)?;
        return Ok(ExitCode::SUCCESS);
    }
    match global.output {
        OutputFormat::Json => print_json(&as_json(&status))?,
        OutputFormat::Table => print(&status, matches!(shown, Shown::Status { shards: true }))?,
    }
    let healthy = status.problems.is_empty();
    Ok(if healthy {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(PROBLEMS)
    })
}

#[derive(Clone, Copy)]
enum Shown {
    Status { shards: bool },
    Members,
}

/// Shards that a broker leads: none when it is down, whatever was heard last.
fn leads(status: &v1::DescribeClusterResponse, broker: u32) -> usize {
    let lives = |known: &v1::Broker| known.id == broker && known.alive;
    if !status.brokers.iter().any(lives) {
        return 0;
    }
    let shards = status.shards.iter();
    shards.filter(|s| s.leader == Some(broker)).count()
}

fn print(status: &v1::DescribeClusterResponse, shards: bool) -> std::io::Result<()> {
    let leader = status
        .metadata_leader
        .map_or_else(|| "none".to_owned(), |l| l.to_string());
    print_line(&format!("CLUSTER          {}", status.cluster_id))?;
    print_line(&format!("METADATA-LEADER  {leader}"))?;
    print_line(&format!("TOPICS           {}", status.topics))?;
    print_line(&format!("PARTITIONS       {}", status.partitions))?;
    let brokers = status.brokers.iter();
    let led: usize = brokers.map(|broker| leads(status, broker.id)).sum();
    print_line(&format!(
        "SHARDS           {}, {led} with a leader",
        status.shards.len()
    ))?;
    print_line("")?;
    let mut rows = table(["BROKER", "ADDRESS", "RACK", "STATE", "LEADS", "VERSION"]);
    for broker in &status.brokers {
        rows.add_row([
            broker.id.to_string(),
            broker.address.clone(),
            broker.rack.clone(),
            state(broker),
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

fn standing(broker: &v1::Broker) -> &'static str {
    match broker.standing() {
        v1::BrokerStanding::Active => "active",
        v1::BrokerStanding::Draining => "draining",
        v1::BrokerStanding::Drained => "drained",
        v1::BrokerStanding::Leaving => "leaving",
        v1::BrokerStanding::GivenUp => "given up",
        v1::BrokerStanding::Awaited => "awaited",
    }
}

/// Whether it lives, and where it stands if that is not the usual.
fn state(broker: &v1::Broker) -> String {
    let lives = if broker.alive { "alive" } else { "down" };
    match broker.standing() {
        v1::BrokerStanding::Active => lives.to_owned(),
        _ => format!("{lives}, {}", standing(broker)),
    }
}

fn holds(status: &v1::DescribeClusterResponse, broker: u32) -> usize {
    let shards = status.shards.iter();
    shards.filter(|s| s.replicas.contains(&broker)).count()
}

fn print_members(
    status: &v1::DescribeClusterResponse,
    output: OutputFormat,
) -> std::io::Result<()> {
    if output == OutputFormat::Json {
        let member = |broker: &v1::Broker| {
            json!({
                "id": broker.id, "address": broker.address, "rack": broker.rack,
                "alive": broker.alive, "standing": standing(broker),
                "replicas": holds(status, broker.id), "leads": leads(status, broker.id),
                "leads_metadata": status.metadata_leader == Some(broker.id),
                "version": broker.version, "incarnation": broker.incarnation,
            })
        };
        return print_json(&json!(
            status.brokers.iter().map(member).collect::<Vec<_>>()
        ));
    }
    let mut rows = table([
        "BROKER", "ADDRESS", "RACK", "STATE", "REPLICAS", "LEADS", "METADATA", "VERSION",
    ]);
    for broker in &status.brokers {
        let metadata = if status.metadata_leader == Some(broker.id) {
            "leader"
        } else {
            "-"
        };
        rows.add_row([
            broker.id.to_string(),
            broker.address.clone(),
            broker.rack.clone(),
            state(broker),
            holds(status, broker.id).to_string(),
            leads(status, broker.id).to_string(),
            metadata.to_owned(),
            broker.version.clone(),
        ]);
    }
    print_table(&rows)
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
            "standing": standing(b), "version": b.version, "incarnation": b.incarnation,
            "leads": leads(status, b.id),
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
