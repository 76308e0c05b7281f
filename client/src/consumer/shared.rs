//! What a consumer's handle, its keeper and its lanes share, and the keeper itself: leaders,
//! pauses, offsets that went out of range.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::task::AtomicWaker;
use highwater_proto::{NodeId, TopicPartition};
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use super::lane;
use super::part::OutOfRange;
use super::reader::Reader;
use crate::cluster::Cluster;
use crate::error::Cause;
use crate::offsets::{self, At};
use crate::view::ClusterView;

/// From where records are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ReadFrom {
    /// The partition's leader.
    #[default]
    Leader,
    /// This broker, leader or not; it serves what it has up to its own high watermark. A partition of which it
    /// has no replica stands still with an error that says so, until a seek.
    Broker(NodeId),
}

#[derive(Debug, Clone)]
pub(crate) struct ConsumerConfig {
    pub credit_bytes: u64,
    pub max_fetch_bytes: u32,
    pub read_from: ReadFrom,
    pub out_of_range: OutOfRange,
}

pub(crate) struct Shared {
    pub cluster: Arc<Cluster>,
    pub config: ConsumerConfig,
    reader: Mutex<Reader>,
    started: Instant,
    keeper: Notify,
    pub kick: watch::Sender<u64>,
    pub waker: AtomicWaker,
    sessions: AtomicU64,
    resets: Mutex<BTreeSet<TopicPartition>>,
}

impl Shared {
    pub(crate) fn new(cluster: Arc<Cluster>, config: ConsumerConfig) -> Self {
        let reader = Reader::new(&config, cluster.random());
        Self {
            reader: Mutex::new(reader),
            started: Instant::now(),
            keeper: Notify::new(),
            kick: watch::Sender::new(0),
            waker: AtomicWaker::new(),
            sessions: AtomicU64::new(0),
            resets: Mutex::default(),
            cluster,
            config,
        }
    }

    pub(crate) fn next_session(&self) -> u64 {
        self.sessions.fetch_add(1, Ordering::Relaxed)
    }

    /// Looks at the reader, or takes from it, without waking anybody.
    pub(crate) fn read<T>(&self, look: impl FnOnce(&mut Reader, Duration) -> T) -> T {
        look(&mut self.reader.lock(), self.started.elapsed())
    }

    /// Changes the reader and wakes the keeper, the lanes and the application.
    pub(crate) fn act<T>(&self, change: impl FnOnce(&mut Reader, Duration) -> T) -> T {
        let answer = self.read(change);
        self.keeper.notify_one();
        self.waker.wake();
        answer
    }

    /// Wakes the lanes: there may be credit to grant.
    pub(crate) fn kick(&self) {
        self.kick.send_modify(|kicks| *kicks += 1);
    }

    pub(crate) fn wants_reset(&self, tp: TopicPartition) {
        self.resets.lock().insert(tp);
        self.keeper.notify_one();
    }

    /// A replica that does not lead is read only when asked for, or when the leader's copy is bad.
    pub(crate) fn follower_allowed(&self, tp: TopicPartition) -> bool {
        matches!(self.config.read_from, ReadFrom::Broker(_))
            || self.read(|reader, _| reader.avoided(tp).is_some_and(|avoid| !avoid.is_empty()))
    }
}

fn target(
    view: &ClusterView,
    from: ReadFrom,
    tp: TopicPartition,
    avoid: &BTreeSet<NodeId>,
) -> Option<NodeId> {
    if let ReadFrom::Broker(node) = from {
        return Some(node);
    }
    let leader = view.leader(tp.topic, tp.partition).map(|(node, _)| node);
    if avoid.is_empty() {
        return leader;
    }
    let replicas = view.topic(tp.topic).and_then(|t| t.partition(tp.partition));
    let whole = replicas.and_then(|p| {
        p.replicas
            .iter()
            .copied()
            .find(|node| !avoid.contains(node))
    });
    whole.or(leader)
}

/// Keeps a consumer going: one task per consumer, ended by dropping it.
pub(crate) async fn keep(shared: Arc<Shared>) {
    let mut lanes = JoinSet::new();
    let mut running = BTreeSet::new();
    let mut changes = shared.cluster.changes();
    loop {
        changes.borrow_and_update();
        let view = shared.cluster.view();
        let (targets, wake, ended) = shared.read(|reader, now| {
            let partitions: Vec<_> = reader.partitions().collect();
            let mut ended = false;
            for tp in partitions {
                if let Some(cause) = view.deleted(tp.topic) {
                    ended |= reader.topic_deleted(tp, cause);
                    continue;
                }
                let none = BTreeSet::new();
                let avoid = reader.avoided(tp).unwrap_or(&none);
                let target = target(&view, shared.config.read_from, tp, avoid);
                reader.set_target(tp, target);
            }
            (reader.targets(), reader.next_wake(now), ended)
        });
        if ended {
            shared.waker.wake();
        }
        for node in targets {
            if running.insert(node) {
                lanes.spawn(lane::run(Arc::clone(&shared), node));
            }
        }
        let resets = std::mem::take(&mut *shared.resets.lock());
        for tp in resets {
            lanes.spawn(reset(Arc::clone(&shared), tp));
        }
        shared.kick();
        let wake = wake.map_or_else(|| Instant::now() + IDLE, |wake| shared.started + wake);
        tokio::select! {
            () = shared.keeper.notified() => {}
            _ = changes.changed() => {}
            () = sleep_until(wake) => {}
        }
    }
}

const IDLE: Duration = Duration::from_secs(60);

/// Looks up where to go on after an offset went out of range.
async fn reset(shared: Arc<Shared>, tp: TopicPartition) {
    let view = shared.cluster.view();
    let Some(topic) = view.topic(tp.topic).map(|topic| Arc::clone(&topic.name)) else {
        let unknown = || Cause::UnknownTopic(tp.topic.to_string());
        let cause = view.deleted(tp.topic).unwrap_or_else(unknown);
        return shared.act(|reader, _| reader.halt(tp, cause));
    };
    let deadline = Instant::now() + shared.cluster.timings.request_timeout;
    let bounds = [At::Earliest, At::Latest].map(|at| (tp.partition, at));
    let found = offsets::list(&shared.cluster, &topic, &bounds, deadline).await;
    let bounds = found.map(|found| found.iter().map(|found| found.offset.0).collect::<Vec<_>>());
    shared.act(|reader, _| match bounds.as_deref() {
        Ok([first, end]) => {
            let Some(position) = reader.position(tp) else {
                return;
            };
            let to = moved(position, (*first, *end), shared.config.out_of_range);
            if to == position {
                reader.ask_again(tp);
            } else {
                tracing::warn!(partition = %tp, offset = position, to, "out of range: moved");
                reader.seek(tp, to);
            }
        }
        Ok(_) => reader.halt(tp, Cause::Transport("a broker told no bounds".to_owned())),
        Err(error) => reader.halt(tp, error.cause.clone()),
    });
}

/// Where to go on from `position` in a log with these bounds, as its leader tells them. Who said that it is out of range
/// may have been behind: then it is read on where it is, and nothing is read twice.
fn moved(position: u64, (first, end): (u64, u64), policy: OutOfRange) -> u64 {
    if (first..=end).contains(&position) {
        return position;
    }
    match policy {
        OutOfRange::Latest => end,
        OutOfRange::Earliest | OutOfRange::Error => first,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_who_is_out_of_the_leaders_bounds_is_moved() {
        let to = |position, policy| moved(position, (10, 20), policy);
        for inside in [10, 15, 20] {
            assert_eq!(to(inside, OutOfRange::Earliest), inside);
            assert_eq!(to(inside, OutOfRange::Latest), inside);
        }
        for outside in [9, 21] {
            assert_eq!(to(outside, OutOfRange::Earliest), 10);
            assert_eq!(to(outside, OutOfRange::Latest), 20);
        }
    }
}
