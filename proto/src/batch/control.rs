//! Markers: what the key of a record in a control batch says.
#![deny(clippy::indexing_slicing)]

use bytes::Buf;

/// The meaning of a control record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ControlKind {
    /// The producer's open transaction was aborted.
    Abort,
    /// The producer's open transaction was committed.
    Commit,
    /// A kind that readers must skip.
    Other(i16),
}

impl ControlKind {
    /// Reads the key of a control record: its version, then its kind. `None` when it is too short
    /// or has a negative version.
    #[must_use]
    pub fn from_key(mut key: &[u8]) -> Option<Self> {
        let version = key.try_get_i16().ok()?;
        let kind = key.try_get_i16().ok()?;
        let known = match kind {
            0 => Self::Abort,
            1 => Self::Commit,
            other => Self::Other(other),
        };
        (version >= 0).then_some(known)
    }
}
