//! A log in which something has rotted is written anew, so that the next start does not stumble over it:
//! checkpoints take the place of what it retains, and what is needed still goes into new files. Nobody
//! is sent the bad entry either: a replica that lacks what is gone gets the checkpoint.

use std::sync::Arc;
use std::time::Duration;

use highwater_env::Env;
use highwater_raft::Group;

use crate::node::Broker;

/// Between two looks whether there is something to do.
const INTERVAL: Duration = Duration::from_secs(1);
/// After a failed attempt, doubled with each further one.
const FIRST_RETRY: Duration = Duration::from_millis(250);
const LAST_RETRY: Duration = Duration::from_secs(60);

/// Runs until the broker stops.
pub async fn run<E: Env>(broker: Arc<Broker<E>>) {
    tokio::select! {
        () = renew_when_bad(&broker) => {}
        () = broker.stop.cancelled() => {}
    }
}

async fn renew_when_bad<E: Env>(broker: &Broker<E>) {
    let mut tries = 0_u32;
    loop {
        let changed = broker.damage.changed();
        tokio::pin!(changed);
        changed.as_mut().enable();
        if broker.wal.stats().recycling_blocked && broker.damage.log_to_renew().is_none() {
            // An entry was met that cannot be read, before the scrub came to it.
            broker.damage.renew_log();
        }
        // Before, some replicas are not there yet to make a checkpoint. Leaders are not waited for: where
        // the log of most is bad, nobody votes before it was written anew.
        let found = broker.damage.log_to_renew();
        let Some(found) = found.filter(|_| all_are_here(broker)) else {
            tokio::select! {
                () = changed => {}
                () = tokio::time::sleep(INTERVAL) => {}
            }
            continue;
        };
        match renew(broker).await {
            Ok(()) => {
                tries = 0;
                broker.damage.log_renewed(found);
                metrics::counter!("highwater_log_renewals_total").increment(1);
                tracing::info!("the log was written anew: nothing bad is left in it");
            }
            Err(reason) => {
                tracing::warn!(reason, "the log is not written anew yet; will repeat");
                let pause = FIRST_RETRY.saturating_mul(2_u32.saturating_pow(tries));
                tries = tries.saturating_add(1);
                tokio::time::sleep(pause.min(LAST_RETRY)).await;
            }
        }
    }
}

/// All that the log retains goes, once checkpoints hold what it said; the rest goes into new files.
async fn renew<E: Env>(broker: &Broker<E>) -> Result<(), String> {
    for group in all_groups(broker) {
        let given_up = match group.checkpoint().await {
            Ok(()) => {
                let held = group.status().borrow().checkpointed;
                group.purge(held).await.map_err(|error| error.to_string())
            }
            Err(error) => Err(error.to_string()),
        };
        if let Err(reason) = given_up {
            // Its entries are written again, if they can be read.
            tracing::debug!(shard = group.id().0, reason, "its log is kept");
        }
    }
    broker.wal.renew().await.map_err(|error| error.to_string())
}

/// Whether all replicas that the image gives this broker were started.
fn all_are_here<E: Env>(broker: &Broker<E>) -> bool {
    let image = broker.cluster.image();
    let mut mine = image
        .shards()
        .filter(|shard| shard.is_hosted_by(broker.node_id));
    mine.all(|shard| broker.shards.get(shard.id).is_some())
}

fn all_groups<E: Env>(broker: &Broker<E>) -> Vec<Group> {
    let mut groups = vec![broker.metadata.group().clone()];
    groups.extend(broker.shards.all().iter().map(|shard| shard.group.clone()));
    groups
}
