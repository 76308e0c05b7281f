//! `topic create|list|describe`; what changes topics is in `topic_change`.

use std::collections::BTreeMap;
use std::process::ExitCode;

use clap::Subcommand;
use highwater_proto::v1;
use serde_json::json;

use super::output::{human_bytes, print_json, print_line, print_table, table};
use super::topic_change::{self, AddPartitionsArgs, AlterArgs, DeleteArgs, DeleteRecordsArgs};
use super::topic_move::{self, MoveArgs};
use super::{CliError, GlobalOptions, OutputFormat};
use crate::admin::NewTopic;
use crate::error::{AdminError, ErrorCode};

/// What to do with topics.
#[derive(Debug, Subcommand)]
pub enum TopicCommand {
    /// Create topics
    Create {
        /// Their names
        #[arg(required = true)]
        names: Vec<String>,
        /// Partitions of each; 0 takes the cluster's default
        #[arg(short, long, default_value_t = 0)]
        partitions: u32,
        /// Replicas of each partition: 1, 3 or 5; 0 takes the cluster's default
        #[arg(short, long, visible_alias = "replication-factor", default_value_t = 0)]
        replicas: u32,
        /// Configuration by Kafka's names, such as retention.ms=3600000; may be repeated
        #[arg(short = 'c', long = "config", value_name = "KEY=VALUE", value_parser = pair)]
        configs: Vec<(String, String)>,
        /// Only check whether it could be done
        #[arg(long)]
        dry_run: bool,
        /// A topic that exists is no failure
        #[arg(long)]
        if_not_exists: bool,
    },
    /// List topics by name
    List {
        /// Only names that contain this
        #[arg(default_value = "")]
        filter: String,
    },
    /// Show one topic with its partitions
    Describe {
        /// Its name
        name: String,
    },
    /// Delete topics with all their records; their names are free at once
    Delete(DeleteArgs),
    /// Change a topic's configuration, or give it more replicas
    Alter(AlterArgs),
    /// Move a partition to another shard; its offsets and its records' order stay
    Move(MoveArgs),
    /// Give a topic more partitions
    AddPartitions(AddPartitionsArgs),
    /// Delete the records below a place, for ever
    DeleteRecords(DeleteRecordsArgs),
}

/// `key=value`.
pub(super) fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err(format!("{text:?} is not key=value")),
    }
}

pub(super) async fn run(
    command: TopicCommand,
    global: &GlobalOptions,
) -> Result<ExitCode, CliError> {
    match command {
        TopicCommand::Create {
            names,
            partitions,
            replicas,
            configs,
            dry_run,
            if_not_exists,
        } => {
            let wanted = names.into_iter().map(|name| {
                let topic = NewTopic::named(name.clone())
                    .partitions(partitions)
                    .replication_factor(replicas)
                    .validate_only(dry_run);
                let with = |topic: NewTopic, (k, v): &(String, String)| topic.config(k, v);
                (name, configs.iter().fold(topic, with))
            });
            create(wanted.collect(), if_not_exists, dry_run, global).await
        }
        TopicCommand::List { filter } => list(&filter, global).await,
        TopicCommand::Describe { name } => describe(&name, global).await,
        TopicCommand::Delete(args) => topic_change::delete(args, global).await,
        TopicCommand::Alter(args) => topic_change::alter(args, global).await,
        TopicCommand::Move(args) => topic_move::run(args, global).await,
        TopicCommand::AddPartitions(args) => topic_change::add_partitions(args, global).await,
        TopicCommand::DeleteRecords(args) => topic_change::delete_records(args, global).await,
    }
}

async fn create(
    topics: Vec<(String, NewTopic)>,
    if_not_exists: bool,
    dry_run: bool,
    global: &GlobalOptions,
) -> Result<ExitCode, CliError> {
    let admin = global.connect().await?.admin();
    let mut rows = table(["TOPIC", "PARTITIONS", "REPLICAS", "STATUS"]);
    let mut all = Vec::new();
    let mut failed = None;
    for (name, topic) in topics {
        let (created, status) = match admin.create_topic(topic).await {
            Ok(created) => (
                created,
                if dry_run {
                    "could be created"
                } else {
                    "created"
                },
            ),
            Err(AdminError::Rejected(cause))
                if if_not_exists && cause.code() == Some(ErrorCode::TopicExists) =>
            {
                let described = admin.describe_topic(&name).await;
                let described = described.map_err(CliError::admin(format!("topic {name}")))?;
                (described.topic.unwrap_or_default(), "exists")
            }
            Err(error) => {
                // Say what was done before, then what was not.
                failed = Some(CliError::admin(format!("topic {name}"))(error));
                break;
            }
        };
        let (partitions, replicas) = (created.partitions.len(), created.replication_factor);
        rows.add_row([
            name.clone(),
            partitions.to_string(),
            replicas.to_string(),
            status.into(),
        ]);
        all.push(json!({
            "name": name, "id": created.id, "partitions": partitions,
            "replication_factor": replicas, "status": status,
        }));
    }
    match global.output {
        OutputFormat::Json => print_json(&json!({ "topics": all }))?,
        OutputFormat::Table if !all.is_empty() => print_table(&rows)?,
        OutputFormat::Table => {}
    }
    failed.map_or(Ok(ExitCode::SUCCESS), Err)
}

async fn list(filter: &str, global: &GlobalOptions) -> Result<ExitCode, CliError> {
    let admin = global.connect().await?.admin();
    let topics = admin
        .all_topics(filter)
        .await
        .map_err(CliError::admin("topics"))?;
    if global.output == OutputFormat::Json {
        let topic = |t: &v1::TopicSummary| {
            json!({
                "name": t.name, "id": t.id, "partitions": t.partitions,
                "replication_factor": t.replication_factor, "ready": t.ready,
            })
        };
        let topics: Vec<_> = topics.iter().map(topic).collect();
        print_json(&json!({ "topics": topics }))?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut rows = table(["NAME", "PARTITIONS", "REPLICAS", "STATE"]);
    for topic in topics {
        let state = if topic.ready { "ready" } else { "being set up" };
        let counts = [
            topic.partitions.to_string(),
            topic.replication_factor.to_string(),
        ];
        let [partitions, replicas] = counts;
        rows.add_row([topic.name, partitions, replicas, state.to_owned()]);
    }
    print_table(&rows)?;
    Ok(ExitCode::SUCCESS)
}

async fn describe(name: &str, global: &GlobalOptions) -> Result<ExitCode, CliError> {
    let admin = global.connect().await?.admin();
    let described = admin.describe_topic(name).await;
    let described = described.map_err(CliError::admin(format!("topic {name}")))?;
    let topic = described.topic.unwrap_or_default();
    let status: BTreeMap<u32, &v1::PartitionStatus> = described
        .partitions
        .iter()
        .map(|status| (status.partition, status))
        .collect();
    let configs: BTreeMap<_, _> = topic.configs.iter().collect();
    if global.output == OutputFormat::Json {
        let partitions: Vec<_> = topic
            .partitions
            .iter()
            .map(|p| partition_json(p, status.get(&p.partition)))
            .collect();
        print_json(&json!({
            "name": topic.name, "id": topic.id, "ready": topic.ready,
            "replication_factor": topic.replication_factor,
            "configs": configs, "partitions": partitions,
        }))?;
        return Ok(ExitCode::SUCCESS);
    }
    let state = if topic.ready { "ready" } else { "being set up" };
    print_line(&format!("NAME        {}", topic.name))?;
    print_line(&format!("ID          {}", topic.id))?;
    print_line(&format!("PARTITIONS  {}", topic.partitions.len()))?;
    print_line(&format!("REPLICAS    {}", topic.replication_factor))?;
    print_line(&format!("STATE       {state}"))?;
    for (key, value) in configs {
        print_line(&format!("CONFIG      {key}={value}"))?;
    }
    print_line("")?;
    let mut rows = table([
        "PARTITION",
        "LEADER",
        "EPOCH",
        "REPLICAS",
        "LOG-START-OFFSET",
        "HIGH-WATERMARK",
        "SIZE",
    ]);
    for partition in &topic.partitions {
        rows.add_row(partition_row(
            partition,
            status.get(&partition.partition).copied(),
        ));
    }
    print_table(&rows)?;
    Ok(ExitCode::SUCCESS)
}

fn partition_json(
    p: &v1::PartitionMetadata,
    status: Option<&&v1::PartitionStatus>,
) -> serde_json::Value {
    let known = status.filter(|status| status.error.is_none());
    json!({
        "partition": p.partition, "shard": p.shard, "leader": p.leader, "replicas": p.replicas,
        "leader_epoch": known.map(|s| s.leader_epoch),
        "log_start_offset": known.map(|s| s.log_start_offset),
        "high_watermark": known.map(|s| s.high_watermark),
        "size_bytes": known.map(|s| s.size_bytes),
        "error": status.and_then(|s| s.error.as_ref()).map(|e| e.message.clone()),
    })
}

fn partition_row(p: &v1::PartitionMetadata, status: Option<&v1::PartitionStatus>) -> [String; 7] {
    let leader = p
        .leader
        .map_or_else(|| "none".to_owned(), |leader| leader.to_string());
    let mut replicas: Vec<_> = p.replicas.clone();
    replicas.sort_unstable();
    let replicas: Vec<_> = replicas.iter().map(u32::to_string).collect();
    let known = status.filter(|status| status.error.is_none());
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    [
        p.partition.to_string(),
        leader,
        or_dash(known.map(|s| s.leader_epoch.to_string())),
        replicas.join(","),
        or_dash(known.map(|s| s.log_start_offset.to_string())),
        or_dash(known.map(|s| s.high_watermark.to_string())),
        or_dash(known.map(|s| human_bytes(s.size_bytes))),
    ]
}
