//! What the admin server asks of the broker.

use serde::Serialize;

/// How one check stands, worst last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum CheckState {
    /// As it should be.
    Ok,
    /// Works, but someone should look.
    Warning,
    /// Does not work.
    Failed,
}

/// The name of the check that is not ok while replicas on this broker lack committed records.
pub const REPLICATION_CHECK: &str = "replication";

/// One named check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    /// A short stable name, for scripts.
    pub name: &'static str,
    /// How it stands.
    pub state: CheckState,
    /// What was found, and what to do when it is not as it should be.
    pub sentence: String,
}

impl Check {
    /// A check with its outcome.
    #[must_use]
    pub fn new(name: &'static str, state: CheckState, sentence: impl Into<String>) -> Self {
        Self {
            name,
            state,
            sentence: sentence.into(),
        }
    }
}

/// The broker's view of itself. Answers must be immediate: they are asked for on every probe.
pub trait Health: Send + Sync + 'static {
    /// Whether the process makes progress; a supervisor restarts it otherwise.
    fn live(&self) -> bool;

    /// Whether clients can be served; a load balancer passes it over otherwise.
    fn ready(&self) -> bool;

    /// Every check, in an order that does not change.
    fn checks(&self) -> Vec<Check>;

    /// Metrics that are read off the broker when they are asked for, in Prometheus' text format.
    fn exposition(&self) -> String {
        String::new()
    }
}
