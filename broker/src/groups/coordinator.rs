//! The coordinator of one shard's groups: hears members, shares partitions out, expels, forgets.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use highwater_env::Env;
use highwater_metadata::{Image, release};
use highwater_proto::internal::GroupSweep;
use highwater_proto::internal::group_command::Action;
use highwater_proto::{NodeId, TopicId};
use highwater_raft::ProposeError;
use highwater_shard::groups::{Group, GroupOutcome, GroupRefusal, assignor};
use highwater_shard::{FeatureLevel, GroupCommand, ShardCommand, ShardReply};
use parking_lot::Mutex;
use tokio::time::Instant;

use super::problem::{self, Patterns};
use super::sessions::{Expiry, Sessions, TICK};
use super::survey::{GroupLag, Survey};
use crate::node::Broker;
use crate::runtime::Shard;

/// A group whose members changed is given this long for more of the same, so that many members that
/// join at once cost a few assignments and few partitions move twice.
const GATHER: Duration = Duration::from_millis(100);
/// After an assignment that could not be proposed, or not be computed yet.
const RETRY: Duration = Duration::from_millis(500);
/// Between two looks for groups to be forgotten. Each moves the shard's clock, which counts at most
/// ten minutes between two entries.
const SWEEP: Duration = Duration::from_mins(5);
/// Between two looks where there is nothing to do.
const IDLE: Duration = Duration::from_secs(5);
const DEADLINE: Duration = Duration::from_secs(5);
const PROPOSALS_AT_ONCE: usize = 16;

/// What is remembered of the groups of one shard while this broker leads it.
#[derive(Debug, Default)]
pub struct Coordinator(Mutex<Memory>);

#[derive(Debug, Default)]
struct Memory {
    /// The leadership that all of it belongs to; none: this broker does not lead, or does not know
    /// yet everything that earlier leaders had decided.
    term: Option<u64>,
    sessions: Sessions,
    survey: Survey,
}

impl Coordinator {
    /// Whether this broker leads and knows all that was decided before. Only then may a member be
    /// told that it is none.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.0.lock().term.is_some()
    }
    /// A member was heard.
    pub fn heard(&self, group: &str, member: &str) {
        self.0.lock().sessions.heard(group, member);
    }
    /// How long ago a member was heard.
    #[must_use]
    pub fn silent_for(&self, group: &str, member: &str) -> Option<Duration> {
        self.0.lock().sessions.silent_for(group, member)
    }
    /// What was last learnt of a group.
    #[must_use]
    pub fn lag(&self, group: &str) -> Option<Arc<GroupLag>> {
        self.0.lock().survey.lags.get(group).cloned()
    }
    pub(super) fn survey<T>(&self, with: impl FnOnce(&mut Survey) -> T) -> T {
        with(&mut self.0.lock().survey)
    }
    fn retire(&self) {
        let mut memory = self.0.lock();
        if memory.term.is_some() {
            *memory = Memory::default();
        }
    }
    fn begin(&self, term: u64, now: Instant) {
        let mut memory = self.0.lock();
        *memory = Memory {
            term: Some(term),
            ..Memory::default()
        };
        memory.sessions.restart(now);
    }
    fn term(&self) -> Option<u64> {
        self.0.lock().term
    }
    fn tick(&self, now: Instant, groups: &[(Arc<str>, Arc<Group>)]) -> Vec<Expiry> {
        self.0.lock().sessions.tick(now, groups)
    }
}

/// Why a command to a group has no verdict.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProposeFailure {
    /// Certainly not written: another broker leads the shard.
    #[error("this broker does not lead the group's shard")]
    NotLeader,
    /// Certainly not written: too much to do.
    #[error("the group's shard is busy")]
    Busy,
    /// Certainly not written: some broker is older than groups.
    #[error("broker {0} runs a release that does not know this; upgrade it first")]
    OldRelease(NodeId),
    /// May or may not be written.
    #[error("the outcome is not known: {0}")]
    Unknown(String),
    /// May or may not be written.
    #[error("no verdict before the deadline")]
    TimedOut,
}

/// Proposes a command to a group of a shard that is led here, and waits until it is applied here.
/// Dropping the future gives up the answer, not the command.
///
/// # Errors
/// [`ProposeFailure`]; inside, what apply refused.
pub async fn propose<E: Env>(
    broker: &Broker<E>,
    shard: &Shard<E::Disk>,
    (group, action): (&str, Action),
    timeout: Duration,
) -> Result<Result<GroupOutcome, GroupRefusal>, ProposeFailure> {
    let deadline = Instant::now() + timeout;
    if shard.groups.rules() < FeatureLevel::GROUPS {
        raise_level(broker, shard, (FeatureLevel::GROUPS, deadline)).await?;
    }
    let command = GroupCommand {
        group: group.to_owned(),
        // The shard's clock counts it: it must be the one that batches are stamped with.
        time_ms: broker.append_time_ms(),
        action: Some(action),
    };
    match send(shard, &ShardCommand::Group(Box::new(command)), deadline).await? {
        ShardReply::Group(outcome) => Ok(outcome),
        other => Err(ProposeFailure::Unknown(format!("unexpected {other:?}"))),
    }
}

async fn send<D: highwater_env::Disk>(
    shard: &Shard<D>,
    command: &ShardCommand,
    deadline: Instant,
) -> Result<ShardReply, ProposeFailure> {
    let proposal = shard.group.propose_ordered(command.encode());
    match tokio::time::timeout_at(deadline, proposal).await {
        Ok(Ok(reply)) => {
            ShardReply::decode(&reply).map_err(|error| ProposeFailure::Unknown(error.to_string()))
        }
        Ok(Err(ProposeError::NotLeader { .. })) => Err(ProposeFailure::NotLeader),
        Ok(Err(ProposeError::Busy)) => Err(ProposeFailure::Busy),
        Ok(Err(ProposeError::Unknown(reason))) => Err(ProposeFailure::Unknown(reason)),
        Err(_elapsed) => Err(ProposeFailure::TimedOut),
    }
}

/// Lets the shard follow the rules of a level, once every replica runs a release that knows them: an
/// older one would stop at the first command that needs them.
///
/// # Errors
/// [`ProposeFailure`].
pub async fn raise_level<E: Env>(
    broker: &Broker<E>,
    shard: &Shard<E::Disk>,
    (level, deadline): (FeatureLevel, Instant),
) -> Result<(), ProposeFailure> {
    let image = broker.cluster.image();
    let replicas = image.shard(shard.id).map(|shard| shard.replicas.as_slice());
    for node in replicas.into_iter().flatten() {
        let known = image.broker(*node);
        if known.is_none_or(|known| release(&known.version) < release(env!("CARGO_PKG_VERSION"))) {
            return Err(ProposeFailure::OldRelease(*node));
        }
    }
    let command = ShardCommand::RaiseFeatureLevel { level };
    send(shard, &command, deadline).await.map(drop)
}

/// Runs beside a hosted shard until the broker stops.
pub async fn coordinate<E: Env>(broker: Arc<Broker<E>>, shard: Arc<Shard<E::Disk>>) {
    let mut work = Work::new(&broker);
    let mut changes = broker.cluster.changes();
    let mut status = shard.group.status();
    let mut seen = status.borrow_and_update().role_in();
    loop {
        let wake = work.next_wake(&shard);
        tokio::select! {
            () = tokio::time::sleep_until(wake) => {}
            // Not of a group that has stopped: nothing changes there any more.
            Ok(_) = status.wait_for(|now| now.role_in() != seen) => {}
            () = shard.groups.changed() => {}
            changed = changes.changed() => if changed.is_err() { return },
            () = broker.stop.cancelled() => return,
        }
        // Before it is acted upon: what changes meanwhile wakes this again.
        seen = status.borrow_and_update().role_in();
        let changed = shard.groups.take_changed();
        if !work.lead(&broker, &shard).await {
            continue;
        }
        work.take_note(&broker, &shard, changed);
        if work.last_tick.elapsed() >= TICK {
            work.last_tick = Instant::now();
            expel(&broker, &shard).await;
            work.sweep(&broker, &shard).await;
        }
        work.assign(&broker, &shard).await;
    }
}

async fn expel<E: Env>(broker: &Arc<Broker<E>>, shard: &Arc<Shard<E::Disk>>) {
    let expired = shard.coordinator.tick(Instant::now(), &shard.groups.all());
    futures_util::stream::iter(expired)
        .for_each_concurrent(PROPOSALS_AT_ONCE, |expiry| async move {
            let member = expiry.remove.member_ids.concat();
            let action = Action::Remove(expiry.remove);
            let outcome = propose(broker, shard, (&expiry.group, action), DEADLINE).await;
            match outcome {
                Ok(Ok(_)) => {
                    metrics::counter!("highwater_group_members_expelled_total").increment(1);
                    tracing::info!(
                        group = &*expiry.group,
                        member,
                        reason = expiry.reason,
                        "member expelled"
                    );
                }
                // It joined again, acknowledged, or left meanwhile.
                Ok(Err(_refused)) => {}
                Err(error) => {
                    tracing::debug!(group = &*expiry.group, member, %error, "not expelled; will repeat");
                }
            }
        })
        .await;
}

/// What the task of one shard remembers from turn to turn.
struct Work {
    last_tick: Instant,
    last_sweep: Instant,
    image: Arc<Image>,
    patterns: Patterns,
    /// Groups to be looked at, and when.
    due: BTreeMap<Arc<str>, Instant>,
}

impl Work {
    fn new<E: Env>(broker: &Broker<E>) -> Self {
        let now = Instant::now();
        Self {
            last_tick: now,
            last_sweep: now,
            image: broker.cluster.image(),
            patterns: Patterns::default(),
            due: BTreeMap::new(),
        }
    }
    /// Time need not pass where there is no group, or another broker leads: a new group, and a new leader, are
    /// told.
    fn next_wake<D: highwater_env::Disk>(&self, shard: &Shard<D>) -> Instant {
        let ready = shard.coordinator.is_ready();
        let nothing = if shard.group.is_leader() {
            ready && shard.groups.is_empty()
        } else {
            !ready
        };
        let tick = self.last_tick.max(Instant::now()) + if nothing { IDLE } else { TICK };
        self.due.values().copied().fold(tick, Instant::min)
    }

    /// Whether this broker leads the shard and knows everything that was decided before it did.
    async fn lead<E: Env>(&mut self, broker: &Arc<Broker<E>>, shard: &Arc<Shard<E::Disk>>) -> bool {
        let leads = || {
            let status = shard.group.status();
            let term = status.borrow().term;
            shard.group.is_leader().then_some(term)
        };
        let Some(term) = leads() else {
            shard.coordinator.retire();
            self.due.clear();
            return false;
        };
        if shard.coordinator.term() == Some(term) {
            return true;
        }
        shard.coordinator.retire();
        if shard.group.read_barrier().await.is_err() || leads() != Some(term) {
            return false;
        }
        let now = Instant::now();
        shard.coordinator.begin(term, now);
        (self.last_tick, self.last_sweep) = (now, now);
        self.image = broker.cluster.image();
        self.look_at_all(shard);
        true
    }

    fn look_at_all<D: highwater_env::Disk>(&mut self, shard: &Shard<D>) {
        let now = Instant::now();
        for (name, group) in shard.groups.all() {
            if !group.members.is_empty() {
                self.due.insert(name, now);
            }
        }
    }

    fn take_note<E: Env>(
        &mut self,
        broker: &Broker<E>,
        shard: &Shard<E::Disk>,
        changed: BTreeSet<Arc<str>>,
    ) {
        let soon = Instant::now() + GATHER;
        for name in changed {
            let group = shard.groups.state(&name);
            if group.is_some_and(|group| group.generation != group.target_generation) {
                self.due.entry(name).or_insert(soon);
            }
        }
        let image = broker.cluster.image();
        if !Arc::ptr_eq(&image, &self.image) {
            self.image = image;
            self.look_at_all(shard);
        }
    }

    /// Shares out the partitions of the groups that are due.
    async fn assign<E: Env>(&mut self, broker: &Arc<Broker<E>>, shard: &Arc<Shard<E::Disk>>) {
        let now = Instant::now();
        let due: Vec<Arc<str>> = self
            .due
            .iter()
            .filter(|(_, at)| **at <= now)
            .map(|(name, _)| Arc::clone(name))
            .collect();
        let mut proposals = Vec::new();
        for name in due {
            self.due.remove(&name);
            let Some(group) = shard.groups.state(&name) else {
                continue;
            };
            let Some(problem) = problem::of(&self.image, &group, &mut self.patterns) else {
                self.due.insert(name, now + RETRY);
                continue;
            };
            let targets = assignor::assign(assignor::strategy_of(&group), &problem);
            if let Some(assign) = assignor::command(&group, &targets) {
                proposals.push((name, assign));
            }
        }
        let failed = futures_util::stream::iter(proposals)
            .map(|(name, assign)| async move {
                let action = Action::Assign(assign);
                let outcome = propose(broker, shard, (&name, action), DEADLINE).await;
                match outcome {
                    Ok(Ok(_)) => {
                        metrics::counter!("highwater_group_assignments_total").increment(1)
                    }
                    // Its members changed meanwhile: that change has made it due again.
                    Ok(Err(_refused)) => {}
                    Err(error) => {
                        tracing::debug!(group = &*name, %error, "not assigned; will repeat");
                        return Some(name);
                    }
                }
                None
            })
            .buffer_unordered(PROPOSALS_AT_ONCE)
            .filter_map(std::future::ready)
            .collect::<Vec<_>>()
            .await;
        let again = Instant::now() + RETRY;
        self.due
            .extend(failed.into_iter().map(|name| (name, again)));
    }

    /// Proposes to forget groups without members, and offsets of topics that were deleted. Which
    /// groups that are is decided in apply, by the shard's clock.
    async fn sweep<E: Env>(&mut self, broker: &Arc<Broker<E>>, shard: &Arc<Shard<E::Disk>>) {
        let retention = Duration::from_millis(broker.config.groups.retention_ms.0);
        if self.last_sweep.elapsed() < SWEEP.min(retention / 2).max(TICK) {
            return;
        }
        self.last_sweep = Instant::now();
        let groups = shard.groups.all();
        let deleted = deleted_topics(&self.image, &groups);
        let dying = groups
            .iter()
            .any(|(_, group)| group.members.is_empty() && group.parked.is_empty());
        if deleted.is_empty() && !dying {
            return;
        }
        let action = Action::Sweep(GroupSweep {
            retention_ms: broker.config.groups.retention_ms.0,
            deleted_topics: deleted.into_iter().map(|topic| topic.0).collect(),
        });
        match propose(broker, shard, ("", action), DEADLINE).await {
            Ok(Ok(outcome)) if outcome.count > 0 => {
                tracing::info!(
                    shard = shard.id.0,
                    groups = outcome.count,
                    "groups forgotten"
                );
            }
            Ok(_) => {}
            Err(error) => tracing::debug!(shard = shard.id.0, %error, "not swept; will repeat"),
        }
    }
}

fn deleted_topics(image: &Image, groups: &[(Arc<str>, Arc<Group>)]) -> BTreeSet<TopicId> {
    let known = groups.iter().flat_map(|(_, group)| {
        let parked = group.parked.iter().map(|(tp, _, _)| tp.topic);
        group.offsets.keys().map(|tp| tp.topic).chain(parked)
    });
    known.filter(|topic| image.was_deleted(*topic)).collect()
}
