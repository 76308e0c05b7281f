//! A large shard goes to another broker under load: how long it takes, and what that does to the latency
//! of acknowledgements meanwhile.

use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use highwater_client::{Client, NewPlan, NodeId, ProducerRecord};
use tokio::time::Instant;

use crate::cluster::Cluster;
use crate::probe::Probe;
use crate::raw;
use crate::stats::machine;

/// How to run it.
#[derive(Debug, Args)]
pub struct Options {
    /// Gibibytes in the shard. Four copies of them are on the disk at the end.
    #[arg(long, default_value_t = 10)]
    gib: u64,
    /// limits.move_bytes_per_second of each broker.
    #[arg(long, default_value = "64MiB")]
    rate: String,
    /// Records a second that are measured, of 1 KiB each, over partitions of all shards.
    #[arg(long, default_value_t = 500)]
    load: u32,
    /// Seconds of load before the move begins.
    #[arg(long, default_value_t = 20)]
    seconds: u64,
}

const TOPIC: &str = "large";
const PROBE: &str = "probe";
const PARTITIONS: u32 = 24;
const RECORD: usize = 64 << 10;
const LONGEST: Duration = Duration::from_secs(1_800);

/// Runs the experiment and prints its lines.
pub async fn run(binary: &Path, options: &Options) -> anyhow::Result<()> {
    let settings = [format!("limits.move_bytes_per_second={}", options.rate)];
    let mut cluster = Cluster::start(binary, &settings, &[]).await?;
    let client = Client::connect(&cluster.connection_string()).await?;
    raw::make_topic(&client, TOPIC, 1).await?;
    raw::make_topic(&client, PROBE, PARTITIONS).await?;
    let began = Instant::now();
    fill(&client, options.gib).await?;
    println!("machine: {}", machine());
    println!(
        "{} GiB written in {:.0} s",
        options.gib,
        began.elapsed().as_secs_f64()
    );

    cluster.join().await?;
    let probe = Probe::new(&client, PROBE, PARTITIONS, options.load);
    let quiet_until = Instant::now() + Duration::from_secs(options.seconds);
    let quiet = probe
        .run(LONGEST, async || Ok(Instant::now() >= quiet_until))
        .await?;
    // Everything that broker 1 holds has but one place to go: the broker that has just come.
    let began = Instant::now();
    let admin = client.admin();
    admin.start_plan(NewPlan::drain(NodeId(1))).await?;
    let busy = probe
        .run(LONGEST, async || {
            let plan = admin.plan().await?;
            Ok(plan.is_none_or(|plan| plan.ended))
        })
        .await?;
    let took = began.elapsed().as_secs_f64();
    println!(
        "moved in {took:.0} s: {:.0} MB/s (bound {} a second and broker)",
        (options.gib << 30) as f64 / 1e6 / took,
        options.rate
    );
    println!(
        "acknowledgement of {} records of 1 KiB a second beside it, ms (median / p99 / max): {quiet} before, \
         {busy} during ({} and {} records)",
        options.load,
        quiet.count(),
        busy.count()
    );
    Ok(())
}

async fn fill(client: &Client, gib: u64) -> anyhow::Result<()> {
    let producer = client.producer().build();
    let records = (gib << 30) / RECORD as u64;
    let value = bytes::Bytes::from(vec![b'x'; RECORD]);
    let mut acks = std::collections::VecDeque::new();
    for _ in 0..records {
        let record = ProducerRecord::to(TOPIC).partition(0).value(value.clone());
        acks.push_back(producer.enqueue(record).await?);
        if acks.len() > 1_000 {
            acks.pop_front().context("no answer is awaited")?.await?;
        }
    }
    for ack in acks {
        ack.await?;
    }
    producer.close().await;
    Ok(())
}
