//! Members come, go, and give up what they were told to.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use highwater_proto::internal::{
    GroupAcknowledge, GroupAssign, GroupJoin, GroupMemberSpec, GroupRemove, GroupTopic,
};
use highwater_proto::{PartitionId, TopicId, TopicPartition};

use super::limits::{MAX_MEMBERS, MAX_NAME_BYTES, MAX_SPEC_BYTES};
use super::member::Member;
use super::reply::{GroupOutcome, GroupRefusal};
use super::state::Group;

pub(super) type Outcome = Result<GroupOutcome, GroupRefusal>;

/// The partitions of topics.
pub(super) fn partitions(topics: &[GroupTopic]) -> impl Iterator<Item = TopicPartition> + '_ {
    topics.iter().flat_map(|topic| {
        let id = TopicId(topic.topic);
        let numbers = topic.partitions.iter();
        numbers.map(move |number| TopicPartition::new(id, PartitionId(*number)))
    })
}

/// Whether two members would get the same assignment.
fn same_wishes(one: &GroupMemberSpec, other: &GroupMemberSpec) -> bool {
    one.topics == other.topics
        && one.pattern == other.pattern
        && one.strategy == other.strategy
        && one.rack == other.rack
}

pub(super) fn check_spec(id: &str, spec: &GroupMemberSpec) -> Result<(), GroupRefusal> {
    let texts = [&spec.client_id, &spec.host, &spec.rack, &spec.pattern];
    let bytes = texts.into_iter().chain(&spec.topics).map(String::len);
    let names = [id.len(), spec.instance_id.len()];
    if id.is_empty()
        || names.into_iter().any(|len| len > MAX_NAME_BYTES)
        || bytes.sum::<usize>() > MAX_SPEC_BYTES
    {
        return Err(GroupRefusal::Limit);
    }
    Ok(())
}

impl Group {
    /// The member that a request comes from.
    pub(super) fn caller(&self, id: &str, instance: &str) -> Result<&Arc<Member>, GroupRefusal> {
        if !instance.is_empty()
            && let Some((owner, _)) = self.instance(instance)
            && **owner != *id
        {
            return Err(GroupRefusal::FencedInstance);
        }
        self.members.get(id).ok_or(GroupRefusal::UnknownMember)
    }

    pub(super) fn join(&mut self, join: GroupJoin, epoch: u64) -> Outcome {
        let id: Arc<str> = join.member_id.into();
        let spec = Arc::new(join.spec.unwrap_or_default());
        check_spec(&id, &spec)?;
        let place = match spec.instance_id.as_str() {
            "" => None,
            instance => self.instance(instance),
        };
        let place = place.map(|(id, member)| (Arc::clone(id), Arc::clone(member)));
        if let Some((holder, member)) = place.filter(|(holder, _)| *holder != id) {
            if member.replaced.as_ref() == Some(&id) {
                return Err(GroupRefusal::FencedInstance);
            }
            if self.members.contains_key(&id) {
                // A member cannot be two instances.
                return Err(GroupRefusal::Limit);
            }
            self.take_over((holder, &member), (id, spec), epoch);
            return Ok(GroupOutcome::default());
        }
        if let Some(member) = self.members.get_mut(&id) {
            if member.spec.instance_id != spec.instance_id {
                return Err(GroupRefusal::Limit);
            }
            let changed = !same_wishes(&member.spec, &spec);
            let member = Arc::make_mut(member);
            member.joined = epoch;
            member.spec = spec;
            if changed {
                self.generation = epoch;
            }
            return Ok(GroupOutcome::default());
        }
        if self.members.len() >= MAX_MEMBERS {
            return Err(GroupRefusal::GroupFull);
        }
        let member = Member {
            spec,
            joined: epoch,
            epoch,
            ..Member::default()
        };
        self.members.insert(id, Arc::new(member));
        self.empty_since_ms = None;
        self.generation = epoch;
        Ok(GroupOutcome::default())
    }

    /// A static member came back as another process: it gets the place of the old one at once, and
    /// the old one nothing more. What the old one had to give up is free, because it is fenced.
    fn take_over(
        &mut self,
        (old_id, old): (Arc<str>, &Member),
        (id, spec): (Arc<str>, Arc<GroupMemberSpec>),
        epoch: u64,
    ) {
        let mut held: BTreeMap<_, _> = old.assigned().collect();
        held.values_mut()
            .for_each(|holding| holding.granted = epoch);
        let settled = self.generation == self.target_generation && same_wishes(&old.spec, &spec);
        let member = Member {
            spec,
            joined: epoch,
            epoch,
            replaced: Some(Arc::clone(&old_id)),
            held,
            target: old.target.clone(),
        };
        self.members.remove(&old_id);
        self.members.insert(id, Arc::new(member));
        // A target that was computed for the old one must not be applied.
        self.generation = epoch;
        if settled {
            self.target_generation = epoch;
        }
        self.reconcile(epoch);
    }

    pub(super) fn acknowledge(&mut self, ack: &GroupAcknowledge, epoch: u64) -> Outcome {
        let member = self.caller(&ack.member_id, &ack.instance_id)?;
        if member.owes().is_none_or(|owed| owed > ack.epoch) {
            return Ok(GroupOutcome::default());
        }
        if let Some(member) = self.members.get_mut(ack.member_id.as_str()) {
            let member = Arc::make_mut(member);
            let given_up = |revoking: u64| revoking != 0 && revoking <= ack.epoch;
            member.held.retain(|_, holding| !given_up(holding.revoking));
        }
        self.reconcile(epoch);
        Ok(GroupOutcome::default())
    }

    pub(super) fn remove(&mut self, remove: &GroupRemove, at: (u64, u64)) -> Outcome {
        let (epoch, now_ms) = at;
        let mut gone: BTreeSet<Arc<str>> = BTreeSet::new();
        for (id, member) in &self.members {
            let by_id = remove.member_ids.iter().any(|wanted| **wanted == **id);
            let by_instance = member
                .instance_id()
                .is_some_and(|own| remove.instance_ids.iter().any(|wanted| wanted == own));
            if remove.all || by_id || by_instance {
                if remove.joined != 0 && member.joined != remove.joined {
                    return Err(GroupRefusal::Stale);
                }
                let owes = member.owes();
                if remove.unacknowledged != 0 && owes.is_none_or(|e| e > remove.unacknowledged) {
                    return Err(GroupRefusal::Stale);
                }
                gone.insert(Arc::clone(id));
            }
        }
        if gone.is_empty() {
            return Err(GroupRefusal::UnknownMember);
        }
        self.members.retain(|id, _| !gone.contains(id));
        self.generation = epoch;
        if self.members.is_empty() {
            self.empty_since_ms = Some(now_ms);
            self.target_generation = epoch;
        }
        self.reconcile(epoch);
        Ok(GroupOutcome::counted(gone.len()))
    }

    /// Takes over what the coordinator computed, if it is for the members that there are.
    pub(super) fn assign(&mut self, assign: &GroupAssign, epoch: u64) -> Outcome {
        if assign.generation != self.generation {
            return Err(GroupRefusal::Stale);
        }
        let mut targets: BTreeMap<&str, BTreeSet<TopicPartition>> = BTreeMap::new();
        for target in &assign.targets {
            let wanted = partitions(&target.topics).collect();
            targets.insert(&target.member_id, wanted);
        }
        for (id, member) in &mut self.members {
            let target = targets.remove(&**id).unwrap_or_default();
            if member.target != target {
                Arc::make_mut(member).target = target;
            }
        }
        self.target_generation = self.generation;
        self.reconcile(epoch);
        Ok(GroupOutcome::default())
    }
}
