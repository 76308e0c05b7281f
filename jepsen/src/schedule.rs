//! What is broken when: a pure function of the seed, so that a run can be made again.
//!
//! Faults of processes follow one another, and so do faults of the network, transfers of
//! leaders, and brokers that come and go; faults of different lanes overlap, but not two that set clocks. A fault of
//! both lanes waits for both.

use rand::rngs::StdRng;
use rand::seq::SliceRandom as _;
use rand::{Rng as _, SeedableRng as _};
use serde::Serialize;

use crate::kind::Lane;
pub use crate::kind::{Kind, Need, named_kinds, parse_kinds};

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
    let lanes: [&[Lane]; 4] = [
        &[Lane::Process, Lane::Both],
        &[Lane::Network],
        &[Lane::Leaders],
        &[Lane::Members],
    ];
    let mut decks = lanes.map(|lanes| Deck::new(kinds, lanes));
    let mut free = [(); 4].map(|()| QUIET_MS + random.random_range(0..3_000));
    let mut clocks_free = 0;
    loop {
        let open = (0..4).filter(|lane| !decks[*lane].kinds.is_empty());
        let Some(lane) = open.min_by_key(|lane| free[*lane]) else {
            break;
        };
        let Some(kind) = decks[lane].draw(&mut random) else {
            break;
        };
        let both = kind.lane() == Lane::Both;
        let mut at_ms = if both {
            free[0].max(free[1])
        } else {
            free[lane]
        };
        if kind.sets_clocks() {
            at_ms = at_ms.max(clocks_free);
        }
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
        if kind.sets_clocks() {
            clocks_free = free[lane];
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
            let shares = |a: Kind, b: Kind| !a.can_overlap(b);
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
        assert_eq!(
            named_kinds("partition, ring,kill-all"),
            [Kind::KillAll, Kind::Ring]
        );
    }
}
