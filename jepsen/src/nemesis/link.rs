//! Links that are slow, that let packets overtake each other, or that double them.

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use serde_json::json;
use tokio::time::{Instant, sleep_until};

use super::{Nemesis, Proof, Site, Started};
use crate::cluster::link::Trouble;
use crate::cluster::network::Peer;
use crate::schedule::{Kind, Planned};

/// Between two looks at what receivers counted.
const LOOK: Duration = Duration::from_secs(1);
/// How much longer it may take until they have counted something.
const LONGER: Duration = Duration::from_secs(10);
/// The narrowest that a link becomes.
const LEAST_KBIT: u32 = 16;
/// Packets that were chosen, below which nobody can say that one of them must have been overtaken or have waited.
const FEW: u64 = 40;

/// What a leader's machine, or every machine, sends to the others, and now and then to the clients too.
pub(super) struct BadLink {
    kind: Kind,
    pick: u64,
    table: String,
    nodes: Vec<u32>,
    before: BTreeMap<u32, BTreeMap<String, u64>>,
    kbit: u32,
}

impl BadLink {
    pub(super) fn new(planned: &Planned) -> Self {
        Self {
            kind: planned.kind,
            pick: planned.pick,
            table: format!("fault{}", planned.number),
            nodes: Vec::new(),
            before: BTreeMap::new(),
            kbit: 0,
        }
    }

    fn trouble(&self) -> Trouble {
        let within = |least: u64, most: u64| {
            u32::try_from(least + (self.pick >> 8) % (most - least)).unwrap_or(u32::MAX)
        };
        match self.kind {
            Kind::SlowLink => Trouble::Narrow {
                percent: 100,
                kbit: within(256, 4_096),
            },
            Kind::Reorder => Trouble::Narrow {
                percent: within(3, 30),
                kbit: within(64, 1_024),
            },
            _ => Trouble::Twice {
                percent: within(10, 90),
            },
        }
    }

    /// What the receivers' kernels counted since the beginning.
    async fn counted(&self, site: &Site) -> anyhow::Result<BTreeMap<String, u64>> {
        let network = site.cluster()?.network()?;
        let mut sums = BTreeMap::new();
        for (node, before) in &self.before {
            for (name, now) in network.tcp_counters(*node).await? {
                let before = before.get(&name).copied().unwrap_or(0);
                *sums.entry(name).or_default() += now.saturating_sub(before);
            }
        }
        Ok(sums)
    }

    /// How many packets receivers saw that show it.
    fn arrived(&self, counted: &BTreeMap<String, u64>) -> u64 {
        let seen = |names: &[&str]| {
            let counted = names.iter().filter_map(|name| counted.get(*name));
            counted.sum::<u64>()
        };
        match self.kind {
            // Receivers see nothing of it: that packets waited for the link is seen where they are sent.
            Kind::SlowLink => 1,
            Kind::Reorder => seen(&["TCPOFOQueue"]),
            _ => seen(&["TCPDSACKOldSent", "TCPDSACKOfoSent"]),
        }
    }

    /// Nobody was overtaken yet: there is little to send, and what waits must wait for longer.
    async fn narrow(&mut self, site: &Site) -> anyhow::Result<()> {
        if self.kind != Kind::Reorder || self.kbit <= LEAST_KBIT {
            return Ok(());
        }
        self.kbit = (self.kbit / 2).max(LEAST_KBIT);
        for node in &self.nodes {
            let network = site.cluster()?.network()?;
            network.narrow_further(*node, self.kbit).await?;
        }
        Ok(())
    }
}

#[async_trait]
impl Nemesis for BadLink {
    async fn start(&mut self, site: &Site) -> anyhow::Result<Option<Started>> {
        let Some((_, leader)) = site.leader(self.pick) else {
            return Ok(None);
        };
        let network = site.cluster()?.network()?;
        if let Trouble::Narrow { kbit, .. } = self.trouble() {
            self.kbit = kbit;
        }
        let nodes = if self.pick.is_multiple_of(3) {
            site.nodes.clone()
        } else {
            vec![leader]
        };
        let clients = (self.pick >> 2).is_multiple_of(3);
        for node in &site.nodes {
            let counters = network.tcp_counters(*node).await?;
            self.before.insert(*node, counters);
        }
        for node in &nodes {
            let others = site.others(*node, 0).into_iter().map(Peer::Broker);
            let peers: Vec<Peer> = others.chain(clients.then_some(Peer::Clients)).collect();
            // Before it is made, so that what was made half-way is taken back.
            self.nodes.push(*node);
            network
                .trouble(&self.table, *node, &peers, self.trouble())
                .await?;
        }
        Ok(Some(Started {
            nodes,
            detail: json!({"trouble": self.trouble(), "clients-too": clients}),
            at_ns: None,
        }))
    }

    /// Goes on until the receivers have noticed, for a while.
    async fn hold(&mut self, site: &Site, until: Instant) -> anyhow::Result<()> {
        loop {
            let now = Instant::now();
            let noticed = self.arrived(&self.counted(site).await?) > 0;
            let end = if noticed { until } else { until + LONGER };
            if now >= end {
                return Ok(());
            }
            if !noticed {
                self.narrow(site).await?;
            }
            sleep_until(end.min(now + LOOK)).await;
        }
    }

    async fn heal(&mut self, site: &Site) -> anyhow::Result<Proof> {
        let network = site.cluster()?.network()?;
        let counted = self.counted(site).await?;
        let mut waited = 0;
        if self.kind == Kind::SlowLink {
            for node in &self.nodes {
                waited += network.times_over_limit(*node).await?;
            }
        }
        let mut packets = BTreeMap::new();
        for node in &self.nodes {
            packets.insert(*node, network.end_trouble(&self.table, *node).await?);
        }
        let arrived = self.arrived(&counted);
        let sent: u64 = packets.values().sum();
        let slow = self.kind == Kind::SlowLink;
        let shown = if slow {
            sent >= FEW && waited > 0
        } else {
            arrived > 0
        };
        Ok(Proof {
            active: sent > 0 && shown,
            // Other faults had silenced whom it struck.
            refused: !shown && sent < FEW,
            detail: json!({
                "trouble": self.trouble(), "kbit": self.kbit, "packets": packets, "receivers-counted": counted,
                "waited": waited,
            }),
            ..Proof::default()
        })
    }
}
