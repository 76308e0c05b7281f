//! What is wrong with the cluster, in plain words, as the metadata leader sees it: each finding says
//! what is the matter and what a person can do about it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use highwater_env::Env;
use highwater_metadata::{BrokerInfo, BrokerState, Image, MoveState, Plan, PlanKind, ShardInfo};
use highwater_proto::internal::HelloRequest;
use highwater_proto::{NodeId, ShardId, TopicId, TopicPartition};

use super::cluster::LeaderInfo;
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
                .map(|said| found(Severity::Critical, said.what, said.cure)),
        );
        all.extend(
            said.into_iter()
                .filter(|_| heard)
                .map(|said| found(Severity::Warning, said.what, said.cure)),
        );
    }
    all.extend(leaderless(broker, &image));
    all.extend(held_up(broker, &image));
    all.extend(thin(&image));
    all.extend(idle(&image));
    let running = image.running_plan();
    all.extend(running.map(|plan| about_plan(broker, &image, plan)));
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
    let bad = |shard: &ShardInfo| {
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

/// A topic as people call it.
fn name(image: &Image, topic: TopicId) -> String {
    let known = image.topic(topic);
    known.map_or_else(|| topic.to_string(), |topic| topic.name().to_owned())
}

fn in_words(image: &Image, tp: TopicPartition) -> String {
    format!("{}-{}", name(image, tp.topic), tp.partition)
}

/// Shards that are led by somebody who lives.
fn led<E: Env>(broker: &Broker<E>) -> BTreeSet<ShardId> {
    let alive = broker.liveness.alive();
    let leaders = broker.cluster.leaders().into_iter();
    let lives = |info: &LeaderInfo| info.node.is_some_and(|leader| alive.contains(&leader));
    let led = leaders.filter(|(_, info)| lives(info));
    led.map(|(shard, _)| shard).collect()
}

/// Partitions on their way to a shard that nobody leads: once they are fenced their writers wait, and nobody
/// but a person lifts the fence.
fn held_up<E: Env>(broker: &Broker<E>, image: &Image) -> Vec<Found> {
    let Some(plan) = image.running_plan() else {
        return Vec::new();
    };
    let led = led(broker);
    let under_way = plan.current_partitions().into_iter();
    let held = under_way
        .filter(|step| step.state == MoveState::Learning && !led.contains(&step.to))
        .map(|step| {
            let partition = in_words(image, TopicPartition::new(step.topic, step.partition));
            found(
                Severity::Warning,
                format!(
                    "partition {partition} goes to shard {}, which has no leader; if it is fenced already its \
                     writers wait",
                    step.to
                ),
                format!(
                    "start the brokers that shard {} lacks; or run `highwater cluster plan cancel`: \
                     the partition stays in shard {}, and is written there again",
                    step.to, step.from
                ),
            )
        });
    held.collect()
}

fn leaderless<E: Env>(broker: &Broker<E>, image: &Image) -> Vec<Found> {
    let alive = broker.liveness.alive();
    let led = led(broker);
    let missing = image.shards().filter(|shard| !led.contains(&shard.id));
    // Of some no replica is left: they wait for the broker that is to begin them anew.
    let (lost, missing): (Vec<_>, Vec<_>) = missing.partition(|s| s.replicas.is_empty());
    let away: BTreeSet<NodeId> = missing
        .iter()
        .flat_map(|shard| shard.replicas.iter().copied())
        .filter(|node| !alive.contains(node))
        .collect();
    let cure = if away.is_empty() {
        "an election is going on; if it does not end, look at the brokers' logs".to_owned()
    } else {
        let away = brokers(&away);
        format!("a majority of their replicas must be up: start {away}")
    };
    let begun = "they begin anew, empty, when the broker that is being replaced comes back: start it \
                 with an empty data directory";
    let missing = without_leader(&missing, "have no leader", cure);
    let lost = without_leader(&lost, "lost their only replica", begun.to_owned());
    missing.into_iter().chain(lost).collect()
}

fn without_leader(shards: &[&ShardInfo], what: &str, cure: String) -> Option<Found> {
    let partitions: u32 = shards.iter().map(|shard| shard.partitions).sum();
    let severity = if partitions == 0 {
        Severity::Warning
    } else {
        Severity::Critical
    };
    let listed = list(shards.iter().map(|shard| shard.id));
    let text = format!(
        "{} shards with {partitions} partitions {what} ({listed})",
        shards.len()
    );
    (!shards.is_empty()).then(|| found(severity, text, cure))
}

/// How long a broker may take to say that it is there.
const ASKED_FOR: Duration = Duration::from_secs(1);

/// Whether a broker says that it is there.
pub async fn answers<E: Env>(broker: &Broker<E>, node: NodeId) -> bool {
    let Ok(mut client) = broker.peers.client(node) else {
        return false;
    };
    let call = client.hello(HelloRequest::default());
    broker.peers.answer(node, ASKED_FOR, call).await.is_ok()
}

/// What can be told where nobody leads the metadata group: who of it does not answer this broker.
pub async fn without_metadata_leader<E: Env>(broker: &Broker<E>) -> Vec<Found> {
    let image = broker.cluster.image();
    let voters = broker.metadata.group().status().borrow().voters.clone();
    let others = image.brokers().filter(|known| known.id != broker.node_id);
    let asked = others.map(|known| async move { (known.id, answers(broker, known.id).await) });
    let asked = futures_util::future::join_all(asked).await;
    let away: BTreeSet<NodeId> = asked
        .into_iter()
        .filter(|(_, answers)| !answers)
        .map(|(node, _)| node)
        .collect();
    let (up, needed) = (voters.difference(&away).count(), voters.len() / 2 + 1);
    let gone: BTreeSet<NodeId> = voters.intersection(&away).copied().collect();
    let cure = if up >= needed {
        "an election is going on; if it does not end, look at the brokers' logs".to_owned()
    } else {
        let lacking = needed - up;
        format!("start {}: {lacking} of them must be up", brokers(&gone))
    };
    let what = format!(
        "the metadata group has no leader: {up} of its brokers answer broker {}, {needed} must; until \
         then nothing can be changed, and it is not known which partitions have leaders",
        broker.node_id
    );
    let mut all = vec![found(Severity::Critical, what, cure)];
    all.extend(away.iter().filter_map(|node| {
        let address = &image.broker(*node)?.address;
        let what = format!(
            "broker {node} at {address} does not answer broker {}",
            broker.node_id
        );
        Some(found(Severity::Warning, what, "start it again"))
    }));
    all
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
    let lacking = |shard: &&ShardInfo| {
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

fn about_plan<E: Env>(broker: &Broker<E>, image: &Image, plan: &Plan) -> Found {
    let what = match plan.kind {
        PlanKind::Rebalance => "replicas are being spread".to_owned(),
        PlanKind::Drain(node) => format!("broker {node} is being drained"),
        PlanKind::Replace(node) => format!("broker {node} is being filled again"),
        PlanKind::Repair(node, shard) => {
            format!("broker {node} is filled with shard {shard} again")
        }
        PlanKind::MovePartition(topic, partition, shard) => {
            let partition = in_words(image, TopicPartition::new(topic, partition));
            format!("partition {partition} goes to shard {shard}")
        }
        PlanKind::Replicate(topic, factor) => {
            format!("topic {} gets {factor} replicas", name(image, topic))
        }
    };
    let states = plan.moves.iter().map(|step| step.state);
    let states = states.chain(plan.partitions.iter().map(|step| step.state));
    let of = states.clone().count();
    let ended = states.filter(|state| state.is_final()).count();
    let first = plan
        .current()
        .into_iter()
        .find(|step| step.state != MoveState::Done);
    let waits = first.and_then(|step| {
        let words = broker.progress.of(step.shard);
        (!words.is_empty()).then(|| format!("; shard {}: {words}", step.shard))
    });
    let of_partition = plan.current_partitions().into_iter().find_map(|step| {
        let tp = TopicPartition::new(step.topic, step.partition);
        let said = broker.reports.of_move(plan.id, tp)?;
        Some(format!(
            "; partition {}: {}",
            in_words(image, tp),
            said.doing
        ))
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
