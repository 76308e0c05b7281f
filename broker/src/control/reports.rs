//! What the brokers last said of their replicas, at the metadata leader. Observations, not state.

use std::collections::BTreeMap;

use highwater_proto::internal::{Alarm, ShardReport};
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
    /// A stored range that cannot be read.
    pub damage: Option<String>,
}

/// What one broker last said.
#[derive(Debug, Default)]
struct Said {
    shards: BTreeMap<ShardId, ReplicaReport>,
    problems: Vec<String>,
    alarms: Vec<Alarm>,
}

/// The newest report of each broker.
#[derive(Debug, Default)]
pub struct Reports(Mutex<BTreeMap<NodeId, Said>>);

impl Reports {
    /// Replaces what a broker said: of its replicas, of itself, and of others.
    pub fn note(
        &self,
        broker: NodeId,
        shards: &[ShardReport],
        (problems, alarms): (Vec<String>, Vec<Alarm>),
    ) {
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
        };
        self.0.lock().insert(broker, said);
    }
    /// What a broker said is wrong with it.
    #[must_use]
    pub fn problems(&self, broker: NodeId) -> Vec<String> {
        let said = self.0.lock();
        said.get(&broker)
            .map_or_else(Vec::new, |said| said.problems.clone())
    }
    /// What a broker found out about others: a sentence, and what to do.
    #[must_use]
    pub fn alarms(&self, broker: NodeId) -> Vec<(String, String)> {
        let said = self.0.lock();
        let alarms = said.get(&broker).map(|said| said.alarms.as_slice());
        let alarms = alarms.unwrap_or_default().iter();
        alarms.map(|a| (a.what.clone(), a.cure.clone())).collect()
    }
    /// What a broker said of its replica of a shard.
    #[must_use]
    pub fn of(&self, broker: NodeId, shard: ShardId) -> Option<ReplicaReport> {
        self.0.lock().get(&broker)?.shards.get(&shard).cloned()
    }
}
