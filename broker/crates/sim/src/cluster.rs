//! Nodes that run the real broker, each with a disk that forgets.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{bail, ensure};
use highwater_broker::node;
use highwater_env::{CallKind, Disk, Env, Loss, SimDisk};
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;
use turmoil::Sim;

use crate::rot;
use crate::settings::{DATA, Settings};
use crate::surroundings::{self, SimClock, SimEnv};
use crate::trace;

/// Whoever looks after the machines starts a process again this long after it ended by itself.
const RESTART: Duration = Duration::from_millis(300);
/// A process whose sync has failed ends within this.
const AT_ONCE: Duration = Duration::from_secs(1);
/// Open files beside those of partitions: log files, and those of calls under way.
const OTHER_FILES: usize = 200;

/// How a node goes down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The power fails.
    Power(Loss),
    /// The process is killed.
    Kill,
}

/// One node as the simulator keeps it, running or not.
struct Node {
    name: &'static str,
    disk: Arc<Mutex<SimDisk>>,
    clock: SimClock,
    /// The disk stops at this call, and the node with it.
    stops_at: Option<(u64, End)>,
    running: bool,
    /// When its process is started again, as long as nobody does before.
    starts_at: Option<Duration>,
    /// A sync has failed: its process must have ended by then.
    ends_by: Option<Duration>,
    /// The sync of a directory has failed: a journal is broken, and the file system must be mounted
    /// anew, without what was not durable.
    remounts: bool,
    /// Its process may end by itself: a sync fails, the disk is full, or it has lost its disk.
    excused: bool,
    /// It came back without its disk, and nobody has let it in yet.
    wiped: bool,
    /// What a lying disk really holds, see [`Cluster::lie`].
    really: Option<SimDisk>,
}

/// The nodes.
pub struct Cluster {
    nodes: Vec<Node>,
    max_open_files: usize,
}

impl Cluster {
    /// Starts every node.
    ///
    /// # Errors
    /// When an empty disk cannot be prepared.
    pub fn start(sim: &mut Sim<'_>, settings: &Settings) -> anyhow::Result<Self> {
        let mut nodes = Vec::new();
        let skews = settings.skews.iter().copied();
        for (id, (name, skew)) in (1..).zip(settings.names().iter().zip(skews)) {
            let disk = Arc::new(Mutex::new(empty_disk()?));
            let clock = SimClock::ahead(skew);
            let config = settings.config(id, name)?;
            let (current, its_clock) = (Arc::clone(&disk), clock.clone());
            surroundings::set_disk(name, disk.lock().clone());
            surroundings::set_slowness(name, Duration::from_millis(settings.slowness_ms));
            sim.host(*name, move || {
                let env = SimEnv::new(current.lock().clone(), its_clock.clone());
                let config = config.clone();
                async move {
                    let disk = env.disk().clone();
                    let ran = node::run_in(env, config, CancellationToken::new()).await;
                    // A broker whose disk has stopped may end as it likes until it is taken down.
                    if disk.exists(Path::new(DATA)).is_ok() {
                        let why = ran.map_or_else(|error| format!("{error:#}"), |()| String::new());
                        surroundings::process_ends(&why);
                    }
                    std::future::pending().await
                }
            });
            nodes.push(Node {
                name,
                disk,
                clock,
                stops_at: None,
                running: true,
                starts_at: None,
                ends_by: None,
                remounts: false,
                excused: false,
                wiped: false,
                really: None,
            });
        }
        let max_open_files = settings.max_open_files();
        Ok(Self {
            nodes,
            max_open_files,
        })
    }

    fn running(&mut self, node: usize) -> Option<&mut Node> {
        self.nodes.get_mut(node).filter(|node| node.running)
    }
    /// How many nodes run.
    #[must_use]
    pub fn count_running(&self) -> usize {
        self.nodes.iter().filter(|node| node.running).count()
    }

    /// A node goes down at its `calls`-th file call from now.
    pub fn arm(&mut self, node: usize, calls: u64, end: End) {
        if let Some(node) = self.running(node) {
            let disk = node.disk.lock();
            node.stops_at = Some((disk.calls().saturating_add(calls), end));
            disk.stop_after(calls);
        }
    }

    /// A node's next sync of that kind fails.
    pub fn fail_sync(&mut self, node: usize, call: CallKind) {
        if let Some(node) = self.running(node) {
            node.excused = true;
            node.disk.lock().fail_next(call, ErrorKind::Other);
        }
    }

    /// A node's disk has room for so many bytes more, or all that it wants.
    pub fn set_room(&mut self, node: usize, bytes: Option<u64>) {
        if let Some(node) = self.nodes.get_mut(node) {
            // One that is full may refuse to start.
            node.excused |= bytes.is_some();
            let disk = node.disk.lock();
            disk.set_capacity(bytes.map(|bytes| disk.used_bytes().saturating_add(bytes)));
        }
    }

    /// A node's wall clock jumps.
    pub fn jump(&self, node: usize, ms: i64) {
        if let Some(node) = self.nodes.get(node) {
            node.clock.jump(ms);
        }
    }

    /// Bits of a node's segment files flip; how many.
    pub fn rot(&self, node: usize, seed: u64) -> usize {
        let Some(node) = self.nodes.get(node) else {
            return 0;
        };
        rot::rot(&node.disk.lock(), seed)
    }

    /// Takes down the nodes whose disks have stopped and those whose processes have ended, and
    /// starts again the latter after a while.
    ///
    /// # Errors
    /// A process that has ended for no reason.
    pub fn look_after(&mut self, sim: &mut Sim<'_>, now: Duration) -> anyhow::Result<()> {
        for (name, why) in surroundings::take_ended() {
            let Some(node) = self.nodes.iter_mut().find(|node| node.name == name) else {
                continue;
            };
            let stopped = node
                .stops_at
                .is_some_and(|(at, _)| node.disk.lock().calls() >= at);
            if stopped || !node.running {
                continue;
            }
            node.note_open_files(self.max_open_files)?;
            ensure!(node.excused, "the process of {name} has ended: {why}");
            node.fail(sim, End::Kill);
            node.starts_at = Some(now + RESTART);
        }
        for node in &mut self.nodes {
            if let Some((at, end)) = node.stops_at
                && node.disk.lock().calls() >= at
            {
                node.stops_at = None;
                node.fail(sim, end);
            }
            if node.starts_at.is_some_and(|at| now >= at) {
                node.start(sim);
            }
        }
        Ok(())
    }

    /// Every disk lies: what is synced from now on is not durable until the next call. This is a
    /// control: a run with it must fail, or it would not notice a loss.
    pub fn lie(&mut self) {
        for node in self.nodes.iter_mut().filter(|node| node.running) {
            node.really = Some(node.disk.lock().crash(Loss::Everything));
        }
    }

    /// A node goes down now.
    pub fn end(&mut self, sim: &mut Sim<'_>, node: usize, end: End) {
        if let Some(node) = self.running(node) {
            node.fail(sim, end);
        }
    }

    /// A node loses its disk, and comes back with an empty one.
    ///
    /// # Errors
    /// When an empty disk cannot be prepared: never.
    pub fn wipe(&mut self, sim: &mut Sim<'_>, node: usize, now: Duration) -> anyhow::Result<()> {
        if let Some(node) = self.nodes.get_mut(node) {
            if node.running {
                node.fail(sim, End::Kill);
            }
            *node.disk.lock() = empty_disk()?;
            (node.excused, node.wiped) = (true, true);
            trace::wiped(node.name);
            node.starts_at = Some(now + RESTART);
        }
        Ok(())
    }
    /// The number of the broker that has lost its disk and waits to be let in.
    #[must_use]
    pub fn wiped(&self) -> Option<u32> {
        (1..)
            .zip(&self.nodes)
            .find(|(_, node)| node.wiped)
            .map(|(id, _)| id)
    }
    /// The operator is about to give the lost disk up.
    pub fn let_in(&self) {
        let wiped = self.nodes.iter().filter(|node| node.wiped);
        wiped.for_each(|node| trace::let_in(node.name));
    }
    /// The operator has given the lost disk up.
    pub fn replaced(&mut self) {
        self.nodes.iter_mut().for_each(|node| node.wiped = false);
    }

    /// Starts every node that is down, and lets none go down any more.
    pub fn heal(&mut self, sim: &mut Sim<'_>) {
        for node in &mut self.nodes {
            node.stops_at = None;
            let disk = node.disk.lock().clone();
            disk.clear_faults();
            disk.set_capacity(None);
            surroundings::set_slowness(node.name, Duration::ZERO);
            if !node.running {
                node.start(sim);
            }
        }
    }

    /// After a while in which nothing broke: no process may end any more.
    pub fn excuse_nobody(&mut self) {
        for node in &mut self.nodes {
            node.excused = node.wiped;
        }
    }

    /// Starts a node if it is down.
    pub fn bounce(&mut self, sim: &mut Sim<'_>, node: usize) {
        if let Some(node) = self.nodes.get_mut(node).filter(|node| !node.running) {
            node.start(sim);
        }
    }

    /// Moves the file calls since the last time into the trace.
    ///
    /// # Errors
    /// A process that goes on although a sync of its has failed.
    pub fn note_calls(&mut self, now: Duration) -> anyhow::Result<()> {
        for node in &mut self.nodes {
            let stopped = node.stops_at.is_some();
            for call in node.disk.lock().take_trace() {
                let is_sync = matches!(call.kind, CallKind::SyncData | CallKind::SyncDir);
                if call.failed && is_sync && !stopped {
                    node.ends_by.get_or_insert(now + AT_ONCE);
                    node.remounts |= call.kind == CallKind::SyncDir;
                }
                trace::note(
                    "file",
                    node.name,
                    format_args!(
                        " {:?} {} {}+{}{}",
                        call.kind,
                        call.path.display(),
                        call.offset,
                        call.len,
                        if call.failed { " failed" } else { "" }
                    ),
                );
            }
            if node.ends_by.is_some_and(|by| now > by) {
                bail!("{} goes on although a sync has failed", node.name);
            }
        }
        Ok(())
    }

    /// The disks with their nodes' names.
    pub fn disks(&self) -> Vec<(&'static str, SimDisk)> {
        let disks = self.nodes.iter();
        disks
            .map(|node| (node.name, node.disk.lock().clone()))
            .collect()
    }

    /// Sees that no node held more files open than it may.
    ///
    /// # Errors
    /// The node that did.
    pub fn check_open_files(&self) -> anyhow::Result<()> {
        let mut nodes = self.nodes.iter();
        nodes.try_for_each(|node| node.note_open_files(self.max_open_files))
    }
}

impl Node {
    fn note_open_files(&self, max: usize) -> anyhow::Result<()> {
        let (_, most) = self.disk.lock().open_files();
        if most > max + OTHER_FILES {
            bail!("{} held {most} files open at a time", self.name);
        }
        Ok(())
    }

    fn fail(&mut self, sim: &mut Sim<'_>, end: End) {
        let end = match end {
            End::Kill if self.remounts => End::Power(Loss::Random {
                seed: self.disk.lock().calls(),
            }),
            end => end,
        };
        trace::note("goes down", self.name, format_args!(" {end:?}"));
        // What the dying node still writes while it is taken apart goes to the disk it had.
        let left = match (self.really.take(), end) {
            (Some(really), _) => really,
            (None, End::Power(loss)) => self.disk.lock().crash(loss),
            (None, End::Kill) => self.disk.lock().kill(),
        };
        left.start_trace();
        sim.crash(self.name);
        *self.disk.lock() = left;
        self.running = false;
        self.remounts = false;
        self.ends_by = None;
        self.stops_at = None;
        self.starts_at = None;
    }

    fn start(&mut self, sim: &mut Sim<'_>) {
        trace::note("node starts", self.name, format_args!(""));
        let disk = self.disk.lock().clone();
        surroundings::set_disk(self.name, disk);
        self.running = true;
        self.starts_at = None;
        sim.bounce(self.name);
    }
}

fn empty_disk() -> anyhow::Result<SimDisk> {
    let disk = SimDisk::new();
    disk.create_dir_all(Path::new(DATA))?;
    disk.sync_dir(Path::new("/"))?;
    disk.start_trace();
    Ok(disk)
}

/// Nodes by their place, without those left out.
#[must_use]
pub fn others(nodes: usize, without: &[usize]) -> Vec<usize> {
    let without: BTreeSet<usize> = without.iter().copied().collect();
    (0..nodes).filter(|node| !without.contains(node)).collect()
}
