//! The calling side of a lane: a task that owns the connection, matches answers to calls, and
//! fails every call of a broken connection at once.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use highwater_env::Net;
use highwater_proto::NodeId;
use highwater_proto::internal::{RaftRequest, RaftResponse};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::connect::{Connection, open};
use super::{LaneError, LaneKind};
use crate::config::{Identity, Peers};

/// Calls waiting for the connection. Each group pipelines a bounded number of its own.
const QUEUE: usize = 1024;
/// Between two attempts to connect: the first pause, doubled up to the last.
const FIRST_PAUSE: Duration = Duration::from_millis(25);
const LAST_PAUSE: Duration = Duration::from_millis(400);
/// Between two looks for calls that nobody waits for any more.
const SWEEP: Duration = Duration::from_secs(1);

/// Why nobody talks to a broker's process.
const GIVEN_UP: &str = "its data directory was given up";

/// An answer on its way.
pub(crate) type Answer = oneshot::Receiver<Result<Bytes, LaneError>>;

struct Call {
    request: RaftRequest,
    answer: oneshot::Sender<Result<Bytes, LaneError>>,
}

/// One lane to one peer. Clones share it; its task ends when the last one is dropped.
#[derive(Clone)]
pub(crate) struct Lane {
    queue: mpsc::Sender<Call>,
}

/// Where a lane leads, and who asks.
pub(crate) struct Route<N> {
    pub net: N,
    pub peer: NodeId,
    pub kind: LaneKind,
    pub peers: Arc<dyn Peers>,
    pub identity: Identity,
}

impl Lane {
    /// A lane and its task, which connects when there is something to send.
    pub(crate) fn start<N: Net>(route: Route<N>) -> (Self, impl Future<Output = ()> + Send) {
        let (queue, calls) = mpsc::channel(QUEUE);
        (
            Self { queue },
            Task {
                route,
                calls,
                next_id: 0,
            }
            .run(),
        )
    }
    /// Queues a request behind those of the same caller; waits while the queue is full.
    /// Cancellation-safe: a dropped future has queued nothing.
    pub(crate) async fn send(&self, request: RaftRequest) -> Result<Answer, LaneError> {
        let (answer, receiver) = oneshot::channel();
        let sent = self.queue.send(Call { request, answer }).await;
        sent.map_err(|_| LaneError::Broken("this broker is stopping".to_owned()))?;
        Ok(receiver)
    }
    /// Sends a request and waits for the answer. Cancellation-safe: the answer is dropped.
    pub(crate) async fn call(
        &self,
        request: RaftRequest,
        deadline: Duration,
    ) -> Result<Bytes, LaneError> {
        let answered = async { received(self.send(request).await?.await) };
        let answered = tokio::time::timeout(deadline, answered).await;
        answered.unwrap_or(Err(LaneError::Deadline(deadline)))
    }
}

/// What came of waiting for an answer.
pub(crate) fn received(
    answer: Result<Result<Bytes, LaneError>, oneshot::error::RecvError>,
) -> Result<Bytes, LaneError> {
    answer.unwrap_or_else(|_| Err(LaneError::Broken("this broker is stopping".to_owned())))
}

struct Task<N> {
    route: Route<N>,
    calls: mpsc::Receiver<Call>,
    next_id: u64,
}

impl<N: Net> Task<N> {
    async fn run(mut self) {
        let mut pause = FIRST_PAUSE;
        while let Some(first) = self.calls.recv().await {
            let labels = [("kind", self.route.kind.name())];
            match self.connect().await {
                Ok(connection) => {
                    pause = FIRST_PAUSE;
                    metrics::counter!("highwater_raft_lane_connects_total", &labels).increment(1);
                    let why = self.serve(connection, first).await;
                    metrics::counter!("highwater_raft_lane_breaks_total", &labels).increment(1);
                    self.fail_waiting(&why);
                }
                Err(why) => {
                    let _ = first.answer.send(Err(LaneError::Broken(why.clone())));
                    self.fail_waiting(&why);
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(LAST_PAUSE);
                }
            }
        }
    }

    async fn connect(&self) -> Result<Connection, String> {
        let Route {
            net,
            peer,
            kind,
            peers,
            identity,
        } = &self.route;
        let address = peers.address(*peer);
        let address = address.ok_or_else(|| format!("nobody knows where broker {peer} is"))?;
        let opened = open(net, &address, *kind, &identity()).await;
        let opened = opened.map_err(|error| format!("broker {peer} at {address}: {error}"))?;
        if self.is_retired(&opened) {
            return Err(format!("broker {peer} at {address}: {GIVEN_UP}"));
        }
        if let Some(wall_ms) = opened.clock_ms {
            peers.heard_clock(*peer, wall_ms);
        }
        Ok(opened)
    }

    /// Whether who answers has a data directory that was given up since: another one has its number now.
    fn is_retired(&self, connection: &Connection) -> bool {
        let said = connection.incarnation.as_deref();
        said.is_some_and(|incarnation| self.route.peers.is_retired(incarnation))
    }

    /// Carries calls until the connection breaks; says why.
    async fn serve(&mut self, mut connection: Connection, first: Call) -> String {
        let mut pending = Pending::default();
        let mut next = Some(first);
        let mut sweep = tokio::time::interval_at(Instant::now() + SWEEP, SWEEP);
        let why = loop {
            tokio::select! {
                biased;
                response = connection.responses.message() => match response {
                    Ok(Some(_)) if self.is_retired(&connection) => break GIVEN_UP.to_owned(),
                    Ok(Some(response)) => pending.answer(response),
                    Ok(None) => break "the peer closed the lane".to_owned(),
                    Err(status) => break status.message().to_owned(),
                },
                permit = connection.requests.reserve(), if next.is_some() => {
                    let Ok(permit) = permit else { break "the connection is gone".to_owned() };
                    if let Some(call) = next.take()
                        && let Some(request) = self.admit(call, &mut pending)
                    {
                        permit.send(request);
                    }
                }
                call = self.calls.recv(), if next.is_none() => match call {
                    Some(call) => next = Some(call),
                    None => break "this broker is stopping".to_owned(),
                },
                _ = sweep.tick() => pending.sweep(),
            }
        };
        let why = format!(
            "the {} lane to broker {} broke: {why}",
            self.route.kind.name(),
            self.route.peer
        );
        tracing::debug!("{why}");
        if let Some(call) = next {
            let _ = call.answer.send(Err(LaneError::Broken(why.clone())));
        }
        pending.fail(&why);
        why
    }

    /// Numbers a call, unless nobody waits for its answer any more.
    fn admit(&mut self, call: Call, pending: &mut Pending) -> Option<RaftRequest> {
        let Call {
            mut request,
            answer,
        } = call;
        if answer.is_closed() {
            return None;
        }
        self.next_id += 1;
        request.id = self.next_id;
        pending.0.insert(request.id, answer);
        Some(request)
    }

    fn fail_waiting(&mut self, why: &str) {
        while let Ok(call) = self.calls.try_recv() {
            let _ = call.answer.send(Err(LaneError::Broken(why.to_owned())));
        }
    }
}

/// Calls that were sent, by id.
#[derive(Default)]
struct Pending(BTreeMap<u64, oneshot::Sender<Result<Bytes, LaneError>>>);

impl Pending {
    fn answer(&mut self, response: RaftResponse) {
        // An id without a call: its caller gave up.
        let Some(answer) = self.0.remove(&response.id) else {
            return;
        };
        let _ = answer.send(if response.error.is_empty() {
            Ok(response.body)
        } else {
            Err(LaneError::Refused(response.error))
        });
    }
    fn sweep(&mut self) {
        self.0.retain(|_, answer| !answer.is_closed());
    }
    fn fail(self, why: &str) {
        for answer in self.0.into_values() {
            let _ = answer.send(Err(LaneError::Broken(why.to_owned())));
        }
    }
}

#[cfg(test)]
#[path = "client_tests.rs"]
mod tests;
