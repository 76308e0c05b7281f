//! openraft's type parameters, as this broker fills them in. Private: no type of openraft leaves
//! the crate.

use std::fmt;

use bytes::Bytes;
use highwater_proto::Payload;
use openraft::type_config::alias;

/// A proposed command as openraft carries it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Command(pub Payload);

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

/// What applying an entry says to the one who proposed it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Reply {
    /// The state machine's answer.
    Applied(Bytes),
    /// The entry came in with an installed checkpoint: it is applied, its answer is not known.
    Covered,
}

openraft::declare_raft_types!(
    /// Standard terms (one leader per term): the shards' leader epochs count on it.
    pub(crate) TypeConfig:
        D = Command,
        R = Reply,
        LeaderId = openraft::impls::leader_id_std::LeaderId<u64, u64>,
        AsyncRuntime = crate::runtime::Runtime,
);

pub(crate) type Entry = alias::EntryOf<TypeConfig>;
pub(crate) type LogId = alias::LogIdOf<TypeConfig>;
pub(crate) type Vote = alias::VoteOf<TypeConfig>;
pub(crate) type StoredMembership = alias::StoredMembershipOf<TypeConfig>;
pub(crate) type Membership = openraft::Membership<u64, Node>;
pub(crate) type Node = openraft::impls::BasicNode;
pub(crate) type SnapshotMeta = alias::SnapshotMetaOf<TypeConfig>;
pub(crate) type Snapshot = alias::SnapshotOf<TypeConfig, crate::adapter::SnapshotHandle>;
pub(crate) type AppendRequest = openraft::raft::AppendEntriesRequest<TypeConfig>;
pub(crate) type AppendResponse = openraft::raft::AppendEntriesResponse<TypeConfig>;
pub(crate) type VoteRequest = openraft::raft::VoteRequest<TypeConfig>;
pub(crate) type VoteResponse = openraft::raft::VoteResponse<TypeConfig>;
pub(crate) type TransferRequest = openraft::raft::TransferLeaderRequest<TypeConfig>;
pub(crate) type TransferResponse = openraft::raft::TransferLeaderResponse<TypeConfig>;
pub(crate) type SnapshotResponse = openraft::raft::SnapshotResponse<TypeConfig>;

/// Which node a vote is for.
pub(crate) fn vote_node(vote: &Vote) -> u64 {
    vote.leader_id().voted_for
}

/// The id of the entry at `index` of `term`.
pub(crate) fn log_id(term: u64, index: u64) -> LogId {
    LogId::new(term.into(), index)
}

/// The term an entry was written in.
pub(crate) fn term_of(id: &LogId) -> u64 {
    id.committed_leader_id().term
}

/// What an entry holds.
pub(crate) type Content = openraft::EntryPayload<Command, u64, Node>;
