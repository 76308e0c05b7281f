//! The cluster as this broker sees it: the immutable image of the metadata group, and, beside it,
//! who leads which shard and who is alive. The latter two are observations, not state: they are
//! never written to any log.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arc_swap::ArcSwap;
use highwater_metadata::Image;
use highwater_proto::{NodeId, ShardId};
use parking_lot::Mutex;
use tokio::sync::watch;

/// Who leads a shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct LeaderInfo {
    /// Of the leadership; what has a higher term is newer.
    pub term: u64,
    /// Nobody during an election.
    pub node: Option<NodeId>,
}

/// Image and observations, for every reader on this broker.
#[derive(Debug)]
pub struct Cluster {
    image: ArcSwap<Image>,
    leaders: Mutex<BTreeMap<ShardId, LeaderInfo>>,
    alive: ArcSwap<BTreeSet<NodeId>>,
    /// The last entry that some replica of a shard was heard to have applied.
    applied: Mutex<BTreeMap<ShardId, u64>>,
    /// Counts changes of any of the three.
    version: watch::Sender<u64>,
}

impl Default for Cluster {
    fn default() -> Self {
        Self {
            image: ArcSwap::default(),
            leaders: Mutex::default(),
            alive: ArcSwap::default(),
            applied: Mutex::default(),
            version: watch::Sender::new(0),
        }
    }
}

impl Cluster {
    /// The newest image applied here.
    #[must_use]
    pub fn image(&self) -> Arc<Image> {
        self.image.load_full()
    }
    /// Replaces the image.
    pub fn publish(&self, image: Arc<Image>) {
        let before = self.image.load_full();
        let begun_anew = image.shards().filter(|shard| {
            let known = before.shard(shard.id);
            !shard.established && known.is_some_and(|known| known.established)
        });
        for shard in begun_anew {
            // A new group under an old number: what was heard is about the old one.
            self.leaders.lock().remove(&shard.id);
            self.applied.lock().remove(&shard.id);
        }
        self.image.store(image);
        self.bump();
    }
    /// Fires on every change of image, leaders or liveness.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.version.subscribe()
    }
    /// The newest leader known of a shard.
    #[must_use]
    pub fn leader(&self, shard: ShardId) -> Option<LeaderInfo> {
        self.leaders.lock().get(&shard).copied()
    }
    /// All leaders known.
    #[must_use]
    pub fn leaders(&self) -> BTreeMap<ShardId, LeaderInfo> {
        self.leaders.lock().clone()
    }
    /// Takes note of a leader. Within a term a known leader beats an unknown one; a lower term is
    /// old news.
    pub fn observe_leader(&self, shard: ShardId, seen: LeaderInfo) {
        let mut leaders = self.leaders.lock();
        let known = leaders.entry(shard).or_default();
        let newer = (seen.term, seen.node.is_some()) > (known.term, known.node.is_some());
        if newer {
            *known = seen;
            drop(leaders);
            self.bump();
        }
    }
    /// Takes note that a replica of a shard has applied this entry. It fires no change: it moves
    /// with every write.
    pub fn observe_applied(&self, shard: ShardId, index: u64) {
        let mut applied = self.applied.lock();
        let known = applied.entry(shard).or_default();
        *known = index.max(*known);
    }
    /// The last entry that some replica of a shard was heard to have applied.
    #[must_use]
    pub fn applied(&self, shard: ShardId) -> u64 {
        self.applied.lock().get(&shard).copied().unwrap_or(0)
    }
    /// The brokers that are alive, as the metadata leader last said.
    #[must_use]
    pub fn alive(&self) -> Arc<BTreeSet<NodeId>> {
        self.alive.load_full()
    }
    /// Replaces the set of live brokers.
    pub fn observe_alive(&self, alive: BTreeSet<NodeId>) {
        if *self.alive.load_full() != alive {
            self.alive.store(Arc::new(alive));
            self.bump();
        }
    }
    fn bump(&self) {
        self.version.send_modify(|version| *version += 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_news_about_leaders_is_ignored() {
        let cluster = Cluster::default();
        let (shard, one, two) = (ShardId(4), Some(NodeId(1)), Some(NodeId(2)));
        cluster.observe_leader(shard, LeaderInfo { term: 5, node: one });
        cluster.observe_leader(shard, LeaderInfo { term: 4, node: two });
        cluster.observe_leader(
            shard,
            LeaderInfo {
                term: 5,
                node: None,
            },
        );
        assert_eq!(
            cluster.leader(shard),
            Some(LeaderInfo { term: 5, node: one })
        );
        cluster.observe_leader(
            shard,
            LeaderInfo {
                term: 6,
                node: None,
            },
        );
        assert_eq!(
            cluster.leader(shard),
            Some(LeaderInfo {
                term: 6,
                node: None
            })
        );
    }
}
