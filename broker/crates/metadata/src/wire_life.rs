//! The messages about brokers and plans behind commands and snapshots. Field numbers are for ever;
//! see FORMAT.md.
#![deny(clippy::indexing_slicing)]

use highwater_proto::{NodeId, PartitionId, ShardId, TopicId};
use prost::{Message, Oneof};

use crate::plan::{BrokerState, Floor, Move, MoveState, MoveStep, Plan, PlanKind};
use crate::wire_moves::StoredPartitionMove;

#[derive(Clone, PartialEq, Message)]
pub(crate) struct StartPlan {
    #[prost(message, optional, tag = "1")]
    pub kind: Option<Kind>,
    #[prost(uint32, tag = "2")]
    pub parallel: u32,
    #[prost(bool, tag = "3")]
    pub accept_loss: bool,
}

#[derive(Clone, Copy, PartialEq, Message)]
pub(crate) struct Kind {
    /// 1 rebalance, 2 drain, 3 replace, 4 repair, 5 move a partition, 6 replicate a topic.
    #[prost(uint32, tag = "1")]
    pub what: u32,
    #[prost(uint32, tag = "2")]
    pub broker: u32,
    #[prost(uint32, tag = "3")]
    pub shard: u32,
    #[prost(uint64, tag = "4")]
    pub topic: u64,
    #[prost(uint32, tag = "5")]
    pub partition: u32,
    #[prost(uint32, tag = "6")]
    pub replication_factor: u32,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct AdvanceMove {
    #[prost(uint64, tag = "1")]
    pub plan: u64,
    #[prost(uint32, tag = "2")]
    pub shard: u32,
    #[prost(oneof = "Step", tags = "3, 4, 5, 6, 7")]
    pub step: Option<Step>,
}

#[derive(Clone, Copy, PartialEq, Oneof)]
pub(crate) enum Step {
    #[prost(bool, tag = "3")]
    Expelled(bool),
    #[prost(bool, tag = "4")]
    Learn(bool),
    #[prost(message, tag = "5")]
    Floor(Place),
    #[prost(bool, tag = "6")]
    Done(bool),
    #[prost(bool, tag = "7")]
    Cancelled(bool),
}

#[derive(Clone, Copy, PartialEq, Message)]
pub(crate) struct Place {
    #[prost(uint64, tag = "1")]
    pub term: u64,
    #[prost(uint64, tag = "2")]
    pub index: u64,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct StoredPlan {
    #[prost(uint64, tag = "1")]
    pub id: u64,
    #[prost(message, optional, tag = "2")]
    pub kind: Option<Kind>,
    #[prost(message, repeated, tag = "3")]
    pub moves: Vec<StoredMove>,
    #[prost(uint32, tag = "4")]
    pub parallel: u32,
    #[prost(bool, tag = "5")]
    pub cancelled: bool,
    #[prost(message, repeated, tag = "6")]
    pub partitions: Vec<StoredPartitionMove>,
}

#[derive(Clone, Copy, PartialEq, Message)]
pub(crate) struct StoredMove {
    #[prost(uint32, tag = "1")]
    pub shard: u32,
    #[prost(uint32, tag = "2")]
    pub add: u32,
    /// 0: nobody.
    #[prost(uint32, tag = "3")]
    pub remove: u32,
    #[prost(bool, tag = "4")]
    pub lost: bool,
    /// 1 expelling, 2 waiting, 3 learning, 4 done, 5 cancelled.
    #[prost(uint32, tag = "5")]
    pub state: u32,
}

#[derive(Clone, Copy, PartialEq, Message)]
pub(crate) struct StoredState {
    #[prost(uint32, tag = "1")]
    pub broker: u32,
    /// 1 draining, 2 drained, 3 leaving, 4 replaced, 5 awaited.
    #[prost(uint32, tag = "2")]
    pub state: u32,
}

#[derive(Clone, Copy, PartialEq, Message)]
pub(crate) struct StoredLearner {
    #[prost(uint32, tag = "1")]
    pub broker: u32,
    #[prost(message, optional, tag = "2")]
    pub floor: Option<Place>,
}

impl StartPlan {
    pub(crate) fn new(kind: PlanKind, parallel: u32, accept_loss: bool) -> Self {
        Self {
            kind: Some(kind.into()),
            parallel,
            accept_loss,
        }
    }
}

impl AdvanceMove {
    pub(crate) fn new(plan: u64, shard: ShardId, step: MoveStep) -> Self {
        Self {
            plan,
            shard: shard.0,
            step: Some(step.into()),
        }
    }
}

impl From<PlanKind> for Kind {
    fn from(kind: PlanKind) -> Self {
        let of = |what, broker: NodeId, shard: ShardId| Self {
            what,
            broker: broker.0,
            shard: shard.0,
            ..Self::default()
        };
        match kind {
            PlanKind::Rebalance => of(1, NodeId(0), ShardId(0)),
            PlanKind::Drain(broker) => of(2, broker, ShardId(0)),
            PlanKind::Replace(broker) => of(3, broker, ShardId(0)),
            PlanKind::Repair(broker, shard) => of(4, broker, shard),
            PlanKind::MovePartition(topic, partition, shard) => Self {
                topic: topic.0,
                partition: partition.0,
                ..of(5, NodeId(0), shard)
            },
            PlanKind::Replicate(topic, replication_factor) => Self {
                topic: topic.0,
                replication_factor,
                ..of(6, NodeId(0), ShardId(0))
            },
        }
    }
}

impl TryFrom<Option<Kind>> for PlanKind {
    type Error = &'static str;

    fn try_from(kind: Option<Kind>) -> Result<Self, Self::Error> {
        let unknown = "it is for a kind of plan that this release does not know";
        let kind = kind.ok_or(unknown)?;
        let broker = NodeId(kind.broker);
        match kind.what {
            1 => Ok(Self::Rebalance),
            2 => Ok(Self::Drain(broker)),
            3 => Ok(Self::Replace(broker)),
            4 => Ok(Self::Repair(broker, ShardId(kind.shard))),
            5 => Ok(Self::MovePartition(
                TopicId(kind.topic),
                PartitionId(kind.partition),
                ShardId(kind.shard),
            )),
            6 => Ok(Self::Replicate(
                TopicId(kind.topic),
                kind.replication_factor,
            )),
            _ => Err(unknown),
        }
    }
}

impl From<Floor> for Place {
    fn from(floor: Floor) -> Self {
        Self {
            term: floor.term,
            index: floor.index,
        }
    }
}

impl From<Place> for Floor {
    fn from(place: Place) -> Self {
        Self {
            term: place.term,
            index: place.index,
        }
    }
}

impl From<MoveStep> for Step {
    fn from(step: MoveStep) -> Self {
        match step {
            MoveStep::Expelled => Self::Expelled(true),
            MoveStep::Learn => Self::Learn(true),
            MoveStep::Floor(floor) => Self::Floor(floor.into()),
            MoveStep::Done => Self::Done(true),
            MoveStep::Cancelled => Self::Cancelled(true),
        }
    }
}

impl TryFrom<Option<Step>> for MoveStep {
    type Error = &'static str;

    fn try_from(step: Option<Step>) -> Result<Self, Self::Error> {
        Ok(
            match step.ok_or("it has no step that this release knows")? {
                Step::Expelled(_) => Self::Expelled,
                Step::Learn(_) => Self::Learn,
                Step::Floor(place) => Self::Floor(place.into()),
                Step::Done(_) => Self::Done,
                Step::Cancelled(_) => Self::Cancelled,
            },
        )
    }
}

impl MoveState {
    pub(crate) fn number(self) -> u32 {
        match self {
            Self::Expelling => 1,
            Self::Waiting => 2,
            Self::Learning => 3,
            Self::Done => 4,
            Self::Cancelled => 5,
        }
    }
    pub(crate) fn of_number(number: u32) -> Result<Self, &'static str> {
        match number {
            1 => Ok(Self::Expelling),
            2 => Ok(Self::Waiting),
            3 => Ok(Self::Learning),
            4 => Ok(Self::Done),
            5 => Ok(Self::Cancelled),
            _ => Err("a move has a state that this release does not know"),
        }
    }
}

impl From<&Plan> for StoredPlan {
    fn from(plan: &Plan) -> Self {
        let stored = |step: &Move| StoredMove {
            shard: step.shard.0,
            add: step.add.0,
            remove: step.remove.map_or(0, |node| node.0),
            lost: step.lost,
            state: step.state.number(),
        };
        Self {
            id: plan.id,
            kind: Some(plan.kind.into()),
            moves: plan.moves.iter().map(stored).collect(),
            parallel: plan.parallel,
            cancelled: plan.cancelled,
            partitions: plan.partitions.iter().map(Into::into).collect(),
        }
    }
}

impl TryFrom<StoredPlan> for Plan {
    type Error = &'static str;

    fn try_from(plan: StoredPlan) -> Result<Self, Self::Error> {
        let read = |step: StoredMove| {
            Ok::<_, Self::Error>(Move {
                shard: ShardId(step.shard),
                add: NodeId(step.add),
                remove: Some(NodeId(step.remove)).filter(|node| node.0 != 0),
                lost: step.lost,
                state: MoveState::of_number(step.state)?,
            })
        };
        Ok(Self {
            id: plan.id,
            kind: plan.kind.try_into()?,
            moves: plan.moves.into_iter().map(read).collect::<Result<_, _>>()?,
            parallel: plan.parallel,
            cancelled: plan.cancelled,
            partitions: plan
                .partitions
                .into_iter()
                .map(TryInto::try_into)
                .collect::<Result<_, _>>()?,
        })
    }
}

impl StoredState {
    /// `None`: active brokers are not stored.
    pub(crate) fn of(broker: NodeId, state: BrokerState) -> Option<Self> {
        let state = match state {
            BrokerState::Active => return None,
            BrokerState::Draining => 1,
            BrokerState::Drained => 2,
            BrokerState::Leaving => 3,
            BrokerState::Replaced => 4,
            BrokerState::Awaited => 5,
        };
        let broker = broker.0;
        Some(Self { broker, state })
    }
    pub(crate) fn read(self) -> Result<(NodeId, BrokerState), &'static str> {
        let state = match self.state {
            1 => BrokerState::Draining,
            2 => BrokerState::Drained,
            3 => BrokerState::Leaving,
            4 => BrokerState::Replaced,
            5 => BrokerState::Awaited,
            _ => return Err("a broker has a state that this release does not know"),
        };
        Ok((NodeId(self.broker), state))
    }
}
