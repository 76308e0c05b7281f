//! Consumer groups: commits a second, what a rebalance takes, and latency up to the handler.

mod latency;
mod member;
mod rebalance;

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::Args;
use futures_util::future::try_join_all;
use highwater_client::Client;

use self::member::{Member, coordinator};
use crate::cluster::Cluster;
use crate::raw::make_topic;
use crate::stats::{Spread, machine};

const PARTITIONS: u32 = 100;
const SHARED_OUT_WITHIN: Duration = Duration::from_secs(60);

/// How to run it.
#[derive(Debug, Args)]
pub struct Options {
    /// Members of the group that is rebalanced.
    #[arg(long, default_value_t = 100)]
    members: usize,
    /// Partitions of its topic.
    #[arg(long, default_value_t = 1000)]
    partitions: u32,
    /// Members that commit at the same time, each one call after the other.
    #[arg(long, default_value_t = 64)]
    committers: usize,
    /// Numbers of groups on one topic.
    #[arg(long, value_delimiter = ',', default_value = "1,10,100")]
    groups: Vec<u32>,
    /// Records a second.
    #[arg(long, default_value_t = 100.0)]
    rate: f64,
    /// Bytes of each record's value.
    #[arg(long, default_value_t = 256)]
    bytes: usize,
    /// Seconds of each run.
    #[arg(long, default_value_t = 15)]
    seconds: u64,
}

/// Runs the experiment and prints its tables.
pub async fn run(binary: &Path, options: &Options) -> anyhow::Result<()> {
    let mut cluster = Cluster::start(binary, &[], &[]).await?;
    let broker = cluster.broker(1)?.address.clone();
    let connection = cluster.connection_string();
    let client = Client::connect(&connection).await?;
    println!("machine: {}", machine());
    println!("three brokers, factor 3, beside the clients");
    rebalance::run(&client, &broker, options.members, options.partitions).await?;
    make_topic(&client, "committed", PARTITIONS).await?;
    let span = Duration::from_secs(options.seconds);
    println!(
        "\ncommits, {} members, each one call after the other",
        options.committers
    );
    println!(
        "{:<34} {:>10} {:>13} {:>24}",
        "", "calls/s", "offsets/s", "a call, ms (p50/p99/max)"
    );
    commits(&broker, options.committers, 1, span).await?;
    commits(&broker, options.committers, options.committers, span).await?;
    println!(
        "\nproduce to handler, ms; one member a group, 12 partitions, {} records/s of {} B",
        options.rate, options.bytes
    );
    println!(
        "{:>7} {:>9} {:>10} {:>9} {:>9} {:>9} {:>9} {:>14}",
        "groups", "records", "handled", "p50", "p99", "p99.9", "max", "brokers' cores"
    );
    for groups in &options.groups {
        let load = (options.rate, span, options.bytes);
        latency::run(&connection, *groups, load, &cluster.pids()).await?;
    }
    Ok(())
}

/// `members` spread over `groups`, all partitions shared out among the members of a group.
async fn commits(
    broker: &str,
    members: usize,
    groups: usize,
    span: Duration,
) -> anyhow::Result<()> {
    let joins = (0..members).map(async |number| {
        let group = format!("commits-{groups}-{}", number % groups);
        let connection = coordinator(broker, &group).await?;
        Member::join(
            connection,
            &group,
            format!("member-{number:012}"),
            "committed",
        )
        .await
    });
    let joined = try_join_all(joins).await?;
    let each = PARTITIONS as usize * groups / members;
    let end = Instant::now() + SHARED_OUT_WITHIN;
    let ready = joined.into_iter().map(async |mut member: Member| {
        while member.held.len() < each.max(1) || member.held.len() > each + 1 {
            anyhow::ensure!(Instant::now() < end, "partitions were not shared out");
            member.beat(Duration::from_millis(500)).await?;
        }
        Ok(member)
    });
    let ready = try_join_all(ready).await?;
    // What was granted last must have arrived everywhere before commits are counted.
    let offsets: usize = ready.iter().map(|member| member.held.len()).sum();
    let end = Instant::now() + span;
    let work = ready.into_iter().map(async |mut member: Member| {
        let mut took = Vec::new();
        while Instant::now() < end {
            let begin = Instant::now();
            member.commit().await?;
            took.push(begin.elapsed().as_secs_f64() * 1e3);
        }
        member.leave().await?;
        anyhow::Ok(took)
    });
    let mut took: Vec<f64> = try_join_all(work).await?.into_iter().flatten().collect();
    took.sort_by(f64::total_cmp);
    let calls = took.len() as f64 / span.as_secs_f64();
    let spread = Spread::of(&took).context("nothing was committed")?;
    let p99 = took
        .get(took.len() * 99 / 100)
        .copied()
        .unwrap_or(spread.max);
    let each = offsets as f64 / members as f64;
    let what = format!("{groups} group(s), {each:.0} partitions a call");
    let call = format!("{:.2} / {p99:.2} / {:.2}", spread.median, spread.max);
    println!("{what:<34} {calls:>10.0} {:>13.0} {call:>24}", calls * each);
    Ok(())
}
