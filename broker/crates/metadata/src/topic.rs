//! A topic: its partitions' shards and its settings.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use highwater_proto::{ByteSize, PartitionId, ShardId, TopicId};

use crate::configs::{TopicSettings, WriteLimits};

/// One topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topic {
    pub(crate) id: TopicId,
    pub(crate) name: Arc<str>,
    pub(crate) replication_factor: u32,
    pub(crate) configs: BTreeMap<String, String>,
    pub(crate) settings: TopicSettings,
    /// Index = partition.
    pub(crate) shards: Vec<ShardId>,
    pub(crate) unconfirmed: BTreeSet<PartitionId>,
    /// Counts changes of the settings.
    pub(crate) config_version: u64,
    /// How many partitions clients see while more are being made; 0: all of them.
    pub(crate) growing_from: u32,
    /// The plan that last moved a partition; those that never moved are not here.
    pub(crate) arrivals: BTreeMap<PartitionId, u64>,
}

impl Topic {
    /// Its id, for ever.
    #[must_use]
    pub fn id(&self) -> TopicId {
        self.id
    }
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }
    /// Replicas of each partition.
    #[must_use]
    pub fn replication_factor(&self) -> u32 {
        self.replication_factor
    }
    /// What its creator set, as text.
    #[must_use]
    pub fn configs(&self) -> &BTreeMap<String, String> {
        &self.configs
    }
    /// What it is set to, defaults included.
    #[must_use]
    pub fn settings(&self) -> &TopicSettings {
        &self.settings
    }
    /// What a batch must keep to.
    #[must_use]
    pub fn write_limits(&self) -> WriteLimits {
        self.settings.write_limits()
    }
    /// How many times its settings have changed.
    #[must_use]
    pub fn config_version(&self) -> u64 {
        self.config_version
    }
    /// How many partitions it has for clients: those that are being added do not count yet.
    #[must_use]
    pub fn partition_count(&self) -> u32 {
        match self.growing_from {
            0 => u32::try_from(self.shards.len()).unwrap_or(u32::MAX),
            shown => shown,
        }
    }
    /// The shard of a partition.
    #[must_use]
    pub fn shard_of(&self, partition: PartitionId) -> Option<ShardId> {
        self.shards.get(partition.0 as usize).copied()
    }
    /// The plan whose move brought a partition to its shard; 0: it was made there.
    #[must_use]
    pub fn arrival(&self, partition: PartitionId) -> u64 {
        self.arrivals.get(&partition).copied().unwrap_or(0)
    }
    /// The shards of its partitions, in their order, those that are being added included.
    pub fn shards(&self) -> impl Iterator<Item = ShardId> + '_ {
        self.shards.iter().copied()
    }
    /// Whether all partitions that clients see exist in their shards.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        let shown = PartitionId(self.partition_count());
        self.unconfirmed.range(..shown).next().is_none()
    }
    /// Whether all partitions exist in their shards, and none is being added.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.unconfirmed.is_empty()
    }
    /// Whether a partition exists in its shard.
    #[must_use]
    pub fn is_made(&self, partition: PartitionId) -> bool {
        partition.0 < self.partition_count() && !self.unconfirmed.contains(&partition)
    }
    /// Partitions that do not exist in their shards yet.
    pub fn unconfirmed(&self) -> impl Iterator<Item = (PartitionId, ShardId)> + '_ {
        self.unconfirmed
            .iter()
            .filter_map(|p| Some((*p, self.shard_of(*p)?)))
    }
    /// When a segment is closed, by size.
    #[must_use]
    pub fn segment_bytes(&self) -> ByteSize {
        self.settings.segment_bytes
    }
}
