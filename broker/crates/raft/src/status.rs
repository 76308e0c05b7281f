//! What the broker sees of a group, and the task that keeps it up to date.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use highwater_proto::{NodeId, ShardId};
use openraft::async_runtime::watch::WatchReceiver as _;
use openraft::{RaftMetrics, ServerState};
use tokio::sync::watch;

use crate::everywhere::Everywhere;
use crate::machine::Position;
use crate::types::{LogId, TypeConfig, term_of};

/// What a replica is to its group.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Role {
    /// Receives the log, does not vote.
    #[default]
    Learner,
    /// Receives the log and votes.
    Follower,
    /// Asks for votes.
    Candidate,
    /// Writes the log.
    Leader,
    /// The group has stopped here.
    Stopped,
}

/// A group as this replica sees it. Indexes count entries from 0 and are 0 before the first one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GroupStatus {
    /// Who leads, if known.
    pub leader: Option<NodeId>,
    /// The newest term known.
    pub term: u64,
    /// What this replica is.
    pub role: Role,
    /// The last entry here, durable or not.
    pub last_log: u64,
    /// The last entry known committed.
    pub committed: u64,
    /// The last entry applied here.
    pub applied: u64,
    /// The last entry in the durable checkpoint.
    pub checkpointed: u64,
    /// Entries up to this one are purged from the log.
    pub purged: u64,
    /// Who votes; empty before the group is initialized.
    pub voters: BTreeSet<NodeId>,
    /// Two sets of voters count, until the second half of a change is made; `voters` has both.
    pub joint: bool,
    /// The newer of the two sets, or the only one.
    pub incoming: BTreeSet<NodeId>,
    /// The members are committed: no change of them is under way.
    pub settled: bool,
    /// The entry that made the members what they are.
    pub members_at: Option<Position>,
    /// Who only receives.
    pub learners: BTreeSet<NodeId>,
    /// When leading: the last entry each member is known to have; `None` while not yet known.
    pub followers: BTreeMap<NodeId, Option<u64>>,
    /// Everything that this replica may have applied before its last stop is applied again.
    pub recovered: bool,
}

/// Data changes are published no more often than this; changes of leader at once.
const DATA_INTERVAL: Duration = Duration::from_millis(10);

type MetricsReceiver =
    openraft::type_config::alias::WatchReceiverOf<TypeConfig, RaftMetrics<TypeConfig>>;

/// The broker's number of an openraft node.
pub(crate) fn node_id(node: u64) -> NodeId {
    NodeId(u32::try_from(node).unwrap_or(u32::MAX))
}

fn index(id: Option<&LogId>) -> u64 {
    id.map_or(0, LogId::index)
}

fn role(state: ServerState, running: bool) -> Role {
    match state {
        _ if !running => Role::Stopped,
        ServerState::Learner => Role::Learner,
        ServerState::Follower => Role::Follower,
        ServerState::Candidate => Role::Candidate,
        ServerState::Leader => Role::Leader,
        ServerState::Shutdown => Role::Stopped,
    }
}

impl GroupStatus {
    /// Whether this replica has promised nothing yet: it has no entry and has heard of no term.
    #[must_use]
    pub fn is_pristine(&self) -> bool {
        self.term == 0 && self.last_log == 0 && self.voters.is_empty() && self.checkpointed == 0
    }
    /// What this replica is, and in which term.
    #[must_use]
    pub fn role_in(&self) -> (Role, u64) {
        (self.role, self.term)
    }
    fn of(metrics: &RaftMetrics<TypeConfig>, recovered: bool) -> Self {
        let membership = metrics.membership_config.membership();
        let changed = metrics.membership_config.log_id();
        let configs = membership.get_joint_config();
        let replication = metrics.replication.iter().flatten();
        Self {
            leader: metrics.current_leader.map(node_id),
            term: metrics.current_term,
            role: role(metrics.state, metrics.running_state.is_ok()),
            last_log: metrics.last_log_index.unwrap_or_default(),
            committed: index(metrics.local_committed.as_ref()),
            applied: index(metrics.last_applied.as_ref()),
            checkpointed: index(metrics.snapshot.as_ref()),
            purged: index(metrics.purged.as_ref()),
            voters: membership.voter_ids().map(node_id).collect(),
            joint: configs.len() > 1,
            incoming: configs
                .last()
                .into_iter()
                .flatten()
                .map(|n| node_id(*n))
                .collect(),
            settled: changed.is_some() && metrics.local_committed >= *changed,
            members_at: changed.as_ref().map(|id| Position {
                index: id.index(),
                term: term_of(id),
            }),
            learners: membership.learner_ids().map(node_id).collect(),
            followers: replication
                .map(|(node, matched)| (node_id(*node), matched.as_ref().map(LogId::index)))
                .collect(),
            recovered,
        }
    }
}

/// Watches whether the replica has applied everything it may have applied before its last stop:
/// its log at start, or what is left of it once a leader has cut the part that never committed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Recovery {
    /// The last entry of the log at start.
    at_start: Option<u64>,
    done: bool,
}

impl Recovery {
    pub(crate) fn new(at_start: Option<u64>) -> Self {
        Self {
            at_start,
            done: false,
        }
    }
    fn observe(&mut self, metrics: &RaftMetrics<TypeConfig>) {
        let target = self.at_start.min(metrics.last_log_index);
        let committed = metrics.cluster_committed.as_ref().map(LogId::index);
        let applied = metrics.last_applied.as_ref().map(LogId::index);
        self.done |= committed.is_some() && committed >= target && applied >= target;
    }
}

/// Publishes a group's status until the group is gone.
pub(crate) async fn publish(
    group: ShardId,
    mut metrics: MetricsReceiver,
    mut recovery: Recovery,
    everywhere: Everywhere,
    status: watch::Sender<GroupStatus>,
) {
    let label = group.to_string();
    let changes = metrics::counter!("highwater_raft_leader_changes_total", "group" => label);
    loop {
        let next = {
            let metrics = metrics.borrow_and_update();
            recovery.observe(&metrics);
            everywhere.observe(&metrics);
            GroupStatus::of(&metrics, recovery.done)
        };
        status.send_if_modified(|now| {
            if next.leader.is_some() && now.leader != next.leader {
                changes.increment(1);
                let leader = next.leader.map(|node| node.0);
                tracing::info!(group = group.0, leader, term = next.term, "leader");
            }
            let changed = *now != next;
            *now = next;
            changed
        });
        let published = leadership(&metrics);
        if metrics.changed().await.is_err() || !pause(&mut metrics, published).await {
            break;
        }
    }
    status.send_modify(|now| {
        now.role = Role::Stopped;
        now.leader = None;
    });
}

type Leadership = (Option<u64>, u64, ServerState);

/// Lets several movements of the log become one change of the status, unless the leader changed.
/// `false`: the group is gone.
async fn pause(metrics: &mut MetricsReceiver, published: Leadership) -> bool {
    let changed = async {
        while leadership(metrics) == published {
            if metrics.changed().await.is_err() {
                return false;
            }
        }
        true
    };
    tokio::time::timeout(DATA_INTERVAL, changed)
        .await
        .unwrap_or(true)
}

fn leadership(metrics: &MetricsReceiver) -> Leadership {
    let metrics = metrics.borrow_watched();
    (metrics.current_leader, metrics.current_term, metrics.state)
}
