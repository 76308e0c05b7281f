//! `dlq list|show|redrive`: dead letters of consumer groups.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::Duration;

use bytes::Bytes;
use clap::{Args, Subcommand};
use highwater_proto::PartitionId;
use serde_json::json;

use super::output::{self, bytes_json, print_json, print_line, print_table, table};
use super::position::Position;
use super::{CliError, GlobalOptions, OutputFormat};
use crate::client::Client;
use crate::consumer::Start;
use crate::group::redrive::{Letter, RedriveError, Selection};

/// What to do with dead letters.
#[derive(Debug, Subcommand)]
pub enum DlqCommand {
    /// Parked keys of a group; without a group: of all
    List {
        /// The group
        group: Option<String>,
    },
    /// Dead letters of a group, one by one
    Show {
        /// The group
        group: String,
        /// Only this key
        #[arg(short, long)]
        key: Option<String>,
        /// Also those that were redriven
        #[arg(long)]
        all: bool,
        /// At most so many; 0: all
        #[arg(short, long, default_value_t = 0)]
        num: usize,
    },
    /// Deliver dead letters to their group again, in order; then their keys are not parked any more
    Redrive(RedriveArgs),
}

/// Arguments of `dlq redrive`.
#[derive(Debug, Args)]
pub struct RedriveArgs {
    /// The group; one of its members must be running
    group: String,
    /// Every parked key
    #[arg(long, conflicts_with_all = ["key", "since", "until"])]
    all: bool,
    /// Only this key
    #[arg(short, long, required_unless_present_any = ["all", "since", "until"])]
    key: Option<String>,
    /// Only keys parked at or after this time: @2026-11-20T10:00Z, @-15m
    #[arg(long, value_name = "@TIME", allow_hyphen_values = true)]
    since: Option<Position>,
    /// Only keys parked before this time
    #[arg(long, value_name = "@TIME", allow_hyphen_values = true)]
    until: Option<Position>,
    /// At most so many records a second
    #[arg(long, value_name = "RECORDS")]
    rate: Option<f64>,
    /// Give up when the group handles nothing for so many seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    patience: u64,
}

pub(super) async fn run(command: DlqCommand, global: &GlobalOptions) -> Result<ExitCode, CliError> {
    let client = global.connect().await?;
    match command {
        DlqCommand::List { group } => list(&client, group, global).await,
        DlqCommand::Show {
            group,
            key,
            all,
            num,
        } => {
            let letters = client.groups().dead_letters(&group, all).await?;
            let key = key.map(Bytes::from);
            let wanted = letters
                .into_iter()
                .filter(|letter| key.is_none() || letter.letter.key == key);
            let most = if num == 0 { usize::MAX } else { num };
            show(&wanted.take(most).collect::<Vec<_>>(), global)?;
            Ok(ExitCode::SUCCESS)
        }
        DlqCommand::Redrive(args) => redrive(&client, args, global).await,
    }
}

/// Letters of one parked key.
#[derive(Default)]
struct Parked {
    topic: String,
    records: u64,
    first: u64,
    last: u64,
    /// When the first one came into the queue.
    since_ms: i64,
    error: String,
}

async fn list(
    client: &Client,
    group: Option<String>,
    global: &GlobalOptions,
) -> Result<ExitCode, CliError> {
    let admin = client.groups();
    let groups = match group {
        Some(group) => vec![group],
        None => {
            let (groups, _) = admin.list("").await.map_err(CliError::admin("groups"))?;
            groups.into_iter().map(|group| group.group).collect()
        }
    };
    let mut rows = table([
        "GROUP",
        "KEY",
        "TOPIC",
        "PARTITION",
        "RECORDS",
        "FIRST-OFFSET",
        "LAST-OFFSET",
        "SINCE",
        "ERROR",
    ]);
    let mut all = Vec::new();
    for group in groups {
        let mut keys: BTreeMap<(u64, PartitionId, Option<Bytes>), Parked> = BTreeMap::new();
        for Letter { letter, record, .. } in admin.dead_letters(&group, false).await? {
            let place = (letter.topic_id.0, letter.partition, letter.key.clone());
            let entry = keys.entry(place).or_insert_with(|| Parked {
                topic: letter.topic.clone(),
                first: letter.offset.0,
                since_ms: record.timestamp.0,
                error: letter.error.clone(),
                ..Parked::default()
            });
            entry.records += 1;
            entry.last = letter.offset.0;
        }
        for ((_, partition, key), parked) in keys {
            rows.add_row([
                group.clone(),
                shown(key.as_deref()),
                parked.topic.clone(),
                partition.to_string(),
                parked.records.to_string(),
                parked.first.to_string(),
                parked.last.to_string(),
                time(parked.since_ms),
                one_line(&parked.error),
            ]);
            all.push(json!({
                "group": group, "key": bytes_json(key.as_deref()), "topic": parked.topic,
                "partition": partition.0, "records": parked.records,
                "first_offset": parked.first, "last_offset": parked.last,
                "since_ms": parked.since_ms, "error": parked.error,
            }));
        }
    }
    match global.output {
        OutputFormat::Json => print_json(&json!({ "parked": all }))?,
        OutputFormat::Table => print_table(&rows)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn shown(key: Option<&[u8]>) -> String {
    match key {
        None => "-".to_owned(),
        Some(key) => String::from_utf8_lossy(key).escape_debug().to_string(),
    }
}

/// The first line, cut to what a terminal shows.
fn one_line(error: &str) -> String {
    let line = error.lines().next().unwrap_or_default();
    let cut: String = line.chars().take(60).collect();
    if cut.len() < error.len() {
        format!("{cut}...")
    } else {
        cut
    }
}

fn time(ms: i64) -> String {
    let time = jiff::Timestamp::from_millisecond(ms).ok();
    time.map_or_else(|| ms.to_string(), |time| format!("{time:.0}"))
}

fn show(letters: &[Letter], global: &GlobalOptions) -> std::io::Result<()> {
    if global.output == OutputFormat::Json {
        for Letter {
            letter,
            record,
            waiting,
        } in letters
        {
            let line = json!({
                "topic": letter.topic, "partition": letter.partition.0, "offset": letter.offset.0,
                "timestamp_ms": letter.timestamp.0, "key": bytes_json(letter.key.as_deref()),
                "value": bytes_json(record.value.as_deref()), "attempts": letter.attempts,
                "error": letter.error, "waiting": waiting,
            });
            print_line(&line.to_string())?;
        }
        return Ok(());
    }
    let mut rows = table([
        "TOPIC",
        "PARTITION",
        "OFFSET",
        "TIME",
        "KEY",
        "ATTEMPTS",
        "STATE",
        "ERROR",
        "VALUE",
    ]);
    for Letter {
        letter,
        record,
        waiting,
    } in letters
    {
        rows.add_row([
            letter.topic.clone(),
            letter.partition.to_string(),
            letter.offset.to_string(),
            time(letter.timestamp.0),
            shown(letter.key.as_deref()),
            letter.attempts.to_string(),
            if *waiting { "waits" } else { "done" }.to_owned(),
            one_line(&letter.error),
            one_line(&shown(record.value.as_deref())),
        ]);
    }
    print_table(&rows)
}

async fn redrive(
    client: &Client,
    args: RedriveArgs,
    global: &GlobalOptions,
) -> Result<ExitCode, CliError> {
    let now_ms = (client.inner.wall_clock)();
    let selection = Selection {
        key: args.key.map(Bytes::from),
        since_ms: moment(args.since, now_ms)?,
        until_ms: moment(args.until, now_ms)?,
        per_second: args.rate,
        patience: Duration::from_secs(args.patience),
    };
    let bar = output::progress("redriven", None);
    let done = client
        .groups()
        .redrive(&args.group, &selection, |_, handled| {
            bar.set_position(handled)
        })
        .await;
    bar.finish_and_clear();
    let done = done?;
    match global.output {
        OutputFormat::Json => print_json(&json!({
            "records": done.records, "keys": done.keys, "failed_keys": done.failed_keys,
        }))?,
        OutputFormat::Table => {
            print_line(&format!(
                "Redrove {} records; {} keys are not parked any more",
                done.records, done.keys
            ))?;
            if done.failed_keys > 0 {
                print_line(&format!(
                    "{} keys failed again and stay parked: highwater dlq list {}",
                    done.failed_keys, args.group
                ))?;
            }
        }
    }
    Ok(if done.failed_keys > 0 {
        ExitCode::from(1)
    } else {
        ExitCode::SUCCESS
    })
}

fn moment(position: Option<Position>, now_ms: i64) -> Result<Option<i64>, CliError> {
    match position.map(|position| position.at(now_ms)) {
        None => Ok(None),
        Some(Start::Time(time)) => Ok(Some(time.0)),
        Some(_) => Err(CliError::Usage(
            "a time is wanted, such as @2026-11-20T10:00Z or @-15m".to_owned(),
        )),
    }
}

impl From<RedriveError> for CliError {
    fn from(error: RedriveError) -> Self {
        match error {
            RedriveError::Admin(error) => Self::admin("dead letters")(error),
            RedriveError::Consume(error) => Self::Consume(error),
            RedriveError::Offsets(error) => Self::Offsets(error),
            error => Self::Failed(error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_and_errors_fit_their_cells() {
        assert_eq!(shown(None), "-");
        assert_eq!(shown(Some(b"a\nb")), "a\\nb");
        assert_eq!(one_line("short"), "short");
        assert_eq!(one_line("two\nlines"), "two...");
        assert_eq!(one_line(&"x".repeat(100)).len(), 63);
        assert_eq!(time(1_795_168_800_000), "2026-11-20T10:00:00Z");
    }
}
