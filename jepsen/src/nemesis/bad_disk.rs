//! A leader's disk that is full, slow, or stands still: its process lives, and must live with it.

use async_trait::async_trait;
use highwater_powerfs::{Fault, FaultKind, FaultStatus};
use serde_json::json;

use super::{Nemesis, Proof, Site, Started};
use crate::schedule::Kind;

/// One of these, until it is over.
pub(super) struct BadDisk {
    kind: Kind,
    pick: u64,
    node: Option<u32>,
}

impl BadDisk {
    pub(super) const fn new(kind: Kind, pick: u64) -> Self {
        Self {
            kind,
            pick,
            node: None,
        }
    }

    /// Half of the full disks say how full they are, the others refuse although there seems to be
    /// room, as a quota does.
    const fn fault(&self) -> FaultKind {
        match self.kind {
            Kind::SlowFsync => FaultKind::SlowSync {
                millis: 50 + self.pick % 450,
            },
            Kind::StalledFsync => FaultKind::SlowSync {
                millis: 1_000 + self.pick % 29_000,
            },
            _ if self.pick.is_multiple_of(2) => FaultKind::DiskFull,
            _ => FaultKind::NoSpace,
        }
    }
}

#[async_trait]
impl Nemesis for BadDisk {
    async fn start(&mut self, site: &Site) -> anyhow::Result<Option<Started>> {
        let Some((_, node)) = site.leader(self.pick) else {
            return Ok(None);
        };
        self.node = Some(node);
        let kind = self.fault();
        let fault = Fault {
            pattern: "data*".to_owned(),
            kind,
            times: None,
        };
        site.cluster()?.disk(node).await?.add_fault(fault).await?;
        Ok(Some(Started {
            nodes: vec![node],
            detail: json!({"fault": kind}),
            at_ns: None,
        }))
    }

    async fn heal(&mut self, site: &Site) -> anyhow::Result<Proof> {
        let Some(node) = self.node else {
            return Ok(Proof::default());
        };
        let cleared = site.cluster()?.disk(node).await?.clear_faults().await?;
        let struck = struck(&cleared);
        Ok(Proof {
            active: struck > 0,
            detail: json!({"fault": self.fault(), "struck": struck}),
            ..Proof::default()
        })
    }
}

/// How often faults struck.
pub(super) fn struck(faults: &[FaultStatus]) -> u64 {
    faults.iter().map(|fault| fault.struck).sum()
}
