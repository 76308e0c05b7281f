//! How far the groups are behind their topics, and how the brokers are.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::Context as _;
use futures_util::future::try_join_all;
use highwater_client::Client;

use crate::bus::ClientBus;
use crate::control::ClusterControl;
use crate::domain::role::Role;
use crate::domain::topics;
use crate::driver::progress::BrokerView;

/// A group's place in its topic.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Place {
    /// Its committed offsets, by partition.
    pub committed: BTreeMap<u32, u64>,
    /// Messages behind them that are not committed.
    pub behind: u64,
}

/// Where a group is.
///
/// # Errors
/// When the brokers do not say.
pub(super) async fn place(client: &Client, role: Role) -> anyhow::Result<Place> {
    let topic = client.topic(role.topic()).await;
    let topic = topic.with_context(|| format!("topic {}", role.topic()))?;
    let offsets = client.groups().offsets(role.name()).await;
    let offsets = offsets.with_context(|| format!("group {role}"))?;
    let mine = offsets.into_iter().filter(|o| o.topic_id == topic.id.0);
    let committed: BTreeMap<u32, u64> = mine.map(|o| (o.partition, o.offset)).collect();
    let ends = client.end_offsets(role.topic()).await?;
    let behind = (0..).zip(ends).map(|(partition, end)| {
        let at = committed.get(&partition).copied().unwrap_or(0);
        end.0.saturating_sub(at)
    });
    let behind = behind.sum();
    Ok(Place { committed, behind })
}

/// How far each group is behind.
///
/// # Errors
/// When the brokers do not say.
pub(super) async fn lags(client: &Client) -> anyhow::Result<BTreeMap<String, u64>> {
    let places = Role::ALL.into_iter().map(|role| async move {
        let place = place(client, role).await?;
        anyhow::Ok((role.name().to_owned(), place.behind))
    });
    Ok(try_join_all(places).await?.into_iter().collect())
}

/// Which brokers run, and how many of the demo's partitions each leads as far as clients know.
pub(super) async fn brokers(
    control: &Arc<dyn ClusterControl>,
    bus: &ClientBus,
    known: &[(u32, String)],
) -> Vec<BrokerView> {
    let running = control.pids().await;
    let mut leads: BTreeMap<u32, u32> = BTreeMap::new();
    for (topic, _) in topics::ALL {
        // A topic that is not known for a moment is not counted for a moment.
        for place in bus.placement(topic).await.unwrap_or_default() {
            if let Some(leader) = place.leader {
                *leads.entry(leader).or_default() += 1;
            }
        }
    }
    let view = |(number, _): &(u32, String)| BrokerView {
        broker: *number,
        runs: running.iter().any(|(running, _)| running == number),
        leads: leads.get(number).copied().unwrap_or(0),
    };
    known.iter().map(view).collect()
}
