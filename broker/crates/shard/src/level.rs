//! The replicated feature level: which rules apply follows.

/// Which rules apply follows. Changed only by a command, so that every replica changes its rules
/// at the same place of the log, whatever release it runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FeatureLevel(pub u32);

impl FeatureLevel {
    /// What every release knows.
    pub const FIRST: Self = Self(1);
    /// From here on a shard hosts consumer groups.
    pub const GROUPS: Self = Self(2);
    /// From here on partitions keep their retention and the version of their settings.
    pub const TOPICS: Self = Self(3);
    /// From here on partitions are compacted.
    pub const COMPACTION: Self = Self(4);
    /// From here on partitions move from shard to shard.
    pub const MOVES: Self = Self(5);
    /// From here on a partition is held while it is copied, and so what is compacted moves, too.
    pub const HOLDS: Self = Self(6);
    /// From here on groups park records of a key in any order.
    pub const PARKS: Self = Self(7);
    /// The highest level that this release knows.
    pub const LATEST: Self = Self(7);

    /// Whether this release can follow the rules of this level.
    #[must_use]
    pub const fn is_supported(self) -> bool {
        Self::FIRST.0 <= self.0 && self.0 <= Self::LATEST.0
    }
}

impl Default for FeatureLevel {
    fn default() -> Self {
        Self::FIRST
    }
}

impl std::fmt::Display for FeatureLevel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}
