//! Committed offsets: by a member for what it holds, from outside while there are no members.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use highwater_proto::internal::{GroupCommit, GroupCopy, GroupOffset, GroupReset};
use highwater_proto::{LeaderEpoch, Offset, PartitionId, TimestampMs, TopicId, TopicPartition};

use super::limits::{MAX_METADATA_BYTES, MAX_OFFSETS};
use super::membership::Outcome;
use super::reply::{GroupOutcome, GroupRefusal, ItemOutcome};
use super::state::Group;
use crate::level::FeatureLevel;

/// A committed offset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Committed {
    /// The first one that is not finished.
    pub offset: Offset,
    /// Of the last record finished; 0: not known.
    pub leader_epoch: LeaderEpoch,
    /// What its committer wrote beside it.
    pub metadata: Arc<str>,
    /// Epoch of the commit.
    pub epoch: u64,
    /// The coordinator's wall clock at the commit.
    pub time: TimestampMs,
}

/// When a command is applied, in every way of counting.
#[derive(Debug, Clone, Copy)]
pub(super) struct When {
    pub epoch: u64,
    /// The shard's clock.
    pub now_ms: u64,
    /// The leader's wall clock.
    pub time: TimestampMs,
    /// The rules that the shard follows.
    pub rules: FeatureLevel,
}

pub(super) fn place(offset: &GroupOffset) -> TopicPartition {
    TopicPartition::new(TopicId(offset.topic), PartitionId(offset.partition))
}

pub(super) fn committed(offset: &GroupOffset, when: When) -> Committed {
    Committed {
        offset: Offset(offset.offset),
        leader_epoch: LeaderEpoch(offset.leader_epoch),
        metadata: offset.metadata.as_str().into(),
        epoch: when.epoch,
        time: when.time,
    }
}

impl Group {
    pub(super) fn commit(&mut self, commit: &GroupCommit, when: When) -> Outcome {
        if commit.member_id.is_empty() {
            if !self.members.is_empty() {
                return Err(GroupRefusal::NotEmpty);
            }
            self.empty_since_ms = Some(when.now_ms);
        } else {
            self.caller(&commit.member_id, &commit.instance_id)?;
        }
        let items = commit.offsets.iter().map(|offset| {
            let refused = self.check_commit(commit, offset).err();
            if refused.is_none() {
                Arc::make_mut(&mut self.offsets).insert(place(offset), committed(offset, when));
            }
            let now = self.offsets.get(&place(offset));
            ItemOutcome {
                refusal: refused,
                value: now.map(|committed| committed.offset.0),
            }
        });
        let items = items.collect();
        Ok(GroupOutcome { items, count: 0 })
    }

    fn check_commit(&self, commit: &GroupCommit, offset: &GroupOffset) -> Result<(), GroupRefusal> {
        let tp = place(offset);
        if !commit.member_id.is_empty() {
            let member = self.members.get(commit.member_id.as_str());
            if !member.is_some_and(|member| member.holds_under(tp, commit.epoch)) {
                return Err(GroupRefusal::FencedMember);
            }
        }
        self.check_offset(offset, commit.allow_rewind)
    }

    /// What holds for every commit, whoever makes it.
    pub(super) fn check_offset(
        &self,
        offset: &GroupOffset,
        allow_rewind: bool,
    ) -> Result<(), GroupRefusal> {
        if offset.metadata.len() > MAX_METADATA_BYTES {
            return Err(GroupRefusal::MetadataTooLarge);
        }
        match self.offsets.get(&place(offset)) {
            Some(now) if offset.offset < now.offset.0 && !allow_rewind => {
                Err(GroupRefusal::CommitBehind)
            }
            None if self.offsets.len() >= MAX_OFFSETS => Err(GroupRefusal::Limit),
            _ => Ok(()),
        }
    }

    /// Moves committed offsets, all at once. Members that hold such partitions are granted them
    /// anew, so that what they did under the old offsets cannot be committed over the new ones.
    pub(super) fn reset(&mut self, reset: &GroupReset, when: When) -> Outcome {
        if !self.members.is_empty() && !reset.force {
            return Err(GroupRefusal::NotEmpty);
        }
        for offset in &reset.offsets {
            self.check_offset(offset, true)?;
        }
        let touched: BTreeSet<TopicPartition> = reset.offsets.iter().map(place).collect();
        let new = touched.iter().filter(|tp| !self.offsets.contains_key(tp));
        if self.offsets.len() + new.count() > MAX_OFFSETS {
            return Err(GroupRefusal::Limit);
        }
        let offsets = Arc::make_mut(&mut self.offsets);
        for offset in &reset.offsets {
            offsets.insert(place(offset), committed(offset, when));
        }
        for member in self.members.values_mut() {
            if member.held.keys().any(|tp| touched.contains(tp)) {
                let member = Arc::make_mut(member);
                for (tp, holding) in &mut member.held {
                    if touched.contains(tp) {
                        holding.granted = when.epoch;
                    }
                }
                member.epoch = when.epoch;
            }
        }
        if self.members.is_empty() {
            self.empty_since_ms = Some(when.now_ms);
        }
        Ok(GroupOutcome::counted(reset.offsets.len()))
    }

    /// A new group with these offsets.
    pub(super) fn copied(copy: &GroupCopy, when: When) -> Result<Self, GroupRefusal> {
        if copy.offsets.len() > MAX_OFFSETS {
            return Err(GroupRefusal::Limit);
        }
        let group = Self {
            generation: when.epoch,
            target_generation: when.epoch,
            empty_since_ms: Some(when.now_ms),
            ..Self::default()
        };
        let mut offsets = BTreeMap::new();
        for offset in &copy.offsets {
            group.check_offset(offset, true)?;
            offsets.insert(place(offset), committed(offset, when));
        }
        Ok(Self {
            offsets: Arc::new(offsets),
            ..group
        })
    }

    /// Whether a copy was made already, by an attempt whose reply was lost.
    pub(super) fn is_copy(&self, copy: &GroupCopy) -> bool {
        let same = |offset: &GroupOffset| {
            self.offsets.get(&place(offset)).is_some_and(|known| {
                known.offset.0 == offset.offset && *known.metadata == *offset.metadata
            })
        };
        self.members.is_empty()
            && self.offsets.len() == copy.offsets.len()
            && copy.offsets.iter().all(same)
    }
}
