//! How long a broker that was started again takes to vote, serve and hold everything.

use std::sync::PoisonError;
use std::time::Duration;

use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::{REJOIN, Site};
use crate::cluster::{Cluster, caught_up};
use crate::recovery::Rejoin;

/// Between two looks at the broker.
const LOOK: Duration = Duration::from_millis(20);
/// Between two looks at the others, and how long they are none of the question: few take that long.
const LOOK_AT_OTHERS: Duration = Duration::from_millis(500);
const SOON: Duration = Duration::from_secs(10);

/// Begins to watch. What it sees goes to the site: nothing when the run ends first, or the broker is killed
/// again.
pub(super) fn watch(site: &Site, number: u32, node: u32, stop: &CancellationToken) {
    let (site, stop, from_ns) = (site.clone(), stop.clone(), site.recorder.now_ns());
    let watch = async move {
        let Ok(cluster) = site.cluster() else { return };
        if let Some((took, others_whole)) = back(cluster, node, &stop).await {
            let rejoin = Rejoin {
                number,
                node,
                took_ns: took.then(|| site.recorder.now_ns() - from_ns),
                others_whole_ns: u64::try_from(others_whole.as_nanos()).unwrap_or(u64::MAX),
            };
            let mut rejoins = site.rejoins.lock().unwrap_or_else(PoisonError::into_inner);
            rejoins.push(rejoin);
        }
    };
    // Bounded by its own deadline and by `stop`.
    tokio::spawn(watch);
}

/// Whether it came back in time, and how long all others had been whole by then; nothing: that cannot be told.
async fn back(cluster: &Cluster, node: u32, stop: &CancellationToken) -> Option<(bool, Duration)> {
    let admin = cluster.admin_address(node).await.ok()?;
    let pid = cluster.pid(node).await?;
    let began = Instant::now();
    let mut others = Others::default();
    while began.elapsed() < REJOIN {
        if stop.is_cancelled() {
            return None;
        }
        if caught_up(admin).await.is_ok() {
            // Killed again in the meantime, it is another process that caught up.
            let same = cluster.pid(node).await == Some(pid);
            return same.then_some((true, others.whole()));
        }
        if began.elapsed() > SOON {
            others.look(cluster, node).await;
        }
        sleep(LOOK).await;
    }
    let same = cluster.pid(node).await == Some(pid);
    same.then_some((false, others.whole()))
}

/// All brokers but one.
#[derive(Default)]
struct Others {
    looked: Option<Instant>,
    whole_since: Option<Instant>,
}

impl Others {
    async fn look(&mut self, cluster: &Cluster, node: u32) {
        let now = Instant::now();
        if self.looked.is_some_and(|last| now - last < LOOK_AT_OTHERS) {
            return;
        }
        self.looked = Some(now);
        if cluster.is_whole_but(Some(node)).await.unwrap_or(false) {
            self.whole_since.get_or_insert(now);
        } else {
            self.whole_since = None;
        }
    }

    fn whole(&self) -> Duration {
        self.whole_since
            .map_or(Duration::ZERO, |since| since.elapsed())
    }
}
