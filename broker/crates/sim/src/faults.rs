//! What is broken in a run, and when: all of it follows from the seed.

use std::time::Duration;

use highwater_env::Loss;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use turmoil::Sim;

use crate::cluster::{Cluster, NODES};
use crate::trace;

/// Latency of a message in good times, in milliseconds.
pub const LATENCY_MS: u64 = 3;

/// One change of the world.
#[derive(Debug, Clone, Copy)]
enum Change {
    /// A node hears nobody, and nobody hears it.
    Isolate(usize),
    /// It does again.
    Rejoin(usize),
    /// Nothing arrives between two nodes.
    Cut(usize, usize),
    /// It does again.
    Mend(usize, usize),
    /// Messages between two nodes wait.
    Hold(usize, usize),
    /// They arrive.
    Release(usize, usize),
    /// A message takes up to this many milliseconds.
    Slow(u64),
    /// The power of a node fails between two steps.
    Crash(usize, Loss),
    /// It fails at this file call from now.
    CrashAtCall(usize, u64, Loss),
    /// The power of all nodes fails.
    Blackout(u64),
    /// A node starts again.
    Start(usize),
}

/// Changes with their times since the faults began, in order.
#[derive(Debug)]
pub struct Plan {
    changes: Vec<(Duration, Change)>,
    next: usize,
}

impl Plan {
    /// A plan for faults that last `length`. Each kind of fault comes at least once when there is
    /// time for all; one follows the other.
    #[must_use]
    pub fn new(seed: u64, length: Duration) -> Self {
        let mut rng = StdRng::seed_from_u64(seed ^ 0x000f_a017);
        let mut changes = Vec::new();
        let mut at = Duration::from_millis(rng.random_range(200..600));
        let mut kind = rng.random_range(0..6_u32);
        while at < length {
            let lasts = Duration::from_millis(rng.random_range(300..1_500));
            let node = rng.random_range(0..NODES.len());
            let other = (node + rng.random_range(1..NODES.len())) % NODES.len();
            let loss = if rng.random_ratio(1, 4) {
                Loss::Everything
            } else {
                Loss::Random { seed: rng.random() }
            };
            let (begin, end) = match kind % 6 {
                0 => (Change::Isolate(node), Change::Rejoin(node)),
                1 => (Change::Crash(node, loss), Change::Start(node)),
                2 => (Change::Hold(node, other), Change::Release(node, other)),
                3 => {
                    let calls = rng.random_range(0..200);
                    (Change::CrashAtCall(node, calls, loss), Change::Start(node))
                }
                4 => (
                    Change::Slow(rng.random_range(20..120)),
                    Change::Slow(LATENCY_MS),
                ),
                _ if rng.random_ratio(1, 2) => {
                    (Change::Cut(node, other), Change::Mend(node, other))
                }
                _ => {
                    for node in 0..NODES.len() {
                        changes.push((at + lasts, Change::Start(node)));
                    }
                    (Change::Blackout(rng.random()), Change::Start(node))
                }
            };
            changes.push((at, begin));
            changes.push((at + lasts, end));
            kind += 1;
            at += lasts + Duration::from_millis(rng.random_range(400..1_200));
        }
        changes.sort_by_key(|(at, _)| *at);
        Self { changes, next: 0 }
    }

    /// Makes the changes that are due `since` after the faults began.
    pub fn act(&mut self, sim: &mut Sim<'_>, cluster: &mut Cluster, since: Duration) {
        while let Some((at, change)) = self.changes.get(self.next)
            && *at <= since
        {
            self.next += 1;
            trace::note("fault", "", format_args!(" {change:?}"));
            apply(*change, sim, cluster);
        }
    }
}

fn apply(change: Change, sim: &mut Sim<'_>, cluster: &mut Cluster) {
    let others = |node: usize| NODES.into_iter().filter(move |name| *name != NODES[node]);
    match change {
        Change::Isolate(node) => others(node).for_each(|other| sim.partition(NODES[node], other)),
        Change::Rejoin(node) => others(node).for_each(|other| sim.repair(NODES[node], other)),
        Change::Cut(a, b) => sim.partition(NODES[a], NODES[b]),
        Change::Mend(a, b) => sim.repair(NODES[a], NODES[b]),
        Change::Hold(a, b) => sim.hold(NODES[a], NODES[b]),
        Change::Release(a, b) => sim.release(NODES[a], NODES[b]),
        Change::Slow(most) => sim.set_max_message_latency(Duration::from_millis(most)),
        Change::Crash(node, loss) => cluster.crash(sim, node, loss),
        Change::CrashAtCall(node, calls, loss) => cluster.arm(node, calls, loss),
        Change::Blackout(seed) => {
            for node in 0..NODES.len() {
                let seed = seed.wrapping_add(node as u64);
                cluster.crash(sim, node, Loss::Random { seed });
            }
        }
        Change::Start(node) => cluster.bounce(sim, node),
    }
}

/// Ends every fault.
pub fn heal(sim: &mut Sim<'_>, cluster: &mut Cluster) {
    trace::note("healed", "", format_args!(""));
    for (at, a) in NODES.into_iter().enumerate() {
        for b in NODES.into_iter().skip(at + 1) {
            sim.repair(a, b);
            sim.release(a, b);
        }
    }
    sim.set_max_message_latency(Duration::from_millis(LATENCY_MS));
    cluster.heal(sim);
}
