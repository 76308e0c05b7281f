//! Between openraft's types and the crate's encodings.
#![deny(clippy::indexing_slicing)]

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use openraft::raft::{AppendEntriesResponse, TransferLeaderError};
use prost::Message;

use crate::messages::{
    AppendMsg, AppendReplyMsg, LogIdMsg, MemberMsg, MembershipMsg, MetaMsg, SnapshotMsg,
    SnapshotReplyMsg, TransferMsg, TransferReplyMsg, VoteMsg, VoteReplyMsg, VoteRequestMsg,
    VotersMsg,
};
use crate::types::{
    AppendResponse, LogId, Membership, Node, SnapshotMeta, SnapshotResponse, StoredMembership,
    TransferRequest, TransferResponse, Vote, VoteRequest, VoteResponse, log_id, term_of, vote_node,
};

/// Bytes that are not what they should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CodecError {
    /// Not protobuf of this shape.
    #[error("cannot decode: {0}")]
    Protobuf(#[from] prost::DecodeError),
    /// A part that must be there is not.
    #[error("{0} is missing")]
    Missing(&'static str),
    /// A value with no meaning.
    #[error("{what} {value} has no meaning")]
    Value {
        /// What it was read as.
        what: &'static str,
        /// What was read.
        value: u64,
    },
    /// Members that cannot be.
    #[error("no membership: {0}")]
    Membership(String),
    /// An entry's head is too short.
    #[error("an entry of {0} bytes has no head")]
    Short(usize),
}

impl From<&LogId> for LogIdMsg {
    fn from(id: &LogId) -> Self {
        Self {
            term: term_of(id),
            index: id.index(),
        }
    }
}

impl From<LogIdMsg> for LogId {
    fn from(id: LogIdMsg) -> Self {
        log_id(id.term, id.index)
    }
}

fn id_out(id: Option<&LogId>) -> Option<LogIdMsg> {
    id.map(LogIdMsg::from)
}

fn id_in(id: Option<LogIdMsg>) -> Option<LogId> {
    id.map(LogId::from)
}

pub(crate) fn encode_log_id(id: &LogId) -> Bytes {
    LogIdMsg::from(id).encode_to_vec().into()
}

pub(crate) fn decode_log_id(bytes: &Bytes) -> Result<LogId, CodecError> {
    Ok(LogIdMsg::decode(bytes.clone())?.into())
}

impl From<&Vote> for VoteMsg {
    fn from(vote: &Vote) -> Self {
        Self {
            term: vote.leader_id().term,
            node: vote_node(vote),
            committed: vote.is_committed(),
        }
    }
}

impl From<VoteMsg> for Vote {
    fn from(vote: VoteMsg) -> Self {
        if vote.committed {
            Self::new_committed(vote.term, vote.node)
        } else {
            Self::new(vote.term, vote.node)
        }
    }
}

fn vote_in(vote: Option<VoteMsg>) -> Result<Vote, CodecError> {
    vote.map(Vote::from).ok_or(CodecError::Missing("a vote"))
}

pub(crate) fn encode_vote(vote: &Vote) -> Bytes {
    VoteMsg::from(vote).encode_to_vec().into()
}

pub(crate) fn decode_vote(bytes: &Bytes) -> Result<Vote, CodecError> {
    Ok(VoteMsg::decode(bytes.clone())?.into())
}

impl From<&Membership> for MembershipMsg {
    fn from(membership: &Membership) -> Self {
        let configs = membership.get_joint_config().iter();
        let members = membership.nodes();
        Self {
            configs: configs
                .map(|voters| VotersMsg {
                    nodes: voters.iter().copied().collect(),
                })
                .collect(),
            members: members
                .map(|(node, about)| MemberMsg {
                    node: *node,
                    address: about.addr.clone(),
                })
                .collect(),
        }
    }
}

impl TryFrom<MembershipMsg> for Membership {
    type Error = CodecError;

    fn try_from(membership: MembershipMsg) -> Result<Self, CodecError> {
        let configs: Vec<BTreeSet<u64>> = membership
            .configs
            .into_iter()
            .map(|c| c.nodes.into_iter().collect())
            .collect();
        let nodes: BTreeMap<u64, Node> = membership
            .members
            .into_iter()
            .map(|member| {
                (
                    member.node,
                    Node {
                        addr: member.address,
                    },
                )
            })
            .collect();
        Self::new(configs, nodes).map_err(|error| CodecError::Membership(error.to_string()))
    }
}

pub(crate) fn encode_membership(membership: &Membership) -> Bytes {
    MembershipMsg::from(membership).encode_to_vec().into()
}

pub(crate) fn decode_membership(bytes: Bytes) -> Result<Membership, CodecError> {
    MembershipMsg::decode(bytes)?.try_into()
}

pub(crate) fn encode_meta(meta: &SnapshotMeta) -> Bytes {
    let message = MetaMsg {
        last: id_out(meta.last_log_id.as_ref()),
        membership_at: id_out(meta.last_membership.log_id().as_ref()),
        membership: Some(meta.last_membership.membership().into()),
    };
    message.encode_to_vec().into()
}

pub(crate) fn decode_meta(bytes: &Bytes) -> Result<SnapshotMeta, CodecError> {
    let message = MetaMsg::decode(bytes.clone())?;
    let membership = message
        .membership
        .ok_or(CodecError::Missing("the membership"))?;
    Ok(SnapshotMeta {
        last_log_id: id_in(message.last),
        last_membership: StoredMembership::new(
            id_in(message.membership_at),
            membership.try_into()?,
        ),
    })
}

/// The parts of an append that are not entries.
pub(crate) struct AppendHead {
    pub vote: Vote,
    pub previous: Option<LogId>,
    pub committed: Option<LogId>,
    /// See [`crate::everywhere::Everywhere`].
    pub everywhere: u64,
}

impl AppendHead {
    pub(crate) fn encode(&self) -> Bytes {
        let message = AppendMsg {
            vote: Some((&self.vote).into()),
            previous: id_out(self.previous.as_ref()),
            committed: id_out(self.committed.as_ref()),
            everywhere: self.everywhere,
        };
        message.encode_to_vec().into()
    }
    pub(crate) fn decode(body: Bytes) -> Result<Self, CodecError> {
        let message = AppendMsg::decode(body)?;
        Ok(Self {
            vote: vote_in(message.vote)?,
            previous: id_in(message.previous),
            committed: id_in(message.committed),
            everywhere: message.everywhere,
        })
    }
}

pub(crate) fn encode_append_reply(reply: &AppendResponse) -> Bytes {
    let none = AppendReplyMsg::default();
    let message = match reply {
        AppendEntriesResponse::Success => none,
        AppendEntriesResponse::PartialSuccess(last) => AppendReplyMsg {
            kind: 1,
            last: id_out(last.as_ref()),
            ..none
        },
        AppendEntriesResponse::Conflict => AppendReplyMsg { kind: 2, ..none },
        AppendEntriesResponse::HigherVote(vote) => AppendReplyMsg {
            kind: 3,
            vote: Some(vote.into()),
            ..none
        },
    };
    message.encode_to_vec().into()
}

pub(crate) fn decode_append_reply(body: Bytes) -> Result<AppendResponse, CodecError> {
    let message = AppendReplyMsg::decode(body)?;
    match message.kind {
        0 => Ok(AppendEntriesResponse::Success),
        1 => Ok(AppendEntriesResponse::PartialSuccess(id_in(message.last))),
        2 => Ok(AppendEntriesResponse::Conflict),
        3 => Ok(AppendEntriesResponse::HigherVote(vote_in(message.vote)?)),
        other => Err(CodecError::Value {
            what: "an append reply of kind",
            value: other.into(),
        }),
    }
}

pub(crate) fn encode_vote_request(request: &VoteRequest) -> Bytes {
    let message = VoteRequestMsg {
        vote: Some((&request.vote).into()),
        last: id_out(request.last_log_id.as_ref()),
        transfer: request.leadership_transfer,
    };
    message.encode_to_vec().into()
}

pub(crate) fn decode_vote_request(body: Bytes) -> Result<VoteRequest, CodecError> {
    let message = VoteRequestMsg::decode(body)?;
    let mut request = VoteRequest::new(vote_in(message.vote)?, id_in(message.last));
    request.leadership_transfer = message.transfer;
    Ok(request)
}

pub(crate) fn encode_vote_reply(reply: &VoteResponse) -> Bytes {
    let message = VoteReplyMsg {
        vote: Some((&reply.vote).into()),
        granted: reply.vote_granted,
        last: id_out(reply.last_log_id.as_ref()),
    };
    message.encode_to_vec().into()
}

pub(crate) fn decode_vote_reply(body: Bytes) -> Result<VoteResponse, CodecError> {
    let message = VoteReplyMsg::decode(body)?;
    Ok(VoteResponse::new(
        vote_in(message.vote)?,
        id_in(message.last),
        message.granted,
    ))
}

pub(crate) fn encode_transfer(request: &TransferRequest) -> Bytes {
    let message = TransferMsg {
        from: Some(request.from_leader().into()),
        to: *request.to_node_id(),
        last: id_out(request.last_log_id()),
    };
    message.encode_to_vec().into()
}

pub(crate) fn decode_transfer(body: Bytes) -> Result<TransferRequest, CodecError> {
    let message = TransferMsg::decode(body)?;
    Ok(TransferRequest::new(
        vote_in(message.from)?,
        message.to,
        id_in(message.last),
    ))
}

pub(crate) fn encode_transfer_reply(reply: &TransferResponse) -> Bytes {
    let none = TransferReplyMsg::default();
    let message = match reply {
        Ok(()) => none,
        Err(TransferLeaderError::VoteChanged { actual, .. }) => TransferReplyMsg {
            kind: 1,
            vote: Some(actual.into()),
            ..none
        },
        Err(TransferLeaderError::LogNotFlushed { actual, .. }) => TransferReplyMsg {
            kind: 2,
            last: id_out(actual.as_ref()),
            ..none
        },
    };
    message.encode_to_vec().into()
}

/// The answer to `request`.
pub(crate) fn decode_transfer_reply(
    request: &TransferRequest,
    body: Bytes,
) -> Result<TransferResponse, CodecError> {
    let message = TransferReplyMsg::decode(body)?;
    match message.kind {
        0 => Ok(Ok(())),
        1 => Ok(Err(TransferLeaderError::VoteChanged {
            expected: *request.from_leader(),
            actual: vote_in(message.vote)?,
        })),
        2 => Ok(Err(TransferLeaderError::LogNotFlushed {
            expected: request.last_log_id().cloned(),
            actual: id_in(message.last),
        })),
        other => Err(CodecError::Value {
            what: "a transfer reply of kind",
            value: other.into(),
        }),
    }
}

/// A checkpoint on its way to a lagging replica.
pub(crate) struct SnapshotBody {
    pub vote: Vote,
    pub raft_meta: Bytes,
    pub manifest: Bytes,
}

impl SnapshotBody {
    pub(crate) fn encode(self) -> Bytes {
        let Self {
            vote,
            raft_meta,
            manifest,
        } = self;
        SnapshotMsg {
            vote: Some((&vote).into()),
            raft_meta,
            manifest,
        }
        .encode_to_vec()
        .into()
    }
    pub(crate) fn decode(body: Bytes) -> Result<Self, CodecError> {
        let SnapshotMsg {
            vote,
            raft_meta,
            manifest,
        } = SnapshotMsg::decode(body)?;
        Ok(Self {
            vote: vote_in(vote)?,
            raft_meta,
            manifest,
        })
    }
}

pub(crate) fn encode_snapshot_reply(reply: &SnapshotResponse) -> Bytes {
    SnapshotReplyMsg {
        vote: Some((&reply.vote).into()),
    }
    .encode_to_vec()
    .into()
}

pub(crate) fn decode_snapshot_reply(body: Bytes) -> Result<SnapshotResponse, CodecError> {
    Ok(SnapshotResponse::new(vote_in(
        SnapshotReplyMsg::decode(body)?.vote,
    )?))
}

#[cfg(test)]
#[path = "codec_tests.rs"]
mod tests;
