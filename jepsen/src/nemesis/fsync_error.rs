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

/// How long a process may take from the failed sync to its end. It has to do nothing for it; a busy machine does.
const END: Duration = Duration::from_secs(5);

/// What fails, the log oftener than the rest: it is what acknowledgements rest on.
const PATTERNS: [&str; 4] = ["data/wal*", "data/wal*", "data/partitions*", "data*"];

/// EIO, once.
pub(super) struct FsyncError {
    pick: u64,
    node: Option<u32>,
    /// When the sync was seen to have failed.
    struck: Option<Instant>,
    ended: bool,
    /// From then until its process was gone.
    took: Option<Duration>,
    report: Option<LossReport>,
}

impl FsyncError {
    pub(super) const fn new(pick: u64) -> Self {
        Self {
            pick,
            node: None,
            struck: None,
            ended: false,
            took: None,
            report: None,
        }
    }

    fn pattern(&self) -> &'static str {
        PATTERNS[usize::try_from(self.pick % 4).unwrap_or(0)]
    }

    /// Whether its process is gone, which the harness was told to expect, or has gone on for too long since.
    async fn is_over(&mut self, site: &Site, node: u32) -> anyhow::Result<bool> {
        let cluster = site.cluster()?;
        if self.struck.is_none() {
            let stats = cluster.disk(node).await?.stats().await?;
            self.struck = (struck(&stats.faults) > 0).then(Instant::now);
        }
        let mut broker = cluster.node(node).await?;
        broker.ended();
        if broker.pid().is_none() && !self.ended {
            self.ended = true;
            self.took = self.struck.map(|struck| struck.elapsed());
        }
        Ok(self.ended || self.struck.is_some_and(|struck| struck.elapsed() > END))
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
        while Instant::now() < until && !self.is_over(site, node).await? {
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
        // It may have struck a moment ago: the time for its end is then not over yet.
        self.is_over(site, node).await?;
        let times = struck(&cluster.disk(node).await?.clear_faults().await?);
        if times > 0 && self.struck.is_none() {
            self.struck = Some(Instant::now());
        }
        while times > 0 && !self.is_over(site, node).await? {
            sleep(LOOK).await;
        }
        let mut broker = cluster.node(node).await?;
        let late = self.took.is_some_and(|took| took > END);
        let went_on = times > 0 && (late || !self.ended);
        broker.expect_end(false);
        if broker.pid().is_none() {
            broker.start()?;
        }
        let seconds = END.as_secs();
        let finding = format!(
            "broker {node} went on after a sync had failed: it had not ended within {seconds} s"
        );
        Ok(Proof {
            active: times > 0,
            // Nothing was synced there in all that time.
            refused: times == 0,
            finding: went_on.then_some(finding),
            detail: json!({
                "pattern": self.pattern(), "struck": times, "ended": self.ended,
                "ended-after-s": self.took.map(|took| took.as_secs_f64()), "report": self.report,
            }),
        })
    }

    fn restarted(&self) -> Vec<u32> {
        self.node.filter(|_| self.ended).into_iter().collect()
    }
}
