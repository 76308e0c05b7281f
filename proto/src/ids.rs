//! Newtypes for every id and unit that crosses a crate or the wire.

use std::fmt;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

id!(
    /// A broker's number, chosen by its operator, at least 1.
    NodeId(u32)
);
id!(
    /// A Raft group that hosts partitions. 0 is the metadata group.
    ShardId(u32)
);
id!(
    /// A topic for ever: never reused, also not after deletion and re-creation under its name.
    TopicId(u64)
);
id!(
    /// A partition's number within its topic, from 0.
    PartitionId(u32)
);
id!(
    /// A record's place in its partition, from 0.
    Offset(u64)
);
id!(
    /// A partition's own count of leaderships; never runs backwards.
    LeaderEpoch(u32)
);
id!(
    /// A producer's identity, unique for ever in a cluster.
    ProducerId(u64)
);
id!(
    /// Fences older instances of the same producer id.
    ProducerEpoch(u16)
);
id!(
    /// The sequence number of a batch's first record; wraps from `i32::MAX` to 0.
    BatchSequence(u32)
);
id!(
    /// Milliseconds since the Unix epoch.
    TimestampMs(i64)
);
id!(
    /// A number of bytes.
    ByteSize(u64)
);

impl Offset {
    /// The offset `count` records on.
    #[must_use]
    pub const fn plus(self, count: u64) -> Self {
        Self(self.0.saturating_add(count))
    }
}

/// One partition of one topic.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicPartition {
    /// The topic.
    pub topic: TopicId,
    /// The partition.
    pub partition: PartitionId,
}

impl TopicPartition {
    /// Puts both together.
    #[must_use]
    pub const fn new(topic: TopicId, partition: PartitionId) -> Self {
        Self { topic, partition }
    }
}

impl fmt::Display for TopicPartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.topic, self.partition)
    }
}
