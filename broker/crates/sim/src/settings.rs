//! What a seed decides before anything happens: how large the cluster is, how small its files are,
//! what is broken and who uses it. Each seed leaves much out, so that what is left meets more often.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use highwater_broker::config::{Address, Config, Millis};
use highwater_proto::{ByteSize, NodeId};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

pub use crate::asides::{Compacted, Retained};

/// All nodes that there can be.
const ALL: [&str; 5] = ["n1", "n2", "n3", "n4", "n5"];
/// The port of every node.
pub const PORT: u16 = 9094;
/// Where a node keeps everything.
pub const DATA: &str = "/data";
/// Where it keeps segments.
pub const SEGMENTS: &str = "/data/partitions";
/// Tells kinds of faults that were added later from the other choices of a seed. It is such that the seeds of the
/// corpus have none of them, and mean what they meant.
const LATER_KINDS: u64 = 0x1e8f;

/// A kind of fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A node hears nobody, and nobody hears it.
    Isolation,
    /// Nothing arrives between two nodes, or in one direction only.
    Cut,
    /// Messages between two nodes wait, and arrive late.
    Hold,
    /// Messages take long.
    Delay,
    /// A client and a node do not hear each other.
    ClientCut,
    /// Power fails, between two steps or at a file call.
    PowerLoss,
    /// The power of all nodes fails.
    Blackout,
    /// A process dies, and the machine goes on.
    Kill,
    /// A sync fails once, and its pages are dropped.
    SyncError,
    /// File calls take long.
    SlowDisk,
    /// A disk has no room.
    FullDisk,
    /// Bits of one node's segment files flip.
    Rot,
    /// A node's wall clock jumps.
    Clock,
    /// A node loses its disk and is replaced, once.
    Wipe,
    /// Nodes lose power and are back at once, one after the other: in the middle of elections.
    Flapping,
    /// A follower is kept away until the log has forgotten what it lacks.
    Absence,
    /// Two halves do not hear each other, and the one node that both hear is restarted again and
    /// again: each of its votes decides an election.
    Kingmaker,
    /// Two halves do not hear each other.
    Halves,
    /// Five nodes stand in a ring, and each hears its two neighbours.
    Ring,
    /// Messages are lost, and those behind them on the same link.
    Loss,
}

impl Kind {
    /// All kinds.
    pub const ALL: [Self; 20] = [
        Self::Isolation,
        Self::Cut,
        Self::Hold,
        Self::Delay,
        Self::ClientCut,
        Self::PowerLoss,
        Self::Blackout,
        Self::Kill,
        Self::SyncError,
        Self::SlowDisk,
        Self::FullDisk,
        Self::Rot,
        Self::Clock,
        Self::Wipe,
        Self::Flapping,
        Self::Absence,
        Self::Kingmaker,
        Self::Halves,
        Self::Ring,
        Self::Loss,
    ];
    const COMMON: [Self; 15] = [
        Self::Isolation,
        Self::Cut,
        Self::Hold,
        Self::Delay,
        Self::ClientCut,
        Self::PowerLoss,
        Self::Blackout,
        Self::Kill,
        Self::SyncError,
        Self::SlowDisk,
        Self::FullDisk,
        Self::Clock,
        Self::Flapping,
        Self::Absence,
        Self::Kingmaker,
    ];
}

/// Who uses the cluster beside the producers, the follower and the last readers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Workload {
    /// Members of a consumer group.
    pub members: u32,
    /// Topics come and go under one name.
    pub churn: bool,
    /// Old records of a topic are deleted.
    pub trims: bool,
    /// Shards are led here, then there.
    pub transfers: bool,
    /// Replicas move to other brokers; where every broker has one, they are given up and made anew.
    pub moves: bool,
}

/// A run's settings.
#[derive(Debug, Clone)]
pub struct Settings {
    /// What everything follows from.
    pub seed: u64,
    /// Nodes: 3 or 5.
    pub nodes: usize,
    /// Partitions of the topic that is written all the time.
    pub partitions: u32,
    /// Clients that send, and sequential senders in each.
    pub producers: u32,
    /// Sequential senders in each producer.
    pub senders: u32,
    /// The longest time between two sends of a sender.
    pub pause_ms: u64,
    /// Padding of a record, at most.
    pub padding: usize,
    /// How long a producer tries to deliver a record, in milliseconds.
    pub delivery_ms: u64,
    /// Shards of three replicas, of five and of one for each broker.
    pub shards: [usize; 3],
    /// Replicas of the topic that is written all the time: 3 or 5.
    pub replicas: u32,
    /// How long workers wait for their disk in good times, at most, in milliseconds.
    pub slowness_ms: u64,
    /// Messages arrive at multiples of this, in milliseconds; whatever runs, runs so long before
    /// the next one does.
    pub tick_ms: u64,
    /// Things break for so long.
    pub breaking: Duration,
    /// What is broken.
    pub faults: BTreeSet<Kind>,
    /// Who uses it.
    pub workload: Workload,
    /// Partitions of the topic that is written all the time go to other shards.
    pub moves_partitions: bool,
    /// A compacted topic, if there is one.
    pub compacted: Option<Compacted>,
    /// A topic with retention, if there is one.
    pub retained: Option<Retained>,
    /// How much the wall clock of each node is ahead, in milliseconds.
    pub skews: Vec<i64>,
    /// Settings of the topic that is written all the time.
    pub topic: Vec<(&'static str, String)>,
    broker: Config,
}

/// The names of the nodes of a cluster of that size.
#[must_use]
pub fn names(nodes: usize) -> &'static [&'static str] {
    ALL.get(..nodes).unwrap_or(&ALL)
}

/// The address of a node.
#[must_use]
pub fn address(node: &str) -> String {
    format!("{node}:{PORT}")
}

impl Settings {
    /// What a seed decides.
    #[must_use]
    pub fn of(seed: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed ^ 0x05e7_7195);
        let nodes = if rng.random_ratio(1, 5) { 5 } else { 3 };
        let mut faults = faults(&mut rng);
        let retained = Retained::of(seed);
        faults.extend(later_kinds(seed, nodes, retained.as_ref()));
        // A broker without a disk is filled again only by plan, one at a time.
        let breaking = Duration::from_secs(if faults.contains(&Kind::Wipe) {
            rng.random_range(10..20)
        } else {
            rng.random_range(5..14)
        });
        let workload = Workload {
            members: if rng.random_ratio(1, 3) {
                rng.random_range(1..4)
            } else {
                0
            },
            churn: rng.random_ratio(1, 3),
            trims: rng.random_ratio(1, 3),
            transfers: rng.random_ratio(1, 3),
            // A replica that is made anew is no good copy meanwhile.
            moves: rng.random_ratio(1, 3)
                && !faults.contains(&Kind::Rot)
                && !faults.contains(&Kind::Wipe),
        };
        let replicas = replicas(seed, nodes);
        let moves_partitions = moves_partitions(seed);
        Self {
            seed,
            nodes,
            partitions: rng.random_range(1..8),
            producers: rng.random_range(1..3),
            senders: rng.random_range(1..6),
            pause_ms: *[4, 20, 40, 100].choose(&mut rng).unwrap_or(&40),
            padding: *[10, 700, 3_000].choose(&mut rng).unwrap_or(&700),
            delivery_ms: *[300, 2_000, 20_000].choose(&mut rng).unwrap_or(&2_000),
            shards: shards(seed, &mut rng, (replicas, moves_partitions)),
            replicas,
            slowness_ms: *[0, 0, 2, 8].choose(&mut rng).unwrap_or(&0),
            tick_ms: *[1, 2, 2, 4].choose(&mut rng).unwrap_or(&2),
            breaking,
            moves_partitions,
            compacted: Compacted::of(seed, &faults),
            retained,
            faults,
            workload,
            skews: (0..nodes).map(|_| rng.random_range(-50..50)).collect(),
            topic: topic(&mut rng),
            broker: broker(&mut rng),
        }
    }

    /// Whether somebody has to look after the cluster while things break.
    #[must_use]
    pub fn needs_operator(&self) -> bool {
        let Workload {
            transfers, moves, ..
        } = self.workload;
        transfers || moves || self.moves_partitions || self.faults.contains(&Kind::Wipe)
    }

    /// Brokers that have all of a topic with so many replicas: every one, or nobody surely.
    #[must_use]
    pub fn complete(&self, replicas: u32) -> u32 {
        if replicas == self.last_broker() {
            replicas
        } else {
            0
        }
    }

    /// The nodes' names.
    #[must_use]
    pub fn names(&self) -> &'static [&'static str] {
        names(self.nodes)
    }

    /// The number of the last broker; the first is 1.
    #[must_use]
    pub fn last_broker(&self) -> u32 {
        u32::try_from(self.nodes).unwrap_or(u32::MAX)
    }

    /// The addresses that clients begin with.
    #[must_use]
    pub fn addresses(&self) -> Vec<String> {
        self.names().iter().map(|name| address(name)).collect()
    }

    /// The configuration of a node; its number counts from 1.
    ///
    /// # Errors
    /// When a name is no address: never.
    pub fn config(&self, id: u32, name: &str) -> anyhow::Result<Config> {
        let address = |name: &str| Address::parse(&address(name)).context("a node's address");
        let mut config = self.broker.clone();
        config.node.id = NodeId(id);
        // Half of the clusters were founded before that was asked; how many there are is not decided by it here.
        if StdRng::seed_from_u64(self.seed ^ 0x51_2ed).random_ratio(1, 2) {
            let [replicated, _, _] = self.shards;
            config.node.shards_per_broker = u32::try_from(replicated).unwrap_or(0);
        }
        config.node.data_dir = PathBuf::from(DATA);
        let all = self.names().iter().map(|name| address(name));
        config.node.join = all.collect::<Result<_, _>>()?;
        config.node.advertised_address = Some(address(name)?);
        if let Some(compacted) = &self.compacted {
            config.compaction.interval_ms = Millis(compacted.interval_ms);
            config.compaction.dedupe_buffer_bytes = ByteSize(compacted.dedupe_buffer);
            // Readers meet what is compacted, not what memory still has.
            config.limits.tail_cache_bytes = ByteSize(8 << 10);
            // Every replica makes one before its last compaction is looked at.
            let checkpoints = &mut config.storage.checkpoint_interval_ms;
            checkpoints.0 = checkpoints.0.min(2_000);
        }
        Ok(config)
    }

    /// Partition files that a node may hold open.
    #[must_use]
    pub fn max_open_files(&self) -> usize {
        self.broker.storage.max_open_files as usize
    }
}

fn faults(rng: &mut StdRng) -> BTreeSet<Kind> {
    let count = rng.random_range(2..6);
    let mut faults: BTreeSet<Kind> = (0..count)
        .filter_map(|_| Kind::COMMON.choose(rng).copied())
        .collect();
    // Both take good copies away for good, so a run has one of them at most.
    match rng.random_range(0..6) {
        0 => faults.insert(Kind::Rot),
        1 => faults.insert(Kind::Wipe),
        _ => false,
    };
    faults
}

/// Kinds of faults that were thought of later. They are drawn apart, so that seeds without them are the worlds
/// that they were before.
fn later_kinds(seed: u64, nodes: usize, retained: Option<&Retained>) -> Vec<Kind> {
    let mut rng = StdRng::seed_from_u64(seed ^ LATER_KINDS);
    let mut kinds = Vec::new();
    if rng.random_ratio(1, 4) {
        let ring = if nodes == 5 { Kind::Ring } else { Kind::Halves };
        kinds.extend([Kind::Halves, Kind::Loss, ring].choose(&mut rng));
    }
    // Clocks decide what is too old.
    let by_age = retained.is_some_and(|retained| retained.ms.is_some());
    if by_age && rng.random_ratio(1, 2) {
        kinds.push(Kind::Clock);
    }
    kinds
}

/// Every node has a replica of the topic, or not.
fn replicas(seed: u64, nodes: usize) -> u32 {
    let mut rng = StdRng::seed_from_u64(seed ^ 0x5e0_11ca);
    if nodes == 5 && rng.random_ratio(1, 3) {
        5
    } else {
        3
    }
}

/// Whether partitions change their shards.
fn moves_partitions(seed: u64) -> bool {
    StdRng::seed_from_u64(seed ^ 0x70_e27a_0be5).random_ratio(1, 4)
}

/// Every group costs time of the one processor, so those that nobody would use are left out of most runs.
fn shards(seed: u64, rng: &mut StdRng, (replicas, moves): (u32, bool)) -> [usize; 3] {
    let count = *[1, 1, 1, 1, 1, 1, 2, 2, 4].choose(rng).unwrap_or(&1);
    let mut rng = StdRng::seed_from_u64(seed ^ 0x05_4a2d);
    // A partition goes to a shard of as many replicas.
    let least = 1 + usize::from(moves);
    let count = count.max(least);
    let five = if replicas == 5 { least } else { 0 };
    let one = usize::from(rng.random_ratio(1, 8));
    [count, five, one]
}

fn topic(rng: &mut StdRng) -> Vec<(&'static str, String)> {
    let mut settings = Vec::new();
    if rng.random_ratio(1, 2) {
        settings.push(("segment.bytes", (64 << 10).to_string()));
    }
    if rng.random_ratio(1, 2) {
        let ms: i32 = rng.random_range(100..2_000);
        settings.push(("segment.ms", ms.to_string()));
    }
    settings
}

/// Files below what an operator may set, and frequent checkpoints, so that a short run recycles,
/// forgets and replaces; caches that hold all or nothing.
fn broker(rng: &mut StdRng) -> Config {
    let mut pick = |choices: &[u64]| choices.choose(rng).copied().unwrap_or(1);
    let mut config = Config::default();
    let file = pick(&[32 << 10, 128 << 10, 1 << 20]);
    config.wal.file_bytes = ByteSize(file);
    config.wal.budget_bytes = ByteSize(file * pick(&[4, 4, 16]));
    config.storage.reserve_bytes = ByteSize(256 << 10);
    config.storage.checkpoint_interval_ms = Millis(pick(&[300, 2_000, 10_000]));
    config.storage.checkpoint_bytes = ByteSize(pick(&[4 << 10, 64 << 10, 1 << 20]));
    config.storage.retention_interval_ms = Millis(1_000);
    config.storage.max_open_files = u32::try_from(pick(&[16, 1_024])).unwrap_or(16);
    config.limits.tail_cache_bytes = ByteSize(pick(&[8 << 10, 128 << 20]));
    config.limits.log_cache_bytes = ByteSize(pick(&[8 << 10, 64 << 20]));
    config.scrub.interval_ms = Millis(pick(&[1_000, 3_000]));
    config.scrub.compare_interval_ms = Millis(pick(&[1_000, 4_000]));
    config.repair.after_ms = Millis(2_000);
    config
}
