//! A vote is a promise: a broker that gave one must know it after its machine lost power.
//!
//! A broker is killed, loses power, and comes back where no other broker can tell it anything. For
//! every shard it must then know an election at least as new as the one that it told of before.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use async_trait::async_trait;
use highwater_powerfs::LossReport;
use serde_json::json;
use tokio::time::{Instant, sleep, sleep_until};

use super::partition::drops;
use super::power::loss;
use super::{Nemesis, Proof, Site, Started};
use crate::cluster::metrics;
use crate::cluster::network::Drops;
use crate::schedule::{Kind, Planned};

/// What a broker tells is on its disk after this time at the latest. It may tell of an election a
/// moment before it has written it down.
const SETTLE: Duration = Duration::from_secs(1);

/// Between two looks at the broker that came back.
const LOOK: Duration = Duration::from_millis(50);

/// Terms by shard.
type Terms = BTreeMap<u32, u64>;

/// See the module.
pub(super) struct Amnesia {
    pick: u64,
    table: String,
    node: Option<u32>,
    before: Terms,
    after: Terms,
    drops: Drops,
    cut_off: bool,
    dead: bool,
    dropped: u64,
    report: Option<LossReport>,
}

impl Amnesia {
    pub(super) fn new(planned: &Planned) -> Self {
        Self {
            pick: planned.pick,
            table: format!("fault{}", planned.number),
            node: None,
            before: Terms::new(),
            after: Terms::new(),
            drops: Drops::new(),
            cut_off: false,
            dead: false,
            dropped: 0,
            report: None,
        }
    }
}

#[async_trait]
impl Nemesis for Amnesia {
    async fn start(&mut self, site: &Site) -> anyhow::Result<Option<Started>> {
        let Some((_, node)) = site.leader(self.pick) else {
            return Ok(None);
        };
        let cluster = site.cluster()?;
        let admin = cluster.admin_address(node).await?;
        let Some(before) = terms(admin).await else {
            return Ok(None);
        };
        sleep(SETTLE).await;
        self.before = before;
        self.node = Some(node);
        let at_ns = site.recorder.now_ns();
        cluster.node(node).await?.kill().await?;
        self.dead = true;
        self.report = Some(cluster.lose_power(node, loss(self.pick)).await?);
        self.drops = drops(Kind::IsolateLeader, node, &site.others(node, self.pick), 0);
        self.cut_off = true;
        cluster
            .network()?
            .drop_packets(&self.table, &self.drops)
            .await?;
        cluster.node(node).await?.start()?;
        self.dead = false;
        Ok(Some(Started {
            nodes: vec![node],
            detail: json!({"terms": self.before}),
            at_ns: Some(at_ns),
        }))
    }

    async fn hold(&mut self, site: &Site, until: Instant) -> anyhow::Result<()> {
        let Some(node) = self.node else { return Ok(()) };
        let admin = site.cluster()?.admin_address(node).await?;
        while Instant::now() < until {
            if let Some(after) = terms(admin).await
                && self.before.keys().all(|shard| after.contains_key(shard))
            {
                self.after = after;
                break;
            }
            sleep_until(until.min(Instant::now() + LOOK)).await;
        }
        sleep_until(until).await;
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
        if self.dead {
            site.cluster()?.node(node).await?.start()?;
        }
        let forgot = forgotten(&self.before, &self.after);
        let finding = format!("broker {node} forgot elections that it knew of: {forgot}");
        Ok(Proof {
            active: !self.after.is_empty() && self.dropped > 0,
            finding: (!forgot.is_empty()).then_some(finding),
            detail: json!({
                "packets-dropped": self.dropped, "report": self.report,
                "before": self.before, "after": self.after,
            }),
            ..Proof::default()
        })
    }

    fn restarted(&self) -> Vec<u32> {
        self.node.into_iter().collect()
    }
}

/// Shards whose newest known election is older than before.
fn forgotten(before: &Terms, after: &Terms) -> String {
    let older = before.iter().filter_map(|(shard, known)| {
        let knows = after.get(shard)?;
        (knows < known).then(|| format!("shard {shard} term {known}, now {knows}"))
    });
    older.collect::<Vec<_>>().join("; ")
}

async fn terms(admin: SocketAddr) -> Option<Terms> {
    let text = metrics(admin).await.ok()?;
    let terms = parse(&text);
    (!terms.is_empty()).then_some(terms)
}

fn parse(metrics: &str) -> Terms {
    let lines = metrics
        .lines()
        .filter_map(|line| line.strip_prefix("highwater_shard_term{shard=\""));
    lines
        .filter_map(|rest| {
            let (shard, value) = rest.split_once("\"} ")?;
            Some((shard.parse().ok()?, value.trim().parse().ok()?))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_older_term_is_forgotten_and_a_newer_one_is_not() {
        let text = "# TYPE highwater_shard_term gauge\nhighwater_shard_term{shard=\"3\"} 7\n\
                    highwater_shard_term{shard=\"4\"} 2\nhighwater_shard_leading{shard=\"3\"} 1\n";
        let before = parse(text);
        assert_eq!(before, Terms::from([(3, 7), (4, 2)]));
        assert_eq!(forgotten(&before, &Terms::from([(3, 8), (4, 2)])), "");
        let forgot = forgotten(&before, &Terms::from([(3, 0), (4, 2)]));
        assert_eq!(forgot, "shard 3 term 7, now 0");
    }
}
