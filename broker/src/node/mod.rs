//! One broker: what it is made of, how it starts, how it stops.

pub mod bootstrap;
pub mod channel;
pub mod connections;
mod exposition;
mod group_exposition;
pub mod health;
pub mod hello;
pub mod identity;
mod join;
mod lock;
mod log;
pub mod marks;
pub mod membership;
mod raft_config;
mod serve;
mod start;
mod stop;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use anyhow::Context;
use highwater_env::{Clock as _, Env, OsEnv, SyncFailed};
use highwater_proto::NodeId;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::Config;
use crate::control::clocks::Clocks;
use crate::control::cluster::Cluster;
use crate::control::heartbeat::Liveness;
use crate::control::moves::Moves;
use crate::control::peers::{Addresses, PeerClients};
use crate::control::plans::Progress;
use crate::control::producer_ids::ProducerIds;
use crate::control::proposer::Proposer;
use crate::control::reports::Reports;
use crate::front::egress::Outflow;
use crate::gate::{Budget, Gate};
use crate::observe::{Admin, Metrics};
use crate::router::{Router, ShardTable};
use crate::runtime::damage::DamageNotes;
use crate::runtime::machine::ShardContext;
use crate::runtime::tail::TailBudget;
use crate::runtime::turns::{self, Turns};
use crate::upkeep::compare::Divergences;
use crate::upkeep::pace::Pace;
use highwater_raft::Groups;
use highwater_wal::Wal;
use membership::Membership;

/// Everything that the doors, the shards and the controller of one broker share.
pub struct Broker<E: Env> {
    /// Disk, clock, network, workers.
    pub env: E,
    /// Its configuration.
    pub config: Arc<Config>,
    /// Its number.
    pub node_id: NodeId,
    /// Of its data directory.
    pub incarnation: String,
    /// Who it is and whom it lets in.
    pub membership: Arc<Membership>,
    /// host:port under which others reach it.
    pub address: String,
    /// The founders' addresses, sorted.
    pub join: Vec<String>,
    /// When this process was started, by its wall clock: tells it from the one before it.
    pub started_at_ms: i64,
    /// Leaders are being moved away before a stop.
    draining: AtomicBool,
    /// What clients have handed in and wait for: it is answered before the broker stops.
    pub producing: TaskTracker,
    /// Fires when producers' streams end, after the leaders have moved away and before the broker stops.
    pub leaving: CancellationToken,
    /// Admission.
    pub gate: Gate,
    /// Memory for requests that are still coming in.
    pub receiving: Budget,
    /// Memory for responses to consumers that are on their way out.
    pub fetching: Budget,
    /// The rate of what is sent to replicas that are filled or repaired.
    pub moving: Pace,
    /// The cluster as seen from here.
    pub cluster: Arc<Cluster>,
    /// Whose turn it is to propose.
    pub turns: Arc<Turns>,
    /// Partition to shard.
    pub router: Router<E::Disk>,
    /// Shards hosted here.
    pub shards: Arc<ShardTable<E::Disk>>,
    /// Metadata commands.
    pub metadata: Proposer<E>,
    /// Producer ids handed out here.
    pub producer_ids: ProducerIds,
    /// Other brokers.
    pub peers: Arc<PeerClients<E>>,
    /// Where other brokers are.
    pub addresses: Arc<Addresses>,
    /// Who was heard from, when this broker leads the metadata group.
    pub liveness: Liveness,
    /// Whether this broker's wall clock agrees with the others'.
    pub clocks: Arc<Clocks>,
    /// Ranges that cannot be read here.
    pub damage: DamageNotes,
    /// Ranges of shards led here that another replica has otherwise.
    pub divergences: Divergences,
    /// What they said of their replicas, when this broker leads the metadata group.
    pub reports: Reports,
    /// How far the moves of the running plan are, when this broker leads the metadata group.
    pub progress: Progress,
    /// How far the moves of partitions are that this broker carries out.
    pub moves: Moves,
    /// The newest plan that was followed here: the replicas that it took from this broker are gone.
    pub followed_plan: watch::Sender<u64>,
    /// All Raft groups.
    pub groups: Groups<E>,
    /// The write-ahead log.
    pub wal: Wal<E>,
    /// What shards share.
    pub shard_context: Arc<ShardContext<E>>,
    /// Memory of all tails.
    pub tail: Arc<TailBudget>,
    /// Fires when the broker stops.
    pub stop: CancellationToken,
}

impl<E: Env> Broker<E> {
    /// Whether leaders are being moved away before a stop.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }
    fn start_draining(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }
    /// The time that what is appended now gets, ms since the Unix epoch.
    pub(crate) fn append_time_ms(&self) -> i64 {
        let wall_ms = self.env.clock().now_ms();
        self.clocks.append_time(wall_ms)
    }
    /// What a new fetch stream may have on its way.
    #[must_use]
    pub fn outflow(&self) -> Outflow {
        Outflow::new(self.fetching.clone(), self.config.limits.fetch_bytes.0)
    }
    /// Replicas of a new topic when its creator does not say: as configured, or as many as the
    /// cluster can have.
    #[must_use]
    pub fn default_replication_factor(&self) -> u32 {
        let wanted = self.config.defaults.replication_factor;
        if self.cluster.image().has_class(wanted) {
            wanted
        } else {
            1
        }
    }
}

/// Runs a broker on this machine until `stop` fires, then stops it gracefully.
///
/// # Errors
/// One line: what, where, what to do.
pub async fn run(config: Config, stop: CancellationToken) -> anyhow::Result<()> {
    let admin_address = config.listen.admin;
    let _lock = lock::lock(&config.node.data_dir)?;
    let metrics = Metrics::install().context("metrics are installed already")?;
    let admin = tokio::net::TcpListener::bind(admin_address)
        .await
        .with_context(|| {
            format!(
                "cannot listen on {admin_address}; free the address or set listen.admin to another"
            )
        })?;
    let running = start::start(OsEnv::default(), config).await?;
    say_hello(&running.broker);
    let health = Arc::new(health::BrokerHealth(Arc::clone(&running.broker)));
    let ended = CancellationToken::new();
    let upkeep = tokio::spawn(metrics.clone().upkeep(ended.clone()));
    let admin = tokio::spawn(Admin::new(health, metrics).serve(admin, ended.clone()));
    let turns = Arc::clone(&running.broker.turns);
    let turns = tokio::spawn(turns::watch(turns, ended.clone()));
    let outcome = run_until(running, stop).await;
    ended.cancel();
    match admin.await {
        Ok(served) => served.context("the admin server failed")?,
        Err(error) => tracing::warn!(%error, "the admin server did not end by itself"),
    }
    for (what, task) in [
        ("the upkeep of metrics", upkeep),
        ("the look at the CPU", turns),
    ] {
        if let Err(error) = task.await {
            tracing::warn!(%error, "{what} did not end by itself");
        }
    }
    outcome
}

/// Where everything is, and what an acknowledgement means here.
fn say_hello<E: Env>(broker: &Broker<E>) {
    let config = &broker.config;
    tracing::info!(
        node_id = broker.node_id.0,
        grpc = %config.listen.grpc,
        admin = %config.listen.admin,
        data_dir = %config.node.data_dir.display(),
        durability = "acknowledged = fsynced by a majority of a partition's replicas",
        replicas_by_default = config.defaults.replication_factor,
        "started"
    );
}

/// Runs a broker in the given surroundings, without an admin server. `seen` may look on.
///
/// # Errors
/// One line: what, where, what to do.
pub async fn run_in<E: Env>(
    env: E,
    config: Config,
    stop: CancellationToken,
    seen: impl FnOnce(marks::Watched<E>),
) -> anyhow::Result<()> {
    let running = start::start(env, config).await?;
    seen(marks::Watched::new(&running.broker));
    run_until(running, stop).await
}

/// Until `stop` fires, or one of the broker's tasks fails.
async fn run_until<E: Env>(
    mut running: start::Running<E>,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let failed = tokio::select! {
        () = stop.cancelled() => None,
        Some(ended) = running.tasks.join_next() => Some(ended),
    };
    let stopped = stop::stop(running).await;
    match failed {
        Some(Ok(Err(error))) => Err(error),
        Some(Err(error)) => Err(error.into()),
        Some(Ok(Ok(()))) | None => stopped,
    }
}

/// A failed write or sync, or an entry that this release cannot apply: nothing may be built on what
/// is there, so the process ends here and recovers from what is durable.
pub(crate) fn stop_process(error: &dyn std::fmt::Display) -> ! {
    tracing::error!(%error, "cannot go on; stopping at once, nothing acknowledged is lost");
    std::process::abort();
}

/// What [`end`] does instead of ending the process.
static ENDING: OnceLock<fn(&str)> = OnceLock::new();

/// Has `ending` called where this process would end because nothing may be built on what is on its
/// disk. For simulations, where one process runs many brokers and ends them itself.
pub fn end_with(ending: fn(&str)) {
    // The first one stays: a process is a simulation or it is none.
    let _ = ENDING.set(ending);
}

/// A failed write or sync: ends the process, or what a simulation has in its place.
pub(crate) fn end(error: &dyn std::fmt::Display) {
    match ENDING.get() {
        Some(ending) => ending(&error.to_string()),
        None => stop_process(error),
    }
}

/// Passes the outcome of a durable replacement on, unless a sync failed: that is never retried.
pub(crate) fn stop_if_sync_failed(outcome: std::io::Result<()>) -> std::io::Result<()> {
    match outcome {
        Err(error) if SyncFailed::is_in(&error) => {
            end(&error);
            Err(error)
        }
        outcome => outcome,
    }
}
