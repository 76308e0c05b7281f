//! Lanes: one bidirectional gRPC stream per peer and kind carries the messages of all groups.
//!
//! Step 6b of the produce journey. The data lane carries appends and checkpoints; heartbeats and
//! votes have a lane of their own, on their own connection, so that bulk never delays them.

pub(crate) mod client;
mod connect;
pub(crate) mod service;
mod worker;

use std::time::Duration;

/// Metadata keys by which a caller says who it is.
pub(crate) const CLUSTER: &str = "highwater-cluster";
pub(crate) const NODE: &str = "highwater-node";
pub(crate) const INCARNATION: &str = "highwater-incarnation";
/// And the one under which the called side says what its wall clock shows, ms since the Unix epoch.
pub(crate) const CLOCK: &str = "highwater-clock-ms";

/// The largest message: a batch of 64 MiB, or an append that one such batch is part of.
pub(crate) const MAX_MESSAGE_BYTES: usize = 128 << 20;

/// Appends of one group on their way to one peer, and waiting there.
pub(crate) const PIPELINE: usize = 64;

/// What a lane is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum LaneKind {
    /// Appends and checkpoints.
    Data,
    /// Heartbeats, votes, transfers of leadership.
    Heartbeat,
}

impl LaneKind {
    fn name(self) -> &'static str {
        match self {
            Self::Data => "data",
            Self::Heartbeat => "heartbeat",
        }
    }
    /// A connection that has not answered a ping within this long after it was due is broken.
    fn keep_alive(self) -> (Duration, Duration) {
        match self {
            Self::Data => (Duration::from_secs(1), Duration::from_secs(2)),
            Self::Heartbeat => (Duration::from_millis(500), Duration::from_millis(500)),
        }
    }
}

/// A call over a lane has no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum LaneError {
    /// There is no connection, or it broke before the answer came.
    #[error("{0}")]
    Broken(String),
    /// No answer in time.
    #[error("no answer within {0:?}")]
    Deadline(Duration),
    /// The peer's group could not take the request.
    #[error("the peer says: {0}")]
    Refused(String),
}
