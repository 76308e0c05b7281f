//! A broker's surroundings, simulated: network and time by turmoil, the disk by ours.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use highwater_broker::node::marks::ReplicaMarks;
use highwater_env::{CallKind, Clock, Env, Listener, Net, SimDisk, Workers};
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use turmoil::net::{TcpListener, TcpStream};

use crate::trace;

/// What the wall clocks show at the start of a run, in milliseconds since the Unix epoch.
pub const EPOCH_MS: i64 = 1_767_225_600_000;

/// The simulated time that has passed, as the code that runs now sees it.
#[must_use]
pub fn elapsed() -> Duration {
    // Code that runs while a crashed node is taken apart has no time of its own.
    turmoil::sim_elapsed().unwrap_or_default()
}

/// A wall clock that goes with the simulation and is off by what it is told.
#[derive(Debug, Clone, Default)]
pub struct SimClock(Arc<AtomicI64>);

impl SimClock {
    /// A clock that is ahead by so many milliseconds.
    #[must_use]
    pub fn ahead(ms: i64) -> Self {
        Self(Arc::new(AtomicI64::new(ms)))
    }
    /// It is set right.
    pub fn set_right(&self) {
        self.0.store(0, Ordering::SeqCst);
    }
    /// Jumps.
    pub fn jump(&self, ms: i64) {
        self.0.fetch_add(ms, Ordering::SeqCst);
    }
}

impl Clock for SimClock {
    fn now_ms(&self) -> i64 {
        let passed = i64::try_from(elapsed().as_millis()).unwrap_or(i64::MAX);
        EPOCH_MS
            .saturating_add(passed)
            .saturating_add(self.0.load(Ordering::SeqCst))
    }
}

/// turmoil's TCP.
#[derive(Debug, Clone, Copy)]
pub struct SimNet;

/// A listening socket of [`SimNet`].
pub struct SimListener(TcpListener);

/// A connection of [`SimNet`], which tells the trace what is sent.
pub struct SimStream(TcpStream);

/// Connects to `host:port`.
///
/// # Errors
/// When nobody listens there.
pub async fn connect(address: &str) -> io::Result<SimStream> {
    TcpStream::connect(address).await.map(SimStream)
}

impl AsyncRead for SimStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, buf)
    }
}

impl AsyncWrite for SimStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        trace::sends(buf);
        Pin::new(&mut self.0).poll_write(context, buf)
    }
    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        // One segment, as the kernel makes one.
        match bufs {
            [buf] => self.poll_write(context, buf),
            bufs => {
                let parts: Vec<&[u8]> = bufs.iter().map(|buf| &**buf).collect();
                self.poll_write(context, &parts.concat())
            }
        }
    }
    fn is_write_vectored(&self) -> bool {
        true
    }
    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}

impl Net for SimNet {
    type Stream = SimStream;
    type Listener = SimListener;

    async fn connect(&self, address: &str) -> io::Result<SimStream> {
        connect(address).await
    }
    async fn listen(&self, address: &str) -> io::Result<SimListener> {
        TcpListener::bind(address).await.map(SimListener)
    }
}

impl Listener for SimListener {
    type Stream = SimStream;

    async fn accept(&mut self) -> io::Result<(SimStream, SocketAddr)> {
        serves(&trace::node());
        let (stream, peer) = self.0.accept().await?;
        Ok((SimStream(stream), peer))
    }
    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }
}

/// All four of one node.
#[derive(Debug, Clone)]
pub struct SimEnv {
    disk: SimDisk,
    clock: SimClock,
    net: SimNet,
}

impl SimEnv {
    /// Surroundings with this disk and this clock.
    #[must_use]
    pub fn new(disk: SimDisk, clock: SimClock) -> Self {
        let net = SimNet;
        Self { disk, clock, net }
    }
}

impl Env for SimEnv {
    type Disk = SimDisk;
    type Clock = SimClock;
    type Net = SimNet;

    fn disk(&self) -> &SimDisk {
        &self.disk
    }
    fn clock(&self) -> &SimClock {
        &self.clock
    }
    fn net(&self) -> &SimNet {
        &self.net
    }
    fn workers(&self) -> Workers {
        Workers::Tasks
    }
}

/// What the machines of a run share with code that has no parameter for them: a process is one run.
static MACHINES: Mutex<Option<Machines>> = Mutex::new(None);

type Look = dyn Fn() -> Vec<ReplicaMarks> + Send + Sync;

struct Machines {
    rng: StdRng,
    /// The longest that a worker of a node waits for its disk.
    slowness: BTreeMap<String, Duration>,
    /// How often a worker of a node has waited for it.
    waits: BTreeMap<String, u64>,
    disks: BTreeMap<String, SimDisk>,
    /// Shows how far the replicas of a node are.
    watched: BTreeMap<String, Arc<Look>>,
    /// Nodes whose process has got as far as its door.
    serving: BTreeSet<String>,
    ended: Vec<Ended>,
}

/// A process that has ended by itself.
#[derive(Debug, Clone)]
pub struct Ended {
    /// On which node.
    pub node: String,
    /// What it said.
    pub why: String,
    /// A sync of its has failed, in this step of the simulation.
    pub sync_failed: bool,
    /// A call of its has failed, or found no room.
    pub call_failed: bool,
    /// It had started: its door was open.
    pub served: bool,
}

/// Begins a run: workers wait for their disk as long as [`set_slowness`] says, and a broker that
/// ends its process is noted.
pub fn start(seed: u64) {
    *MACHINES.lock() = Some(Machines {
        rng: StdRng::seed_from_u64(seed ^ 0x510d_15c5),
        slowness: BTreeMap::new(),
        waits: BTreeMap::new(),
        disks: BTreeMap::new(),
        watched: BTreeMap::new(),
        serving: BTreeSet::new(),
        ended: Vec::new(),
    });
    highwater_env::slow_tasks(slowness);
    highwater_broker::node::end_with(process_ends);
}

/// The longest that a worker of this node waits for its disk from now on; half of the time it does
/// not wait.
pub fn set_slowness(node: &str, most: Duration) {
    if let Some(machines) = MACHINES.lock().as_mut() {
        machines.slowness.insert(node.to_owned(), most);
    }
}

/// How often a worker of this node has waited for its disk.
#[must_use]
pub fn waits(node: &str) -> u64 {
    let machines = MACHINES.lock();
    let waits = machines.as_ref().and_then(|all| all.waits.get(node));
    waits.copied().unwrap_or(0)
}

/// From now on [`marks`] of this node asks `look`.
pub fn watch(node: &str, look: impl Fn() -> Vec<ReplicaMarks> + Send + Sync + 'static) {
    if let Some(machines) = MACHINES.lock().as_mut() {
        machines.watched.insert(node.to_owned(), Arc::new(look));
    }
}

/// How far the replicas of a node are; none of one that has not started.
#[must_use]
pub fn marks(node: &str) -> Vec<ReplicaMarks> {
    let look = {
        let machines = MACHINES.lock();
        machines
            .as_ref()
            .and_then(|all| all.watched.get(node).cloned())
    };
    look.map_or_else(Vec::new, |look| look())
}

/// The disk that a node's process uses, which starts now.
pub fn set_disk(node: &str, disk: SimDisk) {
    if let Some(machines) = MACHINES.lock().as_mut() {
        machines.serving.remove(node);
        machines.disks.insert(node.to_owned(), disk);
    }
}

/// Whether a file call of a node's process has failed: it is about to end, or its power has failed,
/// and what it says from now on nobody hears.
#[must_use]
pub fn disk_has_failed(node: &str) -> bool {
    let machines = MACHINES.lock();
    let disk = machines.as_ref().and_then(|all| all.disks.get(node));
    disk.is_some_and(SimDisk::has_failed)
}

fn serves(node: &str) {
    if let Some(machines) = MACHINES.lock().as_mut()
        && !machines.serving.contains(node)
    {
        machines.serving.insert(node.to_owned());
    }
}

/// The processes that have ended by themselves since this was asked last.
#[must_use]
pub fn take_ended() -> Vec<Ended> {
    let mut machines = MACHINES.lock();
    machines
        .as_mut()
        .map(|machines| std::mem::take(&mut machines.ended))
        .unwrap_or_default()
}

fn slowness(_worker: &str) -> Duration {
    let node = trace::node();
    let mut machines = MACHINES.lock();
    let Some(machines) = machines.as_mut() else {
        return Duration::ZERO;
    };
    let most = machines.slowness.get(&node).copied().unwrap_or_default();
    let most = u64::try_from(most.as_micros()).unwrap_or(0);
    if most == 0 || machines.rng.random_ratio(1, 2) {
        return Duration::ZERO;
    }
    *machines.waits.entry(node).or_default() += 1;
    Duration::from_micros(machines.rng.random_range(0..most))
}

/// A real process ends at once. Here it is taken down when the step is over; until then its disk
/// takes nothing any more.
pub fn process_ends(why: &str) {
    let node = trace::node();
    trace::note("process ends", &node, format_args!(" {why}"));
    if let Some(machines) = MACHINES.lock().as_mut() {
        let disk = machines.disks.get(&node);
        let is_sync = |kind| matches!(kind, CallKind::SyncData | CallKind::SyncDir);
        let sync_failed = disk.is_some_and(|disk| {
            let mut calls = disk.trace().into_iter();
            calls.any(|call| call.failed && is_sync(call.kind))
        });
        let ended = Ended {
            why: why.to_owned(),
            sync_failed,
            call_failed: disk.is_some_and(SimDisk::has_failed),
            served: machines.serving.contains(&node),
            node,
        };
        if let Some(disk) = disk {
            disk.stop_after(0);
        }
        machines.ended.push(ended);
    }
}
