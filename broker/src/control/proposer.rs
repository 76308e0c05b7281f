//! Metadata commands on their way to the metadata leader, wherever it is.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use highwater_env::Env;
use highwater_metadata::{MetadataCommand, MetadataReply};
use highwater_proto::internal::ProposeRequest;
use highwater_proto::{NodeId, Payload};
use highwater_raft::{Group, ProposeError};
use tokio::time::Instant;

use super::cluster::Cluster;
use super::peers::PeerClients;

const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

/// Why a metadata command has no reply.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MetadataError {
    /// Certainly not written: nobody could take it before the deadline.
    #[error("the metadata group has no leader that can be reached: {0}")]
    Unavailable(String),
    /// May or may not have been written.
    #[error("the outcome of the metadata command is unknown: {0}")]
    Unknown(String),
}

/// Proposes metadata commands, here or at the leader.
#[derive(Debug)]
pub struct Proposer<E: Env> {
    group: Group,
    peers: Arc<PeerClients<E>>,
    cluster: Arc<Cluster>,
}

/// One attempt.
enum Attempt {
    Replied(Bytes),
    /// Certainly not written; perhaps another broker can.
    NotHere(Option<NodeId>, String),
    Unknown(String),
}

impl<E: Env> Proposer<E> {
    /// A proposer over the local replica of the metadata group.
    #[must_use]
    pub fn new(group: Group, peers: Arc<PeerClients<E>>, cluster: Arc<Cluster>) -> Self {
        Self {
            group,
            peers,
            cluster,
        }
    }
    /// The metadata group.
    #[must_use]
    pub fn group(&self) -> &Group {
        &self.group
    }

    /// Proposes `command` until it is written, its outcome is unknown, or `timeout` has passed.
    /// Only attempts that were certainly not written are repeated. Cancellation: the outcome of a
    /// dropped call is unknown.
    ///
    /// # Errors
    /// [`MetadataError`].
    pub async fn propose(
        &self,
        command: &MetadataCommand,
        timeout: Duration,
    ) -> Result<MetadataReply, MetadataError> {
        let encoded = command.encode();
        let deadline = Instant::now() + timeout;
        let mut pause = FIRST_PAUSE;
        loop {
            let reason = match self.attempt(command, encoded.clone(), deadline).await {
                Attempt::Replied(bytes) => {
                    return MetadataReply::decode(&bytes)
                        .map_err(|error| MetadataError::Unknown(error.to_string()));
                }
                Attempt::Unknown(reason) => return Err(MetadataError::Unknown(reason)),
                Attempt::NotHere(_, reason) => reason,
            };
            if Instant::now() + pause >= deadline {
                return Err(MetadataError::Unavailable(reason));
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    async fn attempt(
        &self,
        command: &MetadataCommand,
        encoded: Bytes,
        deadline: Instant,
    ) -> Attempt {
        let mut leader = self.group.status().borrow().leader;
        if self.group.is_leader() {
            let proposed = self.propose_here(command, encoded.clone(), deadline);
            match proposed.await {
                Attempt::NotHere(hint, _) if hint.is_some() => leader = hint,
                decided => return decided,
            }
        }
        match leader {
            Some(node) => self.forward(node, encoded, deadline).await,
            None => Attempt::NotHere(None, "an election is going on".to_owned()),
        }
    }

    async fn propose_here(
        &self,
        command: &MetadataCommand,
        encoded: Bytes,
        deadline: Instant,
    ) -> Attempt {
        // A broker that does not know it would stop at it, so it must not get into the log.
        if let Err(refusal) = self.cluster.image().admits(command) {
            return Attempt::Replied(MetadataReply::Refused(refusal).encode());
        }
        let proposal = self.group.propose_ordered(Payload::from(encoded));
        match tokio::time::timeout_at(deadline, proposal).await {
            Ok(Ok(reply)) => Attempt::Replied(reply),
            Ok(Err(ProposeError::NotLeader { leader, .. })) => Attempt::NotHere(
                leader,
                "this broker does not lead the metadata group".to_owned(),
            ),
            Ok(Err(ProposeError::Busy)) => {
                Attempt::NotHere(None, "the metadata group is busy".to_owned())
            }
            Ok(Err(ProposeError::Unknown(reason))) => Attempt::Unknown(reason),
            Err(_elapsed) => Attempt::Unknown("no verdict before the deadline".to_owned()),
        }
    }

    async fn forward(&self, node: NodeId, command: Bytes, deadline: Instant) -> Attempt {
        let mut client = match self.peers.client(node) {
            Ok(client) => client,
            Err(reason) => return Attempt::NotHere(None, reason),
        };
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout_ms = u32::try_from(left.as_millis()).unwrap_or(u32::MAX);
        let request = ProposeRequest {
            command,
            timeout_ms,
        };
        match tokio::time::timeout_at(deadline, client.propose(request)).await {
            Ok(Ok(response)) => {
                let response = response.into_inner();
                if response.error.is_empty() {
                    Attempt::Replied(response.result)
                } else if response.certainly_not {
                    Attempt::NotHere(response.leader.map(NodeId), response.error)
                } else {
                    Attempt::Unknown(response.error)
                }
            }
            Ok(Err(status)) => {
                self.peers.forget(node);
                Attempt::Unknown(status.to_string())
            }
            Err(_elapsed) => Attempt::Unknown("no answer before the deadline".to_owned()),
        }
    }

    /// Serves a command that another broker forwarded: only here, never passed on again.
    pub async fn propose_forwarded(
        &self,
        command: Bytes,
        timeout: Duration,
    ) -> Result<Bytes, (bool, Option<NodeId>, String)> {
        // What cannot be applied must not get into the log, where it would stay.
        let known = match MetadataCommand::decode(&command) {
            Ok(known) => known,
            Err(error) => return Err((true, None, error.to_string())),
        };
        let deadline = Instant::now() + timeout;
        match self.propose_here(&known, command, deadline).await {
            Attempt::Replied(reply) => Ok(reply),
            Attempt::NotHere(leader, reason) => Err((true, leader, reason)),
            Attempt::Unknown(reason) => Err((false, None, reason)),
        }
    }
}
