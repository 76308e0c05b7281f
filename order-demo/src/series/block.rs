//! Which blocks there are, and which comes next. Pure.

use std::time::Duration;

use super::done::Done;
use crate::driver::faults::{Fault, FaultKind, STATEFUL, STATELESS};
use crate::driver::schedule::Burst;
use crate::services::config::Mode;

/// Runs of what is measured once each: a claim needs five.
const ROUNDS: usize = 5;
/// Stands between the name of what is measured and the number of its round, from the second on.
pub(super) const ROUND: char = '#';
/// Kills of each kind.
const KILLS: u64 = 30;
/// Orders beside each of them: 300,000 in all.
const ORDERS_PER_KILL: u64 = 10_000;
/// Pairs of runs with and without a notifier.
const PAIRS: u64 = 5;
/// What a burst has to leave uncommitted in the group of a service without state, on average over a second,
/// before it gets a further worker: low, as two processors are short for everybody before such a service is
/// far behind.
const BURST_LAG: u64 = 80;
/// The first rate that is tried, in orders per second.
const FIRST_RATE: f64 = 100.0;
/// How long each rate is tried, in seconds.
const TRIED_S: f64 = 15.0;
/// A rate is borne when the last order ends so soon after the last was accepted, in seconds.
const DRAIN_S: f64 = 2.0;
/// The search ends when the rate that is borne and the one that is not are so close.
const CLOSE: f64 = 1.1;
/// Steps of the search at the most.
const STEPS: usize = 10;

/// What a block is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Is this rate borne?
    Peak,
    /// Latency at a share of the peak, in percent.
    Load(u64),
    /// Kills of all three kinds.
    Kills,
    /// Without a notifier for a minute, or with one.
    Notifier(bool),
    /// A burst of so many times the rate.
    Burst(u64),
    /// 60 of 100 payments fail.
    Payments,
    /// A thousand poisoned orders.
    Poison,
    /// Every mode; with a slow dependency, or without.
    Modes(bool),
    /// So many partitions for each topic.
    Partitions(u32),
}

/// One block.
#[derive(Debug, Clone, PartialEq)]
pub struct Block {
    /// Its name, unique in the series.
    pub name: String,
    /// What it is about.
    pub kind: Kind,
    /// The seed of its orders.
    pub seed: u64,
    /// Orders per second.
    pub rate: f64,
    /// Orders.
    pub count: u64,
    /// Of those, poisoned.
    pub poison: u64,
    /// What is broken.
    pub faults: Vec<Fault>,
    /// How long faults last that are no kills.
    pub fault_lasts: Duration,
    /// Bursts.
    pub bursts: Vec<Burst>,
    /// The modes.
    pub modes: Vec<Mode>,
    /// Partitions of topics that have 6 in demo scale; none: as they are.
    pub partitions: Option<u32>,
    /// Workers of a stateless service at the most, started on lag.
    pub workers: u32,
    /// The lag that starts one, in messages; none: as usual.
    pub scale_lag: Option<u64>,
}

impl Block {
    fn new(kind: Kind, name: String, rate: f64, seconds: f64) -> Self {
        let rate = rate.max(1.0).round();
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let count = (rate * seconds).max(10.0) as u64;
        Self {
            seed: seed(&name),
            name,
            kind,
            rate,
            count,
            poison: 0,
            faults: Vec::new(),
            fault_lasts: Duration::from_secs(10),
            bursts: Vec::new(),
            modes: vec![Mode::Event],
            partitions: None,
            workers: 1,
            scale_lag: None,
        }
    }

    /// The same with other orders.
    fn again(&self, round: usize) -> Self {
        let name = format!("{}{ROUND}{round}", self.name);
        Self {
            seed: seed(&name),
            name,
            ..self.clone()
        }
    }

    fn breaking(mut self, kinds: &[FaultKind]) -> Self {
        let fault = |kind: &FaultKind| Fault {
            kind: kind.clone(),
            at: None,
        };
        self.faults = kinds.iter().map(fault).collect();
        self
    }

    fn begin_faults(&mut self, at: Duration) {
        for fault in &mut self.faults {
            fault.at = Some(at);
        }
    }
}

fn seed(name: &str) -> u64 {
    crate::order::fnv(name.as_bytes()) % 1_000_000
}

/// Whether the backlog of a run stayed bounded.
#[must_use]
pub fn is_borne(done: &Done) -> bool {
    done.event().is_some_and(|run| run.drain_s <= DRAIN_S)
}

/// What the search for the peak has found: the highest rate that is borne, and the lowest that is not.
#[must_use]
pub fn peak(results: &[Done]) -> (Option<f64>, Option<f64>) {
    let tried = || {
        results
            .iter()
            .filter(|done| done.block.starts_with("peak-"))
    };
    let fails = tried().filter(|done| !is_borne(done)).map(|done| done.rate);
    let fails = fails.min_by(f64::total_cmp);
    let borne = tried().filter(|done| is_borne(done)).map(|done| done.rate);
    // A rate above one that was not borne was luck.
    let borne = borne.filter(|rate| fails.is_none_or(|fails| *rate < fails));
    (borne.max_by(f64::total_cmp), fails)
}

fn search(results: &[Done]) -> Option<Block> {
    let steps = results.iter().filter(|d| d.block.starts_with("peak-"));
    let rate = match peak(results) {
        _ if steps.count() >= STEPS => return None,
        (None, None) => FIRST_RATE,
        (Some(borne), None) => borne * 1.6,
        (None, Some(fails)) => fails / 2.0,
        (Some(borne), Some(fails)) if fails / borne <= CLOSE => return None,
        (Some(borne), Some(fails)) => (borne * fails).sqrt(),
    };
    let name = format!("peak-{rate:.0}");
    let again = results.iter().any(|done| done.block == name);
    (!again).then(|| Block::new(Kind::Peak, name, rate, TRIED_S))
}

/// The blocks after the search, at a peak of so many orders per second.
fn paced(peak: f64) -> Vec<Block> {
    let mut blocks = Vec::new();
    for share in [50, 80, 100] {
        #[allow(clippy::cast_precision_loss)]
        let rate = peak * share as f64 / 100.0;
        let name = format!("load-{share}");
        blocks.push(Block::new(Kind::Load(share), name, rate, 30.0));
    }
    for with in [false, true] {
        let name = if with { "modes-slow" } else { "modes-healthy" };
        let mut block = Block::new(Kind::Modes(with), name.to_owned(), peak / 4.0, 20.0);
        block.modes = Mode::ALL.to_vec();
        if with {
            block = block.breaking(&[FaultKind::SlowDependency]);
        }
        blocks.push(block);
    }
    for times in [4, 5, 6] {
        #[allow(clippy::cast_precision_loss)]
        let factor = times as f64;
        // 15 seconds, a burst of five seconds, and some time after it.
        let name = format!("burst-{times}x");
        let seconds = 25.0 + 5.0 * factor;
        let mut block = Block::new(Kind::Burst(times), name, peak / 3.0, seconds);
        (block.workers, block.scale_lag) = (2, Some(BURST_LAG));
        block.bursts = vec![Burst {
            factor,
            at: Duration::from_secs(15),
        }];
        blocks.push(block);
    }
    let name = "payment-errors".to_owned();
    let mut payments = Block::new(Kind::Payments, name, peak / 3.0, 60.0);
    payments.fault_lasts = Duration::from_secs(30);
    payments = payments.breaking(&[FaultKind::PaymentErrors]);
    // Before many calls have succeeded: those of the last minute count for the circuit, too.
    payments.begin_faults(Duration::from_secs(1));
    blocks.push(payments);
    let mut poison = Block::new(Kind::Poison, "poison-1000".to_owned(), peak / 2.0, 1.0);
    (poison.count, poison.poison) = (5_000, 1_000);
    blocks.push(poison.breaking(&[FaultKind::Poison]));
    for partitions in [1, 6, 24, 96] {
        let name = format!("partitions-{partitions}");
        let mut block = Block::new(Kind::Partitions(partitions), name, peak, 20.0);
        block.partitions = Some(partitions);
        blocks.push(block);
    }
    let first = blocks.clone();
    blocks.extend(pairs(peak));
    blocks.extend(kills(peak));
    // At the end: a series that was stopped has something of everything.
    for round in 2..=ROUNDS {
        blocks.extend(first.iter().map(|block| block.again(round)));
    }
    blocks
}

/// With a notifier and without one, in turns.
fn pairs(peak: f64) -> Vec<Block> {
    let mut blocks = Vec::new();
    for pair in 1..=PAIRS {
        for without in [false, true] {
            let what = if without { "without" } else { "with" };
            let name = format!("notifier-{what}-{pair}");
            let mut block = Block::new(Kind::Notifier(without), name, peak / 2.0, 75.0);
            if without {
                block = block.breaking(&[FaultKind::NotifierOutage]);
                block.fault_lasts = Duration::from_secs(60);
                block.begin_faults(Duration::from_secs(5));
            }
            blocks.push(block);
        }
    }
    blocks
}

fn kills(peak: f64) -> Vec<Block> {
    let kinds = [
        FaultKind::BrokerLeader,
        FaultKind::Kill(STATELESS.name()),
        FaultKind::Kill(STATEFUL.name()),
    ];
    let block = |number: u64| {
        let mut block = Block::new(Kind::Kills, format!("kills-{number:02}"), peak * 0.6, 1.0);
        block.count = ORDERS_PER_KILL;
        block.breaking(&kinds)
    };
    (1..=KILLS).map(block).collect()
}

/// The next block that is not done; none when the series is complete.
#[must_use]
pub fn next(results: &[Done]) -> Option<Block> {
    if let Some(block) = search(results) {
        return Some(block);
    }
    let (borne, _) = peak(results);
    let blocks = paced(borne.unwrap_or(FIRST_RATE / 2.0));
    let done = |block: &Block| results.iter().any(|done| done.block == block.name);
    blocks.into_iter().find(|block| !done(block))
}

/// How many blocks follow the search.
#[must_use]
pub fn total() -> usize {
    paced(FIRST_RATE).len()
}
