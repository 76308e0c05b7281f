//! Cost of an acknowledged write: many active partitions against one, interleaved A B B A.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use highwater_client::Client;
use highwater_proto::v1::TopicMetadata;

use crate::cluster::Cluster;
use crate::raw;
use crate::stats::{Spread, cpu_seconds, machine};

/// How to run it.
#[derive(Debug, Args)]
pub struct Options {
    /// Partitions of the larger topic.
    #[arg(long, default_value_t = 1000)]
    many: u32,
    /// Bytes of each record's value; one record per batch.
    #[arg(long, default_value_t = 1024)]
    bytes: usize,
    /// Batches outstanding in all.
    #[arg(long, default_value_t = 256)]
    window: usize,
    /// Seconds of each run.
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// Pairs of runs.
    #[arg(long, default_value_t = 5)]
    pairs: usize,
}

/// Broker CPU microseconds per acknowledgement, acknowledgements per second, median latency.
#[derive(Debug, Clone, Copy)]
struct Cost {
    cpu_us: f64,
    per_second: f64,
    median_ms: f64,
}

/// Runs the experiment and prints its table.
pub async fn run(binary: &Path, options: &Options) -> anyhow::Result<()> {
    let mut cluster = Cluster::start(binary, &[], &[]).await?;
    let addresses: BTreeMap<u32, String> = (1..)
        .zip(cluster.brokers().iter().map(|b| b.address.clone()))
        .collect();
    let client = Client::connect(&cluster.connection_string()).await?;
    let one = raw::make_topic(&client, "one", 1).await?;
    let many = raw::make_topic(&client, "many", options.many).await?;
    let bench = Bench {
        options,
        addresses,
        pids: cluster.pids(),
    };
    println!("machine: {}", machine());
    println!(
        "three brokers, factor 3, window {}, {} B per record",
        options.window, options.bytes
    );
    bench.measure(&one).await?;
    bench.measure(&many).await?;
    let (mut ones, mut manys) = (Vec::new(), Vec::new());
    for pair in 0..options.pairs {
        let order = if pair % 2 == 0 {
            [&one, &many]
        } else {
            [&many, &one]
        };
        for topic in order {
            let cost = bench.measure(topic).await?;
            if topic.name == "one" {
                ones.push(cost)
            } else {
                manys.push(cost)
            }
        }
    }
    print_table(options, &ones, &manys)
}

struct Bench<'a> {
    options: &'a Options,
    addresses: BTreeMap<u32, String>,
    pids: Vec<u32>,
}

impl Bench<'_> {
    fn cpu(&self) -> anyhow::Result<f64> {
        self.pids.iter().map(|pid| cpu_seconds(*pid)).sum()
    }
    async fn measure(&self, topic: &TopicMetadata) -> anyhow::Result<Cost> {
        let batch = raw::batch(self.options.bytes)?;
        let span = Duration::from_secs(self.options.seconds);
        let before = self.cpu()?;
        let run = raw::run(topic, &self.addresses, &batch, self.options.window, span).await?;
        let used = self.cpu()? - before;
        let acknowledged = run.acknowledged.max(1) as f64;
        let latency = Spread::of(&run.latencies_ms).context("nothing was acknowledged")?;
        Ok(Cost {
            cpu_us: used * 1e6 / acknowledged,
            per_second: acknowledged / span.as_secs_f64(),
            median_ms: latency.median,
        })
    }
}

/// One of the figures.
type Of = fn(&Cost) -> f64;

fn print_table(options: &Options, ones: &[Cost], manys: &[Cost]) -> anyhow::Result<()> {
    let spread = |costs: &[Cost], of: fn(&Cost) -> f64| {
        Spread::of(&costs.iter().map(of).collect::<Vec<_>>()).context("no runs")
    };
    let ratios = |of: fn(&Cost) -> f64| {
        let pairs: Vec<f64> = ones.iter().zip(manys).map(|(a, b)| of(b) / of(a)).collect();
        Spread::of(&pairs).context("no runs")
    };
    println!("min / median / max over {} pairs", ones.len());
    println!(
        "{:<34} {:>28} {:>28} {:>22}",
        "",
        "1 partition",
        format!("{} partitions", options.many),
        "ratio"
    );
    let rows: [(&str, Of); 3] = [
        ("broker CPU per acknowledgement, us", |c| c.cpu_us),
        ("acknowledgements per second", |c| c.per_second),
        ("median latency, ms", |c| c.median_ms),
    ];
    for (name, of) in rows {
        let (one, many) = (
            spread(ones, of)?.to_string(),
            spread(manys, of)?.to_string(),
        );
        println!(
            "{name:<34} {one:>28} {many:>28} {:>22}",
            ratios(of)?.to_string()
        );
    }
    Ok(())
}
