//! Links that are slow, that let packets overtake each other, or that double them.

use std::collections::BTreeMap;

use async_trait::async_trait;
use serde_json::json;

use super::{Nemesis, Proof, Site, Started};
use crate::cluster::link::Trouble;
use crate::cluster::network::Peer;
use crate::schedule::{Kind, Planned};

/// What a leader's machine, or every machine, sends to the others, and now and then to the clients too.
pub(super) struct BadLink {
    kind: Kind,
    pick: u64,
    table: String,
    nodes: Vec<u32>,
    before: BTreeMap<u32, BTreeMap<String, u64>>,
}

impl BadLink {
    pub(super) fn new(planned: &Planned) -> Self {
        Self {
            kind: planned.kind,
            pick: planned.pick,
            table: format!("fault{}", planned.number),
            nodes: Vec::new(),
            before: BTreeMap::new(),
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
                kbit: within(512, 8_192),
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
}

#[async_trait]
impl Nemesis for BadLink {
    async fn start(&mut self, site: &Site) -> anyhow::Result<Option<Started>> {
        let Some((_, leader)) = site.leader(self.pick) else {
            return Ok(None);
        };
        let network = site.cluster()?.network()?;
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

    async fn heal(&mut self, site: &Site) -> anyhow::Result<Proof> {
        let network = site.cluster()?.network()?;
        let counted = self.counted(site).await?;
        let mut packets = BTreeMap::new();
        for node in &self.nodes {
            packets.insert(*node, network.end_trouble(&self.table, *node).await?);
        }
        let seen = |names: &[&str]| {
            names
                .iter()
                .filter_map(|name| counted.get(*name))
                .sum::<u64>()
        };
        let arrived = match self.kind {
            // That packets went through the narrow link is all there is to see.
            Kind::SlowLink => 1,
            Kind::Reorder => seen(&["TCPOFOQueue"]),
            _ => seen(&["TCPDSACKOldSent", "TCPDSACKOfoSent"]),
        };
        let sent: u64 = packets.values().sum();
        Ok(Proof {
            active: sent > 0 && arrived > 0,
            detail: json!({
                "trouble": self.trouble(), "packets": packets, "receivers-counted": counted,
            }),
            ..Proof::default()
        })
    }
}
