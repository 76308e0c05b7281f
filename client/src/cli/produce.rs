//! `produce TOPIC`: lines from standard input become records.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::process::ExitCode;

use bytes::Bytes;
use clap::Args;
use serde_json::json;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::sync::mpsc;

use super::format::Format;
use super::topic::pair;
use super::{CliError, GlobalOptions, OutputFormat, output};
use crate::error::SendError;
use crate::producer::{Ack, Compression, Producer};
use crate::record::{Delivery, ProducerRecord};

pub(super) const HELP: &str = "\
Each line of standard input is one record. It is acknowledged, with its offset, when it is on the
disks of a majority. At the first failure no more is read: exit code 1 says that the records not
listed as stored are not, 5 that some of them may be.

  echo hello | highwater produce greetings
  highwater produce orders -f '%k %v\\n' < orders.txt";

/// The longest line, in bytes.
const MAX_LINE_BYTES: u64 = 64 << 20;
/// Records handed over and not acknowledged.
const WINDOW: usize = 10_000;

/// Arguments of `produce`.
#[derive(Debug, Args)]
pub struct ProduceArgs {
    /// The topic
    topic: String,
    /// Key of every record
    #[arg(short, long)]
    key: Option<String>,
    /// A header of every record; may be repeated
    #[arg(short = 'H', long = "header", value_name = "KEY=VALUE", value_parser = pair)]
    headers: Vec<(String, String)>,
    /// Partition of every record; else by key
    #[arg(short, long)]
    partition: Option<u32>,
    /// How a line is taken apart: %k key, %v value, %p partition, %h headers (a=1,b=2)
    #[arg(short, long, default_value = "%v\\n")]
    format: Format,
    /// none, gzip, snappy, lz4 or zstd
    #[arg(short = 'z', long, default_value = "none")]
    compression: Compression,
    /// An empty value is a tombstone (no value)
    #[arg(short = 'Z', long)]
    tombstone: bool,
    /// Say nothing about records that are stored
    #[arg(short, long)]
    quiet: bool,
}

impl ProduceArgs {
    fn record(&self, line: Bytes) -> Result<ProducerRecord, String> {
        let mut template = ProducerRecord::to(self.topic.clone());
        template.key = self.key.clone().map(Bytes::from);
        template.partition = self.partition.map(highwater_proto::PartitionId);
        for (key, value) in &self.headers {
            template = template.header(key.clone(), value.clone());
        }
        let mut record = self.format.read(line, template)?;
        if self.tombstone && record.value.as_ref().is_some_and(Bytes::is_empty) {
            record.value = None;
        }
        Ok(record)
    }
}

pub(super) async fn run(args: ProduceArgs, global: &GlobalOptions) -> Result<ExitCode, CliError> {
    args.format.check_input().map_err(CliError::Usage)?;
    let client = global.connect().await?;
    let producer = client.producer().compression(args.compression).build();
    let (lines, mut incoming) = mpsc::channel(64);
    let reading = tokio::spawn(read_lines(lines));
    let mut sending = Sending::new(&args, global.output);
    let mut number: u64 = 0;
    let read = loop {
        tokio::select! {
            biased;
            () = sending.front() => if sending.failure.is_some() { break Ok(()) },
            line = incoming.recv(), if sending.acks.len() < WINDOW => {
                let Some(line) = line else { break Ok(()) };
                number += 1;
                if let Err(error) = sending.line(&producer, line, number).await {
                    break Err(error);
                }
                if sending.failure.is_some() {
                    break Ok(());
                }
            }
        }
    };
    incoming.close();
    producer.flush().await;
    while !sending.acks.is_empty() {
        sending.front().await;
    }
    sending.bar.finish_and_clear();
    sending.written?;
    read?;
    match sending.failure {
        Some(error) => Err(CliError::Send {
            acknowledged: sending.acknowledged,
            error,
        }),
        // The reader has ended: it closed the channel.
        None => {
            reading.await.unwrap_or(Ok(()))?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

async fn read_lines(lines: mpsc::Sender<io::Result<Bytes>>) -> io::Result<()> {
    let mut input = BufReader::new(tokio::io::stdin());
    loop {
        let mut line = Vec::new();
        let read = (&mut input)
            .take(MAX_LINE_BYTES)
            .read_until(b'\n', &mut line)
            .await;
        let line = match read {
            Ok(0) => return Ok(()),
            Ok(_) => {
                if line.last() == Some(&b'\n') {
                    line.pop();
                    Ok(Bytes::from(line))
                } else if line.len() as u64 == MAX_LINE_BYTES {
                    Err(io::Error::other("a line is longer than 64 MiB"))
                } else {
                    Ok(Bytes::from(line)) // the last one, without its newline
                }
            }
            Err(error) => Err(error),
        };
        let failed = line.is_err();
        if lines.send(line).await.is_err() || failed {
            return Ok(());
        }
    }
}

struct Sending<'a> {
    args: &'a ProduceArgs,
    output: OutputFormat,
    acks: VecDeque<Ack>,
    acknowledged: u64,
    failure: Option<SendError>,
    /// Of standard output.
    written: io::Result<()>,
    bar: indicatif::ProgressBar,
}

impl<'a> Sending<'a> {
    fn new(args: &'a ProduceArgs, output: OutputFormat) -> Self {
        let bar = output::progress("acknowledged", None);
        let (acks, written) = (VecDeque::new(), Ok(()));
        Self {
            args,
            output,
            acks,
            acknowledged: 0,
            failure: None,
            written,
            bar,
        }
    }

    async fn line(
        &mut self,
        producer: &Producer,
        line: io::Result<Bytes>,
        number: u64,
    ) -> Result<(), CliError> {
        let record = self.args.record(line?);
        let record = record.map_err(|why| CliError::Usage(format!("line {number}: {why}")))?;
        match producer.enqueue(record).await {
            Ok(ack) => self.acks.push_back(ack),
            Err(error) => self.failed(error),
        }
        Ok(())
    }

    /// Awaits the oldest outcome; for ever when there is none. Cancellation-safe.
    async fn front(&mut self) {
        let Some(ack) = self.acks.front_mut() else {
            return std::future::pending().await;
        };
        let outcome = ack.await;
        self.acks.pop_front();
        match outcome {
            Ok(delivery) => {
                self.acknowledged += 1;
                self.bar.inc(1);
                if !self.args.quiet && self.written.is_ok() {
                    self.written = self.print(&delivery);
                }
            }
            Err(error) => self.failed(error),
        }
    }

    /// Keeps the worst: one unknown outcome makes the whole unknown.
    fn failed(&mut self, error: SendError) {
        if self.failure.is_none() || (error.may_be_written() && !self.unknown()) {
            self.failure = Some(error);
        }
    }
    fn unknown(&self) -> bool {
        self.failure.as_ref().is_some_and(SendError::may_be_written)
    }

    fn print(&self, delivery: &Delivery) -> io::Result<()> {
        let Delivery {
            partition,
            offset,
            timestamp,
            ..
        } = delivery;
        let mut out = io::stdout().lock();
        match self.output {
            OutputFormat::Json => {
                let line = json!({
                    "topic": self.args.topic, "partition": partition.0, "offset": offset.0,
                    "timestamp_ms": timestamp.0,
                });
                writeln!(out, "{line}")
            }
            OutputFormat::Table => {
                writeln!(out, "Stored in partition {partition} at offset {offset}")
            }
        }
    }
}
