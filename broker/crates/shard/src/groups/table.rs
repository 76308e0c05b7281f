//! The groups of a shard, and commands to them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use highwater_proto::internal::group_command::Action;
use highwater_proto::internal::{GroupCommand, GroupSweep};
use highwater_proto::{TimestampMs, TopicId};

use super::limits::{BARE_RETENTION_MS, MAX_GROUPS, MAX_NAME_BYTES};
use super::membership::Outcome;
use super::offsets::When;
use super::reply::{GroupOutcome, GroupRefusal};
use super::state::Group;
use crate::effect::Effect;
use crate::level::FeatureLevel;
use crate::state::{EntryContext, ShardState};

pub(crate) type Groups = BTreeMap<Arc<str>, Arc<Group>>;

impl ShardState {
    /// One group.
    #[must_use]
    pub fn group(&self, name: &str) -> Option<&Arc<Group>> {
        self.groups.get(name)
    }
    /// All groups, by name.
    pub fn groups(&self) -> impl Iterator<Item = (&Arc<str>, &Arc<Group>)> + '_ {
        self.groups.iter()
    }
    /// The shard's clock: append time that has passed in its log, in milliseconds.
    #[must_use]
    pub fn elapsed_ms(&self) -> u64 {
        self.clock.elapsed_ms
    }

    pub(crate) fn apply_group(
        &mut self,
        at: EntryContext,
        command: GroupCommand,
        effects: &mut Vec<Effect>,
    ) -> Outcome {
        let time = TimestampMs(command.time_ms);
        let when = When {
            epoch: at.position,
            now_ms: self.clock.observe(time),
            time,
            rules: self.rules,
        };
        if self.rules < FeatureLevel::GROUPS {
            return Err(GroupRefusal::Unsupported);
        }
        let action = command.action.ok_or(GroupRefusal::Incomplete)?;
        if let Action::Sweep(sweep) = action {
            return Ok(self.sweep_groups(&sweep, when, effects));
        }
        if command.group.is_empty() || command.group.len() > MAX_NAME_BYTES {
            return Err(GroupRefusal::Limit);
        }
        let name: Arc<str> = command.group.into();
        let known = self.groups.get(&name);
        let before = match (&action, known) {
            (_, Some(group)) => Group::clone(group),
            (Action::Delete(_), None) => return Err(GroupRefusal::UnknownGroup),
            (action, None) if makes_a_group(action) => {
                if self.groups.len() >= MAX_GROUPS {
                    return Err(GroupRefusal::TooManyGroups);
                }
                Group {
                    empty_since_ms: Some(when.now_ms),
                    ..Group::default()
                }
            }
            _ => return Err(GroupRefusal::UnknownGroup),
        };
        let exists = known.is_some();
        let news = !matches!(action, Action::Commit(_) | Action::Park(_));
        let (outcome, after) = act(before, exists, action, when)?;
        // What is refused changes nothing, and what changes nothing needs no one's attention.
        if self.groups.get(&name).map(|group| &**group) != after.as_ref() {
            match after {
                Some(group) => drop(self.groups.insert(Arc::clone(&name), Arc::new(group))),
                None => drop(self.groups.remove(&name)),
            }
            effects.push(Effect::GroupChanged { group: name, news });
        }
        Ok(outcome)
    }

    /// Forgets groups that nobody has used for long, and what groups know of deleted topics.
    fn sweep_groups(
        &mut self,
        sweep: &GroupSweep,
        when: When,
        effects: &mut Vec<Effect>,
    ) -> GroupOutcome {
        let deleted: BTreeSet<TopicId> =
            sweep.deleted_topics.iter().copied().map(TopicId).collect();
        let is_gone = |topic: TopicId| deleted.contains(&topic);
        let mut changed: Vec<Arc<str>> = Vec::new();
        for (name, group) in &mut self.groups {
            let knows = group.offsets.keys().any(|tp| is_gone(tp.topic))
                || group.parked.iter().any(|(tp, _, _)| is_gone(tp.topic));
            if !deleted.is_empty() && knows {
                let group = Arc::make_mut(group);
                Arc::make_mut(&mut group.offsets).retain(|tp, _| !is_gone(tp.topic));
                group.parked.forget_topics(is_gone);
                changed.push(Arc::clone(name));
            }
        }
        let dead: Vec<Arc<str>> = self
            .groups
            .iter()
            .filter(|(_, group)| is_dead(group, sweep.retention_ms, when.now_ms))
            .map(|(name, _)| Arc::clone(name))
            .collect();
        for name in &dead {
            self.groups.remove(name);
        }
        let outcome = GroupOutcome::counted(dead.len());
        changed.extend(dead);
        let effect = |group| Effect::GroupChanged { group, news: true };
        effects.extend(changed.into_iter().map(effect));
        outcome
    }
}

/// Parked keys keep a group: they say which records wait in its dead-letter topic.
fn is_dead(group: &Group, retention_ms: u64, now_ms: u64) -> bool {
    let Some(since) = group.empty_since_ms else {
        return false;
    };
    let retention_ms = if group.offsets.is_empty() {
        retention_ms.min(BARE_RETENTION_MS)
    } else {
        retention_ms
    };
    group.members.is_empty()
        && group.parked.is_empty()
        && now_ms.saturating_sub(since) >= retention_ms
}

fn makes_a_group(action: &Action) -> bool {
    match action {
        Action::Join(_) | Action::Copy(_) => true,
        Action::Commit(commit) => commit.member_id.is_empty(),
        _ => false,
    }
}

/// The outcome, and the group afterwards; no group: it is gone.
fn act(
    mut group: Group,
    exists: bool,
    action: Action,
    when: When,
) -> Result<(GroupOutcome, Option<Group>), GroupRefusal> {
    let epoch = when.epoch;
    let outcome = match action {
        Action::Join(join) => group.join(join, epoch)?,
        Action::Acknowledge(ack) => group.acknowledge(&ack, epoch)?,
        Action::Remove(remove) => group.remove(&remove, (epoch, when.now_ms))?,
        Action::Assign(assign) => group.assign(&assign, epoch)?,
        Action::Commit(commit) => group.commit(&commit, when)?,
        Action::Park(park) => group.park(&park, when)?,
        Action::Unpark(unpark) => group.unpark(&unpark, epoch)?,
        Action::Reset(reset) => group.reset(&reset, when)?,
        Action::Copy(copy) if exists => {
            if !group.is_copy(&copy) {
                return Err(GroupRefusal::Exists);
            }
            GroupOutcome::counted(copy.offsets.len())
        }
        Action::Copy(copy) => {
            group = Group::copied(&copy, when)?;
            GroupOutcome::counted(copy.offsets.len())
        }
        Action::Delete(_) if !group.members.is_empty() => return Err(GroupRefusal::NotEmpty),
        Action::Delete(_) => return Ok((GroupOutcome::default(), None)),
        Action::Sweep(_) => return Err(GroupRefusal::Incomplete),
    };
    Ok((outcome, Some(group)))
}
