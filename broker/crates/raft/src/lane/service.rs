//! The gRPC service that peers' lanes come in at.

use std::collections::BTreeMap;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;

use futures_util::Stream;
use futures_util::StreamExt as _;
use highwater_proto::NodeId;
use highwater_proto::internal::raft_server::{Raft, RaftServer};
use highwater_proto::internal::{RaftKind, RaftRequest, RaftResponse};
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;
use tokio::task::JoinSet;
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status, Streaming};

use super::{CLUSTER, INCARNATION, MAX_MESSAGE_BYTES, NODE, PIPELINE, worker};
use crate::coalesced;
use crate::config::{Admission, Caller};
use crate::registry::Registry;

/// Responses of all groups waiting for the connection.
const RESPONSES: usize = 1024;

/// The service `highwater.internal.v1.Raft`. Clones serve the same groups.
#[derive(Clone)]
pub struct RaftService {
    registry: Arc<Registry>,
    admission: Admission,
}

impl fmt::Debug for RaftService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RaftService").finish_non_exhaustive()
    }
}

impl RaftService {
    pub(crate) fn new(registry: Arc<Registry>, admission: Admission) -> Self {
        Self {
            registry,
            admission,
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
        let reading = read(
            Arc::clone(&self.registry),
            caller.node,
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
        Ok(Response::new(Box::pin(outgoing)))
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

/// Reads a lane and hands each request to its group's worker, never waiting for one.
async fn read(
    registry: Arc<Registry>,
    from: NodeId,
    mut requests: Streaming<RaftRequest>,
    responses: mpsc::Sender<RaftResponse>,
) {
    let mut workers = JoinSet::new();
    let mut queues: BTreeMap<(u32, Class), mpsc::Sender<RaftRequest>> = BTreeMap::new();
    let mut closed = registry.closed();
    loop {
        let request = tokio::select! {
            biased;
            _ = closed.wait_for(|closed| *closed) => return,
            request = requests.message() => request,
        };
        let Ok(Some(request)) = request else { return };
        if request.kind == i32::from(RaftKind::CoalescedHeartbeat) {
            let taken = coalesced::take(&registry, from, request.body);
            let taken = taken.map_err(|error| error.to_string());
            if responses
                .send(worker::respond(request.id, taken))
                .await
                .is_err()
            {
                return;
            }
            continue;
        }
        let key = (request.group, class(request.kind));
        if !queues.contains_key(&key) && registry.get(request.group).is_none() {
            // No worker for groups that may never exist here.
            let error = Err(format!("group {} has not started here", request.group));
            if responses
                .send(worker::respond(request.id, error))
                .await
                .is_err()
            {
                return;
            }
            continue;
        }
        let queue = queues.entry(key).or_insert_with(|| {
            let (queue, jobs) = mpsc::channel(PIPELINE);
            workers.spawn(worker::run(
                Arc::clone(&registry),
                from,
                jobs,
                responses.clone(),
            ));
            queue
        });
        let refused = match queue.try_send(request) {
            Ok(()) => continue,
            // The callers keep within the pipeline, so this is a caller that gave up waiting and
            // sends again: it must slow down.
            Err(TrySendError::Full(request) | TrySendError::Closed(request)) => request,
        };
        let busy = Err(format!("group {} is busy", refused.group));
        if responses
            .send(worker::respond(refused.id, busy))
            .await
            .is_err()
        {
            return;
        }
    }
}
