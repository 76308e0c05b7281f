//! A broker's disk is lost for good: it is given up, and an empty one in its place is filled again, while
//! another broker dies.

use std::time::Duration;

use async_trait::async_trait;
use highwater_client::{NewPlan, NodeId, v1};
use serde_json::{Value as Json, json};
use tokio::time::{Instant, sleep, sleep_until};

use super::come_and_go::empty;
use super::{Nemesis, Proof, Site, Started, plans};

/// Between two looks at the cluster.
const LOOK: Duration = Duration::from_millis(200);
/// How long it may take to be whole before a disk may be lost.
const WHOLE: Duration = Duration::from_secs(5);
/// How long the plan may go on when the time of the fault is over.
const FILLING: Duration = Duration::from_secs(60);

/// See the module.
pub(super) struct Replace {
    pick: u64,
    node: Option<u32>,
    /// Whether the cluster was asked to give the disk up.
    asked: bool,
    killed: Option<u32>,
    new: Option<u32>,
    plan: Option<u64>,
    moved: usize,
    ended: bool,
    also_killed: Option<u32>,
}

impl Replace {
    pub(super) const fn new(pick: u64) -> Self {
        Self {
            pick,
            node: None,
            asked: false,
            killed: None,
            new: None,
            plan: None,
            moved: 0,
            ended: false,
            also_killed: None,
        }
    }

    /// Gives the disk up and starts the broker with an empty one; nothing happens without a verdict.
    async fn give_up(&mut self, site: &Site, node: u32, until: Instant) -> anyhow::Result<()> {
        let wanted = NewPlan::replace(NodeId(node));
        let kind = (v1::PlanKind::Replace, node);
        let Some(plan) = plans::start(site, &wanted, kind, until).await else {
            return Ok(());
        };
        self.plan = Some(plan.id);
        let mut broker = site.cluster()?.node(node).await?;
        empty(&broker.spec().data_dir.clone())?;
        // Before every shard has stopped counting the lost disk, it is refused.
        self.new = Some(broker.start_to_be_refused()?);
        Ok(())
    }

    /// Waits until the plan has ended, and starts the broker again whenever it was refused.
    async fn fill(
        &mut self,
        site: &Site,
        (node, plan): (u32, u64),
        until: Instant,
    ) -> anyhow::Result<()> {
        while !self.ended && Instant::now() < until {
            {
                let mut broker = site.cluster()?.node(node).await?;
                broker.ended();
                if broker.pid().is_none() {
                    self.new = Some(broker.start_to_be_refused()?);
                }
            }
            let look = until.min(Instant::now() + LOOK);
            let (moved, ended) = plans::ended(site, plan, look).await;
            self.moved = self.moved.max(moved);
            self.ended = ended;
        }
        Ok(())
    }

    /// One of those that have what the new one is filled with dies, and comes back.
    async fn kill_another(&mut self, site: &Site, node: u32, until: Instant) -> anyhow::Result<()> {
        let other = site.others(node, self.pick).into_iter().next();
        let Some(other) = other.filter(|_| (self.pick >> 6).is_multiple_of(2)) else {
            return Ok(());
        };
        let pause = Duration::from_millis(500 + (self.pick >> 10) % 3_000);
        sleep_until(until.min(Instant::now() + pause)).await;
        site.cluster()?.node(other).await?.kill().await?;
        self.also_killed = Some(other);
        sleep_until(until.min(Instant::now() + pause)).await;
        site.cluster()?.node(other).await?.start()?;
        Ok(())
    }
}

#[async_trait]
impl Nemesis for Replace {
    async fn start(&mut self, site: &Site) -> anyhow::Result<Option<Started>> {
        let Some((_, node)) = site.leader(self.pick) else {
            return Ok(None);
        };
        if !can_lose(site, None).await? {
            return Ok(None);
        }
        let cluster = site.cluster()?;
        let at_ns = site.recorder.now_ns();
        self.killed = Some(cluster.node(node).await?.kill().await?);
        self.node = Some(node);
        Ok(Some(Started {
            nodes: vec![node],
            detail: json!({"killed-pid": self.killed}),
            at_ns: Some(at_ns),
        }))
    }

    async fn hold(&mut self, site: &Site, until: Instant) -> anyhow::Result<()> {
        let Some(node) = self.node else { return Ok(()) };
        self.give_up(site, node, until).await?;
        let Some(plan) = self.plan else {
            return Ok(());
        };
        self.kill_another(site, node, until).await?;
        self.fill(site, (node, plan), until).await?;
        sleep_until(until).await;
        Ok(())
    }

    async fn heal(&mut self, site: &Site) -> anyhow::Result<Proof> {
        let Some(node) = self.node else {
            return Ok(Proof::default());
        };
        let until = Instant::now() + FILLING;
        if let Some(other) = self.also_killed {
            let mut broker = site.cluster()?.node(other).await?;
            broker.ended();
            if broker.pid().is_none() {
                broker.start()?;
            }
        }
        if !self.was_given_up(site, node, until).await {
            let mut broker = site.cluster()?.node(node).await?;
            broker.ended();
            if broker.pid().is_none() {
                broker.start()?;
            }
        }
        self.finish(site, node).await?;
        Ok(Proof {
            active: self.new.is_some() && self.plan.is_some(),
            refused: self.plan.is_none(),
            detail: json!({
                "killed-pid": self.killed, "new-pid": self.new, "plan": self.plan,
                "moved": self.moved, "ended": self.ended, "also-killed": self.also_killed,
            }),
            ..Proof::default()
        })
    }

    fn restarted(&self) -> Vec<u32> {
        self.node.into_iter().collect()
    }
}

/// Whether a disk may be lost for good now, or that of a broker which is gone already: a disk that is lost while
/// another one is filled is one too many.
async fn can_lose(site: &Site, gone: Option<u32>) -> anyhow::Result<bool> {
    let given_up = Instant::now() + WHOLE;
    let cluster = site.cluster()?;
    loop {
        let idle = plans::last(site, given_up).await;
        let idle = idle.is_some_and(|plan| plan.id == 0 || plan.ended);
        if idle && cluster.is_whole_but(gone).await? {
            return Ok(true);
        }
        if Instant::now() > given_up {
            return Ok(false);
        }
        sleep(LOOK).await;
    }
}

impl Replace {
    /// Of a broker that does not start on what its disk holds.
    pub(super) const fn of(node: u32) -> Self {
        let mut replace = Self::new(0);
        replace.node = Some(node);
        replace
    }

    /// Gives the broker's disk up, as an operator does, if all others are there and it can be told by then.
    pub(super) async fn begin(&mut self, site: &Site, until: Instant) -> anyhow::Result<()> {
        let Some(node) = self.node else { return Ok(()) };
        if can_lose(site, Some(node)).await? {
            self.asked = true;
            self.give_up(site, node, until).await?;
        }
        Ok(())
    }

    /// Fills the empty disk. Nothing: it was not given up, and the disk is as it was.
    pub(super) async fn end(&mut self, site: &Site) -> anyhow::Result<Option<Json>> {
        let Some(node) = self.node.filter(|_| self.asked) else {
            return Ok(None);
        };
        let until = Instant::now() + FILLING;
        if !self.was_given_up(site, node, until).await {
            return Ok(None);
        }
        self.finish(site, node).await?;
        Ok(Some(
            json!({"plan": self.plan, "moved": self.moved, "ended": self.ended}),
        ))
    }

    /// Fills the empty disk, for as long as that may take. The broker runs then.
    async fn finish(&mut self, site: &Site, node: u32) -> anyhow::Result<()> {
        let Some(plan) = self.plan else { return Ok(()) };
        if self.new.is_none() {
            let mut broker = site.cluster()?.node(node).await?;
            empty(&broker.spec().data_dir.clone())?;
            self.new = Some(broker.start_to_be_refused()?);
        }
        let until = Instant::now() + FILLING;
        self.fill(site, (node, plan), until).await?;
        let mut broker = site.cluster()?.node(node).await?;
        broker.ended();
        if broker.pid().is_none() {
            broker.start()?;
        }
        broker.expect_end(false);
        Ok(())
    }

    /// Whether a plan of ours has begun, also when its answer was lost: the old disk is not to come back then.
    async fn was_given_up(&mut self, site: &Site, node: u32, until: Instant) -> bool {
        if self.plan.is_none() {
            let last = plans::last(site, until).await;
            let ours = |plan: &v1::Plan| {
                plan.kind() == v1::PlanKind::Replace && plan.broker == node && !plan.ended
            };
            self.plan = last.filter(ours).map(|plan| plan.id);
        }
        self.plan.is_some()
    }
}
