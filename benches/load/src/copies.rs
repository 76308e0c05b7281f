//! Bytes copied in user space per byte produced, by process: a counting `memcpy` is loaded in
//! front of the C library's, into brokers and client alike.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use highwater_client::{Client, ProducerRecord, Start};
use tokio_stream::StreamExt;

use crate::cluster::Cluster;
use crate::raw;
use crate::stats::machine;

/// How to run it.
#[derive(Debug, Args)]
pub struct Options {
    /// Mebibytes produced, then fetched.
    #[arg(long, default_value_t = 64)]
    mib: u64,
    /// Bytes of each record.
    #[arg(long, default_value_t = 64 << 10)]
    bytes: usize,
}

const TOPIC: &str = "copies";
const COUNTER: &str = include_str!("../copycount.c");

/// Runs the experiment and prints its table.
pub async fn run(binary: &Path, options: &Options) -> anyhow::Result<()> {
    let work = tempfile::tempdir()?;
    let library = compile_counter(work.path())?;
    let environment = [
        ("LD_PRELOAD".to_owned(), library.display().to_string()),
        (
            "COPYCOUNT_DIR".to_owned(),
            work.path().display().to_string(),
        ),
    ];
    let cluster = Cluster::start(binary, &[], &environment).await?;
    let client = Client::connect(&cluster.connection_string()).await?;
    let topic = raw::make_topic(&client, TOPIC, 1).await?;
    let leader = topic
        .partitions
        .first()
        .and_then(|p| p.leader)
        .context("no leader")?;
    let counts = || -> anyhow::Result<Vec<u64>> {
        cluster
            .pids()
            .iter()
            .map(|pid| read_count(work.path(), *pid))
            .collect()
    };
    let before = counts()?;
    produce(&client, options).await?;
    tokio::time::sleep(Duration::from_secs(2)).await; // followers apply what was acknowledged
    let produced = counts()?;
    fetch(&client, options).await?;
    let fetched = counts()?;
    println!("machine: {}", machine());
    println!(
        "copies of 4 KiB and more, bytes per byte produced or fetched ({} MiB)",
        options.mib
    );
    println!("{:<22} {:>10} {:>10}", "process", "produce", "fetch");
    let total = (options.mib << 20) as f64;
    for (index, ((a, b), c)) in before.iter().zip(&produced).zip(&fetched).enumerate() {
        let role = if index as u32 + 1 == leader {
            "leader"
        } else {
            "follower"
        };
        let name = format!("broker {} ({role})", index + 1);
        println!(
            "{name:<22} {:>10.2} {:>10.2}",
            (b - a) as f64 / total,
            (c - b) as f64 / total
        );
    }
    Ok(())
}

fn compile_counter(dir: &Path) -> anyhow::Result<PathBuf> {
    let (source, library) = (dir.join("copycount.c"), dir.join("copycount.so"));
    std::fs::write(&source, COUNTER)?;
    let mut compiler = std::process::Command::new("cc");
    compiler
        .args(["-O2", "-shared", "-fPIC", "-fno-builtin", "-o"])
        .arg(&library)
        .arg(&source);
    compiler.args(["-ldl"]);
    if !compiler
        .status()
        .context("a C compiler is needed")?
        .success()
    {
        bail!("the counter did not compile");
    }
    Ok(library)
}

/// Each process keeps its count in a mapped file of eight bytes.
fn read_count(dir: &Path, pid: u32) -> anyhow::Result<u64> {
    let bytes = std::fs::read(dir.join(format!("copies.{pid}")))?;
    let bytes: [u8; 8] = bytes.get(..8).context("short count")?.try_into()?;
    Ok(u64::from_ne_bytes(bytes))
}

async fn produce(client: &Client, options: &Options) -> anyhow::Result<()> {
    let producer = client.producer().build();
    let value = vec![b'x'; options.bytes];
    let mut acks = Vec::new();
    for _ in 0..(options.mib << 20) / options.bytes as u64 {
        let record = ProducerRecord::to(TOPIC).partition(0).value(value.clone());
        acks.push(producer.enqueue(record).await?);
    }
    for ack in acks {
        ack.await?;
    }
    producer.close().await;
    Ok(())
}

async fn fetch(client: &Client, options: &Options) -> anyhow::Result<()> {
    let mut consumer = client
        .consumer()
        .assign(TOPIC, 0, Start::Earliest)
        .build()
        .await?;
    for _ in 0..(options.mib << 20) / options.bytes as u64 {
        consumer.next().await.context("the stream ended")??;
    }
    Ok(())
}
