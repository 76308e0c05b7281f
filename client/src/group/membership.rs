//! What a member holds, what it must give up, what it may acknowledge. Pure: assignments and lost
//! sessions come in, steps come out.
//!
//! Invariants: an assignment is acknowledged only when nothing is held that it does not name under
//! the same grant; after a lost session nothing is held.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use highwater_proto::{PartitionId, TopicId, TopicPartition, v1};

/// One partition that was granted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Grant {
    pub tp: TopicPartition,
    pub topic: Arc<str>,
    /// Tells one grant of a partition from the next.
    pub epoch: u64,
    pub committed: Option<u64>,
}

/// The next step towards the newest assignment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    /// Stop working on these and commit, then say [`Membership::gave_up`].
    GiveUp(Vec<TopicPartition>),
    /// Begin to work on these, then say [`Membership::took`].
    Take(Vec<Grant>),
}

/// A member of a group.
#[derive(Debug)]
pub(crate) struct Membership {
    session_timeout: Duration,
    member: bool,
    /// Epochs of the newest assignment, and of the one in force.
    received: u64,
    acknowledged: u64,
    unparked: u64,
    /// The newest assignment.
    wanted: BTreeMap<TopicPartition, Grant>,
    /// Epochs of the grants that are held.
    held: BTreeMap<TopicPartition, u64>,
    /// Of what is held: the epoch of the last assignment that named it under that grant.
    vouched: BTreeMap<TopicPartition, u64>,
    /// Of what was given up: the grant, and what was committed last. An assignment may take the
    /// revocation back, and what it says is committed is older than the last commit.
    left: BTreeMap<TopicPartition, (u64, u64)>,
    heard: Duration,
}

/// What a heartbeat says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Beat {
    pub received: u64,
    pub acknowledged: u64,
    pub unparked: u64,
}

impl Membership {
    pub(crate) fn new(session_timeout: Duration) -> Self {
        Self {
            session_timeout,
            member: false,
            received: 0,
            acknowledged: 0,
            unparked: 0,
            wanted: BTreeMap::new(),
            held: BTreeMap::new(),
            vouched: BTreeMap::new(),
            left: BTreeMap::new(),
            heard: Duration::ZERO,
        }
    }

    pub(crate) fn is_member(&self) -> bool {
        self.member
    }
    /// The epoch of the newest assignment.
    pub(crate) fn epoch(&self) -> u64 {
        self.received
    }
    /// The epoch to commit a partition under; none: nothing of it is to be committed.
    ///
    /// Not always the newest. A reset grants a partition anew, and what was done under the old grant must
    /// not be committed over it. Nor does an assignment say so of a partition that is being given up.
    pub(crate) fn commit_epoch(&self, tp: TopicPartition) -> Option<u64> {
        let granted = self.held.get(&tp)?;
        let anew = self.wanted.get(&tp).is_some_and(|g| g.epoch != *granted);
        self.vouched.get(&tp).copied().filter(|_| !anew)
    }
    pub(crate) fn beat(&self) -> Beat {
        Beat {
            received: self.received,
            acknowledged: self.acknowledged,
            unparked: self.unparked,
        }
    }

    /// The group has taken the member in.
    pub(crate) fn joined(&mut self, assignment: Option<v1::Assignment>, now: Duration) {
        self.member = true;
        self.heard = now;
        self.assigned(assignment);
    }

    /// A heartbeat was answered. Returns whether keys were unparked.
    pub(crate) fn heard(
        &mut self,
        assignment: Option<v1::Assignment>,
        unparked: u64,
        now: Duration,
    ) -> bool {
        if !self.member {
            return false; // of a session that is over
        }
        self.heard = now;
        self.assigned(assignment);
        let news = unparked > self.unparked;
        self.unparked = self.unparked.max(unparked);
        news
    }

    fn assigned(&mut self, assignment: Option<v1::Assignment>) {
        let Some(assignment) = assignment else { return };
        if assignment.epoch <= self.received && self.received > 0 {
            return; // answers may overtake each other
        }
        self.received = assignment.epoch;
        self.wanted = assignment.topics.iter().flat_map(grants).collect();
        let wanted = &self.wanted;
        self.left.retain(|tp, _| wanted.contains_key(tp));
        for (tp, granted) in &self.held {
            if wanted.get(tp).is_some_and(|grant| grant.epoch == *granted) {
                self.vouched.insert(*tp, self.received);
            }
        }
        self.catch_up();
        if self.wanted.is_empty() && self.held.is_empty() {
            self.acknowledged = self.received;
        }
    }

    /// Nothing was heard for so long that others may work on what is held.
    pub(crate) fn is_silent(&self, now: Duration) -> bool {
        self.member && now >= self.silent_at()
    }
    /// When it will have been so long.
    pub(crate) fn silent_at(&self) -> Duration {
        self.heard + self.session_timeout
    }

    /// The session is over: nothing is held any more.
    pub(crate) fn lost(&mut self) {
        self.member = false;
        self.received = 0;
        self.acknowledged = 0;
        self.wanted.clear();
        self.held.clear();
        self.vouched.clear();
        self.left.clear();
    }

    /// What to do next; nothing when the newest assignment is in force and taken over.
    pub(crate) fn step(&self) -> Option<Step> {
        let names = |tp: &TopicPartition, epoch: &u64| {
            self.wanted
                .get(tp)
                .is_some_and(|grant| grant.epoch == *epoch)
        };
        let surplus = self.held.iter().filter(|(tp, epoch)| !names(tp, epoch));
        let surplus: Vec<_> = surplus.map(|(tp, _)| *tp).collect();
        if !surplus.is_empty() {
            return Some(Step::GiveUp(surplus));
        }
        let missing = self
            .wanted
            .values()
            .filter(|g| !self.held.contains_key(&g.tp));
        let missing: Vec<_> = missing.cloned().collect();
        (!missing.is_empty()).then_some(Step::Take(missing))
    }

    /// Nothing works on these any more; with each, what was committed last. Returns whether there
    /// is something to acknowledge.
    pub(crate) fn gave_up(&mut self, partitions: &[(TopicPartition, Option<u64>)]) -> bool {
        for (tp, committed) in partitions {
            let epoch = self.held.remove(tp);
            self.vouched.remove(tp);
            if let (Some(epoch), Some(committed)) = (epoch, committed) {
                self.left.insert(*tp, (epoch, *committed));
            }
        }
        self.catch_up();
        self.acknowledge()
    }

    /// A grant that is taken up again begins where it was left.
    fn catch_up(&mut self) {
        for (tp, (epoch, committed)) in &self.left {
            if let Some(grant) = self
                .wanted
                .get_mut(tp)
                .filter(|grant| grant.epoch == *epoch)
            {
                grant.committed = grant.committed.max(Some(*committed));
            }
        }
    }

    /// Whether the newest assignment is in force, and was not said to be so far.
    pub(crate) fn acknowledge(&mut self) -> bool {
        let in_force = !matches!(self.step(), Some(Step::GiveUp(_)));
        let news = self.member && in_force && self.acknowledged < self.received;
        if news {
            self.acknowledged = self.received;
        }
        news
    }

    /// Whether a grant is still wanted; if so, it is held now.
    pub(crate) fn take(&mut self, grant: &Grant) -> bool {
        let wanted = self
            .wanted
            .get(&grant.tp)
            .is_some_and(|g| g.epoch == grant.epoch);
        if wanted && !self.held.contains_key(&grant.tp) {
            self.held.insert(grant.tp, grant.epoch);
            self.vouched.insert(grant.tp, self.received);
            return true;
        }
        false
    }
}

fn grants(topic: &v1::AssignedTopic) -> Vec<(TopicPartition, Grant)> {
    // A topic without a name was deleted: there is nothing to read.
    if topic.topic.is_empty() {
        return Vec::new();
    }
    let name: Arc<str> = Arc::from(topic.topic.as_str());
    let grant = |partition: &v1::AssignedPartition| {
        let tp = TopicPartition::new(TopicId(topic.topic_id), PartitionId(partition.partition));
        let grant = Grant {
            tp,
            topic: Arc::clone(&name),
            epoch: partition.granted_epoch,
            committed: partition.committed,
        };
        (tp, grant)
    };
    topic.partitions.iter().map(grant).collect()
}

#[cfg(test)]
#[path = "membership_tests.rs"]
mod tests;
