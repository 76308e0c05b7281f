//! Many partitions: how long they take to create, what they cost while nothing happens, how fast a
//! cluster that has them starts and fails over.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use clap::Args;
use futures_util::StreamExt as _;
use futures_util::stream;
use highwater_client::{Client, NewTopic, ProducerRecord};
use highwater_load::bench::procfs::Usage;
use tokio::time::Instant;

use crate::cluster::Cluster;
use crate::stats::{Spread, machine};

/// How to run it.
#[derive(Debug, Args)]
pub struct Options {
    /// Topics.
    #[arg(long, default_value_t = 10_000)]
    topics: u32,
    /// Partitions of each.
    #[arg(long, default_value_t = 10)]
    partitions: u32,
    /// Topics created at a time.
    #[arg(long, default_value_t = 64)]
    at_once: usize,
    /// Seconds over which the idle cluster is watched.
    #[arg(long, default_value_t = 20)]
    idle: u64,
    /// Times that all brokers are killed and started, and that a leader is killed.
    #[arg(long, default_value_t = 3)]
    rounds: u32,
    /// Partitions that a failover must bring back, of those that the killed broker led.
    #[arg(long, default_value_t = 2_000)]
    probed: usize,
}

/// A partition that takes records: topic and number.
type Probe = (String, u32);

const GIVE_UP_AFTER: Duration = Duration::from_secs(120);

/// Runs the experiment and prints its figures.
pub async fn run(binary: &Path, options: &Options) -> anyhow::Result<()> {
    println!("machine: {}", machine());
    let mut cluster = Cluster::start(binary, &[], &[]).await?;
    usage(&cluster, "empty, a broker each")?;
    idle(&cluster, options, "empty").await?;
    let client = Client::connect(&cluster.connection_string()).await?;
    create(&client, options).await?;
    list(&client, options).await?;
    usage(&cluster, "created")?;
    settle(&cluster).await?;
    idle(&cluster, options, "idle").await?;
    usage(&cluster, "idle")?;
    let mut starts = Vec::new();
    for _ in 0..options.rounds {
        starts.push(restart(&mut cluster).await?);
    }
    line("all killed and started, until all are ready, s", &starts)?;
    settle(&cluster).await?;
    usage(&cluster, "restarted")?;
    idle(&cluster, options, "restarted").await?;
    failovers(&mut cluster, &client, options).await
}

async fn failovers(
    cluster: &mut Cluster,
    client: &Client,
    options: &Options,
) -> anyhow::Result<()> {
    let (mut gaps, mut starts) = (Vec::new(), Vec::new());
    for round in 0..options.rounds {
        let broker = 1 + round % 3;
        let probes = led_by(client, options, broker).await?;
        ensure!(!probes.is_empty(), "broker {broker} leads nothing");
        warm(client, &probes).await?;
        cluster.broker(broker)?.kill().await?;
        let killed = Instant::now();
        acknowledged(client, &probes).await?;
        gaps.push(killed.elapsed().as_secs_f64());
        println!(
            "  broker {broker} killed, {} partitions that it led take records again after {:.2} s",
            probes.len(),
            killed.elapsed().as_secs_f64()
        );
        let started = Instant::now();
        cluster.broker(broker)?.start()?;
        cluster.wait_ready().await?;
        starts.push(started.elapsed().as_secs_f64());
        balanced(client, broker).await?;
    }
    line("a broker killed, until what it led takes records, s", &gaps)?;
    line("that broker started, until it is ready, s", &starts)
}

fn line(what: &str, values: &[f64]) -> anyhow::Result<()> {
    let spread = Spread::of(values).context("no rounds")?;
    println!("{what} (min / median / max, {}): {spread}", values.len());
    Ok(())
}

fn topic_name(number: u32) -> String {
    format!("scale-{number:05}")
}

async fn create(client: &Client, options: &Options) -> anyhow::Result<()> {
    let began = Instant::now();
    let admin = client.admin().timeout(GIVE_UP_AFTER);
    let mut created = stream::iter(0..options.topics)
        .map(|number| {
            let topic = NewTopic::named(topic_name(number))
                .partitions(options.partitions)
                .replication_factor(3);
            admin.create_topic(topic)
        })
        .buffer_unordered(options.at_once);
    while let Some(topic) = created.next().await {
        topic?;
    }
    println!(
        "{} topics with {} partitions each created in {:.1} s",
        options.topics,
        options.partitions,
        began.elapsed().as_secs_f64()
    );
    Ok(())
}

/// All topics, page by page.
async fn list(client: &Client, options: &Options) -> anyhow::Result<()> {
    let began = Instant::now();
    let topics = client.admin().all_topics("scale-").await?;
    ensure!(
        topics.len() == options.topics as usize,
        "{} topics were listed",
        topics.len()
    );
    println!(
        "{} topics listed page by page in {:.0} ms",
        topics.len(),
        began.elapsed().as_secs_f64() * 1e3
    );
    Ok(())
}

fn usage(cluster: &Cluster, when: &str) -> anyhow::Result<()> {
    let mut text = Vec::new();
    for pid in cluster.pids() {
        let descriptors = std::fs::read_dir(format!("/proc/{pid}/fd"))?.count();
        let mib = Usage::of(pid).resident_bytes >> 20;
        text.push(format!("{mib} MiB and {descriptors} descriptors"));
    }
    println!("{when}: {}", text.join(", "));
    Ok(())
}

fn cpu(cluster: &Cluster) -> anyhow::Result<f64> {
    cluster
        .pids()
        .into_iter()
        .map(crate::stats::cpu_seconds)
        .sum()
}

/// Waits until what the brokers were given to do is done: less than a sixth of a core for five seconds.
async fn settle(cluster: &Cluster) -> anyhow::Result<()> {
    let began = Instant::now();
    let mut calm = 0;
    while calm < 5 {
        let before = cpu(cluster)?;
        tokio::time::sleep(Duration::from_secs(1)).await;
        let used = cpu(cluster)? - before;
        calm = if used < 1.0 / 6.0 { calm + 1 } else { 0 };
        if began.elapsed() > GIVE_UP_AFTER {
            println!("the brokers did not come to rest within {GIVE_UP_AFTER:?}");
            return Ok(());
        }
    }
    println!("at rest after {:.0} s", began.elapsed().as_secs_f64());
    Ok(())
}

async fn idle(cluster: &Cluster, options: &Options, when: &str) -> anyhow::Result<()> {
    let before = cpu(cluster)?;
    tokio::time::sleep(Duration::from_secs(options.idle)).await;
    let share = (cpu(cluster)? - before) / options.idle as f64 * 100.0;
    println!("{when}: three brokers use {share:.1} % of a core in all");
    Ok(())
}

/// Kills all, starts all at once, and waits until all are ready.
async fn restart(cluster: &mut Cluster) -> anyhow::Result<f64> {
    for broker in cluster.brokers() {
        broker.kill().await?;
    }
    let began = Instant::now();
    for broker in cluster.brokers() {
        broker.start()?;
    }
    cluster.wait_ready().await?;
    Ok(began.elapsed().as_secs_f64())
}

/// Partitions that a broker leads: of each of its shards as many.
async fn led_by(client: &Client, options: &Options, broker: u32) -> anyhow::Result<Vec<Probe>> {
    let mut shards: BTreeSet<u32> = BTreeSet::new();
    let mut found = Vec::new();
    for number in 0..options.topics {
        if found.len() >= options.probed {
            break;
        }
        let name = topic_name(number);
        let described = client.admin().describe_topic(&name).await?;
        let topic = described.topic.context("a topic is missing")?;
        for partition in topic.partitions {
            if partition.leader == Some(broker) {
                shards.insert(partition.shard);
                found.push((name.clone(), partition.partition));
            }
        }
    }
    println!(
        "  broker {broker} leads {} shards of those looked at",
        shards.len()
    );
    Ok(found)
}

/// The client learns where each topic is before anything breaks.
async fn warm(client: &Client, probes: &[Probe]) -> anyhow::Result<()> {
    acknowledged(client, probes).await
}

async fn acknowledged(client: &Client, probes: &[Probe]) -> anyhow::Result<()> {
    let producer = client
        .producer()
        .linger(Duration::ZERO)
        .delivery_timeout(GIVE_UP_AFTER)
        .build();
    let mut answers = Vec::new();
    for (topic, partition) in probes {
        let record = ProducerRecord::to(topic.as_str())
            .partition(*partition)
            .value(&b"probe"[..]);
        answers.push(producer.enqueue(record).await?);
    }
    for answer in answers {
        answer.await?;
    }
    producer.close().await;
    Ok(())
}

/// Waits until a broker that came back leads a share again.
async fn balanced(client: &Client, broker: u32) -> anyhow::Result<()> {
    let until = Instant::now() + GIVE_UP_AFTER;
    loop {
        let described = client.admin().describe_cluster().await?;
        let mut led: BTreeMap<u32, usize> = BTreeMap::new();
        for shard in &described.shards {
            *led.entry(shard.leader.unwrap_or_default()).or_default() += 1;
        }
        let least = described.shards.len() / 4;
        if led.get(&broker).copied().unwrap_or_default() >= least {
            return Ok(());
        }
        if Instant::now() > until {
            bail!("broker {broker} got no leaders back: {led:?}");
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}
