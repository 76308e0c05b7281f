//! The called side of a lane, for one group: takes its requests in order and answers in order.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::future::{BoxFuture, FutureExt as _};
use futures_util::stream::FuturesOrdered;
use highwater_proto::NodeId;
use highwater_proto::internal::{RaftKind, RaftRequest, RaftResponse};
use tokio::sync::mpsc;
use tokio::task::coop::unconstrained;

use super::PIPELINE;
use crate::codec::{
    AppendHead, CodecError, SnapshotBody, decode_transfer, decode_vote_request,
    encode_append_reply, encode_snapshot_reply, encode_transfer_reply, encode_vote_reply,
};
use crate::entry::from_lane;
use crate::inbound::Inbound;
use crate::registry::Registry;
use crate::types::AppendRequest;

type Answer = BoxFuture<'static, Result<Bytes, String>>;

/// Carries out the requests of one group in the order they came, up to [`PIPELINE`] at once.
pub(super) async fn run(
    registry: Arc<Registry>,
    from: NodeId,
    mut requests: mpsc::Receiver<RaftRequest>,
    responses: mpsc::Sender<RaftResponse>,
) {
    let mut under_way = FuturesOrdered::new();
    let mut open = true;
    while open || !under_way.is_empty() {
        let response = tokio::select! {
            biased;
            Some(response) = under_way.next(), if !under_way.is_empty() => response,
            request = requests.recv(), if open && under_way.len() < PIPELINE => {
                match request {
                    Some(request) => under_way.push_back(begin(&registry, from, request)),
                    None => open = false,
                }
                continue;
            }
        };
        if responses.send(response).await.is_err() {
            // The lane is gone; what is under way is given up.
            return;
        }
    }
}

/// Starts a request: it has its place in the group's queue, if there is room, when this returns.
fn begin(
    registry: &Registry,
    from: NodeId,
    request: RaftRequest,
) -> BoxFuture<'static, RaftResponse> {
    let id = request.id;
    let mut answer = answer(registry, from, request);
    // Polled here so that appends queue up in the order they came; unconstrained, because a poll
    // cut short by tokio's budget would not have queued.
    let first = unconstrained(&mut answer).now_or_never();
    async move {
        let answered = match first {
            Some(answered) => answered,
            None => answer.await,
        };
        respond(id, answered)
    }
    .boxed()
}

/// The response to a request.
pub(super) fn respond(id: u64, answered: Result<Bytes, String>) -> RaftResponse {
    match answered {
        Ok(body) => RaftResponse {
            id,
            body,
            error: String::new(),
        },
        // An empty text would read as success.
        Err(error) if error.is_empty() => RaftResponse {
            id,
            error: "failed".to_owned(),
            ..Default::default()
        },
        Err(error) => RaftResponse {
            id,
            error,
            ..Default::default()
        },
    }
}

fn answer(registry: &Registry, from: NodeId, request: RaftRequest) -> Answer {
    let group = request.group;
    let Some(inbound) = registry.get(group) else {
        let error = format!("group {group} has not started here");
        return std::future::ready(Err(error)).boxed();
    };
    dispatch(inbound.as_ref(), from, request)
        .unwrap_or_else(|error| std::future::ready(Err(error.to_string())).boxed())
}

fn dispatch(
    inbound: &dyn Inbound,
    from: NodeId,
    request: RaftRequest,
) -> Result<Answer, CodecError> {
    let kind = RaftKind::try_from(request.kind).unwrap_or_default();
    Ok(match kind {
        RaftKind::Append => {
            let (request, everywhere) = append(request)?;
            let done = inbound.append(request, everywhere);
            async move { done.await.map(|reply| encode_append_reply(&reply)) }.boxed()
        }
        RaftKind::Vote => {
            let done = inbound.vote(decode_vote_request(request.body)?);
            async move { done.await.map(|reply| encode_vote_reply(&reply)) }.boxed()
        }
        RaftKind::PreVote => {
            let done = inbound.pre_vote(decode_vote_request(request.body)?);
            async move { done.await.map(|reply| encode_vote_reply(&reply)) }.boxed()
        }
        RaftKind::TransferLeader => {
            let done = inbound.transfer(decode_transfer(request.body)?);
            async move { done.await.map(|reply| encode_transfer_reply(&reply)) }.boxed()
        }
        RaftKind::Snapshot => {
            let done = inbound.snapshot(from, SnapshotBody::decode(request.body)?);
            async move { done.await.map(|reply| encode_snapshot_reply(&reply)) }.boxed()
        }
        RaftKind::CoalescedHeartbeat | RaftKind::Unspecified => {
            let value = u64::from(request.kind.unsigned_abs());
            return Err(CodecError::Value {
                what: "a request of kind",
                value,
            });
        }
    })
}

/// The request, and how many entries every member has.
fn append(request: RaftRequest) -> Result<(AppendRequest, u64), CodecError> {
    let AppendHead {
        vote,
        previous,
        committed,
        everywhere,
    } = AppendHead::decode(request.body)?;
    let count = request.entries.len() as u64;
    metrics::counter!("highwater_raft_append_entries_received_total").increment(count);
    let entries = request
        .entries
        .into_iter()
        .map(from_lane)
        .collect::<Result<Vec<_>, _>>()?;
    // The group takes consecutive entries for granted.
    let first = previous.map_or(0, |id| id.index() + 1);
    if let Some((_, odd)) = (first..)
        .zip(&entries)
        .find(|(at, e)| e.log_id.index() != *at)
    {
        let value = odd.log_id.index();
        return Err(CodecError::Value {
            what: "an entry out of order",
            value,
        });
    }
    let request = AppendRequest {
        vote,
        prev_log_id: previous,
        entries,
        leader_commit: committed,
    };
    Ok((request, everywhere))
}
