//! The state machine as openraft drives it: entries in order, answers to proposers, checkpoints.
//!
//! Step 7 of the produce journey. Members are kept here; the state machine never sees them.
//!
//! A checkpoint is made durable outside openraft (see `checkpoint.rs`), which then learns of it
//! through a builder that has nothing left to do: an error on the way costs a checkpoint, not the
//! group.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _};
use highwater_proto::NodeId;
use openraft::EntryPayload;
use openraft::RaftSnapshotBuilder;
use openraft::storage::{EntryResponder, RaftStateMachine};
use parking_lot::Mutex;

use crate::codec::{decode_meta, encode_meta};
use crate::machine::{Frozen, Position, StateMachine, StoredCheckpoint};
use crate::store::Shared;
use crate::types::{
    LogId, Reply, Snapshot, SnapshotMeta, StoredMembership, TypeConfig, log_id, term_of,
};

/// A checkpoint as openraft passes it around.
#[derive(Debug, Clone)]
pub(crate) struct SnapshotHandle {
    /// Who has what the manifest names.
    pub from: NodeId,
    pub stored: StoredCheckpoint,
}

/// A durable checkpoint and what it covers.
#[derive(Debug, Clone)]
pub(crate) struct Current {
    pub meta: SnapshotMeta,
    pub stored: StoredCheckpoint,
}

/// The newest durable checkpoint of a group.
#[derive(Debug, Default)]
pub(crate) struct Checkpoints {
    pub current: Option<Current>,
    /// openraft is about to ask for a checkpoint in order to hear of this one.
    pub announced: bool,
}

impl Checkpoints {
    /// What it covers.
    pub(crate) fn covered(&self) -> Option<LogId> {
        self.current
            .as_ref()
            .and_then(|current| current.meta.last_log_id)
    }
}

/// The checkpoint, as the state machine's task and the one that makes checkpoints share it.
pub(crate) type CurrentCheckpoint = Arc<Mutex<Checkpoints>>;

/// Has a state machine load its last checkpoint, which is durable then.
pub(crate) async fn load<S: StateMachine>(machine: &mut S) -> io::Result<Option<Current>> {
    let Some(stored) = machine.load().await? else {
        return Ok(None);
    };
    let meta = decode_meta(&stored.raft_meta).map_err(io::Error::other)?;
    Ok(Some(Current { meta, stored }))
}

/// A frozen state and what must be durable before it may be.
pub(crate) struct FrozenState<F> {
    pub frozen: F,
    pub meta: SnapshotMeta,
    /// Submission of the log that holds everything applied.
    pub submission: u64,
}

/// A checkpoint of another replica of which all is here.
pub(crate) struct Prepared<P> {
    content: P,
    current: Current,
}

/// A state machine under openraft.
pub(crate) struct Adapter<S: StateMachine> {
    node: NodeId,
    machine: S,
    applied: Option<LogId>,
    membership: StoredMembership,
    current: CurrentCheckpoint,
    log: Arc<Shared>,
    /// Entries must follow one another. Only openraft's storage suite leaves some out.
    continuous: bool,
}

fn position(id: &LogId) -> Position {
    Position {
        index: id.index(),
        term: term_of(id),
    }
}

impl<S: StateMachine> Adapter<S> {
    /// A state machine that has loaded `current`.
    pub(crate) fn new(
        node: NodeId,
        machine: S,
        current: Option<Current>,
        log: Arc<Shared>,
    ) -> Self {
        let meta = current
            .as_ref()
            .map(|current| current.meta.clone())
            .unwrap_or_default();
        Self {
            node,
            machine,
            applied: meta.last_log_id,
            membership: meta.last_membership,
            current: Arc::new(Mutex::new(Checkpoints {
                current,
                announced: false,
            })),
            log,
            continuous: true,
        }
    }
    #[cfg(test)]
    pub(crate) fn tolerate_gaps(&mut self) {
        self.continuous = false;
    }
    pub(crate) fn current(&self) -> CurrentCheckpoint {
        Arc::clone(&self.current)
    }
    pub(crate) fn applied(&self) -> Option<LogId> {
        self.applied
    }
    fn meta(&self) -> SnapshotMeta {
        SnapshotMeta {
            last_log_id: self.applied,
            last_membership: self.membership.clone(),
        }
    }
    /// Freezes the state, unless the durable checkpoint has all of it, where it is now.
    pub(crate) fn freeze(&mut self) -> Option<FrozenState<S::Frozen>> {
        let has_all = {
            let checkpoints = self.current.lock();
            checkpoints.current.is_some() && checkpoints.covered() >= self.applied
        };
        if has_all && !self.machine.has_moved() {
            return None;
        }
        let at = self.applied.as_ref().map(position).unwrap_or_default();
        let frozen = self.machine.freeze(at);
        // Applied entries were handed to the log before, whether or not they are durable yet.
        Some(FrozenState {
            frozen,
            meta: self.meta(),
            submission: self.log.submitted(),
        })
    }
    /// Fetches a checkpoint that is ahead of the state; `None`: it is not. May be given up at any time.
    pub(crate) async fn prepare_install(
        &mut self,
        meta: SnapshotMeta,
        handle: SnapshotHandle,
    ) -> io::Result<Option<Prepared<S::Prepared>>> {
        if self.applied >= meta.last_log_id {
            return Ok(None);
        }
        let SnapshotHandle { from, stored } = handle;
        let content = self.machine.prepare_install(from, stored.clone()).await?;
        let current = Current { meta, stored };
        Ok(Some(Prepared { content, current }))
    }
    /// Makes it durable and replaces the state. To be waited for to its end.
    pub(crate) async fn finish_install(
        &mut self,
        prepared: Prepared<S::Prepared>,
    ) -> io::Result<()> {
        let Prepared { content, current } = prepared;
        self.machine.finish_install(content).await?;
        self.applied = current.meta.last_log_id;
        self.membership = current.meta.last_membership.clone();
        self.current.lock().current = Some(current);
        Ok(())
    }
    async fn apply_one(&mut self, id: &LogId, payload: crate::types::Content) -> io::Result<Reply> {
        // The reader answers for the very first entry: it never skips what the log has.
        let expected = self
            .applied
            .map_or(id.index(), |applied| applied.index() + 1);
        if id.index() < expected {
            // It came in with an installed checkpoint.
            return Ok(Reply::Covered);
        }
        if self.continuous && id.index() > expected {
            let got = id.index();
            let text = format!("entry {got} to apply where {expected} must come: a short read");
            return Err(io::Error::other(text));
        }
        let at = position(id);
        let reply = match payload {
            EntryPayload::Blank => {
                self.machine.new_term(at);
                Bytes::new()
            }
            EntryPayload::Normal(command) => self.machine.apply(at, command.0).await,
            EntryPayload::Membership(membership) => {
                self.membership = StoredMembership::new(Some(*id), membership);
                Bytes::new()
            }
        };
        self.applied = Some(log_id(at.term, at.index));
        Ok(Reply::Applied(reply))
    }
}

impl<S: StateMachine> RaftStateMachine<TypeConfig> for Adapter<S> {
    type SnapshotData = SnapshotHandle;
    type SnapshotBuilder = Builder<S::Frozen>;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), io::Error> {
        Ok((self.applied, self.membership.clone()))
    }

    async fn apply<Entries>(&mut self, mut entries: Entries) -> Result<(), io::Error>
    where
        Entries: Stream<Item = Result<EntryResponder<TypeConfig>, io::Error>> + Unpin + Send,
    {
        while let Some(next) = entries.next().await {
            let (entry, responder) = next?;
            let reply = self.apply_one(&entry.log_id, entry.payload).await?;
            if let Some(responder) = responder {
                responder.send(reply);
            }
        }
        Ok(())
    }

    async fn try_create_snapshot_builder(&mut self, _force: bool) -> Option<Self::SnapshotBuilder> {
        Some(self.get_snapshot_builder().await)
    }

    async fn get_snapshot_builder(&mut self) -> Self::SnapshotBuilder {
        let (durable, announced) = {
            let mut checkpoints = self.current.lock();
            (
                checkpoints.current.clone(),
                std::mem::take(&mut checkpoints.announced),
            )
        };
        // Only what `checkpoint::take` made and announced is to be handed on as it is. openraft
        // asks by itself when it needs a checkpoint and there is none.
        let frozen = if announced { None } else { self.freeze() };
        Builder {
            node: self.node,
            durable,
            frozen: Mutex::new(frozen),
            current: self.current(),
            log: Arc::clone(&self.log),
        }
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta,
        snapshot: SnapshotHandle,
    ) -> Result<(), io::Error> {
        match self.prepare_install(meta.clone(), snapshot).await? {
            Some(prepared) => self.finish_install(prepared).await,
            None => Ok(()),
        }
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot>, io::Error> {
        Ok(self
            .current
            .lock()
            .current
            .clone()
            .map(|current| snapshot(self.node, current)))
    }
}

fn snapshot(from: NodeId, current: Current) -> Snapshot {
    Snapshot {
        meta: current.meta,
        snapshot: SnapshotHandle {
            from,
            stored: current.stored,
        },
    }
}

/// Hands openraft the newest durable checkpoint; makes the first one if it must.
pub(crate) struct Builder<F> {
    node: NodeId,
    durable: Option<Current>,
    /// In a mutex, so that frozen states need not be shareable.
    frozen: Mutex<Option<FrozenState<F>>>,
    current: CurrentCheckpoint,
    log: Arc<Shared>,
}

/// Makes a frozen state durable: never before the log is durable as far as it was applied, else a
/// crash would leave a state that is ahead of its own log.
pub(crate) async fn persist<F: Frozen>(
    state: FrozenState<F>,
    log: &Shared,
    current: &CurrentCheckpoint,
) -> Result<Current, PersistError> {
    log.wait_flushed(state.submission)
        .await
        .map_err(PersistError::Log)?;
    let raft_meta = encode_meta(&state.meta);
    let manifest = state
        .frozen
        .persist(raft_meta.clone())
        .await
        .map_err(PersistError::Machine)?;
    let made = Current {
        meta: state.meta,
        stored: StoredCheckpoint {
            raft_meta,
            manifest,
        },
    };
    current.lock().current = Some(made.clone());
    Ok(made)
}

/// Why a frozen state did not become durable.
#[derive(Debug)]
pub(crate) enum PersistError {
    Log(io::Error),
    Machine(io::Error),
}

impl<F: Frozen> RaftSnapshotBuilder<TypeConfig> for Builder<F> {
    type SnapshotData = SnapshotHandle;

    async fn build_snapshot(&mut self) -> Result<Snapshot, io::Error> {
        let frozen = self.frozen.lock().take();
        let Some(frozen) = frozen else {
            let durable = self.durable.take();
            let durable = durable.ok_or_else(|| io::Error::other("there is no checkpoint"))?;
            return Ok(snapshot(self.node, durable));
        };
        let made =
            persist(frozen, &self.log, &self.current)
                .await
                .map_err(|error| match error {
                    PersistError::Log(error) | PersistError::Machine(error) => error,
                })?;
        Ok(snapshot(self.node, made))
    }
}
