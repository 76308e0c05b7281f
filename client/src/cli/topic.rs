//! `topic create|list|describe`; what changes topics is in `topic_change`.

use std::collections::BTreeMap;
use std::process::ExitCode;

use clap::Subcommand;
use futures_util::{StreamExt as _, stream};
use highwater_proto::v1;
use serde_json::json;

use super::output::{human_bytes, print_json, print_line, print_table, progress, table};
use super::topic_change::{self, AddPartitionsArgs, AlterArgs, DeleteArgs, DeleteRecordsArgs};
use super::topic_move::{self, MoveArgs};
use super::{CliError, GlobalOptions, OutputFormat};
use crate::admin::{Admin, NewTopic};
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

/// Topics that are created at the same time.
const AT_ONCE: usize = 16;

/// What became of one topic.
async fn create_one(
    admin: &Admin,
    (name, topic): (String, NewTopic),
    (if_not_exists, dry_run): (bool, bool),
) -> (
    String,
    Result<(v1::TopicMetadata, &'static str), AdminError>,
) {
    let done = if dry_run {
        "could be created"
    } else {
        "created"
    };
    let outcome = match admin.create_topic(topic).await {
        Ok(created) => Ok((created, done)),
        Err(AdminError::Rejected(cause))
            if if_not_exists && cause.code() == Some(ErrorCode::TopicExists) =>
        {
            let described = admin.describe_topic(&name).await;
            described.map(|found| (found.topic.unwrap_or_default(), "exists"))
        }
        Err(error) => Err(error),
    };
    (name, outcome)
}

/// Creates all that can be created; the first failure is the command's.
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
    let bar = progress("created", Some(topics.len() as u64));
    let mut outcomes = stream::iter(topics)
        .map(|topic| create_one(&admin, topic, (if_not_exists, dry_run)))
        .buffered(AT_ONCE);
    while let Some((name, outcome)) = outcomes.next().await {
        bar.inc(1);
        let (created, status) = match outcome {
            Ok((created, status)) => (created, status.to_owned()),
            Err(error) => {
                let status = format!("failed: {error}");
                failed.get_or_insert_with(|| CliError::admin(format!("topic {name}"))(error));
                (v1::TopicMetadata::default(), status)
            }
        };
        let (partitions, replicas) = (created.partitions.len(), created.replication_factor);
        let known = |count: usize| match count {
            0 => "-".to_owned(),
            count => count.to_string(),
        };
        rows.add_row([
            name.clone(),
            known(partitions),
            known(replicas as usize),
            status.clone(),
        ]);
        all.push(json!({
            "name": name, "id": created.id, "partitions": partitions,
            "replication_factor": replicas, "status": status,
        }));
    }
    bar.finish_and_clear();
    match global.output {
        OutputFormat::Json => print_json(&json!({ "topics": all }))?,
        // A failure that is all there is is said once.
        OutputFormat::Table if all.len() > 1 || failed.is_none() => print_table(&rows)?,
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
        "SHARD",
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

fn partition_row(p: &v1::PartitionMetadata, status: Option<&v1::PartitionStatus>) -> [String; 8] {
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
        p.shard.to_string(),
        leader,
        or_dash(known.map(|s| s.leader_epoch.to_string())),
        replicas.join(","),
        or_dash(known.map(|s| s.log_start_offset.to_string())),
        or_dash(known.map(|s| s.high_watermark.to_string())),
        or_dash(known.map(|s| human_bytes(s.size_bytes))),
    ]
}
