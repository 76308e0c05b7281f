//! Keeps the cluster view up to date: watch streams at two brokers, hints from errors, and the
//! wait for a topic.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use highwater_proto::v1::{self, metadata_client::MetadataClient};
use highwater_proto::{NodeId, PartitionId, TopicId};
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::{Instant, timeout, timeout_at};

use crate::backoff::{self, Jitter};
use crate::connect::{Pool, Purpose};
use crate::error::Cause;
use crate::resilience::RetryBudget;
use crate::view::{ClusterView, Least, TopicView};

/// Timings of everything that asks the cluster.
#[derive(Debug, Clone)]
pub(crate) struct Timings {
    /// Bound of one attempt of a call.
    pub request_timeout: Duration,
    /// First and longest pause between attempts.
    pub retry_first: Duration,
    pub retry_most: Duration,
    /// How long a topic that a broker calls missing is waited for.
    pub missing_grace: Duration,
}

/// Shared knowledge of the cluster.
pub(crate) struct Cluster {
    pub(crate) pool: Pool,
    pub(crate) timings: Timings,
    /// How far calls may be retried; shared with whoever else retries.
    pub(crate) budget: Option<Arc<RetryBudget>>,
    seeds: Vec<String>,
    view: ArcSwap<ClusterView>,
    /// The copy that updates are applied to, one at a time.
    master: Mutex<ClusterView>,
    least: Mutex<Least>,
    version: watch::Sender<u64>,
    interest: watch::Sender<BTreeSet<String>>,
    last_failure: Mutex<String>,
    jitter: Mutex<Jitter>,
}

impl Cluster {
    pub(crate) fn new(
        pool: Pool,
        seeds: Vec<String>,
        (timings, budget): (Timings, Option<Arc<RetryBudget>>),
        seed: u64,
    ) -> Self {
        Self {
            pool,
            timings,
            budget,
            seeds,
            view: ArcSwap::default(),
            master: Mutex::default(),
            least: Mutex::default(),
            version: watch::Sender::new(0),
            interest: watch::Sender::new(BTreeSet::new()),
            last_failure: Mutex::new("no attempt ended".to_owned()),
            jitter: Mutex::new(Jitter::new(seed)),
        }
    }

    pub(crate) fn view(&self) -> Arc<ClusterView> {
        self.view.load_full()
    }
    /// Counts changes of the view.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.version.subscribe()
    }
    pub(crate) fn random(&self) -> u64 {
        self.jitter.lock().next()
    }
    pub(crate) fn last_failure(&self) -> String {
        self.last_failure.lock().clone()
    }
    pub(crate) fn pause(&self, failures: u32) -> Duration {
        let t = &self.timings;
        backoff::pause(failures, t.retry_first, t.retry_most, self.random())
    }

    /// So many calls are made.
    pub(crate) fn called(&self, calls: usize) {
        if let Some(budget) = &self.budget {
            budget.deposit_calls(u32::try_from(calls).unwrap_or(u32::MAX));
        }
    }
    /// Waits until a call may be made again. False when `deadline` comes first. Cancellation-safe.
    pub(crate) async fn allowed(&self, deadline: Instant) -> bool {
        match &self.budget {
            Some(budget) => timeout_at(deadline, budget.granted(self.random()))
                .await
                .is_ok(),
            None => true,
        }
    }

    /// Addresses to ask, known brokers first, then the first addresses given; each once.
    pub(crate) fn candidates(&self) -> Vec<String> {
        let view = self.view();
        let alive = view.brokers.values().filter(|broker| broker.alive);
        let dead = view.brokers.values().filter(|broker| !broker.alive);
        let mut all: Vec<String> = Vec::new();
        for address in alive.chain(dead).map(|b| &b.address).chain(&self.seeds) {
            if !all.contains(address) {
                all.push(address.clone());
            }
        }
        all
    }

    /// Takes in a hint.
    pub(crate) fn hint(&self, topic: TopicId, partition: PartitionId, hint: &v1::LeaderHint) {
        self.update(|view| view.apply_hint(topic, partition, hint));
    }

    /// From now on a name stands for no topic with a lower id.
    pub(crate) fn at_least(&self, name: &str, id: TopicId) {
        {
            let mut all = self.least.lock();
            let least = all.entry(name.to_owned()).or_insert(id);
            *least = id.max(*least);
        }
        self.update(|view| view.at_least(name, id));
    }

    fn update(&self, change: impl FnOnce(&mut ClusterView) -> bool) {
        let mut master = self.master.lock();
        if change(&mut master) {
            self.view.store(Arc::new(master.clone()));
            self.version.send_modify(|version| *version += 1);
        }
    }

    /// The topic, ready to be used. Cancellation-safe.
    pub(crate) async fn topic(
        &self,
        name: &str,
        deadline: Instant,
    ) -> Result<Arc<TopicView>, Cause> {
        if let Some(topic) = self.view().topics.get(name).filter(|topic| topic.ready) {
            return Ok(Arc::clone(topic));
        }
        self.interest
            .send_if_modified(|topics| topics.insert(name.to_owned()));
        let mut changes = self.changes();
        let give_up = deadline.min(Instant::now() + self.timings.missing_grace);
        loop {
            changes.borrow_and_update();
            let view = self.view();
            let found = view.topics.get(name);
            if let Some(topic) = found.filter(|topic| topic.ready) {
                return Ok(Arc::clone(topic));
            }
            let missing = found.is_none() && view.missing.contains(name);
            let until = if missing { give_up } else { deadline };
            // The sender lives in `self`, so a change can always come.
            if timeout_at(until, changes.changed()).await.is_err() {
                return Err(if missing {
                    Cause::UnknownTopic(name.to_owned())
                } else if found.is_some() {
                    Cause::Deadline(format!("topic {name:?} is still being set up"))
                } else {
                    let last = self.last_failure();
                    Cause::Deadline(format!("no broker told about topic {name:?} ({last})"))
                });
            }
        }
    }

    /// Whether any broker has answered; waits for the first. Cancellation-safe.
    pub(crate) async fn connected(&self, deadline: Instant) -> bool {
        let mut changes = self.changes();
        loop {
            changes.borrow_and_update();
            if !self.view().brokers.is_empty() {
                return true;
            }
            if timeout_at(deadline, changes.changed()).await.is_err() {
                return false;
            }
        }
    }

    /// Runs one of the watchers for ever. Watchers start at different brokers, so that one paused
    /// broker does not hide a new leader. Cancellation-safe.
    pub(crate) async fn watch(self: Arc<Self>, watcher: usize) {
        let mut failures: u32 = 0;
        let mut turn = watcher;
        loop {
            let candidates = self.candidates();
            let Some(address) = candidates.get(turn % candidates.len().max(1)).cloned() else {
                return; // no address was given: the builder refuses that
            };
            match self.watch_at(&address).await {
                Ended::Interest => {
                    failures = 0;
                    continue;
                }
                Ended::AfterData(reason) => {
                    failures = 1;
                    self.note(&address, reason);
                }
                Ended::WithoutData(reason) => {
                    failures = failures.saturating_add(1);
                    self.note(&address, reason);
                }
            }
            turn = turn.wrapping_add(1);
            tokio::time::sleep(self.pause(failures)).await;
        }
    }

    fn note(&self, address: &str, reason: String) {
        tracing::debug!(broker = address, reason, "metadata watch ended");
        *self.last_failure.lock() = format!("{address}: {reason}");
    }

    async fn watch_at(&self, address: &str) -> Ended {
        let mut interest = self.interest.subscribe();
        let topics: Vec<String> = interest.borrow_and_update().iter().cloned().collect();
        let channel = match self.pool.channel(address, Purpose::Control) {
            Ok(channel) => channel,
            Err(reason) => return Ended::WithoutData(reason),
        };
        let request = v1::WatchRequest {
            topics,
            all_topics: false,
        };
        let mut client = MetadataClient::new(channel).max_decoding_message_size(MAX_UPDATE_BYTES);
        let limit = self.timings.request_timeout;
        let mut updates = match timeout(limit, client.watch(request)).await {
            Ok(Ok(response)) => response.into_inner(),
            Ok(Err(status)) => return Ended::WithoutData(Cause::status(&status).to_string()),
            Err(_) => {
                self.pool.forget(address, Purpose::Control);
                return Ended::WithoutData("no answer in time".to_owned());
            }
        };
        let mut seen = BTreeMap::new();
        let mut any = false;
        loop {
            let next = tokio::select! {
                // The first answer is bounded; afterwards keep-alive tells whether it lives.
                next = timeout(if any { FOREVER } else { limit }, updates.message()) => next,
                _ = interest.changed() => return Ended::Interest,
            };
            let reason = match next {
                Ok(Ok(Some(update))) => {
                    any = true;
                    self.update(|view| {
                        view.apply(&update, &mut seen, &self.least.lock());
                        true
                    });
                    continue;
                }
                Ok(Ok(None)) => "the broker ended the stream".to_owned(),
                Ok(Err(status)) => Cause::status(&status).to_string(),
                Err(_) => "no first update in time".to_owned(),
            };
            return if any {
                Ended::AfterData(reason)
            } else {
                Ended::WithoutData(reason)
            };
        }
    }

    /// The address to reach `node` at.
    pub(crate) fn address(&self, node: NodeId) -> Option<String> {
        self.view().address(node).map(ToOwned::to_owned)
    }
}

enum Ended {
    Interest,
    AfterData(String),
    WithoutData(String),
}

const FOREVER: Duration = Duration::from_secs(365 * 86_400);
/// A complete view of 100,000 partitions stays well below this.
const MAX_UPDATE_BYTES: usize = 64 << 20;
