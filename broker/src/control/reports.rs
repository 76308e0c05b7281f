//! What the brokers last said of their replicas, at the metadata leader. Observations, not state.

use std::collections::BTreeMap;

use highwater_proto::internal::ShardReport;
use highwater_proto::{NodeId, ShardId};
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
}

/// The newest report of each broker.
#[derive(Debug, Default)]
pub struct Reports(Mutex<BTreeMap<NodeId, BTreeMap<ShardId, ReplicaReport>>>);

impl Reports {
    /// Replaces what a broker said.
    pub fn note(&self, broker: NodeId, shards: &[ShardReport]) {
        let nodes = |ids: &[u32]| ids.iter().copied().map(NodeId).collect();
        let report = |report: &ShardReport| ReplicaReport {
            leader: report.leader.map(NodeId),
            term: report.term,
            applied: report.applied_index,
            voters: nodes(&report.voters),
            learners: nodes(&report.learners),
            recovered: report.recovered,
            stopped: report.stopped,
        };
        let reports = shards.iter().map(|r| (ShardId(r.shard), report(r)));
        self.0.lock().insert(broker, reports.collect());
    }
    /// What a broker said of its replica of a shard.
    #[must_use]
    pub fn of(&self, broker: NodeId, shard: ShardId) -> Option<ReplicaReport> {
        self.0.lock().get(&broker)?.get(&shard).cloned()
    }
}
