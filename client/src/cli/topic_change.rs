//! `topic delete|alter|add-partitions|delete-records`.

use std::collections::BTreeMap;
use std::process::ExitCode;

use clap::Args;
use highwater_proto::{Offset, PartitionId, v1};
use serde_json::json;

use super::lifecycle::PlanArgs;
use super::output::{print_json, print_line, print_table, table};
use super::position::Position;
use super::topic::pair;
use super::topic_move;
use super::{CliError, GlobalOptions, OutputFormat};
use crate::client::Client;
use crate::consumer::Start;
use crate::error::{AdminError, Cause, ErrorCode, OffsetsError};
use crate::offsets::At;
use crate::topics::TopicChange;

/// What `topic delete` takes.
#[derive(Debug, Args)]
pub struct DeleteArgs {
    /// Their names
    #[arg(required = true)]
    names: Vec<String>,
    /// Only say what would be deleted
    #[arg(long)]
    dry_run: bool,
    /// A topic that does not exist is no failure
    #[arg(long)]
    if_exists: bool,
}

/// What `topic alter` takes.
#[derive(Debug, Args)]
pub struct AlterArgs {
    /// Its name
    name: String,
    /// Configuration by Kafka's names, such as retention.ms=3600000; may be repeated
    #[arg(short = 'c', long = "config", value_name = "KEY=VALUE", value_parser = pair)]
    configs: Vec<(String, String)>,
    /// A setting that goes back to its default; may be repeated
    #[arg(long, value_name = "KEY")]
    unset: Vec<String>,
    /// Replicas that each partition is to have, 3 or 5: partitions move to shards of that many
    #[arg(long, visible_alias = "replicas", value_name = "REPLICAS", conflicts_with_all = ["configs", "unset"])]
    replication_factor: Option<u32>,
    /// Partitions moved at the same time
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=64), requires = "replication_factor")]
    parallel: u32,
    /// Wait until all partitions have moved
    #[arg(long, requires = "replication_factor", conflicts_with = "dry_run")]
    wait: bool,
    /// Only say what the settings would be, or what would be moved
    #[arg(long)]
    dry_run: bool,
}

/// What `topic add-partitions` takes.
#[derive(Debug, Args)]
pub struct AddPartitionsArgs {
    /// Its name
    name: String,
    /// How many partitions there are to be in all
    #[arg(long, value_name = "PARTITIONS")]
    total: u32,
    /// Only say where the new ones would be
    #[arg(long)]
    dry_run: bool,
}

/// What `topic delete-records` takes.
#[derive(Debug, Args)]
pub struct DeleteRecordsArgs {
    /// Its name
    name: String,
    /// The first record that stays: end, 42, +10 (after the start), -10 (before the end), @TIME or
    /// @-15m
    #[arg(long, value_name = "PLACE", allow_hyphen_values = true)]
    before: Position,
    /// Only of these partitions; may be repeated
    #[arg(short, long, value_name = "PARTITION")]
    partition: Vec<u32>,
    /// Only say what would be deleted
    #[arg(long)]
    dry_run: bool,
}

pub(super) async fn delete(args: DeleteArgs, global: &GlobalOptions) -> Result<ExitCode, CliError> {
    let admin = global.connect().await?.admin();
    let mut rows = table(["TOPIC", "ID", "PARTITIONS", "STATUS"]);
    let mut all = Vec::new();
    let mut failed = None;
    for name in args.names {
        let outcome = if args.dry_run {
            admin.find_topic(&name).await
        } else {
            admin.delete_topic(&name).await
        };
        let status = if args.dry_run {
            "would be deleted"
        } else {
            "deleted"
        };
        let (topic, status) = match outcome {
            Ok(topic) => (topic, status),
            Err(AdminError::Rejected(cause))
                if args.if_exists && cause.code() == Some(ErrorCode::UnknownTopic) =>
            {
                (v1::TopicSummary::default(), "does not exist")
            }
            Err(error) => {
                // Say what was done before, then what was not.
                failed = Some(CliError::admin(format!("topic {name}"))(error));
                break;
            }
        };
        let known = |number: u64| match topic.id {
            0 => "-".to_owned(),
            _ => number.to_string(),
        };
        rows.add_row([
            name.clone(),
            known(topic.id),
            known(topic.partitions.into()),
            status.to_owned(),
        ]);
        all.push(json!({
            "name": name, "id": topic.id, "partitions": topic.partitions, "status": status,
        }));
    }
    match global.output {
        OutputFormat::Json => print_json(&json!({ "topics": all }))?,
        OutputFormat::Table if !all.is_empty() => print_table(&rows)?,
        OutputFormat::Table => {}
    }
    failed.map_or(Ok(ExitCode::SUCCESS), Err)
}

pub(super) async fn alter(args: AlterArgs, global: &GlobalOptions) -> Result<ExitCode, CliError> {
    if let Some(factor) = args.replication_factor {
        let plan = PlanArgs {
            dry_run: args.dry_run,
            parallel: args.parallel,
            wait: args.wait,
        };
        return topic_move::replicate(args.name, factor, plan, global).await;
    }
    if args.configs.is_empty() && args.unset.is_empty() {
        let text =
            "say what to change: --config KEY=VALUE, --unset KEY or --replication-factor REPLICAS";
        return Err(CliError::Usage(text.to_owned()));
    }
    let admin = global.connect().await?.admin();
    let change = TopicChange::of(&args.name).dry_run(args.dry_run);
    let set = |change: TopicChange, (key, value): &(String, String)| change.set(key, value);
    let change = args.configs.iter().fold(change, set);
    let change = args
        .unset
        .iter()
        .fold(change, |change, key| change.unset(key));
    let altered = admin.alter_topic(change).await;
    let altered = altered.map_err(CliError::admin(format!("topic {}", args.name)))?;
    let topic = altered.topic.unwrap_or_default();
    let configs: BTreeMap<_, _> = topic.configs.iter().collect();
    if global.output == OutputFormat::Json {
        print_json(&json!({
            "name": topic.name, "id": topic.id, "configs": configs,
            "pending_partitions": altered.pending, "dry_run": args.dry_run,
        }))?;
        return Ok(ExitCode::SUCCESS);
    }
    let word = if args.dry_run { "WOULD BE" } else { "NOW" };
    if configs.is_empty() {
        print_line(&format!("{word}  all defaults"))?;
    }
    for (key, value) in configs {
        print_line(&format!("{word}  {key}={value}"))?;
    }
    if altered.pending > 0 {
        print_line(&format!(
            "{} partitions have not taken this over yet; they do so by themselves",
            altered.pending
        ))?;
    }
    Ok(ExitCode::SUCCESS)
}

pub(super) async fn add_partitions(
    args: AddPartitionsArgs,
    global: &GlobalOptions,
) -> Result<ExitCode, CliError> {
    let admin = global.connect().await?.admin();
    let grown = admin
        .add_partitions(&args.name, args.total, args.dry_run)
        .await;
    let topic = grown.map_err(CliError::admin(format!("topic {}", args.name)))?;
    if global.output == OutputFormat::Json {
        let partition = |p: &v1::PartitionMetadata| json!({ "partition": p.partition, "shard": p.shard, "replicas": p.replicas });
        let partitions: Vec<_> = topic.partitions.iter().map(partition).collect();
        print_json(&json!({
            "name": topic.name, "id": topic.id, "partitions": partitions,
            "dry_run": args.dry_run,
        }))?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut rows = table(["PARTITION", "SHARD", "REPLICAS"]);
    for p in &topic.partitions {
        let replicas: Vec<_> = p.replicas.iter().map(u32::to_string).collect();
        rows.add_row([
            p.partition.to_string(),
            p.shard.to_string(),
            replicas.join(","),
        ]);
    }
    print_table(&rows)?;
    let verb = if args.dry_run { "would be" } else { "are" };
    print_line(&format!(
        "keys {verb} spread over {} partitions: new records of a key may go to another one than its \
         old records",
        topic.partitions.len()
    ))?;
    Ok(ExitCode::SUCCESS)
}

pub(super) async fn delete_records(
    args: DeleteRecordsArgs,
    global: &GlobalOptions,
) -> Result<ExitCode, CliError> {
    let client = global.connect().await?;
    let before = places(&client, &args).await?;
    let admin = client.admin();
    let deleted = admin
        .delete_records(&args.name, &before, args.dry_run)
        .await;
    let deleted = deleted.map_err(CliError::admin(format!("topic {}", args.name)))?;
    let mut rows = table([
        "PARTITION",
        "OLD-START",
        "START",
        "END",
        "RECORDS",
        "STATUS",
    ]);
    let mut all = Vec::new();
    let mut failed = None;
    let done = if args.dry_run {
        "would be deleted"
    } else {
        "deleted"
    };
    for one in &deleted {
        let records = one.log_start.saturating_sub(one.old_log_start);
        let status = match &one.error {
            Some(error) => {
                let cause = AdminError::Rejected(Cause::broker(error));
                let what = format!("topic {}, partition {}", args.name, one.partition);
                failed.get_or_insert_with(|| CliError::admin(what)(cause));
                format!("not deleted: {}", error.message)
            }
            None => done.to_owned(),
        };
        rows.add_row([
            one.partition.to_string(),
            one.old_log_start.to_string(),
            one.log_start.to_string(),
            one.high_watermark.to_string(),
            records.to_string(),
            status.clone(),
        ]);
        all.push(json!({
            "partition": one.partition, "old_log_start": one.old_log_start,
            "log_start": one.log_start, "high_watermark": one.high_watermark,
            "records": records, "status": status,
        }));
    }
    match global.output {
        OutputFormat::Json => print_json(&json!({ "partitions": all }))?,
        OutputFormat::Table => print_table(&rows)?,
    }
    failed.map_or(Ok(ExitCode::SUCCESS), Err)
}

/// The first offset that stays, by partition.
async fn places(
    client: &Client,
    args: &DeleteRecordsArgs,
) -> Result<Vec<(PartitionId, Offset)>, CliError> {
    let unknown = |cause| OffsetsError {
        topic: args.name.clone(),
        cause,
    };
    let count = client
        .topic(&args.name)
        .await
        .map_err(unknown)?
        .partition_count();
    let partitions: Vec<PartitionId> = if args.partition.is_empty() {
        (0..count).map(PartitionId).collect()
    } else {
        args.partition.iter().copied().map(PartitionId).collect()
    };
    let now_ms = jiff::Timestamp::now().as_millisecond();
    let start = args.before.at(now_ms);
    let (at, ahead, back) = match start {
        Start::Offset(offset) => {
            return Ok(partitions.into_iter().map(|p| (p, offset)).collect());
        }
        Start::Earliest => (At::Earliest, 0, 0),
        Start::Latest => (At::Latest, 0, 0),
        Start::AfterEarliest(records) => (At::Earliest, records, 0),
        Start::BeforeLatest(records) => (At::Latest, 0, records),
        Start::Time(time) => (At::Time(time), 0, 0),
    };
    let queries: Vec<_> = partitions.iter().map(|p| (*p, at)).collect();
    let found = client.list_offsets(&args.name, &queries).await?;
    let mut places: Vec<_> = found.into_iter().map(|f| (f.partition, f.offset)).collect();
    if ahead > 0 {
        // Of a partition that has fewer records than that, all of them go.
        let queries: Vec<_> = partitions.iter().map(|p| (*p, At::Latest)).collect();
        let ends = client.list_offsets(&args.name, &queries).await?;
        for ((_, place), end) in places.iter_mut().zip(ends) {
            *place = Offset(place.0.saturating_add(ahead)).min(end.offset);
        }
    }
    let place = |offset: Offset| Offset(offset.0.saturating_sub(back));
    Ok(places.into_iter().map(|(p, at)| (p, place(at))).collect())
}
