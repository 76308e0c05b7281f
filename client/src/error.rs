//! Errors: one enum per kind of operation. Every write error says whether it happened.

use highwater_proto::v1;
pub use highwater_proto::v1::ErrorCode;

/// Why an operation did not succeed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Cause {
    /// A broker answered with a stable error code.
    #[error("{message} ({})", .code.as_str_name())]
    Broker {
        /// The stable code.
        code: ErrorCode,
        /// One line for a person, as the broker wrote it.
        message: String,
    },
    /// The deadline passed.
    #[error("the deadline passed: {0}")]
    Deadline(String),
    /// The connection failed, or the call ended without an answer.
    #[error("connection: {0}")]
    Transport(String),
    /// The topic is not in the cluster.
    #[error("topic {0:?} does not exist")]
    UnknownTopic(String),
    /// The topic has no such partition.
    #[error("topic {topic:?} has partitions 0 to {}, not {partition}", .partitions.saturating_sub(1))]
    UnknownPartition {
        /// The topic.
        topic: String,
        /// The partition asked for.
        partition: u32,
        /// How many partitions the topic has.
        partitions: u32,
    },
    /// One record is larger than what can ever be sent.
    #[error("a record of {bytes} bytes is over the limit of {limit} bytes")]
    RecordTooLarge {
        /// The record's size in bytes, encoded.
        bytes: usize,
        /// The limit in bytes.
        limit: usize,
    },
    /// The producer, consumer or client was closed.
    #[error("closed")]
    Closed,
    /// The records could not be encoded.
    #[error("encoding: {0}")]
    Encoding(String),
}

impl Cause {
    /// The broker's code, when a broker answered.
    #[must_use]
    pub fn code(&self) -> Option<ErrorCode> {
        match self {
            Self::Broker { code, .. } => Some(*code),
            _ => None,
        }
    }

    pub(crate) fn broker(error: &v1::Error) -> Self {
        Self::Broker {
            code: error.code(),
            message: error.message.clone(),
        }
    }

    pub(crate) fn status(status: &tonic::Status) -> Self {
        Self::Transport(format!("{:?}: {}", status.code(), status.message()))
    }
}

/// A record was not acknowledged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// Certainly not written, and never will be.
    #[error("rejected: {0}")]
    Rejected(Cause),
    /// May or may not be written. Sending the record again as a new one may store it twice.
    #[error("outcome unknown: {0}")]
    Unknown(Cause),
}

impl SendError {
    /// Why.
    #[must_use]
    pub fn cause(&self) -> &Cause {
        match self {
            Self::Rejected(cause) | Self::Unknown(cause) => cause,
        }
    }
    /// Whether the record may be in the log.
    #[must_use]
    pub fn may_be_written(&self) -> bool {
        matches!(self, Self::Unknown(_))
    }
}

/// An administrative call did not succeed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AdminError {
    /// Certainly not done.
    #[error("{0}")]
    Rejected(Cause),
    /// May or may not have been done: look before you try again.
    #[error("outcome unknown: {0}")]
    Unknown(Cause),
}

impl AdminError {
    /// Why.
    #[must_use]
    pub fn cause(&self) -> &Cause {
        match self {
            Self::Rejected(cause) | Self::Unknown(cause) => cause,
        }
    }
}

/// Offsets could not be looked up.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("offsets of {topic:?}: {cause}")]
pub struct OffsetsError {
    /// The topic asked about.
    pub topic: String,
    /// Why.
    pub cause: Cause,
}

/// Records could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConsumeError {
    /// One partition cannot be read on; the others go on. It stands still until a seek.
    #[error("{topic}-{partition} at offset {offset}: {cause}")]
    Partition {
        /// The topic.
        topic: String,
        /// The partition.
        partition: u32,
        /// The offset that was wanted next.
        offset: u64,
        /// Why.
        cause: Cause,
    },
    /// The assignment or the start position could not be resolved.
    #[error(transparent)]
    Offsets(#[from] OffsetsError),
    /// The partition is not assigned to this consumer.
    #[error("{topic}-{partition} is not assigned")]
    NotAssigned {
        /// The topic.
        topic: String,
        /// The partition.
        partition: u32,
    },
}

/// No connection to the cluster.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConnectError {
    /// The connection string is wrong.
    #[error("connection string: {0}")]
    ConnectionString(String),
    /// None of the brokers answered before the deadline.
    #[error("none of {} answered within {seconds} s; last: {last}", .brokers.join(", "))]
    NoBroker {
        /// The addresses that were tried.
        brokers: Vec<String>,
        /// How long, in seconds.
        seconds: u64,
        /// What went wrong last.
        last: String,
    },
}

/// What a broker's code means for a write that it answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CodeClass {
    /// Certainly not written; the same request may succeed later or elsewhere.
    Retriable,
    /// Nobody knows.
    Unknown,
    /// Certainly not written, and never will be as it is.
    Fatal,
}

pub(crate) fn classify(code: ErrorCode) -> CodeClass {
    use ErrorCode as E;
    match code {
        E::NotLeader
        | E::LeaderUnavailable
        | E::Overloaded
        | E::StorageFull
        | E::ShuttingDown
        | E::TopicNotReady
        | E::ClusterNotReady
        // A broker may learn of a new topic a moment after the one that told us.
        | E::UnknownTopic
        | E::UnknownPartition => CodeClass::Retriable,
        E::TimedOut | E::LeadershipLost | E::Internal | E::Unspecified => CodeClass::Unknown,
        _ => CodeClass::Fatal,
    }
}
