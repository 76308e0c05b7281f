//! Partitions go to other shards, one after the other, while everything else breaks; some of the moves are
//! taken back on their way. Needs no power over the machines.

use std::time::Duration;

use async_trait::async_trait;
use highwater_client::{NewPlan, PartitionId, ShardId, v1};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{Rng as _, SeedableRng as _};
use serde_json::json;
use tokio::time::{Instant, sleep};

use super::whole::Whole;
use super::{Nemesis, Proof, Site, Started, plans};

/// Between two looks.
const LOOK: Duration = Duration::from_millis(200);
/// How long the last move may go on when the time of the fault is over, before it is taken back.
const LAST: Duration = Duration::from_secs(10);
/// How long taking it back may take.
const BACK: Duration = Duration::from_secs(30);
/// A whole cluster moves a partition within this time.
const MOVED_AFTER: Duration = Duration::from_secs(15);
/// Bound of one request.
const ASK: Duration = Duration::from_secs(4);

/// See the module.
pub(super) struct MovePartition {
    random: StdRng,
    /// The one that may not be over.
    running: Option<u64>,
    asked: usize,
    /// Of those, of a compacted topic.
    compacted: usize,
    moved: usize,
    taken_back: usize,
    whole: Whole,
    left: bool,
}

impl MovePartition {
    pub(super) fn new(pick: u64) -> Self {
        Self {
            random: StdRng::seed_from_u64(pick),
            running: None,
            asked: 0,
            compacted: 0,
            moved: 0,
            taken_back: 0,
            whole: Whole::default(),
            left: false,
        }
    }

    /// One partition goes elsewhere, or starts to.
    async fn one(&mut self, site: &Site, until: Instant) -> anyhow::Result<()> {
        let aside = site.compacted.as_ref();
        let aside = aside.filter(|_| self.random.random_bool(0.4));
        let (topic, partitions) = match aside {
            Some((topic, partitions)) => (topic.as_str(), *partitions),
            None => (site.topic.as_str(), site.partitions),
        };
        let partition = self.random.random_range(0..partitions);
        let gives_up = self.random.random_bool(0.25);
        let patience = Duration::from_millis(self.random.random_range(0..1_500));
        let Some(to) = self.elsewhere(site, (topic, partition)).await else {
            sleep(LOOK).await;
            return Ok(());
        };
        let plan = NewPlan::move_partition(topic, PartitionId(partition), to);
        self.asked += 1;
        self.compacted += usize::from(aside.is_some());
        let kind = (v1::PlanKind::MovePartition, 0);
        let Some(plan) = plans::start(site, &plan, kind, until).await else {
            return Ok(());
        };
        self.running = Some(plan.id);
        if gives_up {
            sleep(patience).await;
            plans::cancel(site, plan.id, until).await;
        }
        while Instant::now() < until && self.running.is_some() {
            self.look(site).await?;
            sleep(LOOK).await;
        }
        Ok(())
    }

    /// A shard of as many replicas as the one where a partition is.
    async fn elsewhere(&mut self, site: &Site, (topic, partition): (&str, u32)) -> Option<ShardId> {
        let admin = site.client.admin().timeout(ASK);
        let described = admin.describe_topic(topic).await.ok()?.topic?;
        let now = described.partitions.get(partition as usize)?.shard;
        let shards = admin.describe_cluster().await.ok()?.shards;
        let class = shards.iter().find(|shard| shard.shard == now)?;
        let others: Vec<u32> = shards
            .iter()
            .filter(|shard| shard.replication_factor == class.replication_factor)
            .map(|shard| shard.shard)
            .filter(|shard| *shard != now)
            .collect();
        others.choose(&mut self.random).copied().map(ShardId)
    }

    /// Whether the one that runs is over, and how it ended.
    async fn look(&mut self, site: &Site) -> anyhow::Result<()> {
        if self.moved == 0 {
            self.whole.look(site).await?;
        }
        let Some(plan) = plans::last(site, Instant::now()).await else {
            return Ok(());
        };
        if Some(plan.id) != self.running {
            // Another one has begun, so it is over.
            self.running = None;
            return Ok(());
        }
        if plan.ended {
            let moved = |step: &v1::PlanPartition| step.state() == v1::MoveState::Done;
            match plan.partitions.iter().any(moved) {
                true => self.moved += 1,
                false => self.taken_back += 1,
            }
            self.running = None;
        }
        Ok(())
    }

    async fn over(&mut self, site: &Site, until: Instant) -> anyhow::Result<()> {
        while self.running.is_some() && Instant::now() < until {
            self.look(site).await?;
            sleep(LOOK).await;
        }
        Ok(())
    }
}

#[async_trait]
impl Nemesis for MovePartition {
    async fn start(&mut self, site: &Site) -> anyhow::Result<Option<Started>> {
        let any = (0..site.partitions).any(|partition| site.leaders.of(partition).is_some());
        Ok((any && site.nodes.len() > 1).then(Started::default))
    }

    async fn hold(&mut self, site: &Site, until: Instant) -> anyhow::Result<()> {
        while Instant::now() < until {
            self.one(site, until).await?;
        }
        Ok(())
    }

    async fn heal(&mut self, site: &Site) -> anyhow::Result<Proof> {
        self.over(site, Instant::now() + LAST).await?;
        if let Some(plan) = self.running {
            let until = Instant::now() + BACK;
            plans::cancel(site, plan, until).await;
            self.over(site, until).await?;
            self.left = self.running.is_some();
        }
        let idle = self.moved + self.taken_back == 0;
        let nothing = format!("none of {} moves of partitions ended", self.asked);
        let detail = json!({
            "asked": self.asked, "compacted": self.compacted, "moved": self.moved, "taken-back": self.taken_back,
            "still-running": self.left,
        });
        let proof = (self.moved > 0, idle);
        Ok(self.whole.proof(proof, MOVED_AFTER, &nothing, detail))
    }
}
