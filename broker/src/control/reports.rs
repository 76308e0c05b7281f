//! What the brokers last said of their replicas, at the metadata leader. Observations, not state.

use std::collections::BTreeMap;

use highwater_mutant::mutant;
use highwater_proto::internal::{Alarm, HeartbeatRequest, PartitionMoveReport, ShardReport};
use highwater_proto::{NodeId, ShardId, TopicPartition};
use parking_lot::Mutex;

/// One replica as its broker sees it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ReplicaReport {
    /// Who leads the shard.
    pub leader: Option<NodeId>,
    /// In which term.
    pub term: u64,
    /// The last entry applied there.
    pub applied: u64,
    /// The shard's voters.
    pub voters: Vec<NodeId>,
    /// Members that do not vote.
    pub learners: Vec<NodeId>,
    /// It has applied again what it had before its last start.
    pub recovered: bool,
    /// It has stopped.
    pub stopped: bool,
    /// A stored range that cannot be read.
    pub damage: Option<String>,
}

/// What one broker last said.
#[derive(Debug, Default)]
struct Said {
    shards: BTreeMap<ShardId, ReplicaReport>,
    problems: Vec<Alarm>,
    alarms: Vec<Alarm>,
    moves: Vec<PartitionMoveReport>,
    followed_plan: u64,
}

/// The newest report of each broker.
#[derive(Debug, Default)]
pub struct Reports(Mutex<BTreeMap<NodeId, Said>>);

impl Reports {
    /// Replaces what a broker said.
    pub fn note(&self, heartbeat: HeartbeatRequest) {
        let HeartbeatRequest {
            node_id,
            shards,
            problems,
            alarms,
            moves,
            followed_plan,
            ..
        } = heartbeat;
        let nodes = |ids: &[u32]| ids.iter().copied().map(NodeId).collect();
        let report = |report: &ShardReport| ReplicaReport {
            leader: report.leader.map(NodeId),
            term: report.term,
            applied: report.applied_index,
            voters: nodes(&report.voters),
            learners: nodes(&report.learners),
            recovered: report.recovered,
            stopped: report.stopped,
            damage: Some(report.damage.clone()).filter(|damage| !damage.is_empty()),
        };
        let shards = shards.iter().map(|r| (ShardId(r.shard), report(r)));
        let said = Said {
            shards: shards.collect(),
            problems,
            alarms,
            moves,
            followed_plan,
        };
        self.0.lock().insert(NodeId(node_id), said);
    }
    /// Whether a broker said that it has followed a plan, or a later one.
    #[must_use]
    pub fn has_followed(&self, broker: NodeId, plan: u64) -> bool {
        let said = self.0.lock();
        let has = |said: &Said| said.followed_plan >= plan;
        mutant!(CountsTheOldReplica => true; else said.get(&broker).is_some_and(has))
    }
    /// What a broker said is wrong with it.
    #[must_use]
    pub fn problems(&self, broker: NodeId) -> Vec<Alarm> {
        let said = self.0.lock();
        said.get(&broker)
            .map_or_else(Vec::new, |said| said.problems.clone())
    }
    /// What a broker found out about others.
    #[must_use]
    pub fn alarms(&self, broker: NodeId) -> Vec<Alarm> {
        let said = self.0.lock();
        said.get(&broker)
            .map_or_else(Vec::new, |said| said.alarms.clone())
    }
    /// How far a partition's move is, as whoever carries it out said last.
    #[must_use]
    pub fn of_move(&self, plan: u64, tp: TopicPartition) -> Option<PartitionMoveReport> {
        let is_it = |report: &&PartitionMoveReport| {
            let of = (report.topic_id, report.partition);
            report.plan == plan && of == (tp.topic.0, tp.partition.0)
        };
        let said = self.0.lock();
        let mut all = said.values().flat_map(|said| &said.moves);
        all.find(is_it).cloned()
    }
    /// What a broker said of its replica of a shard.
    #[must_use]
    pub fn of(&self, broker: NodeId, shard: ShardId) -> Option<ReplicaReport> {
        self.0.lock().get(&broker)?.shards.get(&shard).cloned()
    }
}

#[cfg(test)]
#[path = "reports_tests.rs"]
mod tests;
