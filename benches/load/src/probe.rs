//! Acknowledgement latency of a trickle of writes, while something else goes on.

use std::fmt;
use std::time::Duration;

use anyhow::bail;
use highwater_client::{Client, Producer, ProducerRecord};
use tokio::time::{Instant, MissedTickBehavior, interval};

const VALUE: usize = 1_024;

/// Writes to a topic at a fixed rate, whether or not earlier records were acknowledged.
pub struct Probe {
    producer: Producer,
    topic: &'static str,
    partitions: u32,
    per_second: u32,
}

impl Probe {
    /// To all `partitions` of a topic in turn.
    pub fn new(client: &Client, topic: &'static str, partitions: u32, per_second: u32) -> Self {
        Self {
            producer: client.producer().linger(Duration::ZERO).build(),
            topic,
            partitions: partitions.max(1),
            per_second: per_second.max(1),
        }
    }
    /// Until `done`, which is asked once a second; an error after `longest`.
    pub async fn run(
        &self,
        longest: Duration,
        mut done: impl AsyncFnMut() -> anyhow::Result<bool>,
    ) -> anyhow::Result<Latencies> {
        let began = Instant::now();
        let mut tick = interval(Duration::from_secs(1) / self.per_second);
        tick.set_missed_tick_behavior(MissedTickBehavior::Burst);
        let mut sent = Vec::new();
        for number in 0_u32.. {
            let due = tick.tick().await;
            let record = ProducerRecord::to(self.topic)
                .partition(number % self.partitions)
                .value(vec![b'x'; VALUE]);
            let ack = self.producer.enqueue(record).await?;
            sent.push(tokio::spawn(async move {
                ack.await.map(|_| due.elapsed().as_secs_f64() * 1_000.0)
            }));
            if number.is_multiple_of(self.per_second) {
                if done().await? {
                    break;
                }
                if began.elapsed() > longest {
                    bail!("not done within {longest:?}");
                }
            }
        }
        let mut latencies = Vec::with_capacity(sent.len());
        for task in sent {
            latencies.push(task.await??);
        }
        latencies.sort_by(f64::total_cmp);
        Ok(Latencies(latencies))
    }
}

/// Milliseconds, sorted; printed as median, p99 and largest.
pub struct Latencies(Vec<f64>);

impl Latencies {
    /// How many records.
    pub fn count(&self) -> usize {
        self.0.len()
    }
}

impl fmt::Display for Latencies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = |part: usize| {
            let index = (self.0.len() * part / 100).min(self.0.len().saturating_sub(1));
            self.0.get(index).copied().unwrap_or_default()
        };
        write!(f, "{:.2} / {:.2} / {:.2}", at(50), at(99), at(100))
    }
}
