//! Two brokers that do not hear each other stand for election, and the one that both hear, and that
//! decides, dies again and again: whom it voted for must survive it.

use std::time::Duration;

use async_trait::async_trait;
use serde_json::json;
use tokio::time::{Instant, sleep_until};

use super::partition::drops;
use super::power::loss;
use super::{Nemesis, Proof, Site, Started};
use crate::cluster::network::Drops;
use crate::schedule::{Kind, Planned};

/// See the module.
pub(super) struct Kingmaker {
    pick: u64,
    table: String,
    node: Option<u32>,
    drops: Drops,
    cut_off: bool,
    dropped: u64,
    pids: Vec<u32>,
    discarded: u64,
}

impl Kingmaker {
    pub(super) fn new(planned: &Planned) -> Self {
        Self {
            pick: planned.pick,
            table: format!("fault{}", planned.number),
            node: None,
            drops: Drops::new(),
            cut_off: false,
            dropped: 0,
            pids: Vec::new(),
            discarded: 0,
        }
    }

    async fn crash(&mut self, site: &Site, node: u32) -> anyhow::Result<()> {
        let cluster = site.cluster()?;
        let pid = cluster.node(node).await?.kill().await?;
        self.pids.push(pid);
        let seed = self.pick.wrapping_add(self.pids.len() as u64);
        let report = cluster.lose_power(node, loss(seed)).await?;
        self.discarded += report.discarded_bytes;
        Ok(())
    }
}

#[async_trait]
impl Nemesis for Kingmaker {
    async fn start(&mut self, site: &Site) -> anyhow::Result<Option<Started>> {
        let Some((_, leader)) = site.leader(self.pick) else {
            return Ok(None);
        };
        let others = site.others(leader, self.pick);
        let Some(&node) = others.first() else {
            return Ok(None);
        };
        self.node = Some(node);
        self.drops = drops(Kind::Bridge, leader, &others, 0);
        self.cut_off = true;
        site.cluster()?
            .network()?
            .drop_packets(&self.table, &self.drops)
            .await?;
        self.crash(site, node).await?;
        Ok(Some(Started {
            nodes: site.nodes.clone(),
            detail: json!({"decides": node, "drops": self.drops}),
            at_ns: None,
        }))
    }

    async fn hold(&mut self, site: &Site, until: Instant) -> anyhow::Result<()> {
        let Some(node) = self.node else { return Ok(()) };
        let mut step = self.pick;
        while Instant::now() < until {
            site.cluster()?.node(node).await?.start()?;
            // Around the time in which the others have noticed and ask for its vote.
            step = step.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let life = Duration::from_millis(150 + (step >> 33) % 1_850);
            sleep_until(until.min(Instant::now() + life)).await;
            self.crash(site, node).await?;
        }
        Ok(())
    }

    async fn heal(&mut self, site: &Site) -> anyhow::Result<Proof> {
        let Some(node) = self.node else {
            return Ok(Proof::default());
        };
        if self.cut_off {
            let network = site.cluster()?.network()?;
            self.dropped = network
                .dropped(&self.table, &self.drops)
                .await?
                .values()
                .sum();
            network.stop_dropping(&self.table, &self.drops).await?;
        }
        let mut broker = site.cluster()?.node(node).await?;
        // Interrupted, it may be left in either state.
        if broker.pid().is_none() {
            broker.start()?;
        }
        Ok(Proof {
            active: self.dropped > 0 && self.pids.len() > 1,
            detail: json!({
                "packets-dropped": self.dropped, "killed-pids": self.pids,
                "discarded-bytes": self.discarded,
            }),
            ..Proof::default()
        })
    }

    fn restarted(&self) -> Vec<u32> {
        self.node.into_iter().collect()
    }
}
