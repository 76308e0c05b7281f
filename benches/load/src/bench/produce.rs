//! Producers: closed loop (a window of outstanding records each) and open loop (a record is meant
//! to be sent at its time, whether or not the ones before it are acknowledged).
//!
//! Latency counts from the time a record was meant to be sent. In an open loop that time comes from
//! the rate alone: a broker, or a client, that stalls makes all the records late that were due in
//! the meantime, and each of them says so.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::stream::{FuturesUnordered, StreamExt as _};
use tokio::sync::mpsc;

use super::backend::{Ack, Backend, Message, Sink};
use super::keys::Keys;
use super::meter::Meter;
use super::payload::{Payloads, now_ns};
use super::worker::{ProducePlan, Stop};

/// Acknowledgements on their way to the task that times them.
const HANDED_OVER: usize = 65_536;
/// Acknowledgements taken at once.
const AT_ONCE: usize = 1_024;
/// Records sent between two looks at acknowledgements: one that waits to be looked at is timed late.
const SENT_AT_ONCE: usize = 64;
/// The pacer does not sleep for less than this.
const SHORTEST_SLEEP: Duration = Duration::from_micros(50);
/// The pacer looks at least this often whether it is to stop.
const LONGEST_SLEEP: Duration = Duration::from_millis(50);

/// A producer of the plan.
pub struct Lane {
    sink: Arc<dyn Sink>,
    keys: Keys,
    payloads: Payloads,
}

/// Connects all producers of the plan.
pub async fn connect(backend: &dyn Backend, plan: &ProducePlan) -> anyhow::Result<Vec<Lane>> {
    let mut lanes = Vec::new();
    for (number, topic) in plan.topics.iter().enumerate() {
        let seed = plan.seed.wrapping_mul(1_000).wrapping_add(number as u64);
        lanes.push(Lane {
            sink: Arc::from(backend.sink(topic, plan.sink).await?),
            keys: Keys::new(plan.keys, plan.key_count, seed),
            payloads: Payloads::new(&plan.payload)?,
        });
    }
    Ok(lanes)
}

/// Sends until told to stop, then waits for what is outstanding.
pub async fn run(
    lanes: Vec<Lane>,
    plan: ProducePlan,
    meter: Meter,
    stop: Arc<Stop>,
) -> anyhow::Result<()> {
    if plan.rate > 0.0 {
        return open_loop(lanes, plan.rate, meter, stop).await;
    }
    let mut tasks = tokio::task::JoinSet::new();
    for lane in lanes {
        let (meter, stop) = (meter.clone(), Arc::clone(&stop));
        tasks.spawn(closed_loop(lane, plan.window, meter, stop));
    }
    while let Some(done) = tasks.join_next().await {
        done?;
    }
    Ok(())
}

struct Timed {
    meant: Instant,
    ended: Instant,
    bytes: usize,
    outcome: anyhow::Result<()>,
}

async fn timed(ack: Ack, meant: Instant, bytes: usize) -> Timed {
    // A task's budget would make thousands of acknowledgements that are there look pending, and
    // wake each of them again and again.
    let outcome = tokio::task::unconstrained(ack).await;
    Timed {
        meant,
        ended: Instant::now(),
        bytes,
        outcome,
    }
}

fn settle(meter: &Meter, done: &[Timed]) {
    meter.count(|counters| {
        for one in done.iter().filter(|one| one.outcome.is_ok()) {
            counters.acknowledged += 1;
            counters.bytes += one.bytes as u64;
            let took = one.ended.saturating_duration_since(one.meant);
            counters.publish.record_us(micros(took));
        }
    });
    for one in done {
        if let Err(error) = &one.outcome {
            meter.fail(error);
        }
    }
}

fn micros(span: Duration) -> u64 {
    u64::try_from(span.as_micros()).unwrap_or(u64::MAX)
}

/// A window of outstanding records; the next is sent when one of them is acknowledged.
async fn closed_loop(mut lane: Lane, window: usize, meter: Meter, stop: Arc<Stop>) {
    let mut outstanding = FuturesUnordered::new();
    let mut done = Vec::with_capacity(AT_ONCE);
    loop {
        let mut sent = 0;
        while outstanding.len() < window && !stop.is_set() && sent < SENT_AT_ONCE {
            let meant = Instant::now();
            let message = Message {
                key: lane.keys.next(),
                value: lane.payloads.next(now_ns()),
            };
            let bytes = message.value.len();
            match lane.sink.send(message).await {
                Ok(ack) => outstanding.push(timed(ack, meant, bytes)),
                Err(error) => {
                    meter.fail(&error);
                    // A client that refuses at once must not be asked a million times a second.
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            }
            sent += 1;
        }
        meter.count(|counters| counters.sent += sent as u64);
        let must_wait = outstanding.len() >= window || stop.is_set();
        if must_wait {
            match outstanding.next().await {
                Some(first) => done.push(first),
                None => return,
            }
        } else {
            tokio::task::yield_now().await;
        }
        while let Some(Some(next)) = futures_util::FutureExt::now_or_never(outstanding.next()) {
            done.push(next);
            if done.len() >= AT_ONCE {
                settle(&meter, &done);
                done.clear();
            }
        }
        settle(&meter, &done);
        done.clear();
    }
}

/// A thread keeps the time and hands records over in turn; a task times the acknowledgements.
async fn open_loop(
    lanes: Vec<Lane>,
    rate: f64,
    meter: Meter,
    stop: Arc<Stop>,
) -> anyhow::Result<()> {
    let (handed, acks) = mpsc::channel(HANDED_OVER);
    // A client that is dropped gives up what is outstanding.
    let sinks: Vec<Arc<dyn Sink>> = lanes.iter().map(|lane| Arc::clone(&lane.sink)).collect();
    let runtime = tokio::runtime::Handle::current();
    let pacer = {
        let (meter, stop) = (meter.clone(), Arc::clone(&stop));
        std::thread::Builder::new()
            .name("pacer".to_owned())
            .spawn(move || {
                let mut pacer = Pacer {
                    lanes,
                    meter,
                    handed,
                    runtime,
                };
                pacer.run(rate, &stop);
            })?
    };
    time_acks(acks, &meter).await;
    drop(sinks);
    // It has dropped its end of the channel, so it is over.
    pacer
        .join()
        .map_err(|_| anyhow::anyhow!("the pacer panicked"))
}

struct Pacer {
    lanes: Vec<Lane>,
    meter: Meter,
    handed: mpsc::Sender<(Ack, Instant, usize)>,
    runtime: tokio::runtime::Handle,
}

impl Pacer {
    fn run(&mut self, rate: f64, stop: &Stop) {
        let (start, start_ns) = (Instant::now(), now_ns());
        let mut next = 0u64;
        while !stop.is_set() {
            let due_after = Duration::from_secs_f64(next as f64 / rate);
            let meant = start + due_after;
            let early = meant.saturating_duration_since(Instant::now());
            if early > Duration::ZERO {
                std::thread::sleep(early.clamp(SHORTEST_SLEEP, LONGEST_SLEEP));
                continue;
            }
            let meant_ns = start_ns + u64::try_from(due_after.as_nanos()).unwrap_or(0);
            self.send_one(next, meant, meant_ns);
            next += 1;
        }
    }

    fn send_one(&mut self, number: u64, meant: Instant, meant_ns: u64) {
        let lanes = self.lanes.len() as u64;
        let Some(lane) = self.lanes.get_mut((number % lanes.max(1)) as usize) else {
            return;
        };
        let message = Message {
            key: lane.keys.next(),
            value: lane.payloads.next(meant_ns),
        };
        let bytes = message.value.len();
        let delay = micros(meant.elapsed());
        self.meter.count(|counters| {
            counters.sent += 1;
            counters.delay.record_us(delay);
        });
        let handed = self.handed.clone();
        let sent = self.runtime.block_on(async {
            let ack = lane.sink.send(message).await?;
            // The receiver lives as long as this thread does.
            let _ = handed.send((ack, meant, bytes)).await;
            anyhow::Ok(())
        });
        if let Err(error) = sent {
            self.meter.fail(&error);
        }
    }
}

/// Until no more come and all have their outcome.
async fn time_acks(mut acks: mpsc::Receiver<(Ack, Instant, usize)>, meter: &Meter) {
    let mut outstanding = FuturesUnordered::new();
    let (mut arrived, mut done) = (Vec::with_capacity(AT_ONCE), Vec::with_capacity(AT_ONCE));
    let mut open = true;
    while open || !outstanding.is_empty() {
        tokio::select! {
            count = acks.recv_many(&mut arrived, AT_ONCE), if open => {
                open = count > 0;
                for (ack, meant, bytes) in arrived.drain(..) {
                    outstanding.push(timed(ack, meant, bytes));
                }
            }
            Some(first) = outstanding.next(), if !outstanding.is_empty() => done.push(first),
        }
        while let Some(Some(next)) = futures_util::FutureExt::now_or_never(outstanding.next()) {
            done.push(next);
            if done.len() >= AT_ONCE {
                break;
            }
        }
        settle(meter, &done);
        done.clear();
    }
}
