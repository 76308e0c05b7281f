//! A rolling restart: brokers are stopped in order and started again, one after the other, each
//! only when the one before has caught up.

use std::time::Duration;

use async_trait::async_trait;
use serde_json::json;
use tokio::time::{Instant, sleep_until};

use super::{Nemesis, Proof, Site, Started};

/// Between two looks whether a broker has caught up.
const LOOK: Duration = Duration::from_millis(50);

/// See the module.
pub(super) struct RollingRestart {
    pick: u64,
    order: Vec<u32>,
    /// (broker, old process id, new process id)
    restarted: Vec<(u32, u32, u32)>,
    /// Stopped and not started yet.
    down: Option<u32>,
}

impl RollingRestart {
    pub(super) const fn new(pick: u64) -> Self {
        Self {
            pick,
            order: Vec::new(),
            restarted: Vec::new(),
            down: None,
        }
    }

    async fn restart(&mut self, site: &Site, node: u32) -> anyhow::Result<()> {
        let mut broker = site.cluster()?.node(node).await?;
        self.down = Some(node);
        let old = broker.terminate().await?;
        let new = broker.start()?;
        self.down = None;
        self.restarted.push((node, old, new));
        Ok(())
    }
}

#[async_trait]
impl Nemesis for RollingRestart {
    async fn start(&mut self, site: &Site) -> anyhow::Result<Option<Started>> {
        self.order.clone_from(&site.nodes);
        let count = self.order.len().max(1) as u64;
        let first = usize::try_from(self.pick % count).unwrap_or(0);
        self.order.rotate_left(first);
        site.cluster()?;
        Ok(Some(Started {
            nodes: self.order.clone(),
            ..Started::default()
        }))
    }

    async fn hold(&mut self, site: &Site, until: Instant) -> anyhow::Result<()> {
        for node in self.order.clone() {
            if Instant::now() >= until {
                break;
            }
            self.restart(site, node).await?;
            while Instant::now() < until
                && site.cluster()?.node(node).await?.caught_up().await.is_err()
            {
                sleep_until(until.min(Instant::now() + LOOK)).await;
            }
        }
        Ok(())
    }

    async fn heal(&mut self, site: &Site) -> anyhow::Result<Proof> {
        if let Some(node) = self.down.take() {
            let mut broker = site.cluster()?.node(node).await?;
            broker.ended();
            if broker.pid().is_none() {
                broker.start()?;
            }
        }
        let again = |node: &u32| {
            let mut restarted = self.restarted.iter();
            restarted.any(|(other, old, new)| other == node && old != new)
        };
        let all = !self.order.is_empty() && self.order.iter().all(again);
        Ok(Proof {
            active: all,
            // Its time was over first, as a broker took long to catch up beside other faults.
            refused: !all,
            detail: json!({"restarted": self.restarted}),
            ..Proof::default()
        })
    }
}
