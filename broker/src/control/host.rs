//! Hosting shards: starts the groups that the image assigns to this broker, makes a new group's
//! first membership, ends those that are assigned elsewhere, and tells the cluster who leads.
//!
//! What is begun or removed here follows an image that is durable: after a restart this broker never
//! believes an older one, in which it was no member yet, or still was one.
//!
//! Which plan was followed is said with every heartbeat, and a replica begins to be filled only when its broker has
//! followed the plan: one that lags must not have what it still holds counted as the new replica, and then remove
//! it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use futures_util::future::try_join_all;
use highwater_env::Env;
use highwater_metadata::{Image, ShardInfo};
use highwater_proto::{NodeId, PartitionId, ShardId, TopicPartition};
use highwater_raft::{CheckpointError, Group, Position, VoteFloor};

use super::cluster::LeaderInfo;
use super::founding;
use crate::groups::{self, Coordinator};
use crate::node::Broker;
use crate::runtime::accumulate::Accumulator;
use crate::runtime::machine::ShardMachine;
use crate::runtime::{Shard, discard, leftovers};

/// Before what found no room on the disk is tried again.
const AGAIN_AFTER: Duration = Duration::from_secs(1);

/// Runs until the broker stops. An error to start a shard stops the broker: it would otherwise
/// look alive while a replica is missing. A full disk does not: the broker says that it is not ready and that
/// it has no room, and nothing is begun or removed before it has.
///
/// # Errors
/// One line.
pub async fn run<E: Env>(broker: Arc<Broker<E>>) -> anyhow::Result<()> {
    let mut changes = broker.cluster.changes();
    // Looked at since the start, and nothing of it lies here.
    let mut absent: BTreeSet<ShardId> = BTreeSet::new();
    loop {
        changes.borrow_and_update();
        let image = broker.cluster.image();
        let outcome = tokio::select! {
            outcome = follow(&broker, &image, &mut absent) => outcome,
            () = broker.stop.cancelled() => return Ok(()),
        };
        match outcome {
            Err(error) if broker.stop.is_cancelled() => {
                tracing::debug!(%error, "while stopping");
                return Ok(());
            }
            Err(error) if is_full(&error) => {
                tracing::warn!(%error, "no replica is begun or removed: the disk is full; will repeat");
                tokio::select! {
                    () = tokio::time::sleep(AGAIN_AFTER) => continue,
                    () = broker.stop.cancelled() => return Ok(()),
                }
            }
            outcome => outcome?,
        }
        tokio::select! {
            changed = changes.changed() => if changed.is_err() { return Ok(()) },
            () = broker.stop.cancelled() => return Ok(()),
        }
    }
}

/// Hosts what `image` assigns to this broker and nothing else.
async fn follow<E: Env>(
    broker: &Arc<Broker<E>>,
    image: &Image,
    absent: &mut BTreeSet<ShardId>,
) -> anyhow::Result<()> {
    // Whoever comes back with another disk is not meant.
    if image.incarnation(broker.node_id) != Some(broker.incarnation.as_str()) {
        return Ok(());
    }
    let mut durable = false;
    let mut to_host = Vec::new();
    let mut lying = Lying::default();
    for shard in image.shards() {
        let hosted = broker.shards.get(shard.id);
        let is_member = shard.is_hosted_by(broker.node_id);
        match &hosted {
            Some(hosted) if is_member => {
                set_vote_floor(broker, hosted);
                continue;
            }
            None if !is_member && absent.contains(&shard.id) => continue,
            _ => {}
        }
        let is_kept = hosted.is_some()
            || discard::is_there(&broker.shard_context, &broker.groups, shard.id).await?;
        let is_left = !is_kept && lying.has_any_of(broker, image, shard.id).await?;
        if is_member != is_kept || is_left {
            make_durable(broker, &mut durable).await?;
        }
        if is_left || (is_kept && !is_member) {
            end(broker, image, shard.id).await?;
        }
        if is_member {
            absent.remove(&shard.id);
            to_host.push(shard);
        } else {
            absent.insert(shard.id);
        }
    }
    // At the same time: one that has started replays its log, and what is written for it would hold up
    // those that are still to open their files.
    let starting = to_host.into_iter().map(|shard| host(broker, shard));
    try_join_all(starting).await?;
    if let Some(plan) = image.plan()
        && *broker.followed_plan.borrow() != plan.id
    {
        // No process here believes an older image again, in which a disk counts that the plan has given up.
        make_durable(broker, &mut durable).await?;
        broker.followed_plan.send_replace(plan.id);
    }
    Ok(())
}

/// The partitions that have a directory here, listed when first asked for.
#[derive(Default)]
struct Lying(Option<BTreeSet<(TopicPartition, u64)>>);

impl Lying {
    /// Whether anything lies in a partition that the image has in a shard.
    async fn has_any_of<E: Env>(
        &mut self,
        broker: &Broker<E>,
        image: &Image,
        shard: ShardId,
    ) -> anyhow::Result<bool> {
        let found = match &mut self.0 {
            Some(found) => found,
            empty => {
                let listed = leftovers::directories(&broker.shard_context).await;
                let listed = listed.context("cannot list the partitions' directories")?;
                empty.insert(listed.into_iter().collect())
            }
        };
        Ok(!found.is_empty() && placed(image, shard).any(|partition| found.contains(&partition)))
    }
}

/// The partitions that the image has in a shard, each with the move that brought it.
fn placed(image: &Image, shard: ShardId) -> impl Iterator<Item = (TopicPartition, u64)> {
    image.topics().flat_map(move |topic| {
        let id = topic.id();
        let partitions = (0..).zip(topic.shards().collect::<Vec<_>>());
        partitions
            .filter(move |(_, placed)| *placed == shard)
            .map(|(number, _)| PartitionId(number))
            .map(move |number| (TopicPartition::new(id, number), topic.arrival(number)))
    })
}

/// Whether the image could not be made durable for want of room: nothing has been done then.
fn is_full(error: &anyhow::Error) -> bool {
    match error.downcast_ref::<CheckpointError>() {
        Some(CheckpointError::Persist(cause)) => highwater_env::is_full(cause),
        _ => false,
    }
}

/// Makes the image that is acted upon durable, once for one image.
async fn make_durable<E: Env>(broker: &Broker<E>, durable: &mut bool) -> anyhow::Result<()> {
    if !*durable {
        let made = broker.metadata.group().checkpoint().await;
        made.context("cannot make the cluster image durable")?;
        *durable = true;
    }
    Ok(())
}

/// Tells a replica whom it may vote for: nobody while a range of it is bad, unless nobody else has a
/// replica of the shard.
pub fn set_vote_floor<E: Env>(broker: &Broker<E>, hosted: &Shard<E::Disk>) {
    let image = broker.cluster.image();
    let Some(shard) = image.shard(hosted.id) else {
        return;
    };
    hosted.group.set_vote_floor(floor_here(broker, shard));
}

fn floor_here<E: Env>(broker: &Broker<E>, shard: &ShardInfo) -> VoteFloor {
    let others = shard.replicas.iter().any(|node| *node != broker.node_id);
    if others && broker.damage.is_bad(shard.id) {
        VoteFloor::Nobody
    } else {
        floor(shard, broker.node_id)
    }
}

/// Whom a replica may vote for: one that is being filled only for those who have the entry that
/// made it a member.
fn floor(shard: &ShardInfo, me: NodeId) -> VoteFloor {
    match shard.learners.get(&me) {
        None => VoteFloor::Usual,
        Some(None) => VoteFloor::Nobody,
        Some(Some(floor)) => VoteFloor::Member(Position {
            index: floor.index,
            term: floor.term,
        }),
    }
}

async fn host<E: Env>(broker: &Arc<Broker<E>>, shard: &ShardInfo) -> anyhow::Result<()> {
    let machine = ShardMachine::new(shard.id, Arc::clone(&broker.shard_context));
    let (views, groups) = (machine.views(), machine.groups());
    let floor = floor_here(broker, shard);
    let group = broker.groups.start(shard.id, machine, floor).await?;
    let (accumulator, _task) = Accumulator::start(group.clone(), Arc::clone(&broker.turns));
    if !shard.established {
        founding::begin(broker, shard, &group).await?;
    }
    let beginning = shard.beginning;
    let told = (shard.id, beginning);
    tokio::spawn(report_leader(Arc::clone(broker), told, group.clone()));
    let hosted = Shard {
        id: shard.id,
        beginning,
        group,
        views,
        accumulator,
        groups,
        coordinator: Coordinator::default(),
    };
    let hosted = Arc::new(hosted);
    broker.shards.insert(Arc::clone(&hosted));
    tokio::spawn(groups::coordinate(Arc::clone(broker), hosted));
    Ok(())
}

/// Ends a replica and removes what it held. It is no member of its group: whoever wrote the image
/// has seen that committed.
async fn end<E: Env>(broker: &Arc<Broker<E>>, image: &Image, shard: ShardId) -> anyhow::Result<()> {
    if let Some(hosted) = broker.shards.remove(shard) {
        hosted.group.shutdown().await;
    }
    broker.damage.forget(shard);
    broker.shard_context.compactions.forget(shard);
    let partitions = placed(image, shard).collect();
    discard::discard(&broker.shard_context, &broker.groups, shard, partitions)
        .await
        .with_context(|| format!("cannot remove the replica of shard {shard}"))
}

/// Copies the group's view of its leader into the cluster's until the group ends.
async fn report_leader<E: Env>(
    broker: Arc<Broker<E>>,
    (shard, beginning): (ShardId, u64),
    group: Group,
) {
    let mut status = group.status();
    loop {
        let seen = {
            let status = status.borrow_and_update();
            LeaderInfo {
                beginning,
                term: status.term,
                node: status.leader,
            }
        };
        broker.cluster.observe_leader(shard, seen, 0);
        tokio::select! {
            changed = status.changed() => if changed.is_err() { return },
            () = broker.stop.cancelled() => return,
        }
    }
}

#[cfg(test)]
#[path = "host_tests.rs"]
mod tests;
