//! Power over the broker processes. Whoever owns them implements it.

use std::future::Future;

/// Starts, kills and restarts brokers.
pub trait ClusterControl: Send + Sync + 'static {
    /// Starts all brokers and returns when the cluster can be used: for each its number and the
    /// address of its client door, `host:port`.
    fn start(&self) -> impl Future<Output = anyhow::Result<Vec<(u32, String)>>> + Send;

    /// Kills a broker without warning (SIGKILL) and returns when its process is gone.
    fn kill(&self, broker: u32) -> impl Future<Output = anyhow::Result<()>> + Send;

    /// Starts a killed broker again on its old data and returns when it answers.
    fn restart(&self, broker: u32) -> impl Future<Output = anyhow::Result<()>> + Send;

    /// Returns when a broker's copies hold everything that is committed.
    fn caught_up(&self, broker: u32) -> impl Future<Output = anyhow::Result<()>> + Send;
}
