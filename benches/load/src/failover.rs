//! Leader killed to next acknowledgement: kill -9, again and again, under a steady trickle of
//! writes to every partition.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use highwater_client::{Client, Producer, ProducerRecord};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::cluster::Cluster;
use crate::raw;
use crate::stats::{Spread, machine};

/// How to run it.
#[derive(Debug, Args)]
pub struct Options {
    /// Leaders killed.
    #[arg(long, default_value_t = 20)]
    kills: usize,
    /// Partitions written to.
    #[arg(long, default_value_t = 6)]
    partitions: u32,
    /// Milliseconds between two writes to a partition.
    #[arg(long, default_value_t = 5)]
    every_ms: u64,
}

const TOPIC: &str = "failover";
const GIVE_UP_AFTER: Duration = Duration::from_secs(30);

/// Runs the experiment and prints its line.
pub async fn run(binary: &Path, options: &Options) -> anyhow::Result<()> {
    let mut cluster = Cluster::start(binary, &[], &[]).await?;
    let client = Client::connect(&cluster.connection_string()).await?;
    raw::make_topic(&client, TOPIC, options.partitions).await?;
    let producer = Arc::new(client.producer().linger(Duration::ZERO).build());
    let writers: BTreeMap<u32, watch::Receiver<Option<Instant>>> = (0..options.partitions)
        .map(|partition| (partition, write(&producer, partition, options.every_ms)))
        .collect();
    let mut gaps = Vec::new();
    for kill in 0..options.kills {
        let partition = u32::try_from(kill)? % options.partitions;
        let acknowledged = writers.get(&partition).context("no writer")?.clone();
        let gap = kill_leader(&mut cluster, &client, partition, acknowledged).await?;
        println!("kill {:>2}: partition {partition}, {gap:.0} ms", kill + 1);
        gaps.push(gap);
    }
    let spread = Spread::of(&gaps).context("no kills")?;
    println!("machine: {}", machine());
    println!(
        "leader killed to next acknowledgement, {} kills, ms (min / median / max): {spread}",
        gaps.len()
    );
    Ok(())
}

/// Writes to one partition for ever; the receiver shows when the last acknowledged write was sent.
fn write(
    producer: &Arc<Producer>,
    partition: u32,
    every_ms: u64,
) -> watch::Receiver<Option<Instant>> {
    let (sender, receiver) = watch::channel(None);
    let producer = Arc::clone(producer);
    tokio::spawn(async move {
        let mut beat = tokio::time::interval(Duration::from_millis(every_ms));
        beat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        while !sender.is_closed() {
            beat.tick().await;
            let record = ProducerRecord::to(TOPIC)
                .partition(partition)
                .value(&b"x"[..]);
            if producer.send(record).await.is_ok() {
                sender.send_replace(Some(Instant::now()));
            }
        }
    });
    receiver
}

/// Kills the leader of `partition` and waits for the next acknowledgement after the kill; then
/// brings the broker back and waits until it is ready.
async fn kill_leader(
    cluster: &mut Cluster,
    client: &Client,
    partition: u32,
    mut acknowledged: watch::Receiver<Option<Instant>>,
) -> anyhow::Result<f64> {
    let described = client.admin().describe_topic(TOPIC).await?;
    let topic = described.topic.context("the topic is missing")?;
    let found = topic.partitions.iter().find(|p| p.partition == partition);
    let leader = found
        .and_then(|p| p.leader)
        .context("the partition has no leader")?;
    acknowledged.borrow_and_update();
    acknowledged.changed().await?;
    let broker = cluster.broker(leader)?;
    let killed = Instant::now();
    broker.kill().await?;
    let gone = Instant::now();
    let next = async {
        loop {
            acknowledged.changed().await?;
            if let Some(at) = *acknowledged.borrow_and_update()
                && at > gone
            {
                return anyhow::Ok(at);
            }
        }
    };
    let Ok(next) = tokio::time::timeout(GIVE_UP_AFTER, next).await else {
        bail!("no acknowledgement within {GIVE_UP_AFTER:?} of the kill of broker {leader}");
    };
    let gap = (next? - killed).as_secs_f64() * 1e3;
    cluster.broker(leader)?.start()?;
    cluster.wait_ready().await?;
    Ok(gap)
}
