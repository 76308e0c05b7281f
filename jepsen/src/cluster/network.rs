//! The brokers' network: a namespace for each, and one more with the bridge that joins them.
//!
//! The bridge lies in a namespace of its own, so that the machine's firewall has no say in what
//! brokers tell each other. Packets are dropped where they arrive, by rules inside the receiving
//! broker's namespace, each with a counter: what it counted is the proof that it was active.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fmt::Write as _;
use std::net::Ipv4Addr;

use anyhow::Context as _;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::shell;

/// The clients' host number within a slot's network.
const CLIENTS: u8 = 254;

/// Who sends, as a broker's rules see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Peer {
    /// A broker.
    Broker(u32),
    /// Everything outside the brokers' namespaces.
    Clients,
}

/// Which packets are dropped: at each broker, those that come from these peers.
pub type Drops = BTreeMap<u32, BTreeSet<Peer>>;

/// The network of one slot. [`remove`] takes it away.
#[derive(Debug, Clone)]
pub struct Network {
    slot: u8,
}

fn hub(slot: u8) -> String {
    format!("hwj{slot}-hub")
}

fn host_link(slot: u8) -> String {
    format!("hwj{slot}")
}

impl Network {
    /// Makes the namespaces and links of these brokers.
    ///
    /// # Errors
    /// With what `ip` said.
    pub async fn create(slot: u8, nodes: &[u32]) -> anyhow::Result<Self> {
        let network = Self { slot };
        let (hub, host) = (hub(slot), host_link(slot));
        ip(&["netns", "add", &hub]).await?;
        ip(&["-n", &hub, "link", "add", "br0", "type", "bridge"]).await?;
        ip(&["-n", &hub, "link", "set", "br0", "up"]).await?;
        ip(&[
            "link", "add", &host, "type", "veth", "peer", "name", "host", "netns", &hub,
        ])
        .await?;
        ip(&["-n", &hub, "link", "set", "host", "master", "br0", "up"]).await?;
        let address = format!("{}/24", network.clients());
        ip(&["addr", "add", &address, "dev", &host]).await?;
        ip(&["link", "set", &host, "up"]).await?;
        for node in nodes {
            network.add(*node).await?;
        }
        Ok(network)
    }

    async fn add(&self, node: u32) -> anyhow::Result<()> {
        let (hub, own) = (hub(self.slot), self.namespace(node));
        let port = format!("n{node}");
        ip(&["netns", "add", &own]).await?;
        ip(&[
            "-n", &hub, "link", "add", &port, "type", "veth", "peer", "name", "eth0", "netns", &own,
        ])
        .await?;
        ip(&["-n", &hub, "link", "set", &port, "master", "br0", "up"]).await?;
        let address = format!("{}/24", self.address(node));
        ip(&["-n", &own, "addr", "add", &address, "dev", "eth0"]).await?;
        ip(&["-n", &own, "link", "set", "eth0", "up"]).await?;
        ip(&["-n", &own, "link", "set", "lo", "up"]).await
    }

    pub(super) fn namespace(&self, node: u32) -> String {
        format!("hwj{}-n{node}", self.slot)
    }

    /// A broker's address.
    #[must_use]
    pub fn address(&self, node: u32) -> Ipv4Addr {
        let host = u8::try_from(node).unwrap_or(CLIENTS - 1);
        Ipv4Addr::new(10, 213, self.slot, host)
    }

    /// Where clients come from.
    #[must_use]
    pub fn clients(&self) -> Ipv4Addr {
        Ipv4Addr::new(10, 213, self.slot, CLIENTS)
    }

    /// The command to put before another so that it runs in a broker's namespace. It becomes that
    /// other command, so process ids and parents are the same as without it.
    #[must_use]
    pub fn entering(&self, node: u32) -> Vec<OsString> {
        let namespace = format!("--net=/run/netns/{}", self.namespace(node));
        vec!["nsenter".into(), namespace.into(), "--".into()]
    }

    /// Begins to drop. `table` names the rules, so that faults can overlap.
    ///
    /// # Errors
    /// With what `nft` said.
    pub async fn drop_packets(&self, table: &str, drops: &Drops) -> anyhow::Result<()> {
        for (node, peers) in drops {
            let mut rules = format!("table inet {table} {{\n chain input {{\n");
            rules.push_str("  type filter hook input priority 0; policy accept;\n");
            for peer in peers {
                let from = match peer {
                    Peer::Broker(node) => self.address(*node),
                    Peer::Clients => self.clients(),
                };
                let _ = writeln!(rules, "  ip saddr {from} counter drop");
            }
            rules.push_str(" }\n}\n");
            self.nft(*node, &["-f", "-"], &rules).await?;
        }
        Ok(())
    }

    /// How many packets each broker's rules dropped so far.
    ///
    /// # Errors
    /// With what `nft` said.
    pub async fn dropped(&self, table: &str, drops: &Drops) -> anyhow::Result<BTreeMap<u32, u64>> {
        let mut dropped = BTreeMap::new();
        for node in drops.keys() {
            let listed = self
                .nft(*node, &["-j", "list", "table", "inet", table], "")
                .await?;
            let listed: Value = serde_json::from_str(&listed).context("nft's answer")?;
            dropped.insert(*node, packets(&listed));
        }
        Ok(dropped)
    }

    /// Lets everything through again.
    ///
    /// # Errors
    /// With what `nft` said.
    pub async fn stop_dropping(&self, table: &str, drops: &Drops) -> anyhow::Result<()> {
        for node in drops.keys() {
            self.nft(*node, &["delete", "table", "inet", table], "")
                .await?;
        }
        Ok(())
    }

    pub(super) async fn nft(
        &self,
        node: u32,
        arguments: &[&str],
        input: &str,
    ) -> anyhow::Result<String> {
        let namespace = self.namespace(node);
        let mut all = vec!["netns", "exec", &namespace, "nft"];
        all.extend(arguments);
        shell::feed("ip", &all, input).await
    }
}

/// The sum of all packet counters in a listing of rules.
pub(super) fn packets(listing: &Value) -> u64 {
    match listing {
        Value::Object(fields) => fields
            .iter()
            .map(|(name, value)| match (name.as_str(), value) {
                ("packets", Value::Number(count)) => count.as_u64().unwrap_or_default(),
                _ => packets(value),
            })
            .sum(),
        Value::Array(items) => items.iter().map(packets).sum(),
        _ => 0,
    }
}

pub(super) async fn ip(arguments: &[&str]) -> anyhow::Result<()> {
    shell::run("ip", arguments).await.map(drop)
}

/// Kills what runs in a slot's namespaces, and removes them with their links. Safe to repeat.
///
/// # Errors
/// When something cannot be removed.
pub async fn remove(slot: u8) -> anyhow::Result<()> {
    let prefix = format!("hwj{slot}-");
    let Ok(listed) = shell::run("ip", &["netns", "list"]).await else {
        // Without `ip` nothing was ever made.
        return Ok(());
    };
    let names = listed.lines().filter_map(|line| line.split(' ').next());
    for name in names.filter(|name| name.starts_with(&prefix)) {
        let pids = shell::run("ip", &["netns", "pids", name]).await?;
        for pid in pids.lines().filter_map(|line| line.trim().parse().ok()) {
            if let Some(pid) = Pid::from_raw(pid) {
                // Gone by itself in the meantime is as good.
                let _ = kill_process(pid, Signal::KILL);
            }
        }
        ip(&["netns", "delete", name]).await?;
    }
    // The host's end goes with the hub's, but only once the kernel gets round to it.
    let _ = ip(&["link", "delete", &host_link(slot)]).await;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_of_all_rules_are_added() {
        let listing = serde_json::json!({"nftables": [
            {"table": {"name": "t", "handle": 1}},
            {"rule": {"expr": [{"counter": {"packets": 3, "bytes": 180}}, {"drop": null}]}},
            {"rule": {"expr": [{"counter": {"packets": 4, "bytes": 240}}, {"drop": null}]}},
        ]});
        assert_eq!(packets(&listing), 7);
    }

    #[test]
    fn addresses_differ_by_slot_and_broker() {
        let network = Network { slot: 3 };
        assert_eq!(network.address(2), Ipv4Addr::new(10, 213, 3, 2));
        assert_eq!(network.clients(), Ipv4Addr::new(10, 213, 3, 254));
        assert_eq!(network.namespace(2), "hwj3-n2");
        // Names of links are at most 15 characters.
        assert!(host_link(255).len() <= 15);
    }
}
