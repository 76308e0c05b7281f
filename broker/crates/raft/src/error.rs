//! Errors, one enum per operation.

use std::io;

use highwater_proto::{NodeId, ShardId};

/// A group could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// It runs already.
    #[error("group {0} runs already")]
    Running(ShardId),
    /// The timings contradict each other.
    #[error("raft timings: {0}")]
    Timings(String),
    /// The checkpoint could not be read.
    #[error("group {group}: cannot read its checkpoint: {source}")]
    Checkpoint {
        /// The group.
        group: ShardId,
        /// Why.
        source: io::Error,
    },
    /// What the log says does not make sense.
    #[error("group {group}: its log cannot be used: {reason}")]
    Log {
        /// The group.
        group: ShardId,
        /// Why.
        reason: String,
    },
    /// The group stopped while it started.
    #[error("group {group} does not start: {reason}")]
    Fatal {
        /// The group.
        group: ShardId,
        /// Why.
        reason: String,
    },
}

/// A command was not applied, as far as is known.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// Certainly not written: this replica does not lead.
    #[error("not the leader (term {term})")]
    NotLeader {
        /// Who leads, if known.
        leader: Option<NodeId>,
        /// The newest term known.
        term: u64,
    },
    /// Certainly not written: too many commands wait. Slow down and repeat.
    #[error("too many commands wait")]
    Busy,
    /// It may have been written, or may yet be.
    #[error("the outcome is not known: {0}")]
    Unknown(String),
}

/// A linearizable read is not possible here and now.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// This replica does not lead.
    #[error("not the leader (term {term})")]
    NotLeader {
        /// Who leads, if known.
        leader: Option<NodeId>,
        /// The newest term known.
        term: u64,
    },
    /// No majority confirmed the leadership in time, or the group has stopped.
    #[error("leadership was not confirmed: {0}")]
    Unconfirmed(String),
}

/// A membership operation failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MembershipError {
    /// This replica does not lead.
    #[error("not the leader (term {term})")]
    NotLeader {
        /// Who leads, if known.
        leader: Option<NodeId>,
        /// The newest term known.
        term: u64,
    },
    /// The group has other first members already.
    #[error("the group was initialized with other members: {0:?}")]
    OtherMembers(Vec<NodeId>),
    /// Refused by the group's rules.
    #[error("refused: {0}")]
    Refused(String),
    /// It may have happened, or may yet happen.
    #[error("the outcome is not known: {0}")]
    Unknown(String),
}

impl MembershipError {
    /// Who leads instead, if known, and the newest term known.
    pub(crate) fn not_leader((leader, term): (Option<NodeId>, u64)) -> Self {
        Self::NotLeader { leader, term }
    }
}

/// The leader was not handed over.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TransferError {
    /// This replica does not lead.
    #[error("not the leader")]
    NotLeader,
    /// The target is not a voter other than the leader.
    #[error("broker {0} is not another voter of the group")]
    NotAVoter(NodeId),
    /// The target lacks too many entries.
    #[error("broker {node} lacks {lag} entries")]
    Behind {
        /// The target.
        node: NodeId,
        /// How many entries it lacks.
        lag: u64,
    },
    /// The target did not take over in time; an election follows.
    #[error("broker {0} did not take over in time")]
    Timeout(NodeId),
    /// The group has stopped.
    #[error("the group has stopped: {0}")]
    Stopped(String),
}

/// A checkpoint was not made; the previous one still holds.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// The state machine could not make it durable.
    #[error("cannot make the checkpoint durable: {0}")]
    Persist(#[source] io::Error),
    /// The log failed; the process is about to stop.
    #[error("the log failed: {0}")]
    Log(String),
    /// The group has stopped.
    #[error("the group has stopped: {0}")]
    Stopped(String),
}

/// The log was not purged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PurgeError {
    /// There is no checkpoint that covers anything.
    #[error("no checkpoint yet")]
    NoCheckpoint,
    /// The group has stopped.
    #[error("the group has stopped: {0}")]
    Stopped(String),
}

/// Recovery did not end.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecoveryError {
    /// No leader confirmed the log in time.
    #[error("no leader confirmed the log in time")]
    Timeout,
    /// The group has stopped.
    #[error("the group has stopped")]
    Stopped,
}
