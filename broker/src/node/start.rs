//! Start-up: the data directory, the log, the metadata group, the doors, the cluster, the shards,
//! in this order. Nothing is served to clients before the groups have recovered.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use anyhow::Context;
use highwater_env::{Clock as _, Disk, Env, Listener};
use highwater_proto::ShardId;
use highwater_raft::{Group, Groups, VoteFloor};
use highwater_segment::{FileCacheConfig, SegmentStore, SegmentStoreConfig};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::identity::Identity;
use super::membership::Membership;
use super::{Broker, join, log, serve};
use crate::config::Config;
use crate::control::clocks::Clocks;
use crate::control::cluster::Cluster;
use crate::control::machine::MetadataMachine;
use crate::control::moves::Moves;
use crate::control::peers::{Addresses, PeerClients};
use crate::control::plans::Progress;
use crate::control::producer_ids::ProducerIds;
use crate::control::proposer::Proposer;
use crate::control::reports::Reports;
use crate::control::{
    checkpointer, compaction, controller, heartbeat, host, moves, plans, retention, storage, topics,
};
use crate::gate::{Budget, Gate};
use crate::router::{Router, ShardTable};
use crate::runtime::compaction::CompactionQueue;
use crate::runtime::damage::DamageNotes;
use crate::runtime::damage_file;
use crate::runtime::machine::ShardContext;
use crate::runtime::pull::SnapshotSource;
use crate::runtime::tail::TailBudget;
use crate::upkeep::compare::Divergences;
use crate::upkeep::pace::Pace;
use crate::upkeep::{compact, compare, log as log_upkeep, mend, scrub};

/// The metadata group's number.
pub const METADATA: ShardId = ShardId(0);

/// Small batches gather in memory, where readers find them, until they have this many bytes or a
/// quarter of a second has passed: a thousand partitions then cost far fewer writes.
const GATHER_BYTES: usize = 8 << 20;

/// A broker with its doors and loops.
pub struct Running<E: Env> {
    /// The broker.
    pub broker: Arc<Broker<E>>,
    /// Its doors and loops. One that ends with an error stops the broker.
    pub tasks: JoinSet<anyhow::Result<()>>,
}

/// Starts a broker; it becomes ready in its own time.
///
/// # Errors
/// One line: what, where, what to do. Nothing on the disk was lost or changed then.
pub async fn start<E: Env>(env: E, config: Config) -> anyhow::Result<Running<E>> {
    let dir = config.node.data_dir.clone();
    let identity = Identity::load_or_create(env.disk(), &dir, config.node.id, join::random_id)?;
    let listener = serve::listen(env.net(), &config.listen.grpc.to_string()).await?;
    let address = config.advertised(listener.local_addr()?);
    let broker = Arc::new(assemble(env, Arc::new(config), identity, address).await?);
    let mut tasks = JoinSet::new();
    tasks.spawn(serve::serve(
        Arc::clone(&broker),
        listener,
        broker.stop.clone(),
    ));
    tasks.spawn(run_member(Arc::clone(&broker)));
    Ok(Running { broker, tasks })
}

/// Joins the cluster, then runs what members run until the broker stops.
async fn run_member<E: Env>(broker: Arc<Broker<E>>) -> anyhow::Result<()> {
    // Shards start from the local image at once: a restarted cluster needs them to have leaders,
    // and registration needs nothing of them.
    let loops = async {
        tokio::join!(
            heartbeat::run(Arc::clone(&broker)),
            controller::run(Arc::clone(&broker)),
            checkpointer::run(Arc::clone(&broker)),
            storage::run(Arc::clone(&broker)),
            crate::groups::lag::run(Arc::clone(&broker)),
            plans::run(Arc::clone(&broker)),
            moves::run(Arc::clone(&broker)),
            topics::run(Arc::clone(&broker)),
            retention::run(Arc::clone(&broker)),
            mend::run(Arc::clone(&broker)),
            scrub::run(Arc::clone(&broker)),
            log_upkeep::run(Arc::clone(&broker)),
            compare::run(Arc::clone(&broker)),
            compaction::run(Arc::clone(&broker)),
            compact::run(Arc::clone(&broker)),
        );
        Ok(())
    };
    let joined = async {
        tokio::select! {
            joined = join::join(&broker) => joined?,
            () = broker.stop.cancelled() => return Ok(()),
        }
        tracing::info!(
            cluster_id = broker.membership.cluster_id(),
            "joined the cluster"
        );
        Ok(())
    };
    let hosted = async {
        broker.membership.wait_for_cluster(&broker.stop).await;
        host::run(Arc::clone(&broker)).await
    };
    tokio::try_join!(joined, hosted, loops).map(|_| ())
}

async fn assemble<E: Env>(
    env: E,
    config: Arc<Config>,
    identity: Identity,
    address: String,
) -> anyhow::Result<Broker<E>> {
    let dir = config.node.data_dir.clone();
    let cluster: Arc<Cluster> = Arc::default();
    let founders = identity.founders.clone();
    let clocks = Arc::<Clocks>::default();
    let (of_cluster, of_peers) = (Arc::clone(&cluster), Arc::clone(&clocks));
    let addresses = Arc::new(Addresses::new(of_cluster, founders, of_peers));
    let membership = Arc::new(Membership::new(identity.clone(), Arc::clone(&cluster)));
    let peers = Arc::new(PeerClients::new(
        env.clone(),
        Arc::clone(&addresses),
        Arc::clone(&membership),
    ));
    identity.check_log(env.disk(), &log::log_dir(&config))?;
    let (wal, recovery) = log::open_log(&env, &config)?;
    let groups = Groups::new(
        super::raft_config::groups_config(&config, &membership)?,
        env.clone(),
        wal.clone(),
        Arc::clone(&addresses) as Arc<dyn highwater_raft::Peers>,
    );
    let tail = TailBudget::new(usize::try_from(config.limits.tail_cache_bytes.0)?);
    let shard_context = Arc::new(shard_context(&env, &config, &tail, &peers)?);
    let group = start_metadata(&env, &dir, &groups, &cluster).await?;
    let damage = DamageNotes::restored(damage_file::load(env.disk(), &dir)?);
    let shards: Arc<ShardTable<E::Disk>> = Arc::default();
    Ok(Broker {
        node_id: config.node.id,
        incarnation: identity.incarnation,
        gate: Gate::new(config.limits.admission_bytes.0),
        receiving: Budget::new(config.limits.receive_bytes.0),
        fetching: Budget::new(config.limits.fetch_bytes.0),
        moving: Pace::new(config.limits.move_bytes_per_second.0),
        turns: Arc::default(),
        router: Router::new(Arc::clone(&cluster), Arc::clone(&shards)),
        metadata: Proposer::new(group, Arc::clone(&peers), Arc::clone(&cluster)),
        producer_ids: ProducerIds::default(),
        liveness: crate::control::heartbeat::Liveness::default(),
        clocks,
        damage: log::noted(damage, &recovery),
        divergences: Divergences::default(),
        reports: Reports::default(),
        progress: Progress::default(),
        moves: Moves::default(),
        followed_plan: watch::Sender::new(0),
        stop: CancellationToken::new(),
        started_at_ms: env.clock().now_ms(),
        draining: AtomicBool::new(false),
        producing: TaskTracker::new(),
        leaving: CancellationToken::new(),
        join: join_list(&config, &address),
        env,
        config,
        membership,
        address,
        cluster,
        shards,
        peers,
        addresses,
        groups,
        wal,
        shard_context,
        tail,
    })
}

fn shard_context<E: Env>(
    env: &E,
    config: &Config,
    tail: &Arc<TailBudget>,
    peers: &Arc<PeerClients<E>>,
) -> anyhow::Result<ShardContext<E>> {
    Ok(ShardContext {
        env: env.clone(),
        store: open_segments(env, config)?,
        tail: Arc::clone(tail),
        dir: make_dir(env, &shards_dir(&config.node.data_dir))?,
        snapshots: SnapshotSource::new(Arc::clone(peers)),
        compactions: CompactionQueue::default(),
    })
}

async fn start_metadata<E: Env>(
    env: &E,
    dir: &Path,
    groups: &Groups<E>,
    cluster: &Arc<Cluster>,
) -> anyhow::Result<Group> {
    make_dir(env, &dir.join("metadata"))?;
    let path = metadata_checkpoint(dir);
    let machine = MetadataMachine::new(env.clone(), path, Arc::clone(cluster));
    groups
        .start(METADATA, machine, VoteFloor::Usual)
        .await
        .context("the metadata group")
}

/// The founders' addresses, sorted; a broker without `--join` founds a cluster of its own.
fn join_list(config: &Config, address: &str) -> Vec<String> {
    let mut join: Vec<String> = config
        .node
        .join
        .iter()
        .map(|address| address.as_str().to_owned())
        .collect();
    if join.is_empty() {
        join.push(address.to_owned());
    }
    join.sort();
    join.dedup();
    join
}

/// Where the metadata group's checkpoint lies.
pub(super) fn metadata_checkpoint(data_dir: &Path) -> PathBuf {
    data_dir.join("metadata").join("checkpoint")
}

/// Where the shards' checkpoints lie.
pub(super) fn shards_dir(data_dir: &Path) -> PathBuf {
    data_dir.join("shards")
}

pub(super) fn make_dir<E: Env>(env: &E, dir: &Path) -> anyhow::Result<PathBuf> {
    let made = || -> std::io::Result<()> {
        env.disk().create_dir_all(dir)?;
        dir.parent()
            .map_or(Ok(()), |parent| env.disk().sync_dir(parent))
    };
    made().with_context(|| format!("cannot make {}", dir.display()))?;
    Ok(dir.to_owned())
}

fn open_segments<E: Env>(env: &E, config: &Config) -> anyhow::Result<SegmentStore<E::Disk>> {
    let mut store = SegmentStoreConfig::new(config.node.data_dir.join("partitions"));
    store.files = FileCacheConfig {
        max_open_files: config.storage.max_open_files as usize,
        ..FileCacheConfig::default()
    };
    store.gather_bytes = GATHER_BYTES;
    let on_fatal = Arc::new(|fault: &highwater_segment::SegmentFault| super::end(fault));
    Ok(SegmentStore::start(
        env.disk(),
        env.workers(),
        store,
        on_fatal,
    )?)
}
