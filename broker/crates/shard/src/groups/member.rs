//! One member: what it said of itself, what it holds, what it should hold.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use highwater_proto::TopicPartition;
use highwater_proto::internal::GroupMemberSpec;

/// A partition in a member's hands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Holding {
    /// Epoch since which it is held. Commits made under an earlier one are refused.
    pub granted: u64,
    /// Epoch since which it is to be given up; 0: it is not.
    pub revoking: u64,
}

/// One member of a group.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Member {
    /// What it said of itself.
    pub spec: Arc<GroupMemberSpec>,
    /// Epoch of its last join.
    pub joined: u64,
    /// Epoch of the last change of what it holds.
    pub epoch: u64,
    /// The member whose place it took as the same instance.
    pub replaced: Option<Arc<str>>,
    /// What it holds: nobody else does.
    pub held: BTreeMap<TopicPartition, Holding>,
    /// What it should hold.
    pub target: BTreeSet<TopicPartition>,
}

impl Member {
    /// Its static identity.
    #[must_use]
    pub fn instance_id(&self) -> Option<&str> {
        Some(self.spec.instance_id.as_str()).filter(|id| !id.is_empty())
    }
    /// What it may work on.
    pub fn assigned(&self) -> impl Iterator<Item = (TopicPartition, Holding)> + '_ {
        self.held
            .iter()
            .filter(|(_, holding)| holding.revoking == 0)
            .map(|(tp, holding)| (*tp, *holding))
    }
    /// What it has to give up.
    pub fn revoking(&self) -> impl Iterator<Item = TopicPartition> + '_ {
        self.held
            .iter()
            .filter(|(_, holding)| holding.revoking != 0)
            .map(|(tp, _)| *tp)
    }
    /// The earliest epoch whose acknowledgement it owes.
    #[must_use]
    pub fn owes(&self) -> Option<u64> {
        let revoking = self.held.values().map(|holding| holding.revoking);
        revoking.filter(|epoch| *epoch != 0).min()
    }
    /// Whether it may commit for a partition under an epoch.
    #[must_use]
    pub fn holds_under(&self, tp: TopicPartition, epoch: u64) -> bool {
        epoch <= self.epoch
            && self
                .held
                .get(&tp)
                .is_some_and(|holding| holding.granted <= epoch)
    }
    /// Whether what it holds is what it should hold.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.held.len() == self.target.len()
            && self.assigned().all(|(tp, _)| self.target.contains(&tp))
            && self.owes().is_none()
    }
}
