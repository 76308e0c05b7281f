//! The one place where the broker's own verdicts and errors become wire types.

use highwater_env::Disk;
use highwater_proto::batch::BatchError;
use highwater_proto::v1::{BatchResult, Error, ErrorCode, LeaderHint, Outcome};
use highwater_proto::{Offset, TopicPartition};
use highwater_raft::{ReadError as BarrierError, RecoveryError};
use highwater_segment::ReadError;
use highwater_shard::{RejectReason, Verdict};

use crate::gate::Closed;
use crate::router::{Route, Router};
use crate::runtime::accumulate::ProduceOutcome;

/// An error with a sentence.
pub fn error(code: ErrorCode, message: impl Into<String>, leader: Option<LeaderHint>) -> Error {
    Error {
        code: code.into(),
        message: message.into(),
        leader,
    }
}

/// A batch that was certainly not written.
pub fn rejected(code: ErrorCode, message: impl Into<String>) -> BatchResult {
    rejected_with(error(code, message, None))
}

fn rejected_with(error: Error) -> BatchResult {
    BatchResult {
        outcome: Outcome::Rejected.into(),
        error: Some(error),
        log_append_time_ms: -1,
        ..BatchResult::default()
    }
}

/// A batch that may or may not have been written.
pub fn unknown(code: ErrorCode, message: impl Into<String>) -> BatchResult {
    BatchResult {
        outcome: Outcome::Unknown.into(),
        error: Some(error(code, message, None)),
        log_append_time_ms: -1,
        ..BatchResult::default()
    }
}

/// The gate admits nothing.
pub fn gate_closed(closed: Closed) -> BatchResult {
    match closed {
        Closed::StorageFull => rejected(
            ErrorCode::StorageFull,
            "this broker's free disk space is below storage.reserve_bytes; free space or shorten \
             retention",
        ),
        Closed::ShuttingDown => rejected(ErrorCode::ShuttingDown, "this broker is stopping"),
    }
}

/// A batch that does not hold together.
pub fn bad_batch(tp: TopicPartition, cause: &BatchError) -> BatchResult {
    let code = if matches!(cause, BatchError::TooLarge { .. }) {
        ErrorCode::BatchTooLarge
    } else {
        ErrorCode::CorruptBatch
    };
    rejected(code, format!("batch for {tp}: {cause}"))
}

/// A batch for a partition that is not led here.
pub fn unroutable<D: Disk>(
    router: &Router<D>,
    tp: TopicPartition,
    route: &Route<D>,
) -> BatchResult {
    rejected_with(route_error(router, tp, route))
}

/// Why a partition is not served here.
pub fn route_error<D: Disk>(router: &Router<D>, tp: TopicPartition, route: &Route<D>) -> Error {
    match route {
        Route::Here { .. } | Route::Elsewhere(_) => not_leader(router, tp),
        Route::NotReady => {
            let text = format!("topic {} is still being set up; try again", tp.topic);
            error(ErrorCode::TopicNotReady, text, None)
        }
        Route::UnknownTopic => error(
            ErrorCode::UnknownTopic,
            format!("no topic has the id {}", tp.topic),
            None,
        ),
        Route::DeletedTopic => deleted(tp),
        Route::UnknownPartition { partitions } => {
            let text = format!(
                "there is no partition {}: topic {} has partitions 0 to {}",
                tp.partition,
                tp.topic,
                partitions.saturating_sub(1)
            );
            error(ErrorCode::UnknownPartition, text, None)
        }
    }
}

/// The topic is gone for good.
pub fn deleted(tp: TopicPartition) -> Error {
    let text = format!(
        "topic {} was deleted; a topic made again under its name has another id",
        tp.topic
    );
    error(ErrorCode::TopicDeleted, text, None)
}

/// Another broker leads the partition, or nobody does right now.
pub fn not_leader<D: Disk>(router: &Router<D>, tp: TopicPartition) -> Error {
    match router.hint_for(tp) {
        Some(hint) => {
            let text = format!("broker {} leads {tp}", hint.broker_id);
            error(ErrorCode::NotLeader, text, Some(hint))
        }
        None => {
            let text = format!("{tp} has no leader right now; an election takes under two seconds");
            error(ErrorCode::LeaderUnavailable, text, None)
        }
    }
}

/// A replica of the partition was asked for, wherever it is led, and this broker has none.
pub fn no_replica<D: Disk>(router: &Router<D>, tp: TopicPartition) -> Error {
    let Error {
        message, leader, ..
    } = not_leader(router, tp);
    let text = format!("this broker has no replica of {tp}; {message}");
    error(ErrorCode::NotLeader, text, leader)
}

/// The partition is on its way to another shard, or is there and this broker has not heard of it yet.
pub fn moving(tp: TopicPartition) -> Error {
    let text = format!("{tp} is being moved to another shard; try again");
    error(ErrorCode::LeaderUnavailable, text, None)
}

/// The image knows the partition, the replica has not applied its creation yet.
pub fn not_here_yet(tp: TopicPartition) -> Error {
    let text = format!("{tp} is not yet on this replica; try again");
    error(ErrorCode::TopicNotReady, text, None)
}

/// The replica has just started and does not know yet what it had shown before.
pub fn not_recovered(tp: TopicPartition, cause: &RecoveryError) -> Error {
    error(
        ErrorCode::LeaderUnavailable,
        format!("{tp} is recovering: {cause}; try again"),
        None,
    )
}

/// An offset outside the log.
pub fn out_of_range(tp: TopicPartition, wanted: Offset, start: Offset, end: Offset) -> Error {
    let text = format!("offset {wanted} of {tp} is outside the log, which holds {start} to {end}");
    error(ErrorCode::OffsetOutOfRange, text, None)
}

/// A file could not be read.
pub fn read_error(tp: TopicPartition, cause: &ReadError, log_start: Offset) -> Error {
    if matches!(cause, ReadError::BelowStart { .. }) {
        let text = format!("{tp} begins at {log_start} now: {cause}");
        return error(ErrorCode::OffsetOutOfRange, text, None);
    }
    tracing::error!(partition = %tp, error = %cause, "a stored range cannot be read");
    error(
        ErrorCode::Damaged,
        format!("{tp}: {cause}; another replica may serve it"),
        None,
    )
}

/// This broker could not prove that it still leads.
pub fn barrier_error(tp: TopicPartition, cause: &BarrierError) -> Error {
    error(
        ErrorCode::LeaderUnavailable,
        format!("{tp}: this broker cannot make sure that it still leads ({cause}); try again"),
        None,
    )
}

/// What became of a batch that reached its shard.
pub fn outcome<D: Disk>(
    router: &Router<D>,
    tp: TopicPartition,
    outcome: ProduceOutcome,
) -> BatchResult {
    match outcome {
        ProduceOutcome::Decided(Verdict::Rejected(RejectReason::UnknownPartition))
            if router.is_deleted(tp) =>
        {
            rejected_with(deleted(tp))
        }
        // The router found it here, so it has left since.
        ProduceOutcome::Decided(Verdict::Rejected(
            RejectReason::UnknownPartition | RejectReason::Moving,
        )) => rejected_with(moving(tp)),
        ProduceOutcome::Decided(verdict) => decided(tp, verdict),
        ProduceOutcome::NotLeader { .. } => rejected_with(not_leader(router, tp)),
        ProduceOutcome::Busy => rejected(
            ErrorCode::Overloaded,
            format!("the shard of {tp} is busy; back off"),
        ),
        ProduceOutcome::Unknown(reason) => unknown(
            ErrorCode::LeadershipLost,
            format!(
                "{tp}: the outcome is not known ({reason}); retry with the same sequence, it is \
                 stored once"
            ),
        ),
    }
}

fn decided(tp: TopicPartition, verdict: Verdict) -> BatchResult {
    match verdict {
        Verdict::Appended {
            base_offset,
            log_start,
            append_time,
        } => BatchResult {
            outcome: Outcome::Acknowledged.into(),
            base_offset: base_offset.0,
            log_start_offset: log_start.0,
            log_append_time_ms: append_time.map_or(-1, |time| time.0),
            ..BatchResult::default()
        },
        Verdict::Duplicate { base_offset } => BatchResult {
            outcome: Outcome::Acknowledged.into(),
            base_offset: base_offset.0,
            duplicate: true,
            log_append_time_ms: -1,
            ..BatchResult::default()
        },
        // These sequences were appended before, most likely as this very batch: it is not written
        // now, but nobody may say that it never was.
        Verdict::Rejected(reason @ RejectReason::DuplicateSequence) => {
            unknown(reject_code(reason), format!("{tp}: {reason}"))
        }
        Verdict::Rejected(reason) => rejected(reject_code(reason), format!("{tp}: {reason}")),
    }
}

fn reject_code(reason: RejectReason) -> ErrorCode {
    match reason {
        RejectReason::UnknownPartition => ErrorCode::UnknownPartition,
        RejectReason::CorruptBatch => ErrorCode::CorruptBatch,
        RejectReason::OutOfOrderSequence => ErrorCode::OutOfOrderSequence,
        RejectReason::DuplicateSequence => ErrorCode::DuplicateSequence,
        RejectReason::ProducerFenced => ErrorCode::ProducerFenced,
        RejectReason::UnknownProducer => ErrorCode::UnknownProducer,
        RejectReason::Moving => ErrorCode::LeaderUnavailable,
    }
}
