//! Replicas compare what they have written: the leader of a shard sends the checksums of its closed
//! ranges to the others, and whoever has the same range with another checksum says so. Only ranges
//! that both have from end to end are compared: one may have trimmed what the other still has, and a
//! replica that was filled anew begins its first segment elsewhere.
//!
//! A difference is an alarm and nothing more: which of both is right is for a person to say.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use highwater_env::{Disk, Env};
use highwater_proto::internal::{Alarm, ClosedRange, CompareRangesRequest, CompareRangesResponse};
use highwater_proto::{NodeId, Offset, PartitionId, ShardId, TopicId, TopicPartition};
use highwater_segment::{Compacted, PartitionReader, SegmentManifest};
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::config::Millis;
use crate::node::Broker;
use crate::runtime::Shard;

/// Ranges in one question.
const RANGES_AT_ONCE: usize = 2_048;
/// Ranges that are answered for in one question.
const MOST_RANGES: usize = 4_096;
const DEADLINE: Duration = Duration::from_secs(10);

/// A range that two replicas have with different content.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Divergence {
    /// The partition.
    pub tp: TopicPartition,
    /// The first offset of the range.
    pub base: Offset,
    /// The first offset behind it.
    pub end: Offset,
    /// Who has something else than this broker.
    pub other: NodeId,
    /// Length in bytes and checksum, here and there.
    pub sums: [(u64, u32); 2],
}

/// What the last comparison of each shard led here found.
#[derive(Debug, Default)]
pub struct Divergences(Mutex<BTreeMap<ShardId, BTreeSet<Divergence>>>);

impl Divergences {
    /// Replaces what is known of a shard, and says what is new.
    fn note(&self, me: NodeId, shard: ShardId, found: BTreeSet<Divergence>) {
        let mut all = self.0.lock();
        let known = all.remove(&shard).unwrap_or_default();
        for new in found.difference(&known) {
            metrics::counter!("highwater_divergent_ranges_total").increment(1);
            tracing::error!(shard = shard.0, "{}", what(me, shard, new));
        }
        if !found.is_empty() {
            all.insert(shard, found);
        }
    }
    fn keep(&self, led: &BTreeSet<ShardId>) {
        self.0.lock().retain(|shard, _| led.contains(shard));
    }
    /// How many ranges differ.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.lock().values().map(BTreeSet::len).sum()
    }
    /// One alarm for each shard and broker, for `cluster health`.
    #[must_use]
    pub fn alarms(&self, me: NodeId) -> Vec<Alarm> {
        let mut alarms = Vec::new();
        for (shard, found) in &*self.0.lock() {
            let others: BTreeSet<NodeId> = found.iter().map(|one| one.other).collect();
            for other in others {
                let mut mine = found.iter().filter(|one| one.other == other);
                let Some(first) = mine.next() else {
                    continue;
                };
                let more = match mine.count() {
                    0 => String::new(),
                    more => format!(", and {more} ranges more"),
                };
                alarms.push(Alarm {
                    what: format!("{}{more}", what(me, *shard, first)),
                    cure: format!(
                        "nothing was deleted: read the range from both brokers, decide who is \
                         right, and run `highwater cluster repair {other} {shard}` (or with {me}) \
                         for the other one"
                    ),
                });
            }
        }
        alarms
    }
}

fn what(me: NodeId, shard: ShardId, found: &Divergence) -> String {
    let Divergence {
        tp,
        base,
        end,
        other,
        sums: [(ours, our_sum), (theirs, their_sum)],
    } = found;
    format!(
        "brokers {me} and {other} have different content in shard {shard}, partition {tp}, offsets \
         {base} to {end}: {ours} bytes with checksum {our_sum:08x} and {theirs} with {their_sum:08x}"
    )
}

/// Runs until the broker stops.
pub async fn run<E: Env>(broker: Arc<Broker<E>>) {
    let every = broker.config.scrub.compare_interval_ms;
    if every == Millis(0) {
        return broker.stop.cancelled().await;
    }
    loop {
        let began = Instant::now();
        tokio::select! {
            () = compare_all(&broker) => {}
            () = broker.stop.cancelled() => return,
        }
        tokio::select! {
            () = tokio::time::sleep_until(began + every.duration()) => {}
            () = broker.stop.cancelled() => return,
        }
    }
}

async fn compare_all<E: Env>(broker: &Arc<Broker<E>>) {
    let mut led = BTreeSet::new();
    for shard in broker.shards.all() {
        if !shard.group.is_leader() {
            continue;
        }
        led.insert(shard.id);
        let voters = shard.group.status().borrow().voters.clone();
        let mut found = BTreeSet::new();
        let mut complete = true;
        for node in voters.into_iter().filter(|node| *node != broker.node_id) {
            match compare(broker, &shard, node).await {
                Ok(differing) => found.extend(differing),
                Err(reason) => {
                    let (shard, node) = (shard.id.0, node.0);
                    tracing::debug!(shard, node, reason, "not compared; will repeat");
                    complete = false;
                }
            }
        }
        // Who did not answer has not been found to agree.
        if complete || !found.is_empty() {
            broker.divergences.note(broker.node_id, shard.id, found);
        }
    }
    broker.divergences.keep(&led);
}

/// Compares what this broker has of a shard with what another has.
async fn compare<E: Env>(
    broker: &Arc<Broker<E>>,
    shard: &Shard<E::Disk>,
    node: NodeId,
) -> Result<Vec<Divergence>, String> {
    let mut found = Vec::new();
    let mut asked = Vec::new();
    for tp in shard.views.all() {
        let Some(reader) = broker.shard_context.store.reader(shard.id, tp) else {
            continue;
        };
        for range in closed_ranges(tp, &reader) {
            asked.push(range);
            if asked.len() == RANGES_AT_ONCE {
                let ranges = std::mem::take(&mut asked);
                found.extend(ask(broker, shard.id, node, ranges).await?);
            }
        }
    }
    if !asked.is_empty() {
        found.extend(ask(broker, shard.id, node, asked).await?);
    }
    Ok(found)
}

async fn ask<E: Env>(
    broker: &Arc<Broker<E>>,
    shard: ShardId,
    node: NodeId,
    ranges: Vec<ClosedRange>,
) -> Result<Vec<Divergence>, String> {
    let answer = question(broker, (node, shard), ranges.clone()).await?;
    metrics::counter!("highwater_compared_ranges_total").increment(u64::from(answer.compared));
    let differing = answer.differing.iter().filter_map(|theirs| {
        let ours = ranges.iter().find(|ours| same_range(ours, theirs))?;
        Some(Divergence {
            tp: partition_of(theirs),
            base: Offset(theirs.base_offset),
            end: Offset(theirs.next_offset),
            other: node,
            sums: [ours, theirs].map(|range| (range.len_bytes, range.checksum)),
        })
    });
    Ok(differing.collect())
}

async fn question<E: Env>(
    broker: &Arc<Broker<E>>,
    (node, shard): (NodeId, ShardId),
    ranges: Vec<ClosedRange>,
) -> Result<CompareRangesResponse, String> {
    let mut client = broker.peers.client(node)?;
    let shard = shard.0;
    let request = CompareRangesRequest { shard, ranges };
    let answer = tokio::time::timeout(DEADLINE, client.compare_ranges(request)).await;
    let answer = answer.map_err(|_elapsed| "no answer before the deadline".to_owned())?;
    let answer = answer.map_err(|status| status.to_string())?.into_inner();
    if answer.error.is_empty() {
        Ok(answer)
    } else {
        Err(answer.error)
    }
}

/// Whether a broker wrote just these segments, which are compacted.
///
/// # Errors
/// Why that is not certain, in one line.
pub(super) async fn confirm<E: Env>(
    broker: &Arc<Broker<E>>,
    (node, shard): (NodeId, ShardId),
    tp: TopicPartition,
    (segments, compacted): (&[SegmentManifest], Compacted),
) -> Result<(), String> {
    for some in segments.chunks(RANGES_AT_ONCE) {
        let ranges: Vec<_> = some.iter().map(|s| closed(tp, s, compacted)).collect();
        let answer = question(broker, (node, shard), ranges).await?;
        let same = answer.differing.is_empty() && answer.compared as usize == some.len();
        if !same {
            return Err(format!("{tp} came otherwise than it was written there"));
        }
    }
    Ok(())
}

/// Answers another broker's question.
pub fn answer<E: Env>(broker: &Broker<E>, request: &CompareRangesRequest) -> CompareRangesResponse {
    let refused = |error: String| CompareRangesResponse {
        error,
        ..CompareRangesResponse::default()
    };
    if request.ranges.len() > MOST_RANGES {
        return refused(format!("more than {MOST_RANGES} ranges at once"));
    }
    let Some(shard) = broker.shards.get(ShardId(request.shard)) else {
        return refused(format!("shard {} is not hosted here", request.shard));
    };
    let mut mine: BTreeMap<TopicPartition, Vec<ClosedRange>> = BTreeMap::new();
    for tp in request.ranges.iter().map(partition_of) {
        if !mine.contains_key(&tp) && shard.views.get(tp).is_some() {
            let reader = broker.shard_context.store.reader(shard.id, tp);
            let ranges = reader.map_or_else(Vec::new, |reader| closed_ranges(tp, &reader));
            mine.insert(tp, ranges);
        }
    }
    differences(&mine, &request.ranges)
}

/// Which of `theirs` are in `mine` from end to end, and which of these are not the same. Ranges that
/// another compaction has left are others. Pure.
fn differences(
    mine: &BTreeMap<TopicPartition, Vec<ClosedRange>>,
    theirs: &[ClosedRange],
) -> CompareRangesResponse {
    let mut answer = CompareRangesResponse::default();
    for asked in theirs {
        let ranges = mine.get(&partition_of(asked));
        let ranges = ranges.map(Vec::as_slice).unwrap_or_default();
        let base = asked.base_offset;
        let Ok(at) = ranges.binary_search_by_key(&base, |range| range.base_offset) else {
            continue;
        };
        let Some(ours) = ranges.get(at).filter(|ours| same_range(ours, asked)) else {
            continue;
        };
        answer.compared += 1;
        if ours != asked {
            answer.differing.push(*ours);
        }
    }
    answer
}

/// The sealed ranges of a partition, by base offset.
fn closed_ranges<D: Disk>(tp: TopicPartition, reader: &PartitionReader<D>) -> Vec<ClosedRange> {
    // What is compacted in between is told apart by its length and checksum only; a second look that
    // agrees with the first says that nothing was.
    loop {
        let (compacted, ranges) = (reader.compacted(), reader.segments());
        if reader.compacted() == compacted {
            let sealed = ranges.iter().filter(|range| range.sealed);
            return sealed.map(|range| closed(tp, range, compacted)).collect();
        }
    }
}

fn closed(tp: TopicPartition, range: &SegmentManifest, compacted: Compacted) -> ClosedRange {
    let is_compacted = range.next_offset <= compacted.upto;
    ClosedRange {
        topic_id: tp.topic.0,
        partition: tp.partition.0,
        base_offset: range.base_offset.0,
        next_offset: range.next_offset.0,
        len_bytes: range.len_bytes,
        checksum: range.checksum,
        generation: if is_compacted {
            compacted.generation
        } else {
            0
        },
    }
}

fn partition_of(range: &ClosedRange) -> TopicPartition {
    TopicPartition::new(TopicId(range.topic_id), PartitionId(range.partition))
}

fn same_range(one: &ClosedRange, other: &ClosedRange) -> bool {
    let place = |range: &ClosedRange| {
        let offsets = (range.base_offset, range.next_offset);
        (range.topic_id, range.partition, offsets, range.generation)
    };
    place(one) == place(other)
}

#[cfg(test)]
#[path = "compare_tests.rs"]
mod tests;
