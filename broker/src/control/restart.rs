//! Whether a broker may go away for a moment: every shard that it holds must keep a majority of
//! replicas that are up and have all that is committed.

use std::collections::BTreeSet;

use highwater_env::Env;
use highwater_metadata::{Image, ShardInfo};
use highwater_proto::{NodeId, ShardId};

use super::reports::ReplicaReport;
use crate::node::Broker;

/// A replica that lacks at most so many applied entries keeps up: reports are up to a second old.
const KEEPS_UP: u64 = 2_000;

/// Whether one broker may go away for a moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// Which one.
    pub broker: NodeId,
    /// Why not; empty: it may.
    pub reasons: Vec<String>,
    /// What will be away meanwhile even so.
    pub notes: Vec<String>,
    /// It was heard from lately, and is not stopping.
    pub present: bool,
    /// When its process was started, by its own wall clock; 0: it never said.
    pub started_at_ms: i64,
}

/// The verdict about one broker, or, with 0, about each.
///
/// # Errors
/// One line when there is no such broker.
pub fn check<E: Env>(broker: &Broker<E>, asked: u32) -> Result<Vec<Verdict>, String> {
    let image = broker.cluster.image();
    if asked != 0 && image.broker(NodeId(asked)).is_none() {
        return Err(format!(
            "there is no broker {asked}; `highwater cluster members` shows all"
        ));
    }
    let alive = broker.liveness.steady_for(std::time::Duration::ZERO);
    let report = |node: NodeId, shard: ShardId| broker.reports.of(node, shard);
    let metadata = broker.metadata.group().status().borrow().clone();
    let view = View {
        image: &image,
        alive: &alive,
        me: broker.node_id,
        metadata,
        started_at_ms: &|node| broker.liveness.started_at_ms(node),
        newest: &|shard| broker.cluster.applied(shard),
        report: &report,
    };
    let brokers = image.brokers().map(|known| known.id);
    let brokers = brokers.filter(|id| asked == 0 || id.0 == asked);
    Ok(brokers.map(|id| view.verdict(id)).collect())
}

struct View<'a> {
    image: &'a Image,
    alive: &'a BTreeSet<NodeId>,
    me: NodeId,
    metadata: highwater_raft::GroupStatus,
    started_at_ms: &'a dyn Fn(NodeId) -> i64,
    newest: &'a dyn Fn(ShardId) -> u64,
    report: &'a dyn Fn(NodeId, ShardId) -> Option<ReplicaReport>,
}

impl View<'_> {
    fn verdict(&self, id: NodeId) -> Verdict {
        let mut reasons = Vec::new();
        let mut notes = Vec::new();
        if let Some(reason) = self.metadata_majority(id) {
            reasons.push(reason);
        }
        let mut alone = (0, 0);
        for shard in self.image.shards().filter(|s| s.replicas.contains(&id)) {
            if shard.replicas == [id] {
                alone = (alone.0 + 1, alone.1 + shard.partitions);
                continue;
            }
            reasons.extend(self.shard_majority(id, shard));
        }
        if alone.1 > 0 {
            notes.push(format!(
                "{} partitions of topics with one replica are away while broker {id} is",
                alone.1
            ));
        }
        Verdict {
            broker: id,
            reasons,
            notes,
            present: self.alive.contains(&id),
            started_at_ms: (self.started_at_ms)(id),
        }
    }

    fn metadata_majority(&self, id: NodeId) -> Option<String> {
        let voters = &self.metadata.voters;
        if !voters.contains(&id) || voters.len() == 1 {
            return None;
        }
        let lacks = |node: &NodeId| {
            let matched = self.metadata.followers.get(node).copied().flatten();
            *node != self.me
                && matched.is_none_or(|matched| self.metadata.last_log > matched + KEEPS_UP)
        };
        let others = voters.iter().filter(|node| **node != id);
        let up = others.filter(|node| self.alive.contains(node) && !lacks(node));
        let (up, needed) = (up.count(), voters.len() / 2 + 1);
        (up < needed).then(|| {
            format!("the metadata group would have {up} of {needed} brokers that it needs")
        })
    }

    fn shard_majority(&self, id: NodeId, shard: &ShardInfo) -> Option<String> {
        let needed = shard.replicas.len() / 2 + 1;
        let mut missing = Vec::new();
        let mut up = 0;
        for node in shard.replicas.iter().filter(|node| **node != id) {
            match self.trouble(*node, shard.id) {
                None => up += 1,
                Some(trouble) => missing.push(trouble),
            }
        }
        (up < needed).then(|| {
            format!(
                "shard {} would have {up} of {needed} replicas that it needs: {}",
                shard.id,
                missing.join(", ")
            )
        })
    }

    /// Why a replica does not count.
    fn trouble(&self, node: NodeId, shard: ShardId) -> Option<String> {
        if !self.alive.contains(&node) {
            return Some(format!("broker {node} does not answer or is stopping"));
        }
        let Some(report) = (self.report)(node, shard) else {
            return Some(format!("broker {node} has not started its replica"));
        };
        if report.stopped || !report.recovered {
            return Some(format!("the replica of broker {node} has not recovered"));
        }
        if report.damage.is_some() {
            return Some(format!("the replica of broker {node} has a bad range"));
        }
        if !report.voters.contains(&node) {
            return Some(format!("broker {node} does not vote yet"));
        }
        let lacks = (self.newest)(shard).saturating_sub(report.applied);
        (lacks > KEEPS_UP).then(|| format!("broker {node} lacks {lacks} entries"))
    }
}
