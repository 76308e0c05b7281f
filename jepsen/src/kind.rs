//! Kinds of faults: their names, what they need, how long they last, and what they may cost.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Kinds of faults.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// `kill -9` of the broker that leads least.
    KillFollower,
    /// `kill -9` of a partition's leader.
    KillLeader,
    /// `kill -9` of a majority at once.
    KillMajority,
    /// `kill -9` of every broker at once.
    KillAll,
    /// `kill -9` of the broker that coordinates a consumer group.
    KillCoordinator,
    /// A broker is killed as soon as it is back, again and again.
    CrashLoop,
    /// A partition's leader stands still (SIGSTOP).
    Pause,
    /// No broker hears a leader, and it hears none; clients still reach it.
    IsolateLeader,
    /// Two halves, one without a majority.
    Halves,
    /// Two halves that share one broker.
    Bridge,
    /// Every broker hears a majority, no two the same one.
    Ring,
    /// A leader is heard and does not hear, or the other way round.
    OneWay,
    /// A leader is cut off and not, again and again.
    Flapping,
    /// Clients do not reach a broker that the others reach.
    ClientSide,
    /// What a leader's machine, or every machine, sends goes through a narrow link.
    SlowLink,
    /// Packets overtake each other.
    Reorder,
    /// Packets come twice.
    Duplicate,
    /// Connections of a leader fall silent and new ones work; later the old ones speak again.
    HalfOpen,
    /// A leader's process dies and none of its connections ends, as when its machine is gone.
    SilentDeath,
    /// A broker's machine loses power.
    PowerLoss,
    /// All machines lose power at once.
    PowerLossAll,
    /// A broker's machine loses power amid a sync of its log, which is torn by sectors.
    TornSectors,
    /// One lags; of the two that acknowledged, one dies and one loses power and must elect a
    /// leader with the laggard.
    Laggard,
    /// A broker loses power and comes back where nobody can tell it whom it voted for.
    Amnesia,
    /// The one that two others need, and that alone hears both, loses power again and again.
    Kingmaker,
    /// A broker comes back with an empty disk, which must be refused; later with its own.
    Wipe,
    /// One sync of a leader's disk fails, and what it was for is gone.
    FsyncError,
    /// A leader's disk has no byte left.
    DiskFull,
    /// Every sync of a leader's disk takes a part of a second.
    SlowFsync,
    /// Syncs of a leader's disk take from one second to thirty.
    StalledFsync,
    /// Bits flip in the segments of a broker that runs. The same broker for a whole run: others
    /// must have what it is to be mended with.
    BitFlip,
    /// A bit flips in the log, a checkpoint or the metadata of a broker that does not run.
    RottenStart,
    /// Brokers are stopped in order and started again, one after the other.
    RollingRestart,
    /// The wall clock of a leader's process jumps, by seconds or by days, forth or back; later back
    /// again.
    ClockJump,
    /// A leader dies and comes back with another wall clock; later it dies again, and its clock is right.
    WrongStart,
    /// A further broker joins, gets replicas, is drained and removed.
    ComeAndGo,
    /// Partitions go to other shards, some of them only half-way.
    MovePartition,
    /// A broker's disk is lost for good and replaced by an empty one.
    Replace,
    /// Leaders are moved about by hand.
    TransferLeaders,
    /// Many members join a consumer group and leave it, or vanish.
    RebalanceStorm,
}

/// What a kind of fault needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// A cluster.
    Nothing,
    /// Brokers that this harness started.
    Processes,
    /// Network namespaces.
    Network,
    /// File systems that can lose power.
    Power,
    /// Both of the above.
    NetworkAndPower,
    /// Network namespaces, and a kernel that can queue and double packets.
    Links,
    /// A library that shows a process another wall clock than the machine's.
    Clock,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lane {
    Process,
    Network,
    Both,
    Leaders,
    Members,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 40] = [
        Self::KillFollower,
        Self::KillLeader,
        Self::KillMajority,
        Self::KillAll,
        Self::KillCoordinator,
        Self::CrashLoop,
        Self::Pause,
        Self::IsolateLeader,
        Self::Halves,
        Self::Bridge,
        Self::Ring,
        Self::OneWay,
        Self::Flapping,
        Self::ClientSide,
        Self::SlowLink,
        Self::Reorder,
        Self::Duplicate,
        Self::HalfOpen,
        Self::SilentDeath,
        Self::PowerLoss,
        Self::PowerLossAll,
        Self::TornSectors,
        Self::Laggard,
        Self::Amnesia,
        Self::Kingmaker,
        Self::Wipe,
        Self::FsyncError,
        Self::DiskFull,
        Self::SlowFsync,
        Self::StalledFsync,
        Self::BitFlip,
        Self::RottenStart,
        Self::RollingRestart,
        Self::ClockJump,
        Self::WrongStart,
        Self::ComeAndGo,
        Self::MovePartition,
        Self::Replace,
        Self::TransferLeaders,
        Self::RebalanceStorm,
    ];

    /// Its name, and the group by which it can be asked for.
    #[must_use]
    pub const fn names(self) -> (&'static str, &'static str) {
        match self {
            Self::KillFollower => ("kill-follower", "kill"),
            Self::KillLeader => ("kill-leader", "kill"),
            Self::KillMajority => ("kill-majority", "kill"),
            Self::KillAll => ("kill-all", "kill"),
            Self::KillCoordinator => ("kill-coordinator", "kill"),
            Self::CrashLoop => ("crash-loop", "kill"),
            Self::Pause => ("pause", "pause"),
            Self::IsolateLeader => ("isolate-leader", "partition"),
            Self::Halves => ("halves", "partition"),
            Self::Bridge => ("bridge", "partition"),
            Self::Ring => ("ring", "partition"),
            Self::OneWay => ("one-way", "partition"),
            Self::Flapping => ("flapping", "partition"),
            Self::ClientSide => ("client-side", "partition"),
            Self::SlowLink => ("slow-link", "link"),
            Self::Reorder => ("reorder", "link"),
            Self::Duplicate => ("duplicate", "link"),
            Self::HalfOpen => ("half-open", "link"),
            Self::SilentDeath => ("silent-death", "link"),
            Self::PowerLoss => ("power-loss", "power"),
            Self::PowerLossAll => ("power-loss-all", "power"),
            Self::TornSectors => ("torn-sectors", "power"),
            Self::Laggard => ("laggard", "composite"),
            Self::Amnesia => ("amnesia", "composite"),
            Self::Kingmaker => ("kingmaker", "composite"),
            Self::Wipe => ("wipe", "disk"),
            Self::FsyncError => ("fsync-error", "bad-disk"),
            Self::DiskFull => ("disk-full", "bad-disk"),
            Self::SlowFsync => ("slow-fsync", "bad-disk"),
            Self::StalledFsync => ("stalled-fsync", "bad-disk"),
            Self::BitFlip => ("bit-flip", "bad-disk"),
            Self::RottenStart => ("rotten-start", "bad-disk"),
            Self::RollingRestart => ("rolling-restart", "restart"),
            Self::ClockJump => ("clock-jump", "clock"),
            Self::WrongStart => ("wrong-start", "clock"),
            Self::ComeAndGo => ("come-and-go", "members"),
            Self::MovePartition => ("move-partition", "moves"),
            Self::Replace => ("replace", "members"),
            Self::TransferLeaders => ("transfer-leaders", "transfer"),
            Self::RebalanceStorm => ("rebalance-storm", "storm"),
        }
    }

    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        self.names().0
    }

    /// What it needs.
    #[must_use]
    pub fn need(self) -> Need {
        match self.names().1 {
            "partition" => Need::Network,
            "link" => Need::Links,
            "power" | "bad-disk" => Need::Power,
            "composite" => Need::NetworkAndPower,
            "clock" => Need::Clock,
            "transfer" | "storm" | "moves" => Need::Nothing,
            _ => Need::Processes,
        }
    }

    /// Whether it means anything with so many brokers. Of three, each hears two others at most, so
    /// a ring of majorities is the whole.
    ///
    /// # Errors
    /// How many it takes.
    pub const fn suits(self, brokers: u32) -> Result<(), &'static str> {
        match self {
            Self::Ring if brokers < 5 => Err("it takes five brokers (--brokers 5)"),
            Self::Laggard | Self::Kingmaker if brokers != 3 => {
                Err("it takes three brokers (--brokers 3)")
            }
            Self::KillAll | Self::PowerLossAll => Ok(()),
            _ if brokers < 3 => Err("it takes three brokers or more"),
            _ => Ok(()),
        }
    }

    /// Whether more than half of the brokers stay whole, hear each other and are heard by clients: every
    /// partition can then be served while it lasts, and how long it lasts is no excuse.
    #[must_use]
    pub const fn leaves_majority(self) -> bool {
        !matches!(
            self,
            Self::KillMajority
                | Self::KillAll
                | Self::PowerLossAll
                | Self::Laggard
                | Self::Kingmaker
                | Self::ClientSide
                | Self::SlowLink
                | Self::Reorder
                | Self::Duplicate
                | Self::RollingRestart
                | Self::ComeAndGo
                | Self::MovePartition
                | Self::TransferLeaders
                | Self::RebalanceStorm
        )
    }

    /// Whether it has no moment at which it begins to be felt: leaders move again and again, or a disk is slow with
    /// the next sync. What counts is then the longest time without an acknowledgement.
    #[must_use]
    pub const fn is_measured_by_gaps(self) -> bool {
        matches!(
            self,
            Self::TransferLeaders | Self::RollingRestart | Self::SlowFsync | Self::StalledFsync
        )
    }

    /// The longest that a partition which it hits may go without an acknowledgement; nothing: no goal was
    /// set. Of all brokers at once it counts from the moment at which they are started again.
    #[must_use]
    pub const fn bound(self) -> Option<Duration> {
        let millis = match self {
            Self::TransferLeaders | Self::RollingRestart => 500,
            Self::KillLeader
            | Self::KillFollower
            | Self::KillCoordinator
            | Self::PowerLoss
            | Self::TornSectors => 2_000,
            // Nobody is told that the leader is gone, or it is not. One whose disk stands still may go on
            // leading, as long as two others make its entries durable.
            Self::SilentDeath
            | Self::Pause
            | Self::IsolateLeader
            | Self::Halves
            | Self::SlowFsync
            | Self::StalledFsync => 4_000,
            Self::KillAll | Self::PowerLossAll => 15_000,
            _ => return None,
        };
        Some(Duration::from_millis(millis))
    }

    pub(crate) fn lane(self) -> Lane {
        match self.names().1 {
            _ if matches!(self, Self::SilentDeath | Self::Replace | Self::WrongStart) => {
                Lane::Process
            }
            "partition" | "link" => Lane::Network,
            // One plan at a time.
            "members" | "moves" => Lane::Members,
            "composite" => Lane::Both,
            "clock" | "transfer" | "storm" => Lane::Leaders,
            _ => Lane::Process,
        }
    }

    pub(crate) fn sets_clocks(self) -> bool {
        self.names().1 == "clock"
    }

    /// Whether a schedule can have both at once.
    #[must_use]
    pub fn can_overlap(self, other: Self) -> bool {
        let (a, b) = (self.lane(), other.lane());
        let both =
            |a: Lane, b: Lane| a == Lane::Both && !matches!(b, Lane::Leaders | Lane::Members);
        // A broker has one clock.
        let clocks = self.sets_clocks() && other.sets_clocks();
        a != b && !clocks && !both(a, b) && !both(b, a)
    }

    /// How long it lasts, at least and at most, in milliseconds.
    pub(crate) const fn lasts_ms(self) -> (u64, u64) {
        match self {
            Self::Pause => (1_000, 60_000),
            Self::KillAll | Self::KillMajority | Self::PowerLossAll => (500, 5_000),
            Self::KillFollower | Self::KillLeader | Self::PowerLoss => (500, 12_000),
            Self::KillCoordinator => (500, 8_000),
            Self::TornSectors => (1_000, 8_000),
            Self::FsyncError => (6_000, 12_000),
            Self::BitFlip => (1_000, 6_000),
            Self::StalledFsync => (3_000, 30_000),
            // Long enough for all brokers, one after the other.
            Self::RollingRestart => (12_000, 30_000),
            Self::ClockJump | Self::WrongStart => (8_000, 20_000),
            // Half of those that refuse are given up, and a disk takes its time to be filled.
            Self::RottenStart => (10_000, 25_000),
            Self::CrashLoop => (5_000, 15_000),
            Self::SilentDeath => (1_000, 12_000),
            Self::HalfOpen => (5_000, 25_000),
            Self::ComeAndGo => (25_000, 60_000),
            Self::MovePartition => (10_000, 30_000),
            Self::Replace => (12_000, 30_000),
            Self::Laggard => (6_000, 14_000),
            Self::Wipe => (3_000, 8_000),
            Self::Amnesia => (4_000, 8_000),
            Self::Kingmaker => (8_000, 20_000),
            Self::Flapping | Self::TransferLeaders => (5_000, 15_000),
            _ => (3_000, 20_000),
        }
    }
}

/// The kinds that a list names one by one, and not by a group of theirs: whoever does so means them.
#[must_use]
pub fn named_kinds(text: &str) -> Vec<Kind> {
    let words: Vec<&str> = text.split(',').map(str::trim).collect();
    let mut named = Kind::ALL.to_vec();
    named.retain(|kind| words.contains(&kind.name()));
    named
}

/// The kinds that a list of names and groups means; `all` and `none` are groups too.
///
/// # Errors
/// The first word that means nothing.
pub fn parse_kinds(text: &str) -> Result<Vec<Kind>, String> {
    let mut kinds = Vec::new();
    for word in text
        .split(',')
        .map(str::trim)
        .filter(|word| !word.is_empty())
    {
        let means = |kind: &Kind| {
            let (name, group) = kind.names();
            word == name || word == group || word == "all"
        };
        let found: Vec<Kind> = Kind::ALL.into_iter().filter(means).collect();
        if found.is_empty() && word != "none" {
            return Err(format!("there is no fault {word:?}"));
        }
        kinds.extend(found);
    }
    kinds.sort_unstable();
    kinds.dedup();
    Ok(kinds)
}
