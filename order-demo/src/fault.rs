//! The fault: kills the leader of a busy shard while orders flow, measures how long its
//! partitions acknowledge nothing new, and brings the broker back.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use crate::bus::{Bus, Placement};
use crate::control::ClusterControl;
use crate::progress::{Counters, Event, Listener};
use crate::report::{Failover, millis};

/// Watches for the first acknowledgement that only a new leader can have given.
pub(crate) struct Probe {
    armed: Mutex<Option<Armed>>,
    recovered: watch::Sender<Option<Duration>>,
}

struct Armed {
    /// Just before the kill: time is measured from here.
    from: Instant,
    /// Just after the kill: only orders sent later count, because an acknowledgement of an
    /// earlier one may have left the broker before it died.
    dead: Instant,
    partitions: BTreeSet<u32>,
}

impl Default for Probe {
    fn default() -> Self {
        Self {
            armed: Mutex::new(None),
            recovered: watch::Sender::new(None),
        }
    }
}

impl Probe {
    fn arm(&self, from: Instant, dead: Instant, partitions: BTreeSet<u32>) {
        let mut armed = self.armed.lock().unwrap_or_else(PoisonError::into_inner);
        *armed = Some(Armed {
            from,
            dead,
            partitions,
        });
    }

    /// An order that was sent at `sent` is acknowledged.
    pub(crate) fn acknowledged(&self, partition: u32, sent: Instant, now: Instant) {
        let mut armed = self.armed.lock().unwrap_or_else(PoisonError::into_inner);
        let counts = |armed: &Armed| sent >= armed.dead && armed.partitions.contains(&partition);
        if let Some(measured) = armed.take_if(|armed| counts(armed)) {
            self.recovered
                .send_replace(Some(now.saturating_duration_since(measured.from)));
        }
    }

    async fn recovered(&self) -> Option<Duration> {
        let mut recovered = self.recovered.subscribe();
        recovered
            .wait_for(Option::is_some)
            .await
            .ok()
            .and_then(|found| *found)
    }
}

/// What the fault needs to know of a run.
pub(crate) struct Fault<B, C> {
    pub bus: B,
    pub control: Arc<C>,
    pub topic: String,
    pub orders: u64,
    pub counters: Arc<Counters>,
    pub busy: Arc<Mutex<BTreeMap<u32, u64>>>,
    pub probe: Arc<Probe>,
    pub listener: Listener,
    /// How long each step may take.
    pub patience: Duration,
}

impl<B: Bus, C: ClusterControl> Fault<B, C> {
    /// Waits for a third of the orders to be acknowledged, and strikes if at least 30 % remain to
    /// be sent. Answers with an error when nothing was killed or the broker did not come back.
    pub(crate) async fn run(self) -> anyhow::Result<Failover> {
        let third = self.orders.div_ceil(3);
        let all = self.orders;
        self.counters
            .until(|now| now.acknowledged() >= third || now.ended() >= all)
            .await;
        let remaining = self.orders.saturating_sub(self.counters.sent());
        anyhow::ensure!(
            self.counters.acknowledged() >= third && remaining * 10 >= self.orders * 3,
            "no broker was killed: {} of {} orders were acknowledged and {remaining} remained",
            self.counters.acknowledged(),
            self.orders,
        );
        let target = timeout(self.patience, self.choose()).await;
        let (broker, shard, partitions) = target.context("no busy shard had a leader")??;
        let acknowledged_before = self.counters.acknowledged();
        let from = Instant::now();
        let killed = self.control.kill(broker).await;
        killed.with_context(|| format!("cannot kill broker {broker}"))?;
        self.probe.arm(from, Instant::now(), partitions);
        (self.listener)(Event::Killed { broker, shard });

        let recovered = timeout(self.patience, self.probe.recovered())
            .await
            .ok()
            .flatten();
        let failover_ms = recovered.map(as_millis);
        if let Some(failover_ms) = failover_ms {
            (self.listener)(Event::Recovered { failover_ms });
        }
        let caught_up_ms = self.bring_back(broker).await?;
        Ok(Failover {
            broker,
            shard,
            acknowledged_before,
            failover_ms,
            caught_up_ms: Some(caught_up_ms),
        })
    }

    /// The shard with the most acknowledgements, its leader and its partitions.
    async fn choose(&self) -> anyhow::Result<(u32, u32, BTreeSet<u32>)> {
        loop {
            let placement = self.bus.placement(&self.topic).await?;
            let busy = self
                .busy
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .clone();
            if let Some(chosen) = busiest(&placement, &busy) {
                return Ok(chosen);
            }
            sleep(Duration::from_millis(20)).await;
        }
    }

    async fn bring_back(&self, broker: u32) -> anyhow::Result<f64> {
        let restarted = Instant::now();
        self.control
            .restart(broker)
            .await
            .with_context(|| format!("cannot restart broker {broker}"))?;
        (self.listener)(Event::Restarted { broker });
        timeout(self.patience, self.control.caught_up(broker))
            .await
            .with_context(|| format!("broker {broker} did not catch up in time"))??;
        (self.listener)(Event::CaughtUp { broker });
        Ok(as_millis(restarted.elapsed()))
    }
}

fn as_millis(time: Duration) -> f64 {
    millis(u64::try_from(time.as_micros()).unwrap_or(u64::MAX))
}

/// Ties go to the lower shard, so that equal runs make the same choice.
fn busiest(
    placement: &[Placement],
    busy: &BTreeMap<u32, u64>,
) -> Option<(u32, u32, BTreeSet<u32>)> {
    let mut shards: BTreeMap<u32, (u64, Option<u32>, BTreeSet<u32>)> = BTreeMap::new();
    for place in placement {
        let (load, leader, partitions) = shards.entry(place.shard).or_default();
        *load += busy.get(&place.partition).copied().unwrap_or(0);
        *leader = leader.or(place.leader);
        partitions.insert(place.partition);
    }
    let mut best: Option<(u64, u32, u32, BTreeSet<u32>)> = None;
    for (shard, (load, leader, partitions)) in shards {
        let Some(leader) = leader else { continue };
        if load > best.as_ref().map_or(0, |(most, ..)| *most) {
            best = Some((load, leader, shard, partitions));
        }
    }
    best.map(|(_, leader, shard, partitions)| (leader, shard, partitions))
}

#[cfg(test)]
#[path = "fault_tests.rs"]
mod tests;
