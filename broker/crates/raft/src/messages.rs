//! The crate's own encodings, as protobuf: bodies of lane messages, values in the log's slots, the
//! meta of a checkpoint. See FORMAT.md.

use bytes::Bytes;

/// A vote, or who leads: term and node; committed once a majority granted it.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct VoteMsg {
    #[prost(uint64, tag = "1")]
    pub term: u64,
    #[prost(uint64, tag = "2")]
    pub node: u64,
    #[prost(bool, tag = "3")]
    pub committed: bool,
}

/// An entry's id.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub(crate) struct LogIdMsg {
    #[prost(uint64, tag = "1")]
    pub term: u64,
    #[prost(uint64, tag = "2")]
    pub index: u64,
}

/// One set of voters; two of them while membership changes.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct VotersMsg {
    #[prost(uint64, repeated, tag = "1")]
    pub nodes: Vec<u64>,
}

/// A member, voter or learner.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct MemberMsg {
    #[prost(uint64, tag = "1")]
    pub node: u64,
    #[prost(string, tag = "2")]
    pub address: String,
}

/// A group's members.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct MembershipMsg {
    #[prost(message, repeated, tag = "1")]
    pub configs: Vec<VotersMsg>,
    #[prost(message, repeated, tag = "2")]
    pub members: Vec<MemberMsg>,
}

/// What a checkpoint covers: `StoredCheckpoint::raft_meta`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct MetaMsg {
    #[prost(message, optional, tag = "1")]
    pub last: Option<LogIdMsg>,
    #[prost(message, optional, tag = "2")]
    pub membership_at: Option<LogIdMsg>,
    #[prost(message, optional, tag = "3")]
    pub membership: Option<MembershipMsg>,
}

/// Body of an APPEND.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct AppendMsg {
    #[prost(message, optional, tag = "1")]
    pub vote: Option<VoteMsg>,
    #[prost(message, optional, tag = "2")]
    pub previous: Option<LogIdMsg>,
    #[prost(message, optional, tag = "3")]
    pub committed: Option<LogIdMsg>,
    /// Every member has the entries below this index; 0: not known.
    #[prost(uint64, tag = "4")]
    pub everywhere: u64,
}

/// Answer to an APPEND.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct AppendReplyMsg {
    /// 0 all taken, 1 taken up to `last`, 2 the previous entry is missing, 3 a higher vote.
    #[prost(uint32, tag = "1")]
    pub kind: u32,
    #[prost(message, optional, tag = "2")]
    pub last: Option<LogIdMsg>,
    #[prost(message, optional, tag = "3")]
    pub vote: Option<VoteMsg>,
}

/// Body of a VOTE and a PRE_VOTE.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct VoteRequestMsg {
    #[prost(message, optional, tag = "1")]
    pub vote: Option<VoteMsg>,
    #[prost(message, optional, tag = "2")]
    pub last: Option<LogIdMsg>,
    #[prost(bool, tag = "3")]
    pub transfer: bool,
}

/// Answer to a VOTE and a PRE_VOTE.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct VoteReplyMsg {
    #[prost(message, optional, tag = "1")]
    pub vote: Option<VoteMsg>,
    #[prost(bool, tag = "2")]
    pub granted: bool,
    #[prost(message, optional, tag = "3")]
    pub last: Option<LogIdMsg>,
}

/// Body of a TRANSFER_LEADER.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct TransferMsg {
    #[prost(message, optional, tag = "1")]
    pub from: Option<VoteMsg>,
    #[prost(uint64, tag = "2")]
    pub to: u64,
    #[prost(message, optional, tag = "3")]
    pub last: Option<LogIdMsg>,
}

/// Answer to a TRANSFER_LEADER.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct TransferReplyMsg {
    /// 0 taken, 1 the vote has changed (`vote`), 2 the log is not flushed so far (`last`).
    #[prost(uint32, tag = "1")]
    pub kind: u32,
    #[prost(message, optional, tag = "2")]
    pub vote: Option<VoteMsg>,
    #[prost(message, optional, tag = "3")]
    pub last: Option<LogIdMsg>,
}

/// Body of a SNAPSHOT.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct SnapshotMsg {
    #[prost(message, optional, tag = "1")]
    pub vote: Option<VoteMsg>,
    #[prost(bytes = "bytes", tag = "2")]
    pub raft_meta: Bytes,
    #[prost(bytes = "bytes", tag = "3")]
    pub manifest: Bytes,
}

/// Answer to a SNAPSHOT.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct SnapshotReplyMsg {
    #[prost(message, optional, tag = "1")]
    pub vote: Option<VoteMsg>,
}
