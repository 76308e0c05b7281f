//! Step 1 of a produced record, before gate/: gRPC bytes become protocol-neutral requests, and the
//! outcome becomes a reply (step 8).
//!
//! A stream is a pipeline: requests are handed on in the order read, replies leave as they come.
//! While the gate has no permits the stream is not read, and the transport pushes back.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use highwater_env::Env;
use highwater_mutant::mutant;
use highwater_proto::batch::RecordBatch;
use highwater_proto::v1::{
    BatchResult, ErrorCode, PartitionBatch, ProduceRequest, ProduceResponse,
};
use highwater_proto::{PartitionId, TimestampMs, TopicId, TopicPartition};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tonic::{Status, Streaming};

use super::{convert, keyed};
use crate::node::Broker;
use crate::router::Route;
use crate::runtime::accumulate::{ProduceOutcome, Produced};

/// Requests of one stream between receipt and reply.
const REQUESTS_IN_FLIGHT: usize = 1024;
/// Of these, how many were handed in and are not looked at yet.
const HANDED_IN: usize = 16;
/// When a request names no deadline.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);

/// Serves one produce stream until its client closes it or goes away, or the broker leaves. Replies leave
/// also while a request waits at the gate.
pub async fn serve<E: Env>(
    broker: Arc<Broker<E>>,
    mut requests: Streaming<ProduceRequest>,
    replies: mpsc::Sender<Result<ProduceResponse, Status>>,
) {
    let (handed_in, begun) = mpsc::channel(HANDED_IN);
    let read = async move {
        let leaving = broker.leaving.cancelled();
        tokio::pin!(leaving);
        // What was taken is appended and answered also when the stream breaks after it.
        loop {
            let message = tokio::select! {
                // The token is looked at only where there is nothing to read: all streams share its lock.
                biased;
                message = requests.message() => message,
                () = &mut leaving => return,
            };
            let Ok(Some(request)) = message else {
                return;
            };
            let request = begin(&broker, request).await;
            if handed_in.send(request).await.is_err() {
                return; // nobody listens to replies any more
            }
        }
    };
    tokio::join!(read, answer(begun, replies));
}

/// Sends the reply of each request when it is there, until the requests or their client have gone.
async fn answer<E: Env>(
    mut begun: mpsc::Receiver<BegunOn<E>>,
    replies: mpsc::Sender<Result<ProduceResponse, Status>>,
) {
    let mut in_flight = FuturesUnordered::new();
    let mut open = true;
    while open || !in_flight.is_empty() {
        tokio::select! {
            request = begun.recv(), if open && in_flight.len() < REQUESTS_IN_FLIGHT => {
                match request {
                    Some(request) => in_flight.push(request.finish()),
                    None => open = false,
                }
            }
            Some(reply) = in_flight.next(), if !in_flight.is_empty() => {
                if replies.send(Ok(reply)).await.is_err() {
                    return;
                }
            }
        }
    }
}

/// A request whose batches are all decided or on their way.
struct Begun {
    correlation_id: u64,
    deadline: Instant,
    slots: Vec<Slot>,
}

/// One batch: decided before the log, or waiting for its verdict.
pub(super) enum Slot {
    Decided(BatchResult),
    Waiting(oneshot::Receiver<ProduceOutcome>, TopicPartition),
}

async fn begin<E: Env>(broker: &Arc<Broker<E>>, request: ProduceRequest) -> BegunOn<E> {
    let deadline = deadline(request.timeout_ms);
    let mut slots = Vec::with_capacity(request.batches.len());
    for batch in request.batches {
        slots.push(hand_in(broker, batch, deadline).await);
    }
    let begun = Begun {
        correlation_id: request.correlation_id,
        deadline,
        slots,
    };
    BegunOn {
        begun,
        broker: Arc::clone(broker),
    }
}

struct BegunOn<E: Env> {
    begun: Begun,
    broker: Arc<Broker<E>>,
}

impl<E: Env> BegunOn<E> {
    async fn finish(self) -> ProduceResponse {
        let Begun {
            correlation_id,
            deadline,
            slots,
        } = self.begun;
        let mut results = Vec::with_capacity(slots.len());
        for slot in slots {
            results.push(settle(&self.broker, slot, deadline).await);
        }
        ProduceResponse {
            correlation_id,
            results,
        }
    }
}

/// The moment after which a request without a verdict is answered unknown.
pub(super) fn deadline(timeout_ms: u32) -> Instant {
    let timeout = match timeout_ms {
        0 => DEFAULT_TIMEOUT,
        ms => Duration::from_millis(u64::from(ms)),
    };
    Instant::now() + timeout
}

/// Takes a batch through gate and router into its shard's accumulator, or rejects it.
pub(super) async fn hand_in<E: Env>(
    broker: &Broker<E>,
    batch: PartitionBatch,
    deadline: Instant,
) -> Slot {
    match try_hand_in(broker, batch, deadline).await {
        Ok(slot) => slot,
        Err(rejection) => Slot::Decided(rejection),
    }
}

async fn try_hand_in<E: Env>(
    broker: &Broker<E>,
    request: PartitionBatch,
    deadline: Instant,
) -> Result<Slot, BatchResult> {
    let tp = TopicPartition::new(TopicId(request.topic_id), PartitionId(request.partition));
    let admission = broker.gate.admit(request.batch.len());
    let admitted = match tokio::time::timeout_at(deadline, admission).await {
        Ok(Ok(admitted)) => admitted,
        Ok(Err(closed)) => return Err(convert::gate_closed(closed)),
        Err(_elapsed) => {
            let text = "the broker had no room for this batch before its deadline; back off";
            return Err(convert::rejected(ErrorCode::Overloaded, text));
        }
    };
    let (shard, topic) = match broker.router.route(tp) {
        Route::Here { shard, topic } => (shard, topic),
        other => return Err(convert::unroutable(&broker.router, tp, &other)),
    };
    let limits = topic.write_limits();
    let batch = RecordBatch::validate(request.batch, limits.max_message_bytes)
        .map_err(|error| convert::bad_batch(tp, &error))?;
    let attributes = batch.header().attributes;
    if attributes.is_control() || attributes.is_transactional() {
        let text = "control and transactional batches cannot be produced";
        return Err(convert::rejected(ErrorCode::Unsupported, text));
    }
    if limits.keyed {
        let keyed = tokio::time::timeout_at(deadline, keyed::check(tp, &batch)).await;
        let late = "the broker had no time to look at this batch before its deadline; back off";
        keyed.unwrap_or_else(|_elapsed| Err(convert::rejected(ErrorCode::Overloaded, late)))?;
    }
    let append_time = TimestampMs(broker.append_time_ms());
    let batch = if limits.log_append_time {
        batch.with_log_append_time(append_time)
    } else {
        batch
    };
    mutant!(ReadAboveHighWatermark => {
        if let Some(view) = shard.views.get(tp) {
            view.show_early(&batch, append_time);
        }
    });
    let (reply, verdict) = oneshot::channel();
    let batch = batch.bytes().clone();
    let produced = Produced {
        tp,
        append_time,
        batch,
        admitted,
        reply,
    };
    match shard.accumulator.push(produced).await {
        Ok(()) => Ok(Slot::Waiting(verdict, tp)),
        Err(_stopped) => Err(convert::rejected(
            ErrorCode::LeaderUnavailable,
            "the shard has stopped here",
        )),
    }
}

/// Waits for the outcome of a batch, at the latest until `deadline`.
pub(super) async fn settle<E: Env>(
    broker: &Broker<E>,
    slot: Slot,
    deadline: Instant,
) -> BatchResult {
    let (verdict, tp) = match slot {
        Slot::Decided(result) => return result,
        Slot::Waiting(verdict, tp) => (verdict, tp),
    };
    match tokio::time::timeout_at(deadline, verdict).await {
        Ok(Ok(outcome)) => convert::outcome(&broker.router, tp, outcome),
        Ok(Err(_dropped)) => convert::unknown(
            ErrorCode::Internal,
            "the broker stopped before the outcome was known",
        ),
        Err(_elapsed) => convert::unknown(
            ErrorCode::TimedOut,
            "no verdict before the deadline; retry with the same sequence",
        ),
    }
}
