//! The controller: runs on every broker, acts only on the one that leads the metadata group.
//!
//! It compares what the image wants with what is, and drives the difference until it is confirmed:
//! partitions are made in their shards, topics become ready, leaders go where they are preferred.
//! Every step may be repeated by the next controller: commands are idempotent.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use highwater_env::Env;
use highwater_metadata::{MetadataCommand, MetadataReply, Topic};
use highwater_proto::internal::ShardCommandRequest;
use highwater_proto::{NodeId, PartitionId, ShardId, TopicPartition};
use highwater_shard::{CommandRefusal, PartitionConfig, ShardCommand, ShardReply};

use crate::node::Broker;

/// Between two looks when nothing changed.
const INTERVAL: Duration = Duration::from_secs(1);
const COMMAND_DEADLINE: Duration = Duration::from_secs(5);
/// A broker leads again only after it was back for this long.
const SETTLE: Duration = Duration::from_secs(3);
/// As Kafka's default: a day.
const PRODUCER_EXPIRY_MS: u64 = 24 * 3_600_000;
/// Producers that a partition remembers.
const MAX_PRODUCERS: u32 = 10_000;
/// Topics whose partitions are made at the same time.
const TOPICS_AT_ONCE: usize = 32;
/// Shards of a topic worked on at the same time.
const SHARDS_AT_ONCE: usize = 16;
/// Leaders moved at the same time, so that a returning broker is not flooded.
const TRANSFERS_AT_ONCE: usize = 4;

/// Runs until the broker stops.
pub async fn run<E: Env>(broker: Arc<Broker<E>>) {
    let mut changes = broker.cluster.changes();
    let mut looks = 0usize;
    while !broker.stop.is_cancelled() {
        changes.borrow_and_update();
        looks = looks.wrapping_add(1);
        metrics::gauge!("highwater_metadata_level").set(broker.cluster.image().level().0);
        if broker.metadata.group().is_leader() {
            raise_level(&broker).await;
            establish_shards(&broker).await;
            make_partitions(&broker).await;
            balance_leaders(&broker, looks).await;
        }
        tokio::select! {
            () = tokio::time::sleep(INTERVAL) => {}
            changed = changes.changed() => if changed.is_err() { return },
            () = broker.stop.cancelled() => return,
        }
    }
}

/// Lets commands of a later level be written, once every broker runs a release that knows them.
async fn raise_level<E: Env>(broker: &Arc<Broker<E>>) {
    let Some(level) = broker.cluster.image().level_to_raise() else {
        return;
    };
    // A new leader looks again when it knows all that was decided before it: a broker of an older
    // release may have come.
    if broker.metadata.group().read_barrier().await.is_err()
        || broker.cluster.image().level_to_raise() != Some(level)
    {
        return;
    }
    let command = MetadataCommand::RaiseLevel { level };
    match broker.metadata.propose(&command, COMMAND_DEADLINE).await {
        Ok(MetadataReply::Done) => {
            tracing::info!(%level, "all brokers know this level of metadata commands");
        }
        Ok(other) => tracing::warn!(%level, reply = ?other, "the level is not raised yet"),
        Err(error) => tracing::warn!(%level, %error, "the level is not raised yet; will repeat"),
    }
}

/// Writes down which shards have had a leader: their first membership exists, and nobody may write
/// one again, least of all a replica that lost its disk.
async fn establish_shards<E: Env>(broker: &Arc<Broker<E>>) {
    let image = broker.cluster.image();
    let leaders = broker.cluster.leaders();
    for shard in image.shards().filter(|shard| !shard.established) {
        // Said by the leader itself: what others remember may be about a group of that number
        // whose only replica was lost.
        let leader = leaders.get(&shard.id).and_then(|info| info.node);
        let report = leader.and_then(|leader| broker.reports.of(leader, shard.id));
        if !report.is_some_and(|said| said.leader == leader && !said.voters.is_empty()) {
            continue;
        }
        let command = MetadataCommand::EstablishShard { shard: shard.id };
        if let Err(error) = broker.metadata.propose(&command, COMMAND_DEADLINE).await {
            tracing::warn!(shard = shard.id.0, %error, "shard not yet established; will repeat");
            return;
        }
    }
}

/// Makes the partitions of topics that are not ready yet, several topics at a time.
async fn make_partitions<E: Env>(broker: &Arc<Broker<E>>) {
    let image = broker.cluster.image();
    let waiting: Vec<Arc<Topic>> = image
        .topics()
        .filter(|t| !t.is_complete())
        .cloned()
        .collect();
    futures_util::stream::iter(waiting)
        .for_each_concurrent(TOPICS_AT_ONCE, |topic| async move {
            make_topic(broker, &topic).await;
        })
        .await;
}

async fn make_topic<E: Env>(broker: &Arc<Broker<E>>, topic: &Topic) {
    let mut by_shard: BTreeMap<ShardId, Vec<PartitionId>> = BTreeMap::new();
    for (partition, shard) in topic.unconfirmed() {
        by_shard.entry(shard).or_default().push(partition);
    }
    let made = futures_util::stream::iter(by_shard)
        .map(|(shard, partitions)| make_in_shard(broker, topic, shard, partitions))
        .buffer_unordered(SHARDS_AT_ONCE)
        .concat()
        .await;
    if made.is_empty() {
        return;
    }
    let command = MetadataCommand::ConfirmPartitions {
        topic: topic.id(),
        partitions: made,
    };
    if let Err(error) = broker.metadata.propose(&command, COMMAND_DEADLINE).await {
        tracing::warn!(topic = topic.name(), %error, "partitions not yet confirmed; will repeat");
    }
}

async fn make_in_shard<E: Env>(
    broker: &Arc<Broker<E>>,
    topic: &Topic,
    shard: ShardId,
    partitions: Vec<PartitionId>,
) -> Vec<PartitionId> {
    let mut made = Vec::with_capacity(partitions.len());
    for partition in partitions {
        let tp = TopicPartition::new(topic.id(), partition);
        let command = ShardCommand::CreatePartition {
            tp,
            config: partition_config(topic),
        };
        match command_shard(broker, shard, &command).await {
            // Its settings may have changed since an earlier controller made it: it exists, and the
            // shard's leader brings its settings up to date.
            Ok(ShardReply::Done | ShardReply::Refused(CommandRefusal::PartitionExists)) => {
                made.push(partition);
            }
            Ok(other) => tracing::warn!(%tp, reply = ?other, "partition not made; will repeat"),
            Err(reason) => {
                tracing::debug!(%tp, shard = shard.0, reason, "partition not made; will repeat");
                break;
            }
        }
    }
    made
}

/// What apply needs to know of a topic's settings.
pub(super) fn partition_config(topic: &Topic) -> PartitionConfig {
    let settings = topic.settings();
    // -1 is without bound.
    let bound = |value: i64| u64::try_from(value).ok();
    let plain = PartitionConfig {
        segment_bytes: settings.segment_bytes.0,
        segment_ms: settings.segment_ms.unsigned_abs(),
        producer_expiry_ms: PRODUCER_EXPIRY_MS,
        max_producers: MAX_PRODUCERS,
        version: topic.config_version(),
        retention_ms: bound(settings.retention_ms).filter(|_| settings.cleanup.delete),
        retention_bytes: bound(settings.retention_bytes).filter(|_| settings.cleanup.delete),
        ..PartitionConfig::default()
    };
    if !settings.cleanup.compact {
        return plain;
    }
    PartitionConfig {
        compact: true,
        delete_retention_ms: settings.delete_retention_ms.unsigned_abs(),
        min_dirty_ppm: settings.min_dirty_ppm,
        min_compaction_lag_ms: settings.min_compaction_lag_ms.unsigned_abs(),
        max_compaction_lag_ms: Some(settings.max_compaction_lag_ms)
            .filter(|lag| *lag < i64::MAX)
            .map(i64::unsigned_abs),
        ..plain
    }
}

/// Sends a command to a shard's leader, here or elsewhere. Errors leave it open whether it was
/// written; shard commands of the controller are idempotent.
pub async fn command_shard<E: Env>(
    broker: &Arc<Broker<E>>,
    shard: ShardId,
    command: &ShardCommand,
) -> Result<ShardReply, String> {
    let leader = broker.cluster.leader(shard).and_then(|info| info.node);
    let leader = leader.ok_or_else(|| format!("shard {shard} has no leader"))?;
    let encoded = command.encode().to_contiguous();
    let reply = if leader == broker.node_id {
        propose_here(broker, shard, encoded, COMMAND_DEADLINE)
            .await
            .map_err(|e| e.reason)?
    } else {
        let timeout_ms = u32::try_from(COMMAND_DEADLINE.as_millis()).unwrap_or(u32::MAX);
        let request = ShardCommandRequest {
            shard: shard.0,
            command: encoded,
            timeout_ms,
        };
        let mut client = broker.peers.client(leader)?;
        let call = client.shard_command(request);
        let answer = tokio::time::timeout(COMMAND_DEADLINE, call).await;
        let response = match answer {
            Ok(Ok(response)) => response.into_inner(),
            Ok(Err(status)) => {
                broker.peers.forget(leader);
                return Err(status.to_string());
            }
            Err(_elapsed) => return Err("no answer before the deadline".to_owned()),
        };
        if !response.error.is_empty() {
            return Err(response.error);
        }
        response.result
    };
    ShardReply::decode(&reply).map_err(|error| error.to_string())
}

/// Why a shard command has no reply.
#[derive(Debug)]
pub struct ShardCommandFailure {
    /// One line.
    pub reason: String,
    /// Certainly not written.
    pub certainly_not: bool,
    /// Who leads the shard instead.
    pub leader: Option<NodeId>,
}

/// Whether a shard command that came in from outside may be proposed. What a replica cannot apply
/// must not get into a log: it would stay there, and stop every replica that comes to it. Batches
/// come in through the front alone, which validates them.
///
/// # Errors
/// Why not, in one line.
pub fn check_forwarded(command: &Bytes) -> Result<(), String> {
    match ShardCommand::decode(&command.clone().into()) {
        Ok(ShardCommand::Append { .. }) => Err("batches are produced, not commanded".to_owned()),
        Ok(ShardCommand::Group(_)) => Err("groups are asked of their coordinator".to_owned()),
        Ok(ShardCommand::Move(_)) => {
            Err("moves are carried out by those who lead the two shards".to_owned())
        }
        Ok(_) => Ok(()),
        Err(error) => Err(error.to_string()),
    }
}

/// Proposes an encoded shard command to a shard hosted here.
///
/// # Errors
/// [`ShardCommandFailure`].
pub async fn propose_here<E: Env>(
    broker: &Broker<E>,
    shard: ShardId,
    command: Bytes,
    timeout: Duration,
) -> Result<Bytes, ShardCommandFailure> {
    use highwater_raft::ProposeError;
    let failure = |reason: String, certainly_not, leader| ShardCommandFailure {
        reason,
        certainly_not,
        leader,
    };
    let Some(hosted) = broker.shards.get(shard) else {
        return Err(failure(
            format!("shard {shard} is not hosted here"),
            true,
            None,
        ));
    };
    match tokio::time::timeout(timeout, hosted.group.propose(command.into())).await {
        Ok(Ok(reply)) => Ok(reply),
        Ok(Err(ProposeError::NotLeader { leader, .. })) => Err(failure(
            format!("shard {shard} is not led here"),
            true,
            leader,
        )),
        Ok(Err(ProposeError::Busy)) => Err(failure(format!("shard {shard} is busy"), true, None)),
        Ok(Err(ProposeError::Unknown(reason))) => Err(failure(reason, false, None)),
        Err(_elapsed) => Err(failure(
            "no verdict before the deadline".to_owned(),
            false,
            None,
        )),
    }
}

/// Moves leaders to the brokers that the image prefers, a few at a time, once those have been back
/// for a while, and away from brokers whose disk is full to any that takes records. Each look begins with
/// another shard, so that a few that cannot move hold up nobody.
async fn balance_leaders<E: Env>(broker: &Arc<Broker<E>>, looks: usize) {
    let full = broker.liveness.full();
    let steady = broker.liveness.steady_for(SETTLE);
    let taking = steady.difference(&full).copied().collect();
    let mut moves: Vec<(ShardId, NodeId, NodeId)> = misplaced(broker, &taking, &full);
    if !moves.is_empty() {
        let first = looks % moves.len();
        moves.rotate_left(first);
    }
    futures_util::stream::iter(moves.into_iter().take(TRANSFERS_AT_ONCE))
        .for_each_concurrent(None, |(shard, from, to)| async move {
            if let Err(reason) = super::transfer::request(broker, shard, from, to).await {
                tracing::debug!(
                    shard = shard.0,
                    to = to.0,
                    reason,
                    "leader not moved; will repeat"
                );
            }
        })
        .await;
}

fn misplaced<E: Env>(
    broker: &Broker<E>,
    taking: &BTreeSet<NodeId>,
    full: &BTreeSet<NodeId>,
) -> Vec<(ShardId, NodeId, NodeId)> {
    let image = broker.cluster.image();
    let leaders = broker.cluster.leaders();
    // A shard whose members change is led where its plan needs it.
    let settled = image.shards().filter(|shard| shard.learners.is_empty());
    let misplaced = settled.filter_map(|shard| {
        let leader = leaders.get(&shard.id)?.node?;
        // Who has a bad range does not take over before it is whole, nor whose replica has not started yet.
        let serves = |node: NodeId| {
            let report = broker.reports.of(node, shard.id);
            report.is_some_and(|said| said.recovered && !said.stopped && said.damage.is_none())
        };
        let able = |node: &NodeId| taking.contains(node) && serves(*node);
        let to = better(shard.preferred_leader, &shard.replicas, leader, full, able)?;
        Some((shard.id, leader, to))
    });
    misplaced.collect()
}

/// Who should lead instead of `leader`, if anybody: who is preferred, or, where the leader's disk is
/// full, any replica. `able` says who can.
fn better(
    preferred: Option<NodeId>,
    replicas: &[NodeId],
    leader: NodeId,
    full: &BTreeSet<NodeId>,
    able: impl Fn(&NodeId) -> bool,
) -> Option<NodeId> {
    let preferred = preferred.filter(&able);
    let other = || {
        let others = replicas.iter().copied().filter(|node| *node != leader);
        others.filter(&able).find(|_| full.contains(&leader))
    };
    preferred.or_else(other).filter(|to| *to != leader)
}

#[cfg(test)]
#[path = "controller_tests.rs"]
mod tests;
