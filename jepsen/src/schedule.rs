//! What is broken when: a pure function of the seed, so that a run can be made again.
//!
//! Faults of processes follow one another, and so do faults of the network and transfers of
//! leaders; faults of different lanes overlap. A fault of both lanes waits for both.

use rand::rngs::StdRng;
use rand::seq::SliceRandom as _;
use rand::{Rng as _, SeedableRng as _};
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
    /// A broker's machine loses power.
    PowerLoss,
    /// All machines lose power at once.
    PowerLossAll,
    /// One lags; of the two that acknowledged, one dies and one loses power and must elect a
    /// leader with the laggard.
    Laggard,
    /// A broker loses power and comes back where nobody can tell it whom it voted for.
    Amnesia,
    /// The one that two others need, and that alone hears both, loses power again and again.
    Kingmaker,
    /// A broker comes back with an empty disk, which must be refused; later with its own.
    Wipe,
    /// Leaders are moved about by hand.
    TransferLeaders,
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
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lane {
    Process,
    Network,
    Both,
    Leaders,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 20] = [
        Self::KillFollower,
        Self::KillLeader,
        Self::KillMajority,
        Self::KillAll,
        Self::CrashLoop,
        Self::Pause,
        Self::IsolateLeader,
        Self::Halves,
        Self::Bridge,
        Self::Ring,
        Self::OneWay,
        Self::Flapping,
        Self::ClientSide,
        Self::PowerLoss,
        Self::PowerLossAll,
        Self::Laggard,
        Self::Amnesia,
        Self::Kingmaker,
        Self::Wipe,
        Self::TransferLeaders,
    ];

    /// Its name, and the group by which it can be asked for.
    #[must_use]
    pub const fn names(self) -> (&'static str, &'static str) {
        match self {
            Self::KillFollower => ("kill-follower", "kill"),
            Self::KillLeader => ("kill-leader", "kill"),
            Self::KillMajority => ("kill-majority", "kill"),
            Self::KillAll => ("kill-all", "kill"),
            Self::CrashLoop => ("crash-loop", "kill"),
            Self::Pause => ("pause", "pause"),
            Self::IsolateLeader => ("isolate-leader", "partition"),
            Self::Halves => ("halves", "partition"),
            Self::Bridge => ("bridge", "partition"),
            Self::Ring => ("ring", "partition"),
            Self::OneWay => ("one-way", "partition"),
            Self::Flapping => ("flapping", "partition"),
            Self::ClientSide => ("client-side", "partition"),
            Self::PowerLoss => ("power-loss", "power"),
            Self::PowerLossAll => ("power-loss-all", "power"),
            Self::Laggard => ("laggard", "composite"),
            Self::Amnesia => ("amnesia", "composite"),
            Self::Kingmaker => ("kingmaker", "composite"),
            Self::Wipe => ("wipe", "disk"),
            Self::TransferLeaders => ("transfer-leaders", "transfer"),
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
            "power" => Need::Power,
            "composite" => Need::NetworkAndPower,
            "transfer" => Need::Nothing,
            _ => Need::Processes,
        }
    }

    /// Whether it means anything with so many brokers. Of three, each hears two others at most, so
    /// a ring of majorities is the whole.
    #[must_use]
    pub fn suits(self, brokers: u32) -> bool {
        match self {
            Self::Ring => brokers >= 5,
            Self::Laggard | Self::Kingmaker => brokers == 3,
            _ => brokers >= 3 || self == Self::KillAll || self == Self::PowerLossAll,
        }
    }

    fn lane(self) -> Lane {
        match self.names().1 {
            "partition" => Lane::Network,
            "composite" => Lane::Both,
            "transfer" => Lane::Leaders,
            _ => Lane::Process,
        }
    }

    /// How long it lasts, at least and at most, in milliseconds.
    const fn lasts_ms(self) -> (u64, u64) {
        match self {
            Self::Pause => (1_000, 60_000),
            Self::KillAll | Self::KillMajority | Self::PowerLossAll => (500, 5_000),
            Self::KillFollower | Self::KillLeader | Self::PowerLoss => (500, 12_000),
            Self::CrashLoop => (5_000, 15_000),
            Self::Laggard => (6_000, 14_000),
            Self::Wipe => (3_000, 8_000),
            Self::Amnesia => (4_000, 8_000),
            Self::Kingmaker => (8_000, 20_000),
            Self::Flapping | Self::TransferLeaders => (5_000, 15_000),
            _ => (3_000, 20_000),
        }
    }
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

/// One fault to come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Planned {
    /// Which, from 0.
    pub number: u32,
    /// What.
    pub kind: Kind,
    /// When, in milliseconds after the clients began.
    pub at_ms: u64,
    /// For how long.
    pub lasts_ms: u64,
    /// From which targets and details are chosen when it begins.
    pub pick: u64,
}

/// Before the first fault, and after the last one.
const QUIET_MS: u64 = 3_000;

/// Between two faults of a lane: long enough to see most recoveries, short enough to interrupt
/// some.
const GAP_MS: std::ops::Range<u64> = 2_000..8_000;

/// The faults of a run, in the order in which they begin. Every kind comes once before one comes
/// again, as far as the time allows.
#[must_use]
pub fn plan(seed: u64, time_ms: u64, kinds: &[Kind]) -> Vec<Planned> {
    let mut random = StdRng::seed_from_u64(seed);
    let end = time_ms.saturating_sub(QUIET_MS);
    let mut planned = Vec::new();
    let lanes: [&[Lane]; 3] = [
        &[Lane::Process, Lane::Both],
        &[Lane::Network],
        &[Lane::Leaders],
    ];
    let mut decks = lanes.map(|lanes| Deck::new(kinds, lanes));
    let mut free = [(); 3].map(|()| QUIET_MS + random.random_range(0..3_000));
    loop {
        let open = (0..3).filter(|lane| !decks[*lane].kinds.is_empty());
        let Some(lane) = open.min_by_key(|lane| free[*lane]) else {
            break;
        };
        let Some(kind) = decks[lane].draw(&mut random) else {
            break;
        };
        let both = kind.lane() == Lane::Both;
        let at_ms = if both {
            free[0].max(free[1])
        } else {
            free[lane]
        };
        let (least, most) = kind.lasts_ms();
        let most = most.min(time_ms / 4).max(least);
        let lasts_ms = random.random_range(least..=most);
        if at_ms + least > end {
            // Whatever else this lane has begins no earlier.
            decks[lane].kinds.clear();
            continue;
        }
        let lasts_ms = lasts_ms.min(end - at_ms);
        free[lane] = at_ms + lasts_ms + random.random_range(GAP_MS);
        if both {
            free[1] = free[lane];
        }
        let pick = random.random();
        planned.push(Planned {
            number: 0,
            kind,
            at_ms,
            lasts_ms,
            pick,
        });
    }
    planned.sort_by_key(|fault| fault.at_ms);
    for (number, fault) in (0..).zip(&mut planned) {
        fault.number = number;
    }
    planned
}

/// Kinds of one lane, dealt like cards.
struct Deck {
    kinds: Vec<Kind>,
    left: Vec<Kind>,
}

impl Deck {
    fn new(kinds: &[Kind], lanes: &[Lane]) -> Self {
        let of_lane = kinds
            .iter()
            .copied()
            .filter(|kind| lanes.contains(&kind.lane()));
        Self {
            kinds: of_lane.collect(),
            left: Vec::new(),
        }
    }

    fn draw(&mut self, random: &mut StdRng) -> Option<Kind> {
        if self.left.is_empty() {
            self.left.clone_from(&self.kinds);
            self.left.shuffle(random);
        }
        self.left.pop()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_seed_repeats_itself_and_another_does_not() {
        assert_eq!(plan(7, 60_000, &Kind::ALL), plan(7, 60_000, &Kind::ALL));
        assert_ne!(plan(7, 60_000, &Kind::ALL), plan(8, 60_000, &Kind::ALL));
    }

    #[test]
    fn every_fault_ends_before_the_run_and_lanes_do_not_overlap_themselves() {
        for seed in 0..200 {
            let planned = plan(seed, 60_000, &Kind::ALL);
            assert!(!planned.is_empty());
            for fault in &planned {
                let end = fault.at_ms + fault.lasts_ms;
                assert!(
                    fault.at_ms >= QUIET_MS && end + QUIET_MS <= 60_000,
                    "{fault:?}"
                );
                assert!(fault.lasts_ms >= fault.kind.lasts_ms().0, "{fault:?}");
            }
            let shares = |a: Kind, b: Kind| {
                let (a, b) = (a.lane(), b.lane());
                let either = a == Lane::Both && b != Lane::Leaders;
                a == b || either || (b == Lane::Both && a != Lane::Leaders)
            };
            for (place, a) in planned.iter().enumerate() {
                for b in &planned[place + 1..] {
                    let apart = a.at_ms + a.lasts_ms < b.at_ms;
                    assert!(!shares(a.kind, b.kind) || apart, "seed {seed}: {a:?} {b:?}");
                }
            }
        }
    }

    #[test]
    fn lanes_overlap_each_other() {
        let overlap = |seed| {
            let planned = plan(seed, 60_000, &Kind::ALL);
            planned
                .windows(2)
                .any(|pair| pair[0].at_ms + pair[0].lasts_ms > pair[1].at_ms)
        };
        assert!((0..50).all(overlap));
    }

    #[test]
    fn a_long_run_holds_every_kind() {
        let planned = plan(3, 600_000, &Kind::ALL);
        let kinds: BTreeSet<Kind> = planned.iter().map(|fault| fault.kind).collect();
        assert_eq!(kinds.len(), Kind::ALL.len());
    }

    #[test]
    fn no_kinds_or_no_time_means_no_faults() {
        assert!(plan(1, 60_000, &[]).is_empty());
        assert!(plan(1, 2_000, &Kind::ALL).is_empty());
    }

    #[test]
    fn kinds_are_asked_for_by_name_by_group_or_all() {
        assert_eq!(parse_kinds("all").expect("known"), Kind::ALL);
        assert_eq!(parse_kinds("none").expect("known"), []);
        assert_eq!(
            parse_kinds("pause, kill-all").expect("known"),
            [Kind::KillAll, Kind::Pause]
        );
        assert_eq!(parse_kinds("partition").expect("known").len(), 7);
        assert!(parse_kinds("earthquake").is_err());
    }
}
