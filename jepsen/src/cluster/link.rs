//! Links that are bad without being cut: packets that wait, are overtaken, or come twice, and connections
//! that are dead at one end.
//!
//! Packets go through a narrow class of the link's queue (HTB) and wait there, all of them or some, which
//! the rest then overtakes. They are doubled by a rule of the firewall. Both happen where they leave a
//! broker. TCP mends all of it, so that brokers see time and nothing else: bytes of a connection come once
//! and in order, or not at all.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddrV4};

use anyhow::Context as _;

use super::network::{Network, Peer, ip, packets};
use super::shell;

/// The link of a broker, in its namespace.
const DEVICE: &str = "eth0";

/// Packets that wait in the narrow class, at most; of as much as 64 KiB each.
const QUEUE: &str = "40";

/// What the narrow class lets pass at once, in bytes: next to nothing, so that of two packets one waits. With
/// a burst of the usual size a few small packets never do.
const BURST: &str = "64";

/// What happens to packets that leave a broker.
#[derive(Debug, Clone, Copy, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Trouble {
    /// So many of a hundred go through a link of so many kbit/s.
    Narrow {
        /// Of a hundred.
        percent: u32,
        /// Kilobits a second.
        kbit: u32,
    },
    /// So many of a hundred come twice.
    Twice {
        /// Of a hundred.
        percent: u32,
    },
}

/// Which packets of connections are lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Silence {
    /// Nothing comes and nothing goes.
    Both,
    /// What the others send does not come.
    Deaf,
    /// What it sends does not arrive.
    Mute,
}

/// Connections of a broker, as (own port, the other end).
pub type Connections = BTreeSet<(u16, SocketAddrV4)>;

impl Network {
    fn peer_address(&self, peer: Peer) -> Ipv4Addr {
        match peer {
            Peer::Broker(node) => self.address(node),
            Peer::Clients => self.clients(),
        }
    }

    /// Makes trouble for what a broker sends to these peers. One trouble of a broker at a time.
    ///
    /// # Errors
    /// With what `tc` or `nft` said.
    pub async fn trouble(
        &self,
        table: &str,
        node: u32,
        peers: &[Peer],
        trouble: Trouble,
    ) -> anyhow::Result<()> {
        if let Trouble::Narrow { kbit, .. } = trouble {
            self.narrow_class(node, kbit).await?;
        }
        let mut rules = format!("table ip {table} {{\n chain out {{\n");
        rules.push_str("  type filter hook postrouting priority 0; policy accept;\n");
        for peer in peers {
            let to = self.peer_address(*peer);
            let (percent, action) = match trouble {
                Trouble::Narrow { percent, .. } => (percent, "meta priority set 1:3".to_owned()),
                Trouble::Twice { percent } => (percent, format!("dup to {to} device \"{DEVICE}\"")),
            };
            let some = chance(percent);
            let _ = writeln!(rules, "  ip daddr {to} {some}counter {action}");
        }
        rules.push_str(" }\n}\n");
        self.nft(node, &["-f", "-"], &rules).await.map(drop)
    }

    /// Lets what waits of a broker's packets wait for longer.
    ///
    /// # Errors
    /// With what `tc` said.
    pub async fn narrow_further(&self, node: u32, kbit: u32) -> anyhow::Result<()> {
        let rate = format!("{kbit}kbit");
        let change = [
            "class", "change", "dev", DEVICE, "parent", "1:", "classid", "1:3", "htb", "rate",
            &rate, "burst", BURST, "cburst", BURST, "quantum", "2000",
        ];
        self.inside(node, "tc", &change).await.map(drop)
    }

    /// How often something had to wait because the narrow class of a broker's link had let enough pass.
    ///
    /// # Errors
    /// With what `tc` said, or when it cannot be read.
    pub async fn times_over_limit(&self, node: u32) -> anyhow::Result<u64> {
        let show = ["-s", "qdisc", "show", "dev", DEVICE, "root"];
        let text = self.inside(node, "tc", &show).await?;
        over_limit(&text).with_context(|| format!("tc's answer: {text}"))
    }

    async fn narrow_class(&self, node: u32, kbit: u32) -> anyhow::Result<()> {
        let rate = format!("{kbit}kbit");
        // Without a quantum of its own a class takes one from its rate, of which the kernel complains.
        let calls: [&[&str]; 4] = [
            &[
                "qdisc", "add", "dev", DEVICE, "root", "handle", "1:", "htb", "default", "2",
            ],
            &[
                "class", "add", "dev", DEVICE, "parent", "1:", "classid", "1:2", "htb", "rate",
                "10gbit", "quantum", "60000",
            ],
            &[
                "class", "add", "dev", DEVICE, "parent", "1:", "classid", "1:3", "htb", "rate",
                &rate, "burst", BURST, "cburst", BURST, "quantum", "2000",
            ],
            &[
                "qdisc", "add", "dev", DEVICE, "parent", "1:3", "handle", "30:", "pfifo", "limit",
                QUEUE,
            ],
        ];
        for call in calls {
            self.inside(node, "tc", call).await?;
        }
        Ok(())
    }

    /// Ends the trouble, and says how many packets it was made for. Also after a beginning that failed
    /// half-way.
    ///
    /// # Errors
    /// With what `nft` said.
    pub async fn end_trouble(&self, table: &str, node: u32) -> anyhow::Result<u64> {
        // Only what is slow has one.
        let _ = self
            .inside(node, "tc", &["qdisc", "del", "dev", DEVICE, "root"])
            .await;
        self.end_rules(table, node).await
    }

    /// Takes rules away, and says how many packets they were for.
    ///
    /// # Errors
    /// With what `nft` said.
    pub async fn end_rules(&self, table: &str, node: u32) -> anyhow::Result<u64> {
        let list = ["-j", "list", "table", "ip", table];
        let listed = self.nft(node, &list, "").await?;
        let listed = serde_json::from_str(&listed).context("nft's answer")?;
        let delete = ["delete", "table", "ip", table];
        self.nft(node, &delete, "").await?;
        Ok(packets(&listed))
    }

    /// Counters of a broker's TCP that tell of packets out of order and of packets that came twice.
    ///
    /// # Errors
    /// When they cannot be read.
    pub async fn tcp_counters(&self, node: u32) -> anyhow::Result<BTreeMap<String, u64>> {
        let text = self.inside(node, "cat", &["/proc/net/netstat"]).await?;
        let wanted = ["TCPOFOQueue", "TCPDSACKOldSent", "TCPDSACKOfoSent"];
        Ok(counters(&text, &wanted))
    }

    /// The connections that a broker has now with some peers.
    ///
    /// # Errors
    /// When they cannot be read.
    pub async fn connections(&self, node: u32, peers: &[Peer]) -> anyhow::Result<Connections> {
        let text = self.inside(node, "cat", &["/proc/net/tcp"]).await?;
        let peers: Vec<Ipv4Addr> = peers.iter().map(|peer| self.peer_address(*peer)).collect();
        let found = established(&text).into_iter();
        Ok(found
            .filter(|(_, other)| peers.contains(other.ip()))
            .collect())
    }

    /// From now on nothing is heard on these connections; others are as they were.
    ///
    /// # Errors
    /// With what `nft` said.
    pub async fn silence(
        &self,
        table: &str,
        node: u32,
        silence: Silence,
        connections: &Connections,
    ) -> anyhow::Result<()> {
        let mut rules = format!("table ip {table} {{\n");
        let hooks = [
            (Silence::Deaf, "input", "sport", "dport", "saddr"),
            (Silence::Mute, "output", "dport", "sport", "daddr"),
        ];
        for (which, hook, theirs, own, address) in hooks {
            if silence != Silence::Both && silence != which {
                continue;
            }
            let _ = writeln!(
                rules,
                " chain {hook} {{\n  type filter hook {hook} priority 0; policy accept;"
            );
            for (port, other) in connections {
                let (ip, their_port) = (other.ip(), other.port());
                let _ = writeln!(
                    rules,
                    "  ip {address} {ip} tcp {theirs} {their_port} tcp {own} {port} counter drop"
                );
            }
            rules.push_str(" }\n");
        }
        rules.push_str("}\n");
        self.nft(node, &["-f", "-"], &rules).await.map(drop)
    }

    /// Of a broker nobody hears that a connection of it has ended: as of a machine that is gone.
    ///
    /// # Errors
    /// With what `nft` said.
    pub async fn keep_deaths_secret(&self, table: &str, node: u32) -> anyhow::Result<()> {
        let rules = format!(
            "table ip {table} {{\n chain out {{\n  type filter hook output priority 0; policy accept;\n  \
             tcp flags & (fin | rst) != 0 counter drop\n }}\n}}\n"
        );
        self.nft(node, &["-f", "-"], &rules).await.map(drop)
    }

    async fn inside(&self, node: u32, program: &str, words: &[&str]) -> anyhow::Result<String> {
        let namespace = self.namespace(node);
        let mut all = vec!["netns", "exec", &namespace, program];
        all.extend(words);
        shell::run("ip", &all).await
    }

    /// Whether the kernel can queue and double packets; otherwise why not. Tried in a namespace of its own.
    ///
    /// # Errors
    /// One sentence.
    pub async fn can_make_trouble() -> Result<(), String> {
        if shell::find("tc").is_none() {
            return Err("`tc` is not there (package iproute2)".to_owned());
        }
        let name = format!("hwj-try-{}", std::process::id());
        let tried = try_in(&name).await;
        // It may not have been made.
        let _ = ip(&["netns", "delete", &name]).await;
        tried.map_err(|error| format!("this kernel cannot queue or double packets: {error:#}"))
    }
}

async fn try_in(name: &str) -> anyhow::Result<()> {
    ip(&["netns", "add", name]).await?;
    let tc = [
        "netns", "exec", name, "tc", "qdisc", "add", "dev", "lo", "root", "htb",
    ];
    shell::run("ip", &tc).await?;
    let rules = "table ip t {\n chain out {\n  type filter hook postrouting priority 0;\n  \
                 numgen random mod 100 < 1 counter dup to 127.0.0.1 device \"lo\"\n }\n}\n";
    shell::feed("ip", &["netns", "exec", name, "nft", "-f", "-"], rules).await?;
    Ok(())
}

/// The words that let a rule meet so many packets of a hundred; all: none.
fn chance(percent: u32) -> String {
    match percent {
        0..100 => format!("numgen random mod 100 < {percent} "),
        _ => String::new(),
    }
}

/// The number behind `overlimits` in what `tc` says of a queue.
fn over_limit(text: &str) -> Option<u64> {
    let mut words = text
        .split_whitespace()
        .skip_while(|word| *word != "overlimits");
    words.nth(1)?.parse().ok()
}

/// Counters of `/proc/net/netstat`: a line of names, and one of numbers.
fn counters(text: &str, wanted: &[&str]) -> BTreeMap<String, u64> {
    let lines: Vec<&str> = text.lines().collect();
    let pairs = lines.chunks(2).filter_map(|pair| match pair {
        [names, numbers] => Some(names.split(' ').zip(numbers.split(' '))),
        _ => None,
    });
    let counter = |(name, number): (&str, &str)| {
        let number = number.parse().ok()?;
        wanted.contains(&name).then(|| (name.to_owned(), number))
    };
    pairs.flatten().filter_map(counter).collect()
}

/// Established connections in a listing of `/proc/net/tcp`.
fn established(text: &str) -> Vec<(u16, SocketAddrV4)> {
    let address = |word: &str| {
        let (ip, port) = word.split_once(':')?;
        // In the order of bytes in memory.
        let ip = u32::from_str_radix(ip, 16).ok()?.to_le_bytes();
        let port = u16::from_str_radix(port, 16).ok()?;
        Some(SocketAddrV4::new(ip.into(), port))
    };
    let line = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let (own, other) = (address(words.get(1)?)?, address(words.get(2)?)?);
        (*words.get(3)? == "01").then_some((own.port(), other))
    };
    text.lines().filter_map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn established_connections_are_read_off_the_kernels_table() {
        let text = "  sl  local_address rem_address   st tx_queue\n   \
                    0: 0103D50A:2386 00000000:0000 0A 00000000:00000000\n   \
                    1: 0103D50A:2386 0203D50A:A1B2 01 00000000:00000000\n";
        let other = SocketAddrV4::new(Ipv4Addr::new(10, 213, 3, 2), 0xa1b2);
        assert_eq!(established(text), [(9094, other)]);
    }

    #[test]
    fn a_rule_for_all_packets_leaves_nothing_to_chance() {
        assert_eq!(chance(99), "numgen random mod 100 < 99 ");
        assert_eq!(chance(100), "");
    }

    #[test]
    fn what_waited_is_read_off_the_queue() {
        let text = "qdisc htb 1: root refcnt 2 r2q 10 default 0x2 direct_packets_stat 0\n \
                    Sent 120034 bytes 410 pkt (dropped 0, overlimits 88 requeues 0)\n backlog 0b 0p\n";
        assert_eq!(over_limit(text), Some(88));
        assert_eq!(over_limit("qdisc noqueue"), None);
    }

    #[test]
    fn counters_are_found_by_their_names() {
        let text = "TcpExt: A TCPOFOQueue B\nTcpExt: 1 7 3\nIpExt: C\nIpExt: 4\n";
        let found = counters(text, &["TCPOFOQueue", "C"]);
        assert_eq!(
            found,
            BTreeMap::from([("C".into(), 4), ("TCPOFOQueue".into(), 7)])
        );
    }
}
