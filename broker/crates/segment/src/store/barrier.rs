//! Freezing a shard's manifests at one place of its order, without waiting for room in the queue:
//! apply must not block on it, and what follows must not be in it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};

use highwater_proto::ShardId;
use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::StoreError;
use super::job::Manifests;

/// A promise of the manifests of a shard at the place where it was taken.
#[must_use = "the manifests come with `wait`"]
pub struct FreezeTicket {
    answer: oneshot::Receiver<Manifests>,
}

impl FreezeTicket {
    /// The manifests of all partitions of the shard, by id, once everything handed over before
    /// is written. Not durable before a sync that begins after this. Cancellation-safe.
    ///
    /// # Errors
    /// [`StoreError::Closed`] when the store stopped first; a fault is reported by the sync that
    /// follows and by the store's hook.
    pub async fn wait(self) -> Result<Manifests, StoreError> {
        self.answer.await.map_err(|_| StoreError::Closed)
    }
}

struct Barrier {
    after: u64,
    done: oneshot::Sender<Manifests>,
}

#[derive(Default)]
struct State {
    waiting: BTreeMap<ShardId, VecDeque<Barrier>>,
    stopped: bool,
}

/// The barriers of all shards.
#[derive(Default)]
pub(super) struct Barriers {
    state: Mutex<State>,
    /// How many wait: mostly none, and then the writer takes no lock.
    count: AtomicUsize,
}

impl Barriers {
    /// Sets a barrier behind the shard's job `after`.
    pub(super) fn set(&self, shard: ShardId, after: u64) -> FreezeTicket {
        let (done, answer) = oneshot::channel();
        let mut state = self.state.lock();
        if !state.stopped {
            state
                .waiting
                .entry(shard)
                .or_default()
                .push_back(Barrier { after, done });
            self.count.fetch_add(1, Ordering::SeqCst);
        }
        FreezeTicket { answer }
    }
    /// Takes the barriers of a shard that lie before its job `sequence`.
    pub(super) fn take_before(
        &self,
        shard: ShardId,
        sequence: u64,
    ) -> Vec<oneshot::Sender<Manifests>> {
        let mut due = Vec::new();
        if self.count.load(Ordering::SeqCst) == 0 {
            return due;
        }
        let mut state = self.state.lock();
        let Some(waiting) = state.waiting.get_mut(&shard) else {
            return due;
        };
        while waiting
            .front()
            .is_some_and(|barrier| barrier.after < sequence)
        {
            due.extend(waiting.pop_front().map(|barrier| barrier.done));
        }
        if waiting.is_empty() {
            state.waiting.remove(&shard);
        }
        self.count.fetch_sub(due.len(), Ordering::SeqCst);
        due
    }
    /// Whether a barrier of the shard lies before its job `sequence`.
    pub(super) fn is_before(&self, shard: ShardId, sequence: u64) -> bool {
        self.count.load(Ordering::SeqCst) > 0
            && self
                .state
                .lock()
                .waiting
                .get(&shard)
                .and_then(VecDeque::front)
                .is_some_and(|barrier| barrier.after < sequence)
    }
    /// Shards that have barriers.
    pub(super) fn shards(&self) -> Vec<ShardId> {
        if self.count.load(Ordering::SeqCst) == 0 {
            return Vec::new();
        }
        self.state.lock().waiting.keys().copied().collect()
    }
    /// No barrier is ever reached again.
    pub(super) fn stop(&self) {
        let mut state = self.state.lock();
        state.stopped = true;
        state.waiting.clear();
        self.count.store(0, Ordering::SeqCst);
    }
}
