//! What is broken in a run, and when: all of it follows from the seed.

mod plan;

use std::time::Duration;

use highwater_env::{CallKind, Loss};
use turmoil::Sim;

use crate::cluster::{Cluster, End};
use crate::surroundings::set_slowness;
use crate::trace;
pub use plan::Plan;

/// Latency of a message in good times, in milliseconds.
pub const LATENCY_MS: u64 = 3;

/// One change of the world. Nodes are counted from 0.
#[derive(Debug, Clone)]
enum Change {
    /// A node hears nobody, and nobody hears it.
    Isolate(usize),
    /// It does again.
    Rejoin(usize),
    /// Nothing arrives between two nodes.
    Cut(usize, usize),
    /// It does again.
    Mend(usize, usize),
    /// Nothing arrives from one node at another.
    CutOneWay(usize, usize),
    /// It does again.
    MendOneWay(usize, usize),
    /// Messages between two nodes wait.
    Hold(usize, usize),
    /// They arrive.
    Release(usize, usize),
    /// A message takes up to this many milliseconds.
    Slow(u64),
    /// A client and a node do not hear each other.
    CutClient(String, usize),
    /// They do again.
    MendClient(String, usize),
    /// A node goes down between two steps.
    Down(usize, End),
    /// It does at this file call from now.
    DownAtCall(usize, u64, End),
    /// All nodes go down.
    AllDown(u64),
    /// A node starts again, if it is down.
    Start(usize),
    /// All nodes start again.
    StartAll,
    /// The next sync of this kind fails.
    FailSync(usize, CallKind),
    /// A node's workers wait for its disk up to so many milliseconds.
    SlowDisk(usize, u64),
    /// A node's disk has room for so many bytes more, or for everything.
    Room(usize, Option<u64>),
    /// A node's clock jumps by so many milliseconds.
    Jump(usize, i64),
    /// Bits of a node's segments flip.
    Rot(usize, u64),
    /// A node loses its disk.
    Wipe(usize),
}

impl Change {
    fn apply(
        &self,
        sim: &mut Sim<'_>,
        cluster: &mut Cluster,
        names: &[&'static str],
        now: Duration,
    ) -> anyhow::Result<()> {
        let name = |node: usize| names.get(node).copied().unwrap_or("n1");
        let others = |node: usize| names.iter().copied().filter(move |n| *n != name(node));
        match *self {
            Self::Isolate(node) => others(node).for_each(|other| sim.partition(name(node), other)),
            Self::Rejoin(node) => others(node).for_each(|other| sim.repair(name(node), other)),
            Self::Cut(a, b) => sim.partition(name(a), name(b)),
            Self::Mend(a, b) => sim.repair(name(a), name(b)),
            Self::CutOneWay(a, b) => sim.partition_oneway(name(a), name(b)),
            Self::MendOneWay(a, b) => sim.repair_oneway(name(a), name(b)),
            Self::Hold(a, b) => sim.hold(name(a), name(b)),
            Self::Release(a, b) => sim.release(name(a), name(b)),
            Self::Slow(most) => sim.set_max_message_latency(Duration::from_millis(most)),
            Self::CutClient(ref client, node) => sim.partition(client.as_str(), name(node)),
            Self::MendClient(ref client, node) => sim.repair(client.as_str(), name(node)),
            Self::Down(node, end) => cluster.end(sim, node, end),
            Self::DownAtCall(node, calls, end) => cluster.arm(node, calls, end),
            Self::AllDown(seed) => {
                for node in 0..names.len() {
                    let seed = seed.wrapping_add(node as u64);
                    cluster.end(sim, node, End::Power(Loss::Random { seed }));
                }
            }
            Self::Start(node) => cluster.bounce(sim, node),
            Self::StartAll => (0..names.len()).for_each(|node| cluster.bounce(sim, node)),
            Self::FailSync(node, call) => cluster.fail_sync(node, call),
            Self::SlowDisk(node, ms) => set_slowness(name(node), Duration::from_millis(ms)),
            Self::Room(node, bytes) => cluster.set_room(node, bytes),
            Self::Jump(node, ms) => cluster.jump(node, ms),
            Self::Rot(node, seed) => {
                cluster.rot(node, seed);
            }
            Self::Wipe(node) => cluster.wipe(sim, node, now)?,
        }
        Ok(())
    }
}

/// Ends every fault.
pub fn heal(sim: &mut Sim<'_>, cluster: &mut Cluster, names: &[&'static str], clients: &[String]) {
    trace::note("healed", "", format_args!(""));
    for (at, a) in names.iter().copied().enumerate() {
        for b in names.iter().copied().skip(at + 1) {
            sim.repair(a, b);
            sim.release(a, b);
        }
        for client in clients {
            sim.repair(client.as_str(), a);
        }
    }
    sim.set_max_message_latency(Duration::from_millis(LATENCY_MS));
    cluster.heal(sim);
}
