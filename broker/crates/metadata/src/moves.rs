//! Commands about partitions that go from one shard to another applied.
//!
//! The image is where it is decided which shard has a partition: one entry changes it. Before that
//! entry the move can be given up at any time and nothing has to be taken back here; after it the
//! shard that the partition has left forgets it by itself.

use std::sync::Arc;

use highwater_proto::v1::ErrorCode;
use highwater_proto::{PartitionId, ShardId, TopicId};

use crate::command::{MetadataReply, Refusal};
use crate::image::Image;
use crate::level::MetadataLevel;
use crate::lifecycle::refused;
use crate::placement;
use crate::plan::{MoveState, MoveStep, PartitionMove};
use crate::topic::Topic;

impl Image {
    /// A topic whose partitions may be moved.
    fn movable(&self, id: TopicId) -> Result<&Arc<Topic>, Refusal> {
        let Some(topic) = self.topics.get(&id) else {
            let text = format!("no topic has the id {id}");
            return Err(Refusal::new(ErrorCode::UnknownTopic, text));
        };
        let name = topic.name();
        if !topic.is_complete() {
            let text = format!("topic '{name}' is still being set up; try again");
            return Err(Refusal::new(ErrorCode::TopicNotReady, text));
        }
        if topic.settings().cleanup.compact {
            self.has_level(MetadataLevel::COMPACTED_MOVES)?;
        }
        Ok(topic)
    }

    pub(crate) fn move_partition(
        &self,
        id: TopicId,
        partition: PartitionId,
        to: ShardId,
    ) -> Result<Vec<PartitionMove>, Refusal> {
        let topic = self.movable(id)?;
        let Some(from) = topic.shard_of(partition) else {
            let text = format!("topic '{}' has no partition {partition}", topic.name());
            return Err(Refusal::new(ErrorCode::UnknownPartition, text));
        };
        let class = |shard: ShardId| self.shard(shard).map(|shard| shard.class);
        let Some(wanted) = class(to) else {
            return Err(refused(format!(
                "there is no shard {to}; `highwater cluster status --shards` shows all"
            )));
        };
        let has = class(from).unwrap_or(topic.replication_factor);
        if wanted != has {
            return Err(refused(format!(
                "shard {to} has {wanted} replicas and the partition has {has}; `highwater topic \
                 alter {} --replication-factor` gives a topic more",
                topic.name()
            )));
        }
        if from == to {
            return Ok(Vec::new());
        }
        Ok(vec![PartitionMove {
            topic: id,
            partition,
            from,
            to,
            state: MoveState::Waiting,
        }])
    }

    pub(crate) fn replicate(
        &self,
        id: TopicId,
        factor: u32,
    ) -> Result<Vec<PartitionMove>, Refusal> {
        let topic = self.movable(id)?;
        if !matches!(factor, 1 | 3 | 5) {
            return Err(refused(format!(
                "replication factor {factor}: give 1, 3 or 5"
            )));
        }
        if factor < topic.replication_factor {
            return Err(refused(format!(
                "topic '{}' has {} replicas; their number can grow, not shrink",
                topic.name(),
                topic.replication_factor
            )));
        }
        self.check_class(factor)?;
        let lacks = |shard: &ShardId| self.shard(*shard).is_none_or(|s| s.class != factor);
        let leaving: Vec<(PartitionId, ShardId)> = (0..)
            .map(PartitionId)
            .zip(topic.shards())
            .filter(|(_, shard)| lacks(shard))
            .collect();
        let count = u32::try_from(leaving.len()).unwrap_or(u32::MAX);
        let targets = placement::spread_over(self, topic, (count, factor));
        let moves = leaving.into_iter().zip(targets);
        Ok(moves
            .map(|((partition, from), to)| PartitionMove {
                topic: id,
                partition,
                from,
                to,
                state: MoveState::Waiting,
            })
            .collect())
    }

    /// Writes down that a step of a partition's move was done. One that was written down before
    /// changes nothing.
    pub(crate) fn advance_partition(
        &mut self,
        id: u64,
        (topic, partition): (TopicId, PartitionId),
        done: MoveStep,
    ) -> Result<MetadataReply, Refusal> {
        let Some(mut plan) = self.plan.clone().filter(|plan| plan.id == id) else {
            return Err(refused(format!("plan {id} is over")));
        };
        let is_it = |step: &&mut PartitionMove| step.topic == topic && step.partition == partition;
        let Some(step) = Arc::make_mut(&mut plan).partitions.iter_mut().find(is_it) else {
            return Err(refused(format!(
                "plan {id} does not move {topic}-{partition}"
            )));
        };
        match (step.state, done) {
            (MoveState::Waiting, MoveStep::Learn) => {
                if self.shard(step.to).is_none_or(|shard| !shard.established) {
                    let text = format!("shard {} has had no leader yet", step.to);
                    return Err(Refusal::new(ErrorCode::ClusterNotReady, text));
                }
                step.state = MoveState::Learning;
            }
            (MoveState::Learning, MoveStep::Done) => {
                step.state = MoveState::Done;
                let step = *step;
                self.switch(id, &step);
            }
            // Whoever says it is done must learn that it no longer counts.
            (MoveState::Cancelled, _) => return Err(refused(format!("plan {id} was cancelled"))),
            _ => return Ok(MetadataReply::Done),
        }
        self.plan = Some(plan);
        self.end_plan();
        Ok(MetadataReply::Done)
    }

    fn switch(&mut self, plan: u64, step: &PartitionMove) {
        let Some(topic) = self.topics.get_mut(&step.topic) else {
            return;
        };
        let topic = Arc::make_mut(topic);
        if let Some(shard) = topic.shards.get_mut(step.partition.0 as usize) {
            *shard = step.to;
        }
        topic.arrivals.insert(step.partition, plan);
        if let Some(shard) = self.shards.get_mut(&step.from) {
            shard.partitions = shard.partitions.saturating_sub(1);
        }
        if let Some(shard) = self.shards.get_mut(&step.to) {
            shard.partitions += 1;
        }
    }

    /// The plan that gives a topic more replicas has ended.
    pub(crate) fn replicated(&mut self, id: TopicId, factor: u32, cancelled: bool) {
        if let Some(topic) = self.topics.get_mut(&id).filter(|_| !cancelled) {
            Arc::make_mut(topic).replication_factor = factor;
        }
    }

    /// A topic that is deleted has nothing left to be moved.
    pub(crate) fn stop_moving(&mut self, topic: TopicId) {
        let running = self.plan.as_mut().filter(|plan| plan.concerns(topic));
        let Some(plan) = running else { return };
        for step in &mut Arc::make_mut(plan).partitions {
            if step.topic == topic && !step.state.is_final() {
                step.state = MoveState::Cancelled;
            }
        }
        self.end_plan();
    }

    /// Refuses what must not happen to a topic while partitions of it are on their way.
    pub(crate) fn check_not_moving(&self, topic: TopicId, what: &str) -> Result<(), Refusal> {
        let Some(plan) = self.running_plan().filter(|plan| plan.concerns(topic)) else {
            return Ok(());
        };
        Err(refused(format!(
            "plan {} moves partitions of this topic, and {what} meanwhile; wait for it (`highwater \
             cluster plan show`) or cancel it (`highwater cluster plan cancel`)",
            plan.id
        )))
    }
}

#[cfg(test)]
#[path = "moves_tests.rs"]
mod tests;
