//! How long a cluster was whole without a break: what it must manage then excuses no fault that did not
//! take place.

use std::time::Duration;

use serde_json::{Value as Json, json};
use tokio::time::Instant;

use super::{Proof, Site};

/// Watches; [`Whole::look`] is to be called again and again.
#[derive(Debug, Default)]
pub(super) struct Whole {
    since: Option<Instant>,
    longest: Duration,
}

impl Whole {
    /// Looks once. A cluster of somebody else's is never known to be whole.
    pub(super) async fn look(&mut self, site: &Site) -> anyhow::Result<()> {
        let Some(cluster) = &site.cluster else {
            return Ok(());
        };
        let began = Instant::now();
        if cluster.is_whole().await? {
            let since = *self.since.get_or_insert(began);
            self.longest = self.longest.max(began - since);
        } else {
            self.since = None;
        }
        Ok(())
    }

    /// The proof of a fault that is made of requests to the cluster. `active`: some were granted; `idle`: none
    /// came to an end. Nothing at all although the cluster was whole for as long as one may take is a finding,
    /// in words `nothing`; otherwise other faults were stronger.
    pub(super) fn proof(
        &self,
        (active, idle): (bool, bool),
        may_take: Duration,
        nothing: &str,
        mut detail: Json,
    ) -> Proof {
        let whole = self.longest.as_secs_f64();
        let stuck = idle && self.longest >= may_take;
        detail["whole-s"] = json!(whole);
        let finding = format!("{nothing} in {whole:.1} s in which the cluster was whole");
        Proof {
            active,
            refused: !active && !stuck,
            finding: stuck.then_some(finding),
            detail,
        }
    }

    /// The longest time without a break.
    pub(super) const fn longest(&self) -> Duration {
        self.longest
    }
}
