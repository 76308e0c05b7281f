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
    /// Of the shard, as in the image. Terms count from it: what has a higher one is newer, whatever the terms.
    pub beginning: u64,
    /// Of the leadership; what has a higher term is newer.
    pub term: u64,
    /// Nobody during an election.
    pub node: Option<NodeId>,
}

/// What is known of a shard's leader.
#[derive(Debug, Clone, Copy, Default)]
pub struct KnownLeader {
    /// The newest.
    pub now: LeaderInfo,
    /// The last term without a leader that the leader of an earlier one was still there in: it says
    /// nothing any more.
    pub outlived: u64,
}

impl KnownLeader {
    /// Whether this changes what is known.
    fn observe(&mut self, seen: LeaderInfo, outlived: u64) -> bool {
        if seen.beginning != self.now.beginning {
            let newer = seen.beginning > self.now.beginning;
            if newer {
                let (now, outlived) = (seen, 0);
                *self = Self { now, outlived };
            }
            return newer;
        }
        if seen.node.is_none() && seen.term <= self.outlived {
            return false;
        }
        let newer = (seen.term, seen.node.is_some()) > (self.now.term, self.now.node.is_some());
        let is_still_there =
            self.now.node.is_none() && seen.node.is_some() && self.now.term <= outlived;
        if is_still_there && !newer {
            self.outlived = self.now.term;
        }
        if newer || is_still_there {
            self.now = seen;
        }
        newer || is_still_there
    }
}

/// Image and observations, for every reader on this broker.
#[derive(Debug)]
pub struct Cluster {
    image: ArcSwap<Image>,
    leaders: Mutex<BTreeMap<ShardId, KnownLeader>>,
    alive: ArcSwap<BTreeSet<NodeId>>,
    /// The last entry that some replica of a shard was heard to have applied, after the shard's beginning.
    applied: Mutex<BTreeMap<ShardId, (u64, u64)>>,
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
        for shard in image.shards().filter(|shard| shard.beginning > 0) {
            // A new group under an old number: what was heard, and is still to be heard, is about the old one.
            let nobody = LeaderInfo {
                beginning: shard.beginning,
                ..LeaderInfo::default()
            };
            let mut leaders = self.leaders.lock();
            leaders.entry(shard.id).or_default().observe(nobody, 0);
            drop(leaders);
            self.observe_applied(shard.id, shard.beginning, 0);
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
        self.leaders.lock().get(&shard).map(|known| known.now)
    }
    /// All leaders known.
    #[must_use]
    pub fn leaders(&self) -> BTreeMap<ShardId, LeaderInfo> {
        let leaders = self.leaders.lock();
        leaders
            .iter()
            .map(|(shard, known)| (*shard, known.now))
            .collect()
    }
    /// The same, with what is to be told to others of terms without a leader.
    #[must_use]
    pub fn known_leaders(&self) -> BTreeMap<ShardId, KnownLeader> {
        self.leaders.lock().clone()
    }
    /// Takes note of a leader. An earlier beginning is old news. Within a term a known leader beats an unknown
    /// one; a lower term is old news, unless nobody is known to lead later, up to the term `outlived`: the
    /// leader was heard after that one. Who stands in vain, and is then taken out of the group, leaves a term that no other
    /// member ever hears of.
    pub fn observe_leader(&self, shard: ShardId, seen: LeaderInfo, outlived: u64) {
        let mut leaders = self.leaders.lock();
        if leaders.entry(shard).or_default().observe(seen, outlived) {
            drop(leaders);
            self.bump();
        }
    }
    /// Takes note that a replica of a shard has applied this entry since this beginning. It fires no
    /// change: it moves with every write.
    pub fn observe_applied(&self, shard: ShardId, beginning: u64, index: u64) {
        let mut applied = self.applied.lock();
        let known = applied.entry(shard).or_default();
        *known = (beginning, index).max(*known);
    }
    /// The last entry that some replica of a shard was heard to have applied.
    #[must_use]
    pub fn applied(&self, shard: ShardId) -> u64 {
        let applied = self.applied.lock();
        applied.get(&shard).map_or(0, |(_, index)| *index)
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

    const SHARD: ShardId = ShardId(4);

    fn info(term: u64, node: Option<u32>) -> LeaderInfo {
        let (beginning, node) = (0, node.map(NodeId));
        LeaderInfo {
            beginning,
            term,
            node,
        }
    }

    #[test]
    fn what_is_said_of_an_earlier_beginning_says_nothing() {
        let cluster = Cluster::default();
        let of = |beginning: u64, info: LeaderInfo| LeaderInfo { beginning, ..info };
        let hears = |seen: LeaderInfo| {
            cluster.observe_leader(SHARD, seen, u64::MAX);
            cluster.leader(SHARD).unwrap()
        };
        hears(info(30, Some(1)));
        cluster.observe_applied(SHARD, 0, 900);
        let anew = of(7, info(1, Some(2)));
        assert_eq!(hears(anew), anew, "its terms begin low");
        cluster.observe_applied(SHARD, 7, 3);
        cluster.observe_applied(SHARD, 0, 901);
        assert_eq!(cluster.applied(SHARD), 3, "and so do its entries");
        assert_eq!(hears(info(31, Some(1))), anew);
        assert_eq!(hears(info(32, None)), anew);
        let next = of(7, info(2, Some(3)));
        assert_eq!(hears(next), next, "within it terms count as ever");
        assert_eq!(hears(anew), next);
        let nobody = of(9, info(0, None));
        assert_eq!(hears(nobody), nobody);
    }

    #[test]
    fn old_news_about_leaders_is_ignored() {
        let cluster = Cluster::default();
        let hears = |seen: LeaderInfo| {
            cluster.observe_leader(SHARD, seen, 0);
            cluster.leader(SHARD).unwrap()
        };
        assert_eq!(hears(info(5, Some(1))), info(5, Some(1)));
        assert_eq!(hears(info(4, Some(2))), info(5, Some(1)));
        assert_eq!(hears(info(5, None)), info(5, Some(1)));
        assert_eq!(hears(info(6, None)), info(6, None));
    }

    #[test]
    fn a_leader_outlives_a_term_in_which_nobody_came_to_lead() {
        let (told, cluster) = (Cluster::default(), Cluster::default());
        let hears = |seen: LeaderInfo, outlived: u64| {
            cluster.observe_leader(SHARD, seen, outlived);
            cluster.leader(SHARD).unwrap()
        };
        hears(info(12, Some(3)), 0);
        assert_eq!(hears(info(13, None), 0), info(13, None));
        let by_others = hears(info(12, Some(3)), 0);
        assert_eq!(by_others, info(13, None), "they may not know better");
        let by_itself = hears(info(12, Some(3)), u64::MAX);
        assert_eq!(by_itself, info(12, Some(3)));
        let again = hears(info(13, None), 0);
        assert_eq!(again, info(12, Some(3)), "said once more it is no news");
        // Whoever is told by this broker believes it of what this broker had heard of.
        let outlived = cluster.known_leaders()[&SHARD].outlived;
        told.observe_leader(SHARD, info(13, None), 0);
        told.observe_leader(SHARD, info(12, Some(3)), outlived);
        assert_eq!(told.leader(SHARD), Some(info(12, Some(3))));
        told.observe_leader(SHARD, info(14, None), 0);
        told.observe_leader(SHARD, info(12, Some(3)), outlived);
        assert_eq!(told.leader(SHARD), Some(info(14, None)));
        assert_eq!(hears(info(14, None), 0), info(14, None));
        assert_eq!(hears(info(14, Some(1)), 0), info(14, Some(1)));
        let deposed = hears(info(12, Some(3)), u64::MAX);
        assert_eq!(deposed, info(14, Some(1)), "it does not know it yet");
    }
}
