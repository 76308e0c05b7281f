//! What is broken in a run, and when: all of it follows from the seed.

mod plan;
mod strikes;

use std::net::IpAddr;
use std::time::Duration;

use highwater_env::{CallKind, Loss};
use turmoil::Sim;

use crate::cluster::Cluster;
use crate::node::End;
use crate::surroundings::set_slowness;
use crate::trace;
pub use plan::Plan;
pub use strikes::{Effect, Fault, Probe, Strike, Tally};

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
    /// As long as in good times.
    Fast,
    /// A message breaks its link at this rate: what is under way there is lost, and what comes after it
    /// until the link is whole again.
    Lose(f64),
    /// None does.
    LoseNone,
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
    /// No longer than in good times.
    FastDisk(usize, u64),
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
        (now, fault): (Duration, Fault),
    ) -> anyhow::Result<Effect> {
        let name = |node: usize| names.get(node).copied().unwrap_or("n1");
        match *self {
            Self::Down(node, end) => {
                let ran = cluster.end(sim, node, end);
                return Ok(Effect::struck_if(ran, Strike::Down));
            }
            Self::DownAtCall(node, calls, end) => cluster.arm(node, calls, end, fault),
            Self::AllDown(seed) => {
                let mut any = false;
                for node in 0..names.len() {
                    let seed = seed.wrapping_add(node as u64);
                    any |= cluster.end(sim, node, End::Power(Loss::Random { seed }));
                }
                return Ok(Effect::struck_if(any, Strike::Down));
            }
            Self::Start(node) => cluster.bounce(sim, node),
            Self::StartAll => (0..names.len()).for_each(|node| cluster.bounce(sim, node)),
            Self::FailSync(node, call) => cluster.fail_sync(node, call, fault),
            Self::SlowDisk(node, ms) => {
                set_slowness(name(node), Duration::from_millis(ms));
                return Ok(Effect::Watch(Probe::Waits(name(node))));
            }
            Self::FastDisk(node, ms) => {
                set_slowness(name(node), Duration::from_millis(ms));
                return Ok(Effect::Over);
            }
            Self::Room(node, bytes) => cluster.set_room(node, bytes, fault),
            Self::Jump(node, ms) => {
                let ran = cluster.jump(node, ms);
                return Ok(Effect::struck_if(ran, Strike::Other));
            }
            Self::Rot(node, seed) => {
                let flipped = cluster.rot(node, seed);
                return Ok(Effect::struck_if(flipped > 0, Strike::Other));
            }
            Self::Wipe(node) => {
                cluster.wipe(sim, node, now)?;
                return Ok(Effect::Struck(Strike::Other));
            }
            _ => return Ok(self.apply_to_network(sim, names)),
        }
        Ok(Effect::None)
    }

    fn apply_to_network(&self, sim: &mut Sim<'_>, names: &[&'static str]) -> Effect {
        let name = |node: usize| names.get(node).copied().unwrap_or("n1");
        let others = |node: usize| names.iter().copied().filter(move |n| *n != name(node));
        let stopped = |pairs: Vec<(IpAddr, IpAddr)>| Effect::Watch(Probe::Stopped(pairs));
        match *self {
            Self::Isolate(node) => {
                others(node).for_each(|other| sim.partition(name(node), other));
                let pairs = others(node).map(|other| pair(sim, name(node), other));
                return stopped(pairs.collect());
            }
            Self::Rejoin(node) => others(node).for_each(|other| sim.repair(name(node), other)),
            Self::Cut(a, b) => {
                sim.partition(name(a), name(b));
                return stopped(vec![pair(sim, name(a), name(b))]);
            }
            Self::Mend(a, b) => sim.repair(name(a), name(b)),
            Self::CutOneWay(a, b) => {
                sim.partition_oneway(name(a), name(b));
                return stopped(vec![pair(sim, name(a), name(b))]);
            }
            Self::MendOneWay(a, b) => sim.repair_oneway(name(a), name(b)),
            Self::Hold(a, b) => {
                sim.hold(name(a), name(b));
                return stopped(vec![pair(sim, name(a), name(b))]);
            }
            Self::Release(a, b) => sim.release(name(a), name(b)),
            Self::Slow(most) => {
                sim.set_max_message_latency(Duration::from_millis(most));
                return Effect::Watch(Probe::Sent);
            }
            Self::Fast => sim.set_max_message_latency(Duration::from_millis(LATENCY_MS)),
            Self::Lose(rate) => {
                sim.set_fail_rate(rate);
                return Effect::Watch(Probe::AnyStopped);
            }
            Self::LoseNone => sim.set_fail_rate(0.0),
            Self::CutClient(ref client, node) => {
                sim.partition(client.as_str(), name(node));
                return stopped(vec![pair(sim, client, name(node))]);
            }
            Self::MendClient(ref client, node) => sim.repair(client.as_str(), name(node)),
            _ => return Effect::None,
        }
        Effect::Over
    }
}

/// The two ends of a link, in order.
fn pair(sim: &Sim<'_>, a: &str, b: &str) -> (IpAddr, IpAddr) {
    let (a, b) = (sim.lookup(a), sim.lookup(b));
    (a.min(b), a.max(b))
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
    sim.set_fail_rate(0.0);
    cluster.heal(sim);
}
