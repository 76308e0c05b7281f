//! Step 1 of a fetched record: one stream of subscriptions to one broker. Before: the broker's
//! door. After: `reader`, with validated batches.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use highwater_proto::NodeId;
use highwater_proto::batch::{BatchError, RecordBatch, split_batches};
use highwater_proto::v1::{self, fetch_request, log_client::LogClient};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tracing::Instrument;

use super::part::{Request, Trouble};
use super::shared::Shared;
use crate::connect::Purpose;
use crate::error::{Cause, ErrorCode};

/// Messages to the broker ahead of the connection.
const QUEUED_REQUESTS: usize = 64;
/// Refusals in a row after which a partition that stands still is spoken of.
const STALLED_AFTER: u32 = 20;
/// The largest response that is accepted, in bytes: one batch of 64 MiB and its frame.
const MAX_RESPONSE_BYTES: usize = (64 << 20) + (1 << 16);

/// Reads from `node` for ever, reconnecting as needed.
pub(crate) async fn run(shared: Arc<Shared>, node: NodeId) {
    let mut failures: u32 = 0;
    loop {
        let mut kicks = shared.kick.subscribe();
        let mut changes = shared.cluster.changes();
        if !shared.read(|reader, _| reader.targets().contains(&node)) {
            if kicks.changed().await.is_err() {
                return;
            }
            continue;
        }
        let Some(address) = shared.cluster.address(node) else {
            if changes.changed().await.is_err() {
                return;
            }
            continue;
        };
        let span = tracing::debug_span!("fetch_stream", broker = node.0, address);
        let (worked, reason) = one_session(&shared, node, &address).instrument(span).await;
        failures = if worked {
            1
        } else {
            failures.saturating_add(1)
        };
        tracing::debug!(broker = node.0, address, %reason, "fetch stream ended");
        sleep(shared.cluster.pause(failures)).await;
    }
}

struct Session<'a> {
    shared: &'a Shared,
    id: u64,
}

impl Drop for Session<'_> {
    fn drop(&mut self) {
        self.shared
            .act(|reader, now| reader.session_lost(self.id, now));
    }
}

async fn one_session(shared: &Shared, node: NodeId, address: &str) -> (bool, Cause) {
    let channel = match shared.cluster.pool.channel(address, Purpose::Fetch) {
        Ok(channel) => channel,
        Err(reason) => return (false, Cause::Transport(reason)),
    };
    let (requests, receiver) = mpsc::channel(QUEUED_REQUESTS);
    let mut client = LogClient::new(channel).max_decoding_message_size(MAX_RESPONSE_BYTES);
    let limit = shared.cluster.timings.request_timeout;
    let responses = match timeout(limit, client.fetch(ReceiverStream::new(receiver))).await {
        Ok(Ok(response)) => response.into_inner(),
        Ok(Err(status)) => return (false, Cause::status(&status)),
        Err(_) => {
            shared.cluster.pool.forget(address, Purpose::Fetch);
            return (
                false,
                Cause::Deadline(format!("{address} did not open the stream")),
            );
        }
    };
    let session = Session {
        shared,
        id: shared.next_session(),
    };
    shared.act(|reader, _| reader.open_session(session.id, node));
    let reason = tokio::select! {
        () = pump(&session, requests) => Cause::Transport("the stream was closed".to_owned()),
        reason = read(&session, responses) => reason,
    };
    (true, reason)
}

/// Says what the reader wants said.
async fn pump(session: &Session<'_>, requests: mpsc::Sender<v1::FetchRequest>) {
    let shared = session.shared;
    let mut kicks = shared.kick.subscribe();
    loop {
        kicks.borrow_and_update();
        for request in shared.read(|reader, now| reader.requests(session.id, now)) {
            let request = v1::FetchRequest {
                request: Some(message(shared, request)),
            };
            if requests.send(request).await.is_err() {
                return;
            }
        }
        if kicks.changed().await.is_err() {
            return;
        }
    }
}

fn message(shared: &Shared, request: Request) -> fetch_request::Request {
    match request {
        Request::Subscribe { id, tp, offset } => fetch_request::Request::Subscribe(v1::Subscribe {
            subscription_id: id,
            topic_id: tp.topic.0,
            partition: tp.partition.0,
            offset,
            max_bytes: shared.config.max_fetch_bytes,
            allow_follower: shared.follower_allowed(tp),
        }),
        Request::Unsubscribe(id) => fetch_request::Request::Unsubscribe(id),
        Request::Credit(bytes) => fetch_request::Request::CreditBytes(bytes),
    }
}

/// Takes in data; the connection's keep-alive ends a stream whose broker is gone.
async fn read(session: &Session<'_>, mut responses: tonic::Streaming<v1::FetchResponse>) -> Cause {
    loop {
        match responses.message().await {
            Ok(Some(response)) => {
                if let Err(cause) = arrived(session, response) {
                    return cause;
                }
            }
            Ok(None) => return Cause::Transport("the broker ended the stream".to_owned()),
            Err(status) => return Cause::status(&status),
        }
    }
}

fn arrived(session: &Session<'_>, response: v1::FetchResponse) -> Result<(), Cause> {
    let shared = session.shared;
    let of = (session.id, response.subscription_id);
    if let Some(error) = &response.error
        && response.pieces.is_empty()
    {
        // Nothing has arrived: what counts failures goes on counting.
        ended(shared, of, error);
        return Ok(());
    }
    let bytes: usize = response.pieces.iter().map(Bytes::len).sum();
    let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
    let bounds = (response.high_watermark, response.log_start_offset);
    match whole_batches(response.pieces) {
        // The hot path: the keeper has nothing to do with it.
        Ok(batches) => {
            shared.read(|reader, _| reader.arrived(of, batches, bytes, bounds))?;
            shared.waker.wake();
        }
        Err(error) => {
            // Bad data ends the subscription as if the broker had said so; the bytes are used up.
            shared.act(|reader, _| reader.arrived(of, VecDeque::new(), bytes, bounds))?;
            let code = ErrorCode::CorruptBatch;
            let message = format!("fetched data is damaged: {error}");
            refuse(shared, of, code, Cause::Broker { code, message });
        }
    }
    if let Some(error) = &response.error {
        ended(shared, of, error);
    }
    Ok(())
}

/// The broker has ended a subscription.
fn ended(shared: &Shared, of: (u64, u32), error: &v1::Error) {
    let tp = shared.read(|reader, _| reader.partition_of(of));
    if let (Some(tp), Some(hint)) = (tp, &error.leader) {
        shared.cluster.hint(tp.topic, tp.partition, hint);
    }
    refuse(shared, of, error.code(), Cause::broker(error));
}

fn refuse(shared: &Shared, of: (u64, u32), code: ErrorCode, cause: Cause) {
    let said = cause.to_string();
    let trouble = shared.act(|reader, now| reader.refused(of, code, cause, now));
    if let Some((tp, trouble)) = trouble {
        tracing::debug!(partition = %tp, code = code.as_str_name(), ?trouble, "subscription ended");
        let failures = shared.read(|reader, _| reader.failures(tp));
        if failures > 0 && failures.is_multiple_of(STALLED_AFTER) {
            tracing::warn!(partition = %tp, failures, cause = said, "cannot be read; trying on");
        }
        if trouble == Trouble::Reset {
            shared.wants_reset(tp);
        }
    }
}

/// Validates what the pieces hold. A batch whose head is a piece of its own is joined with the
/// next piece: one copy, of what is then decoded in place.
fn whole_batches(pieces: Vec<Bytes>) -> Result<VecDeque<RecordBatch>, BatchError> {
    let region = match pieces.len() {
        1 => pieces.into_iter().next().unwrap_or_default(),
        _ => {
            let mut joined = BytesMut::with_capacity(pieces.iter().map(Bytes::len).sum());
            pieces
                .iter()
                .for_each(|piece| joined.extend_from_slice(piece));
            joined.freeze()
        }
    };
    split_batches(region).collect()
}
