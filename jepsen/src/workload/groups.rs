//! The consumer groups of a run, and what must hold of them when everything is healed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use highwater_client::At;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::member::{self, Group};
use super::{CALM_REQUEST, Shared, letters};

/// Members of each group at a time.
const MEMBERS: u32 = 3;
/// Workers of the group with dead letters.
const WORKERS: u32 = 2;

type Tasks = JoinSet<anyhow::Result<()>>;

/// Starts them all.
pub(super) fn start(shared: &Arc<Shared>, stop: &CancellationToken, tasks: &mut Tasks) {
    for number in 0..shared.plan.groups {
        let group = Group::of(shared, number);
        for member in 0..MEMBERS {
            let number = number * MEMBERS + member;
            let (shared, stop) = (Arc::clone(shared), stop.clone());
            tasks.spawn(member::run(shared, group.clone(), number, stop));
        }
        tasks.spawn(member::watch(Arc::clone(shared), group, stop.clone()));
    }
    if shared.plan.groups == 0 {
        return;
    }
    for number in 0..WORKERS {
        tasks.spawn(letters::member(Arc::clone(shared), number, stop.clone()));
    }
    tasks.spawn(letters::produce(Arc::clone(shared), stop.clone()));
    tasks.spawn(letters::redrive(Arc::clone(shared), stop.clone()));
}

/// Every group comes to the end of every partition, and the dead letters are exact. Answers with
/// what is wrong.
///
/// # Errors
/// Only errors of the harness.
pub async fn finish_groups(
    shared: &Arc<Shared>,
    patience: Duration,
) -> anyhow::Result<Vec<String>> {
    if shared.plan.groups == 0 {
        return Ok(Vec::new());
    }
    let client = shared.client_with("group-ends", CALM_REQUEST)?;
    let ends = match client.topic_offsets(&shared.plan.topic, At::Latest).await {
        Ok(ends) => ends,
        Err(error) => return Ok(vec![format!("no ends for the groups: {error}")]),
    };
    let ends: BTreeMap<u32, u64> = ends.iter().map(|e| (e.partition.0, e.offset.0)).collect();
    let mut wrong = Vec::new();
    for number in 0..shared.plan.groups {
        let group = Group::of(shared, number);
        wrong.extend(member::finish(shared, group, &ends, patience).await?);
    }
    wrong.extend(letters::finish(shared, patience).await);
    Ok(wrong)
}
