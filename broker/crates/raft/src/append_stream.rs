//! Appends of one group to one peer, pipelined: requests go out without waiting for answers, up to
//! a bound in number and bytes; answers come in the order of the requests.

use std::collections::VecDeque;

use futures_util::stream::{self, BoxStream};
use futures_util::{Stream, StreamExt as _};
use highwater_mutant::mutant;
use highwater_proto::internal::{RaftKind, RaftRequest};
use openraft::network::RPCTypes;
use openraft::raft::{AppendEntriesResponse, StreamAppendResult};
use tokio::time::Instant;

use crate::codec::{AppendHead, CodecError, decode_append_reply};
use crate::entry::{stored_len, to_lane};
use crate::lane::client::{Answer, received};
use crate::lane::{LaneError, PIPELINE};
use crate::network::{Peer, RpcError, garbled};
use crate::types::{AppendRequest, LogId, TypeConfig};

/// Requests under way; half of what the peer queues, so that a request that was given up and sent
/// again still finds room there.
const MAX_REQUESTS: usize = PIPELINE / 2;
/// Bytes of entries under way. One request may be larger.
const MAX_BYTES: usize = 8 << 20;

type Outcome = Result<StreamAppendResult<TypeConfig>, RpcError>;

/// The request as a lane carries it.
pub(crate) fn encode(peer: &Peer, request: AppendRequest) -> RaftRequest {
    let head = AppendHead {
        vote: request.vote,
        previous: request.prev_log_id,
        committed: request.leader_commit,
        everywhere: peer.everywhere(),
    };
    let mut encoded = peer.request(RaftKind::Append, head.encode());
    encoded.entries = request.entries.iter().map(to_lane).collect();
    encoded
}

struct UnderWay {
    answer: Answer,
    bytes: usize,
    previous: Option<LogId>,
    last: Option<LogId>,
}

struct Pipeline<'s, S> {
    peer: &'s Peer,
    /// `None` once there is no more input, or once an answer ended the pipeline.
    input: Option<S>,
    under_way: VecDeque<UnderWay>,
    bytes: usize,
    /// When the peer last answered, or was first asked after a pause.
    progress: Instant,
    /// How many of the oldest requests under way were given out as stored, once the peer has said
    /// that its log agrees with ours.
    #[cfg(feature = "mutant")]
    claimed: Option<usize>,
}

/// Sends what `input` yields and yields the answers. Ends after the first error, refusal or
/// partial answer.
pub(crate) fn append_stream<'s, S>(peer: &'s Peer, input: S) -> BoxStream<'s, Outcome>
where
    S: Stream<Item = AppendRequest> + Send + Unpin + 'static,
{
    let pipeline = Pipeline {
        peer,
        input: Some(input),
        under_way: VecDeque::new(),
        bytes: 0,
        progress: Instant::now(),
        #[cfg(feature = "mutant")]
        claimed: None,
    };
    stream::unfold(Some(pipeline), |pipeline| async move {
        let mut pipeline = pipeline?;
        let outcome = pipeline.next().await?;
        let (outcome, ends) = outcome;
        Some((outcome, if ends { None } else { Some(pipeline) }))
    })
    .boxed()
}

impl<S: Stream<Item = AppendRequest> + Send + Unpin> Pipeline<'_, S> {
    /// The next answer, and whether it is the last.
    async fn next(&mut self) -> Option<(Outcome, bool)> {
        loop {
            if self.input.is_none() && self.under_way.is_empty() {
                return None;
            }
            mutant!(AckAtLeaderAlone => {
                // The request itself goes its way: only nobody waits for what becomes of it.
                if let Some(claimed) = &mut self.claimed && let Some(sent) = self.under_way.get(*claimed) {
                    *claimed += 1;
                    return Some((Ok(Ok(sent.last)), false));
                }
            });
            let room = self.under_way.len() < MAX_REQUESTS && self.bytes < MAX_BYTES;
            let deadline = self.progress + self.peer.timings().append_deadline;
            tokio::select! {
                biased;
                answer = first(&mut self.under_way) => return Some(self.answered(answer)),
                request = more(&mut self.input), if room => match request {
                    Some(request) => if let Err(error) = self.send(request).await {
                        return Some((Err(error), true));
                    },
                    None => self.input = None,
                },
                () = tokio::time::sleep_until(deadline), if !self.under_way.is_empty() => {
                    let late = LaneError::Deadline(self.peer.timings().append_deadline);
                    return Some((Err(self.peer.error(RPCTypes::AppendEntries, late)), true));
                }
            }
        }
    }

    async fn send(&mut self, request: AppendRequest) -> Result<(), RpcError> {
        if self.under_way.is_empty() {
            self.progress = Instant::now();
        }
        let bytes = request.entries.iter().map(stored_len).sum();
        let previous = request.prev_log_id;
        let last = request
            .entries
            .last()
            .map(|entry| entry.log_id)
            .or(previous);
        let count = request.entries.len() as u64;
        metrics::counter!("highwater_raft_append_entries_sent_total").increment(count);
        metrics::counter!("highwater_raft_append_bytes_sent_total").increment(bytes as u64);
        let deadline = self.peer.timings().append_deadline;
        let sent = self.peer.lane().send(encode(self.peer, request));
        let sent = tokio::time::timeout(deadline, sent).await;
        let sent = sent.unwrap_or(Err(LaneError::Deadline(deadline)));
        let answer = sent.map_err(|error| self.peer.error(RPCTypes::AppendEntries, error))?;
        self.bytes += bytes;
        self.under_way.push_back(UnderWay {
            answer,
            bytes,
            previous,
            last,
        });
        Ok(())
    }

    /// What an answer to the oldest request means.
    fn answered(&mut self, answer: Result<bytes::Bytes, LaneError>) -> (Outcome, bool) {
        self.progress = Instant::now();
        let Some(UnderWay {
            bytes,
            previous,
            last,
            ..
        }) = self.under_way.pop_front()
        else {
            return (Err(garbled(CodecError::Missing("the request"))), true);
        };
        self.bytes -= bytes;
        let body = match answer {
            Ok(body) => body,
            Err(error) => return (Err(self.peer.error(RPCTypes::AppendEntries, error)), true),
        };
        match decode_append_reply(body) {
            Err(error) => (Err(garbled(error)), true),
            Ok(AppendEntriesResponse::Conflict) if previous.is_none() => {
                // Nothing precedes the first entry, so nothing can be missing before it.
                (
                    Err(garbled(CodecError::Missing("the entry in conflict"))),
                    true,
                )
            }
            Ok(reply) => {
                let partial =
                    matches!(&reply, AppendEntriesResponse::PartialSuccess(at) if *at != last);
                let result = reply.into_stream_result(previous, last);
                let ends = partial || result.is_err();
                mutant!(AckAtLeaderAlone => {
                    let claimed = self.claimed.unwrap_or_default();
                    self.claimed = (!ends).then_some(claimed.saturating_sub(1));
                });
                (Ok(result), ends)
            }
        }
    }
}

/// The answer to the oldest request; never, if there is none. Cancellation-safe.
async fn first(under_way: &mut VecDeque<UnderWay>) -> Result<bytes::Bytes, LaneError> {
    match under_way.front_mut() {
        Some(oldest) => received((&mut oldest.answer).await),
        None => std::future::pending().await,
    }
}

/// The next request; never, if there is no more input. Cancellation-safe.
async fn more<S: Stream<Item = AppendRequest> + Unpin>(
    input: &mut Option<S>,
) -> Option<AppendRequest> {
    match input {
        Some(input) => input.next().await,
        None => std::future::pending().await,
    }
}
