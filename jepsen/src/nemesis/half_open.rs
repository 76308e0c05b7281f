//! Connections that are dead at one end, or at both, while new ones can be made. What was on its way comes
//! late, behind what was sent again on other connections: as close as TCP lets messages come to arriving
//! twice and out of order.

use std::time::Duration;

use async_trait::async_trait;
use serde_json::json;
use tokio::time::{Instant, sleep_until};

use super::{Nemesis, Proof, Site, Started};
use crate::cluster::link::Silence;
use crate::cluster::network::Peer;
use crate::schedule::Planned;

/// See the module.
pub(super) struct HalfOpen {
    pick: u64,
    table: String,
    node: Option<u32>,
    on: bool,
    /// How many connections fell silent, each time, and how many packets were dropped for it.
    silenced: Vec<usize>,
    dropped: Vec<u64>,
}

impl HalfOpen {
    pub(super) fn new(planned: &Planned) -> Self {
        Self {
            pick: planned.pick,
            table: format!("fault{}", planned.number),
            node: None,
            on: false,
            silenced: Vec::new(),
            dropped: Vec::new(),
        }
    }

    const fn silence(&self) -> Silence {
        match self.pick % 3 {
            0 => Silence::Both,
            1 => Silence::Deaf,
            _ => Silence::Mute,
        }
    }

    fn peers(&self, site: &Site, node: u32) -> Vec<Peer> {
        let brokers = site.others(node, 0).into_iter().map(Peer::Broker);
        match (self.pick >> 4) % 4 {
            0 => vec![Peer::Clients],
            1 => brokers.chain([Peer::Clients]).collect(),
            _ => brokers.collect(),
        }
    }

    async fn switch_on(&mut self, site: &Site, node: u32) -> anyhow::Result<()> {
        let network = site.cluster()?.network()?;
        let found = network.connections(node, &self.peers(site, node)).await?;
        self.silenced.push(found.len());
        self.on = true;
        let silence = self.silence();
        network.silence(&self.table, node, silence, &found).await
    }

    async fn switch_off(&mut self, site: &Site, node: u32) -> anyhow::Result<()> {
        let network = site.cluster()?.network()?;
        self.dropped
            .push(network.end_rules(&self.table, node).await?);
        self.on = false;
        Ok(())
    }
}

#[async_trait]
impl Nemesis for HalfOpen {
    async fn start(&mut self, site: &Site) -> anyhow::Result<Option<Started>> {
        let Some((_, node)) = site.leader(self.pick) else {
            return Ok(None);
        };
        self.node = Some(node);
        self.switch_on(site, node).await?;
        Ok(Some(Started {
            nodes: vec![node],
            detail: json!({"silence": self.silence(), "peers": self.peers(site, node)}),
            at_ns: None,
        }))
    }

    /// What was silent is heard again, and what was made meanwhile falls silent, again and again.
    async fn hold(&mut self, site: &Site, until: Instant) -> anyhow::Result<()> {
        let Some(node) = self.node else { return Ok(()) };
        let period = Duration::from_millis(2_000 + (self.pick >> 12) % 6_000);
        loop {
            sleep_until(until.min(Instant::now() + period)).await;
            if Instant::now() >= until {
                return Ok(());
            }
            self.switch_off(site, node).await?;
            self.switch_on(site, node).await?;
        }
    }

    async fn heal(&mut self, site: &Site) -> anyhow::Result<Proof> {
        let Some(node) = self.node else {
            return Ok(Proof::default());
        };
        if self.on {
            self.switch_off(site, node).await?;
        }
        let rounds = self.silenced.iter().zip(&self.dropped);
        let silent = rounds.clone().filter(|(count, _)| **count > 0).count();
        let struck = rounds
            .filter(|(count, dropped)| **count > 0 && **dropped > 0)
            .count();
        Ok(Proof {
            // The last time may be short.
            active: struck > 0 && struck * 2 >= silent,
            // Of a broker that is down there is no connection to be silenced.
            refused: silent == 0,
            detail: json!({"connections": self.silenced, "packets-dropped": self.dropped}),
            ..Proof::default()
        })
    }
}
