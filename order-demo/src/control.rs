//! Power over the broker processes. Whoever owns them implements it.

use async_trait::async_trait;

/// Starts, kills and restarts brokers.
#[async_trait]
pub trait ClusterControl: Send + Sync + 'static {
    /// Starts all brokers and returns when the cluster can be used: for each its number and the
    /// address of its client door, `host:port`.
    async fn start(&self) -> anyhow::Result<Vec<(u32, String)>>;

    /// Kills a broker without warning (SIGKILL) and returns when its process is gone.
    async fn kill(&self, broker: u32) -> anyhow::Result<()>;

    /// Starts a killed broker again on its old data and returns when it answers.
    async fn restart(&self, broker: u32) -> anyhow::Result<()>;

    /// Returns when a broker's copies hold everything that is committed.
    async fn caught_up(&self, broker: u32) -> anyhow::Result<()>;

    /// The processes of the brokers that run, by broker.
    async fn pids(&self) -> Vec<(u32, u32)>;
}
