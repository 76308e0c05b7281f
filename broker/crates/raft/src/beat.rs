//! One clock for the heartbeats of all groups that this broker leads: what goes to a peer at the
//! same time goes in one write, and wakes it once. A follower that an append has just reached is
//! left out (`heartbeat_min_interval`, see `config.rs`).

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::groups::Registry;

/// Asks the groups for heartbeats until dropped.
pub(crate) async fn beat(registry: Arc<Registry>, every: Duration) {
    let mut clock = interval(every);
    clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        clock.tick().await;
        let groups = registry.all();
        // A group whose queue stays full does not hold up the others: its appends speak for it.
        let asked = join_all(groups.iter().map(|group| group.beat()));
        let _late = timeout(every, asked).await;
    }
}
