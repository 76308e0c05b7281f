//! Leaders moved about by hand, faster than anything settles. Needs no power over the machines.

use std::time::Duration;

use async_trait::async_trait;
use highwater_client::{NodeId, ShardId};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use serde_json::json;
use tokio::time::{Instant, sleep_until};

use super::whole::Whole;
use super::{Nemesis, Proof, Site, Started};

/// Bound of one transfer.
const TRANSFER: Duration = Duration::from_secs(3);

/// A whole cluster moves one of many leaders within this time.
const MOVED_AFTER: Duration = Duration::from_secs(4);

/// A storm of transfers.
pub(super) struct TransferLeaders {
    random: StdRng,
    asked: u32,
    moved: u32,
    whole: Whole,
}

impl TransferLeaders {
    pub(super) fn new(pick: u64) -> Self {
        Self {
            random: StdRng::seed_from_u64(pick),
            asked: 0,
            moved: 0,
            whole: Whole::default(),
        }
    }
}

#[async_trait]
impl Nemesis for TransferLeaders {
    async fn start(&mut self, site: &Site) -> anyhow::Result<Option<Started>> {
        let any = (0..site.partitions).any(|partition| site.leaders.of(partition).is_some());
        Ok((any && site.nodes.len() > 1).then(Started::default))
    }

    async fn hold(&mut self, site: &Site, until: Instant) -> anyhow::Result<()> {
        let admin = site.client.admin().timeout(TRANSFER);
        while Instant::now() < until {
            let partition = self.random.random_range(0..site.partitions);
            let to = self.random.random_range(0..site.nodes.len());
            let pause = Duration::from_millis(self.random.random_range(20..400));
            if let (Some(shard), Some(to)) = (site.leaders.shard(partition), site.nodes.get(to)) {
                self.asked += 1;
                // A broker that is down or cut off cannot take over: such a refusal is no trouble.
                let moved = admin.transfer_leader(ShardId(shard), NodeId(*to)).await;
                self.moved += u32::from(moved.is_ok());
                if self.moved == 0 {
                    self.whole.look(site).await?;
                }
            }
            sleep_until(until.min(Instant::now() + pause)).await;
        }
        Ok(())
    }

    async fn heal(&mut self, _site: &Site) -> anyhow::Result<Proof> {
        let moved = self.moved > 0;
        let nothing = format!("none of {} transfers succeeded", self.asked);
        let detail = json!({"asked": self.asked, "moved": self.moved});
        Ok(self
            .whole
            .proof((moved, !moved), MOVED_AFTER, &nothing, detail))
    }
}
