//! Partitions: packets between some brokers, or from clients, are dropped where they arrive.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use async_trait::async_trait;
use serde_json::json;
use tokio::time::{Instant, sleep_until};

use super::{Nemesis, Proof, Site, Started};
use crate::cluster::network::{Drops, Peer};
use crate::schedule::{Kind, Planned};

/// Some packets do not arrive.
pub(super) struct Partition {
    kind: Kind,
    pick: u64,
    table: String,
    drops: Drops,
    /// Whether the rules are in place.
    on: bool,
    dropped: BTreeMap<u32, u64>,
    /// Brokers that were there at the beginning.
    there: BTreeSet<u32>,
}

impl Partition {
    pub(super) fn new(planned: &Planned) -> Self {
        Self {
            kind: planned.kind,
            pick: planned.pick,
            table: format!("fault{}", planned.number),
            drops: Drops::new(),
            on: false,
            dropped: BTreeMap::new(),
            there: BTreeSet::new(),
        }
    }

    async fn switch_on(&mut self, site: &Site) -> anyhow::Result<()> {
        self.on = true;
        let cluster = site.cluster()?;
        cluster
            .network()?
            .drop_packets(&self.table, &self.drops)
            .await
    }

    async fn switch_off(&mut self, site: &Site) -> anyhow::Result<()> {
        let network = site.cluster()?.network()?;
        for (node, count) in network.dropped(&self.table, &self.drops).await? {
            *self.dropped.entry(node).or_default() += count;
        }
        network.stop_dropping(&self.table, &self.drops).await?;
        self.on = false;
        Ok(())
    }
}

#[async_trait]
impl Nemesis for Partition {
    async fn start(&mut self, site: &Site) -> anyhow::Result<Option<Started>> {
        let leader = site.leader(self.pick).map(|(_, leader)| leader);
        let Some(leader) = leader else {
            return Ok(None);
        };
        let others = site.others(leader, self.pick);
        self.drops = drops(self.kind, leader, &others, self.pick);
        self.there = running(site).await?;
        self.switch_on(site).await?;
        Ok(Some(Started {
            nodes: hit(self.kind, leader, &others),
            detail: json!({"drops": self.drops}),
            at_ns: None,
        }))
    }

    async fn hold(&mut self, site: &Site, until: Instant) -> anyhow::Result<()> {
        let mut period = 300 + self.pick % 1_700;
        while self.kind == Kind::Flapping && Instant::now() < until {
            sleep_until(until.min(Instant::now() + Duration::from_millis(period))).await;
            if self.on {
                self.switch_off(site).await?;
            } else {
                self.switch_on(site).await?;
            }
            period = 300 + (period * 7 + 11) % 1_700;
        }
        sleep_until(until).await;
        Ok(())
    }

    async fn heal(&mut self, site: &Site) -> anyhow::Result<Proof> {
        if self.on {
            self.switch_off(site).await?;
        }
        // Who was gone in the meantime may have been told nothing, and told others nothing.
        let there = running(site).await?;
        let there: BTreeSet<u32> = self.there.intersection(&there).copied().collect();
        let expected = receivers(&self.drops, &there);
        let nothing = |node: &&u32| self.dropped.get(*node).copied().unwrap_or(0) == 0;
        let without: Vec<u32> = expected.iter().filter(nothing).copied().collect();
        let total: u64 = self.dropped.values().sum();
        Ok(Proof {
            active: total > 0 && without.is_empty(),
            // Nobody was there whom it could have cut off.
            refused: total == 0 && expected.is_empty(),
            detail: json!({"packets-dropped": self.dropped, "nothing-dropped-at": without}),
            ..Proof::default()
        })
    }
}

/// The brokers that run and are not paused.
async fn running(site: &Site) -> anyhow::Result<BTreeSet<u32>> {
    let mut running = BTreeSet::new();
    for node in &site.nodes {
        let broker = site.cluster()?.node(*node).await?;
        if broker.is_up() && broker.pid().is_some() {
            running.insert(*node);
        }
    }
    Ok(running)
}

/// Those of the brokers that must drop something: somebody is there whom they are not to hear.
fn receivers(drops: &Drops, there: &BTreeSet<u32>) -> BTreeSet<u32> {
    let speaks = |peer: &Peer| match peer {
        Peer::Broker(node) => there.contains(node),
        Peer::Clients => true,
    };
    let cut = |(node, peers): (&u32, &BTreeSet<Peer>)| {
        (there.contains(node) && peers.iter().any(speaks)).then_some(*node)
    };
    drops.iter().filter_map(cut).collect()
}

/// The brokers that are cut off from a majority, or from the clients.
fn hit(kind: Kind, leader: u32, others: &[u32]) -> Vec<u32> {
    match kind {
        Kind::Halves => small_half(leader, others),
        Kind::Bridge => others.iter().skip(1).copied().chain([leader]).collect(),
        Kind::Ring => others.iter().copied().chain([leader]).collect(),
        _ => vec![leader],
    }
}

/// The half without a majority, with the leader in it.
fn small_half(leader: u32, others: &[u32]) -> Vec<u32> {
    let size = others.len() / 2;
    let mut half = vec![leader];
    half.extend(others.iter().take(size.saturating_sub(1)));
    half
}

/// Who drops whose packets. `others` are all brokers but `leader`, in an order by chance.
pub(super) fn drops(kind: Kind, leader: u32, others: &[u32], pick: u64) -> Drops {
    let mut drops = Drops::new();
    let mut one_way = |from: u32, to: u32| {
        drops.entry(to).or_default().insert(Peer::Broker(from));
    };
    match kind {
        Kind::Halves => {
            let half = small_half(leader, others);
            let rest = others.iter().filter(|node| !half.contains(node));
            for other in rest {
                for node in &half {
                    one_way(*node, *other);
                    one_way(*other, *node);
                }
            }
        }
        // The first of the others is the bridge: it hears both sides, which do not hear each other.
        Kind::Bridge => {
            let sides: Vec<u32> = others.iter().skip(1).copied().chain([leader]).collect();
            let (left, right) = sides.split_at(sides.len() / 2);
            for a in left {
                for b in right {
                    one_way(*a, *b);
                    one_way(*b, *a);
                }
            }
        }
        // In a circle, everyone hears the nearest on both sides, as many as make a majority.
        Kind::Ring => {
            let circle: Vec<u32> = others.iter().copied().chain([leader]).collect();
            let reach = (circle.len() / 2).div_ceil(2);
            for (a, from) in circle.iter().enumerate() {
                for (b, to) in circle.iter().enumerate() {
                    let apart = a.abs_diff(b).min(circle.len() - a.abs_diff(b));
                    if apart > reach {
                        one_way(*from, *to);
                    }
                }
            }
        }
        Kind::OneWay => {
            for other in others {
                if pick.is_multiple_of(2) {
                    one_way(leader, *other);
                } else {
                    one_way(*other, leader);
                }
            }
        }
        Kind::ClientSide => {
            drops.entry(leader).or_default().insert(Peer::Clients);
        }
        _ => {
            for other in others {
                one_way(leader, *other);
                one_way(*other, leader);
            }
        }
    }
    drops
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether two brokers hear each other both ways.
    fn connected(drops: &Drops, a: u32, b: u32) -> bool {
        let hears = |to: u32, from: u32| {
            !drops
                .get(&to)
                .is_some_and(|peers| peers.contains(&Peer::Broker(from)))
        };
        hears(a, b) && hears(b, a)
    }

    /// How many brokers each hears, itself included.
    fn degrees(drops: &Drops, nodes: &[u32]) -> Vec<usize> {
        let heard = |a: &u32| {
            nodes
                .iter()
                .filter(|b| a == *b || connected(drops, *a, **b))
                .count()
        };
        nodes.iter().map(heard).collect()
    }

    #[test]
    fn an_isolated_leader_hears_only_itself() {
        let drops = drops(Kind::IsolateLeader, 1, &[2, 3], 0);
        assert_eq!(degrees(&drops, &[1, 2, 3]), [1, 2, 2]);
    }

    #[test]
    fn halves_leave_the_leader_without_a_majority() {
        let three = drops(Kind::Halves, 2, &[3, 1], 0);
        assert_eq!(degrees(&three, &[1, 2, 3]), [2, 1, 2]);
        let five = drops(Kind::Halves, 2, &[3, 4, 5, 1], 0);
        assert_eq!(degrees(&five, &[2, 3, 4, 5, 1]), [2, 2, 3, 3, 3]);
    }

    #[test]
    fn a_bridge_hears_all_and_the_sides_do_not_hear_each_other() {
        let three = drops(Kind::Bridge, 2, &[3, 1], 0);
        assert_eq!(degrees(&three, &[3, 1, 2]), [3, 2, 2]);
        let five = drops(Kind::Bridge, 2, &[3, 4, 5, 1], 0);
        assert_eq!(degrees(&five, &[3, 4, 5, 1, 2]), [5, 3, 3, 3, 3]);
    }

    #[test]
    fn in_a_ring_everyone_hears_a_majority_but_not_all() {
        let nodes = [1, 2, 3, 4, 5];
        let ring = drops(Kind::Ring, 1, &[2, 3, 4, 5], 0);
        assert_eq!(degrees(&ring, &nodes), [3; 5]);
    }

    #[test]
    fn who_is_not_there_drops_nothing_and_sends_nothing_that_could_be_dropped() {
        let drops = drops(Kind::IsolateLeader, 1, &[2, 3], 0);
        let of = |there: &[u32]| -> Vec<u32> {
            let there = there.iter().copied().collect();
            receivers(&drops, &there).into_iter().collect()
        };
        assert_eq!(of(&[1, 2, 3]), [1, 2, 3]);
        assert_eq!(of(&[1, 3]), [1, 3]);
        assert_eq!(of(&[2, 3]), [0; 0]);
    }

    #[test]
    fn one_way_is_one_way() {
        let deaf = drops(Kind::OneWay, 1, &[2, 3], 1);
        assert_eq!(deaf.keys().copied().collect::<Vec<_>>(), [1]);
        let mute = drops(Kind::OneWay, 1, &[2, 3], 2);
        assert_eq!(mute.keys().copied().collect::<Vec<_>>(), [2, 3]);
    }
}
