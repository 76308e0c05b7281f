//! Who leads what, as the cluster tells its clients, over time.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use highwater_client::Client;
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use crate::history::Recorder;

/// A partition's leader changed, or was lost.
#[derive(Debug, Clone, Serialize)]
pub struct Change {
    /// Nanoseconds since the start of the run.
    pub time_ns: u64,
    /// The partition.
    pub partition: u32,
    /// Its shard.
    pub shard: u32,
    /// Its leader from now on.
    pub leader: Option<u32>,
    /// The leader's term.
    pub term: u64,
}

/// Leaders of a topic's partitions.
#[derive(Debug, Default)]
pub struct Leaders {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    now: BTreeMap<u32, (u32, Option<u32>, u64)>,
    changes: Vec<Change>,
}

impl Leaders {
    /// Follows the topic until `stop`. Cancellation-safe.
    pub async fn follow(
        self: Arc<Self>,
        client: Client,
        topic: String,
        recorder: Arc<Recorder>,
        stop: CancellationToken,
    ) {
        let mut changes = client.changes();
        // Asking for the topic makes the client keep it up to date.
        let _ = client.topic(&topic).await;
        while !stop.is_cancelled() {
            changes.borrow_and_update();
            if let Some(view) = client.view().topics.get(topic.as_str()) {
                let time_ns = recorder.now_ns();
                let mut inner = self.lock();
                for (partition, seen) in (0..).zip(&view.partitions) {
                    let leader = seen.leader.map(|leader| leader.0);
                    inner.note(time_ns, partition, (seen.shard, leader, seen.term));
                }
            }
            tokio::select! {
                changed = changes.changed() => if changed.is_err() { return },
                () = stop.cancelled() => return,
            }
        }
    }

    /// The leader of a partition.
    #[must_use]
    pub fn of(&self, partition: u32) -> Option<u32> {
        self.lock()
            .now
            .get(&partition)
            .and_then(|(_, leader, _)| *leader)
    }

    /// The shard of a partition.
    #[must_use]
    pub fn shard(&self, partition: u32) -> Option<u32> {
        self.lock().now.get(&partition).map(|(shard, _, _)| *shard)
    }

    /// The partitions that a broker leads.
    #[must_use]
    pub fn led_by(&self, node: u32) -> Vec<u32> {
        let inner = self.lock();
        let led = inner
            .now
            .iter()
            .filter(|(_, (_, leader, _))| *leader == Some(node));
        led.map(|(partition, _)| *partition).collect()
    }

    /// All changes so far.
    #[must_use]
    pub fn changes(&self) -> Vec<Change> {
        self.lock().changes.clone()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Shards that two brokers led in one term, one sentence each. A term has one leader at the most.
#[must_use]
pub fn two_in_one_term(changes: &[Change]) -> Vec<String> {
    let mut known: BTreeMap<(u32, u64), u32> = BTreeMap::new();
    let mut found = Vec::new();
    for change in changes {
        let Some(leader) = change.leader else {
            continue;
        };
        let (shard, term) = (change.shard, change.term);
        let first = *known.entry((shard, term)).or_insert(leader);
        let what = format!("brokers {first} and {leader} both led shard {shard} in term {term}");
        if first != leader && !found.contains(&what) {
            found.push(what);
        }
    }
    found
}

impl Inner {
    fn note(&mut self, time_ns: u64, partition: u32, seen: (u32, Option<u32>, u64)) {
        if self.now.get(&partition) == Some(&seen) {
            return;
        }
        self.now.insert(partition, seen);
        let (shard, leader, term) = seen;
        self.changes.push(Change {
            time_ns,
            partition,
            shard,
            leader,
            term,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_term_has_one_leader() {
        let change = |shard, leader, term| Change {
            time_ns: 0,
            partition: 0,
            shard,
            leader,
            term,
        };
        let legal = [
            change(1, Some(1), 5),
            change(1, None, 6),
            change(1, Some(2), 6),
            change(1, Some(2), 6),
            change(2, Some(3), 5),
        ];
        assert!(two_in_one_term(&legal).is_empty());
        let planted = [
            change(1, Some(1), 5),
            change(1, Some(2), 6),
            change(1, Some(2), 5),
        ];
        let found = two_in_one_term(&planted);
        assert_eq!(found, ["brokers 1 and 2 both led shard 1 in term 5"]);
    }
}
