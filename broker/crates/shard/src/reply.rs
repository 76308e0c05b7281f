//! What apply says of an entry, and its compact encoding. Replies travel between brokers; they are
//! never stored.
#![deny(clippy::indexing_slicing)]

use bytes::{Buf, BufMut, Bytes, BytesMut};
use highwater_proto::internal::GroupReply;
use highwater_proto::{Offset, TimestampMs};
use prost::Message;
use prost::encoding::{decode_varint, encode_varint};

use crate::groups::{self, GroupOutcome, GroupRefusal};

/// What became of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It has its place.
    Appended {
        /// Offset of its first record.
        base_offset: Offset,
        /// The first offset of the partition.
        log_start: Offset,
        /// The time that its records got, for a topic with LogAppendTime.
        append_time: Option<TimestampMs>,
    },
    /// It got its place earlier: this is where.
    Duplicate {
        /// Offset of its first record.
        base_offset: Offset,
    },
    /// It certainly was not appended.
    Rejected(RejectReason),
}

/// Why a batch was not appended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RejectReason {
    /// No such partition in this shard.
    #[error("the partition does not exist here")]
    UnknownPartition,
    /// The bytes are no batch that may be appended.
    #[error("the batch is damaged or of a kind that cannot be produced")]
    CorruptBatch,
    /// Not the sequence that is due.
    #[error("the sequence is not the next one; an earlier batch of this producer is missing")]
    OutOfOrderSequence,
    /// Older than what is remembered.
    #[error("the sequence is older than the last five batches; where it was stored is not known")]
    DuplicateSequence,
    /// A newer instance of the producer has written.
    #[error("a newer epoch of this producer has written; this one is fenced")]
    ProducerFenced,
    /// Nothing is known of the producer.
    #[error("nothing is remembered of this producer here, and its sequence is not zero")]
    UnknownProducer,
    /// The partition is on its way to another shard.
    #[error("the partition is being moved to another shard; try again")]
    Moving,
}

/// Why a command other than an append changed nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CommandRefusal {
    /// No such partition in this shard.
    #[error("the partition does not exist here")]
    UnknownPartition,
    /// It exists with another configuration.
    #[error("the partition exists with another configuration")]
    PartitionExists,
    /// It was deleted; ids are never used again.
    #[error("the partition was deleted")]
    PartitionDeleted,
    /// Above the end of the log.
    #[error("the offset is above the end of the log, {next_offset}")]
    OffsetOutOfRange {
        /// The offset that the next record gets.
        next_offset: Offset,
    },
    /// The partition's settings have changed since this was decided.
    #[error("the partition's settings have changed since")]
    OtherConfiguration,
    /// The partition is on its way from one shard to another.
    #[error("the partition is being moved to another shard; try again")]
    Moving,
    /// The partition here is not in the state that a step of this move needs.
    #[error("the partition here is not what this move is about")]
    OtherMove,
}

/// What apply says of an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ShardReply {
    /// A verdict for each batch, in their order.
    Append(Vec<Verdict>),
    /// Done, or done before.
    Done,
    /// Records below this offset are gone.
    Trimmed {
        /// The first offset of the partition.
        log_start: Offset,
    },
    /// Nothing changed.
    Refused(CommandRefusal),
    /// What became of a command to a group.
    Group(Result<GroupOutcome, GroupRefusal>),
    /// The entry is not a command; nothing changed.
    Malformed,
}

/// Bytes that are not a reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the shard's reply does not decode: {0}")]
pub struct ReplyError(&'static str);

const APPEND: u8 = 1;
const DONE: u8 = 2;
const TRIMMED: u8 = 3;
const REFUSED: u8 = 4;
const MALFORMED: u8 = 5;
const GROUP: u8 = 6;

const APPENDED: u8 = 1;
const APPENDED_AT: u8 = 2;
const DUPLICATE: u8 = 3;
/// A rejected batch is this plus the reason's number.
const REJECTED: u8 = 16;

const REASONS: [RejectReason; 7] = [
    RejectReason::UnknownPartition,
    RejectReason::CorruptBatch,
    RejectReason::OutOfOrderSequence,
    RejectReason::DuplicateSequence,
    RejectReason::ProducerFenced,
    RejectReason::UnknownProducer,
    RejectReason::Moving,
];

impl ShardReply {
    /// The reply as bytes.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::new();
        match self {
            Self::Append(verdicts) => {
                out.put_u8(APPEND);
                encode_varint(verdicts.len() as u64, &mut out);
                verdicts
                    .iter()
                    .for_each(|verdict| put_verdict(*verdict, &mut out));
            }
            Self::Done => out.put_u8(DONE),
            Self::Trimmed { log_start } => {
                out.put_u8(TRIMMED);
                encode_varint(log_start.0, &mut out);
            }
            Self::Refused(refusal) => {
                out.put_u8(REFUSED);
                put_refusal(*refusal, &mut out);
            }
            Self::Malformed => out.put_u8(MALFORMED),
            Self::Group(outcome) => {
                out.put_u8(GROUP);
                // Cannot fail: BytesMut grows.
                let _ = groups::reply::to_wire(outcome).encode(&mut out);
            }
        }
        out.freeze()
    }

    /// The reply of bytes.
    ///
    /// # Errors
    /// [`ReplyError`].
    pub fn decode(mut bytes: &[u8]) -> Result<Self, ReplyError> {
        let rest = &mut bytes;
        let reply = match take_u8(rest)? {
            APPEND => {
                let count = take_varint(rest)?;
                // A verdict takes at least a byte, so the bytes bound what is reserved.
                let mut verdicts = Vec::with_capacity(rest.len().min(count as usize));
                for _ in 0..count {
                    verdicts.push(take_verdict(rest)?);
                }
                Self::Append(verdicts)
            }
            DONE => Self::Done,
            TRIMMED => Self::Trimmed {
                log_start: Offset(take_varint(rest)?),
            },
            REFUSED => Self::Refused(take_refusal(rest)?),
            MALFORMED => Self::Malformed,
            GROUP => {
                let reply = GroupReply::decode(std::mem::take(rest));
                let reply = reply.map_err(|_| ReplyError("not a group's reply"))?;
                let outcome = groups::reply::from_wire(&reply);
                Self::Group(outcome.ok_or(ReplyError("unknown refusal of a group"))?)
            }
            _ => return Err(ReplyError("unknown kind")),
        };
        if rest.is_empty() {
            Ok(reply)
        } else {
            Err(ReplyError("bytes left over"))
        }
    }
}

fn put_verdict(verdict: Verdict, out: &mut BytesMut) {
    match verdict {
        Verdict::Appended {
            base_offset,
            log_start,
            append_time,
        } => {
            out.put_u8(if append_time.is_some() {
                APPENDED_AT
            } else {
                APPENDED
            });
            encode_varint(base_offset.0, out);
            encode_varint(log_start.0, out);
            if let Some(time) = append_time {
                out.put_i64(time.0);
            }
        }
        Verdict::Duplicate { base_offset } => {
            out.put_u8(DUPLICATE);
            encode_varint(base_offset.0, out);
        }
        Verdict::Rejected(reason) => out.put_u8(REJECTED + reason_number(reason)),
    }
}

fn take_verdict(rest: &mut &[u8]) -> Result<Verdict, ReplyError> {
    let kind = take_u8(rest)?;
    Ok(match kind {
        APPENDED | APPENDED_AT => Verdict::Appended {
            base_offset: Offset(take_varint(rest)?),
            log_start: Offset(take_varint(rest)?),
            append_time: if kind == APPENDED_AT {
                Some(take_time(rest)?)
            } else {
                None
            },
        },
        DUPLICATE => Verdict::Duplicate {
            base_offset: Offset(take_varint(rest)?),
        },
        _ => {
            let reason = kind
                .checked_sub(REJECTED)
                .and_then(|n| REASONS.get(usize::from(n)));
            Verdict::Rejected(*reason.ok_or(ReplyError("unknown verdict"))?)
        }
    })
}

const fn reason_number(reason: RejectReason) -> u8 {
    match reason {
        RejectReason::UnknownPartition => 0,
        RejectReason::CorruptBatch => 1,
        RejectReason::OutOfOrderSequence => 2,
        RejectReason::DuplicateSequence => 3,
        RejectReason::ProducerFenced => 4,
        RejectReason::UnknownProducer => 5,
        RejectReason::Moving => 6,
    }
}

fn put_refusal(refusal: CommandRefusal, out: &mut BytesMut) {
    match refusal {
        CommandRefusal::UnknownPartition => out.put_u8(0),
        CommandRefusal::PartitionExists => out.put_u8(1),
        CommandRefusal::PartitionDeleted => out.put_u8(2),
        CommandRefusal::OffsetOutOfRange { next_offset } => {
            out.put_u8(3);
            encode_varint(next_offset.0, out);
        }
        CommandRefusal::OtherConfiguration => out.put_u8(4),
        CommandRefusal::Moving => out.put_u8(5),
        CommandRefusal::OtherMove => out.put_u8(6),
    }
}

fn take_refusal(rest: &mut &[u8]) -> Result<CommandRefusal, ReplyError> {
    Ok(match take_u8(rest)? {
        0 => CommandRefusal::UnknownPartition,
        1 => CommandRefusal::PartitionExists,
        2 => CommandRefusal::PartitionDeleted,
        3 => CommandRefusal::OffsetOutOfRange {
            next_offset: Offset(take_varint(rest)?),
        },
        4 => CommandRefusal::OtherConfiguration,
        5 => CommandRefusal::Moving,
        6 => CommandRefusal::OtherMove,
        _ => return Err(ReplyError("unknown refusal")),
    })
}

fn take_u8(rest: &mut &[u8]) -> Result<u8, ReplyError> {
    let (first, others) = rest.split_first().ok_or(ReplyError("cut short"))?;
    *rest = others;
    Ok(*first)
}

fn take_varint(rest: &mut &[u8]) -> Result<u64, ReplyError> {
    decode_varint(rest).map_err(|_| ReplyError("bad number"))
}

fn take_time(rest: &mut &[u8]) -> Result<TimestampMs, ReplyError> {
    rest.try_get_i64()
        .map(TimestampMs)
        .map_err(|_| ReplyError("cut short"))
}

#[cfg(test)]
#[path = "reply_tests.rs"]
mod tests;
