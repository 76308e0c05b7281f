//! What a producer's handle, its keeper and its lanes share, and the keeper itself: timers,
//! leaders, producer ids.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use highwater_proto::v1::{self, log_client::LogClient};
use highwater_proto::{NodeId, PartitionId, TimestampMs, TopicId, TopicPartition};
use parking_lot::Mutex;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use super::encode::Encodable;
use super::machine::{Batch, Identity, Item, Machine, Outcome};
use super::{ProducerConfig, lane};
use crate::backoff::Jitter;
use crate::cluster::Cluster;
use crate::connect::Task;
use crate::error::SendError;
use crate::record::{Delivery, ProducerRecord};
use crate::rpc::{self, CallFailure};
use crate::view::ClusterView;

/// A record that waits for its outcome.
#[derive(Debug)]
pub(crate) struct Pending {
    /// Moves to the batch's wire form when the batch is closed.
    pub record: ProducerRecord,
    pub timestamp: TimestampMs,
    pub tp: TopicPartition,
    pub ack: oneshot::Sender<Result<Delivery, SendError>>,
    /// Its share of the buffer; given back with the outcome.
    pub _permit: OwnedSemaphorePermit,
}

impl Item for Pending {
    type Wire = Arc<Encodable>;

    fn wire(items: &mut [Self]) -> Arc<Encodable> {
        let records = items
            .iter_mut()
            .map(|item| (item.timestamp, std::mem::take(&mut item.record)));
        Arc::new(Encodable::new(records.collect()))
    }
}

pub(crate) struct Shared {
    pub cluster: Arc<Cluster>,
    pub config: ProducerConfig,
    pub buffer: Arc<Semaphore>,
    machine: Mutex<Machine<Pending>>,
    started: Instant,
    keeper: Notify,
    /// Counts moments at which a lane may find something to send.
    pub kick: watch::Sender<u64>,
    /// Some batch has its outcome.
    pub resolved: Notify,
    sessions: AtomicU64,
    sticky: Mutex<(Jitter, BTreeMap<TopicId, PartitionId>)>,
}

impl Shared {
    pub(crate) fn new(cluster: Arc<Cluster>, config: ProducerConfig) -> Self {
        let seed = cluster.random();
        let machine = Machine::new(config.rules(&cluster.timings, seed));
        Self {
            buffer: Arc::new(Semaphore::new(config.buffer_bytes)),
            machine: Mutex::new(machine),
            started: Instant::now(),
            keeper: Notify::new(),
            kick: watch::Sender::new(0),
            resolved: Notify::new(),
            sessions: AtomicU64::new(0),
            sticky: Mutex::new((Jitter::new(seed), BTreeMap::new())),
            cluster,
            config,
        }
    }

    /// Time since the producer started, the only time the machine knows.
    pub(crate) fn now(&self) -> Duration {
        self.started.elapsed()
    }
    pub(crate) fn instant(&self, since_start: Duration) -> Instant {
        self.started + since_start
    }
    pub(crate) fn next_session(&self) -> u64 {
        self.sessions.fetch_add(1, Ordering::Relaxed)
    }

    /// Runs `change` on the machine, then tells whoever the change concerns.
    pub(crate) fn act<T>(&self, change: impl FnOnce(&mut Machine<Pending>, Duration) -> T) -> T {
        let (answer, done, earlier, sendable) = {
            let mut machine = self.machine.lock();
            let before = machine.next_wake();
            let answer = change(&mut machine, self.now());
            let after = machine.next_wake();
            let earlier = after.is_some_and(|after| before.is_none_or(|before| after < before));
            let sendable = machine.leaders().next().is_some();
            (answer, machine.take_done(), earlier, sendable)
        };
        if earlier || sendable {
            self.keeper.notify_one();
        }
        if !done.is_empty() {
            done.into_iter()
                .for_each(|(batch, outcome)| complete(batch, &outcome));
            self.keeper.notify_one();
            self.resolved.notify_waiters();
        }
        answer
    }

    /// Looks at the machine, or takes from it, without waking anybody: a lane that finds nothing
    /// must not wake the keeper that wakes the lanes.
    pub(crate) fn quietly<T>(&self, look: impl FnOnce(&mut Machine<Pending>, Duration) -> T) -> T {
        look(&mut self.machine.lock(), self.now())
    }

    /// A partition for a record without key: the same while its batch is open and it has a leader.
    pub(crate) fn sticky(
        &self,
        topic: &crate::view::TopicView,
        machine: &Machine<Pending>,
    ) -> PartitionId {
        let mut guard = self.sticky.lock();
        let (jitter, chosen) = &mut *guard;
        let led = |p: &u32| {
            topic
                .partition(PartitionId(*p))
                .is_some_and(|p| p.leader.is_some())
        };
        if let Some(&partition) = chosen.get(&topic.id)
            && led(&partition.0)
            && machine.is_open(TopicPartition::new(topic.id, partition))
        {
            return partition;
        }
        let mut usable: Vec<u32> = (0..topic.partition_count()).filter(led).collect();
        if usable.is_empty() {
            usable = (0..topic.partition_count()).collect();
        }
        let count = u64::try_from(usable.len()).unwrap_or(1).max(1);
        let index = usize::try_from(jitter.next() % count).unwrap_or(0);
        let partition = PartitionId(usable.get(index).copied().unwrap_or(0));
        chosen.insert(topic.id, partition);
        partition
    }

    pub(crate) fn next_sticky(&self, topic: TopicId) {
        self.sticky.lock().1.remove(&topic);
    }
}

fn complete(batch: Batch<Pending>, outcome: &Outcome) {
    for (index, pending) in (0_u64..).zip(batch.items) {
        let answer = match outcome {
            Outcome::Acknowledged {
                base_offset,
                append_time,
                duplicate,
            } => Ok(Delivery {
                topic: pending.tp.topic,
                partition: pending.tp.partition,
                offset: base_offset.plus(index),
                timestamp: append_time.unwrap_or(pending.timestamp),
                duplicate: *duplicate,
            }),
            Outcome::Rejected(refusal) => Err(SendError::Rejected(refusal.cause.clone())),
            Outcome::Unknown(refusal) => Err(SendError::Unknown(refusal.cause.clone())),
        };
        // Nobody may be waiting any more; the record is stored all the same.
        let _ = pending.ack.send(answer);
    }
}

type Granting = Task<Result<Identity, CallFailure>>;

/// Keeps a producer going: one task per producer, ended by dropping it.
pub(crate) async fn keep(shared: Arc<Shared>) {
    let mut lanes = JoinSet::new();
    let mut running = BTreeSet::new();
    let mut changes = shared.cluster.changes();
    let mut granting: Option<Granting> = None;
    let mut leaders_stale = true;
    loop {
        leaders_stale |= changes.has_changed().unwrap_or(false);
        changes.borrow_and_update();
        let (wake, leaders, wants) = look(&shared, leaders_stale);
        leaders_stale = false;
        for node in leaders {
            if running.insert(node) {
                lanes.spawn(lane::run(Arc::clone(&shared), node));
            }
        }
        shared.kick.send_modify(|kicks| *kicks += 1);
        if wants && granting.is_none() {
            granting = Some(Box::pin(grant(Arc::clone(&shared))));
        }
        let wake = shared.instant(wake.unwrap_or(shared.now() + IDLE));
        tokio::select! {
            () = shared.keeper.notified() => {}
            _ = changes.changed() => leaders_stale = true,
            () = sleep_until(wake) => {}
            granted = wait_for(&mut granting) => {
                granting = None;
                match granted {
                    Ok(identity) => {
                        tracing::debug!(id = identity.id, "producer id");
                        shared.act(|machine, now| machine.granted(identity, now));
                    }
                    Err(failure) => tracing::warn!(cause = %failure.cause, "no producer id yet"),
                }
            }
        }
    }
}

/// Says to `machine` who leads the partition, or that nobody ever will again.
pub(super) fn tell(
    machine: &mut Machine<Pending>,
    view: &ClusterView,
    tp: TopicPartition,
    now: Duration,
) {
    match view.deleted(tp.topic) {
        Some(cause) => machine.topic_deleted(tp, cause, now),
        None => machine.set_leader(tp, view.leader(tp.topic, tp.partition), now),
    }
}

const IDLE: Duration = Duration::from_secs(60);

type Look = (Option<Duration>, Vec<NodeId>, bool);

fn look(shared: &Shared, leaders_changed: bool) -> Look {
    let mut machine = shared.machine.lock();
    let now = shared.now();
    if leaders_changed {
        let view = shared.cluster.view();
        let partitions: Vec<_> = machine.partitions().collect();
        for tp in partitions {
            tell(&mut machine, &view, tp, now);
        }
    }
    machine.tick(now);
    let look = (
        machine.next_wake(),
        machine.leaders().collect(),
        machine.wants_identity(),
    );
    let done = machine.take_done();
    drop(machine);
    if !done.is_empty() {
        done.into_iter()
            .for_each(|(batch, outcome)| complete(batch, &outcome));
        shared.resolved.notify_waiters();
    }
    look
}

async fn wait_for(granting: &mut Option<Granting>) -> Result<Identity, CallFailure> {
    match granting {
        Some(task) => task.await,
        None => std::future::pending().await,
    }
}

/// A producer id that nobody else has or will have.
async fn grant(shared: Arc<Shared>) -> Result<Identity, CallFailure> {
    let deadline = Instant::now() + shared.cluster.timings.request_timeout;
    let answer = rpc::call(&shared.cluster, None, deadline, |channel| async move {
        let request = v1::InitProducerRequest {};
        LogClient::new(channel).init_producer(request).await
    });
    Ok(Identity::new(answer.await?.producer_id))
}
