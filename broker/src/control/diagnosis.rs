//! What is wrong with the cluster, in plain words, as the metadata leader sees it: each finding says
//! what is the matter and what a person can do about it.

use std::collections::{BTreeMap, BTreeSet};

use highwater_env::Env;
use highwater_metadata::{BrokerInfo, BrokerState, Image, MoveState, Plan, PlanKind};
use highwater_proto::{NodeId, ShardId, TopicPartition};

use crate::node::Broker;

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Worth knowing.
    Note,
    /// All works, with less to spare.
    Warning,
    /// Something is not served.
    Critical,
}

/// One thing that is wrong, or worth knowing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// How bad it is.
    pub severity: Severity,
    /// One sentence.
    pub what: String,
    /// One sentence.
    pub cure: String,
}

fn found(severity: Severity, what: String, cure: impl Into<String>) -> Found {
    Found {
        severity,
        what,
        cure: cure.into(),
    }
}

/// All of it, the worst first.
pub fn findings<E: Env>(broker: &Broker<E>) -> Vec<Found> {
    let image = broker.cluster.image();
    let alive = broker.liveness.alive();
    let mut all = Vec::new();
    for known in image.brokers() {
        all.extend(about_broker(&image, known, &alive));
        let said = broker.reports.problems(known.id);
        let heard = alive.contains(&known.id);
        all.extend(bad_replicas(broker, known.id));
        let alarms = broker.reports.alarms(known.id).into_iter();
        all.extend(
            alarms
                .filter(|_| heard)
                .map(|(what, cure)| found(Severity::Critical, what, cure)),
        );
        all.extend(said.into_iter().filter(|_| heard).map(|said| {
            let what = format!("broker {}: {said}", known.id);
            let cure = format!("look at the log of broker {}", known.id);
            found(Severity::Warning, what, cure)
        }));
    }
    all.extend(leaderless(broker, &image));
    all.extend(thin(&image));
    all.extend(idle(&image));
    all.extend(image.running_plan().map(|plan| about_plan(broker, plan)));
    all.sort_by_key(|found| std::cmp::Reverse(found.severity));
    all
}

fn about_broker(image: &Image, known: &BrokerInfo, alive: &BTreeSet<NodeId>) -> Option<Found> {
    let (id, address) = (known.id, &known.address);
    let away = !alive.contains(&id);
    let held = image.shards().filter(|s| s.is_hosted_by(id)).count();
    match image.state(id) {
        BrokerState::Active | BrokerState::Draining if away => Some(found(
            Severity::Warning,
            format!(
                "broker {id} at {address} does not answer; {held} shards have one replica less"
            ),
            format!(
                "start it again; if its disk is lost, run `highwater cluster replace {id}` and \
                 start it with an empty data directory; if it shall not come back, run \
                 `highwater cluster drain {id}`, then `highwater cluster remove {id}`"
            ),
        )),
        BrokerState::Drained => Some(found(
            Severity::Note,
            format!("broker {id} at {address} is drained and holds nothing"),
            format!("stop it and run `highwater cluster remove {id}`"),
        )),
        BrokerState::Leaving => Some(found(
            Severity::Note,
            format!("broker {id} at {address} is leaving the metadata group"),
            "wait; a majority of the metadata group must be up",
        )),
        BrokerState::Replaced | BrokerState::Awaited => Some(found(
            Severity::Warning,
            format!("broker {id} is being replaced and has not come back yet"),
            format!("start it with node.id {id} and an empty data directory"),
        )),
        BrokerState::Active | BrokerState::Draining => None,
    }
}

/// Replicas that have stopped or hold a bad range.
fn bad_replicas<E: Env>(broker: &Broker<E>, id: NodeId) -> Vec<Found> {
    let image = broker.cluster.image();
    let bad = |shard: &highwater_metadata::ShardInfo| {
        let said = broker.reports.of(id, shard.id)?;
        let what = match said.damage {
            Some(damage) => format!(
                "broker {id} has a bad range in shard {}: {damage}",
                shard.id
            ),
            None if said.stopped => {
                format!(
                    "shard {} has stopped on broker {id}, whose log says why",
                    shard.id
                )
            }
            None => return None,
        };
        let cure = if shard.replicas.len() > 1 {
            format!(
                "it is fetched again from the other replicas by itself, unless repair.automatic is \
                 off; if it stays, run `highwater cluster repair {id} {}`: the replica is filled \
                 anew from the others",
                shard.id
            )
        } else {
            "there is no other replica: restore the file from a backup".to_owned()
        };
        Some(found(Severity::Warning, what, cure))
    };
    let mine = image.shards().filter(|s| s.replicas.contains(&id));
    mine.filter_map(bad).collect()
}

fn leaderless<E: Env>(broker: &Broker<E>, image: &Image) -> Option<Found> {
    let leaders = broker.cluster.leaders();
    let alive = broker.liveness.alive();
    let led = |shard: &ShardId| {
        let leader = leaders.get(shard).and_then(|info| info.node);
        leader.is_some_and(|leader| alive.contains(&leader))
    };
    let missing: Vec<_> = image.shards().filter(|s| !led(&s.id)).collect();
    if missing.is_empty() {
        return None;
    }
    let away: BTreeSet<NodeId> = missing
        .iter()
        .flat_map(|shard| shard.replicas.iter().copied())
        .filter(|node| !alive.contains(node))
        .collect();
    let partitions: u32 = missing.iter().map(|shard| shard.partitions).sum();
    let cure = if away.is_empty() {
        "an election is going on; if it does not end, look at the brokers' logs".to_owned()
    } else {
        format!(
            "a majority of their replicas must be up: start {}",
            brokers(&away)
        )
    };
    Some(found(
        Severity::Critical,
        format!(
            "{} shards with {partitions} partitions have no leader ({})",
            missing.len(),
            list(missing.iter().map(|shard| shard.id))
        ),
        cure,
    ))
}

fn brokers(ids: &BTreeSet<NodeId>) -> String {
    let ids: Vec<String> = ids.iter().map(NodeId::to_string).collect();
    format!("broker {}", ids.join(", "))
}

/// The first few of many.
fn list(shards: impl Iterator<Item = ShardId>) -> String {
    const SHOWN: usize = 8;
    let all: Vec<String> = shards.map(|shard| shard.to_string()).collect();
    let mut text = all
        .iter()
        .take(SHOWN)
        .cloned()
        .collect::<Vec<_>>()
        .join(", ");
    if all.len() > SHOWN {
        text.push_str(", ...");
    }
    text
}

/// Shards with fewer replicas than they should have, and nobody filling them.
fn thin(image: &Image) -> Option<Found> {
    let planned: BTreeSet<ShardId> = image
        .running_plan()
        .into_iter()
        .flat_map(|plan| &plan.moves)
        .filter(|step| !step.state.is_final())
        .map(|step| step.shard)
        .collect();
    let lacking = |shard: &&highwater_metadata::ShardInfo| {
        shard.replicas.len() < shard.class as usize && !planned.contains(&shard.id)
    };
    let thin: Vec<ShardId> = image.shards().filter(lacking).map(|s| s.id).collect();
    (!thin.is_empty()).then(|| {
        found(
            Severity::Warning,
            format!(
                "{} shards have fewer replicas than they should ({})",
                thin.len(),
                list(thin.iter().copied())
            ),
            "run `highwater cluster rebalance`",
        )
    })
}

/// Brokers that could take replicas and have none.
fn idle(image: &Image) -> Option<Found> {
    if image.running_plan().is_some() || image.shards().next().is_none() {
        return None;
    }
    let mut held: BTreeMap<NodeId, usize> = BTreeMap::new();
    for node in image.shards().flat_map(|shard| &shard.replicas) {
        *held.entry(*node).or_default() += 1;
    }
    let idle: BTreeSet<NodeId> = image
        .brokers()
        .map(|known| known.id)
        .filter(|id| image.state(*id) == BrokerState::Active && !held.contains_key(id))
        .collect();
    (!idle.is_empty()).then(|| {
        found(
            Severity::Note,
            format!("{} holds no replicas", brokers(&idle)),
            "run `highwater cluster rebalance` to give it its share",
        )
    })
}

fn about_plan<E: Env>(broker: &Broker<E>, plan: &Plan) -> Found {
    let what = match plan.kind {
        PlanKind::Rebalance => "replicas are being spread".to_owned(),
        PlanKind::Drain(node) => format!("broker {node} is being drained"),
        PlanKind::Replace(node) => format!("broker {node} is being filled again"),
        PlanKind::Repair(node, shard) => {
            format!("broker {node} is filled with shard {shard} again")
        }
        PlanKind::MovePartition(topic, partition, shard) => {
            format!("partition {topic}-{partition} goes to shard {shard}")
        }
        PlanKind::Replicate(topic, factor) => format!("topic {topic} gets {factor} replicas"),
    };
    let states = plan.moves.iter().map(|step| step.state);
    let states = states.chain(plan.partitions.iter().map(|step| step.state));
    let of = states.clone().count();
    let ended = states.filter(|state| state.is_final()).count();
    let first = plan
        .current()
        .into_iter()
        .find(|step| step.state != MoveState::Done);
    let waits = first.map(|step| {
        let words = broker.progress.of(step.shard);
        format!("; shard {}: {words}", step.shard)
    });
    let of_partition = plan.current_partitions().into_iter().find_map(|step| {
        let tp = TopicPartition::new(step.topic, step.partition);
        let said = broker.reports.of_move(plan.id, tp)?;
        Some(format!("; partition {tp}: {}", said.doing))
    });
    let waits = waits.or(of_partition);
    found(
        Severity::Note,
        format!(
            "{what}: {ended} of {of} moves have ended{}",
            waits.unwrap_or_default()
        ),
        "`highwater cluster plan show` says more; `highwater cluster plan cancel` ends it",
    )
}
