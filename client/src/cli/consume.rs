//! `consume TOPIC`: records to standard output.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::Arc;

use clap::Args;
use futures_util::{FutureExt, StreamExt};
use highwater_proto::{NodeId, PartitionId};
use serde_json::json;

use super::error::INTERRUPTED;
use super::format::Format;
use super::interrupt::asked_to_end;
use super::position::Position;
use super::{CliError, GlobalOptions, OutputFormat, output};
use crate::client::Client;
use crate::consumer::{Consumer, ReadFrom, Start};
use crate::record::ConsumedRecord;

pub(super) const HELP: &str = "\
Where to begin (-o): start, end, 42, +10 (after the start), -10 (before the end),
@2026-11-20T10:00Z, @1795168800000 (milliseconds), @-15m (ago).
Fields (-f): %t topic, %p partition, %o offset, %k key, %v value, %T timestamp in milliseconds,
%h headers, %%; escapes \\n \\t \\r \\0 \\\\ \\xHH.
With --group, the group's other members share the partitions, -o (start or end) counts where the
group has committed nothing, and what was written out is committed.

  highwater consume orders -o -10 -e
  highwater consume orders -o @-15m -f '%k %v\\n' -n 100";

/// Arguments of `consume`.
#[derive(Debug, Args)]
pub struct ConsumeArgs {
    /// The topics
    #[arg(required = true)]
    pub(super) topics: Vec<String>,
    /// As a member of this consumer group
    #[arg(short, long, value_name = "NAME", conflicts_with_all = ["partitions", "exit_at_end", "read_from"])]
    group: Option<String>,
    /// After how many silent seconds others in the group take over [default: 45]
    #[arg(long, value_name = "SECONDS", requires = "group", value_parser = clap::value_parser!(u64).range(1..=600))]
    pub(super) session_timeout: Option<u64>,
    /// Where to begin; see below
    #[arg(short, long, default_value = "start", allow_hyphen_values = true)]
    offset: Position,
    /// Stop after so many records; 0: never
    #[arg(short, long, default_value_t = 0)]
    pub(super) num: u64,
    /// Only these partitions: 0,3 or repeated
    #[arg(short, long, value_delimiter = ',')]
    partitions: Vec<u32>,
    /// How a record is written; see below
    #[arg(short, long, default_value = "%p %o %k %v\\n")]
    format: Format,
    /// Stop where the log ended when this began
    #[arg(short = 'e', long)]
    exit_at_end: bool,
    /// Read from this broker, leader or not
    #[arg(long, value_name = "BROKER")]
    read_from: Option<u32>,
}

/// Partitions that are still to be read, each with the offset to reach.
type Ends = BTreeMap<(Arc<str>, PartitionId), u64>;

pub(super) async fn run(args: ConsumeArgs, global: &GlobalOptions) -> Result<ExitCode, CliError> {
    let client = global.connect().await?;
    if let Some(group) = &args.group {
        return super::consume_group::run(&client, group, &args, global).await;
    }
    let start = args.start((client.inner.wall_clock)());
    let ends = if args.exit_at_end {
        Some(ends(&client, &args).await?)
    } else {
        None
    };
    let mut consumer = build(&client, &args, start).await?;
    let total = (args.num > 0).then_some(args.num);
    let bar = output::progress("read", total);
    let done = tokio::select! {
        done = copy(&mut consumer, &args, global.output, ends, &bar) => done,
        asked = asked_to_end() => asked.map(|()| ExitCode::from(INTERRUPTED)).map_err(CliError::from),
    };
    bar.finish_and_clear();
    done
}

impl ConsumeArgs {
    pub(super) fn start(&self, now_ms: i64) -> Start {
        self.offset.at(now_ms)
    }
}

async fn build(client: &Client, args: &ConsumeArgs, start: Start) -> Result<Consumer, CliError> {
    let mut builder = client.consumer().start_at(start);
    if let Some(broker) = args.read_from {
        builder = builder.read_from(ReadFrom::Broker(NodeId(broker)));
    }
    for topic in &args.topics {
        builder = if args.partitions.is_empty() {
            builder.topic(topic)
        } else {
            builder.partitions(topic, args.partitions.iter().copied())
        };
    }
    Ok(builder.build().await?)
}

async fn ends(client: &Client, args: &ConsumeArgs) -> Result<Ends, CliError> {
    let mut ends = Ends::new();
    for topic in &args.topics {
        let name: Arc<str> = Arc::from(topic.as_str());
        for (partition, end) in (0..).zip(client.end_offsets(topic).await?) {
            if args.partitions.is_empty() || args.partitions.contains(&partition) {
                ends.insert((Arc::clone(&name), PartitionId(partition)), end.0);
            }
        }
    }
    Ok(ends)
}

async fn copy(
    consumer: &mut Consumer,
    args: &ConsumeArgs,
    output: OutputFormat,
    mut ends: Option<Ends>,
    bar: &indicatif::ProgressBar,
) -> Result<ExitCode, CliError> {
    let mut out = io::BufWriter::new(io::stdout());
    let mut read = 0;
    cross_off(consumer, ends.as_mut());
    while ends.as_ref().is_none_or(|ends| !ends.is_empty()) {
        // What is there is written in one go; before waiting, it is shown.
        let next = match consumer.next().now_or_never() {
            Some(next) => next,
            None => {
                out.flush()?;
                // The last offsets may have no record to them.
                cross_off(consumer, ends.as_mut());
                if ends.as_ref().is_some_and(Ends::is_empty) {
                    break;
                }
                consumer.next().await
            }
        };
        let Some(record) = next else { break };
        let record = record?;
        if !is_past(&record, ends.as_mut()) {
            write(&record, args, output, &mut out)?;
            read += 1;
            bar.inc(1);
        }
        if read == args.num && args.num > 0 {
            break;
        }
    }
    out.flush()?;
    Ok(ExitCode::SUCCESS)
}

/// Crosses off partitions that are read to their end already.
fn cross_off(consumer: &Consumer, ends: Option<&mut Ends>) {
    let at = |topic: &str, p: PartitionId| consumer.position(topic, p.0).map(|at| at.0);
    if let Some(ends) = ends {
        ends.retain(|(topic, p), end| at(topic, *p).is_some_and(|at| at < *end));
    }
}

/// Whether the record came after the end that was to be reached; crosses off partitions done.
fn is_past(record: &ConsumedRecord, ends: Option<&mut Ends>) -> bool {
    let Some(ends) = ends else { return false };
    let key = (Arc::clone(&record.topic), record.partition);
    let Some(&end) = ends.get(&key) else {
        return true;
    };
    if record.offset.0 + 1 >= end {
        ends.remove(&key);
    }
    record.offset.0 >= end
}

pub(super) fn write(
    record: &ConsumedRecord,
    args: &ConsumeArgs,
    output: OutputFormat,
    out: &mut impl Write,
) -> io::Result<()> {
    if output == OutputFormat::Table {
        return args.format.write(record, out);
    }
    let header = |(key, value): &(String, Option<bytes::Bytes>)| json!({ "key": key, "value": output::bytes_json(value.as_deref()) });
    let line = json!({
        "topic": &*record.topic,
        "partition": record.partition.0,
        "offset": record.offset.0,
        "timestamp_ms": record.timestamp.0,
        "key": output::bytes_json(record.key.as_deref()),
        "value": output::bytes_json(record.value.as_deref()),
        "headers": record.headers.iter().map(header).collect::<Vec<_>>(),
    });
    writeln!(out, "{line}")
}
