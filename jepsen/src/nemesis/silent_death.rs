//! A leader's process dies and nobody is told: no connection ends, none is refused, as when its machine is
//! gone. It comes back while others still wait for the answers of the dead one.

use async_trait::async_trait;
use serde_json::json;

use super::{Nemesis, Proof, Site, Started};
use crate::schedule::Planned;

/// See the module.
pub(super) struct SilentDeath {
    pick: u64,
    table: String,
    node: Option<u32>,
    old: Option<u32>,
    new: Option<u32>,
}

impl SilentDeath {
    pub(super) fn new(planned: &Planned) -> Self {
        Self {
            pick: planned.pick,
            table: format!("fault{}", planned.number),
            node: None,
            old: None,
            new: None,
        }
    }
}

#[async_trait]
impl Nemesis for SilentDeath {
    async fn start(&mut self, site: &Site) -> anyhow::Result<Option<Started>> {
        let Some((_, node)) = site.leader(self.pick) else {
            return Ok(None);
        };
        let cluster = site.cluster()?;
        cluster
            .network()?
            .keep_deaths_secret(&self.table, node)
            .await?;
        self.node = Some(node);
        self.old = Some(cluster.node(node).await?.kill().await?);
        // Before, it could still have answered what was sent since.
        let at_ns = site.recorder.now_ns();
        Ok(Some(Started {
            nodes: vec![node],
            detail: json!({"killed-pid": self.old}),
            at_ns: Some(at_ns),
        }))
    }

    async fn heal(&mut self, site: &Site) -> anyhow::Result<Proof> {
        let Some(node) = self.node else {
            return Ok(Proof::default());
        };
        let cluster = site.cluster()?;
        if self.old.is_some() {
            self.new = Some(cluster.node(node).await?.start()?);
        }
        let dropped = cluster.network()?.end_rules(&self.table, node).await?;
        Ok(Proof {
            active: dropped > 0 && self.old != self.new,
            detail: json!({
                "killed-pid": self.old, "new-pid": self.new, "ends-kept-secret": dropped,
            }),
            ..Proof::default()
        })
    }

    fn restarted(&self) -> Vec<u32> {
        self.node
            .filter(|_| self.new.is_some())
            .into_iter()
            .collect()
    }
}
