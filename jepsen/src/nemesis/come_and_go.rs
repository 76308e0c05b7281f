//! A further broker joins, is given its share of replicas, gives them back and is removed, while brokers die
//! and links break. Its disk is never let in again; with an empty one it may come once more.

use std::fs::{self, File};
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use async_trait::async_trait;
use highwater_client::{AdminError, NewPlan, NodeId, v1};
use serde_json::json;
use tokio::time::{Instant, sleep};

use super::{Nemesis, Proof, Site, Started, plans};

/// Between two looks at the broker.
const LOOK: Duration = Duration::from_millis(100);
/// How long it may take to go when the time of the fault is over; it then stays.
const GOING: Duration = Duration::from_secs(45);
/// How long its old disk tries to be let in.
const KNOCKING: Duration = Duration::from_secs(3);
/// Bound of one request.
const ASK: Duration = Duration::from_secs(4);

/// See the module.
#[derive(Default)]
pub(super) struct ComeAndGo {
    joined: bool,
    /// Moves made to give it its share, and to take it away.
    moved: usize,
    moved_back: usize,
    drained: bool,
    removed: bool,
    let_in: bool,
    trouble: Vec<String>,
}

impl ComeAndGo {
    async fn go(&mut self, site: &Site, spare: u32, until: Instant) -> anyhow::Result<()> {
        let drain = NewPlan::drain(NodeId(spare));
        let plan = plans::start(site, &drain, (v1::PlanKind::Drain, spare), until).await;
        if let Some(plan) = plan {
            let (moved, ended) = plans::ended(site, plan.id, until).await;
            self.moved_back += moved;
            self.drained = ended;
        }
        if !self.drained {
            return Ok(());
        }
        let cluster = site.cluster()?;
        let mut broker = cluster.node(spare).await?;
        if broker.pid().is_some() {
            broker.terminate().await?;
        }
        drop(broker);
        let admin = site.client.admin().timeout(ASK);
        while !self.removed && Instant::now() < until {
            match admin.remove_broker(NodeId(spare), false).await {
                Ok(()) => self.removed = true,
                Err(error) => {
                    // It may be gone since an earlier attempt.
                    let gone = matches!(&error, AdminError::Rejected(cause)
                        if cause.to_string().contains("there is no broker"));
                    self.removed = gone;
                    self.note(error.to_string());
                    sleep(LOOK).await;
                }
            }
        }
        if self.removed {
            cluster.spare_belongs(false);
            self.knock(site, spare).await?;
        } else {
            // Nobody knows whether it belongs: it runs again and is seen to the end.
            cluster.node(spare).await?.start()?;
        }
        Ok(())
    }

    fn note(&mut self, trouble: String) {
        if self.trouble.len() < 5 {
            self.trouble.push(trouble);
        }
    }

    /// The disk of a broker that was removed must be refused.
    async fn knock(&mut self, site: &Site, spare: u32) -> anyhow::Result<()> {
        let until = Instant::now() + KNOCKING;
        let mut broker = site.cluster()?.node(spare).await?;
        broker.start_to_be_refused()?;
        while Instant::now() < until && broker.pid().is_some() && !self.let_in {
            broker.ended();
            self.let_in = broker.pid().is_some() && broker.caught_up().await.is_ok();
            sleep(LOOK).await;
        }
        broker.ended();
        if broker.pid().is_some() {
            broker.kill().await?;
        }
        empty(&broker.spec().data_dir.clone())
    }
}

/// Removes a broker's data for good: no later power loss brings a part of it back.
pub(super) fn empty(data: &Path) -> anyhow::Result<()> {
    if data.exists() {
        fs::remove_dir_all(data).context("cannot empty a disk")?;
    }
    let parent = data.parent().context("a directory")?;
    File::open(parent)?.sync_all().context("cannot sync a disk")
}

#[async_trait]
impl Nemesis for ComeAndGo {
    async fn start(&mut self, site: &Site) -> anyhow::Result<Option<Started>> {
        let cluster = site.cluster()?;
        let spare = cluster.spare().context("there is no spare broker")?;
        let mut broker = cluster.node(spare).await?;
        broker.ended();
        if broker.pid().is_none() {
            // While an earlier removal of it is not over, it is refused.
            broker.start_to_be_refused()?;
        }
        cluster.spare_belongs(true);
        Ok(Some(Started {
            detail: json!({"broker": spare}),
            ..Started::default()
        }))
    }

    async fn hold(&mut self, site: &Site, until: Instant) -> anyhow::Result<()> {
        let cluster = site.cluster()?;
        let spare = cluster.spare().context("there is no spare broker")?;
        let began = Instant::now();
        let half = began + (until.saturating_duration_since(began)) / 2;
        while Instant::now() < half && !self.joined {
            {
                let mut broker = cluster.node(spare).await?;
                broker.ended();
                if broker.pid().is_none() {
                    broker.start_to_be_refused()?;
                }
                self.joined = broker.caught_up().await.is_ok();
            }
            sleep(LOOK).await;
        }
        cluster.node(spare).await?.expect_end(false);
        if !self.joined {
            return Ok(());
        }
        let kind = (v1::PlanKind::Rebalance, 0);
        if let Some(plan) = plans::start(site, &NewPlan::rebalance(), kind, half).await {
            self.moved = plans::ended(site, plan.id, half).await.0;
            plans::cancel(site, plan.id, until).await;
            self.moved = self.moved.max(plans::ended(site, plan.id, until).await.0);
        }
        self.go(site, spare, until).await
    }

    async fn heal(&mut self, site: &Site) -> anyhow::Result<Proof> {
        let cluster = site.cluster()?;
        let spare = cluster.spare().context("there is no spare broker")?;
        if self.joined && !self.removed {
            self.go(site, spare, Instant::now() + GOING).await?;
        }
        let finding = format!("broker {spare} was removed, and let in again with its old disk");
        Ok(Proof {
            active: self.joined && self.moved > 0,
            // Other faults left it no majority, or no time.
            refused: self.moved == 0,
            finding: self.let_in.then_some(finding),
            detail: json!({
                "joined": self.joined, "moved": self.moved, "moved-back": self.moved_back,
                "drained": self.drained, "removed": self.removed, "trouble": self.trouble,
            }),
        })
    }
}
