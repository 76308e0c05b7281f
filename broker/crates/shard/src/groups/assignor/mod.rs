//! Who should have which partition: computed by the coordinator, from nothing but its arguments.
//!
//! What comes out is a target. Members get there step by step: see [`super::Group`].

mod range;
mod round_robin;
mod sticky;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use highwater_proto::internal::{GroupAssign, GroupTarget};
use highwater_proto::{PartitionId, TopicId, TopicPartition};

use super::snapshot::by_topic;
use super::state::Group;

/// How partitions are shared out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Strategy {
    /// Balanced, with as few moves as can be, near the member if possible.
    #[default]
    Sticky,
    /// Topic by topic, neighbours to one member.
    Range,
    /// All partitions in turn over all members.
    RoundRobin,
}

impl Strategy {
    /// The strategy of a number in a member's specification; what is unknown is sticky.
    #[must_use]
    pub const fn of(number: u32) -> Self {
        match number {
            2 => Self::Range,
            3 => Self::RoundRobin,
            _ => Self::Sticky,
        }
    }
    /// Its number.
    #[must_use]
    pub const fn number(self) -> u32 {
        match self {
            Self::Sticky => 1,
            Self::Range => 2,
            Self::RoundRobin => 3,
        }
    }
}

/// The racks that hold replicas of a partition.
pub type Racks = Arc<BTreeSet<String>>;

/// A topic as the assignment sees it.
#[derive(Debug, Clone, Default)]
pub struct Topic {
    /// One entry for each partition.
    pub racks: Vec<Racks>,
}

/// A member as the assignment sees it.
#[derive(Debug, Clone, Default)]
pub struct Candidate {
    /// Its member id.
    pub id: Arc<str>,
    /// What it is sorted by: the static identity, if it has one.
    pub key: Arc<str>,
    /// Where it is; empty: nowhere in particular.
    pub rack: String,
    /// What it is subscribed to.
    pub topics: BTreeSet<TopicId>,
    /// What it was to have until now.
    pub current: BTreeSet<TopicPartition>,
}

/// Everything that an assignment is computed from.
#[derive(Debug, Clone, Default)]
pub struct Problem {
    /// Topics that somebody is subscribed to.
    pub topics: BTreeMap<TopicId, Topic>,
    /// The members.
    pub members: Vec<Candidate>,
}

/// What each member should have, by member id.
pub type Targets = BTreeMap<Arc<str>, BTreeSet<TopicPartition>>;

impl Problem {
    /// The members in the order of their keys.
    fn sorted(&self) -> Vec<&Candidate> {
        let mut members: Vec<&Candidate> = self.members.iter().collect();
        members.sort_by(|one, other| (&one.key, &one.id).cmp(&(&other.key, &other.id)));
        members
    }
    fn empty_targets(&self) -> Targets {
        let members = self.members.iter();
        members
            .map(|member| (Arc::clone(&member.id), BTreeSet::new()))
            .collect()
    }
    /// All partitions, in order.
    fn partitions(&self) -> impl Iterator<Item = TopicPartition> + '_ {
        self.topics.iter().flat_map(|(id, topic)| {
            let numbers = (0..).zip(&topic.racks);
            numbers.map(|(number, _)| TopicPartition::new(*id, PartitionId(number)))
        })
    }
}

/// Shares all partitions out.
#[must_use]
pub fn assign(strategy: Strategy, problem: &Problem) -> Targets {
    match strategy {
        Strategy::Sticky => sticky::assign(problem),
        Strategy::Range => range::assign(problem),
        Strategy::RoundRobin => round_robin::assign(problem),
    }
}

/// The strategy of a group: what most members name; of two equally common ones the lower number.
#[must_use]
pub fn strategy_of(group: &Group) -> Strategy {
    let mut votes: BTreeMap<Strategy, usize> = BTreeMap::new();
    for member in group.members.values() {
        *votes.entry(Strategy::of(member.spec.strategy)).or_default() += 1;
    }
    let best = votes
        .into_iter()
        .max_by_key(|(strategy, count)| (*count, std::cmp::Reverse(*strategy)));
    best.map_or_else(Strategy::default, |(strategy, _)| strategy)
}

/// The command that gives a group these targets; `None` when it has them.
#[must_use]
pub fn command(group: &Group, targets: &Targets) -> Option<GroupAssign> {
    let wanted = |id: &Arc<str>| targets.get(id);
    let unchanged = group
        .members
        .iter()
        .all(|(id, member)| wanted(id).map_or(member.target.is_empty(), |t| *t == member.target));
    if unchanged && group.generation == group.target_generation {
        return None;
    }
    let target = |(id, partitions): (&Arc<str>, &BTreeSet<TopicPartition>)| GroupTarget {
        member_id: id.to_string(),
        topics: by_topic(partitions.iter().copied()),
    };
    Some(GroupAssign {
        generation: group.generation,
        targets: targets.iter().map(target).collect(),
    })
}
