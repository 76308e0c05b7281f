//! The clients: single-threaded processes that write, read, and ask for ends.

mod aside;
mod body;
mod collect;
mod consumer;
mod final_reads;
mod groups;
mod latest;
mod letters;
mod letters_judge;
mod liveness;
mod member;
mod one_record;
mod own_thread;
mod pace;
mod producer;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use highwater_checker::{Key, Value};
use highwater_client::{Client, NewTopic};
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::history::Recorder;

pub use aside::{AsideCounts, finish_asides};
pub use final_reads::{FinalReads, final_reads};
pub use groups::finish_groups;
pub use liveness::liveness;
pub use one_record::Prober;

/// From handing a record over to its outcome: longer than any failover, shorter than the longer
/// faults, so that some outcomes stay unknown.
const DELIVERY: Duration = Duration::from_secs(5);

/// Bound of a lookup while things are broken.
const REQUEST: Duration = Duration::from_secs(3);

/// Bound of a lookup after everything was healed.
const CALM_REQUEST: Duration = Duration::from_secs(15);

/// What to do.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Brokers to ask first.
    pub bootstrap: Vec<String>,
    /// The topic; created at the start.
    pub topic: String,
    /// Its partitions.
    pub partitions: u32,
    /// Its replicas.
    pub replication: u32,
    /// All clients.
    pub clients: u32,
    /// Operations per second of all clients together.
    pub rate: f64,
    /// Consumer groups beside them; with any, also one that has dead letters.
    pub groups: u32,
    /// Topics beside the main one, whose records are deleted, compacted, or that are deleted whole.
    pub asides: bool,
    /// Of every choice that the clients make.
    pub seed: u64,
}

/// An acknowledged record.
#[derive(Debug, Clone, Copy)]
pub struct Acknowledged {
    /// Where.
    pub partition: u32,
    /// At which offset.
    pub offset: u64,
    /// When its request was made, in nanoseconds since the start of the run.
    pub invoked_ns: u64,
    /// When the answer came.
    pub at_ns: u64,
}

/// What all clients share.
pub struct Shared {
    /// What to do.
    pub plan: Plan,
    /// Where it is recorded.
    pub recorder: Arc<Recorder>,
    next: Vec<AtomicI64>,
    acknowledged: Mutex<Vec<Acknowledged>>,
    /// Errors of readers, which are no outcome of a write: counted and told.
    trouble: Mutex<Vec<String>>,
    troubles: AtomicU64,
    /// Broken promises that no history shows.
    findings: Mutex<Vec<String>>,
    letters: letters::Letters,
    groups: Mutex<GroupCounts>,
    aside: aside::Aside,
    asides: Mutex<AsideCounts>,
}

/// What was done to members of groups, and how many dead letters there were.
#[derive(Debug, Clone, Default, serde::Serialize)]
pub struct GroupCounts {
    /// How often members were killed, stood still, or could not leave.
    pub disturbances: BTreeMap<&'static str, u64>,
    /// Records that the group with dead letters was to handle.
    pub records: usize,
    /// Those of them that were set aside.
    pub dead_letters: usize,
}

impl Shared {
    /// Of a run that begins.
    #[must_use]
    pub fn new(plan: Plan, recorder: Arc<Recorder>) -> Self {
        let next = (0..plan.partitions).map(|_| AtomicI64::new(0)).collect();
        Self {
            plan,
            recorder,
            next,
            acknowledged: Mutex::default(),
            trouble: Mutex::default(),
            troubles: AtomicU64::new(0),
            findings: Mutex::default(),
            letters: letters::Letters::default(),
            groups: Mutex::default(),
            aside: aside::Aside::default(),
            asides: Mutex::default(),
        }
    }

    /// A client of its own connections.
    ///
    /// # Errors
    /// When the addresses are no addresses.
    pub fn client(&self, name: &str) -> anyhow::Result<Client> {
        self.client_with(name, REQUEST)
    }

    /// A client whose lookups may take this long.
    fn client_with(&self, name: &str, request: Duration) -> anyhow::Result<Client> {
        let builder = Client::builder()
            .brokers(self.plan.bootstrap.iter().cloned())
            .client_id(format!("jepsen-{name}"))
            .request_timeout(request);
        Ok(builder.build()?)
    }

    /// Creates the topic.
    ///
    /// # Errors
    /// When the cluster does not within a minute.
    pub async fn create_topic(&self) -> anyhow::Result<()> {
        let new = NewTopic::named(&self.plan.topic)
            .partitions(self.plan.partitions)
            .replication_factor(self.plan.replication);
        let client = self.client("admin")?;
        let admin = client.admin().timeout(Duration::from_secs(60));
        let created = admin.create_topic(new).await;
        created.with_context(|| format!("cannot create the topic {}", self.plan.topic))?;
        if self.plan.groups > 0 {
            let created = letters::create_topic(self, &client).await;
            created.context("cannot create the topic of the dead letters")?;
        }
        if self.plan.asides {
            aside::create_topics(self, &client).await?;
        }
        Ok(())
    }

    /// A value that this partition never had.
    fn fresh_value(&self, key: Key) -> Value {
        let next = self.next.get(key.0 as usize);
        Value(next.map_or(0, |next| next.fetch_add(1, Ordering::Relaxed)))
    }

    fn acknowledge(&self, acknowledged: Acknowledged) {
        let mut all = self
            .acknowledged
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        all.push(acknowledged);
    }

    /// All acknowledged records so far, in the order of their answers.
    #[must_use]
    pub fn acknowledged(&self) -> Vec<Acknowledged> {
        let all = self
            .acknowledged
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        all.clone()
    }

    /// How many records were sent and acknowledged within a time, both in nanoseconds since the start of the run.
    #[must_use]
    pub fn acknowledged_within(&self, from_ns: u64, to_ns: u64) -> usize {
        let all = self
            .acknowledged
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let since = all.iter().rev().take_while(|ack| ack.at_ns >= from_ns);
        since
            .filter(|ack| ack.invoked_ns >= from_ns && ack.at_ns <= to_ns)
            .count()
    }

    fn found(&self, what: String) {
        let mut findings = self.findings.lock().unwrap_or_else(PoisonError::into_inner);
        findings.push(what);
    }

    /// Broken promises that clients saw and that no history shows.
    #[must_use]
    pub fn findings(&self) -> Vec<String> {
        let findings = self.findings.lock();
        findings.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The consumer groups of the topic, by name.
    #[must_use]
    pub fn group_names(&self) -> Vec<String> {
        let groups = 0..self.plan.groups;
        groups
            .map(|number| member::Group::of(self, number).name)
            .collect()
    }

    fn disturbed(&self, how: &'static str) {
        let mut groups = self.groups.lock().unwrap_or_else(PoisonError::into_inner);
        *groups.disturbances.entry(how).or_default() += 1;
    }

    fn note_letters(&self, records: usize, dead_letters: usize) {
        let mut groups = self.groups.lock().unwrap_or_else(PoisonError::into_inner);
        (groups.records, groups.dead_letters) = (records, dead_letters);
    }

    /// What was done to members of groups.
    #[must_use]
    pub fn group_counts(&self) -> GroupCounts {
        let groups = self.groups.lock();
        groups.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The compacted topic beside the main one and its partitions, if there are such topics.
    #[must_use]
    pub fn compacted(&self) -> Option<(String, u32)> {
        self.plan.asides.then(|| aside::compacted_topic(self))
    }

    fn note_asides(&self, counts: AsideCounts) {
        *self.asides.lock().unwrap_or_else(PoisonError::into_inner) = counts;
    }

    /// What became of the topics beside the main one.
    #[must_use]
    pub fn aside_counts(&self) -> AsideCounts {
        let asides = self.asides.lock();
        asides.unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn complain(&self, what: String) {
        self.troubles.fetch_add(1, Ordering::Relaxed);
        let mut trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        if trouble.len() < 20 {
            trouble.push(what);
        }
    }

    /// How many errors readers met, and the first of them.
    #[must_use]
    pub fn trouble(&self) -> (u64, Vec<String>) {
        let trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        (self.troubles.load(Ordering::Relaxed), trouble.clone())
    }

    fn random(&self, client: u64) -> StdRng {
        StdRng::seed_from_u64(self.plan.seed.wrapping_mul(1_000_003).wrapping_add(client))
    }
}

/// The clients, while they run.
pub struct Clients {
    tasks: JoinSet<anyhow::Result<()>>,
}

impl Clients {
    /// Starts them: six of ten write, three read, one asks for ends; at least one of each. Members
    /// of groups come on top.
    #[must_use]
    pub fn start(shared: &Arc<Shared>, stop: &CancellationToken) -> Self {
        let all = shared.plan.clients.max(3);
        let askers = (all / 10).max(1);
        let readers = (all * 3 / 10).max(1);
        let writers = all - askers - readers;
        let mut tasks = JoinSet::new();
        for number in 0..writers {
            let rate = shared.plan.rate / f64::from(writers);
            tasks.spawn(producer::run(
                Arc::clone(shared),
                number,
                rate,
                stop.clone(),
            ));
        }
        for number in writers..writers + readers {
            tasks.spawn(consumer::run(Arc::clone(shared), number, stop.clone()));
        }
        for number in writers + readers..all {
            tasks.spawn(latest::run(Arc::clone(shared), number, stop.clone()));
        }
        groups::start(shared, stop, &mut tasks);
        aside::start(shared, stop, &mut tasks);
        Self { tasks }
    }

    /// Waits for their last operations, which the delivery timeout bounds.
    ///
    /// # Errors
    /// The first error of a client that is not an outcome of an operation.
    pub async fn join(mut self) -> anyhow::Result<()> {
        while let Some(ended) = self.tasks.join_next().await {
            ended.context("a client stopped")??;
        }
        Ok(())
    }
}
