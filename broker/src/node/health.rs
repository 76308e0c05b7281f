//! What is wrong with this broker and its cluster, in plain sentences.

use std::sync::Arc;
use std::time::Duration;

use highwater_env::Env;
use highwater_proto::internal::Alarm;
use highwater_raft::Role;

use super::Broker;
use crate::observe::{Check, CheckState, Health, REPLICATION_CHECK};

/// A metadata leader that is silent for longer is not merely being followed by another one.
const SILENT_FOR: Duration = Duration::from_secs(6);

/// One sentence per problem that this broker sees; empty: nothing is wrong.
pub fn problems<E: Env>(broker: &Broker<E>) -> Vec<String> {
    let failed = |check: Check| (check.state != CheckState::Ok).then_some(check.sentence);
    checks(broker).into_iter().filter_map(failed).collect()
}

/// What is wrong with this broker itself, whatever the others do, and what to do about it.
pub fn own_problems<E: Env>(broker: &Broker<E>) -> Vec<Alarm> {
    let me = broker.node_id;
    let own = [
        (
            stopped(broker),
            format!("the log of broker {me} says why; restart it"),
        ),
        (
            disk(broker),
            format!(
                "make room on that disk, or give broker {me} a larger one; records are taken again \
                 by themselves then, without a restart"
            ),
        ),
        (
            clock(broker),
            format!(
                "set the clock of broker {me}'s machine, and see that NTP runs there; the rest \
                 comes by itself"
            ),
        ),
    ];
    let failed = |(check, cure): (Check, String)| {
        let what = format!("broker {me}: {}", check.sentence);
        (check.state != CheckState::Ok).then_some(Alarm { what, cure })
    };
    own.into_iter().filter_map(failed).collect()
}

/// All checks, in an order that does not change.
pub fn checks<E: Env>(broker: &Broker<E>) -> Vec<Check> {
    vec![
        membership(broker),
        brokers(broker),
        metadata(broker),
        replicas(broker),
        stopped(broker),
        replication(broker),
        leaders(broker),
        disk(broker),
        clock(broker),
    ]
}

/// Whether clients can be served here: the broker is a member, and its shards have recovered and
/// have leaders.
pub fn is_ready<E: Env>(broker: &Broker<E>) -> bool {
    let bad = |check: &Check| check.state == CheckState::Failed;
    let own = [membership(broker), metadata(broker), replicas(broker)];
    !own.iter().any(bad) && led_shards_missing(broker, true).is_empty()
}

fn check(name: &'static str, problem: Option<(CheckState, String)>, fine: &str) -> Check {
    match problem {
        Some((state, sentence)) => Check::new(name, state, sentence),
        None => Check::new(name, CheckState::Ok, fine),
    }
}

fn membership<E: Env>(broker: &Broker<E>) -> Check {
    let problem = if broker.is_draining() {
        Some("this broker is stopping".to_owned())
    } else if !broker.membership.is_registered() {
        Some("this broker is not registered with a cluster yet".to_owned())
    } else {
        broker.membership.turned_away()
    };
    check(
        "membership",
        problem.map(|p| (CheckState::Failed, p)),
        "registered",
    )
}

fn brokers<E: Env>(broker: &Broker<E>) -> Check {
    let image = broker.cluster.image();
    let alive = broker.cluster.alive();
    let missing: Vec<String> = image
        .brokers()
        .filter(|known| image.incarnation(known.id).is_some())
        .filter(|known| !alive.is_empty() && !alive.contains(&known.id))
        .map(|known| format!("broker {} at {}", known.id, known.address))
        .collect();
    let problem = (!missing.is_empty()).then(|| {
        let who = missing.join(", ");
        let text = format!(
            "{who} does not answer, its shards have one replica less; start it again, or see \
                 `highwater cluster health`"
        );
        (CheckState::Warning, text)
    });
    check("brokers", problem, "every broker answers")
}

fn metadata<E: Env>(broker: &Broker<E>) -> Check {
    let leader = broker.metadata.group().status().borrow().leader;
    let silent = broker.liveness.unanswered_for();
    let problem = match leader {
        None => {
            let text = "the metadata group has no leader; a majority of its brokers must be up";
            Some((CheckState::Failed, text.to_owned()))
        }
        // It may be gone, and nobody can take its place.
        Some(leader) if silent > SILENT_FOR => {
            let text = format!(
                "broker {leader}, which led the metadata group, has not answered this broker for {} s: \
                 what is known of others is old; see `highwater cluster health`",
                silent.as_secs()
            );
            Some((CheckState::Warning, text))
        }
        Some(_) => None,
    };
    check("metadata", problem, "the metadata group has a leader")
}

fn replicas<E: Env>(broker: &Broker<E>) -> Check {
    let image = broker.cluster.image();
    let mine = image
        .shards()
        .filter(|shard| shard.replicas.contains(&broker.node_id));
    let recovering = mine
        .filter(|shard| {
            let hosted = broker.shards.get(shard.id);
            hosted.is_none_or(|hosted| !hosted.group.status().borrow().recovered)
        })
        .count();
    let problem = (recovering > 0).then(|| {
        (
            CheckState::Failed,
            format!("{recovering} shards of this broker are still recovering"),
        )
    });
    check(
        "replicas",
        problem,
        "every shard of this broker has recovered",
    )
}

/// A group ends by itself only when its log or its state cannot be used any more.
fn stopped<E: Env>(broker: &Broker<E>) -> Check {
    let ended = |shard: &Arc<crate::runtime::Shard<E::Disk>>| {
        let role = shard.group.status().borrow().role;
        (role == Role::Stopped).then(|| shard.id.to_string())
    };
    let stopped: Vec<String> = broker.shards.all().iter().filter_map(ended).collect();
    let problem = (!stopped.is_empty()).then(|| {
        let list = stopped.join(", ");
        let text =
            format!("shards {list} have stopped on this broker; its log says why, restart it");
        (CheckState::Failed, text)
    });
    check("shards", problem, "every shard of this broker runs")
}

/// Whether this broker's replicas have applied what others were heard to have applied.
fn replication<E: Env>(broker: &Broker<E>) -> Check {
    let behind = |shard: &Arc<crate::runtime::Shard<E::Disk>>| {
        shard.group.status().borrow().applied < broker.cluster.applied(shard.id)
    };
    let behind = broker
        .shards
        .all()
        .iter()
        .filter(|shard| behind(shard))
        .count();
    let problem = (behind > 0).then(|| {
        (
            CheckState::Warning,
            format!("{behind} shards of this broker are still catching up"),
        )
    });
    check(
        REPLICATION_CHECK,
        problem,
        "every shard of this broker has caught up",
    )
}

fn leaders<E: Env>(broker: &Broker<E>) -> Check {
    let missing = led_shards_missing(broker, false);
    let problem = (!missing.is_empty()).then(|| {
        let list = missing.join(", ");
        let text = format!("no leader for shards {list}; a majority of their replicas must be up");
        (CheckState::Failed, text)
    });
    check("leaders", problem, "every shard has a leader")
}

fn led_shards_missing<E: Env>(broker: &Broker<E>, only_own: bool) -> Vec<String> {
    let leaders = broker.cluster.leaders();
    let image = broker.cluster.image();
    image
        .shards()
        .filter(|shard| !only_own || shard.replicas.contains(&broker.node_id))
        .filter(|shard| leaders.get(&shard.id).and_then(|info| info.node).is_none())
        .map(|shard| shard.id.to_string())
        .collect()
}

fn disk<E: Env>(broker: &Broker<E>) -> Check {
    let problem = broker.gate.is_storage_full().then(|| {
        let text = format!(
            "free space for {} is below storage.reserve_bytes, produce is rejected; free space",
            broker.config.node.data_dir.display()
        );
        (CheckState::Failed, text)
    });
    check("disk", problem, "enough free space")
}

fn clock<E: Env>(broker: &Broker<E>) -> Check {
    let problem = broker.clocks.halted();
    check(
        "clock",
        problem.map(|why| (CheckState::Warning, why)),
        "the wall clock agrees with most other brokers'",
    )
}

/// The broker as the admin server sees it.
pub struct BrokerHealth<E: Env>(pub Arc<Broker<E>>);

impl<E: Env> Health for BrokerHealth<E> {
    fn live(&self) -> bool {
        self.0.wal.failure().is_none()
    }
    fn ready(&self) -> bool {
        is_ready(&self.0)
    }
    fn checks(&self) -> Vec<Check> {
        checks(&self.0)
    }
    fn exposition(&self) -> String {
        super::exposition::exposition(&self.0)
    }
}
