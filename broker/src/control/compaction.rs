//! Compaction: the leader of a shard decides how far a partition is to be compacted, and proposes it as
//! a command of the shard's log. The work is done by every replica on its own (`upkeep/compact.rs`).
//!
//! It is decided by the settings that the partition's state has, and takes no effect if they change
//! before it is applied. While this broker's wall clock disagrees with most others', nothing is decided:
//! how long a record without value is kept goes by it.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use highwater_env::Env;
use highwater_proto::{Offset, ShardId, TimestampMs};
use highwater_segment::{Compacted, SegmentManifest};
use highwater_shard::{FeatureLevel, PartitionConfig, ShardCommand, ShardReply};

use super::controller::propose_here;
use super::retention::trusted_time_ms;
use crate::node::Broker;
use crate::runtime::Shard;

const DEADLINE: Duration = Duration::from_secs(5);
/// Commands under way at the same time.
const COMMANDS_AT_ONCE: usize = 16;
/// The whole, in the unit of `min_dirty_ppm`.
const PPM: u64 = 1_000_000;

/// Runs until the broker stops.
pub async fn run<E: Env>(broker: Arc<Broker<E>>) {
    let interval = broker.config.compaction.interval_ms.duration();
    loop {
        tokio::select! {
            () = tokio::time::sleep(interval) => {}
            () = broker.stop.cancelled() => return,
        }
        for shard in broker.shards.all() {
            // Asked for each: the clock may jump while commands are waited for.
            let Some(now_ms) = trusted_time_ms(&broker) else {
                break;
            };
            if shard.group.is_leader() && shard.groups.rules() >= FeatureLevel::COMPACTION {
                decide(&broker, &shard, TimestampMs(now_ms)).await;
            }
        }
    }
}

async fn decide<E: Env>(broker: &Arc<Broker<E>>, shard: &Arc<Shard<E::Disk>>, now: TimestampMs) {
    let due = shard.views.list().into_iter().filter_map(|view| {
        let config = view.config();
        let tp = view.topic_partition();
        // One after the other: what was decided last is not done here yet.
        let waits = !config.compact || !view.is_settled();
        if waits || broker.shard_context.compactions.has((shard.id, tp)) {
            return None;
        }
        let segments = view.segments();
        let upto = Cleanable::of(&segments, view.compacted(), (&config, now)).due(&config)?;
        // Or was not written here when it was looked at.
        let is_new = view.compaction().is_none_or(|last| last.upto < upto);
        is_new.then_some(ShardCommand::CompactLog {
            tp,
            upto,
            time: now,
            config_version: config.version,
        })
    });
    let due: Vec<_> = due.collect();
    futures_util::stream::iter(due)
        .for_each_concurrent(COMMANDS_AT_ONCE, |command| {
            propose(broker, shard.id, command)
        })
        .await;
}

async fn propose<E: Env>(broker: &Arc<Broker<E>>, shard: ShardId, command: ShardCommand) {
    let encoded = command.encode().to_contiguous();
    match propose_here(broker, shard, encoded, DEADLINE).await {
        Ok(reply) => match ShardReply::decode(&reply) {
            Ok(ShardReply::Done) => tracing::debug!(shard = shard.0, ?command, "compaction"),
            // Deleted, trimmed or configured anew meanwhile: the next look decides by what is then.
            Ok(ShardReply::Refused(_)) => {}
            Ok(other) => tracing::warn!(shard = shard.0, reply = ?other, "unexpected"),
            Err(error) => tracing::warn!(shard = shard.0, %error, "unexpected"),
        },
        Err(failure) => {
            let reason = failure.reason;
            tracing::debug!(shard = shard.0, reason, "not decided; will repeat");
        }
    }
}

/// What a partition has that may be compacted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Cleanable {
    /// Bytes that are compacted already.
    clean: u64,
    /// Bytes of closed segments behind them that are old enough.
    dirty: u64,
    /// Where these end.
    upto: Offset,
    /// One of them may be as old as the topic allows.
    overdue: bool,
}

impl Cleanable {
    /// Of a partition's segments, by base offset. Pure.
    #[must_use]
    pub fn of(
        segments: &[SegmentManifest],
        compacted: Compacted,
        (config, now): (&PartitionConfig, TimestampMs),
    ) -> Self {
        let age = |since: TimestampMs| now.0.saturating_sub(since.0).max(0).unsigned_abs();
        let mut found = Self::default();
        let mut before: Option<TimestampMs> = None;
        for segment in segments {
            if segment.next_offset <= compacted.upto {
                found.clean += segment.len_bytes;
                before = Some(segment.last_append_time);
                continue;
            }
            if !segment.sealed || age(segment.last_append_time) < config.min_compaction_lag_ms {
                break;
            }
            if let Some(longest) = config.max_compaction_lag_ms
                && found.dirty == 0
            {
                // Its first record is younger than the last one of the segment before, and at most as
                // much older than its own last one as a segment of such a topic may last.
                let lasted = i64::try_from(longest).unwrap_or(i64::MAX);
                let least = TimestampMs(segment.last_append_time.0.saturating_sub(lasted));
                let oldest = before.map_or(least, |before| before.max(least));
                found.overdue = age(oldest) >= longest;
            }
            found.dirty += segment.len_bytes;
            found.upto = segment.next_offset;
        }
        found
    }
    /// How much of the log is new, in millionths.
    #[must_use]
    pub fn dirty_ppm(&self) -> u64 {
        let all = u128::from(self.clean) + u128::from(self.dirty);
        let ppm = (u128::from(self.dirty) * u128::from(PPM)).checked_div(all);
        ppm.and_then(|ppm| u64::try_from(ppm).ok()).unwrap_or(0)
    }
    /// How far it is to be compacted now.
    fn due(&self, config: &PartitionConfig) -> Option<Offset> {
        let is_due = self.overdue || self.dirty_ppm() > u64::from(config.min_dirty_ppm);
        (self.dirty > 0 && is_due).then_some(self.upto)
    }
}

#[cfg(test)]
#[path = "compaction_tests.rs"]
mod tests;
