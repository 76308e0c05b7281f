//! A process that produces or consumes: told what on its standard input, it reports once a second
//! on its standard output.
//!
//! Lines in: the plan as JSON, then `go`, then `stop`. Lines out: events as JSON.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines, Stdin};
use tokio::sync::Notify;

use super::backend::{Backend, SinkSettings};
use super::consume;
use super::meter::{Meter, Sample};
use super::payload::{PayloadPlan, now_ns};
use super::produce;
use super::workload::{KeyDistributor, Workload};

const REPORT_EVERY: Duration = Duration::from_secs(1);
const NANOS: u64 = 1_000_000_000;

/// What to do.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Plan {
    /// Send.
    Produce(ProducePlan),
    /// Read.
    Consume(ConsumePlan),
}

/// Some producers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ProducePlan {
    /// The topic of each producer.
    pub topics: Vec<String>,
    /// Messages per second of this process; 0: closed loop.
    pub rate: f64,
    /// Outstanding records per producer in a closed loop.
    pub window: usize,
    /// How keys are chosen.
    pub keys: KeyDistributor,
    /// How many there are.
    pub key_count: Option<usize>,
    /// What is sent.
    pub payload: PayloadPlan,
    /// Settings of the client.
    pub sink: SinkSettings,
    /// Makes processes differ.
    pub seed: u64,
}

impl ProducePlan {
    /// Of the producers of `topics`, which send this part of the rate.
    pub fn of(workload: &Workload, topics: Vec<String>, part: f64, seed: u64) -> Self {
        const LEAST_BUFFER: usize = 32 << 20;
        let payload = PayloadPlan::of(workload);
        // A window that did not fit would time how long the client makes its callers wait.
        let needed = workload.window() * (workload.message_size + 256);
        Self {
            topics,
            rate: workload.producer_rate * part,
            window: workload.window(),
            keys: workload.key_distributor,
            key_count: workload.key_count,
            payload,
            sink: SinkSettings {
                linger_ms: workload.linger_ms,
                batch_bytes: workload.batch_bytes,
                buffer_bytes: needed.max(LEAST_BUFFER),
            },
            seed,
        }
    }
}

/// Some consumers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ConsumePlan {
    /// Topic and partitions of each consumer.
    pub consumers: Vec<(String, Vec<u32>)>,
}

/// What a worker says.
#[derive(Debug, Serialize, Deserialize)]
pub enum Event {
    /// Connected; waits for `go`.
    Ready,
    /// A second has passed.
    Second(Box<Sample>),
    /// Everything that was sent has its outcome.
    Done,
}

/// Set once; tells whether it is, and wakes who waits for it.
#[derive(Debug, Default)]
pub struct Stop {
    set: AtomicBool,
    news: Notify,
}

impl Stop {
    /// Whether it is set.
    pub fn is_set(&self) -> bool {
        self.set.load(Ordering::Acquire)
    }
    /// Waits until it is set. Cancellation-safe.
    pub async fn wait(&self) {
        let mut news = std::pin::pin!(self.news.notified());
        news.as_mut().enable();
        if !self.is_set() {
            news.await;
        }
    }
    fn set(&self) {
        self.set.store(true, Ordering::Release);
        self.news.notify_waiters();
    }
}

/// Runs a worker over a backend until it is told to stop.
///
/// # Errors
/// When it cannot connect, or its orders make no sense. The end of standard input is an order to
/// stop, so a worker does not outlive who started it.
pub async fn serve(backend: &dyn Backend) -> anyhow::Result<()> {
    let mut orders = BufReader::new(tokio::io::stdin()).lines();
    let plan = orders.next_line().await?.context("no plan came")?;
    let plan: Plan = serde_json::from_str(&plan).context("the plan cannot be read")?;
    let (meter, stop) = (Meter::default(), Arc::new(Stop::default()));
    match plan {
        Plan::Produce(plan) => {
            let sinks = produce::connect(backend, &plan).await?;
            if begin(&mut orders).await? {
                let work = produce::run(sinks, plan, meter.clone(), Arc::clone(&stop));
                supervise(work, orders, &meter, &stop).await?;
            }
        }
        Plan::Consume(plan) => {
            let sources = consume::connect(backend, &plan).await?;
            if begin(&mut orders).await? {
                let work = consume::run(sources, meter.clone(), Arc::clone(&stop));
                supervise(work, orders, &meter, &stop).await?;
            }
        }
    }
    say(&Event::Done).await
}

/// Says that all is ready; false when the next order is not `go`.
async fn begin(orders: &mut Lines<BufReader<Stdin>>) -> anyhow::Result<bool> {
    say(&Event::Ready).await?;
    Ok(orders.next_line().await?.as_deref() == Some("go"))
}

/// Reports every second until the work is done, and passes on the order to stop.
async fn supervise(
    work: impl Future<Output = anyhow::Result<()>>,
    mut orders: Lines<BufReader<Stdin>>,
    meter: &Meter,
    stop: &Stop,
) -> anyhow::Result<()> {
    let mut work = std::pin::pin!(work);
    // In the middle of a second, so that no sample is counted to the wrong one.
    let into = now_ns() % NANOS;
    let first = Duration::from_nanos((NANOS + NANOS / 2 - into) % NANOS);
    let mut beat = tokio::time::interval_at(tokio::time::Instant::now() + first, REPORT_EVERY);
    loop {
        tokio::select! {
            done = &mut work => {
                // Counted to the second that has not ended: it is no whole one.
                report(meter, 1).await?;
                return done;
            }
            order = orders.next_line(), if !stop.is_set() => {
                if order?.is_none_or(|order| order == "stop") {
                    stop.set();
                }
            }
            _ = beat.tick() => report(meter, 0).await?,
        }
    }
}

async fn report(meter: &Meter, later: u64) -> anyhow::Result<()> {
    let sample = meter.take(now_ns() / NANOS + later);
    say(&Event::Second(Box::new(sample))).await
}

async fn say(event: &Event) -> anyhow::Result<()> {
    let mut line = serde_json::to_vec(event)?;
    line.push(b'\n');
    let mut out = tokio::io::stdout();
    out.write_all(&line).await?;
    out.flush().await?;
    Ok(())
}
