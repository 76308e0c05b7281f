//! Power fails while a group of the log is on its way to the disk: of its sectors some are new and
//! some are old.

use std::time::Duration;

use async_trait::async_trait;
use highwater_powerfs::{Fault, FaultKind, Loss, LossReport};
use serde_json::json;
use tokio::time::{Instant, sleep};

use super::bad_disk::struck;
use super::{Nemesis, Proof, Site, Started};

/// How long the sync takes that is to be torn: longer than it takes to notice it.
const SYNC: FaultKind = FaultKind::SlowSync { millis: 5_000 };
/// Between two looks whether a sync is under way, and for how long.
const LOOK: Duration = Duration::from_millis(5);
const PATIENCE: Duration = Duration::from_secs(3);
/// Chance may have it that all sectors are new, or all old: how often it is tried.
const TRIES: usize = 3;

/// See the module.
pub(super) struct TornSectors {
    pick: u64,
    node: Option<u32>,
    dead: bool,
    reports: Vec<LossReport>,
}

impl TornSectors {
    pub(super) const fn new(pick: u64) -> Self {
        Self {
            pick,
            node: None,
            dead: false,
            reports: Vec::new(),
        }
    }

    /// Waits until a sync of the log is under way, and takes the power then; whether there was one.
    async fn tear(&mut self, site: &Site, node: u32) -> anyhow::Result<bool> {
        let cluster = site.cluster()?;
        let fault = Fault {
            pattern: "data/wal/*".to_owned(),
            kind: SYNC,
            times: None,
        };
        cluster.disk(node).await?.add_fault(fault).await?;
        let given_up = Instant::now() + PATIENCE;
        while struck(&cluster.disk(node).await?.stats().await?.faults) == 0 {
            if Instant::now() > given_up {
                cluster.disk(node).await?.clear_faults().await?;
                return Ok(false);
            }
            sleep(LOOK).await;
        }
        self.dead = true;
        let seed = self.pick.wrapping_add(self.reports.len() as u64);
        self.reports
            .push(cluster.tear(node, Loss::Torn { seed }).await?);
        cluster.disk(node).await?.clear_faults().await?;
        Ok(true)
    }

    fn is_torn(&self) -> bool {
        self.reports.last().is_some_and(is_torn)
    }
}

/// Some sectors are new and some are old.
const fn is_torn(report: &LossReport) -> bool {
    report.discarded_bytes > 0 && report.survived_bytes > 0
}

#[async_trait]
impl Nemesis for TornSectors {
    async fn start(&mut self, site: &Site) -> anyhow::Result<Option<Started>> {
        let Some((_, node)) = site.leader(self.pick) else {
            return Ok(None);
        };
        self.node = Some(node);
        for attempt in 0..TRIES {
            if attempt > 0 {
                site.cluster()?.node(node).await?.start()?;
                self.dead = false;
            }
            if !self.tear(site, node).await? {
                break;
            }
            if self.is_torn() {
                break;
            }
        }
        let at_ns = site.recorder.now_ns();
        Ok(self.dead.then(|| Started {
            nodes: vec![node],
            detail: json!({"reports": self.reports}),
            at_ns: Some(at_ns),
        }))
    }

    async fn heal(&mut self, site: &Site) -> anyhow::Result<Proof> {
        let Some(node) = self.node else {
            return Ok(Proof::default());
        };
        let cluster = site.cluster()?;
        // Again, after a start that failed half-way.
        cluster.disk(node).await?.clear_faults().await?;
        let mut broker = cluster.node(node).await?;
        if broker.pid().is_none() {
            broker.start()?;
        }
        let torn = self.is_torn();
        Ok(Proof {
            active: torn,
            // It lost power, whole or not at all, which is another fault; or nothing was synced.
            refused: !torn,
            detail: json!({"reports": self.reports}),
            ..Proof::default()
        })
    }

    fn restarted(&self) -> Vec<u32> {
        self.node.filter(|_| self.dead).into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wholly_old_or_wholly_new_is_not_torn() {
        let report = |discarded_bytes, survived_bytes| LossReport {
            discarded_bytes,
            survived_bytes,
            ..LossReport::default()
        };
        assert!(is_torn(&report(512, 512)));
        assert!(!is_torn(&report(4_096, 0)) && !is_torn(&report(0, 4_096)));
    }
}
