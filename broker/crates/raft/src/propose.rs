//! Proposals of one group: a bounded queue and the task that hands them to openraft in order.
//!
//! Step 5 of the produce journey. The queue fixes the order: openraft's own entrance is async, so
//! two calls to it could overtake each other.

use std::sync::Arc;

use bytes::Bytes;
use highwater_proto::{NodeId, Payload};
use openraft::ServerState;
use openraft::async_runtime::watch::WatchReceiver as _;
use openraft::metrics::RaftServerMetrics;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot};

use crate::error::ProposeError;
use crate::replica::{Control, Written};
use crate::status::node_id;
use crate::types::{Command, TypeConfig};

/// Proposals waiting for the core. Their bytes are bounded by the permits taken at the gate.
const QUEUE: usize = 1024;

type ServerMetrics =
    openraft::type_config::alias::WatchReceiverOf<TypeConfig, RaftServerMetrics<TypeConfig>>;

/// Who leads, as far as this replica knows at this moment.
#[derive(Clone)]
pub(crate) struct Leadership(pub(crate) ServerMetrics);

impl Leadership {
    /// Whether this replica leads; else who does, and the newest term known.
    pub(crate) fn check(&self) -> Result<(), (Option<NodeId>, u64)> {
        let metrics = self.0.borrow_watched();
        if metrics.state == ServerState::Leader {
            return Ok(());
        }
        let other = metrics
            .current_leader
            .filter(|leader| *leader != metrics.id);
        Err((other.map(node_id), metrics.vote.leader_id().term))
    }
}

struct Proposal {
    command: Command,
    handed_over: oneshot::Sender<Result<Written, ProposeError>>,
}

/// The entrance of a group. Clones share the queue.
#[derive(Clone)]
pub(crate) struct Proposer {
    queue: mpsc::Sender<Proposal>,
    leadership: Leadership,
}

pub(crate) fn not_leader((leader, term): (Option<NodeId>, u64)) -> ProposeError {
    ProposeError::NotLeader { leader, term }
}

impl Proposer {
    /// An entrance and its task, which ends when the last entrance is dropped.
    pub(crate) fn start(
        control: Arc<dyn Control>,
        leadership: Leadership,
    ) -> (Self, impl Future<Output = ()> + Send) {
        let (queue, proposals) = mpsc::channel(QUEUE);
        let task = run(control, leadership.clone(), proposals);
        (Self { queue, leadership }, task)
    }
    /// Queues a command; the order of calls is the order of entries.
    pub(crate) fn propose(
        &self,
        payload: Payload,
    ) -> impl Future<Output = Result<Bytes, ProposeError>> + Send + 'static + use<> {
        let (handed_over, outcome) = oneshot::channel();
        let proposal = Proposal {
            command: Command(payload),
            handed_over,
        };
        let queued = self.leadership.check().map_err(not_leader).and_then(|()| {
            self.queue.try_send(proposal).map_err(|error| match error {
                TrySendError::Full(_) => ProposeError::Busy,
                // Never reached the core.
                TrySendError::Closed(_) => ProposeError::NotLeader {
                    leader: None,
                    term: 0,
                },
            })
        });
        async move {
            queued?;
            let stopped = || ProposeError::Unknown("the group has stopped".to_owned());
            outcome.await.map_err(|_| stopped())??.await
        }
    }
}

async fn run(
    control: Arc<dyn Control>,
    leadership: Leadership,
    mut proposals: mpsc::Receiver<Proposal>,
) {
    while let Some(Proposal {
        command,
        handed_over,
    }) = proposals.recv().await
    {
        let outcome = match leadership.check() {
            Ok(()) => control.write(command).await,
            Err(other) => Err(not_leader(other)),
        };
        // A caller that is gone has given up the answer, not the entry.
        let _ = handed_over.send(outcome);
    }
}
