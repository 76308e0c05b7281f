//! How long a cluster was whole without a break: what it must manage then excuses no fault that did not
//! take place.

use std::time::Duration;

use tokio::time::Instant;

use super::Site;

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

    /// The longest time without a break.
    pub(super) const fn longest(&self) -> Duration {
        self.longest
    }
}
