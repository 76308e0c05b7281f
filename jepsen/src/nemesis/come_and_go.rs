//! A further broker joins, is given its share of replicas, gives them back and is removed, while brokers die
//! and links break. Its disk is never let in again; with an empty one it may come once more.
//!
//! Going may take longer than the schedule gives it, beyond the beginning of the next fault of this kind. So
//! the broker has one owner at a time: of two, one would take the empty disk that the other has made for the
//! one that was removed, and its broker, which is new, for one that was let in again.

use std::fs::{self, File};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use async_trait::async_trait;
use highwater_client::{AdminError, NewPlan, NodeId, v1};
use serde_json::{Value as Json, json};
use tokio::sync::OwnedMutexGuard;
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
    /// The broker, until this is over.
    spare: Option<(u32, OwnedMutexGuard<()>)>,
    /// Of the disk that joined, and of the one that knocked.
    incarnation: Option<String>,
    knocked_with: Option<String>,
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
        if !self.drained {
            self.drain(site, spare, until).await;
        }
        if !self.drained {
            return Ok(());
        }
        let cluster = site.cluster()?;
        let mut broker = cluster.node(spare).await?;
        broker.ended();
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
            // Nobody knows whether it belongs: it runs again, and is asked about once more.
            cluster.node(spare).await?.start_to_be_refused()?;
        }
        Ok(())
    }

    async fn drain(&mut self, site: &Site, spare: u32, until: Instant) {
        let drain = NewPlan::drain(NodeId(spare));
        let plan = plans::start(site, &drain, (v1::PlanKind::Drain, spare), until).await;
        if let Some(plan) = plan {
            let (moved, ended) = plans::ended(site, plan.id, until).await;
            self.moved_back += moved;
            self.drained = ended;
        }
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
        self.knocked_with = incarnation(&broker.spec().data_dir);
        ensure!(
            self.knocked_with == self.incarnation,
            "the disk of broker {spare} is not the one that joined"
        );
        // A new process: the one before has ended, and the removal was answered since.
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

/// Which disk it is, in the words of the broker that began it.
fn incarnation(data: &Path) -> Option<String> {
    let identity = fs::read(data.join("identity.json")).ok()?;
    let identity: Json = serde_json::from_slice(&identity).ok()?;
    Some(identity.get("incarnation")?.as_str()?.to_owned())
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
        // The one before may not have let go of it.
        let Some(owned) = cluster.take_spare() else {
            return Ok(None);
        };
        let spare = owned.0;
        self.spare = Some(owned);
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
        let Some((spare, _)) = self.spare else {
            return Ok(());
        };
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
                self.incarnation = incarnation(&broker.spec().data_dir);
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
        let Some((spare, _)) = self.spare else {
            return Ok(Proof::default());
        };
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
                "incarnation": self.incarnation, "knocked-with": self.knocked_with,
                "let-in": self.let_in,
            }),
        })
    }
}
