//! Settings of the groups, and what the broker around them provides.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use highwater_mutant::mutant;
use highwater_proto::NodeId;
use openraft::{Config, SnapshotPolicy};

use crate::error::StartError;

/// How fast failures are noticed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timings {
    /// Between two heartbeats of a leader.
    pub heartbeat: Duration,
    /// The shortest silence after which a follower stands for election.
    pub election_min: Duration,
    /// The longest such silence; also how long a leader's lease lasts.
    pub election_max: Duration,
    /// A peer that has not answered one of several appends for this long is given up (the appends
    /// are sent again). Must leave room for a slow disk's sync.
    pub append_deadline: Duration,
    /// A replica must have installed a checkpoint within this time.
    pub install_deadline: Duration,
}

impl Default for Timings {
    fn default() -> Self {
        Self {
            heartbeat: Duration::from_millis(100),
            election_min: Duration::from_millis(300),
            election_max: Duration::from_millis(450),
            append_deadline: Duration::from_secs(5),
            install_deadline: Duration::from_secs(600),
        }
    }
}

/// Who calls, as a lane's metadata says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Caller {
    /// The cluster's id; empty while there is none yet.
    pub cluster: String,
    /// The broker.
    pub node: NodeId,
    /// Which life of its data directory.
    pub incarnation: String,
}

/// Says who this broker is; asked each time a lane is opened, because the cluster's id may not be
/// known at start.
pub type Identity = Arc<dyn Fn() -> Caller + Send + Sync>;

/// Decides whether a caller may talk to this broker's groups; an error's text is sent back.
pub type Admission = Arc<dyn Fn(&Caller) -> Result<(), String> + Send + Sync>;

/// Where the other brokers are.
pub trait Peers: Send + Sync + 'static {
    /// `host:port` of a broker's internal door, if it is known. Must not block.
    fn address(&self, node: NodeId) -> Option<String>;
    /// What a broker's wall clock shows, ms since the Unix epoch, as it said when a lane to it was opened. So
    /// who is elected has heard the clocks of those who voted. Must not block.
    fn heard_clock(&self, _node: NodeId, _wall_ms: i64) {}
    /// Whether a data directory was given up for good: nothing that it says, or asks, counts any more, also over a
    /// lane that was opened before. Asked for each message. Must not block.
    fn is_retired(&self, _incarnation: &str) -> bool {
        false
    }
}

/// This broker's wall clock, ms since the Unix epoch.
pub(crate) type WallClock = Arc<dyn Fn() -> i64 + Send + Sync>;

/// Settings of all groups of a broker.
#[derive(Clone)]
pub struct GroupsConfig {
    /// This broker.
    pub node_id: NodeId,
    /// Who this broker says it is.
    pub identity: Identity,
    /// Whom it talks to.
    pub admission: Admission,
    /// Timings, the same on all brokers.
    pub timings: Timings,
    /// Bytes of recent entries kept in memory for all groups together. Entries that are not yet
    /// durable are kept beyond it.
    pub cache_bytes: usize,
}

impl fmt::Debug for GroupsConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GroupsConfig")
            .field("node_id", &self.node_id)
            .field("timings", &self.timings)
            .field("cache_bytes", &self.cache_bytes)
            .finish_non_exhaustive()
    }
}

/// Entries in one append; its bytes are capped by the store.
const MAX_APPEND_ENTRIES: u64 = 512;
/// Messages waiting for one group's core.
const API_CHANNEL: u64 = 4096;

impl Timings {
    /// openraft's settings for these timings.
    pub(crate) fn to_openraft(self) -> Result<Config, StartError> {
        let ms = |d: Duration| u64::try_from(d.as_millis()).unwrap_or(u64::MAX);
        let (heartbeat, least, most) = (
            ms(self.heartbeat),
            ms(self.election_min),
            ms(self.election_max),
        );
        // openraft's own clock sends no heartbeats (see `beat.rs`); from this follows how often it
        // looks at the election timeout, and for how long it waits for the answer to a heartbeat.
        let clock = (least * 2 / 3).max(1);
        let tick = (clock * 13 / 64).max(1);
        // Whom an append has reached in this time needs no heartbeat.
        let reached = (heartbeat / 2).min(least.saturating_sub(clock + tick + 1));
        let config = Config {
            cluster_name: "highwater".to_owned(),
            heartbeat_interval: clock,
            enable_heartbeat: false,
            heartbeat_min_interval: Some(reached),
            election_timeout_min: least,
            election_timeout_max: most,
            install_snapshot_timeout: ms(self.install_deadline),
            max_payload_entries: MAX_APPEND_ENTRIES,
            api_channel_size: Some(API_CHANNEL),
            snapshot_policy: SnapshotPolicy::Never,
            // Only `Group::purge` purges.
            max_in_snapshot_log_to_keep: u64::MAX,
            purge_batch_size: 1,
            backoff: "50ms 100ms ...400ms".to_owned(),
            enable_pre_vote: Some(true),
            // A leader without a majority falls silent by `liveness.rs`, which knows more of who answers.
            quorum_loss_probe_interval: None,
            enable_leader_restore: Some(false),
            // A leader that is told too much at once has to take back what it believed.
            allow_log_reversion: mutant!(AckAtLeaderAlone => Some(true); else None),
            ..Config::default()
        };
        config
            .validate()
            .map_err(|error| StartError::Timings(error.to_string()))
    }
}
