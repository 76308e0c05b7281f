//! The broker's handle on one group.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use highwater_mutant::mutant;
use highwater_proto::{NodeId, Payload, ShardId};
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::config::Timings;
use crate::error::{
    CheckpointError, MembershipError, ProposeError, PurgeError, ReadError, RecoveryError,
    TransferError,
};
use crate::everywhere::Everywhere;
use crate::propose::{Leadership, Proposer};
use crate::registry::Registry;
use crate::replica::{Change, Control, VoteFloor};
use crate::reshape::{Goal, NextChange};
use crate::status::{GroupStatus, Role};
use crate::store::Shared;

/// A follower that lacks more entries than this is not made leader.
const MAX_TRANSFER_LAG: u64 = 10_000;

/// One group's replica on this broker. Clones are handles on the same replica.
#[derive(Clone)]
pub struct Group {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) id: ShardId,
    pub(crate) node: NodeId,
    pub(crate) control: Arc<dyn Control>,
    pub(crate) proposer: Proposer,
    pub(crate) leadership: Leadership,
    pub(crate) status: watch::Receiver<GroupStatus>,
    pub(crate) log: Arc<Shared>,
    pub(crate) everywhere: Everywhere,
    pub(crate) timings: Timings,
    pub(crate) registry: Arc<Registry>,
    /// The proposer and the status publisher.
    pub(crate) tasks: Mutex<JoinSet<()>>,
}

impl fmt::Debug for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Group")
            .field("id", &self.inner.id)
            .finish_non_exhaustive()
    }
}

impl Group {
    /// The group's number.
    #[must_use]
    pub fn id(&self) -> ShardId {
        self.inner.id
    }
    /// The group as this replica sees it, kept up to date.
    #[must_use]
    pub fn status(&self) -> watch::Receiver<GroupStatus> {
        self.inner.status.clone()
    }
    /// Whether this replica leads, as far as it knows at this moment. A read needs
    /// [`Group::read_barrier`].
    #[must_use]
    pub fn is_leader(&self) -> bool {
        self.inner.leadership.check().is_ok()
    }
    /// Bytes of entries handed to the log since start.
    #[must_use]
    pub fn appended_bytes(&self) -> u64 {
        self.inner.log.appended_bytes()
    }

    /// Proposes a command and waits until it is applied here. Dropping the future gives up the
    /// answer, not the command.
    ///
    /// # Errors
    /// [`ProposeError`]; only `NotLeader` and `Busy` mean that nothing was written.
    pub async fn propose(&self, command: Payload) -> Result<Bytes, ProposeError> {
        self.propose_ordered(command).await
    }
    /// Queues a command at once; the order of calls is the order in the log. The future yields the
    /// state machine's reply; dropping it gives up the answer, not the command.
    pub fn propose_ordered(
        &self,
        command: Payload,
    ) -> impl Future<Output = Result<Bytes, ProposeError>> + Send + 'static + use<> {
        self.inner.proposer.propose(command)
    }

    /// Waits until everything that was acknowledged before the call is applied here, and answers
    /// with the index applied. A majority confirms that this replica still leads.
    /// Cancellation-safe.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn read_barrier(&self) -> Result<u64, ReadError> {
        let inner = &self.inner;
        let not_leader = |(leader, term)| ReadError::NotLeader { leader, term };
        inner.leadership.check().map_err(not_leader)?;
        mutant!(DeposedReads => { return Ok(self.status().borrow().applied); });
        let deadline = inner.timings.election_max * 4;
        match tokio::time::timeout(deadline, inner.control.read_index()).await {
            Ok(Ok(Some(index))) => Ok(index),
            Ok(Ok(None)) => Err(not_leader(
                inner.leadership.check().err().unwrap_or_default(),
            )),
            Ok(Err(reason)) => Err(ReadError::Unconfirmed(reason)),
            Err(_) => Err(ReadError::Unconfirmed(format!(
                "no majority within {deadline:?}"
            ))),
        }
    }

    /// Waits until this replica has applied everything that it may have applied before its last
    /// stop. Nothing may be served from it before. Cancellation-safe.
    ///
    /// # Errors
    /// [`RecoveryError`].
    pub async fn wait_for_recovery(&self, timeout: Duration) -> Result<(), RecoveryError> {
        let mut status = self.status();
        let recovered = status.wait_for(|now| now.recovered || now.role == Role::Stopped);
        let recovered = tokio::time::timeout(timeout, recovered).await;
        match recovered.map_err(|_| RecoveryError::Timeout)? {
            Ok(now) if now.recovered => Ok(()),
            _ => Err(RecoveryError::Stopped),
        }
    }

    /// Gives a new group its first voters. Every one of them may be told, with the same set, any
    /// number of times.
    ///
    /// # Errors
    /// [`MembershipError::OtherMembers`] when the group has other members.
    pub async fn initialize(
        &self,
        voters: BTreeMap<NodeId, String>,
    ) -> Result<(), MembershipError> {
        let wanted: BTreeSet<NodeId> = voters.keys().copied().collect();
        if self.inner.control.initialize(voters).await? {
            return Ok(());
        }
        // It has a log or has voted already: by an equal call here, or at another founder.
        let known = self.inner.status.borrow().voters.clone();
        if known.is_empty() || known == wanted {
            return Ok(());
        }
        Err(MembershipError::OtherMembers(known.into_iter().collect()))
    }

    /// Adds a replica that receives the log but does not vote. Returns when the change is
    /// committed; `status().followers` tells how far the replica is.
    ///
    /// # Errors
    /// [`MembershipError`].
    pub async fn add_learner(&self, node: NodeId, address: String) -> Result<(), MembershipError> {
        self.change(Change::AddLearner(node, address)).await
    }
    /// Makes exactly these members the voters; former voters stay as learners.
    ///
    /// # Errors
    /// [`MembershipError`].
    pub async fn change_voters(&self, voters: BTreeSet<NodeId>) -> Result<(), MembershipError> {
        self.change(Change::Voters(voters)).await
    }
    /// Removes a learner.
    ///
    /// # Errors
    /// [`MembershipError`].
    pub async fn remove(&self, node: NodeId) -> Result<(), MembershipError> {
        self.change(Change::Remove(node)).await
    }
    async fn change(&self, change: Change) -> Result<(), MembershipError> {
        let leads = self.inner.leadership.check();
        leads.map_err(MembershipError::not_leader)?;
        self.inner.control.change(change).await
    }

    /// Hands the leadership over; returns once another replica leads. While it is on its way,
    /// proposals fail.
    ///
    /// # Errors
    /// [`TransferError`].
    pub async fn transfer_leader(&self, to: NodeId) -> Result<(), TransferError> {
        let inner = &self.inner;
        inner
            .leadership
            .check()
            .map_err(|_| TransferError::NotLeader)?;
        let mut status = self.status();
        {
            let now = status.borrow();
            if to == inner.node || !now.voters.contains(&to) {
                return Err(TransferError::NotAVoter(to));
            }
            let matched = now.followers.get(&to).copied().flatten();
            let matched = matched.unwrap_or_default();
            let lag = now.last_log.saturating_sub(matched);
            // Whoever lacks what the log has no longer, however little, gets a checkpoint first; meanwhile
            // nobody would take proposals.
            if lag > MAX_TRANSFER_LAG || matched < now.purged {
                return Err(TransferError::Behind { node: to, lag });
            }
        }
        inner
            .control
            .transfer_leader(to)
            .await
            .map_err(TransferError::Stopped)?;
        let mine = inner.node;
        let moved = status.wait_for(|now| {
            now.role == Role::Stopped || now.leader.is_some_and(|leader| leader != mine)
        });
        // The target elects itself at once; failing that, somebody does after an election timeout.
        match tokio::time::timeout(inner.timings.election_max * 3, moved).await {
            Ok(Ok(now)) if now.role != Role::Stopped => Ok(()),
            Ok(_) => Err(TransferError::Stopped("while handing over".to_owned())),
            Err(_) => Err(TransferError::Timeout(to)),
        }
    }

    /// Makes a durable checkpoint of everything applied here, unless the last one has it; `status()`
    /// shows it. Goes on to its end when the future is dropped.
    ///
    /// # Errors
    /// [`CheckpointError`]; the previous checkpoint still holds.
    pub async fn checkpoint(&self) -> Result<(), CheckpointError> {
        let making = tokio::spawn(self.inner.control.checkpoint()).await;
        let stopped = |reason: String| CheckpointError::Stopped(reason);
        let covered = making.map_err(|error| stopped(error.to_string()))??;
        let mut status = self.status();
        let seen = status.wait_for(|now| {
            now.role == Role::Stopped || covered.is_none_or(|covered| now.checkpointed >= covered)
        });
        seen.await
            .map(drop)
            .map_err(|error| stopped(error.to_string()))
    }
    /// The last entry that is on the disk of every member, as far as this replica knows: what it sees
    /// when it leads, and else what the leader said last. `None`: not known, or none.
    #[must_use]
    pub fn everywhere(&self) -> Option<u64> {
        self.inner.everywhere.count().checked_sub(1)
    }
    /// Purges the log up to an entry, or to the durable checkpoint if that comes first. Entries a
    /// replication still reads go later.
    ///
    /// # Errors
    /// [`PurgeError`].
    pub async fn purge(&self, upto: u64) -> Result<(), PurgeError> {
        self.inner.control.purge(upto).await
    }

    /// Whom this replica votes for from now on.
    pub fn set_vote_floor(&self, floor: VoteFloor) {
        self.inner.control.set_floor(floor);
    }

    /// Makes the next change on the way to `goal`, if this replica leads, and says which one it
    /// was. To be called again until it answers [`NextChange::Nothing`]; one call at a time.
    ///
    /// # Errors
    /// [`MembershipError`]; the change may or may not have been made, the next call sees which.
    pub async fn reshape(&self, goal: &Goal) -> Result<NextChange, MembershipError> {
        let leads = self.inner.leadership.check();
        leads.map_err(MembershipError::not_leader)?;
        let next = self
            .inner
            .status
            .borrow()
            .next_change(self.inner.node, goal);
        match next.clone() {
            NextChange::Settle | NextChange::CatchUp { .. } | NextChange::Nothing => {}
            NextChange::AddLearner(node) => self.add_learner(node, String::new()).await?,
            NextChange::Remove(node) => self.remove(node).await?,
            NextChange::SetVoters(voters) => self.change_voters(voters).await?,
            NextChange::HandOver(node) => {
                let handed = self.transfer_leader(node).await;
                handed.map_err(|error| MembershipError::Unknown(error.to_string()))?;
            }
        }
        Ok(next)
    }

    /// Stops the replica. Other handles get errors from then on.
    pub async fn shutdown(&self) {
        let inner = &self.inner;
        inner.registry.remove(inner.id);
        inner.control.shutdown().await;
        // What the core handed over becomes durable, so that the group can start again from it.
        if let Err(error) = inner.log.wait_flushed(inner.log.submitted()).await {
            tracing::warn!(group = inner.id.0, %error, "while a group stopped");
        }
        inner.log.cache.forget(inner.id);
        let mut tasks = std::mem::take(&mut *inner.tasks.lock());
        tasks.abort_all();
        while tasks.join_next().await.is_some() {}
    }
}
