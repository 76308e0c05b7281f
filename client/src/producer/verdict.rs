//! The words of the producer's state machine: attempts, verdicts of brokers, outcomes of batches.

use std::time::Duration;

use highwater_proto::{Offset, TimestampMs, TopicPartition};

use crate::error::{Cause, CodeClass, ErrorCode, classify};

/// What a verdict other than an acknowledgement means for sending again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RefusalKind {
    /// Certainly not written by this attempt; may succeed again.
    Retriable,
    /// This attempt may be written.
    Unknown,
    /// Certainly not written by this attempt: an earlier number is missing at the broker.
    Gap,
    /// Certainly not written by this attempt, and no attempt can succeed.
    Fatal,
    /// Not written by this attempt, because its numbers were used before: whether for this very
    /// batch, the broker no longer knows.
    Past,
}

/// What is collected into batches.
pub(crate) trait Item: Sized {
    /// What is needed to encode a batch, shared with the sender.
    type Wire: Clone;
    /// Makes it when the batch is closed.
    fn wire(items: &mut [Self]) -> Self::Wire;
}

/// Whose numbers a batch carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Identity {
    pub id: u64,
    pub epoch: u16,
}

impl Identity {
    /// Kafka's batch header holds 15 bits of it.
    pub(crate) const LAST_EPOCH: u16 = 0x7fff;

    /// A fresh id.
    pub(crate) fn new(id: u64) -> Self {
        Self { id, epoch: 0 }
    }

    /// The same id in its next epoch; `None` when there is none left.
    pub(crate) fn with_next_epoch(self) -> Option<Self> {
        (self.epoch < Self::LAST_EPOCH).then_some(Self {
            epoch: self.epoch + 1,
            ..self
        })
    }
}

/// Why a batch was not acknowledged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub kind: RefusalKind,
    pub cause: Cause,
}

impl Refusal {
    pub(crate) fn deadline() -> Self {
        let cause = Cause::Deadline("no broker acknowledged the record in time".to_owned());
        Self {
            kind: RefusalKind::Unknown,
            cause,
        }
    }
    /// What a broker's error means. `certain` says that the broker called the batch rejected.
    pub(crate) fn of_code(code: ErrorCode, certain: bool, cause: Cause) -> Self {
        let kind = match code {
            ErrorCode::DuplicateSequence => RefusalKind::Past,
            _ if !certain => RefusalKind::Unknown,
            ErrorCode::OutOfOrderSequence | ErrorCode::UnknownProducer => RefusalKind::Gap,
            _ => match classify(code) {
                CodeClass::Retriable => RefusalKind::Retriable,
                CodeClass::Fatal => RefusalKind::Fatal,
                // "Rejected" outweighs a code that alone would leave it open.
                CodeClass::Unknown => RefusalKind::Retriable,
            },
        };
        Self { kind, cause }
    }
    pub(super) fn fences(&self) -> bool {
        self.cause.code() == Some(ErrorCode::ProducerFenced)
    }
}

/// A batch's end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    Acknowledged {
        base_offset: Offset,
        append_time: Option<TimestampMs>,
        duplicate: bool,
    },
    Rejected(Refusal),
    Unknown(Refusal),
}

/// A broker's answer to one attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    Acknowledged {
        base_offset: Offset,
        append_time: Option<TimestampMs>,
        duplicate: bool,
    },
    Refused(Refusal),
}

/// Names one attempt to send one batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct AttemptId {
    pub tp: TopicPartition,
    pub batch: u64,
    pub attempt: u64,
}

/// A batch to be encoded and sent.
#[derive(Debug, Clone)]
pub(crate) struct Outgoing<W> {
    pub attempt: AttemptId,
    pub identity: Identity,
    pub sequence: u32,
    pub wire: W,
    pub bytes: usize,
    /// When its outcome is due, since the producer started.
    pub deadline: Duration,
}
