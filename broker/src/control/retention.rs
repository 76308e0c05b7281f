//! Retention: the leader of a shard decides what is too old or too much, and proposes it as a command
//! of the shard's log, so that every replica loses the same.
//!
//! It is decided by the settings that the partition's state has, and takes no effect if they change
//! before it is applied. While this broker's wall clock disagrees with most others', nothing goes.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use highwater_env::{Clock, Env};
use highwater_proto::{NodeId, ShardId, TimestampMs};
use highwater_segment::Retention;
use highwater_shard::{FeatureLevel, PartitionConfig, ShardCommand, ShardReply};
use tokio::time::Instant;

use super::clocks::Verdict;
use super::controller::propose_here;
use crate::node::Broker;
use crate::runtime::Shard;
use crate::runtime::view::PartitionView;

/// Between two looks at the clock.
const INTERVAL: Duration = Duration::from_secs(1);
const DEADLINE: Duration = Duration::from_secs(5);
/// Commands under way at the same time.
const COMMANDS_AT_ONCE: usize = 16;

/// Runs until the broker stops.
pub async fn run<E: Env>(broker: Arc<Broker<E>>) {
    let interval = broker.config.storage.retention_interval_ms.duration();
    let mut last = Instant::now();
    loop {
        tokio::select! {
            () = tokio::time::sleep(INTERVAL.min(interval)) => {}
            () = broker.stop.cancelled() => return,
        }
        if trusted_time_ms(&broker).is_none() || last.elapsed() < interval {
            continue;
        }
        last = Instant::now();
        for shard in broker.shards.all() {
            // Asked for each: the clock may jump while commands are waited for.
            let Some(now_ms) = trusted_time_ms(&broker) else {
                break;
            };
            if shard.group.is_leader() && shard.groups.rules() >= FeatureLevel::TOPICS {
                retain(&broker, &shard, now_ms).await;
            }
        }
    }
}

/// The time in ms since the Unix epoch, if this broker's clock can be trusted; says so when that changes.
pub(super) fn trusted_time_ms<E: Env>(broker: &Broker<E>) -> Option<i64> {
    let image = broker.cluster.image();
    let members: Vec<NodeId> = image
        .brokers()
        .map(|known| known.id)
        .filter(|id| image.incarnation(*id).is_some())
        .collect();
    let now_ms = broker.env.clock().now_ms();
    let verdict = broker.clocks.verdict(broker.node_id, &members, now_ms);
    let why = match verdict {
        Verdict::Disagrees(apart) => Some(sentence(apart)),
        Verdict::Agrees => None,
        // Nobody contradicts it, but nobody confirms it either: it waits, and the alarm stays as
        // it is.
        Verdict::Unknown => return None,
    };
    metrics::gauge!("highwater_retention_halted").set(f64::from(u8::from(why.is_some())));
    let is_news = broker.clocks.halt(why.clone());
    match &why {
        Some(why) if is_news => tracing::error!("{why}"),
        None if is_news => tracing::info!("this broker's clock agrees with the others' again"),
        _ => {}
    }
    why.is_none().then_some(now_ms)
}

fn sentence(apart_ms: i64) -> String {
    let seconds = apart_ms.unsigned_abs() / 1_000;
    let side = if apart_ms > 0 { "ahead of" } else { "behind" };
    format!(
        "its wall clock is {seconds} s {side} most other brokers'; retention and compaction stand \
         still where it leads: set the clock (NTP)"
    )
}

async fn retain<E: Env>(broker: &Arc<Broker<E>>, shard: &Arc<Shard<E::Disk>>, now_ms: i64) {
    let serving = |view: &Arc<_>| PartitionView::is_serving(view);
    let views = shard.views.list().into_iter().filter(serving);
    let due = views.filter_map(|view| {
        let config = view.config();
        let log_start = view.retention_cut(&rule(&config, now_ms)?)?;
        Some(ShardCommand::TrimLog {
            tp: view.topic_partition(),
            log_start,
            config_version: Some(config.version),
        })
    });
    let due: Vec<_> = due.collect();
    futures_util::stream::iter(due)
        .for_each_concurrent(COMMANDS_AT_ONCE, |command| trim(broker, shard.id, command))
        .await;
}

/// What a partition keeps; `None`: everything.
fn rule(config: &PartitionConfig, now_ms: i64) -> Option<Retention> {
    if config.retention_ms.is_none() && config.retention_bytes.is_none() {
        return None;
    }
    let keep_from = |ms: u64| {
        let ms = i64::try_from(ms).unwrap_or(i64::MAX);
        TimestampMs(now_ms.saturating_sub(ms))
    };
    Some(Retention {
        keep_from: config.retention_ms.map(keep_from),
        keep_bytes: config.retention_bytes,
    })
}

async fn trim<E: Env>(broker: &Arc<Broker<E>>, shard: ShardId, command: ShardCommand) {
    let encoded = command.encode().to_contiguous();
    match propose_here(broker, shard, encoded, DEADLINE).await {
        Ok(reply) => match ShardReply::decode(&reply) {
            Ok(ShardReply::Trimmed { log_start }) => {
                metrics::counter!("highwater_retention_trims_total").increment(1);
                tracing::debug!(shard = shard.0, ?command, start = log_start.0, "retention");
            }
            // Deleted or configured anew meanwhile: the next look decides by what is then.
            Ok(ShardReply::Refused(_)) => {}
            Ok(other) => tracing::warn!(shard = shard.0, reply = ?other, "unexpected"),
            Err(error) => tracing::warn!(shard = shard.0, %error, "unexpected"),
        },
        Err(failure) => {
            let reason = failure.reason;
            tracing::debug!(shard = shard.0, reason, "not trimmed; will repeat");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_become_rules() {
        let config = |retention_ms, retention_bytes| PartitionConfig {
            retention_ms,
            retention_bytes,
            ..PartitionConfig::default()
        };
        assert_eq!(rule(&config(None, None), 1_000), None);
        let both = Retention {
            keep_from: Some(TimestampMs(400)),
            keep_bytes: Some(7),
        };
        assert_eq!(rule(&config(Some(600), Some(7)), 1_000), Some(both));
        // Longer than there is time: nothing is that old.
        let forever = rule(&config(Some(u64::MAX), None), 1_000).expect("a rule");
        assert!(forever.keep_from.is_some_and(|from| from.0 < 0));
    }
}
