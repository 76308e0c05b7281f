//! One group, and the step that brings what its members hold towards what they should hold.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use highwater_proto::TopicPartition;

use super::member::{Holding, Member};
use super::offsets::Committed;
use super::parked::ParkedKeys;

/// One consumer group. Cloning shares what does not change.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Group {
    /// Epoch of the last change of members or of what they subscribe to.
    pub generation: u64,
    /// The generation that the members' targets were computed for.
    pub target_generation: u64,
    /// The shard's clock when it lost its last member.
    pub empty_since_ms: Option<u64>,
    /// Epoch of the last time that keys were unparked.
    pub unparked_epoch: u64,
    /// By id.
    pub members: BTreeMap<Arc<str>, Arc<Member>>,
    /// What is committed.
    pub offsets: Arc<BTreeMap<TopicPartition, Committed>>,
    /// What is parked.
    pub parked: ParkedKeys,
}

/// How far a group is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GroupPhase {
    /// No members.
    Empty,
    /// It is not yet decided who should hold what.
    Assigning,
    /// Some member does not hold yet what it should.
    Reconciling,
    /// Everyone holds what it should.
    Stable,
}

impl Group {
    /// How far it is.
    #[must_use]
    pub fn phase(&self) -> GroupPhase {
        if self.members.is_empty() {
            GroupPhase::Empty
        } else if self.generation != self.target_generation {
            GroupPhase::Assigning
        } else if self.members.values().all(|member| member.is_settled()) {
            GroupPhase::Stable
        } else {
            GroupPhase::Reconciling
        }
    }
    /// Who holds which partition.
    #[must_use]
    pub fn holders(&self) -> BTreeMap<TopicPartition, (&Arc<str>, Holding)> {
        let members = self.members.iter();
        members
            .flat_map(|(id, member)| member.held.iter().map(move |(tp, h)| (*tp, (id, *h))))
            .collect()
    }
    /// The member with a static identity.
    #[must_use]
    pub fn instance(&self, instance_id: &str) -> Option<(&Arc<str>, &Arc<Member>)> {
        let mut members = self.members.iter();
        members.find(|(_, member)| member.instance_id() == Some(instance_id))
    }

    /// Tells members to give up what they should not hold, and grants what they should and nobody
    /// holds. A partition that is being given up stays so, even if its holder should have it again
    /// by now: the holder may have stopped working on it.
    pub(super) fn reconcile(&mut self, epoch: u64) {
        let mut held: BTreeSet<TopicPartition> = BTreeSet::new();
        for member in self.members.values_mut() {
            held.extend(member.held.keys());
            let surplus = |member: &Member| {
                let mut assigned = member.assigned();
                assigned.any(|(tp, _)| !member.target.contains(&tp))
            };
            if surplus(member) {
                let member = Arc::make_mut(member);
                for (tp, holding) in &mut member.held {
                    if holding.revoking == 0 && !member.target.contains(tp) {
                        holding.revoking = epoch;
                    }
                }
                member.epoch = epoch;
            }
        }
        for member in self.members.values_mut() {
            let free = member.target.iter().filter(|tp| !held.contains(tp));
            let free: Vec<TopicPartition> = free.copied().collect();
            if free.is_empty() {
                continue;
            }
            let member = Arc::make_mut(member);
            for tp in free {
                held.insert(tp);
                let holding = Holding {
                    granted: epoch,
                    revoking: 0,
                };
                member.held.insert(tp, holding);
            }
            member.epoch = epoch;
        }
    }
}
