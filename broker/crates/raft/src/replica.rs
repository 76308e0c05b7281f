//! One replica of a group: openraft with its log and its state machine, behind traits that do not
//! name the state machine's type.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use highwater_mutant::mutant;
use highwater_proto::{NodeId, ShardId};
use openraft::async_runtime::watch::WatchReceiver as _;
use openraft::errors::{
    ClientWriteError, ForwardReason, InitializeError, LinearizableReadError, RaftError,
};
use openraft::impls::ProgressResponder;
use openraft::raft::ClientWriteResult;
use openraft::raft::linearizable_read::LinearizerOption;
use openraft::{ChangeMembers, Raft, ReadPolicy};
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::adapter::{Adapter, CurrentCheckpoint};
use crate::checkpoint;
use crate::codec::SnapshotBody;
use crate::config::Timings;
use crate::error::{CheckpointError, MembershipError, ProposeError, PurgeError};
use crate::everywhere::Everywhere;
use crate::inbound::{Answer, Inbound};
use crate::liveness::{Cover, Pace, View, answered};
use crate::machine::{Position, StateMachine};
use crate::propose::{Leadership, not_leader};
use crate::silence::Silence;
use crate::store::Shared;
use crate::types::{
    AppendRequest, AppendResponse, Command, Node, Reply, SnapshotResponse, TransferRequest,
    TransferResponse, TypeConfig, VoteRequest, VoteResponse, term_of,
};

pub(crate) type RaftOf<S> = Raft<TypeConfig, Adapter<S>>;

/// What a group's handle asks of its replica.
pub(crate) trait Control: Inbound {
    /// Hands a command to the core; the answer comes later.
    fn write(&self, command: Command) -> BoxFuture<'_, Result<Written, ProposeError>>;
    fn initialize(
        &self,
        voters: BTreeMap<NodeId, String>,
    ) -> BoxFuture<'_, Result<bool, MembershipError>>;
    fn change(&self, change: Change) -> BoxFuture<'_, Result<(), MembershipError>>;
    /// The index that a read must see applied; `None`: not the leader.
    fn read_index(&self) -> BoxFuture<'_, Result<Option<u64>, String>>;
    fn transfer_leader(&self, to: NodeId) -> BoxFuture<'_, Result<(), String>>;
    /// Answers with the last entry covered.
    fn checkpoint(&self) -> BoxFuture<'static, Result<Option<u64>, CheckpointError>>;
    fn purge(&self, upto: u64) -> BoxFuture<'_, Result<(), PurgeError>>;
    /// To be called at each beat of the broker's clock: sends heartbeats, if this replica leads; else
    /// has it look at its election timeout while no leader is heard.
    fn beat(&self) -> Beat<'_>;
    /// A coalesced heartbeat of this leadership that was sent at `at` counts at a peer.
    fn counts(&self, peer: NodeId, term: u64, at: Instant);
    fn shutdown(&self) -> BoxFuture<'_, ()>;
    fn set_floor(&self, floor: VoteFloor);
}

/// What a replica does at a beat.
#[derive(Default)]
pub(crate) struct Beat<'a> {
    /// Heartbeats on their way to the core.
    pub heartbeat: Option<BoxFuture<'a, ()>>,
    /// The next coalesced heartbeat names this group.
    pub idle: Option<Idle>,
}

/// An idle group that is led here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Idle {
    pub group: ShardId,
    pub term: u64,
    pub peers: Vec<NodeId>,
}

/// A change of members.
#[derive(Debug)]
pub(crate) enum Change {
    AddLearner(NodeId, String),
    Voters(BTreeSet<NodeId>),
    Remove(NodeId),
}

/// Whom a replica votes for. One that is filled anew remembers nothing of what it once
/// acknowledged: it must not help a candidate into office that lacks it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum VoteFloor {
    /// Whoever has all that it has: the usual rule.
    #[default]
    Usual,
    /// Nobody, itself included: it does not stand for election, and takes no leadership over.
    Nobody,
    /// Who also has the entry that made it a member.
    Member(Position),
}

impl VoteFloor {
    fn check(self, request: &VoteRequest) -> Result<(), String> {
        let last = request.last_log_id.as_ref();
        let has = |floor: Position| {
            last.is_some_and(|last| (term_of(last), last.index()) >= (floor.term, floor.index))
        };
        match self {
            Self::Usual => Ok(()),
            Self::Member(floor) if has(floor) => Ok(()),
            Self::Nobody | Self::Member(_) => {
                Err("this replica is being filled and does not vote for a log as short".to_owned())
            }
        }
    }
}

/// The outcome of a write that was handed over.
pub(crate) type Written = BoxFuture<'static, Result<bytes::Bytes, ProposeError>>;

/// A running replica.
pub(crate) struct Replica<S: StateMachine> {
    pub(crate) raft: RaftOf<S>,
    pub(crate) leadership: Leadership,
    pub(crate) log: Arc<Shared>,
    pub(crate) current: CurrentCheckpoint,
    /// Held while a checkpoint is made or received.
    pub(crate) checkpointing: Arc<tokio::sync::Mutex<()>>,
    pub(crate) timings: Timings,
    /// Whom this replica votes for.
    pub(crate) floor: Arc<Mutex<VoteFloor>>,
    /// What every member has of the log.
    pub(crate) everywhere: Everywhere,
    pub(crate) silence: Arc<Silence>,
    /// Of the term that it leads in, or led in last.
    pub(crate) cover: Arc<Mutex<Cover>>,
}

impl<S: StateMachine> Clone for Replica<S> {
    fn clone(&self) -> Self {
        Self {
            raft: self.raft.clone(),
            leadership: self.leadership.clone(),
            log: Arc::clone(&self.log),
            current: Arc::clone(&self.current),
            checkpointing: Arc::clone(&self.checkpointing),
            timings: self.timings,
            floor: Arc::clone(&self.floor),
            everywhere: self.everywhere.clone(),
            silence: Arc::clone(&self.silence),
            cover: Arc::clone(&self.cover),
        }
    }
}

/// No leader that a majority answers is known.
const NOBODY: (Option<NodeId>, u64) = (None, 0);

fn unknown(error: impl ToString) -> ProposeError {
    ProposeError::Unknown(error.to_string())
}

/// The outcome that openraft reports. Whatever it says went wrong, the entry may be committed by
/// another leader, or have been by the time it says so; but for a lease that was over, which it looks at
/// before it takes anything.
fn written(result: ClientWriteResult<TypeConfig>) -> Result<bytes::Bytes, ProposeError> {
    let decided = result.map_err(|error| match error {
        ClientWriteError::ForwardToLeader(forward)
            if forward.reason == ForwardReason::LeaseExpired =>
        {
            not_leader(NOBODY)
        }
        ClientWriteError::ForwardToLeader(_) => unknown("the leader changed"),
        other => unknown(other),
    });
    match decided?.data {
        Reply::Applied(reply) => Ok(reply),
        Reply::Covered => Err(unknown("it came in with a checkpoint, which does not say")),
    }
}

fn membership(error: RaftError<TypeConfig, ClientWriteError<TypeConfig>>) -> MembershipError {
    match error {
        RaftError::APIError(ClientWriteError::ChangeMembershipError(refused)) => {
            MembershipError::Refused(refused.to_string())
        }
        other => MembershipError::Unknown(other.to_string()),
    }
}

impl<S: StateMachine> Replica<S> {
    /// A leader was heard not longer than a lease ago, or this one is heard by all. openraft, which does not
    /// know of coalesced heartbeats, would help others into office.
    fn is_led(&self) -> bool {
        let now = Instant::now();
        match self.leadership.check() {
            Ok(()) => self.cover.lock().is_covered(now),
            Err(_) => self.silence.is_shorter(now, self.timings.election_max),
        }
    }

    /// Asks the others whether this replica still leads, if they were not asked for about a lease: openraft takes
    /// nothing from a leader that has heard from no majority for so long, and that of a group whose heartbeats are
    /// rare may not have. It costs what comes after a pause a round trip, a lease at most; else nothing.
    ///
    /// # Errors
    /// Who leads, as far as is known, when no majority answers within a lease, when another replica leads or is
    /// to, and when the group has stopped. Nothing was written.
    async fn hold_lease(&self) -> Result<(), (Option<NodeId>, u64)> {
        if !self.cover.lock().has_rested(Instant::now()) {
            return Ok(());
        }
        let fresh = Pace::new(&self.timings).fresh();
        let last = answered(&self.raft.metrics().borrow_watched());
        if last.is_some_and(|at| at.elapsed() < fresh) {
            return Ok(());
        }
        let ask = LinearizerOption::new(Some(fresh), true);
        match self.raft.get_read_linearizer(ask).await {
            Ok(_) => Ok(()),
            Err(error) => {
                tracing::debug!(group = self.log.group.0, %error, "no majority answers");
                Err(self.leadership.check().err().unwrap_or(NOBODY))
            }
        }
    }
}

impl<S: StateMachine> Control for Replica<S> {
    fn write(&self, command: Command) -> BoxFuture<'_, Result<Written, ProposeError>> {
        Box::pin(async move {
            self.hold_lease().await.map_err(not_leader)?;
            let (responder, outcome) = ProgressResponder::complete_only();
            self.raft
                .client_write_ff(command, Some(responder))
                .await
                .map_err(unknown)?;
            let outcome = outcome.map(|outcome| match outcome {
                Ok(result) => written(result),
                Err(_) => Err(unknown("the group has stopped")),
            });
            Ok(outcome.boxed())
        })
    }

    fn initialize(
        &self,
        voters: BTreeMap<NodeId, String>,
    ) -> BoxFuture<'_, Result<bool, MembershipError>> {
        let nodes: BTreeMap<u64, Node> = voters
            .into_iter()
            .map(|(node, addr)| (node.0.into(), Node { addr }))
            .collect();
        Box::pin(async move {
            match self.raft.initialize(nodes).await {
                Ok(()) => Ok(true),
                Err(RaftError::APIError(InitializeError::NotAllowed(_))) => Ok(false),
                Err(RaftError::APIError(refused)) => {
                    Err(MembershipError::Refused(refused.to_string()))
                }
                Err(other) => Err(MembershipError::Unknown(other.to_string())),
            }
        })
    }

    fn change(&self, change: Change) -> BoxFuture<'_, Result<(), MembershipError>> {
        Box::pin(async move {
            let leads = self.hold_lease().await;
            leads.map_err(MembershipError::not_leader)?;
            let raft = &self.raft;
            let done = match change {
                Change::AddLearner(node, addr) => {
                    raft.add_learner(node.0.into(), Node { addr }, false).await
                }
                Change::Voters(voters) => {
                    let voters: BTreeSet<u64> = voters.into_iter().map(|n| n.0.into()).collect();
                    // Former voters stay as learners until they are removed.
                    raft.change_membership(ChangeMembers::ReplaceAllVoters(voters), true)
                        .await
                }
                Change::Remove(node) => {
                    let gone = BTreeSet::from([u64::from(node.0)]);
                    raft.change_membership(ChangeMembers::RemoveNodes(gone), false)
                        .await
                }
            };
            done.map(drop).map_err(membership)
        })
    }

    fn read_index(&self) -> BoxFuture<'_, Result<Option<u64>, String>> {
        if self.cover.lock().is_silent() {
            let reason = "no majority answers this leader".to_owned();
            return std::future::ready(Err(reason)).boxed();
        }
        Box::pin(async move {
            match self.raft.ensure_linearizable(ReadPolicy::ReadIndex).await {
                Ok(read) => Ok(Some(read.index())),
                Err(RaftError::APIError(LinearizableReadError::ForwardToLeader(_))) => Ok(None),
                Err(other) => Err(other.to_string()),
            }
        })
    }

    fn transfer_leader(&self, to: NodeId) -> BoxFuture<'_, Result<(), String>> {
        Box::pin(async move {
            let trigger = self.raft.trigger();
            trigger
                .transfer_leader(to.0.into())
                .await
                .map_err(|error| error.to_string())
        })
    }

    fn checkpoint(&self) -> BoxFuture<'static, Result<Option<u64>, CheckpointError>> {
        checkpoint::take(self.clone()).boxed()
    }

    fn purge(&self, upto: u64) -> BoxFuture<'_, Result<(), PurgeError>> {
        Box::pin(async move {
            let covered = self.current.lock().covered();
            let covered = covered.ok_or(PurgeError::NoCheckpoint)?.index();
            let purged = self.raft.trigger().purge_log(upto.min(covered)).await;
            purged.map_err(|error| PurgeError::Stopped(error.to_string()))
        })
    }

    fn beat(&self) -> Beat<'_> {
        let (leads, now) = (self.leadership.check().is_ok(), Instant::now());
        let waits = !leads && self.silence.is_long(now, &self.timings);
        if self.silence.set_ticks(waits, &self.timings) {
            self.raft.runtime_config().tick(waits);
        }
        if !leads {
            self.cover.lock().ended();
            return Beat::default();
        }
        let view = View::of(&self.raft.metrics().borrow_watched());
        let next = self.cover.lock().beat(now, &view);
        let heartbeat = next.heartbeat.then(|| {
            let asked = async move {
                if let Err(error) = self.raft.trigger().heartbeat().await {
                    tracing::debug!(group = self.log.group.0, %error, "no heartbeats");
                }
            };
            asked.boxed()
        });
        let idle = next.coalesced.then(|| view.idle(self.log.group));
        Beat { heartbeat, idle }
    }

    fn counts(&self, peer: NodeId, term: u64, at: Instant) {
        self.cover.lock().counts(peer, term, at);
    }

    fn set_floor(&self, floor: VoteFloor) {
        *self.floor.lock() = floor;
        // Who votes for nobody does not vote for itself either.
        let stands = floor != VoteFloor::Nobody;
        self.raft.runtime_config().elect(stands);
    }

    fn shutdown(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            if let Err(error) = self.raft.shutdown().await {
                tracing::warn!(group = self.log.group.0, %error, "while a group stopped");
            }
            // A checkpoint under way still becomes durable, and names files that whoever stopped the
            // group may be about to remove. None begins after this: there is no core to freeze a state.
            drop(self.checkpointing.lock().await);
        })
    }
}

/// How long a voter takes a candidate's log for: as long as the candidate says.
fn believed(request: VoteRequest) -> VoteRequest {
    mutant!(
        UncleanElection => VoteRequest {
            last_log_id: Some(crate::types::log_id(u64::MAX, u64::MAX)),
            ..request
        };
        else request
    )
}

impl<S: StateMachine> Inbound for Replica<S> {
    fn append(&self, request: AppendRequest, everywhere: u64) -> Answer<AppendResponse> {
        self.everywhere.told(everywhere);
        let (raft, silence) = (self.raft.clone(), Arc::clone(&self.silence));
        async move {
            let came = Instant::now();
            let answer = raft.append_entries(request).await;
            let answer = answer.map_err(|e| e.to_string())?;
            if !matches!(answer, AppendResponse::HigherVote(_)) {
                silence.append(came);
            }
            Ok(answer)
        }
        .boxed()
    }
    fn is_led_by(&self, from: NodeId, term: u64) -> bool {
        let trust = Pace::new(&self.timings).trust();
        let follows = self.leadership.check() == Err((Some(from), term));
        follows && self.silence.coalesced(Instant::now(), trust)
    }
    fn vote(&self, request: VoteRequest) -> Answer<VoteResponse> {
        if let Err(reason) = self.floor.lock().check(&request) {
            return std::future::ready(Err(reason)).boxed();
        }
        let request = believed(request);
        let raft = self.raft.clone();
        async move { raft.vote(request).await.map_err(|e| e.to_string()) }.boxed()
    }
    fn pre_vote(&self, request: VoteRequest) -> Answer<VoteResponse> {
        if let Err(reason) = self.floor.lock().check(&request) {
            return std::future::ready(Err(reason)).boxed();
        }
        if self.is_led() {
            let reason = "a leader is heard here".to_owned();
            return std::future::ready(Err(reason)).boxed();
        }
        let request = believed(request);
        let raft = self.raft.clone();
        async move { raft.pre_vote(request).await.map_err(|e| e.to_string()) }.boxed()
    }
    fn transfer(&self, request: TransferRequest) -> Answer<TransferResponse> {
        if *self.floor.lock() == VoteFloor::Nobody {
            let reason = "this replica is not whole and does not lead".to_owned();
            return std::future::ready(Err(reason)).boxed();
        }
        let raft = self.raft.clone();
        async move {
            raft.handle_transfer_leader(request)
                .await
                .map_err(|e| e.to_string())
        }
        .boxed()
    }
    fn snapshot(&self, from: NodeId, body: SnapshotBody) -> Answer<SnapshotResponse> {
        checkpoint::receive(self.clone(), from, body).boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{Vote, log_id};

    #[test]
    fn a_replica_that_is_filled_votes_only_for_those_who_know_that_it_is() {
        let floor = VoteFloor::Member(Position { term: 4, index: 90 });
        let by = |last: Option<(u64, u64)>| {
            let last = last.map(|(term, index)| log_id(term, index));
            VoteRequest::new(Vote::new(9, 1), last)
        };
        for last in [None, Some((3, 5_000)), Some((4, 89))] {
            assert!(VoteFloor::Usual.check(&by(last)).is_ok());
            assert!(VoteFloor::Nobody.check(&by(last)).is_err());
            assert!(floor.check(&by(last)).is_err(), "{last:?}");
        }
        for last in [(4, 90), (4, 91), (5, 7)] {
            assert!(floor.check(&by(Some(last))).is_ok(), "{last:?}");
            assert!(VoteFloor::Nobody.check(&by(Some(last))).is_err());
        }
    }
}
