//! Compaction: how many bytes a second each broker compacts, and what that does to the latency of
//! acknowledgements of another topic meanwhile.

use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use futures_util::future::join_all;
use highwater_client::{Client, NewTopic, ProducerRecord, TopicChange};
use tokio::time::Instant;

use crate::cluster::{Cluster, scrape};
use crate::probe::Probe;
use crate::stats::machine;

/// How to run it.
#[derive(Debug, Args)]
pub struct Options {
    /// Mebibytes of records that are compacted.
    #[arg(long, default_value_t = 512)]
    mib: u64,
    /// Different keys among them.
    #[arg(long, default_value_t = 100_000)]
    keys: u64,
    /// Bytes of a value.
    #[arg(long, default_value_t = 400)]
    value: usize,
    /// compaction.bytes_per_second of each broker.
    #[arg(long, default_value = "64MiB")]
    rate: String,
    /// Records a second that are measured, of 1 KiB each.
    #[arg(long, default_value_t = 500)]
    load: u32,
    /// Seconds of load before compaction begins.
    #[arg(long, default_value_t = 20)]
    seconds: u64,
}

const TOPIC: &str = "accounts";
const PROBE: &str = "probe";
const LONGEST: Duration = Duration::from_secs(300);

/// Runs the experiment and prints its lines.
pub async fn run(binary: &Path, options: &Options) -> anyhow::Result<()> {
    let settings = [
        format!("compaction.bytes_per_second={}", options.rate),
        "compaction.interval_ms=500ms".to_owned(),
    ];
    let mut cluster = Cluster::start(binary, &settings, &[]).await?;
    let client = Client::connect(&cluster.connection_string()).await?;
    let admin = client.admin().timeout(Duration::from_secs(60));
    let topic = NewTopic::named(TOPIC).config("segment.bytes", "16777216");
    let topic = topic.config("cleanup.policy", "compact");
    // Never more than all of it is new: nothing is compacted yet.
    let topic = topic.config("min.cleanable.dirty.ratio", "1");
    admin.create_topic(topic).await?;
    admin
        .create_topic(NewTopic::named(PROBE).partitions(1))
        .await?;
    fill(&client, options).await?;

    let probe = Probe::new(&client, PROBE, 1, options.load);
    let quiet_until = Instant::now() + Duration::from_secs(options.seconds);
    let quiet = probe
        .run(LONGEST, async || Ok(Instant::now() >= quiet_until))
        .await?;
    let change = TopicChange::of(TOPIC).set("min.cleanable.dirty.ratio", "0.01");
    admin.alter_topic(change).await?;
    let admins: Vec<String> = cluster.brokers().iter().map(|b| b.admin.clone()).collect();
    let done = async || {
        let counts = admins
            .iter()
            .map(|admin| scrape(admin, "highwater_compactions_total"));
        let counts = join_all(counts).await;
        Ok(counts.into_iter().all(|count| count >= Some(1.0)))
    };
    let busy = probe.run(LONGEST, done).await?;

    println!("machine: {}", machine());
    for (id, admin) in (1..).zip(&admins) {
        report(id, admin).await?;
    }
    println!(
        "acknowledgement of {} records of 1 KiB a second beside it, ms (median / p99 / max): {} \
         before, {} during ({} and {} records)",
        options.load,
        quiet,
        busy,
        quiet.count(),
        busy.count()
    );
    Ok(())
}

async fn report(id: u32, admin: &str) -> anyhow::Result<()> {
    let metric = async |name: &str| {
        let value = scrape(admin, name).await;
        value.with_context(|| format!("broker {id} does not tell {name}"))
    };
    let seconds = metric("highwater_compaction_seconds_sum").await?;
    let read = metric("highwater_compaction_read_bytes_total").await? / 1e6;
    let written = metric("highwater_compaction_written_bytes_total").await? / 1e6;
    let gone = metric("highwater_compaction_reclaimed_bytes_total").await? / 1e6;
    println!(
        "broker {id}: {read:.0} MB read (twice what was compacted), {written:.0} MB written, {gone:.0} MB \
         reclaimed in {seconds:.1} s: {:.1} MB/s of log compacted",
        read / 2.0 / seconds
    );
    Ok(())
}

async fn fill(client: &Client, options: &Options) -> anyhow::Result<()> {
    let producer = client.producer().build();
    let records = options.mib * (1 << 20) / options.value as u64;
    let mut acks = Vec::new();
    let mut state = 1_u64;
    for number in 0..records {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let key = format!("account {}", (state >> 33) % options.keys);
        let mut value = format!("{number} ").into_bytes();
        value.resize(options.value, b'x');
        let record = ProducerRecord::to(TOPIC).key(key).value(value);
        acks.push(producer.enqueue(record).await?);
        if acks.len() >= 20_000 {
            for ack in acks.drain(..) {
                ack.await?;
            }
        }
    }
    for ack in acks {
        ack.await?;
    }
    producer.close().await;
    Ok(())
}
