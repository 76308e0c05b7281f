//! Drives the running plan, and keeps memberships as the image has them; acts only where the
//! metadata group is led.
//!
//! A step is done in the group it concerns, seen there to be committed, and only then written down.
//! Whoever leads next asks for the same step again and finds it done.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use highwater_env::Env;
use highwater_metadata::{
    BrokerState, Floor, Image, MetadataCommand, MetadataReply, Move, MoveState, MoveStep, Plan,
    PlanKind, ShardInfo,
};
use highwater_proto::{NodeId, ShardId};
use highwater_raft::Goal;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::members;
use super::repairs::{self, Repairs};
use crate::node::Broker;

/// Between two looks.
const INTERVAL: Duration = Duration::from_millis(500);
/// Between two looks while a plan runs.
const BUSY_INTERVAL: Duration = Duration::from_millis(100);
const COMMAND_DEADLINE: Duration = Duration::from_secs(5);
/// Shards put right at the same time, beside those of a plan.
const REPAIRS_AT_ONCE: usize = 4;

/// How far the moves under way are, in words: an observation of whoever drives them.
#[derive(Debug, Default)]
pub struct Progress(Mutex<BTreeMap<ShardId, String>>);

impl Progress {
    fn note(&self, shard: ShardId, words: String) {
        let mut notes = self.0.lock();
        if notes.get(&shard) != Some(&words) {
            tracing::info!(shard = shard.0, "plan: {words}");
            notes.insert(shard, words);
        }
    }
    /// What the move of a shard does or waits for.
    #[must_use]
    pub fn of(&self, shard: ShardId) -> String {
        self.0.lock().get(&shard).cloned().unwrap_or_default()
    }
    fn clear(&self) {
        self.0.lock().clear();
    }
}

/// Runs until the broker stops.
pub async fn run<E: Env>(broker: Arc<Broker<E>>) {
    let mut repairs = Repairs::default();
    while !broker.stop.is_cancelled() {
        let mut interval = INTERVAL;
        if broker.metadata.group().is_leader() {
            let look = tokio::select! {
                busy = look(&broker, &mut repairs) => busy,
                () = broker.stop.cancelled() => return,
            };
            if look {
                interval = BUSY_INTERVAL;
            }
        } else {
            // Whoever leads next looks anew.
            repairs = Repairs::default();
        }
        tokio::select! {
            () = tokio::time::sleep(interval) => {}
            () = broker.stop.cancelled() => return,
        }
    }
}

/// One look; whether a plan runs.
async fn look<E: Env>(broker: &Arc<Broker<E>>, repairs: &mut Repairs) -> bool {
    // Decided on the newest image, by somebody who still leads.
    if broker.metadata.group().read_barrier().await.is_err() {
        return false;
    }
    let term = broker.metadata.group().status().borrow().term;
    let image = broker.cluster.image();
    metadata_members(broker, &image).await;
    let busy = match image.running_plan() {
        Some(plan) => {
            drive(broker, &image, plan, term).await;
            true
        }
        None => {
            broker.progress.clear();
            false
        }
    };
    put_right(broker, &image, term).await;
    repair(broker, &image, repairs).await;
    busy
}

/// Begins to fill a replica again that has stopped by itself.
async fn repair<E: Env>(broker: &Broker<E>, image: &Image, repairs: &mut Repairs) {
    if !broker.config.repair.automatic {
        return;
    }
    let Some((node, shard)) = due(broker, image, repairs) else {
        return;
    };
    tracing::warn!(
        node = node.0,
        shard = shard.0,
        "a replica has stopped by itself; it is filled again from the others"
    );
    metrics::counter!("highwater_automatic_repairs_total").increment(1);
    let command = MetadataCommand::StartPlan {
        kind: PlanKind::Repair(node, shard),
        parallel: 1,
        accept_loss: false,
    };
    write_down(broker, command).await;
}

fn due<E: Env>(
    broker: &Broker<E>,
    image: &Image,
    repairs: &mut Repairs,
) -> Option<(NodeId, ShardId)> {
    let known = repairs::Known {
        image,
        alive: &broker.liveness.alive(),
        report: &|node, shard| broker.reports.of(node, shard),
    };
    let after = broker.config.repair.after_ms.duration();
    repairs.next(&known, Instant::now(), after)
}

/// Proposes what was done; a refusal or an unknown outcome shows at the next look.
async fn write_down<E: Env>(broker: &Broker<E>, command: MetadataCommand) {
    match broker.metadata.propose(&command, COMMAND_DEADLINE).await {
        Ok(MetadataReply::Refused(why)) => {
            tracing::debug!(reason = why.message, "a step was refused; will repeat");
        }
        Ok(_) => {}
        Err(error) => tracing::debug!(%error, "a step is not written down yet; will repeat"),
    }
}

/// Brings the metadata group's members to what the image wants, one change a look.
async fn metadata_members<E: Env>(broker: &Arc<Broker<E>>, image: &Image) {
    let group = broker.metadata.group();
    let status = group.status().borrow().clone();
    let Some(goal) = metadata_goal(image, &status.voters, &broker.liveness.alive()) else {
        return;
    };
    match group.reshape(&goal).await {
        Ok(next) => tracing::trace!(?next, "metadata members"),
        Err(error) => tracing::debug!(%error, "metadata members not changed; will repeat"),
    }
    let status = group.status().borrow().clone();
    if !status.settled || status.joint {
        return;
    }
    let gone = |node: &NodeId| !status.voters.contains(node) && !status.learners.contains(node);
    for node in image.brokers().map(|known| known.id) {
        let leaving = matches!(
            image.state(node),
            BrokerState::Leaving | BrokerState::Replaced
        );
        if leaving && gone(&node) {
            write_down(broker, MetadataCommand::ConfirmExpelled { broker: node }).await;
        }
    }
}

/// Five voters where there are five brokers, three where there are three; whoever votes goes on
/// voting, unless it leaves. Every other broker receives. Pure.
fn metadata_goal(
    image: &Image,
    voters: &BTreeSet<NodeId>,
    alive: &BTreeSet<NodeId>,
) -> Option<Goal> {
    let in_state = |wanted: &[BrokerState]| -> BTreeSet<NodeId> {
        let ids = image.brokers().map(|known| known.id);
        ids.filter(|id| wanted.contains(&image.state(*id)))
            .collect()
    };
    let active = in_state(&[BrokerState::Active]);
    let going = in_state(&[BrokerState::Draining, BrokerState::Drained]);
    let size = match active.len() {
        5.. => 5,
        3..=4 => 3,
        _ => 1,
    };
    let mut wanted: BTreeSet<NodeId> = voters.intersection(&active).copied().collect();
    let rack = |id: &NodeId| image.broker(*id).map_or("", |known| known.rack.as_str());
    while wanted.len() < size {
        let crowd = |id: &NodeId| {
            wanted
                .iter()
                .filter(|other| rack(other) == rack(id))
                .count()
        };
        let free = active
            .iter()
            .filter(|id| alive.contains(id) && !wanted.contains(id));
        let Some(best) = free.min_by_key(|id| (crowd(id), **id)).copied() else {
            break;
        };
        wanted.insert(best);
    }
    // Who is to go stays as long as it is needed.
    for node in voters.intersection(&going) {
        if wanted.len() < size {
            wanted.insert(*node);
        }
    }
    let members = active.union(&going).copied();
    let learners = members.filter(|node| !wanted.contains(node)).collect();
    (!wanted.is_empty()).then_some(Goal {
        voters: wanted,
        learners,
    })
}

/// One step of each move that may be worked on.
async fn drive<E: Env>(broker: &Arc<Broker<E>>, image: &Image, plan: &Plan, term: u64) {
    let steps = plan.current().into_iter().map(|step| async move {
        match next_step(broker, image, plan, step, term).await {
            Ok(done) => {
                let command = MetadataCommand::AdvanceMove {
                    plan: plan.id,
                    shard: step.shard,
                    step: done,
                };
                write_down(broker, command).await;
            }
            Err(waits) => broker.progress.note(step.shard, waits),
        }
    });
    futures_util::future::join_all(steps).await;
}

/// What was done about a move and can be written down, or what it waits for.
async fn next_step<E: Env>(
    broker: &Arc<Broker<E>>,
    image: &Image,
    plan: &Plan,
    step: &Move,
    term: u64,
) -> Result<MoveStep, String> {
    let shard = image.shard(step.shard).ok_or("the shard is unknown")?;
    match step.state {
        MoveState::Expelling => {
            reach(broker, shard, &as_planned(shard), term).await?;
            Ok(MoveStep::Expelled)
        }
        MoveState::Waiting => {
            may_begin(broker, image, plan, step.add)?;
            all_know(broker, plan, shard, step.add)?;
            Ok(MoveStep::Learn)
        }
        MoveState::Learning if plan.cancelled && !votes(broker, shard, step.add) => {
            reach(broker, shard, &as_planned(shard), term).await?;
            Ok(MoveStep::Cancelled)
        }
        MoveState::Learning => learn(broker, shard, step, term).await,
        MoveState::Done | MoveState::Cancelled => Err("it has ended".to_owned()),
    }
}

fn may_begin<E: Env>(
    broker: &Broker<E>,
    image: &Image,
    plan: &Plan,
    node: NodeId,
) -> Result<(), String> {
    if image.incarnation(node).is_none() {
        return Err(format!(
            "broker {node} is awaited: start it with an empty data directory"
        ));
    }
    if !broker.liveness.alive().contains(&node) {
        return Err(format!("broker {node} does not answer"));
    }
    // What it holds of the shard is from before, and must be gone.
    if !broker.reports.has_followed(node, plan.id) {
        return Err(format!(
            "broker {node} has not taken notice of plan {} yet",
            plan.id
        ));
    }
    Ok(())
}

/// Whether the shard's other replicas have followed the plan: they talk no more to a process whose disk it gives up,
/// and that may still run. Who talked to that one would take its word for the new replica's. Those that are away cannot
/// be waited for; but of a replaced disk's shard a majority has to know.
fn all_know<E: Env>(
    broker: &Broker<E>,
    plan: &Plan,
    shard: &ShardInfo,
    new: NodeId,
) -> Result<(), String> {
    let others = shard.replicas.iter().copied().filter(|id| *id != new);
    let (known, unknown) = others.partition(|id| broker.reports.has_followed(*id, plan.id));
    let replaces = matches!(plan.kind, PlanKind::Replace(_));
    match unaware(&known, &unknown, &broker.liveness.alive(), replaces) {
        None => Ok(()),
        Some(id) => {
            let plan = plan.id;
            Err(format!(
                "broker {id} has not taken notice of plan {plan} yet"
            ))
        }
    }
}

/// The first of a shard's replicas that has to know of a plan first. Pure.
fn unaware(
    known: &BTreeSet<NodeId>,
    unknown: &BTreeSet<NodeId>,
    alive: &BTreeSet<NodeId>,
    replaces: bool,
) -> Option<NodeId> {
    let others = known.len() + unknown.len();
    // Of all replicas, the new one among them.
    let majority = others.div_ceil(2) + 1;
    let enough = !replaces || known.len() >= majority.min(others);
    unknown
        .iter()
        .copied()
        .find(|id| alive.contains(id) || !enough)
}

/// The new replica becomes a member; its floor is written down; it catches up and votes, and the
/// old one goes.
async fn learn<E: Env>(
    broker: &Arc<Broker<E>>,
    shard: &ShardInfo,
    step: &Move,
    term: u64,
) -> Result<MoveStep, String> {
    let floor = shard.learners.get(&step.add).copied().flatten();
    if floor.is_none() {
        let goal = Goal {
            learners: BTreeSet::from([step.add]),
            ..as_planned(shard)
        };
        let floor = reach(broker, shard, &goal, term).await?;
        return Ok(MoveStep::Floor(floor));
    }
    let mut goal = as_planned(shard);
    if let Some(gone) = step.remove {
        goal.voters.remove(&gone);
    }
    goal.voters.insert(step.add);
    reach(broker, shard, &goal, term).await?;
    Ok(MoveStep::Done)
}

/// The members that the image has, without those that are being filled.
fn as_planned(shard: &ShardInfo) -> Goal {
    Goal {
        voters: shard.replicas.iter().copied().collect(),
        learners: BTreeSet::new(),
    }
}

/// Asks for the next change of a shard's members; `Ok` when they are as wanted, with the entry that
/// made them so.
async fn reach<E: Env>(
    broker: &Arc<Broker<E>>,
    shard: &ShardInfo,
    goal: &Goal,
    term: u64,
) -> Result<Floor, String> {
    let now = members::reshape(broker, shard.id, goal, term).await?;
    if now.done && now.settled {
        Ok(Floor {
            term: now.members_term,
            index: now.members_index,
        })
    } else {
        Err(now.doing)
    }
}

/// Whether the shard's leader said that a broker votes.
fn votes<E: Env>(broker: &Broker<E>, shard: &ShardInfo, node: NodeId) -> bool {
    let leader = broker.cluster.leader(shard.id).and_then(|info| info.node);
    let report = leader.and_then(|leader| broker.reports.of(leader, shard.id));
    report.is_some_and(|report| report.voters.contains(&node))
}

/// Memberships that are not as the image has them, and that no move is about: what a controller left
/// that was replaced in the middle of a step.
async fn put_right<E: Env>(broker: &Arc<Broker<E>>, image: &Image, term: u64) {
    let moving: BTreeSet<ShardId> = image
        .running_plan()
        .into_iter()
        .flat_map(|plan| &plan.moves)
        .filter(|step| !step.state.is_final())
        .map(|step| step.shard)
        .collect();
    let wrong = image.shards().filter(|shard| {
        let settled = shard.established && !shard.replicas.is_empty();
        settled && !moving.contains(&shard.id) && differs(broker, shard)
    });
    let repairs = wrong.take(REPAIRS_AT_ONCE).map(|shard| async move {
        if let Err(reason) = reach(broker, shard, &as_planned(shard), term).await {
            tracing::info!(shard = shard.id.0, reason, "members are being put right");
        }
    });
    futures_util::future::join_all(repairs).await;
}

fn differs<E: Env>(broker: &Broker<E>, shard: &ShardInfo) -> bool {
    let leader = broker.cluster.leader(shard.id).and_then(|info| info.node);
    let Some((leader, report)) =
        leader.and_then(|leader| Some((leader, broker.reports.of(leader, shard.id)?)))
    else {
        return false;
    };
    // Only a leader knows, and only while it is one.
    report.leader == Some(leader)
        && !report.voters.is_empty()
        && (report.voters != shard.replicas || !report.learners.is_empty())
}

#[cfg(test)]
#[path = "plans_tests.rs"]
pub(super) mod tests;
