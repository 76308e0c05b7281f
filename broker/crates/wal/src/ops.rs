//! What callers ask of the log: groups, positions and operations.

use std::fmt;

use bytes::Bytes;
use highwater_proto::Payload;

use crate::WalError;

/// One user of the log: a shard, or the metadata group. Groups are independent of one another.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupId(pub u32);

/// The place of an entry in its group's log.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LogIndex(pub u64);

impl LogIndex {
    /// The place behind this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl fmt::Display for GroupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for LogIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One change of a group.
#[derive(Debug, Clone)]
pub enum Op {
    /// Adds an entry. `index` follows the last entry; with no entry it follows the purge point;
    /// with neither it may be anything.
    Append {
        /// Its place.
        index: LogIndex,
        /// Opaque bytes, never copied on their way to the disk.
        payload: Payload,
    },
    /// Removes the entries from `from` on.
    Truncate {
        /// The first that goes.
        from: LogIndex,
    },
    /// Removes the entries up to and including `upto`, which may lie above the last entry. A purge
    /// point below the present one changes nothing.
    Purge {
        /// The last that goes.
        upto: LogIndex,
        /// Opaque bytes that come back with the purge point on recovery.
        meta: Bytes,
    },
    /// Keeps `value` as the only value of `slot` (a vote, a committed position).
    SetState {
        /// Which value.
        slot: u8,
        /// Opaque bytes.
        value: Bytes,
    },
    /// Removes the group with everything it has.
    Forget,
}

impl Op {
    /// Bytes of payload that the operation carries.
    #[must_use]
    pub(crate) fn payload_len(&self) -> usize {
        match self {
            Self::Append { payload, .. } => payload.len(),
            Self::Purge { meta, .. } => meta.len(),
            Self::SetState { value, .. } => value.len(),
            Self::Truncate { .. } | Self::Forget => 0,
        }
    }
}

/// Called exactly once, on the writer, when the operations are durable or have failed. It must
/// not block: every later flush waits for it.
pub type Done = Box<dyn FnOnce(Result<(), WalError>) + Send>;
