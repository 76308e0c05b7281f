//! Plans: what is to happen to the replicas of shards, step by step, replicated with the image.
//!
//! A plan is a list of moves. Whoever leads the metadata group drives them, a few shards at a time
//! and one change of a shard at a time, and writes each step down once it is done in the shard's
//! own group. A step may be driven again by the next leader: the goal is a membership, and a
//! membership that is there already is left alone.

use highwater_proto::{NodeId, PartitionId, ShardId, TopicId};

/// Where a broker stands in its life. A broker without an entry is active.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum BrokerState {
    /// Takes replicas.
    #[default]
    Active,
    /// A plan moves its replicas away.
    Draining,
    /// It has no replicas left and gets none.
    Drained,
    /// It was removed, and leaves the metadata group.
    Leaving,
    /// Its disk is given up; the metadata group still counts it.
    Replaced,
    /// Its disk is given up and nobody counts it: an empty one may come in its place.
    Awaited,
}

/// What a plan is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PlanKind {
    /// Replicas and leaders spread evenly over all brokers.
    Rebalance,
    /// A broker gives all its replicas away.
    Drain(NodeId),
    /// A broker's disk is lost: every shard fills it anew.
    Replace(NodeId),
    /// A broker's replica of one shard is bad: it is given up and filled anew.
    Repair(NodeId, ShardId),
    /// A partition goes to another shard.
    MovePartition(TopicId, PartitionId, ShardId),
    /// The partitions of a topic go to shards of more replicas.
    Replicate(TopicId, u32),
}

/// How far a move is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MoveState {
    /// The lost replica is taken out of its group.
    Expelling,
    /// Nothing was done yet, or the new broker is awaited.
    Waiting,
    /// The new replica receives the log and does not vote.
    Learning,
    /// The new replica votes, the old one is gone.
    Done,
    /// Given up; the shard is as it was.
    Cancelled,
}

impl MoveState {
    /// Whether nothing more happens.
    #[must_use]
    pub fn is_final(self) -> bool {
        matches!(self, Self::Done | Self::Cancelled)
    }
}

/// One replica of one shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Move {
    /// The shard.
    pub shard: ShardId,
    /// Who gets a replica.
    pub add: NodeId,
    /// Who gives one up: the same broker when its disk is replaced, nobody when one is missing.
    pub remove: Option<NodeId>,
    /// The only replica was lost with its disk: the shard begins anew, empty.
    pub lost: bool,
    /// How far it is.
    pub state: MoveState,
}

/// One partition on its way from one shard to another. It has no step that would have to be taken
/// back: the image names the one shard or the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartitionMove {
    /// Of which topic.
    pub topic: TopicId,
    /// The partition.
    pub partition: PartitionId,
    /// The shard that it leaves.
    pub from: ShardId,
    /// The shard that it goes to.
    pub to: ShardId,
    /// How far it is: waiting, learning (it is copied), done or cancelled.
    pub state: MoveState,
}

/// A plan, running or ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Its number, never used again.
    pub id: u64,
    /// What it is for.
    pub kind: PlanKind,
    /// Its moves of replicas; those of one shard happen one after the other.
    pub moves: Vec<Move>,
    /// Its moves of partitions; it has the ones or the others.
    pub partitions: Vec<PartitionMove>,
    /// Shards, or partitions, worked on at the same time.
    pub parallel: u32,
    /// No move begins any more; those under way are taken back, or finished if that is shorter.
    pub cancelled: bool,
}

impl Plan {
    /// Whether nothing more happens.
    #[must_use]
    pub fn is_ended(&self) -> bool {
        self.moves.iter().all(|step| step.state.is_final())
            && self.partitions.iter().all(|step| step.state.is_final())
    }
    /// The moves of partitions that may be worked on now: those under way before those that wait, no
    /// more than are allowed at once.
    #[must_use]
    pub fn current_partitions(&self) -> Vec<PartitionMove> {
        let open = || self.partitions.iter().filter(|step| !step.state.is_final());
        let waits = |step: &&PartitionMove| step.state == MoveState::Waiting;
        let under_way = open().filter(|step| !waits(step));
        let all = under_way.chain(open().filter(waits));
        all.take(self.parallel.max(1) as usize).copied().collect()
    }
    /// The move of a partition that has not ended.
    #[must_use]
    pub fn moving(&self, topic: TopicId, partition: PartitionId) -> Option<&PartitionMove> {
        let mut open = self.partitions.iter().filter(|step| !step.state.is_final());
        open.find(|step| step.topic == topic && step.partition == partition)
    }
    /// Whether a partition of the topic is on its way.
    #[must_use]
    pub fn concerns(&self, topic: TopicId) -> bool {
        let mut open = self.partitions.iter().filter(|step| !step.state.is_final());
        open.any(|step| step.topic == topic)
    }
    /// The moves that may be worked on now: for each shard the first that has not ended, those
    /// under way before those that wait, no more than are allowed at once.
    #[must_use]
    pub fn current(&self) -> Vec<&Move> {
        let mut seen = std::collections::BTreeSet::new();
        let open = self.moves.iter().filter(|step| !step.state.is_final());
        let first: Vec<&Move> = open.filter(|step| seen.insert(step.shard)).collect();
        let waits = |step: &&&Move| step.state == MoveState::Waiting;
        let under_way = first.iter().filter(|step| !waits(step));
        let waiting = first.iter().filter(waits);
        let limit = self.parallel.max(1) as usize;
        under_way.chain(waiting).take(limit).copied().collect()
    }
}

/// What was done about a move.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MoveStep {
    /// The shard's group no longer counts the lost replica.
    Expelled,
    /// The new broker may host the shard now, as a learner.
    Learn,
    /// The entry that made the new replica a member: whoever lacks it gets no vote of that replica.
    Floor(Floor),
    /// The shard's group has its new voters.
    Done,
    /// The shard's group no longer knows the new replica.
    Cancelled,
}

/// The entry of a shard's log that made a replica a member.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Floor {
    /// Of the leadership that wrote it.
    pub term: u64,
    /// Its place.
    pub index: u64,
}
