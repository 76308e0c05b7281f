//! The messages behind commands, replies and snapshots. Field numbers are for ever; see FORMAT.md.
#![deny(clippy::indexing_slicing)]

use std::collections::BTreeMap;

use highwater_proto::v1::ErrorCode;
use highwater_proto::{NodeId, PartitionId, ProducerId, ShardId, TopicId};
use prost::{Message, Oneof};

use crate::command::{MetadataCommand, MetadataReply, NewBroker, Refusal};
use crate::level::MetadataLevel;
use crate::wire_life::{AdvanceMove, StartPlan, StoredLearner, StoredPlan, StoredState};
use crate::wire_moves::{AdvancePartition, StoredArrival};
use crate::wire_topics::{AddPartitions, AlterTopic};

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Command {
    #[prost(
        oneof = "CommandKind",
        tags = "1, 2, 3, 4, 5, 6, 20, 21, 22, 23, 24, 25, 30, 31, 32, 40"
    )]
    pub kind: Option<CommandKind>,
}

#[derive(Clone, PartialEq, Oneof)]
pub(crate) enum CommandKind {
    #[prost(message, tag = "1")]
    CreateCluster(CreateCluster),
    #[prost(message, tag = "2")]
    RegisterBroker(Broker),
    #[prost(uint32, tag = "3")]
    EstablishShard(u32),
    #[prost(message, tag = "4")]
    CreateTopic(CreateTopic),
    #[prost(message, tag = "5")]
    ConfirmPartitions(ConfirmPartitions),
    #[prost(uint32, tag = "6")]
    AllocateProducerIds(u32),
    #[prost(message, tag = "20")]
    StartPlan(StartPlan),
    #[prost(message, tag = "21")]
    AdvanceMove(AdvanceMove),
    #[prost(uint64, tag = "22")]
    CancelPlan(u64),
    #[prost(uint32, tag = "23")]
    RemoveBroker(u32),
    #[prost(uint32, tag = "24")]
    ConfirmExpelled(u32),
    #[prost(message, tag = "25")]
    AdvancePartition(AdvancePartition),
    #[prost(uint64, tag = "30")]
    DeleteTopic(u64),
    #[prost(message, tag = "31")]
    AlterTopic(AlterTopic),
    #[prost(message, tag = "32")]
    AddPartitions(AddPartitions),
    #[prost(uint32, tag = "40")]
    RaiseLevel(u32),
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct CreateCluster {
    #[prost(string, tag = "1")]
    pub cluster_id: String,
    #[prost(message, repeated, tag = "2")]
    pub brokers: Vec<Broker>,
    #[prost(uint32, tag = "3")]
    pub shards_per_broker: u32,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Broker {
    #[prost(uint32, tag = "1")]
    pub id: u32,
    #[prost(string, tag = "2")]
    pub address: String,
    #[prost(string, tag = "3")]
    pub incarnation: String,
    #[prost(string, tag = "4")]
    pub rack: String,
    #[prost(string, tag = "5")]
    pub version: String,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct CreateTopic {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(uint32, tag = "2")]
    pub partitions: u32,
    #[prost(uint32, tag = "3")]
    pub replication_factor: u32,
    #[prost(btree_map = "string, string", tag = "4")]
    pub configs: BTreeMap<String, String>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct ConfirmPartitions {
    #[prost(uint64, tag = "1")]
    pub topic: u64,
    #[prost(uint32, repeated, tag = "2")]
    pub partitions: Vec<u32>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Reply {
    #[prost(oneof = "ReplyKind", tags = "1, 2, 3, 4, 20")]
    pub kind: Option<ReplyKind>,
}

#[derive(Clone, PartialEq, Oneof)]
pub(crate) enum ReplyKind {
    #[prost(bool, tag = "1")]
    Done(bool),
    #[prost(uint64, tag = "2")]
    TopicCreated(u64),
    #[prost(message, tag = "3")]
    ProducerIds(IdBlock),
    #[prost(message, tag = "4")]
    Refused(RefusalMessage),
    #[prost(uint64, tag = "20")]
    PlanStarted(u64),
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct IdBlock {
    #[prost(uint64, tag = "1")]
    pub first: u64,
    #[prost(uint32, tag = "2")]
    pub count: u32,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct RefusalMessage {
    #[prost(int32, tag = "1")]
    pub code: i32,
    #[prost(string, tag = "2")]
    pub message: String,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Snapshot {
    #[prost(uint32, tag = "1")]
    pub version: u32,
    #[prost(string, tag = "2")]
    pub cluster_id: String,
    #[prost(message, repeated, tag = "3")]
    pub brokers: Vec<Broker>,
    #[prost(message, repeated, tag = "4")]
    pub shards: Vec<Shard>,
    #[prost(message, repeated, tag = "5")]
    pub topics: Vec<Topic>,
    #[prost(uint64, tag = "6")]
    pub next_topic: u64,
    #[prost(uint64, tag = "7")]
    pub next_producer: u64,
    #[prost(message, repeated, tag = "20")]
    pub states: Vec<StoredState>,
    #[prost(string, repeated, tag = "21")]
    pub retired: Vec<String>,
    #[prost(message, optional, tag = "22")]
    pub plan: Option<StoredPlan>,
    #[prost(uint64, tag = "23")]
    pub next_plan: u64,
    #[prost(uint32, repeated, tag = "24")]
    pub group_shards: Vec<u32>,
    #[prost(uint32, tag = "30")]
    pub level: u32,
    #[prost(uint32, tag = "31")]
    pub shards_per_broker: u32,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Shard {
    #[prost(uint32, tag = "1")]
    pub id: u32,
    #[prost(uint32, repeated, tag = "2")]
    pub replicas: Vec<u32>,
    #[prost(uint32, tag = "3")]
    pub preferred_leader: u32,
    #[prost(bool, tag = "4")]
    pub established: bool,
    /// Absent: as many as there are replicas.
    #[prost(uint32, optional, tag = "20")]
    pub class: Option<u32>,
    #[prost(message, repeated, tag = "21")]
    pub learners: Vec<StoredLearner>,
    #[prost(uint64, tag = "22")]
    pub beginning: u64,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Topic {
    #[prost(uint64, tag = "1")]
    pub id: u64,
    #[prost(string, tag = "2")]
    pub name: String,
    #[prost(uint32, tag = "3")]
    pub replication_factor: u32,
    #[prost(btree_map = "string, string", tag = "4")]
    pub configs: BTreeMap<String, String>,
    #[prost(uint32, repeated, tag = "5")]
    pub shards: Vec<u32>,
    #[prost(uint32, repeated, tag = "6")]
    pub unconfirmed: Vec<u32>,
    #[prost(uint64, tag = "20")]
    pub config_version: u64,
    #[prost(uint32, tag = "21")]
    pub growing_from: u32,
    #[prost(message, repeated, tag = "22")]
    pub arrivals: Vec<StoredArrival>,
}

impl From<&NewBroker> for Broker {
    fn from(broker: &NewBroker) -> Self {
        Self {
            id: broker.id.0,
            address: broker.address.clone(),
            incarnation: broker.incarnation.clone(),
            rack: broker.rack.clone(),
            version: broker.version.clone(),
        }
    }
}

impl From<Broker> for NewBroker {
    fn from(broker: Broker) -> Self {
        let Broker {
            id,
            address,
            incarnation,
            rack,
            version,
        } = broker;
        Self {
            id: NodeId(id),
            address,
            incarnation,
            rack,
            version,
        }
    }
}

impl From<&MetadataCommand> for Command {
    fn from(command: &MetadataCommand) -> Self {
        let kind = match command {
            MetadataCommand::CreateCluster {
                cluster_id,
                brokers,
                shards_per_broker,
            } => CommandKind::CreateCluster(CreateCluster {
                cluster_id: cluster_id.clone(),
                brokers: brokers.iter().map(Broker::from).collect(),
                shards_per_broker: *shards_per_broker,
            }),
            MetadataCommand::RegisterBroker(broker) => CommandKind::RegisterBroker(broker.into()),
            MetadataCommand::EstablishShard { shard } => CommandKind::EstablishShard(shard.0),
            MetadataCommand::CreateTopic {
                name,
                partitions,
                replication_factor,
                configs,
            } => CommandKind::CreateTopic(CreateTopic {
                name: name.clone(),
                partitions: *partitions,
                replication_factor: *replication_factor,
                configs: configs.clone(),
            }),
            MetadataCommand::ConfirmPartitions { topic, partitions } => {
                CommandKind::ConfirmPartitions(ConfirmPartitions {
                    topic: topic.0,
                    partitions: partitions.iter().map(|p| p.0).collect(),
                })
            }
            MetadataCommand::AllocateProducerIds { count } => {
                CommandKind::AllocateProducerIds(*count)
            }
            MetadataCommand::StartPlan {
                kind,
                parallel,
                accept_loss,
            } => CommandKind::StartPlan(StartPlan::new(*kind, *parallel, *accept_loss)),
            MetadataCommand::AdvanceMove { plan, shard, step } => {
                CommandKind::AdvanceMove(AdvanceMove::new(*plan, *shard, *step))
            }
            MetadataCommand::AdvancePartition {
                plan,
                topic,
                partition,
                step,
            } => CommandKind::AdvancePartition(AdvancePartition::new(
                *plan,
                (*topic, *partition),
                *step,
            )),
            MetadataCommand::CancelPlan { plan } => CommandKind::CancelPlan(*plan),
            MetadataCommand::RemoveBroker { broker } => CommandKind::RemoveBroker(broker.0),
            MetadataCommand::ConfirmExpelled { broker } => CommandKind::ConfirmExpelled(broker.0),
            MetadataCommand::RaiseLevel { level } => CommandKind::RaiseLevel(level.0),
            MetadataCommand::DeleteTopic { topic } => CommandKind::DeleteTopic(topic.0),
            MetadataCommand::AlterTopic { topic, set, unset } => {
                CommandKind::AlterTopic(AlterTopic::new(*topic, set, unset))
            }
            MetadataCommand::AddPartitions { topic, total } => {
                CommandKind::AddPartitions(AddPartitions {
                    topic: topic.0,
                    total: *total,
                })
            }
        };
        Self { kind: Some(kind) }
    }
}

impl TryFrom<Command> for MetadataCommand {
    type Error = &'static str;

    fn try_from(command: Command) -> Result<Self, Self::Error> {
        Ok(
            match command
                .kind
                .ok_or("it has no kind that this release knows")?
            {
                CommandKind::CreateCluster(c) => Self::CreateCluster {
                    cluster_id: c.cluster_id,
                    brokers: c.brokers.into_iter().map(NewBroker::from).collect(),
                    shards_per_broker: c.shards_per_broker,
                },
                CommandKind::RegisterBroker(broker) => Self::RegisterBroker(broker.into()),
                CommandKind::EstablishShard(shard) => Self::EstablishShard {
                    shard: ShardId(shard),
                },
                CommandKind::CreateTopic(t) => Self::CreateTopic {
                    name: t.name,
                    partitions: t.partitions,
                    replication_factor: t.replication_factor,
                    configs: t.configs,
                },
                CommandKind::ConfirmPartitions(c) => Self::ConfirmPartitions {
                    topic: TopicId(c.topic),
                    partitions: c.partitions.into_iter().map(PartitionId).collect(),
                },
                CommandKind::AllocateProducerIds(count) => Self::AllocateProducerIds { count },
                CommandKind::StartPlan(s) => Self::StartPlan {
                    kind: s.kind.try_into()?,
                    parallel: s.parallel,
                    accept_loss: s.accept_loss,
                },
                CommandKind::AdvanceMove(a) => Self::AdvanceMove {
                    plan: a.plan,
                    shard: ShardId(a.shard),
                    step: a.step.try_into()?,
                },
                CommandKind::AdvancePartition(advance) => advance.try_into()?,
                CommandKind::CancelPlan(plan) => Self::CancelPlan { plan },
                CommandKind::RemoveBroker(broker) => Self::RemoveBroker {
                    broker: NodeId(broker),
                },
                CommandKind::ConfirmExpelled(broker) => Self::ConfirmExpelled {
                    broker: NodeId(broker),
                },
                CommandKind::RaiseLevel(level) => Self::RaiseLevel {
                    level: MetadataLevel(level),
                },
                CommandKind::DeleteTopic(topic) => Self::DeleteTopic {
                    topic: TopicId(topic),
                },
                CommandKind::AlterTopic(alter) => alter.into(),
                CommandKind::AddPartitions(add) => Self::AddPartitions {
                    topic: TopicId(add.topic),
                    total: add.total,
                },
            },
        )
    }
}

impl From<&MetadataReply> for Reply {
    fn from(reply: &MetadataReply) -> Self {
        let kind = match reply {
            MetadataReply::Done => ReplyKind::Done(true),
            MetadataReply::TopicCreated { topic } => ReplyKind::TopicCreated(topic.0),
            MetadataReply::ProducerIds { first, count } => ReplyKind::ProducerIds(IdBlock {
                first: first.0,
                count: *count,
            }),
            MetadataReply::PlanStarted { plan } => ReplyKind::PlanStarted(*plan),
            MetadataReply::Refused(refusal) => ReplyKind::Refused(RefusalMessage {
                code: refusal.code.into(),
                message: refusal.message.clone(),
            }),
        };
        Self { kind: Some(kind) }
    }
}

impl TryFrom<Reply> for MetadataReply {
    type Error = &'static str;

    fn try_from(reply: Reply) -> Result<Self, Self::Error> {
        Ok(
            match reply.kind.ok_or("it has no kind that this release knows")? {
                ReplyKind::Done(_) => Self::Done,
                ReplyKind::TopicCreated(topic) => Self::TopicCreated {
                    topic: TopicId(topic),
                },
                ReplyKind::ProducerIds(block) => Self::ProducerIds {
                    first: ProducerId(block.first),
                    count: block.count,
                },
                ReplyKind::PlanStarted(plan) => Self::PlanStarted { plan },
                ReplyKind::Refused(refusal) => Self::Refused(Refusal {
                    code: ErrorCode::try_from(refusal.code).unwrap_or(ErrorCode::Internal),
                    message: refusal.message,
                }),
            },
        )
    }
}
