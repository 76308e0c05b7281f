//! Step 1 of a produced record: one ordered stream of batches to one broker. Before: `machine`.
//! After: the broker's door, or `machine` again with the verdict.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use highwater_proto::v1::{self, log_client::LogClient};
use highwater_proto::{NodeId, Offset, TimestampMs};
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tracing::Instrument;

use super::machine::{AttemptId, Outgoing, Refusal, RefusalKind, Verdict};
use super::shared::Shared;
use crate::connect::Purpose;
use crate::error::Cause;

type Ready = Outgoing<Arc<super::encode::Encodable>>;

/// Requests encoded ahead of the connection.
const QUEUED_REQUESTS: usize = 2;

/// Sends to `node` for ever, reconnecting as needed. Dropping it gives back what was sent.
pub(crate) async fn run(shared: Arc<Shared>, node: NodeId) {
    let mut failures: u32 = 0;
    loop {
        let Some(address) = shared.cluster.address(node) else {
            let mut changes = shared.cluster.changes();
            if shared.cluster.address(node).is_none() && changes.changed().await.is_err() {
                return;
            }
            continue;
        };
        let span = tracing::debug_span!("produce_stream", broker = node.0, address);
        let ended = one_session(&shared, node, &address).instrument(span).await;
        failures = if ended.worked {
            1
        } else {
            failures.saturating_add(1)
        };
        tracing::debug!(broker = node.0, address, reason = %ended.reason, "produce stream ended");
        sleep(shared.cluster.pause(failures)).await;
    }
}

struct Ended {
    worked: bool,
    reason: Cause,
}

struct SentRequest {
    at: Instant,
    attempts: Vec<AttemptId>,
}

/// Gives the session's batches back, however the session ends.
struct Session<'a> {
    shared: &'a Shared,
    node: NodeId,
    id: u64,
    sent: Mutex<BTreeMap<u64, SentRequest>>,
}

impl Drop for Session<'_> {
    fn drop(&mut self) {
        self.shared
            .act(|machine, now| machine.session_lost(self.id, now));
    }
}

async fn one_session(shared: &Shared, node: NodeId, address: &str) -> Ended {
    let failed = |reason: Cause| Ended {
        worked: false,
        reason,
    };
    let channel = match shared.cluster.pool.channel(address, Purpose::Produce) {
        Ok(channel) => channel,
        Err(reason) => return failed(Cause::Transport(reason)),
    };
    let (requests, receiver) = mpsc::channel(QUEUED_REQUESTS);
    let mut client = LogClient::new(channel);
    let limit = shared.cluster.timings.request_timeout;
    // Nothing is handed over before the stream stands, so that a broker that cannot be reached
    // leaves no batch in doubt.
    let opened = timeout(limit, client.produce(ReceiverStream::new(receiver))).await;
    let responses = match opened {
        Ok(Ok(response)) => response.into_inner(),
        Ok(Err(status)) => return failed(Cause::status(&status)),
        Err(_) => {
            shared.cluster.pool.forget(address, Purpose::Produce);
            return failed(Cause::Deadline(format!(
                "{address} did not open the stream"
            )));
        }
    };
    let session = Session {
        shared,
        node,
        id: shared.next_session(),
        sent: Mutex::default(),
    };
    let reason = tokio::select! {
        () = pump(&session, requests) => Cause::Transport("the stream was closed".to_owned()),
        reason = read(&session, responses, limit) => reason,
    };
    if matches!(reason, Cause::Deadline(_)) {
        shared.cluster.pool.forget(address, Purpose::Produce);
    }
    Ended {
        worked: true,
        reason,
    }
}

/// Sends whatever the machine has for this broker, as fast as the connection takes it.
async fn pump(session: &Session<'_>, requests: mpsc::Sender<v1::ProduceRequest>) {
    let shared = session.shared;
    let mut kicks = shared.kick.subscribe();
    let mut correlation_id = 0;
    loop {
        // Room first, batches second: what is not taken yet can still grow, and stays certain.
        let Ok(room) = requests.reserve().await else {
            return;
        };
        kicks.borrow_and_update();
        let ready = take(session);
        if ready.is_empty() {
            if kicks.changed().await.is_err() {
                return;
            }
            continue;
        }
        correlation_id += 1;
        let (request, attempts) = encode(shared, correlation_id, ready);
        if !request.batches.is_empty() {
            let sent = SentRequest {
                at: Instant::now(),
                attempts,
            };
            session.sent.lock().insert(correlation_id, sent);
            room.send(request);
        }
    }
}

fn take(session: &Session<'_>) -> Vec<Ready> {
    let limit = session.shared.config.max_request_bytes;
    session.shared.quietly(|machine, now| {
        let mut ready: Vec<Ready> = Vec::new();
        let mut bytes = 0;
        while bytes < limit
            && let Some(outgoing) = machine.take(session.node, session.id, now)
        {
            bytes += outgoing.bytes;
            ready.push(outgoing);
        }
        ready
    })
}

fn encode(
    shared: &Shared,
    correlation_id: u64,
    ready: Vec<Ready>,
) -> (v1::ProduceRequest, Vec<AttemptId>) {
    let mut request = v1::ProduceRequest {
        correlation_id,
        timeout_ms: 0,
        batches: Vec::new(),
    };
    let mut attempts = Vec::with_capacity(ready.len());
    let mut patience = shared.cluster.timings.request_timeout;
    for outgoing in ready {
        let (of, tp) = (outgoing.attempt, outgoing.attempt.tp);
        match outgoing.wire.encode(
            shared.config.compression,
            outgoing.identity,
            outgoing.sequence,
        ) {
            Ok(batch) => {
                patience = patience.min(outgoing.deadline.saturating_sub(shared.now()));
                attempts.push(of);
                let (topic_id, partition) = (tp.topic.0, tp.partition.0);
                request.batches.push(v1::PartitionBatch {
                    topic_id,
                    partition,
                    batch,
                });
            }
            Err(cause) => {
                let refusal = Refusal {
                    kind: RefusalKind::Fatal,
                    cause,
                };
                shared.act(|machine, now| machine.answered(of, Verdict::Refused(refusal), now));
            }
        }
    }
    request.timeout_ms = u32::try_from(patience.as_millis())
        .unwrap_or(u32::MAX)
        .max(1);
    (request, attempts)
}

/// Takes in verdicts; ends when the stream does, or when a request stays unanswered.
async fn read(
    session: &Session<'_>,
    mut responses: tonic::Streaming<v1::ProduceResponse>,
    limit: Duration,
) -> Cause {
    loop {
        match timeout(limit / 4, responses.message()).await {
            Ok(Ok(Some(response))) => answered(session, response),
            Ok(Ok(None)) => return Cause::Transport("the broker ended the stream".to_owned()),
            Ok(Err(status)) => return Cause::status(&status),
            Err(_) => {
                let oldest = session.sent.lock().values().map(|sent| sent.at).min();
                // The broker answers within the limit, if only with "unknown".
                if oldest.is_some_and(|at| at.elapsed() > limit + limit / 4) {
                    return Cause::Deadline("a request stayed without an answer".to_owned());
                }
            }
        }
    }
}

fn answered(session: &Session<'_>, response: v1::ProduceResponse) {
    let Some(sent) = session.sent.lock().remove(&response.correlation_id) else {
        return;
    };
    let shared = session.shared;
    let mut results = response.results.into_iter();
    let verdicts: Vec<_> = sent
        .attempts
        .iter()
        .map(|&of| (of, verdict(shared, of, results.next())))
        .collect();
    shared.act(|machine, now| {
        for (of, verdict) in verdicts {
            machine.answered(of, verdict, now);
        }
    });
}

fn verdict(shared: &Shared, of: AttemptId, result: Option<v1::BatchResult>) -> Verdict {
    let Some(result) = result else {
        let cause = Cause::Transport("the broker left out a result".to_owned());
        return Verdict::Refused(Refusal {
            kind: RefusalKind::Unknown,
            cause,
        });
    };
    let outcome = result.outcome();
    if outcome == v1::Outcome::Acknowledged {
        let time = result.log_append_time_ms;
        return Verdict::Acknowledged {
            base_offset: Offset(result.base_offset),
            append_time: (time > 0).then_some(TimestampMs(time)),
            duplicate: result.duplicate,
        };
    }
    let error = result.error.unwrap_or_default();
    if let Some(hint) = &error.leader {
        shared.cluster.hint(of.tp.topic, of.tp.partition, hint);
    }
    let certain = outcome == v1::Outcome::Rejected;
    tracing::debug!(partition = %of.tp, code = error.code().as_str_name(), certain, "refused");
    Verdict::Refused(Refusal::of_code(
        error.code(),
        certain,
        Cause::broker(&error),
    ))
}
