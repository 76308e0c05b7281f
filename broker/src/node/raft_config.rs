//! What the Raft groups are told about this broker.

use std::sync::Arc;

use highwater_raft::{Caller, GroupsConfig, Timings};

use super::membership::Membership;
use crate::config::Config;

/// Timings from the configuration; identity and admission from the membership, asked each time,
/// because the cluster's id may come later than the groups.
pub fn groups_config(
    config: &Config,
    membership: &Arc<Membership>,
) -> anyhow::Result<GroupsConfig> {
    let me = membership.identity();
    let (says, asks) = (Arc::clone(membership), Arc::clone(membership));
    let identity = move || Caller {
        cluster: says.cluster_id().unwrap_or_default(),
        node: highwater_proto::NodeId(me.node_id),
        incarnation: me.incarnation.clone(),
    };
    let admission =
        move |caller: &Caller| asks.admit(&caller.cluster, caller.node, &caller.incarnation);
    let timings = Timings {
        heartbeat: config.raft.heartbeat_ms.duration(),
        election_min: config.raft.election_min_ms.duration(),
        election_max: config.raft.election_max_ms.duration(),
        ..Timings::default()
    };
    Ok(GroupsConfig {
        node_id: config.node.id,
        identity: Arc::new(identity),
        admission: Arc::new(admission),
        timings,
        cache_bytes: usize::try_from(config.limits.log_cache_bytes.0)?,
    })
}
