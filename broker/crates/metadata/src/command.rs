//! Commands that change the image, and the replies to them, as they stand in the log.
#![deny(clippy::indexing_slicing)]

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use highwater_proto::v1::ErrorCode;
use highwater_proto::{NodeId, PartitionId, ProducerId, ShardId, TopicId};
use prost::Message;

use crate::level::MetadataLevel;
use crate::plan::{MoveStep, PlanKind};
use crate::wire;

/// A broker as it presents itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewBroker {
    /// Its number.
    pub id: NodeId,
    /// host:port of its gRPC door.
    pub address: String,
    /// Of its data directory.
    pub incarnation: String,
    /// Its failure domain; may be empty.
    pub rack: String,
    /// Its release.
    pub version: String,
}

/// What the metadata group's log holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MetadataCommand {
    /// The first command: the founders and, with them, the shards. Repeating it changes nothing.
    CreateCluster {
        /// Random, for ever.
        cluster_id: String,
        /// The founders.
        brokers: Vec<NewBroker>,
        /// Replicated shards for each of them, also of a class that the cluster grows into later. 0: as
        /// many as before this was asked.
        shards_per_broker: u32,
    },
    /// A broker came up, perhaps elsewhere than before.
    RegisterBroker(NewBroker),
    /// A shard has had a leader: its first membership exists and is never written again.
    EstablishShard {
        /// Which one.
        shard: ShardId,
    },
    /// A new topic.
    CreateTopic {
        /// Its name.
        name: String,
        /// At least one.
        partitions: u32,
        /// 1, 3 or 5.
        replication_factor: u32,
        /// Keys as Kafka's.
        configs: BTreeMap<String, String>,
    },
    /// Partitions that exist in their shards now.
    ConfirmPartitions {
        /// The topic.
        topic: TopicId,
        /// Its partitions.
        partitions: Vec<PartitionId>,
    },
    /// A topic goes with all its records; its name is free at once, its id is never used again.
    DeleteTopic {
        /// The topic.
        topic: TopicId,
    },
    /// Settings of a topic change.
    AlterTopic {
        /// The topic.
        topic: TopicId,
        /// New values.
        set: BTreeMap<String, String>,
        /// Back to their defaults.
        unset: BTreeSet<String>,
    },
    /// A topic gets more partitions. Repeating it changes nothing.
    AddPartitions {
        /// The topic.
        topic: TopicId,
        /// How many there are to be in all.
        total: u32,
    },
    /// A block of producer ids that is never given again.
    AllocateProducerIds {
        /// How many.
        count: u32,
    },
    /// Replicas are to move. One plan runs at a time.
    StartPlan {
        /// What for.
        kind: PlanKind,
        /// Shards worked on at the same time.
        parallel: u32,
        /// Records that no other broker has may be lost.
        accept_loss: bool,
    },
    /// A step of a plan's move that is done.
    AdvanceMove {
        /// The plan.
        plan: u64,
        /// The move's shard.
        shard: ShardId,
        /// What was done.
        step: MoveStep,
    },
    /// A step of a partition's move that is done: it is being copied (`Learn`), or it is whole in its
    /// new shard, which counts from here on (`Done`).
    AdvancePartition {
        /// The plan.
        plan: u64,
        /// Its topic.
        topic: TopicId,
        /// The partition.
        partition: PartitionId,
        /// What was done.
        step: MoveStep,
    },
    /// No move of the plan begins any more.
    CancelPlan {
        /// The plan.
        plan: u64,
    },
    /// A broker without replicas leaves for good.
    RemoveBroker {
        /// Which one.
        broker: NodeId,
    },
    /// The metadata group no longer counts a broker that was removed or replaced.
    ConfirmExpelled {
        /// Which one.
        broker: NodeId,
    },
    /// Commands of this level may be written from here on: every broker knows them.
    RaiseLevel {
        /// The level.
        level: MetadataLevel,
    },
}

/// Why a command changed nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Stable.
    pub code: ErrorCode,
    /// One line: what, why, what to do.
    pub message: String,
}

impl Refusal {
    pub(crate) fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
        }
    }
}

/// What a command did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MetadataReply {
    /// Done, or done before.
    Done,
    /// The new topic.
    TopicCreated {
        /// Its id.
        topic: TopicId,
    },
    /// A block of producer ids.
    ProducerIds {
        /// The first of them.
        first: ProducerId,
        /// How many.
        count: u32,
    },
    /// A plan runs, or there was nothing to do and it has ended.
    PlanStarted {
        /// Its number.
        plan: u64,
    },
    /// Nothing changed.
    Refused(Refusal),
}

/// Bytes that are no command or reply of this format.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a metadata {what}: {reason}")]
pub struct DecodeError {
    pub(crate) what: &'static str,
    pub(crate) reason: String,
}

impl MetadataCommand {
    /// As bytes of the log.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        wire::Command::from(self).encode_to_vec().into()
    }
    /// From bytes of the log.
    ///
    /// # Errors
    /// [`DecodeError`].
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let failed = |reason: String| DecodeError {
            what: "command",
            reason,
        };
        let message = wire::Command::decode(bytes).map_err(|e| failed(e.to_string()))?;
        let command = message
            .try_into()
            .map_err(|reason: &str| failed(reason.to_owned()))?;
        match command {
            Self::RaiseLevel { level } if !level.is_known() => Err(failed(format!(
                "it raises the level to level {level}, this release knows levels up to {}",
                MetadataLevel::LATEST
            ))),
            known => Ok(known),
        }
    }
}

impl MetadataReply {
    /// As bytes.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        wire::Reply::from(self).encode_to_vec().into()
    }
    /// From bytes.
    ///
    /// # Errors
    /// [`DecodeError`].
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let failed = |reason: String| DecodeError {
            what: "reply",
            reason,
        };
        let message = wire::Reply::decode(bytes).map_err(|e| failed(e.to_string()))?;
        message
            .try_into()
            .map_err(|reason: &str| failed(reason.to_owned()))
    }
}
