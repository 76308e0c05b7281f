//! Heartbeats from every broker to the metadata leader, and what the leader makes of them.
//!
//! They carry who leads which shard; the answer carries the same of all shards and who is alive.
//! Nothing of it is logged: an observation that is lost comes again with the next heartbeat.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use highwater_env::{Clock, Env};
use highwater_proto::internal::{HeartbeatRequest, HeartbeatResponse, ShardReport};
use highwater_proto::{NodeId, ShardId};
use highwater_raft::Role;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::cluster::{Cluster, KnownLeader, LeaderInfo};
use crate::node::{Broker, health};

/// Between two heartbeats when nothing changed.
const INTERVAL: Duration = Duration::from_secs(1);
/// At least between two heartbeats when something did.
const MIN_INTERVAL: Duration = Duration::from_millis(50);
/// A broker that was silent for this long is not alive.
pub const ALIVE_FOR: Duration = Duration::from_secs(4);
const CALL_DEADLINE: Duration = Duration::from_secs(2);

/// What the metadata leader heard from one broker.
#[derive(Debug, Clone)]
struct Heard {
    at: Instant,
    since: Instant,
    draining: bool,
    full: bool,
    started_at_ms: i64,
}

/// Which brokers the metadata leader heard from, and when; and when this broker last heard from it.
#[derive(Debug, Default)]
pub struct Liveness {
    heard: Mutex<BTreeMap<NodeId, Heard>>,
    answered: Mutex<Option<Instant>>,
}

impl Liveness {
    /// Takes note of a heartbeat: whether the broker is stopping, whether its disk is full, and when its
    /// process was started, by its own wall clock.
    pub fn heard_from(&self, node: NodeId, draining: bool, full: bool, started_at_ms: i64) {
        let now = Instant::now();
        let mut heard = self.heard.lock();
        let entry = heard.entry(node).or_insert(Heard {
            at: now,
            since: now,
            draining,
            full,
            started_at_ms,
        });
        if now - entry.at > ALIVE_FOR {
            entry.since = now;
        }
        entry.at = now;
        entry.draining = draining;
        entry.full = full;
        entry.started_at_ms = started_at_ms;
    }
    /// Takes note that the metadata leader has answered.
    fn answered(&self) {
        *self.answered.lock() = Some(Instant::now());
    }
    /// For how long the metadata leader has not answered this broker, if it ever has.
    #[must_use]
    pub fn unanswered_for(&self) -> Duration {
        let answered = *self.answered.lock();
        answered.map_or(Duration::ZERO, |at| at.elapsed())
    }
    /// When a broker's process was started, by that broker's wall clock; 0: it never said.
    #[must_use]
    pub fn started_at_ms(&self, node: NodeId) -> i64 {
        let heard = self.heard.lock();
        heard.get(&node).map_or(0, |heard| heard.started_at_ms)
    }
    /// Brokers heard from lately.
    #[must_use]
    pub fn alive(&self) -> BTreeSet<NodeId> {
        self.alive_for(Duration::ZERO)
    }
    /// Brokers that have been alive without a gap for at least `span` and are not stopping.
    #[must_use]
    pub fn steady_for(&self, span: Duration) -> BTreeSet<NodeId> {
        let heard = self.heard.lock();
        let draining: BTreeSet<_> = heard
            .iter()
            .filter(|(_, h)| h.draining)
            .map(|(id, _)| *id)
            .collect();
        drop(heard);
        self.alive_for(span)
            .difference(&draining)
            .copied()
            .collect()
    }
    /// Brokers that said last that they take no records for want of disk space.
    #[must_use]
    pub fn full(&self) -> BTreeSet<NodeId> {
        let heard = self.heard.lock();
        heard
            .iter()
            .filter(|(_, h)| h.full)
            .map(|(id, _)| *id)
            .collect()
    }
    fn alive_for(&self, span: Duration) -> BTreeSet<NodeId> {
        let now = Instant::now();
        let heard = self.heard.lock();
        let lately = heard
            .iter()
            .filter(|(_, h)| now - h.at <= ALIVE_FOR && now - h.since >= span);
        lately.map(|(id, _)| *id).collect()
    }
}

/// Serves a heartbeat at the metadata leader.
pub fn serve<E: Env>(broker: &Broker<E>, request: HeartbeatRequest) -> HeartbeatResponse {
    let group = broker.metadata.group();
    if !group.is_leader() {
        let leader = group.status().borrow().leader.map(|node| node.0);
        let error = "not the metadata leader".to_owned();
        return HeartbeatResponse {
            error,
            leader,
            ..HeartbeatResponse::default()
        };
    }
    broker.liveness.heard_from(
        NodeId(request.node_id),
        request.draining,
        request.storage_full,
        request.started_at_ms,
    );
    for report in &request.shards {
        // Who says that it leads is there, whatever term others have heard of.
        let leads = report.leader == Some(request.node_id);
        let outlived = if leads { u64::MAX } else { 0 };
        observe(&broker.cluster, report, outlived);
    }
    let now_ms = broker.env.clock().now_ms();
    broker
        .clocks
        .heard(NodeId(request.node_id), request.wall_clock_ms);
    broker.reports.note(request);
    let alive = broker.liveness.alive();
    broker.cluster.observe_alive(alive.clone());
    HeartbeatResponse {
        shards: reports(&broker.cluster),
        alive: alive.into_iter().map(|node| node.0).collect(),
        clocks: broker.clocks.to_tell(now_ms),
        wall_clock_ms: now_ms,
        ..HeartbeatResponse::default()
    }
}

fn observe(cluster: &Cluster, report: &ShardReport, outlived: u64) {
    let shard = ShardId(report.shard);
    let leader = LeaderInfo {
        beginning: report.beginning,
        term: report.term,
        node: report.leader.map(NodeId),
    };
    cluster.observe_leader(shard, leader, outlived);
    cluster.observe_applied(shard, report.beginning, report.applied_index);
}

fn reports(cluster: &Cluster) -> Vec<ShardReport> {
    let report = |(shard, known): (ShardId, KnownLeader)| ShardReport {
        shard: shard.0,
        leader: known.now.node.map(|node| node.0),
        term: known.now.term,
        applied_index: cluster.applied(shard),
        outlived_term: known.outlived,
        beginning: known.now.beginning,
        ..ShardReport::default()
    };
    cluster.known_leaders().into_iter().map(report).collect()
}

/// Sends heartbeats until the broker stops: every second, and soon after a leader changed or a plan was followed.
pub async fn run<E: Env>(broker: Arc<Broker<E>>) {
    let mut changes = broker.cluster.changes();
    let mut plans = broker.followed_plan.subscribe();
    while !broker.stop.is_cancelled() {
        beat(&broker).await;
        changes.borrow_and_update();
        tokio::time::sleep(MIN_INTERVAL).await;
        tokio::select! {
            () = tokio::time::sleep(INTERVAL - MIN_INTERVAL) => {}
            changed = changes.changed() => if changed.is_err() { return },
            followed = plans.changed() => if followed.is_err() { return },
            () = broker.stop.cancelled() => return,
        }
    }
}

/// Sends one heartbeat to the metadata leader now, and waits for the answer, a little while.
pub async fn beat<E: Env>(broker: &Arc<Broker<E>>) {
    let request = HeartbeatRequest {
        node_id: broker.node_id.0,
        incarnation: broker.incarnation.clone(),
        shards: own_reports(broker),
        draining: broker.is_draining(),
        problems: health::own_problems(broker),
        wall_clock_ms: broker.env.clock().now_ms(),
        alarms: broker.divergences.alarms(broker.node_id),
        storage_full: broker.gate.is_storage_full(),
        started_at_ms: broker.started_at_ms,
        moves: broker.moves.reports(),
        followed_plan: *broker.followed_plan.borrow(),
    };
    let Some(leader) = broker.metadata.group().status().borrow().leader else {
        return;
    };
    if leader == broker.node_id {
        broker.membership.set_unheard(None);
        broker.liveness.answered();
        learn_clocks(broker, &serve(broker, request));
        return;
    }
    let Ok(mut client) = broker.peers.client(leader) else {
        return;
    };
    match tokio::time::timeout(CALL_DEADLINE, client.heartbeat(request)).await {
        Ok(Ok(response)) => {
            broker.membership.set_unheard(None);
            let response = response.into_inner();
            if !response.error.is_empty() {
                tracing::debug!(error = response.error, "heartbeat went to the wrong broker");
                return;
            }
            broker.liveness.answered();
            learn_clocks(broker, &response);
            for report in &response.shards {
                observe(&broker.cluster, report, report.outlived_term);
            }
            broker
                .cluster
                .observe_alive(response.alive.into_iter().map(NodeId).collect());
        }
        Ok(Err(status)) => {
            if status.code() == tonic::Code::PermissionDenied {
                tracing::warn!(reason = status.message(), "this broker is not heard");
                let reason = status.message().to_owned();
                broker.membership.set_unheard(Some(reason));
            }
            tracing::debug!(%status, leader = leader.0, "heartbeat failed");
            broker.peers.forget(leader);
        }
        Err(_elapsed) => broker.peers.forget(leader),
    }
}

fn learn_clocks<E: Env>(broker: &Broker<E>, response: &HeartbeatResponse) {
    let now_ms = broker.env.clock().now_ms();
    broker.clocks.told(
        broker.node_id,
        &response.clocks,
        response.wall_clock_ms,
        now_ms,
    );
}

/// Who leads the shards hosted here, as their groups see it.
fn own_reports<E: Env>(broker: &Broker<E>) -> Vec<ShardReport> {
    let report = |shard: Arc<crate::runtime::Shard<E::Disk>>| {
        let receiver = shard.group.status();
        let status = receiver.borrow();
        ShardReport {
            shard: shard.id.0,
            leader: status.leader.map(|node| node.0),
            term: status.term,
            applied_index: status.applied,
            voters: status.voters.iter().map(|node| node.0).collect(),
            learners: status.learners.iter().map(|node| node.0).collect(),
            recovered: status.recovered,
            stopped: status.role == Role::Stopped,
            damage: broker.damage.of(shard.id).unwrap_or_default(),
            outlived_term: 0,
            beginning: shard.beginning,
        }
    };
    broker.shards.all().into_iter().map(report).collect()
}
