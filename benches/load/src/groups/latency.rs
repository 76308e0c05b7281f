//! From handing a record to the producer to the call of a handler, with many groups on one topic.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use hdrhistogram::Histogram;
use highwater_client::group::{GroupStart, GroupWorker};
use highwater_client::{Client, ProducerRecord};
use parking_lot::Mutex;

use crate::raw::make_topic;
use crate::stats::cpu_seconds;

const PARTITIONS: u32 = 12;
const KEYS: u64 = 240;
const READY_WITHIN: Duration = Duration::from_secs(120);
const LOOK_AGAIN: Duration = Duration::from_millis(50);
/// What is counted as longer counts as this.
const LONGEST_US: u64 = 60_000_000;

/// What handlers saw.
struct Seen {
    begin: Instant,
    /// Records sent before this, in nanoseconds since `begin`, warm things up.
    from_ns: AtomicU64,
    handled: AtomicU64,
    latencies_us: Mutex<Histogram<u64>>,
}

fn worker(
    client: &Client,
    topic: &str,
    group: u32,
    seen: &Arc<Seen>,
) -> anyhow::Result<GroupWorker> {
    let seen = Arc::clone(seen);
    let builder = client
        .group(format!("{topic}-{group}"))
        .topic(topic)
        .start_at(GroupStart::Latest);
    let worker = builder.run(move |record| {
        let now = seen.begin.elapsed();
        let sent = record
            .value
            .as_deref()
            .and_then(|value| value.first_chunk::<8>());
        let sent = sent.map_or(0, |bytes| u64::from_be_bytes(*bytes));
        if sent >= seen.from_ns.load(Ordering::Relaxed) {
            let latency = now.saturating_sub(Duration::from_nanos(sent));
            let micros = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
            seen.latencies_us.lock().saturating_record(micros);
            seen.handled.fetch_add(1, Ordering::Relaxed);
        }
        async { Ok(()) }
    });
    Ok(worker?)
}

/// Sends at a fixed rate for a while; answers with how many.
async fn produce(
    client: &Client,
    (topic, bytes): (&str, usize),
    (rate, span): (f64, Duration),
    seen: &Seen,
) -> anyhow::Result<u64> {
    let producer = client.producer().linger(Duration::ZERO).build();
    let begin = Instant::now();
    let mut acks = Vec::new();
    let mut number: u64 = 0;
    while begin.elapsed() < span {
        let due = begin + Duration::from_secs_f64(number as f64 / rate);
        tokio::time::sleep_until(due.into()).await;
        // As it was due, so that a slow producer does not make latencies look good.
        let sent = u64::try_from((due - seen.begin).as_nanos())?;
        let mut value = sent.to_be_bytes().to_vec();
        value.resize(bytes.max(8), 0);
        let key = format!("k{}", number % KEYS);
        let record = ProducerRecord::to(topic).key(key).value(value);
        acks.push(producer.enqueue(record).await?);
        number += 1;
    }
    for ack in acks {
        ack.await?;
    }
    Ok(number)
}

/// One row: so many groups, each with one member.
pub async fn run(
    connection: &str,
    groups: u32,
    (rate, span, bytes): (f64, Duration, usize),
    pids: &[u32],
) -> anyhow::Result<()> {
    let client = Client::connect(connection).await?;
    let topic = format!("latency-{groups}");
    make_topic(&client, &topic, PARTITIONS).await?;
    let seen = Arc::new(Seen {
        begin: Instant::now(),
        from_ns: AtomicU64::new(u64::MAX),
        handled: AtomicU64::new(0),
        latencies_us: Mutex::new(Histogram::new_with_bounds(1, LONGEST_US, 3)?),
    });
    let mut workers = Vec::new();
    let mut shared = client.clone();
    for group in 0..groups {
        // Ten members share a client, as in an application with several groups.
        if group % 10 == 0 {
            shared = Client::connect(connection).await?;
        }
        workers.push(worker(&shared, &topic, group, &seen)?);
    }
    let end = Instant::now() + READY_WITHIN;
    while workers
        .iter()
        .any(|w| w.assignment().len() < PARTITIONS as usize)
    {
        ensure!(Instant::now() < end, "groups did not get their partitions");
        tokio::time::sleep(LOOK_AGAIN).await;
    }
    let warm = Duration::from_secs(2);
    produce(&client, (&topic, bytes), (rate, warm), &seen).await?;
    let from = u64::try_from(seen.begin.elapsed().as_nanos())?;
    seen.from_ns.store(from, Ordering::Relaxed);
    let cpu = || {
        pids.iter()
            .map(|pid| cpu_seconds(*pid))
            .sum::<anyhow::Result<f64>>()
    };
    let before = cpu()?;
    let sent = produce(&client, (&topic, bytes), (rate, span), &seen).await?;
    let used = (cpu()? - before) / span.as_secs_f64();
    let wanted = sent * u64::from(groups);
    let end = Instant::now() + READY_WITHIN;
    while seen.handled.load(Ordering::Relaxed) < wanted {
        ensure!(
            Instant::now() < end,
            "{} of {wanted} handled",
            seen.handled.load(Ordering::Relaxed)
        );
        tokio::time::sleep(LOOK_AGAIN).await;
    }
    {
        let latencies = seen.latencies_us.lock();
        let at = |quantile: f64| latencies.value_at_quantile(quantile) as f64 / 1e3;
        println!(
            "{groups:>7} {sent:>9} {wanted:>10} {:>9.2} {:>9.2} {:>9.2} {:>9.2} {used:>14.2}",
            at(0.5),
            at(0.99),
            at(0.999),
            latencies.max() as f64 / 1e3
        );
    }
    for worker in workers {
        worker.stop().await.context("a member could not stop")?;
    }
    Ok(())
}
