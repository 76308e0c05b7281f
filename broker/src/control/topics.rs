//! What the image says of topics, brought about in the shards that this broker leads: partitions of
//! deleted topics go, settings that changed are taken over, and what a move has left behind, ended or
//! given up, is put right (`strays.rs`).
//!
//! Nothing is remembered of what was done: the image and the shard's state are compared again after
//! every change of either, so a leader that dies half-way, or a command that comes late and makes a
//! deleted partition again, leaves nothing behind.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use highwater_env::Env;
use highwater_metadata::Image;
use highwater_proto::{NodeId, ShardId, TopicId, TopicPartition};
use highwater_shard::{
    CommandRefusal, CompactionSettings as _, FeatureLevel, PartitionConfig, ShardCommand,
    ShardReply,
};
use tokio::time::Instant;

use super::controller::{partition_config, propose_here};
use super::strays::{self, Judged};
use crate::groups::raise_level;
use crate::node::Broker;
use crate::runtime::{Shard, leftovers};

/// Between two looks; sooner when the image changed, but not sooner than [`PAUSE`], nor than
/// [`REST`] times what the last look took: with many partitions it takes long, and a cluster in which
/// topics are made one after the other would do nothing else.
const INTERVAL: Duration = Duration::from_secs(1);
const PAUSE: Duration = Duration::from_millis(50);
const REST: u32 = 20;
/// A shard for which nothing changed is looked at again after this long.
const RECHECK: Duration = Duration::from_mins(1);
/// Between two looks for directories of partitions that are gone.
const TIDY_AGAIN: Duration = Duration::from_mins(10);
const DEADLINE: Duration = Duration::from_secs(5);
/// Commands of one shard under way at the same time.
const COMMANDS_AT_ONCE: usize = 64;

/// What a shard was last compared with, and when, by the leadership that did it.
struct Looked {
    term: u64,
    image: Arc<Image>,
    at: Instant,
}

/// Runs until the broker stops.
pub async fn run<E: Env>(broker: Arc<Broker<E>>) {
    let mut changes = broker.cluster.changes();
    let mut looked: BTreeMap<ShardId, Looked> = BTreeMap::new();
    let mut tidied = Tidied::default();
    while !broker.stop.is_cancelled() {
        changes.borrow_and_update();
        let began = Instant::now();
        for shard in broker.shards.all() {
            look(&broker, &shard, &mut looked).await;
        }
        tidied.go_on(&broker).await;
        let pause = (began.elapsed() * REST).clamp(PAUSE, INTERVAL);
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = broker.stop.cancelled() => return,
        }
        tokio::select! {
            () = tokio::time::sleep(INTERVAL) => {}
            changed = changes.changed() => if changed.is_err() { return },
            () = broker.stop.cancelled() => return,
        }
    }
}

async fn look<E: Env>(
    broker: &Arc<Broker<E>>,
    shard: &Arc<Shard<E::Disk>>,
    looked: &mut BTreeMap<ShardId, Looked>,
) {
    if !shard.group.is_leader() {
        looked.remove(&shard.id);
        return;
    }
    let term = shard.group.status().borrow().term;
    let image = broker.cluster.image();
    let fresh = looked.get(&shard.id).is_some_and(|last| {
        last.term == term && Arc::ptr_eq(&last.image, &image) && last.at.elapsed() < RECHECK
    });
    // A step of a move may come after the image that ended it.
    if fresh && !shard.views.are_moving() {
        return;
    }
    if follow(broker, shard, &image).await {
        let at = Instant::now();
        looked.insert(shard.id, Looked { term, image, at });
    } else {
        looked.remove(&shard.id);
    }
}

/// Proposes what the shard's state lacks. Whether all of it was applied.
async fn follow<E: Env>(
    broker: &Arc<Broker<E>>,
    shard: &Arc<Shard<E::Disk>>,
    image: &Image,
) -> bool {
    let views = shard.views.list();
    if views.is_empty() {
        return true;
    }
    let topics = views.iter().map(|view| view.topic_partition().topic);
    let needed = level(image, topics);
    if shard.groups.rules() < needed {
        let deadline = Instant::now() + DEADLINE;
        let raised = raise_level(broker, shard, (needed, deadline)).await;
        // Brokers of an older release: what they know is still taken over.
        if let Err(error) = raised {
            tracing::debug!(shard = shard.id.0, %error, "the shard stays at its level");
        }
    }
    let rules = shard.groups.rules();
    let due: Vec<_> = views
        .iter()
        .filter_map(|view| {
            let found = strays::Found::of(shard.id, view);
            match strays::due(image, &found) {
                Judged::Belongs => due(image, rules, (found.tp, view.config())),
                Judged::Moves => None,
                Judged::Astray(step) => Some(ShardCommand::Move(Box::new(step))),
            }
        })
        .collect();
    drop(views);
    futures_util::stream::iter(due)
        .map(|command| carry_out(broker, shard.id, command))
        .buffer_unordered(COMMANDS_AT_ONCE)
        .fold(true, |all, one| std::future::ready(all && one))
        .await
}

/// The level that the settings of these topics need.
fn level(image: &Image, mut topics: impl Iterator<Item = TopicId>) -> FeatureLevel {
    let is_compacted = |topic| {
        let topic = image.topic(topic);
        topic.is_some_and(|topic| topic.settings().cleanup.compact)
    };
    if topics.any(is_compacted) {
        FeatureLevel::COMPACTION
    } else {
        FeatureLevel::TOPICS
    }
}

/// What a partition lacks.
fn due(
    image: &Image,
    rules: FeatureLevel,
    (tp, config): (TopicPartition, PartitionConfig),
) -> Option<ShardCommand> {
    // An image from before the topic says neither.
    let Some(topic) = image.topic(tp.topic) else {
        let gone = image.was_deleted(tp.topic);
        return gone.then_some(ShardCommand::DeletePartition { tp });
    };
    let mut wanted = partition_config(topic);
    if rules < FeatureLevel::COMPACTION {
        wanted = wanted.without_compaction();
    }
    if rules < FeatureLevel::TOPICS {
        wanted = PartitionConfig {
            version: config.version,
            retention_ms: config.retention_ms,
            retention_bytes: config.retention_bytes,
            ..wanted
        };
    }
    let differs = wanted != config && wanted.version >= config.version;
    differs.then_some(ShardCommand::ConfigurePartition { tp, config: wanted })
}

async fn carry_out<E: Env>(broker: &Arc<Broker<E>>, shard: ShardId, command: ShardCommand) -> bool {
    let encoded = command.encode().to_contiguous();
    let reply = propose_here(broker, shard, encoded, DEADLINE).await;
    let reply = reply
        .map_err(|failure| failure.reason)
        .and_then(|reply| ShardReply::decode(&reply).map_err(|error| error.to_string()));
    match reply {
        // Deleted meanwhile, or on its way to another shard: there is nothing to configure.
        Ok(
            ShardReply::Done
            | ShardReply::Refused(CommandRefusal::UnknownPartition | CommandRefusal::Moving),
        ) => true,
        Ok(other) => {
            tracing::warn!(shard = shard.0, ?command, reply = ?other, "refused; will repeat");
            false
        }
        Err(reason) => {
            tracing::debug!(shard = shard.0, reason, "not done; will repeat");
            false
        }
    }
}

/// What was done about files that a crash had left: once for a shard, now and then for topics, since
/// one may have been deleted while this broker was away.
#[derive(Default)]
struct Tidied {
    shards: BTreeSet<ShardId>,
    topics: Option<Instant>,
}

impl Tidied {
    async fn go_on<E: Env>(&mut self, broker: &Arc<Broker<E>>) {
        let context = &broker.shard_context;
        // A shard that has not started yet uses files that nobody knows of.
        let running: BTreeSet<ShardId> = broker.shards.all().iter().map(|s| s.id).collect();
        let mut waiting = !all_run(&broker.cluster.image(), broker.node_id, &running);
        for shard in broker.shards.all() {
            if self.shards.contains(&shard.id) {
                continue;
            }
            if !shard.group.status().borrow().recovered {
                waiting = true;
                continue;
            }
            match leftovers::of_shard(context, &shard).await {
                Ok(_) => drop(self.shards.insert(shard.id)),
                Err(error) => {
                    tracing::warn!(shard = shard.id.0, %error, "cannot look for leftovers");
                    self.shards.insert(shard.id);
                }
            }
        }
        let lately = self.topics.is_some_and(|last| last.elapsed() < TIDY_AGAIN);
        if waiting || lately || self.shards.is_empty() {
            return;
        }
        self.topics = Some(Instant::now());
        let image = broker.cluster.image();
        let removed = leftovers::of_gone_partitions(context, |tp, arrival| {
            strays::is_gone(&image, tp, arrival)
        });
        if let Err(error) = removed.await {
            tracing::warn!(%error, "cannot look for what is left of partitions that are gone");
        }
    }
}

/// Whether every shard that a broker is to host runs there.
fn all_run(image: &Image, broker: NodeId, running: &BTreeSet<ShardId>) -> bool {
    let mut hosted = image.shards().filter(|shard| shard.is_hosted_by(broker));
    image.cluster_id().is_some() && hosted.all(|shard| running.contains(&shard.id))
}

#[cfg(test)]
#[path = "topics_tests.rs"]
mod tests;
