//! Power fails while a group of the log is on its way to the disk: of its sectors some are new and
//! some are old.

use std::time::Duration;

use async_trait::async_trait;
use highwater_powerfs::{Fault, FaultKind, Loss, LossReport};
use serde_json::json;
use tokio::time::{Instant, sleep};

use super::{Nemesis, Proof, Site, Started};

/// How long the sync takes that is to be torn: longer than it takes to notice it.
const SYNC: FaultKind = FaultKind::SlowSync { millis: 5_000 };
/// Between two looks whether a sync is under way, and for how long.
const LOOK: Duration = Duration::from_millis(5);
const PATIENCE: Duration = Duration::from_secs(3);

/// See the module.
pub(super) struct TornSectors {
    pick: u64,
    node: Option<u32>,
    dead: bool,
    caught: bool,
    report: Option<LossReport>,
}

impl TornSectors {
    pub(super) const fn new(pick: u64) -> Self {
        Self {
            pick,
            node: None,
            dead: false,
            caught: false,
            report: None,
        }
    }
}

#[async_trait]
impl Nemesis for TornSectors {
    async fn start(&mut self, site: &Site) -> anyhow::Result<Option<Started>> {
        let Some((_, node)) = site.leader(self.pick) else {
            return Ok(None);
        };
        let cluster = site.cluster()?;
        self.node = Some(node);
        let fault = Fault {
            pattern: "data/wal/*".to_owned(),
            kind: SYNC,
            times: None,
        };
        cluster.disk(node).await?.add_fault(fault).await?;
        let given_up = Instant::now() + PATIENCE;
        while !self.caught && Instant::now() < given_up {
            let stats = cluster.disk(node).await?.stats().await?;
            self.caught = stats.faults.iter().any(|fault| fault.struck > 0);
            sleep(LOOK).await;
        }
        let at_ns = site.recorder.now_ns();
        self.dead = true;
        let loss = Loss::Torn { seed: self.pick };
        self.report = Some(cluster.tear(node, loss).await?);
        cluster.disk(node).await?.clear_faults().await?;
        Ok(Some(Started {
            nodes: vec![node],
            detail: json!({"report": self.report}),
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
        let torn = |report: &LossReport| report.was_active() || report.survived_bytes > 0;
        Ok(Proof {
            active: self.report.as_ref().is_some_and(torn),
            detail: json!({"amid-a-sync": self.caught, "report": self.report}),
            ..Proof::default()
        })
    }

    fn restarted(&self) -> Vec<u32> {
        self.node.filter(|_| self.dead).into_iter().collect()
    }
}
