//! How long a shard acknowledges nothing new when its leader dies: a small record goes to every
//! partition of a topic of its own every 20 ms, and the first one counts that was sent after the
//! death and acknowledged.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};

use crate::bus::{ClientBus, Outcome, Placement};

/// The topic of probes.
pub const TOPIC: &str = "demo.probe";
/// Its partitions.
pub const PARTITIONS: u32 = 6;
const EVERY: Duration = Duration::from_millis(20);

#[derive(Debug)]
struct Armed {
    /// Just before the kill: time is measured from here.
    from: Instant,
    /// Just after the kill: an acknowledgement of an earlier probe may have left the broker before
    /// it died.
    dead: Instant,
    partitions: BTreeSet<u32>,
}

/// Watches for the first acknowledgement that only a new leader can have given.
#[derive(Debug)]
pub struct Probe {
    armed: Mutex<Option<Armed>>,
    recovered: watch::Sender<Option<Duration>>,
    acknowledged: watch::Sender<u64>,
}

impl Default for Probe {
    fn default() -> Self {
        Self {
            armed: Mutex::new(None),
            recovered: watch::Sender::new(None),
            acknowledged: watch::Sender::new(0),
        }
    }
}

impl Probe {
    /// The leader of these partitions died between the two moments.
    pub fn arm(&self, from: Instant, dead: Instant, partitions: BTreeSet<u32>) {
        let mut armed = self.armed.lock().unwrap_or_else(PoisonError::into_inner);
        *armed = Some(Armed {
            from,
            dead,
            partitions,
        });
    }

    /// A probe that was sent at `sent` is acknowledged.
    pub fn acknowledged(&self, partition: u32, sent: Instant, now: Instant) {
        self.acknowledged.send_modify(|count| *count += 1);
        let mut armed = self.armed.lock().unwrap_or_else(PoisonError::into_inner);
        let counts =
            |armed: &mut Armed| sent >= armed.dead && armed.partitions.contains(&partition);
        if let Some(measured) = armed.take_if(counts) {
            let took = now.saturating_duration_since(measured.from);
            self.recovered.send_replace(Some(took));
        }
    }

    /// How long nothing new was acknowledged; none when that lasts longer than `patience`.
    pub async fn recovered(&self, patience: Duration) -> Option<Duration> {
        let mut recovered = self.recovered.subscribe();
        let found = timeout(patience, recovered.wait_for(Option::is_some)).await;
        found.ok()?.ok().and_then(|found| *found)
    }

    /// Sends probes until dropped, and returns when the first ones are acknowledged.
    ///
    /// # Errors
    /// When none is acknowledged in time.
    pub async fn begin(
        self: &Arc<Self>,
        bus: &ClientBus,
        patience: Duration,
    ) -> anyhow::Result<JoinSet<()>> {
        let mut tasks = JoinSet::new();
        for partition in 0..PARTITIONS {
            tasks.spawn(send(Arc::clone(self), bus.clone(), partition));
        }
        let mut acknowledged = self.acknowledged.subscribe();
        let enough = acknowledged.wait_for(|count| *count >= u64::from(PARTITIONS));
        timeout(patience, enough)
            .await
            .context("no probe is acknowledged")??;
        Ok(tasks)
    }
}

async fn send(probe: Arc<Probe>, bus: ClientBus, partition: u32) {
    let sender = bus.sender();
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut open = JoinSet::new();
    loop {
        ticks.tick().await;
        while open.try_join_next().is_some() {}
        let sent = Instant::now();
        let Ok(ended) = sender.enqueue(TOPIC, partition, b"probe".to_vec()).await else {
            continue;
        };
        let probe = Arc::clone(&probe);
        open.spawn(async move {
            if let Outcome::Acknowledged(_) = ended.await {
                probe.acknowledged(partition, sent, Instant::now());
            }
        });
    }
}

/// The shard with the most of these partitions, its leader, and its partitions among the probe's.
///
/// # Errors
/// When no shard has a leader in time.
pub async fn choose(
    bus: &ClientBus,
    patience: Duration,
) -> anyhow::Result<(u32, u32, BTreeSet<u32>)> {
    let found = async {
        loop {
            if let Some(chosen) = bus.placement(TOPIC).await.ok().and_then(|p| busiest(&p)) {
                return chosen;
            }
            sleep(EVERY).await;
        }
    };
    timeout(patience, found)
        .await
        .context("no shard has a leader")
}

/// Ties go to the lower shard, so that equal runs make the same choice.
fn busiest(placement: &[Placement]) -> Option<(u32, u32, BTreeSet<u32>)> {
    let mut leaders: BTreeMap<u32, u32> = BTreeMap::new();
    let mut shards: BTreeMap<u32, BTreeSet<u32>> = BTreeMap::new();
    for place in placement {
        if let Some(leader) = place.leader {
            leaders.insert(place.shard, leader);
            shards
                .entry(place.shard)
                .or_default()
                .insert(place.partition);
        }
    }
    // Whose death concerns the most.
    let load = |broker: u32| {
        let led = shards
            .iter()
            .filter(|(shard, _)| leaders.get(*shard) == Some(&broker));
        led.map(|(_, partitions)| partitions.len()).sum::<usize>()
    };
    let broker = leaders
        .values()
        .copied()
        .rev()
        .max_by_key(|broker| load(*broker))?;
    let (shard, partitions) = shards
        .into_iter()
        .rev()
        .filter(|(shard, _)| leaders.get(shard) == Some(&broker))
        .max_by_key(|(_, partitions)| partitions.len())?;
    Some((broker, shard, partitions))
}

#[cfg(test)]
#[path = "probe_tests.rs"]
mod tests;
