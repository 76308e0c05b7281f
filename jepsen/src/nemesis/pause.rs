//! A leader that stands still, as in a long garbage collection or on an overloaded machine, and
//! then goes on as if nothing had happened.

use async_trait::async_trait;
use serde_json::json;

use super::{Nemesis, Proof, Site, Started};

/// SIGSTOP, later SIGCONT.
pub(super) struct Pause {
    pick: u64,
    paused: Option<(u32, u32)>,
}

impl Pause {
    pub(super) const fn new(pick: u64) -> Self {
        Self { pick, paused: None }
    }
}

#[async_trait]
impl Nemesis for Pause {
    async fn start(&mut self, site: &Site) -> anyhow::Result<Option<Started>> {
        let Some((_, node)) = site.leader(self.pick) else {
            return Ok(None);
        };
        let pid = site.cluster()?.node(node).await?.pause().await?;
        self.paused = Some((node, pid));
        Ok(Some(Started {
            nodes: vec![node],
            detail: json!({"pid": pid}),
            at_ns: None,
        }))
    }

    async fn heal(&mut self, site: &Site) -> anyhow::Result<Proof> {
        let Some((node, pid)) = self.paused.take() else {
            return Ok(Proof::default());
        };
        let mut broker = site.cluster()?.node(node).await?;
        // The kernel showed it as stopped at the start, and still does: it was so all the time.
        let stopped = broker.is_stopped() && broker.pid() == Some(pid);
        broker.resume()?;
        Ok(Proof {
            active: stopped,
            detail: json!({"pid": pid, "stopped-until-resumed": stopped}),
            ..Proof::default()
        })
    }
}
