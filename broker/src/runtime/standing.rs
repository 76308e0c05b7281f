//! Where a partition stands between two shards, for whoever moves it and whoever serves it.

use bytes::Bytes;
use highwater_proto::TopicPartition;
use highwater_shard::{Phase, ShardState};

/// Where a partition stands.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Standing {
    /// It is served here.
    #[default]
    Serving,
    /// It is served here and copied to another shard: it is not compacted meanwhile.
    Held {
        /// The plan that moves it.
        plan: u64,
    },
    /// A copy that is not whole: nobody sees it.
    Importing,
    /// It leaves: nothing of it changes here any more.
    Fenced {
        /// The plan that moves it.
        plan: u64,
        /// Its state, as the shard that it goes to adopts it.
        state: Bytes,
    },
}

impl Standing {
    /// As the shard's state has it; of a partition that is not there, served.
    #[must_use]
    pub fn of(state: &ShardState, tp: TopicPartition) -> Self {
        let phase = state.partition(tp).map(|facts| facts.phase);
        match phase.unwrap_or_default() {
            Phase::Serving => Self::Serving,
            Phase::Held { plan } => Self::Held { plan },
            Phase::Importing => Self::Importing,
            Phase::Fenced { plan } => Self::Fenced {
                plan,
                state: state.export_partition(tp).unwrap_or_default(),
            },
        }
    }
    /// The plan that has held or fenced it.
    #[must_use]
    pub fn leaves_by(&self) -> Option<u64> {
        match self {
            Self::Held { plan } | Self::Fenced { plan, .. } => Some(*plan),
            Self::Serving | Self::Importing => None,
        }
    }
}
