//! A sync that fails once: the broker must end at once, and must not rest on what the sync was for.

use std::time::Duration;

use async_trait::async_trait;
use highwater_powerfs::{Fault, FaultKind, Loss, LossReport};
use serde_json::json;
use tokio::time::{Instant, sleep, sleep_until};

use super::bad_disk::struck;
use super::{Nemesis, Proof, Site, Started};

/// Between two looks at the broker.
const LOOK: Duration = Duration::from_millis(20);

/// How long a process may take from the failed sync to its end.
const END: Duration = Duration::from_secs(5);

/// What fails, the log oftener than the rest: it is what acknowledgements rest on.
const PATTERNS: [&str; 4] = ["data/wal*", "data/wal*", "data/partitions*", "data*"];

/// EIO, once.
pub(super) struct FsyncError {
    pick: u64,
    node: Option<u32>,
    ended: bool,
    report: Option<LossReport>,
}

impl FsyncError {
    pub(super) const fn new(pick: u64) -> Self {
        Self {
            pick,
            node: None,
            ended: false,
            report: None,
        }
    }

    fn pattern(&self) -> &'static str {
        PATTERNS[usize::try_from(self.pick % 4).unwrap_or(0)]
    }

    /// Whether its process is gone, which the harness was told to expect.
    async fn has_ended(&mut self, site: &Site, node: u32) -> anyhow::Result<bool> {
        let mut broker = site.cluster()?.node(node).await?;
        broker.ended();
        self.ended = broker.pid().is_none();
        Ok(self.ended)
    }
}

#[async_trait]
impl Nemesis for FsyncError {
    async fn start(&mut self, site: &Site) -> anyhow::Result<Option<Started>> {
        let Some((_, node)) = site.leader(self.pick) else {
            return Ok(None);
        };
        let cluster = site.cluster()?;
        cluster.node(node).await?.expect_end(true);
        self.node = Some(node);
        let fault = Fault {
            pattern: self.pattern().to_owned(),
            kind: FaultKind::SyncError,
            times: Some(1),
        };
        cluster.disk(node).await?.add_fault(fault).await?;
        Ok(Some(Started {
            nodes: vec![node],
            detail: json!({"pattern": self.pattern()}),
            at_ns: None,
        }))
    }

    async fn hold(&mut self, site: &Site, until: Instant) -> anyhow::Result<()> {
        let Some(node) = self.node else { return Ok(()) };
        while Instant::now() < until && !self.has_ended(site, node).await? {
            sleep_until(until.min(Instant::now() + LOOK)).await;
        }
        // Half of them lose power too: what the page cache still shows was never written.
        if self.ended && (self.pick >> 8).is_multiple_of(2) {
            let report = site.cluster()?.lose_power(node, Loss::Everything).await?;
            self.report = Some(report);
        }
        sleep_until(until).await;
        Ok(())
    }

    async fn heal(&mut self, site: &Site) -> anyhow::Result<Proof> {
        let Some(node) = self.node else {
            return Ok(Proof::default());
        };
        let cluster = site.cluster()?;
        let struck = struck(&cluster.disk(node).await?.clear_faults().await?);
        let given_up = Instant::now() + END;
        while struck > 0 && !self.has_ended(site, node).await? && Instant::now() < given_up {
            sleep(LOOK).await;
        }
        let mut broker = cluster.node(node).await?;
        let went_on = struck > 0 && !self.ended;
        broker.expect_end(false);
        if broker.pid().is_none() {
            broker.start()?;
        }
        let finding = format!("broker {node} went on after a sync had failed");
        Ok(Proof {
            active: struck > 0,
            // Nothing was synced there in all that time.
            refused: struck == 0,
            finding: went_on.then_some(finding),
            detail: json!({
                "pattern": self.pattern(), "struck": struck, "ended": self.ended,
                "report": self.report,
            }),
        })
    }

    fn restarted(&self) -> Vec<u32> {
        self.node.filter(|_| self.ended).into_iter().collect()
    }
}
