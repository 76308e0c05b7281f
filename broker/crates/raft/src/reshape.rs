//! From the members a group has to those it should have: one change at a time, decided from what
//! is. Whoever asks again after a crash comes to the next step, or to none.

use std::collections::BTreeSet;

use highwater_proto::NodeId;

use crate::status::GroupStatus;

/// A replica that lacks at most so many entries counts as caught up: it may vote.
pub(crate) const CAUGHT_UP: u64 = 1_000;

/// The members that a group should have.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Goal {
    /// Who votes, once caught up; never empty.
    pub voters: BTreeSet<NodeId>,
    /// Who only receives. Members that are in neither set are removed.
    pub learners: BTreeSet<NodeId>,
}

/// The next thing to do on the way to a [`Goal`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NextChange {
    /// A change is under way; ask again.
    Settle,
    /// A member is missing.
    AddLearner(NodeId),
    /// A future voter lacks entries.
    CatchUp {
        /// Who.
        node: NodeId,
        /// How many entries; `None`: nothing was heard of it yet.
        lacks: Option<u64>,
    },
    /// The leader is to go: somebody who stays must lead first.
    HandOver(NodeId),
    /// Exactly these vote from now on.
    SetVoters(BTreeSet<NodeId>),
    /// A member that is one no more.
    Remove(NodeId),
    /// The goal is reached, durably.
    Nothing,
}

impl GroupStatus {
    /// The next change towards `goal`, as the leader `me` sees its group. Pure.
    #[must_use]
    pub fn next_change(&self, me: NodeId, goal: &Goal) -> NextChange {
        if !self.settled {
            return NextChange::Settle;
        }
        if self.joint {
            // A leader died between the two halves of a change: the second one is due.
            return NextChange::SetVoters(self.incoming.clone());
        }
        let members: BTreeSet<NodeId> = self.voters.union(&self.learners).copied().collect();
        let wanted: BTreeSet<NodeId> = goal.voters.union(&goal.learners).copied().collect();
        if let Some(stray) = self.learners.difference(&wanted).next() {
            return NextChange::Remove(*stray);
        }
        if let Some(missing) = wanted.difference(&members).next() {
            return NextChange::AddLearner(*missing);
        }
        for node in goal.voters.difference(&self.voters) {
            let matched = self.followers.get(node).copied().flatten();
            let lacks = matched.map(|matched| self.last_log.saturating_sub(matched));
            if lacks.is_none_or(|lacks| lacks > CAUGHT_UP) {
                return NextChange::CatchUp { node: *node, lacks };
            }
        }
        if self.voters == goal.voters {
            return NextChange::Nothing;
        }
        self.next_voters(me, goal)
    }

    fn next_voters(&self, me: NodeId, goal: &Goal) -> NextChange {
        if goal.voters.contains(&me) {
            return NextChange::SetVoters(goal.voters.clone());
        }
        let staying = self.voters.intersection(&goal.voters);
        let nearest = staying.max_by_key(|node| self.followers.get(node).copied().flatten());
        match nearest {
            Some(successor) => NextChange::HandOver(*successor),
            // Nobody who votes stays: old and new vote together until a new one leads.
            None => NextChange::SetVoters(self.voters.union(&goal.voters).copied().collect()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(nodes: &[u32]) -> BTreeSet<NodeId> {
        nodes.iter().copied().map(NodeId).collect()
    }
    fn goal(voters: &[u32], learners: &[u32]) -> Goal {
        Goal {
            voters: set(voters),
            learners: set(learners),
        }
    }

    /// A group whose changes are committed at once and whose members follow at once.
    struct Group {
        status: GroupStatus,
        leader: NodeId,
        changes: usize,
    }

    impl Group {
        fn new(voters: &[u32], leader: u32) -> Self {
            let mut group = Self {
                status: GroupStatus {
                    voters: set(voters),
                    settled: true,
                    last_log: 5_000,
                    ..GroupStatus::default()
                },
                leader: NodeId(leader),
                changes: 0,
            };
            group.all_follow();
            group
        }
        fn all_follow(&mut self) {
            let members = self.status.voters.union(&self.status.learners);
            self.status.followers = members.map(|node| (*node, Some(5_000))).collect();
        }
        fn reach(&mut self, goal: &Goal) {
            loop {
                let before = self.status.voters.clone();
                match self.status.next_change(self.leader, goal) {
                    NextChange::Nothing => return,
                    NextChange::Settle | NextChange::CatchUp { .. } => self.all_follow(),
                    NextChange::AddLearner(node) => {
                        assert!(self.status.learners.insert(node));
                    }
                    NextChange::Remove(node) => assert!(self.status.learners.remove(&node)),
                    NextChange::HandOver(node) => {
                        assert!(self.status.voters.contains(&node));
                        self.leader = node;
                    }
                    NextChange::SetVoters(voters) => {
                        assert!(
                            voters.contains(&self.leader),
                            "a leader never votes itself out"
                        );
                        let members = self.status.voters.union(&self.status.learners);
                        let members: BTreeSet<NodeId> = members.copied().collect();
                        assert!(voters.is_subset(&members), "only members become voters");
                        self.status.learners = members.difference(&voters).copied().collect();
                        self.status.voters = voters;
                    }
                }
                assert!(
                    before.intersection(&self.status.voters).next().is_some(),
                    "somebody always stays"
                );
                self.changes += 1;
                assert!(self.changes < 50, "no end");
            }
        }
    }

    #[test]
    fn every_goal_is_reached_from_everywhere_with_a_leader_that_stays() {
        for leader in [1, 2, 3] {
            for wanted in [
                &[1, 2, 3][..],
                &[2, 3, 4],
                &[4, 5, 6],
                &[1],
                &[1, 2, 3, 4, 5],
            ] {
                let mut group = Group::new(&[1, 2, 3], leader);
                let goal = goal(wanted, &[]);
                group.reach(&goal);
                assert_eq!(group.status.voters, goal.voters);
                assert!(group.status.learners.is_empty());
                assert!(goal.voters.contains(&group.leader));
            }
        }
    }

    #[test]
    fn a_replica_alone_hands_everything_to_another() {
        let mut group = Group::new(&[1], 1);
        group.reach(&goal(&[2], &[]));
        assert_eq!(
            (group.status.voters.clone(), group.leader),
            (set(&[2]), NodeId(2))
        );
    }

    #[test]
    fn nobody_votes_before_it_has_caught_up() {
        let mut group = Group::new(&[1, 2, 3], 1);
        group.status.learners = set(&[4]);
        let goal = goal(&[1, 2, 4], &[]);
        for (matched, lacks) in [(None, None), (Some(3_999), Some(1_001))] {
            group.status.followers.insert(NodeId(4), matched);
            let next = group.status.next_change(NodeId(1), &goal);
            let node = NodeId(4);
            assert_eq!(next, NextChange::CatchUp { node, lacks });
        }
        group.status.followers.insert(NodeId(4), Some(4_000));
        let next = group.status.next_change(NodeId(1), &goal);
        assert_eq!(next, NextChange::SetVoters(set(&[1, 2, 4])));
    }

    #[test]
    fn a_change_that_a_dead_leader_left_is_finished_first() {
        let mut group = Group::new(&[1, 2, 3, 4], 2);
        group.status.joint = true;
        group.status.incoming = set(&[2, 3, 4]);
        let goal = goal(&[1, 2, 3], &[]);
        let next = group.status.next_change(NodeId(2), &goal);
        assert_eq!(next, NextChange::SetVoters(set(&[2, 3, 4])));
        group.status.settled = false;
        let next = group.status.next_change(NodeId(2), &goal);
        assert_eq!(next, NextChange::Settle);
    }
}
