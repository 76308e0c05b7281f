//! How far a broker's replicas are, for whoever runs it in its own process and looks on: a simulation.

use std::any::Any;
use std::sync::{Arc, Weak};

use highwater_env::Env;
use highwater_proto::{Offset, ShardId, TopicPartition};
use highwater_raft::GroupStatus;

use super::Broker;

/// A running broker.
pub struct Watched<E: Env>(Weak<Broker<E>>);

/// A replica of a shard, or of the metadata group, at one moment. Places are entries of its log.
#[derive(Debug, Clone)]
pub struct ReplicaMarks {
    /// Of which group.
    pub shard: ShardId,
    /// The same for as long as it is this replica in this process.
    pub identity: Weak<dyn Any + Send + Sync>,
    /// The log begins behind this.
    pub purged: u64,
    /// The last entry in the durable checkpoint.
    pub checkpointed: u64,
    /// The last entry applied.
    pub applied: u64,
    /// The last entry known to be committed.
    pub committed: u64,
    /// The last entry, durable or not.
    pub last_log: u64,
    /// What readers see.
    pub partitions: Vec<PartitionMarks>,
}

/// A partition of a replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartitionMarks {
    /// Which one.
    pub tp: TopicPartition,
    /// The plan whose move brought it to its shard; 0: it was made there.
    pub arrival: u64,
    /// The first offset that may be read.
    pub log_start: Offset,
    /// The first offset that may not be read yet.
    pub high_watermark: Offset,
}

impl<E: Env> Watched<E> {
    pub(super) fn new(broker: &Arc<Broker<E>>) -> Self {
        Self(Arc::downgrade(broker))
    }

    /// Its replicas, in no order; none once the broker is gone.
    #[must_use]
    pub fn marks(&self) -> Vec<ReplicaMarks> {
        let Some(broker) = self.0.upgrade() else {
            return Vec::new();
        };
        let identity = Weak::<Broker<E>>::clone(&self.0);
        let metadata = broker.metadata.group();
        let of_metadata = marks(metadata.id(), identity, &metadata.status().borrow());
        let of_shards = broker.shards.all().into_iter().map(|shard| {
            let identity = Arc::downgrade(&shard);
            let status = shard.group.status().borrow().clone();
            let views = shard.views.all();
            let views = views.into_iter().filter_map(|tp| shard.views.get(tp));
            let partition =
                |view: Arc<crate::runtime::view::PartitionView<E::Disk>>| PartitionMarks {
                    tp: view.topic_partition(),
                    arrival: view.arrival(),
                    log_start: view.log_start(),
                    high_watermark: view.high_watermark(),
                };
            ReplicaMarks {
                partitions: views.map(partition).collect(),
                ..marks(shard.id, identity, &status)
            }
        });
        std::iter::once(of_metadata).chain(of_shards).collect()
    }
}

fn marks(
    shard: ShardId,
    identity: Weak<dyn Any + Send + Sync>,
    status: &GroupStatus,
) -> ReplicaMarks {
    ReplicaMarks {
        shard,
        identity,
        purged: status.purged,
        checkpointed: status.checkpointed,
        applied: status.applied,
        committed: status.committed,
        last_log: status.last_log,
        partitions: Vec::new(),
    }
}
