//! The gRPC service that peers' lanes come in at.

use std::collections::BTreeMap;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::Stream;
use futures_util::StreamExt as _;
use highwater_proto::NodeId;
use highwater_proto::internal::raft_server::{Raft, RaftServer};
use highwater_proto::internal::{RaftKind, RaftRequest, RaftResponse};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status, Streaming};

use super::{CLOCK, CLUSTER, INCARNATION, MAX_MESSAGE_BYTES, NODE, PIPELINE, worker};
use crate::coalesced;
use crate::config::{Admission, Caller, Identity, Peers, WallClock};
use crate::registry::Registry;

/// Responses of all groups waiting for the connection.
const RESPONSES: usize = 1024;

/// The service `highwater.internal.v1.Raft`. Clones serve the same groups.
#[derive(Clone)]
pub struct RaftService {
    registry: Arc<Registry>,
    admission: Admission,
    identity: Identity,
    peers: Arc<dyn Peers>,
    wall_clock: WallClock,
}

impl fmt::Debug for RaftService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RaftService").finish_non_exhaustive()
    }
}

impl RaftService {
    pub(crate) fn new(
        registry: Arc<Registry>,
        (identity, admission): (Identity, Admission),
        peers: Arc<dyn Peers>,
        wall_clock: WallClock,
    ) -> Self {
        Self {
            registry,
            admission,
            identity,
            peers,
            wall_clock,
        }
    }
    /// The service for a tonic server, with its message sizes set.
    #[must_use]
    pub fn into_server(self) -> RaftServer<Self> {
        RaftServer::new(self)
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES)
    }
}

#[tonic::async_trait]
impl Raft for RaftService {
    type LaneStream = Pin<Box<dyn Stream<Item = Result<RaftResponse, Status>> + Send>>;

    async fn lane(
        &self,
        request: Request<Streaming<RaftRequest>>,
    ) -> Result<Response<Self::LaneStream>, Status> {
        let caller = caller(request.metadata())?;
        (self.admission)(&caller).map_err(Status::permission_denied)?;
        let (responses, outgoing) = mpsc::channel(RESPONSES);
        let peers = Arc::clone(&self.peers);
        let reading = read(
            Arc::clone(&self.registry),
            (caller.node, move || peers.is_retired(&caller.incarnation)),
            request.into_inner(),
            responses,
        );
        // The task ends with the lane: dropping the response stream drops it.
        let mut task = JoinSet::new();
        task.spawn(reading);
        let outgoing = ReceiverStream::new(outgoing).map(move |response| {
            let _owned = &task;
            Ok(response)
        });
        let mut response: Response<Self::LaneStream> = Response::new(Box::pin(outgoing));
        let metadata = response.metadata_mut();
        metadata.insert(CLOCK, (self.wall_clock)().into());
        // What is no text was no text in its own calls, too, and is refused there.
        if let Ok(incarnation) = (self.identity)().incarnation.parse() {
            metadata.insert(INCARNATION, incarnation);
        }
        Ok(response)
    }
}

fn caller(metadata: &MetadataMap) -> Result<Caller, Status> {
    let text = |key: &str| {
        let value = metadata.get(key).and_then(|value| value.to_str().ok());
        value
            .map(str::to_owned)
            .ok_or_else(|| Status::unauthenticated(format!("{key} is missing")))
    };
    let node = text(NODE)?.parse();
    let node = node.map_err(|_| Status::unauthenticated(format!("{NODE} is not a number")))?;
    Ok(Caller {
        cluster: text(CLUSTER)?,
        node: NodeId(node),
        incarnation: text(INCARNATION)?,
    })
}

/// What may wait for one another within a group: appends go in order, votes must not wait for
/// them, checkpoints take long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Class {
    Append,
    Control,
    Snapshot,
}

fn class(kind: i32) -> Class {
    match RaftKind::try_from(kind) {
        Ok(RaftKind::Append) => Class::Append,
        Ok(RaftKind::Snapshot) => Class::Snapshot,
        _ => Class::Control,
    }
}

/// Reads a lane, hands each request to its group's worker, never waiting for one, and answers those that
/// no worker takes. Ends when the caller's data directory is given up.
async fn read(
    registry: Arc<Registry>,
    (from, is_retired): (NodeId, impl Fn() -> bool),
    mut requests: Streaming<RaftRequest>,
    responses: mpsc::Sender<RaftResponse>,
) {
    let mut closed = registry.closed();
    let mut desk = Desk {
        registry,
        from,
        responses: responses.clone(),
        workers: JoinSet::new(),
        queues: BTreeMap::new(),
    };
    loop {
        let request = tokio::select! {
            biased;
            _ = closed.wait_for(|closed| *closed) => return,
            request = requests.message() => request,
        };
        let Ok(Some(request)) = request else { return };
        if is_retired() {
            return;
        }
        let id = request.id;
        if let Some(answer) = desk.take(request)
            && responses.send(worker::respond(id, answer)).await.is_err()
        {
            return;
        }
    }
}

/// The workers of one lane.
struct Desk {
    registry: Arc<Registry>,
    from: NodeId,
    responses: mpsc::Sender<RaftResponse>,
    workers: JoinSet<()>,
    queues: BTreeMap<(u32, Class), mpsc::Sender<RaftRequest>>,
}

impl Desk {
    /// Hands a request to the worker that will answer it, or answers it now.
    fn take(&mut self, request: RaftRequest) -> Option<Result<Bytes, String>> {
        if request.kind == i32::from(RaftKind::CoalescedHeartbeat) {
            let taken = coalesced::take(&self.registry, self.from, request.body);
            return Some(taken.map_err(|error| error.to_string()));
        }
        let group = request.group;
        let key = (group, class(request.kind));
        if !self.queues.contains_key(&key) && self.registry.get(group).is_none() {
            // No worker for groups that may never exist here.
            return Some(Err(format!("group {group} has not started here")));
        }
        let queue = self.queues.entry(key).or_insert_with(|| {
            let (queue, jobs) = mpsc::channel(PIPELINE);
            self.workers.spawn(worker::run(
                Arc::clone(&self.registry),
                self.from,
                jobs,
                self.responses.clone(),
            ));
            queue
        });
        // The callers keep within the pipeline, so who finds it full gave up waiting and sends again: it must
        // slow down.
        let taken = queue.try_send(request);
        taken
            .is_err()
            .then(|| Err(format!("group {group} is busy")))
    }
}
