//! A log entry in the write-ahead log (an 18-byte head before the command's own bytes, which are
//! never copied) and on a lane.
#![deny(clippy::indexing_slicing)]

use bytes::{Buf, BufMut, Bytes, BytesMut};
use highwater_proto::{Payload, internal};
use openraft::EntryPayload;
use openraft::entry::RaftEntry as _;

use crate::codec::{CodecError, decode_membership, encode_membership};
use crate::types::{Command, Entry, log_id, term_of};

/// Format of the head; see FORMAT.md.
const VERSION: u8 = 1;
/// version u8, kind u8, term u64, index u64, big-endian.
pub(crate) const HEAD_LEN: usize = 18;

const BLANK: u8 = 0;
const DATA: u8 = 1;
const MEMBERSHIP: u8 = 2;

/// The entry's bytes behind the head, and what they are.
fn content(entry: &Entry) -> (u8, Payload) {
    match &entry.payload {
        EntryPayload::Blank => (BLANK, Payload::new()),
        EntryPayload::Normal(command) => (DATA, command.0.clone()),
        EntryPayload::Membership(members) => (MEMBERSHIP, encode_membership(members).into()),
    }
}

fn assemble(term: u64, index: u64, kind: u8, content: Payload) -> Result<Entry, CodecError> {
    let payload = match kind {
        BLANK => EntryPayload::Blank,
        DATA => EntryPayload::Normal(Command(content)),
        MEMBERSHIP => EntryPayload::Membership(decode_membership(content.to_contiguous())?),
        other => {
            return Err(CodecError::Value {
                what: "an entry of kind",
                value: other.into(),
            });
        }
    };
    Ok(Entry::new(log_id(term, index), payload))
}

/// Bytes an entry takes in the log.
pub(crate) fn stored_len(entry: &Entry) -> usize {
    HEAD_LEN
        + match &entry.payload {
            EntryPayload::Blank => 0,
            EntryPayload::Normal(command) => command.0.len(),
            // A few hundred bytes, and rare: near enough for a budget.
            EntryPayload::Membership(_) => 256,
        }
}

/// The entry as the log stores it; `heads` lends the space for the head.
pub(crate) fn to_stored(entry: &Entry, heads: &mut BytesMut) -> Payload {
    let (kind, content) = content(entry);
    heads.put_u8(VERSION);
    heads.put_u8(kind);
    heads.put_u64(term_of(&entry.log_id));
    heads.put_u64(entry.log_id.index());
    let mut payload = Payload::from(heads.split().freeze());
    content
        .parts()
        .iter()
        .for_each(|part| payload.push(part.clone()));
    payload
}

/// The entry that the log stores at `index`.
///
/// # Errors
/// When the bytes are not an entry, or one of another index.
pub(crate) fn from_stored(index: u64, mut bytes: Bytes) -> Result<Entry, CodecError> {
    if bytes.len() < HEAD_LEN {
        return Err(CodecError::Short(bytes.len()));
    }
    let version = bytes.get_u8();
    if version != VERSION {
        return Err(CodecError::Value {
            what: "an entry of version",
            value: version.into(),
        });
    }
    let (kind, term, own_index) = (bytes.get_u8(), bytes.get_u64(), bytes.get_u64());
    if own_index != index {
        return Err(CodecError::Value {
            what: "an entry with the index",
            value: own_index,
        });
    }
    assemble(term, index, kind, bytes.into())
}

/// The entry as a lane carries it.
pub(crate) fn to_lane(entry: &Entry) -> internal::RaftEntry {
    let (kind, content) = content(entry);
    internal::RaftEntry {
        term: term_of(&entry.log_id),
        // One leader per term: the term says it all.
        leader_node: 0,
        index: entry.log_id.index(),
        kind: kind.into(),
        parts: content.parts().to_vec(),
    }
}

/// The entry a lane carried.
///
/// # Errors
/// When its kind is not known or its membership cannot be read.
pub(crate) fn from_lane(entry: internal::RaftEntry) -> Result<Entry, CodecError> {
    let kind = u8::try_from(entry.kind).unwrap_or(u8::MAX);
    assemble(
        entry.term,
        entry.index,
        kind,
        entry.parts.into_iter().collect(),
    )
}

#[cfg(test)]
#[path = "entry_tests.rs"]
mod tests;
