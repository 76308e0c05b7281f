//! Power loss: the process is killed, and its disk loses what was not synced.

use async_trait::async_trait;
use highwater_powerfs::{Loss, LossReport};
use serde_json::json;

use super::{Nemesis, Proof, Site, Started};
use crate::schedule::{Kind, Planned};

/// One machine or all of them lose power, and get it back later.
pub(super) struct PowerLoss {
    kind: Kind,
    pick: u64,
    dead: Vec<u32>,
    reports: Vec<(u32, LossReport)>,
    restarted: Vec<u32>,
}

impl PowerLoss {
    pub(super) const fn new(planned: &Planned) -> Self {
        Self {
            kind: planned.kind,
            pick: planned.pick,
            dead: Vec::new(),
            reports: Vec::new(),
            restarted: Vec::new(),
        }
    }
}

/// Half of the losses tear what was being written, the others take all of it.
pub(super) const fn loss(pick: u64) -> Loss {
    if pick.is_multiple_of(2) {
        Loss::Everything
    } else {
        Loss::Torn { seed: pick }
    }
}

#[async_trait]
impl Nemesis for PowerLoss {
    async fn start(&mut self, site: &Site) -> anyhow::Result<Option<Started>> {
        let targets: Vec<u32> = if self.kind == Kind::PowerLossAll {
            site.nodes.clone()
        } else {
            site.leader(self.pick)
                .map(|(_, leader)| leader)
                .into_iter()
                .collect()
        };
        if targets.is_empty() {
            return Ok(None);
        }
        let cluster = site.cluster()?;
        // All die before the first disk loses anything: power does not fail one by one.
        for node in &targets {
            cluster.node(*node).await?.kill().await?;
            self.dead.push(*node);
        }
        let at_ns = site.recorder.now_ns();
        for node in &targets {
            let report = cluster.lose_power(*node, loss(self.pick)).await?;
            self.reports.push((*node, report));
        }
        Ok(Some(Started {
            detail: json!({"loss": loss(self.pick), "reports": self.reports}),
            nodes: targets,
            at_ns: Some(at_ns),
        }))
    }

    async fn heal(&mut self, site: &Site) -> anyhow::Result<Proof> {
        for node in self.dead.drain(..) {
            site.cluster()?.node(node).await?.start()?;
            self.restarted.push(node);
        }
        let lost = |(_, report): &(u32, LossReport)| report.was_active();
        Ok(Proof {
            active: self.reports.iter().any(lost),
            detail: json!({"reports": self.reports}),
            ..Proof::default()
        })
    }

    fn restarted(&self) -> Vec<u32> {
        self.restarted.clone()
    }
}
