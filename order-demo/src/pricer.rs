//! The pricing service: consumes orders, prices each one, produces the priced events.
//!
//! Every order is priced once although the service may stop anywhere. A priced event names the
//! place of its order; what the events topic holds is therefore the service's own memory. When it
//! starts, or has lost an outcome, it reads that topic to its end and goes on with what is
//! missing. While it runs, the idempotent producer keeps retries from being stored twice. One gap
//! remains: an event whose outcome is unknown may be stored later than it is looked for. The
//! service waits out the broker's own time limit first, and the checker reports a duplicate if one
//! should slip through.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::time::sleep;

use crate::bus::{Bus, Outcome, Sender};
use crate::evidence::Observed;
use crate::order::{PlacedEvent, PricedEvent, Source};
use crate::pricing::price;
use crate::progress::Counters;
use crate::readback::read_to_end;

/// Priced events without an outcome; beyond it no more orders are taken.
const IN_FLIGHT: usize = 4_096;
/// Pause before another attempt after a failure that left no outcome open.
const PAUSE: Duration = Duration::from_millis(200);

/// The service's settings.
pub(crate) struct Pricer<B> {
    pub bus: B,
    pub intake: String,
    pub events: String,
    pub counters: Arc<Counters>,
    /// The longest time after which a broker may still store a send whose outcome is unknown.
    pub settling: Duration,
    /// How long reading the events back may stand still.
    pub patience: Duration,
}

/// Which orders are priced, by their places in the intake topic.
#[derive(Debug, Default)]
struct Done {
    /// All offsets below are done, by partition.
    below: BTreeMap<u32, u64>,
    /// Done, with some below that are not.
    beyond: BTreeSet<Source>,
    count: u64,
}

impl Done {
    fn contains(&self, at: Source) -> bool {
        at.offset < self.next(at.partition) || self.beyond.contains(&at)
    }

    fn next(&self, partition: u32) -> u64 {
        self.below.get(&partition).copied().unwrap_or(0)
    }

    fn add(&mut self, at: Source) {
        if self.contains(at) {
            return;
        }
        self.count += 1;
        self.beyond.insert(at);
        let mut next = Source {
            partition: at.partition,
            offset: self.next(at.partition),
        };
        while self.beyond.remove(&next) {
            next.offset += 1;
        }
        self.below.insert(at.partition, next.offset);
    }
}

/// Why a session of the service ended.
enum Stop {
    /// All outcomes are known; start again at once.
    Clean(anyhow::Error),
    /// An event may still be stored.
    Unsettled(anyhow::Error),
}

impl<B: Bus> Pricer<B> {
    /// Runs until it is aborted.
    pub(crate) async fn run(self) {
        loop {
            let (why, pause) = match self.session().await {
                Stop::Clean(why) => (why, PAUSE),
                Stop::Unsettled(why) => (why, self.settling),
            };
            tracing::warn!(error = format!("{why:#}"), "pricing starts again");
            sleep(pause).await;
        }
    }

    async fn session(&self) -> Stop {
        let opened = async {
            let done = self.recall().await?;
            let partitions = self.bus.ends(&self.intake).await?;
            let from = partitions.keys().map(|p| (*p, done.next(*p))).collect();
            let orders = self.bus.read(&self.intake, &from, None).await?;
            anyhow::Ok((done, orders))
        };
        match opened.await {
            Ok((done, orders)) => self.price_all(done, orders).await,
            Err(error) => Stop::Clean(error),
        }
    }

    /// What was priced before, by the events topic.
    async fn recall(&self) -> anyhow::Result<Done> {
        let ends = self.bus.ends(&self.events).await?;
        let mut done = Done::default();
        read_to_end(
            &self.bus,
            &self.events,
            &ends,
            None,
            self.patience,
            |record| {
                if let Ok(event) = serde_json::from_slice::<PricedEvent>(&record.value) {
                    done.add(event.body.source);
                }
            },
        )
        .await?;
        self.counters.set_priced(done.count);
        Ok(done)
    }

    async fn price_all(&self, mut done: Done, mut orders: B::Records) -> Stop {
        let sender = self.bus.sender();
        let mut open = FuturesUnordered::new();
        let (mut failure, mut unsettled) = (None, false);
        while failure.is_none() || !open.is_empty() {
            tokio::select! {
                order = orders.next(), if failure.is_none() && open.len() < IN_FLIGHT => {
                    match self.take(order, &done, &sender).await {
                        Ok(Taken::Sent(at, ended)) => open.push(async move { (at, ended.await) }),
                        Ok(Taken::Passed(at)) => {
                            done.add(at);
                            self.counters.set_priced(done.count);
                        }
                        Err(error) => failure = Some(error),
                    }
                }
                Some((at, outcome)) = open.next(), if !open.is_empty() => match outcome {
                    Outcome::Acknowledged(_) => {
                        done.add(at);
                        self.counters.set_priced(done.count);
                    }
                    Outcome::Refused(why) => {
                        failure.get_or_insert(anyhow::anyhow!("a priced event was refused: {why}"));
                    }
                    Outcome::Unknown(why) => {
                        unsettled = true;
                        failure.get_or_insert(anyhow::anyhow!("a priced event is unknown: {why}"));
                    }
                }
            }
        }
        let why = failure.unwrap_or_else(|| anyhow::anyhow!("stopped"));
        if unsettled {
            Stop::Unsettled(why)
        } else {
            Stop::Clean(why)
        }
    }

    async fn take<S: Sender>(
        &self,
        order: Option<anyhow::Result<Observed>>,
        done: &Done,
        sender: &S,
    ) -> anyhow::Result<Taken<S::Ended>> {
        let order = order.context("the intake topic ended")??;
        if done.contains(order.at) {
            return Ok(Taken::Passed(order.at));
        }
        let Ok(placed) = serde_json::from_slice::<PlacedEvent>(&order.value) else {
            // Nothing to price. The checker names it.
            tracing::warn!(at = ?order.at, "not an order");
            return Ok(Taken::Passed(order.at));
        };
        let priced = price(&placed, order.at);
        let value = serde_json::to_vec(&priced)?;
        let enqueued = sender
            .enqueue(&self.events, priced.order_id, value, priced.traceparent)
            .await;
        match enqueued {
            Ok(ended) => Ok(Taken::Sent(order.at, ended)),
            Err(outcome) => anyhow::bail!("a priced event was not taken over: {outcome:?}"),
        }
    }
}

enum Taken<E> {
    Sent(Source, E),
    Passed(Source),
}

#[cfg(test)]
#[path = "pricer_tests.rs"]
mod tests;
