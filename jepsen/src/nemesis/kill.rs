//! `kill -9`: of one broker, of a majority, of all, and again and again.

use std::time::Duration;

use async_trait::async_trait;
use serde_json::json;
use tokio::time::{Instant, sleep_until};

use super::{Nemesis, Proof, Site, Started};
use crate::schedule::Kind;

/// How long a group may take to say who coordinates it.
const ASKING: Duration = Duration::from_secs(2);

/// Some brokers die at once and stay dead.
pub(super) struct Kill {
    kind: Kind,
    pick: u64,
    /// (broker, process id that was killed)
    killed: Vec<(u32, u32)>,
    restarted: Vec<u32>,
}

impl Kill {
    pub(super) const fn new(kind: Kind, pick: u64) -> Self {
        Self {
            kind,
            pick,
            killed: Vec::new(),
            restarted: Vec::new(),
        }
    }

    async fn targets(&self, site: &Site) -> Vec<u32> {
        match self.kind {
            Kind::KillCoordinator => coordinator(site, self.pick).await.into_iter().collect(),
            Kind::KillLeader => site
                .leader(self.pick)
                .map(|(_, leader)| leader)
                .into_iter()
                .collect(),
            Kind::KillFollower => {
                let least = |node: &&u32| site.leaders.led_by(**node).len();
                site.nodes
                    .iter()
                    .min_by_key(least)
                    .copied()
                    .into_iter()
                    .collect()
            }
            Kind::KillMajority => site.majority(self.pick),
            _ => site.nodes.clone(),
        }
    }
}

#[async_trait]
impl Nemesis for Kill {
    async fn start(&mut self, site: &Site) -> anyhow::Result<Option<Started>> {
        let targets = self.targets(site).await;
        if targets.is_empty() {
            return Ok(None);
        }
        let cluster = site.cluster()?;
        for node in &targets {
            let pid = cluster.node(*node).await?.kill().await?;
            self.killed.push((*node, pid));
        }
        // Before, it could still have answered what was sent since.
        let at_ns = site.recorder.now_ns();
        Ok(Some(Started {
            detail: json!({"killed-pids": self.killed}),
            nodes: targets,
            at_ns: Some(at_ns),
        }))
    }

    async fn heal(&mut self, site: &Site) -> anyhow::Result<Proof> {
        let mut new = Vec::new();
        for (node, _) in &self.killed {
            let pid = site.cluster()?.node(*node).await?.start()?;
            new.push((*node, pid));
            self.restarted.push(*node);
        }
        let changed = self
            .killed
            .iter()
            .zip(&new)
            .all(|(old, new)| old.1 != new.1);
        Ok(Proof {
            active: changed && !new.is_empty(),
            detail: json!({"killed-pids": self.killed, "new-pids": new}),
            ..Proof::default()
        })
    }

    fn restarted(&self) -> Vec<u32> {
        self.restarted.clone()
    }
}

/// Who coordinates one of the groups, by chance; nobody when the group does not answer in time.
async fn coordinator(site: &Site, pick: u64) -> Option<u32> {
    let count = site.groups.len() as u64;
    let at = usize::try_from(pick.checked_rem(count)?).ok()?;
    let groups = site.client.groups().timeout(ASKING);
    let described = groups.describe(site.groups.get(at)?).await.ok()?;
    let coordinator = described.summary?.coordinator;
    site.nodes.contains(&coordinator).then_some(coordinator)
}

/// One broker dies as soon as it is back.
pub(super) struct CrashLoop {
    pick: u64,
    node: Option<u32>,
    pids: Vec<u32>,
}

impl CrashLoop {
    pub(super) const fn new(pick: u64) -> Self {
        Self {
            pick,
            node: None,
            pids: Vec::new(),
        }
    }
}

#[async_trait]
impl Nemesis for CrashLoop {
    async fn start(&mut self, site: &Site) -> anyhow::Result<Option<Started>> {
        let Some((_, node)) = site.leader(self.pick) else {
            return Ok(None);
        };
        self.node = Some(node);
        let pid = site.cluster()?.node(node).await?.kill().await?;
        self.pids.push(pid);
        Ok(Some(Started {
            nodes: vec![node],
            ..Started::default()
        }))
    }

    async fn hold(&mut self, site: &Site, until: Instant) -> anyhow::Result<()> {
        let Some(node) = self.node else { return Ok(()) };
        let mut life = Duration::from_millis(100 + self.pick % 300);
        while Instant::now() < until {
            site.cluster()?.node(node).await?.start()?;
            sleep_until(until.min(Instant::now() + life)).await;
            let pid = site.cluster()?.node(node).await?.kill().await?;
            self.pids.push(pid);
            // From the middle of its start to some time after it is back.
            life = (life * 3 / 2).min(Duration::from_secs(3));
        }
        Ok(())
    }

    async fn heal(&mut self, site: &Site) -> anyhow::Result<Proof> {
        let Some(node) = self.node else {
            return Ok(Proof::default());
        };
        let mut broker = site.cluster()?.node(node).await?;
        // Interrupted, it may be left in either state.
        if broker.pid().is_none() {
            broker.start()?;
        }
        Ok(Proof {
            active: self.pids.len() > 1,
            detail: json!({"killed-pids": self.pids, "new-pid": broker.pid()}),
            ..Proof::default()
        })
    }

    fn restarted(&self) -> Vec<u32> {
        self.node.into_iter().collect()
    }
}
