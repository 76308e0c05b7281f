//! The replicated level of the metadata group: which commands its log may hold.
//!
//! A broker that does not know a command must stop at it. So a command that came with a later release
//! is not written before the level that it needs was raised, and that happens when every registered
//! broker runs a release that knows the level. From then on no older one is registered.

use highwater_proto::v1::ErrorCode;

use crate::command::{MetadataCommand, MetadataReply, NewBroker, Refusal};
use crate::image::Image;
use crate::plan::PlanKind;

/// Which commands may be written. Changed only by a command, and never lowered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MetadataLevel(pub u32);

impl MetadataLevel {
    /// What every release knows.
    pub const FIRST: Self = Self(1);
    /// From here on the level is part of the image, and brokers of releases that do not know it are
    /// not registered.
    pub const GATED: Self = Self(2);
    /// From here on partitions move from shard to shard.
    pub const MOVES: Self = Self(3);
    /// From here on partitions of compacted topics do, too.
    pub const COMPACTED_MOVES: Self = Self(4);
    /// From here on a founding may say how many shards there are for each broker.
    pub const SIZED: Self = Self(5);
    /// The highest level that this release knows.
    pub const LATEST: Self = Self::SIZED;

    /// The first release that knows each level; for ever. A release that has a new command adds a
    /// line.
    const SINCE: [(Self, &str); 5] = [
        (Self::FIRST, "0.0.0"),
        (Self::GATED, "0.1.0"),
        (Self::MOVES, "0.1.0"),
        (Self::COMPACTED_MOVES, "0.1.0"),
        (Self::SIZED, "0.1.0"),
    ];

    /// The highest level, of those known here, that a release knows.
    #[must_use]
    pub fn of_release(version: &str) -> Self {
        let numbers = release(version);
        let known = |(_, since): &&(Self, &str)| release(since) <= numbers;
        let level = Self::SINCE.iter().rev().find(known);
        level.map_or(Self::FIRST, |(level, _)| *level)
    }
    /// The first release that knows it.
    fn since(self) -> &'static str {
        let known = Self::SINCE.iter().find(|(level, _)| *level == self);
        known.map_or("a later one", |(_, since)| since)
    }
    /// Whether this release knows the level.
    #[must_use]
    pub const fn is_known(self) -> bool {
        Self::FIRST.0 <= self.0 && self.0 <= Self::LATEST.0
    }
}

impl Default for MetadataLevel {
    fn default() -> Self {
        Self::FIRST
    }
}

impl std::fmt::Display for MetadataLevel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// The numbers of a release, to be compared; what is none counts as the lowest.
#[must_use]
pub fn release(version: &str) -> Vec<u64> {
    let core = version.split(['-', '+', ' ']).next().unwrap_or_default();
    core.split('.')
        .map(|part| part.parse().unwrap_or(0))
        .collect()
}

impl MetadataCommand {
    /// The level that its log must have. A command that a later release brings, or a new kind of an
    /// old one (of plan, say), needs the level that came with it.
    #[must_use]
    pub fn level(&self) -> MetadataLevel {
        match self {
            Self::StartPlan {
                kind: PlanKind::MovePartition(..) | PlanKind::Replicate(..),
                ..
            }
            | Self::AdvancePartition { .. } => MetadataLevel::MOVES,
            Self::CreateCluster { .. }
            | Self::RegisterBroker(_)
            | Self::EstablishShard { .. }
            | Self::CreateTopic { .. }
            | Self::ConfirmPartitions { .. }
            | Self::DeleteTopic { .. }
            | Self::AlterTopic { .. }
            | Self::AddPartitions { .. }
            | Self::AllocateProducerIds { .. }
            | Self::StartPlan { .. }
            | Self::AdvanceMove { .. }
            | Self::CancelPlan { .. }
            | Self::RemoveBroker { .. }
            | Self::ConfirmExpelled { .. }
            // What it needs is looked at broker by broker.
            | Self::RaiseLevel { .. } => MetadataLevel::FIRST,
        }
    }
}

impl Image {
    /// Which commands may be written.
    #[must_use]
    pub fn level(&self) -> MetadataLevel {
        self.level
    }
    /// The level to be raised to now: what every registered broker knows, if that is more than there
    /// is.
    #[must_use]
    pub fn level_to_raise(&self) -> Option<MetadataLevel> {
        self.cluster_id.as_ref()?;
        let known = self.brokers.values();
        let common = known.map(|broker| MetadataLevel::of_release(&broker.version));
        common.min().filter(|common| *common > self.level)
    }

    /// Whether a command may be written: every broker that will come to it knows it. To be asked
    /// before a command is proposed, where that is; apply asks again.
    ///
    /// # Errors
    /// One line that says who must be upgraded first.
    pub fn admits(&self, command: &MetadataCommand) -> Result<(), Refusal> {
        match command {
            MetadataCommand::RaiseLevel { level } => self.all_know(*level),
            MetadataCommand::CreateCluster {
                brokers,
                shards_per_broker: 1..,
                ..
            } => all_know(brokers, MetadataLevel::SIZED),
            MetadataCommand::RegisterBroker(broker) => {
                let (needed, version) = (self.level, &broker.version);
                if MetadataLevel::of_release(version) >= needed {
                    return Ok(());
                }
                let text = format!(
                    "broker {} runs release {version:?}, which does not know what this cluster has \
                     written since all its brokers ran release {} or a later one: start such a release",
                    broker.id,
                    needed.since()
                );
                Err(Refusal::new(ErrorCode::InvalidRequest, text))
            }
            other => self.has_level(other.level()),
        }
    }

    pub(crate) fn has_level(&self, needed: MetadataLevel) -> Result<(), Refusal> {
        if self.level >= needed {
            return Ok(());
        }
        self.all_know(needed)?;
        let text =
            "this becomes possible within seconds, now that all brokers run releases that know it";
        Err(Refusal::new(ErrorCode::ClusterNotReady, text))
    }

    fn all_know(&self, level: MetadataLevel) -> Result<(), Refusal> {
        all_know(self.brokers.values(), level)
    }

    pub(crate) fn raise_level(&mut self, level: MetadataLevel) -> MetadataReply {
        self.level = self.level.max(level);
        MetadataReply::Done
    }
}

fn all_know<'a>(
    brokers: impl IntoIterator<Item = &'a NewBroker>,
    level: MetadataLevel,
) -> Result<(), Refusal> {
    let mut brokers = brokers.into_iter();
    let old = brokers.find(|broker| MetadataLevel::of_release(&broker.version) < level);
    let Some(old) = old else {
        return Ok(());
    };
    let text = format!(
        "broker {} runs release {:?}, which does not know this: upgrade all brokers to release {} \
         or a later one first",
        old.id,
        old.version,
        level.since()
    );
    Err(Refusal::new(ErrorCode::ClusterNotReady, text))
}

#[cfg(test)]
#[path = "level_tests.rs"]
mod tests;
