//! Which stopped replica is filled again without being asked. Decided where the metadata group is led,
//! from what the brokers say; the plan that follows is as any other: replicated, one at a time, shown,
//! cancellable, and it survives whoever drives it.

use std::collections::{BTreeMap, BTreeSet};

use highwater_metadata::{Image, ShardInfo};
use highwater_proto::{NodeId, ShardId};
use tokio::time::{Duration, Instant};

use super::reports::ReplicaReport;

/// What is remembered between two looks.
#[derive(Debug, Default)]
pub struct Repairs {
    /// Since when a replica has been seen to stand still.
    stopped: BTreeMap<(NodeId, ShardId), Instant>,
    /// When the last repair was begun.
    last: Option<Instant>,
}

/// What is known at one moment.
pub struct Known<'a> {
    /// The newest image.
    pub image: &'a Image,
    /// Who answers.
    pub alive: &'a BTreeSet<NodeId>,
    /// What a broker last said of its replica.
    pub report: &'a dyn Fn(NodeId, ShardId) -> Option<ReplicaReport>,
}

impl Known<'_> {
    fn said(&self, node: NodeId, shard: ShardId) -> Option<ReplicaReport> {
        (self.report)(node, shard).filter(|_| self.alive.contains(&node))
    }
    /// Whether all replicas but one are whole and vote: then none of them is the last good one, and
    /// they are a majority without it.
    fn others_are_whole(&self, shard: &ShardInfo, but: NodeId) -> bool {
        let mut others = shard.replicas.iter().filter(|node| **node != but);
        let whole = |node: &NodeId| {
            self.said(*node, shard.id).is_some_and(|said| {
                let fine = said.recovered && !said.stopped && said.damage.is_none();
                fine && said.voters.contains(node)
            })
        };
        shard.replicas.len() > 2 && others.all(whole)
    }
}

impl Repairs {
    /// The replica to fill again now, if there is one: it has stood still for `after`, so long has
    /// passed since the last repair, no plan runs, and the shard can spare it. Pure.
    pub fn next(
        &mut self,
        known: &Known<'_>,
        now: Instant,
        after: Duration,
    ) -> Option<(NodeId, ShardId)> {
        let replicas = known.image.shards().flat_map(|shard| {
            let nodes = shard.replicas.iter();
            nodes.map(move |node| (*node, shard.id))
        });
        let stands = |(node, shard): &(NodeId, ShardId)| {
            known.said(*node, *shard).is_some_and(|said| said.stopped)
        };
        let stopped: BTreeSet<_> = replicas.filter(stands).collect();
        self.stopped.retain(|replica, _| stopped.contains(replica));
        for replica in stopped {
            self.stopped.entry(replica).or_insert(now);
        }
        if known.image.running_plan().is_some() || self.last.is_some_and(|at| now - at < after) {
            return None;
        }
        let due = self
            .stopped
            .iter()
            .filter(|(_, since)| now - **since >= after);
        let mut due = due.map(|(replica, _)| *replica);
        let found = due.find(|(node, shard)| {
            let shard = known.image.shard(*shard);
            shard.is_some_and(|s| {
                s.established && s.learners.is_empty() && known.others_are_whole(s, *node)
            })
        })?;
        self.last = Some(now);
        Some(found)
    }
}

#[cfg(test)]
#[path = "repairs_tests.rs"]
mod tests;
