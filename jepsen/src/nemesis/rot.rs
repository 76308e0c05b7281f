//! Bits that flip under a broker that runs, which must find and mend them: at the end of a run everything
//! stored is read again before what is bad is counted.

use async_trait::async_trait;
use highwater_powerfs::{Flipped, Place};
use serde_json::json;

use super::{Nemesis, Proof, Site, Started};

/// Files of a broker that runs, and where in them. What is cached or was not checkpointed may heal
/// without being noticed; the rest must be mended from others.
const LIVE: [(&str, Place); 4] = [
    ("data/partitions/*.log", Place::Tail),
    ("data/partitions/*.log", Place::Middle),
    ("data/partitions/*", Place::Anywhere),
    ("data/partitions/*.log", Place::Head),
];

/// Bits of segments, up to three at once.
pub(super) struct BitFlip {
    pick: u64,
    flipped: Vec<Flipped>,
}

impl BitFlip {
    pub(super) const fn new(pick: u64) -> Self {
        Self {
            pick,
            flipped: Vec::new(),
        }
    }
}

#[async_trait]
impl Nemesis for BitFlip {
    async fn start(&mut self, site: &Site) -> anyhow::Result<Option<Started>> {
        let cluster = site.cluster()?;
        let at_ns = site.recorder.now_ns();
        for number in 0..1 + self.pick % 3 {
            let seed = self.pick.wrapping_add(number);
            let (pattern, place) = LIVE[usize::try_from(seed % 4).unwrap_or(0)];
            let disk = cluster.disk(site.rots).await?;
            self.flipped.push(disk.rot(pattern, place, seed).await?);
        }
        Ok(Some(Started {
            nodes: vec![site.rots],
            detail: json!({"flipped": self.flipped}),
            at_ns: Some(at_ns),
        }))
    }

    /// Nothing is undone: mending is the broker's own.
    async fn heal(&mut self, _site: &Site) -> anyhow::Result<Proof> {
        Ok(Proof {
            active: !self.flipped.is_empty(),
            detail: json!({"flipped": self.flipped}),
            ..Proof::default()
        })
    }
}
