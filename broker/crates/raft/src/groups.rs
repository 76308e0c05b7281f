//! All groups of a broker over one log and one set of lanes.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Once};

use highwater_env::{Clock as _, Env};
use highwater_proto::{NodeId, ShardId};
use highwater_wal::{GroupId, Op, Wal};
use openraft::Raft;
use openraft::storage::{RaftLogReader as _, RaftLogStorage as _};
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::adapter::{self, Adapter};
use crate::beat::beat;
use crate::cache::EntryCache;
use crate::config::{GroupsConfig, Peers};
use crate::error::StartError;
use crate::everywhere::Everywhere;
use crate::group::{Group, Inner};
use crate::journal::{Journal, WalJournal};
use crate::lane::LaneKind;
use crate::lane::client::{Lane, Route};
use crate::lane::service::RaftService;
use crate::liveness::Cover;
use crate::machine::StateMachine;
use crate::network::{Lanes, Network};
use crate::propose::{Leadership, Proposer};
use crate::registry::Registry;
use crate::replica::{Control, Replica, VoteFloor};
use crate::rotten;
use crate::silence::Silence;
use crate::status::{GroupStatus, Recovery, publish};
use crate::store::{LogStore, VOTES};

/// The lanes to all peers, made when first needed.
struct LaneSet<E: Env> {
    env: E,
    config: GroupsConfig,
    peers: Arc<dyn Peers>,
    lanes: Mutex<BTreeMap<(NodeId, LaneKind), Lane>>,
    tasks: Mutex<JoinSet<()>>,
    /// Where groups' members are, by what the groups say: for peers nobody else knows.
    hints: Mutex<BTreeMap<NodeId, String>>,
}

impl<E: Env> LaneSet<E> {
    fn start(set: &Arc<Self>, peer: NodeId, kind: LaneKind) -> Lane {
        let route = Route {
            net: set.env.net().clone(),
            peer,
            kind,
            peers: Arc::new(WithHints(Arc::downgrade(set))) as Arc<dyn Peers>,
            identity: Arc::clone(&set.config.identity),
        };
        let (lane, task) = Lane::start(route);
        set.tasks.lock().spawn(task);
        lane
    }
}

/// The peers' addresses, else those in the groups' memberships. Weak: lanes live in the set.
struct WithHints<E: Env>(std::sync::Weak<LaneSet<E>>);

impl<E: Env> Peers for WithHints<E> {
    fn address(&self, node: NodeId) -> Option<String> {
        let set = self.0.upgrade()?;
        let known = set.peers.address(node);
        known.or_else(|| {
            set.hints
                .lock()
                .get(&node)
                .filter(|hint| !hint.is_empty())
                .cloned()
        })
    }
    fn heard_clock(&self, node: NodeId, wall_ms: i64) {
        if let Some(set) = self.0.upgrade() {
            set.peers.heard_clock(node, wall_ms);
        }
    }
    fn is_retired(&self, incarnation: &str) -> bool {
        let set = self.0.upgrade();
        set.is_some_and(|set| set.peers.is_retired(incarnation))
    }
}

struct SharedLanes<E: Env>(Arc<LaneSet<E>>);

impl<E: Env> Lanes for SharedLanes<E> {
    fn lane(&self, peer: NodeId, kind: LaneKind, address: &str) -> Lane {
        self.0.hints.lock().insert(peer, address.to_owned());
        let mut lanes = self.0.lanes.lock();
        lanes
            .entry((peer, kind))
            .or_insert_with(|| LaneSet::start(&self.0, peer, kind))
            .clone()
    }
    fn existing(&self, peer: NodeId, kind: LaneKind) -> Option<Lane> {
        self.0.lanes.lock().get(&(peer, kind)).cloned()
    }
}

/// All groups of this broker. Clones share them.
pub struct Groups<E: Env> {
    config: GroupsConfig,
    journal: Arc<dyn Journal>,
    cache: EntryCache,
    lanes: Arc<LaneSet<E>>,
    registry: Arc<Registry>,
    /// The clock of the heartbeats starts with the first group.
    beating: Arc<Once>,
}

impl<E: Env> Clone for Groups<E> {
    fn clone(&self) -> Self {
        Self {
            config: self.config.clone(),
            journal: Arc::clone(&self.journal),
            cache: self.cache.clone(),
            lanes: Arc::clone(&self.lanes),
            registry: Arc::clone(&self.registry),
            beating: Arc::clone(&self.beating),
        }
    }
}

impl<E: Env> fmt::Debug for Groups<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Groups")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

impl<E: Env> Groups<E> {
    /// Groups over an open log. Starts no group.
    #[must_use]
    pub fn new(config: GroupsConfig, env: E, wal: Wal<E>, peers: Arc<dyn Peers>) -> Self {
        let journal = Arc::new(WalJournal {
            wal,
            workers: env.workers(),
        });
        let cache = EntryCache::new(config.cache_bytes);
        let lanes = Arc::new(LaneSet {
            env,
            config: config.clone(),
            peers,
            lanes: Mutex::default(),
            tasks: Mutex::default(),
            hints: Mutex::default(),
        });
        let registry = Arc::new(Registry::new());
        Self {
            config,
            journal,
            cache,
            lanes,
            registry,
            beating: Arc::new(Once::new()),
        }
    }

    /// The service for the lanes of peers, to be put in the broker's internal server.
    #[must_use]
    pub fn service(&self) -> RaftService {
        let env = self.lanes.env.clone();
        RaftService::new(
            Arc::clone(&self.registry),
            (
                Arc::clone(&self.config.identity),
                Arc::clone(&self.config.admission),
            ),
            Arc::clone(&self.lanes.peers),
            Arc::new(move || env.clock().now_ms()),
        )
    }

    /// Starts this broker's replica of a group from what the log and the checkpoint hold. Does not
    /// wait for recovery: see [`Group::wait_for_recovery`].
    ///
    /// # Errors
    /// [`StartError`].
    pub async fn start<S: StateMachine>(
        &self,
        group: ShardId,
        machine: S,
        floor: VoteFloor,
    ) -> Result<Group, StartError> {
        let config = Arc::new(self.config.timings.to_openraft()?);
        if self.registry.get(group.0).is_some() {
            return Err(StartError::Running(group));
        }
        let (store, adapter) = self.recover(group, machine).await?;
        let (shared, current) = (store.shared(), adapter.current());
        let at_start = shared.last_index();
        let everywhere = Everywhere::default();
        let network = Network {
            node: self.config.node_id,
            group,
            lanes: Arc::new(SharedLanes(Arc::clone(&self.lanes))),
            timings: self.config.timings,
            everywhere: everywhere.clone(),
        };
        let raft = Raft::new(network.node.0.into(), config, network, store, adapter).await;
        let raft = raft.map_err(|e| StartError::Fatal {
            group,
            reason: e.to_string(),
        })?;
        let (metrics, leadership) = (raft.metrics(), Leadership(raft.server_metrics()));
        let replica = Arc::new(Replica {
            raft,
            leadership: leadership.clone(),
            log: Arc::clone(&shared),
            current,
            checkpointing: Arc::default(),
            timings: self.config.timings,
            floor: Arc::new(Mutex::new(floor)),
            everywhere: everywhere.clone(),
            silence: Arc::new(Silence::new(&self.config.timings)),
            cover: Arc::new(Mutex::new(Cover::new(&self.config.timings))),
        });
        replica.set_floor(floor);
        let mut tasks = JoinSet::new();
        let (status_sender, status) = watch::channel(GroupStatus::default());
        let (recovery, seen) = (Recovery::new(at_start), everywhere.clone());
        tasks.spawn(publish(group, metrics, recovery, seen, status_sender));
        let control = Arc::clone(&replica) as Arc<dyn Control>;
        let (proposer, task) = Proposer::start(Arc::clone(&control), leadership.clone());
        tasks.spawn(task);
        self.registry.insert(group, replica);
        self.start_beating();
        let inner = Inner {
            id: group,
            node: self.config.node_id,
            control,
            proposer,
            leadership,
            status,
            log: shared,
            everywhere,
            timings: self.config.timings,
            registry: Arc::clone(&self.registry),
            tasks: Mutex::new(tasks),
        };
        Ok(Group {
            inner: Arc::new(inner),
        })
    }

    fn start_beating(&self) {
        self.beating.call_once(|| {
            let lanes = Arc::new(SharedLanes(Arc::clone(&self.lanes)));
            let beat = beat(
                Arc::clone(&self.registry),
                lanes,
                self.config.timings.heartbeat,
            );
            self.lanes.tasks.lock().spawn(beat);
        });
    }

    /// What the log and the checkpoint hold of a group, fitted together.
    async fn recover<S: StateMachine>(
        &self,
        group: ShardId,
        mut machine: S,
    ) -> Result<(LogStore, Adapter<S>), StartError> {
        let log = |reason: String| StartError::Log { group, reason };
        let current = adapter::load(&mut machine)
            .await
            .map_err(|source| StartError::Checkpoint { group, source })?;
        let covered = current.as_ref().and_then(|c| c.meta.last_log_id);
        rotten::give_up(&*self.journal, group, covered)
            .await
            .map_err(|error| log(error.to_string()))?;
        let recovered = self.journal.recovered(GroupId(group.0));
        let (journal, cache) = (Arc::clone(&self.journal), self.cache.clone());
        let mut store = LogStore::open(group, journal, cache, &recovered)
            .map_err(|error| log(error.to_string()))?;
        let adapter = Adapter::new(self.config.node_id, machine, current, store.shared());
        refuse_gap(&mut store, &adapter)
            .await
            .map_err(|error| log(error.to_string()))?;
        cut_conflict(&mut store, &adapter)
            .await
            .map_err(|error| log(error.to_string()))?;
        Ok((store, adapter))
    }

    /// Whether the log holds anything of a group.
    #[must_use]
    pub fn remembers(&self, group: ShardId) -> bool {
        let known = self.journal.recovered(GroupId(group.0));
        known.vote.is_some() || known.purged.is_some() || known.last_index.is_some()
    }

    /// Makes the log forget a group that does not run here any more, its vote included. Only for a
    /// replica that is no member: durable when it returns.
    ///
    /// # Errors
    /// When the group runs, or the log has failed.
    pub async fn forget(&self, group: ShardId) -> std::io::Result<()> {
        if self.registry.get(group.0).is_some() {
            let text = format!("group {group} still runs here");
            return Err(std::io::Error::other(text));
        }
        let (done, durable) = tokio::sync::oneshot::channel();
        let then: highwater_wal::Done = Box::new(move |result| drop(done.send(result)));
        let wal_group = GroupId(group.0);
        self.journal
            .submit(wal_group, vec![Op::Forget], then)
            .await?;
        tracing::debug!(target: VOTES, group = group.0, "forgotten");
        let forgotten = durable.await.map_err(std::io::Error::other)?;
        forgotten.map_err(std::io::Error::other)
    }

    /// Ends the lanes, both ways, and lets none in any more. Groups are shut down one by one,
    /// before.
    pub async fn close(&self) {
        self.registry.close();
        self.lanes.lanes.lock().clear();
        let mut tasks = std::mem::take(&mut *self.lanes.tasks.lock());
        tasks.abort_all();
        while tasks.join_next().await.is_some() {}
    }
}

/// Refuses a log that begins behind the checkpoint: the entries between are gone.
async fn refuse_gap<S: StateMachine>(
    store: &mut LogStore,
    adapter: &Adapter<S>,
) -> std::io::Result<()> {
    let Some(purged) = store.get_log_state().await?.last_purged_log_id else {
        return Ok(());
    };
    if adapter.applied() >= Some(purged) {
        return Ok(());
    }
    let covered = adapter
        .applied()
        .map_or("nothing".to_owned(), |id| id.to_string());
    Err(std::io::Error::other(format!(
        "it is purged up to entry {purged}, but the checkpoint covers {covered}: give \
         this broker's data directory up with `highwater cluster replace`, so that it is filled \
         again from the others"
    )))
}

/// Cuts a log tail that the checkpoint contradicts. A replica that stops between installing a
/// leader's checkpoint and cutting its own uncommitted tail leaves the two side by side.
async fn cut_conflict<S: StateMachine>(
    store: &mut LogStore,
    adapter: &Adapter<S>,
) -> std::io::Result<()> {
    let Some(applied) = adapter.applied() else {
        return Ok(());
    };
    let state = store.get_log_state().await?;
    if state
        .last_log_id
        .is_none_or(|last| last.index() < applied.index())
    {
        return Ok(());
    }
    if state
        .last_purged_log_id
        .is_some_and(|purged| purged.index() >= applied.index())
    {
        return Ok(());
    }
    let there = store
        .reader()
        .limited_get_log_entries(applied.index(), applied.index() + 1)
        .await?;
    if there.first().is_some_and(|entry| entry.log_id == applied) {
        return Ok(());
    }
    let before = match applied.index().checked_sub(1) {
        None => None,
        Some(before) => {
            let kept = store
                .reader()
                .limited_get_log_entries(before, before + 1)
                .await?;
            kept.first()
                .map(|entry| entry.log_id)
                .or(state.last_purged_log_id)
        }
    };
    store.truncate_after(before).await
}

#[cfg(test)]
#[path = "groups_tests.rs"]
mod tests;
