//! One clock for the heartbeats of all groups that this broker leads: what goes to a peer at the
//! same time goes in one write, and wakes it once. A follower that an append has just reached is
//! left out (`heartbeat_min_interval`, see `config.rs`). For groups with nothing to say there is one message to
//! each peer in place of a heartbeat each (`liveness.rs`).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use highwater_proto::NodeId;
use highwater_proto::internal::{RaftKind, RaftRequest};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use crate::coalesced::CoalescedMsg;
use crate::lane::LaneKind;
use crate::lane::client::Lane;
use crate::network::Lanes;
use crate::registry::Registry;
use crate::replica::Idle;

/// Asks the groups for heartbeats until dropped.
pub(crate) async fn beat(registry: Arc<Registry>, lanes: Arc<dyn Lanes>, every: Duration) {
    let mut clock = interval(every);
    clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut sent = JoinSet::new();
    loop {
        clock.tick().await;
        while sent.try_join_next().is_some() {}
        let groups = registry.all();
        let mut coalesced: BTreeMap<NodeId, CoalescedMsg> = BTreeMap::new();
        let mut heartbeats = Vec::new();
        for beat in groups.iter().map(|group| group.beat()) {
            heartbeats.extend(beat.heartbeat);
            if let Some(Idle { group, term, peers }) = beat.idle {
                for peer in peers {
                    coalesced.entry(peer).or_default().push(group, term);
                }
            }
        }
        for (peer, groups) in coalesced {
            // A lane that is not there was never needed: no heartbeat has gone out yet.
            if let Some(lane) = lanes.existing(peer, LaneKind::Heartbeat) {
                sent.spawn(send(Arc::clone(&registry), peer, lane, groups, every * 2));
            }
        }
        // A group whose queue stays full does not hold up the others: its appends speak for it.
        let _late = timeout(every, join_all(heartbeats)).await;
    }
}

/// Sends a peer the heartbeat of these groups, and tells those for which it counts there.
async fn send(
    registry: Arc<Registry>,
    peer: NodeId,
    lane: Lane,
    groups: CoalescedMsg,
    deadline: Duration,
) {
    let at = Instant::now();
    let request = RaftRequest {
        id: 0,
        group: 0,
        kind: RaftKind::CoalescedHeartbeat.into(),
        body: groups.to_bytes(),
        entries: Vec::new(),
    };
    // No answer, or one that says no: the groups' own heartbeats go on.
    let answer = match lane.call(request, deadline).await {
        Ok(answer) => CoalescedMsg::from_bytes(answer),
        Err(error) => return tracing::debug!(%peer, %error, "a coalesced heartbeat was not taken"),
    };
    match answer {
        Ok(taken) => {
            for (group, term) in taken.iter() {
                if let Some(group) = registry.control(group) {
                    group.counts(peer, term, at);
                }
            }
        }
        Err(error) => tracing::warn!(%peer, %error, "an answer to a coalesced heartbeat"),
    }
}
