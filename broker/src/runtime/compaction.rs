//! Compactions that the shards' logs have decided and that are not done yet, for whoever does them.
//! After a restart they come again from the shards' states: nothing of this is stored.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use highwater_proto::{ShardId, TopicPartition};
use highwater_segment::CompactionTask;
use highwater_shard::CompactionFacts;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::{Duration, Instant};

/// A partition of a shard that this broker has a replica of.
pub type Place = (ShardId, TopicPartition);

/// What is to be done, and when it is tried next.
#[derive(Debug, Clone, Copy)]
struct Due {
    facts: CompactionFacts,
    at: Instant,
    tries: u32,
}

/// Shards some of whose files compaction has replaced since their last checkpoint was begun. The old files
/// stay until the next one, which an idle shard has no other reason to make.
#[derive(Debug, Clone, Default)]
pub struct Replaced(Arc<Mutex<BTreeSet<ShardId>>>);

impl Replaced {
    /// Files of a shard were replaced.
    pub fn note(&self, shard: ShardId) {
        self.0.lock().insert(shard);
    }
    /// Whether that is so.
    #[must_use]
    pub fn has(&self, shard: ShardId) -> bool {
        self.0.lock().contains(&shard)
    }
    /// A checkpoint is begun, which names the new files.
    pub fn forget(&self, shard: ShardId) {
        self.0.lock().remove(&shard);
    }
}

/// The newest compaction of each partition that has one to do.
#[derive(Debug, Default)]
pub struct CompactionQueue {
    due: Mutex<BTreeMap<Place, Due>>,
    added: Notify,
    /// What was done, and no checkpoint names yet.
    pub replaced: Replaced,
}

impl CompactionQueue {
    /// Adds a compaction; it takes the place of an earlier one of the partition.
    pub fn add(&self, place: Place, facts: CompactionFacts) {
        let at = Instant::now();
        let due = Due {
            facts,
            at,
            tries: 0,
        };
        self.due.lock().insert(place, due);
        self.added.notify_one();
    }
    /// How many wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.due.lock().len()
    }
    /// Whether none waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// Whether a partition's waits.
    #[must_use]
    pub fn has(&self, place: Place) -> bool {
        self.due.lock().contains_key(&place)
    }
    /// The one that waits longest, when its time has come. It stays until it is done.
    pub async fn next(&self) -> (Place, CompactionTask) {
        loop {
            let first = {
                let due = self.due.lock();
                let first = due.iter().min_by_key(|(_, due)| due.at);
                first.map(|(place, due)| (*place, *due))
            };
            let Some((place, due)) = first else {
                self.added.notified().await;
                continue;
            };
            if due.at <= Instant::now() {
                return (place, task(&due.facts));
            }
            tokio::select! {
                () = tokio::time::sleep_until(due.at) => {}
                () = self.added.notified() => {}
            }
        }
    }
    /// A compaction was done, or is nobody's any more. A newer one of the partition stays.
    pub fn done(&self, place: Place, generation: u64) {
        let mut all = self.due.lock();
        if all
            .get(&place)
            .is_some_and(|due| due.facts.generation == generation)
        {
            all.remove(&place);
        }
    }
    /// A partition is gone; it may come back as another copy.
    pub fn drop_place(&self, place: Place) {
        self.due.lock().remove(&place);
    }
    /// A replica is gone.
    pub fn forget(&self, shard: ShardId) {
        self.due.lock().retain(|place, _| place.0 != shard);
        self.replaced.forget(shard);
    }
    /// A compaction is to be tried again after a while.
    pub fn later(&self, place: Place, first: Duration, longest: Duration) {
        if let Some(due) = self.due.lock().get_mut(&place) {
            let pause = first.saturating_mul(2_u32.saturating_pow(due.tries));
            due.at = Instant::now() + pause.min(longest);
            due.tries = due.tries.saturating_add(1);
        }
    }
}

fn task(facts: &CompactionFacts) -> CompactionTask {
    CompactionTask {
        generation: facts.generation,
        upto: facts.upto,
        floor: facts.floor,
        tombstones_below: facts.tombstones_below,
        segment_bytes: facts.segment_bytes,
    }
}
