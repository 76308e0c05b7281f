//! The messages about partitions that are moved. Field numbers are for ever; see FORMAT.md.
#![deny(clippy::indexing_slicing)]

use highwater_proto::{PartitionId, ShardId, TopicId};
use prost::Message;

use crate::command::MetadataCommand;
use crate::plan::{MoveState, MoveStep, PartitionMove};
use crate::wire_life::Step;

#[derive(Clone, Copy, PartialEq, Message)]
pub(crate) struct AdvancePartition {
    #[prost(uint64, tag = "1")]
    pub plan: u64,
    #[prost(uint64, tag = "2")]
    pub topic: u64,
    #[prost(oneof = "Step", tags = "3, 4, 5, 6, 7")]
    pub step: Option<Step>,
    #[prost(uint32, tag = "8")]
    pub partition: u32,
}

#[derive(Clone, Copy, PartialEq, Message)]
pub(crate) struct StoredPartitionMove {
    #[prost(uint64, tag = "1")]
    pub topic: u64,
    #[prost(uint32, tag = "2")]
    pub partition: u32,
    #[prost(uint32, tag = "3")]
    pub from: u32,
    #[prost(uint32, tag = "4")]
    pub to: u32,
    /// As of a move of a replica.
    #[prost(uint32, tag = "5")]
    pub state: u32,
}

#[derive(Clone, Copy, PartialEq, Message)]
pub(crate) struct StoredArrival {
    #[prost(uint32, tag = "1")]
    pub partition: u32,
    #[prost(uint64, tag = "2")]
    pub plan: u64,
}

impl AdvancePartition {
    pub(crate) fn new(
        plan: u64,
        (topic, partition): (TopicId, PartitionId),
        step: MoveStep,
    ) -> Self {
        Self {
            plan,
            topic: topic.0,
            partition: partition.0,
            step: Some(step.into()),
        }
    }
}

impl TryFrom<AdvancePartition> for MetadataCommand {
    type Error = &'static str;

    fn try_from(advance: AdvancePartition) -> Result<Self, Self::Error> {
        Ok(Self::AdvancePartition {
            plan: advance.plan,
            topic: TopicId(advance.topic),
            partition: PartitionId(advance.partition),
            step: advance.step.try_into()?,
        })
    }
}

impl From<&PartitionMove> for StoredPartitionMove {
    fn from(step: &PartitionMove) -> Self {
        Self {
            topic: step.topic.0,
            partition: step.partition.0,
            from: step.from.0,
            to: step.to.0,
            state: step.state.number(),
        }
    }
}

impl TryFrom<StoredPartitionMove> for PartitionMove {
    type Error = &'static str;

    fn try_from(step: StoredPartitionMove) -> Result<Self, Self::Error> {
        Ok(Self {
            topic: TopicId(step.topic),
            partition: PartitionId(step.partition),
            from: ShardId(step.from),
            to: ShardId(step.to),
            state: MoveState::of_number(step.state)?,
        })
    }
}
