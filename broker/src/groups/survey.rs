//! What stands still: partitions that nobody owns, members that make no progress, and lag.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use highwater_proto::{Offset, TopicPartition};
use highwater_shard::groups::{Group, GroupPhase};
use tokio::time::Instant;

/// A partition as seen from a group.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct PartitionLag {
    /// Where its log begins.
    pub log_start: Offset,
    /// Where its log ends; `None`: its leader could not be asked.
    pub log_end: Option<Offset>,
    /// Records not finished; `None`: not known.
    pub lag: Option<u64>,
    /// Age of the first of them in seconds; `None`: not known.
    pub lag_seconds: Option<f64>,
}

/// What was last learnt of a group.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct GroupLag {
    /// By partition: all that are held, to be held, or committed.
    pub partitions: BTreeMap<TopicPartition, PartitionLag>,
    /// Since when nobody has owned a partition.
    pub unowned: BTreeMap<TopicPartition, Duration>,
    /// For how long an owned partition with a lag has seen no commit.
    pub stalled: BTreeMap<TopicPartition, Duration>,
}

/// Everything that a group has to do with.
#[must_use]
pub fn universe(group: &Group) -> BTreeSet<TopicPartition> {
    let mut all: BTreeSet<TopicPartition> = group.offsets.keys().copied().collect();
    for member in group.members.values() {
        all.extend(&member.target);
        all.extend(member.held.keys());
    }
    all
}

/// Lag of one partition. Records below the start of the log are gone: nobody waits for them.
/// Without a commit it is known only where there is nothing to read.
#[must_use]
pub fn lag_of(committed: Option<Offset>, log_start: Offset, log_end: Offset) -> Option<u64> {
    match committed {
        Some(at) => Some(log_end.0.saturating_sub(at.max(log_start).0)),
        None if log_start >= log_end => Some(0),
        None => None,
    }
}

/// How long things have stood still, by what one leadership has seen.
#[derive(Debug, Default)]
pub(super) struct Survey {
    groups: HashMap<Arc<str>, Marks>,
    pub(super) lags: BTreeMap<Arc<str>, Arc<GroupLag>>,
}

#[derive(Debug, Default)]
struct Marks {
    unowned: HashMap<TopicPartition, Instant>,
    /// The committed offset (if any), since when.
    commits: HashMap<TopicPartition, (Option<Offset>, Instant)>,
}

impl Survey {
    /// Drops what is remembered of groups that are gone.
    pub fn retain(&mut self, groups: &BTreeSet<Arc<str>>) {
        self.groups.retain(|name, _| groups.contains(name));
        self.lags.retain(|name, _| groups.contains(name));
    }

    /// Takes note of a group as it is now.
    pub fn observe(
        &mut self,
        (name, group): (&Arc<str>, &Group),
        partitions: BTreeMap<TopicPartition, PartitionLag>,
        now: Instant,
    ) -> Arc<GroupLag> {
        let marks = self.groups.entry(Arc::clone(name)).or_default();
        let holders = group.holders();
        let universe = universe(group);
        marks
            .unowned
            .retain(|tp, _| universe.contains(tp) && !holders.contains_key(tp));
        marks.commits.retain(|tp, _| holders.contains_key(tp));
        let mut lag = GroupLag::default();
        for tp in universe {
            let seen = partitions.get(&tp).copied().unwrap_or_default();
            if holders.contains_key(&tp) {
                let committed = group.offsets.get(&tp).map(|c| c.offset);
                let mark = marks.commits.entry(tp).or_insert((committed, now));
                let records = match (seen.lag, seen.log_end) {
                    (Some(lag), _) => lag,
                    // Never committed, and there is something to read.
                    (None, Some(_)) => 1,
                    (None, None) => 0,
                };
                if mark.0 != committed || records == 0 {
                    *mark = (committed, now);
                }
                if now > mark.1 {
                    lag.stalled.insert(tp, now - mark.1);
                }
            } else {
                let since = *marks.unowned.entry(tp).or_insert(now);
                lag.unowned.insert(tp, now - since);
            }
        }
        lag.partitions = partitions;
        let lag = Arc::new(lag);
        self.lags.insert(Arc::clone(name), Arc::clone(&lag));
        lag
    }
}

impl GroupLag {
    /// How long after a session timeout a partition counts as unowned, a member as stalled.
    #[must_use]
    pub fn patience(group: &Group) -> Duration {
        let longest = group.members.values().map(|m| m.spec.session_timeout_ms);
        Duration::from_millis(u64::from(longest.max().unwrap_or(45_000)))
    }
    /// Partitions that nobody has owned for longer than a session timeout.
    #[must_use]
    pub fn long_unowned(&self, group: &Group) -> usize {
        let patience = Self::patience(group);
        self.unowned
            .values()
            .filter(|time| **time > patience)
            .count()
    }
    /// For how long each member has made no progress: everything of it that has a lag stands still,
    /// for longer than a session timeout.
    #[must_use]
    pub fn stalled_members(&self, group: &Group) -> BTreeMap<Arc<str>, Duration> {
        let patience = Self::patience(group);
        let has_lag = |tp: &TopicPartition| {
            self.partitions
                .get(tp)
                .is_some_and(|seen| seen.lag != Some(0) && seen.log_end.is_some())
        };
        let stalled = group.members.iter().filter_map(|(id, member)| {
            let lagging = member.held.keys().filter(|tp| has_lag(tp));
            let shortest = lagging
                .map(|tp| self.stalled.get(tp).copied().unwrap_or_default())
                .min()?;
            (shortest > patience).then(|| (Arc::clone(id), shortest))
        });
        stalled.collect()
    }
    /// What a person should know, one sentence each.
    #[must_use]
    pub fn problems(&self, group: &Group) -> Vec<String> {
        let mut problems = Vec::new();
        let unowned = self.long_unowned(group);
        if unowned > 0 {
            let why = match group.phase() {
                GroupPhase::Empty => "the group has no members",
                GroupPhase::Assigning => "it is not decided yet who gets them",
                GroupPhase::Reconciling => "members have not given them up or taken them over",
                GroupPhase::Stable => "no member is subscribed to them",
            };
            problems.push(format!(
                "{unowned} partitions have been without an owner for longer than a session \
                 timeout: {why}"
            ));
        }
        for (id, time) in self.stalled_members(group) {
            problems.push(format!(
                "member {id} has committed nothing for {} s, though there are records to read",
                time.as_secs()
            ));
        }
        problems
    }
}

#[cfg(test)]
#[path = "survey_tests.rs"]
mod tests;
