//! All brokers killed with a long log behind the checkpoints: time until every partition
//! acknowledges again.

use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use highwater_client::{Client, ProducerRecord};
use tokio::time::Instant;

use crate::cluster::Cluster;
use crate::raw;
use crate::stats::{Spread, machine};

/// How to run it.
#[derive(Debug, Args)]
pub struct Options {
    /// Mebibytes of log that no checkpoint covers.
    #[arg(long, default_value_t = 128)]
    mib: u64,
    /// Partitions written to.
    #[arg(long, default_value_t = 24)]
    partitions: u32,
    /// Times everything is killed.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
}

const TOPIC: &str = "recovery";
const RECORD: usize = 16 << 10;

/// Runs the experiment and prints its line.
pub async fn run(binary: &Path, options: &Options) -> anyhow::Result<()> {
    let no_checkpoints = [
        "storage.checkpoint_bytes=64GiB".to_owned(),
        "storage.checkpoint_interval_ms=24h".to_owned(),
    ];
    let mut seconds = Vec::new();
    for round in 0..options.rounds {
        let mut cluster = Cluster::start(binary, &no_checkpoints, &[]).await?;
        let client = Client::connect(&cluster.connection_string()).await?;
        raw::make_topic(&client, TOPIC, options.partitions).await?;
        fill(&client, options).await?;
        let took = kill_all(&mut cluster, &client, options.partitions).await?;
        println!("round {}: {took:.2} s", round + 1);
        seconds.push(took);
    }
    let spread = Spread::of(&seconds).context("no rounds")?;
    println!("machine: {}", machine());
    println!(
        "all brokers killed with {} MiB behind the checkpoints to an acknowledgement on each of {} \
         partitions, {} rounds, s (min / median / max): {spread}",
        options.mib, options.partitions, options.rounds
    );
    Ok(())
}

async fn fill(client: &Client, options: &Options) -> anyhow::Result<()> {
    let producer = client.producer().build();
    let records = options.mib * (1 << 20) / RECORD as u64;
    let value = vec![b'x'; RECORD];
    let mut acks = Vec::new();
    for number in 0..records {
        let partition = u32::try_from(number % u64::from(options.partitions))?;
        let record = ProducerRecord::to(TOPIC)
            .partition(partition)
            .value(value.clone());
        acks.push(producer.enqueue(record).await?);
    }
    for ack in acks {
        ack.await?;
    }
    producer.close().await;
    Ok(())
}

/// Kills all, starts all at once, and waits until each partition acknowledged a new record.
async fn kill_all(cluster: &mut Cluster, client: &Client, partitions: u32) -> anyhow::Result<f64> {
    for broker in cluster.brokers() {
        broker.kill().await?;
    }
    let started = Instant::now();
    for broker in cluster.brokers() {
        broker.start()?;
    }
    let producer = client
        .producer()
        .linger(Duration::ZERO)
        .delivery_timeout(Duration::from_secs(60))
        .build();
    let mut acks = Vec::new();
    for partition in 0..partitions {
        let record = ProducerRecord::to(TOPIC)
            .partition(partition)
            .value(&b"again"[..]);
        acks.push(producer.enqueue(record).await?);
    }
    for ack in acks {
        ack.await?;
    }
    Ok(started.elapsed().as_secs_f64())
}
