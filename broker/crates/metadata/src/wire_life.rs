//! The messages about brokers and plans behind commands and snapshots. Field numbers are for ever;
//! see FORMAT.md.
#![deny(clippy::indexing_slicing)]

use highwater_proto::{NodeId, ShardId};
use prost::{Message, Oneof};

use crate::plan::{BrokerState, Floor, Move, MoveState, MoveStep, Plan, PlanKind};

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
    /// 1 rebalance, 2 drain, 3 replace, 4 repair.
    #[prost(uint32, tag = "1")]
    pub what: u32,
    #[prost(uint32, tag = "2")]
    pub broker: u32,
    #[prost(uint32, tag = "3")]
    pub shard: u32,
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

impl From<PlanKind> for Kind {
    fn from(kind: PlanKind) -> Self {
        let (what, broker, shard) = match kind {
            PlanKind::Rebalance => (1, 0, 0),
            PlanKind::Drain(broker) => (2, broker.0, 0),
            PlanKind::Replace(broker) => (3, broker.0, 0),
            PlanKind::Repair(broker, shard) => (4, broker.0, shard.0),
        };
        Self {
            what,
            broker,
            shard,
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

impl From<&Plan> for StoredPlan {
    fn from(plan: &Plan) -> Self {
        let stored = |step: &Move| StoredMove {
            shard: step.shard.0,
            add: step.add.0,
            remove: step.remove.map_or(0, |node| node.0),
            lost: step.lost,
            state: match step.state {
                MoveState::Expelling => 1,
                MoveState::Waiting => 2,
                MoveState::Learning => 3,
                MoveState::Done => 4,
                MoveState::Cancelled => 5,
            },
        };
        Self {
            id: plan.id,
            kind: Some(plan.kind.into()),
            moves: plan.moves.iter().map(stored).collect(),
            parallel: plan.parallel,
            cancelled: plan.cancelled,
        }
    }
}

impl TryFrom<StoredPlan> for Plan {
    type Error = &'static str;

    fn try_from(plan: StoredPlan) -> Result<Self, Self::Error> {
        let read = |step: StoredMove| {
            Ok(Move {
                shard: ShardId(step.shard),
                add: NodeId(step.add),
                remove: Some(NodeId(step.remove)).filter(|node| node.0 != 0),
                lost: step.lost,
                state: match step.state {
                    1 => MoveState::Expelling,
                    2 => MoveState::Waiting,
                    3 => MoveState::Learning,
                    4 => MoveState::Done,
                    5 => MoveState::Cancelled,
                    _ => return Err("a move has a state that this release does not know"),
                },
            })
        };
        Ok(Self {
            id: plan.id,
            kind: plan.kind.try_into()?,
            moves: plan.moves.into_iter().map(read).collect::<Result<_, _>>()?,
            parallel: plan.parallel,
            cancelled: plan.cancelled,
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
