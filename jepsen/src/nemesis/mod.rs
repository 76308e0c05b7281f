//! Faults: how each begins, lasts and is undone, and what proves that it was there.

mod amnesia;
mod bad_disk;
mod clock;
mod come_and_go;
mod fsync_error;
mod half_open;
mod kill;
mod kingmaker;
mod laggard;
mod link;
mod moves;
mod partition;
mod pause;
mod plans;
mod power;
mod rejoin;
mod replace;
mod restart;
mod rot;
mod rotten_start;
mod silent_death;
mod storm;
mod torn;
mod transfer;
mod whole;
mod wipe;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use async_trait::async_trait;
use highwater_client::Client;
use serde::{Deserialize, Serialize};
use serde_json::{Value as Json, json};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use crate::cluster::Cluster;
use crate::history::Recorder;
use crate::leaders::Leaders;
use crate::recovery::Rejoin;
use crate::schedule::{Kind, Planned};
use crate::workload::Shared;

/// How long a broker that was started again is watched until it has caught up.
pub(crate) const REJOIN: Duration = Duration::from_secs(60);

/// How long a look at whether all brokers are whole may put a fault off.
const GLANCE: Duration = Duration::from_millis(500);

/// Everything that faults are made with.
#[derive(Clone)]
pub struct Site {
    /// The brokers; absent for a cluster of somebody else's.
    pub cluster: Option<Arc<Cluster>>,
    /// Their numbers.
    pub nodes: Vec<u32>,
    /// Who leads.
    pub leaders: Arc<Leaders>,
    /// Where it is written down.
    pub recorder: Arc<Recorder>,
    /// For requests to the cluster.
    pub client: Client,
    /// The topic.
    pub topic: String,
    /// Partitions of the topic.
    pub partitions: u32,
    /// A compacted topic beside it, and its partitions.
    pub compacted: Option<(String, u32)>,
    /// Consumer groups of the topic, by name.
    pub groups: Vec<String>,
    /// The one broker of this run whose disk may rot.
    pub rots: u32,
    /// What clients do.
    pub shared: Arc<Shared>,
    /// How brokers came back after a restart.
    pub rejoins: Arc<Mutex<Vec<Rejoin>>>,
}

impl Site {
    /// The brokers that this harness started.
    ///
    /// # Errors
    /// When they are somebody else's.
    pub fn cluster(&self) -> anyhow::Result<&Cluster> {
        self.cluster.as_deref().context("the brokers are not ours")
    }

    /// Whether every broker serves and has caught up, as far as can be told at a glance.
    async fn is_whole(&self) -> bool {
        let Some(cluster) = &self.cluster else {
            return false;
        };
        matches!(timeout(GLANCE, cluster.is_whole()).await, Ok(Ok(true)))
    }

    /// A partition by chance that has a leader, and the leader.
    fn leader(&self, pick: u64) -> Option<(u32, u32)> {
        let all = u64::from(self.partitions);
        let from = pick % all.max(1);
        let partitions = (0..all).map(|step| u32::try_from((from + step) % all).unwrap_or(0));
        partitions
            .filter_map(|partition| Some((partition, self.leaders.of(partition)?)))
            .find(|(_, leader)| self.nodes.contains(leader))
    }

    /// All brokers but one, in an order by chance.
    fn others(&self, node: u32, pick: u64) -> Vec<u32> {
        let mut others: Vec<u32> = self.nodes.iter().copied().filter(|n| *n != node).collect();
        let count = others.len().max(1);
        others.rotate_left(usize::try_from(pick >> 32).unwrap_or(0) % count);
        others
    }

    /// More than half of the brokers, with a leader among them when there is one.
    fn majority(&self, pick: u64) -> Vec<u32> {
        let first = self.leader(pick).map(|(_, leader)| leader);
        let first = first.or_else(|| self.nodes.first().copied());
        let Some(first) = first else {
            return Vec::new();
        };
        let mut chosen = vec![first];
        chosen.extend(
            self.others(first, pick)
                .into_iter()
                .take(self.nodes.len() / 2),
        );
        chosen
    }
}

/// What a fault hits.
#[derive(Debug, Clone, Default)]
pub struct Started {
    /// The brokers.
    pub nodes: Vec<u32>,
    /// What else is to be told.
    pub detail: Json,
    /// When it had taken effect, when that was before the start returned; in nanoseconds since
    /// the start of the run.
    pub at_ns: Option<u64>,
}

/// What a fault did.
#[derive(Debug, Clone, Default)]
pub struct Proof {
    /// Whether it is certain that it was there.
    pub active: bool,
    /// Whether the cluster let it take place at all: leaders can only be moved while a majority of
    /// a shard is there, which other faults may prevent.
    pub refused: bool,
    /// A broken promise that it saw itself.
    pub finding: Option<String>,
    /// What shows it.
    pub detail: Json,
}

/// One kind of fault.
#[async_trait]
pub trait Nemesis: Send {
    /// Begins. Nothing when there is nothing to break now, such as a leader when there is none.
    async fn start(&mut self, site: &Site) -> anyhow::Result<Option<Started>>;

    /// Keeps it up until a moment.
    async fn hold(&mut self, _site: &Site, until: Instant) -> anyhow::Result<()> {
        sleep_until(until).await;
        Ok(())
    }

    /// Undoes it, also after a start that failed half-way, and tells what it did.
    async fn heal(&mut self, site: &Site) -> anyhow::Result<Proof>;

    /// The brokers that it started again, whose way back is to be measured.
    fn restarted(&self) -> Vec<u32> {
        Vec::new()
    }
}

/// One fault of a run, afterwards.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Record {
    /// Its number in the schedule.
    pub number: u32,
    /// What.
    pub kind: Kind,
    /// When it had taken effect, in nanoseconds since the start of the run.
    pub from_ns: u64,
    /// When it was undone.
    pub healed_ns: u64,
    /// When the harness set about it.
    pub asked_ns: u64,
    /// Whether every broker served and had caught up then.
    pub whole_before: bool,
    /// The brokers it hit.
    pub nodes: Vec<u32>,
    /// The partitions that the brokers it hit led.
    pub led: Vec<u32>,
    /// Whether it is certain that it was there.
    pub proven: bool,
    /// What shows it, or what went wrong.
    pub proof: Json,
    /// Whether it began at all: there may be nothing to break.
    pub begun: bool,
    /// A broken promise that it saw itself.
    pub finding: Option<String>,
}

/// The nemesis of a planned fault.
fn of(planned: &Planned) -> Box<dyn Nemesis> {
    let pick = planned.pick;
    match planned.kind {
        Kind::KillFollower
        | Kind::KillLeader
        | Kind::KillCoordinator
        | Kind::KillMajority
        | Kind::KillAll => Box::new(kill::Kill::new(planned.kind, pick)),
        Kind::CrashLoop => Box::new(kill::CrashLoop::new(pick)),
        Kind::Pause => Box::new(pause::Pause::new(pick)),
        Kind::IsolateLeader
        | Kind::Halves
        | Kind::Bridge
        | Kind::Ring
        | Kind::OneWay
        | Kind::Flapping
        | Kind::ClientSide => Box::new(partition::Partition::new(planned)),
        Kind::SlowLink | Kind::Reorder | Kind::Duplicate => Box::new(link::BadLink::new(planned)),
        Kind::HalfOpen => Box::new(half_open::HalfOpen::new(planned)),
        Kind::SilentDeath => Box::new(silent_death::SilentDeath::new(planned)),
        Kind::ComeAndGo => Box::new(come_and_go::ComeAndGo::default()),
        Kind::MovePartition => Box::new(moves::MovePartition::new(pick)),
        Kind::Replace => Box::new(replace::Replace::new(pick)),
        Kind::PowerLoss | Kind::PowerLossAll => Box::new(power::PowerLoss::new(planned)),
        Kind::Laggard => Box::new(laggard::Laggard::new(planned)),
        Kind::Amnesia => Box::new(amnesia::Amnesia::new(planned)),
        Kind::Kingmaker => Box::new(kingmaker::Kingmaker::new(planned)),
        Kind::Wipe => Box::new(wipe::Wipe::new(pick)),
        Kind::TornSectors => Box::new(torn::TornSectors::new(pick)),
        Kind::FsyncError => Box::new(fsync_error::FsyncError::new(pick)),
        Kind::DiskFull | Kind::SlowFsync | Kind::StalledFsync => {
            Box::new(bad_disk::BadDisk::new(planned.kind, pick))
        }
        Kind::BitFlip => Box::new(rot::BitFlip::new(pick)),
        Kind::RottenStart => Box::new(rotten_start::RottenStart::new(pick)),
        Kind::RollingRestart => Box::new(restart::RollingRestart::new(pick)),
        Kind::ClockJump => Box::new(clock::ClockJump::new(pick)),
        Kind::WrongStart => Box::new(clock::WrongStart::new(pick)),
        Kind::RebalanceStorm => Box::new(storm::RebalanceStorm::new(pick)),
        Kind::TransferLeaders => Box::new(transfer::TransferLeaders::new(pick)),
    }
}

/// Runs a schedule to its end, or until `stop`; then everything it broke is healed.
///
/// # Errors
/// When a task of the harness stops.
pub async fn run(
    site: &Site,
    schedule: Vec<Planned>,
    stop: &CancellationToken,
    notice: &(dyn Fn(&str) + Sync),
) -> anyhow::Result<Vec<Record>> {
    let began = Instant::now();
    let records: Arc<Mutex<Vec<Record>>> = Arc::default();
    let mut tasks = JoinSet::new();
    for planned in schedule {
        let due = began + Duration::from_millis(planned.at_ms);
        tokio::select! {
            () = sleep_until(due) => {}
            () = stop.cancelled() => break,
        }
        notice(planned.kind.name());
        let (site, stop, records) = (site.clone(), stop.clone(), Arc::clone(&records));
        tasks.spawn(async move {
            let record = run_one(&site, &planned, &stop).await;
            let mut all = records.lock().unwrap_or_else(PoisonError::into_inner);
            all.push(record);
        });
        // Ended ones are joined now, so that one that panicked is known at once.
        while let Some(ended) = tasks.try_join_next() {
            ended.context("a fault stopped")?;
        }
    }
    while let Some(ended) = tasks.join_next().await {
        ended.context("a fault stopped")?;
    }
    let mut records = std::mem::take(&mut *records.lock().unwrap_or_else(PoisonError::into_inner));
    records.sort_by_key(|record| record.number);
    Ok(records)
}

async fn run_one(site: &Site, planned: &Planned, stop: &CancellationToken) -> Record {
    let name = planned.kind.name();
    let mut nemesis = of(planned);
    let whole_before = site.is_whole().await;
    let asked_ns = site.recorder.now_ns();
    let mut record = Record {
        number: planned.number,
        kind: planned.kind,
        from_ns: asked_ns,
        healed_ns: 0,
        asked_ns,
        whole_before,
        nodes: Vec::new(),
        led: Vec::new(),
        proven: false,
        proof: Json::Null,
        begun: true,
        finding: None,
    };
    // Before it begins: afterwards others lead.
    let led: Vec<(u32, Vec<u32>)> = site
        .nodes
        .iter()
        .map(|node| (*node, site.leaders.led_by(*node)))
        .collect();
    let outcome = begin_and_hold(site, planned, stop, nemesis.as_mut(), &mut record).await;
    let hit: BTreeSet<u32> = record.nodes.iter().copied().collect();
    let led = led.into_iter().filter(|(node, _)| hit.contains(node));
    record.led = led.flat_map(|(_, partitions)| partitions).collect();
    let proof = nemesis.heal(site).await;
    record.healed_ns = site.recorder.now_ns();
    match (outcome, proof) {
        (Ok(()), Ok(proof)) => {
            record.proven = proof.active;
            record.begun &= !proof.refused;
            record.finding = proof.finding;
            record.proof = proof.detail;
        }
        (outcome, proof) => {
            let trouble = [outcome.err(), proof.err()];
            let trouble = trouble.iter().flatten().map(|error| format!("{error:#}"));
            record.proof = json!({"trouble": trouble.collect::<Vec<_>>()});
        }
    }
    let value = json!({
        "fault": planned.number, "nodes": record.nodes,
        "proven": record.proven, "proof": record.proof,
    });
    site.recorder.nemesis(&format!("stop-{name}"), &value);
    for node in nemesis.restarted() {
        rejoin::watch(site, planned.number, node, stop);
    }
    record
}

async fn begin_and_hold(
    site: &Site,
    planned: &Planned,
    stop: &CancellationToken,
    nemesis: &mut dyn Nemesis,
    record: &mut Record,
) -> anyhow::Result<()> {
    let until = Instant::now() + Duration::from_millis(planned.lasts_ms);
    let Some(started) = nemesis.start(site).await? else {
        record.begun = false;
        return Ok(());
    };
    record.nodes.clone_from(&started.nodes);
    record.from_ns = started.at_ns.unwrap_or_else(|| site.recorder.now_ns());
    let value = json!({
        "fault": planned.number, "nodes": started.nodes,
        "for-ms": planned.lasts_ms, "detail": started.detail,
    });
    let name = planned.kind.name();
    site.recorder.nemesis(&format!("start-{name}"), &value);
    tokio::select! {
        held = nemesis.hold(site, until) => held,
        () = stop.cancelled() => Ok(()),
    }
}
