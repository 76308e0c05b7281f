//! The load: sends the planned orders at their times, whether or not earlier ones have been
//! answered, and writes down how each one ended.
//!
//! The clock of an order starts when it should have been sent. A sender that falls behind
//! therefore makes its latencies longer, instead of hiding the wait.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use hdrhistogram::Histogram;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use crate::bus::{Outcome, Sender};
use crate::fault::Probe;
use crate::journal::Entry;
use crate::journal_task::JournalHandle;
use crate::order::OrderNumber;
use crate::plan::Plan;
use crate::progress::Counters;

/// Orders written to the journal as intended with one entry. The next lot is written while this
/// one is being sent, so that the disk's time does not count as the broker's.
const LOT: u64 = 256;
/// Orders without an outcome; beyond it the sender waits, and its lateness is measured.
const IN_FLIGHT: usize = 16_384;

/// The slowest acknowledgement that is told apart, in microseconds: one hour.
const SLOWEST_MICROS: u64 = 3_600_000_000;

/// What the tasks of a load share.
pub(crate) struct Load {
    pub plan: Arc<Plan>,
    pub topic: String,
    /// Orders per second.
    pub rate: f64,
    /// When the first order is due, and the wall clock's reading then.
    pub start: Instant,
    pub start_unix_ms: i64,
    pub journal: JournalHandle,
    pub counters: Arc<Counters>,
    pub probe: Arc<Probe>,
    /// Acknowledgements by partition.
    pub busy: Arc<Mutex<BTreeMap<u32, u64>>>,
}

/// What a load measured.
pub(crate) struct Loaded {
    /// Microseconds from the intended send to the acknowledgement.
    pub latencies: Histogram<u64>,
    /// From the first intended send to the last acknowledgement.
    pub duration: Duration,
    /// The first reasons for refusals and unknown outcomes.
    pub complaints: Vec<String>,
}

struct Flight<E> {
    number: OrderNumber,
    due: Instant,
    sent: Instant,
    ended: E,
}

impl Load {
    /// Sends everything and returns when every order has its outcome. Not cancellation-safe: what
    /// was sent stays sent.
    pub(crate) async fn run<S: Sender>(self: Arc<Self>, sender: S) -> anyhow::Result<Loaded> {
        let (flights, landing) = mpsc::channel(1_024);
        let collector = tokio::spawn(Arc::clone(&self).collect(landing));
        let sending = self.send_all(&sender, flights).await;
        // When sending failed the collector's own error says more.
        let loaded = collector
            .await
            .context("the collector of outcomes stopped")??;
        sending?;
        Ok(loaded)
    }

    fn due(&self, number: u64) -> Instant {
        #[allow(clippy::cast_precision_loss)]
        let seconds = number as f64 / self.rate;
        self.start + Duration::from_secs_f64(seconds)
    }

    fn unix_ms(&self, at: Instant) -> i64 {
        let millis = at.saturating_duration_since(self.start).as_millis();
        self.start_unix_ms
            .saturating_add(i64::try_from(millis).unwrap_or(i64::MAX))
    }

    async fn send_all<S: Sender>(
        &self,
        sender: &S,
        flights: mpsc::Sender<Flight<S::Ended>>,
    ) -> anyhow::Result<()> {
        let mut next_lot = Some(self.intend(0).await?);
        for number in 0..self.plan.count() {
            if number.is_multiple_of(LOT) {
                if let Some(durable) = next_lot.take() {
                    durable.wait().await?;
                }
                next_lot = match number + LOT {
                    next if next < self.plan.count() => Some(self.intend(next).await?),
                    _ => None,
                };
            }
            let due = self.due(number);
            sleep_until(due).await;
            let number = OrderNumber(number);
            let event = self
                .plan
                .event(number, self.unix_ms(due))
                .context("past the plan")?;
            let value = serde_json::to_vec(&event)?;
            let sent = Instant::now();
            let enqueued = sender
                .enqueue(&self.topic, event.order_id, value, event.traceparent)
                .await;
            self.counters.note_sent();
            match enqueued {
                Ok(ended) => flights
                    .send(Flight {
                        number,
                        due,
                        sent,
                        ended,
                    })
                    .await
                    .ok()
                    .context("the collector of outcomes stopped")?,
                Err(outcome) => {
                    tracing::warn!(order = number.0, ?outcome, "not taken over");
                    self.write_down(number, &outcome).await?;
                }
            }
        }
        Ok(())
    }

    async fn intend(&self, from: u64) -> anyhow::Result<crate::journal_task::Durable> {
        let to = (from + LOT).min(self.plan.count());
        let entry = Entry::Intended {
            from: OrderNumber(from),
            to: OrderNumber(to),
        };
        self.journal.tell_durably(entry).await
    }

    async fn write_down(&self, number: OrderNumber, outcome: &Outcome) -> anyhow::Result<()> {
        let entry = match outcome {
            Outcome::Acknowledged(at) => Entry::Acknowledged(number, *at),
            Outcome::Refused(_) => Entry::Refused(number),
            Outcome::Unknown(_) => Entry::Unknown(number),
        };
        self.journal.tell(entry).await?;
        self.counters
            .note_ended(matches!(outcome, Outcome::Acknowledged(_)));
        Ok(())
    }

    async fn collect<E>(
        self: Arc<Self>,
        mut landing: mpsc::Receiver<Flight<E>>,
    ) -> anyhow::Result<Loaded>
    where
        E: Future<Output = Outcome> + Send + Unpin + 'static,
    {
        let mut loaded = Loaded {
            latencies: Histogram::new_with_max(SLOWEST_MICROS, 3)?,
            duration: Duration::ZERO,
            complaints: Vec::new(),
        };
        let mut open = FuturesUnordered::new();
        let mut more = true;
        while more || !open.is_empty() {
            tokio::select! {
                flight = landing.recv(), if more && open.len() < IN_FLIGHT => match flight {
                    None => more = false,
                    Some(Flight { number, due, sent, ended }) => {
                        open.push(async move { (number, due, sent, ended.await) });
                    }
                },
                Some((number, due, sent, outcome)) = open.next(), if !open.is_empty() => {
                    self.landed(&mut loaded, (due, sent), &outcome);
                    self.write_down(number, &outcome).await?;
                }
            }
        }
        Ok(loaded)
    }

    fn landed(&self, loaded: &mut Loaded, (due, sent): (Instant, Instant), outcome: &Outcome) {
        let now = Instant::now();
        match outcome {
            Outcome::Acknowledged(at) => {
                let late = now.saturating_duration_since(due);
                let micros = u64::try_from(late.as_micros()).unwrap_or(u64::MAX);
                loaded.latencies.saturating_record(micros);
                loaded.duration = now.saturating_duration_since(self.start);
                self.probe.acknowledged(at.partition, sent, now);
                let mut busy = self.busy.lock().unwrap_or_else(PoisonError::into_inner);
                *busy.entry(at.partition).or_default() += 1;
            }
            Outcome::Refused(why) | Outcome::Unknown(why) => {
                if loaded.complaints.len() < 5 {
                    loaded.complaints.push(why.clone());
                }
            }
        }
    }
}
