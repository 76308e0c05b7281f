//! Metrics that are read off the broker when they are asked for: partitions led here, shards,
//! memory. Nothing is kept between scrapes, so a leader that moved away leaves no stale series.

use std::fmt::Write as _;

use highwater_env::{Clock, Env};
use highwater_metadata::Image;
use highwater_proto::{TimestampMs, TopicPartition};

use super::Broker;
use crate::control::compaction::Cleanable;
use crate::runtime::Shard;

/// One metric with its samples, in Prometheus' text format.
pub(super) struct Family {
    pub(super) text: String,
    name: &'static str,
}

impl Family {
    pub(super) fn new(name: &'static str, kind: &str, help: &str) -> Self {
        Self {
            text: format!("# HELP {name} {help}\n# TYPE {name} {kind}\n"),
            name,
        }
    }
    pub(super) fn add(&mut self, labels: &str, value: impl std::fmt::Display) {
        // Writing to a String cannot fail.
        let _ = match labels {
            "" => writeln!(self.text, "{} {value}", self.name),
            labels => writeln!(self.text, "{}{{{labels}}} {value}", self.name),
        };
    }
}

/// All of them.
pub fn exposition<E: Env>(broker: &Broker<E>) -> String {
    let mut text = partitions(broker);
    text.push_str(&shards(broker));
    text.push_str(&resources(broker));
    text.push_str(&super::group_exposition::exposition(broker));
    text
}

/// The names that dashboards for Kafka already use, of partitions that this broker leads.
fn partitions<E: Env>(broker: &Broker<E>) -> String {
    let mut end = Family::new(
        "kafka_topic_partition_current_offset",
        "gauge",
        "End of the log",
    );
    let mut start = Family::new(
        "kafka_topic_partition_oldest_offset",
        "gauge",
        "Start of the log",
    );
    let mut leader = Family::new("kafka_topic_partition_leader", "gauge", "Broker that leads");
    let mut replicas = Family::new(
        "kafka_topic_partition_replicas",
        "gauge",
        "Replicas assigned",
    );
    let mut lacking = Family::new(
        "kafka_topic_partition_under_replicated_partition",
        "gauge",
        "1 if a replica is on a broker that does not answer",
    );
    let mut size = Family::new(
        "highwater_partition_size_bytes",
        "gauge",
        "Bytes in segment files",
    );
    let mut dirty = Family::new(
        "highwater_partition_dirty_ratio",
        "gauge",
        "Part of the log that may be compacted and is not yet, of compacted topics",
    );
    let now = TimestampMs(broker.env.clock().now_ms());
    let image = broker.cluster.image();
    for shard in broker.shards.all() {
        if !shard.group.is_leader() {
            continue;
        }
        let under_replicated = u64::from(!all_alive(broker, &image, &shard));
        let voters = shard.group.status().borrow().voters.len() as u64;
        for tp in shard.views.all() {
            let (Some(labels), Some(view)) = (labels(&image, tp), shard.views.get(tp)) else {
                continue;
            };
            // What comes or goes is counted where it is served.
            if !view.is_serving() {
                continue;
            }
            end.add(&labels, view.high_watermark().0);
            start.add(&labels, view.log_start().0);
            leader.add(&labels, u64::from(broker.node_id.0));
            replicas.add(&labels, voters);
            lacking.add(&labels, under_replicated);
            size.add(&labels, view.size_bytes());
            let config = view.config();
            if config.compact {
                let found = Cleanable::of(&view.segments(), view.compacted(), (&config, now));
                dirty.add(&labels, found.dirty_ppm() as f64 / 1e6);
            }
        }
    }
    [end, start, leader, replicas, lacking, size, dirty]
        .map(|family| family.text)
        .concat()
}

/// Topic names need no escaping: letters, digits, '.', '_' and '-' only.
fn labels(image: &Image, tp: TopicPartition) -> Option<String> {
    let topic = image.topic(tp.topic)?;
    Some(format!(
        "topic=\"{}\",partition=\"{}\"",
        topic.name(),
        tp.partition
    ))
}

fn all_alive<E: Env>(broker: &Broker<E>, image: &Image, shard: &Shard<E::Disk>) -> bool {
    let alive = broker.cluster.alive();
    let replicas = image
        .shard(shard.id)
        .map(|known| known.replicas.as_slice())
        .unwrap_or_default();
    replicas.iter().all(|node| alive.contains(node))
}

fn shards<E: Env>(broker: &Broker<E>) -> String {
    let mut leading = Family::new("highwater_shard_leading", "gauge", "1 if led here");
    let mut applied = Family::new(
        "highwater_shard_applied_index",
        "gauge",
        "Last applied entry",
    );
    let mut term = Family::new(
        "highwater_shard_term",
        "gauge",
        "Newest election known here; it never goes back, also not when the broker restarts",
    );
    let mut behind = Family::new(
        "highwater_shard_checkpoint_lag",
        "gauge",
        "Entries behind the checkpoint",
    );
    let mut leaderless = Family::new(
        "highwater_shards_without_leader",
        "gauge",
        "Shards that nobody leads",
    );
    for shard in broker.shards.all() {
        let receiver = shard.group.status();
        let status = receiver.borrow();
        let labels = format!("shard=\"{}\"", shard.id);
        leading.add(&labels, u64::from(status.leader == Some(broker.node_id)));
        applied.add(&labels, status.applied);
        term.add(&labels, status.term);
        behind.add(&labels, status.applied.saturating_sub(status.checkpointed));
    }
    let leaders = broker.cluster.leaders();
    let image = broker.cluster.image();
    let without = image
        .shards()
        .filter(|shard| leaders.get(&shard.id).and_then(|info| info.node).is_none())
        .count();
    leaderless.add("", without as u64);
    [leading, applied, term, behind, leaderless]
        .map(|family| family.text)
        .concat()
}

fn resources<E: Env>(broker: &Broker<E>) -> String {
    let gauges = [
        (
            "highwater_admission_bytes",
            "Produced bytes in flight",
            broker.gate.in_flight_bytes(),
        ),
        (
            "highwater_receive_bytes",
            "Bytes of large requests coming in",
            broker.receiving.in_use(),
        ),
        (
            "highwater_fetch_bytes",
            "Bytes read for consumers and not yet taken by them",
            broker.fetching.in_use(),
        ),
        (
            "highwater_tail_bytes",
            "Bytes of batches in memory",
            broker.tail.used() as u64,
        ),
        (
            "highwater_open_segments",
            "Segment files open",
            broker.shard_context.store.open_files() as u64,
        ),
        (
            "highwater_compactions_waiting",
            "Partitions whose compaction was decided and is not done here yet",
            broker.shard_context.compactions.len() as u64,
        ),
        (
            "highwater_damaged_ranges",
            "Stored ranges that are not as they were written and not fetched again yet",
            broker.damage.ranges().len() as u64,
        ),
        (
            "highwater_divergent_ranges",
            "Closed ranges of shards led here that another replica has with other content",
            broker.divergences.count() as u64,
        ),
        (
            "highwater_storage_full",
            "1 below the disk reserve",
            u64::from(broker.gate.is_storage_full()),
        ),
    ];
    let family = |(name, help, value): (&'static str, &str, u64)| {
        let mut family = Family::new(name, "gauge", help);
        family.add("", value);
        family.text
    };
    gauges.map(family).concat()
}
