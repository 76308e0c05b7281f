//! Nodes that run the real broker, each with a disk that forgets.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::ensure;
use highwater_broker::node as broker;
use highwater_env::{CallKind, Disk, Env, Loss, SimDisk};
use tokio_util::sync::CancellationToken;
use turmoil::Sim;

use crate::faults::{Fault, Strike};
use crate::marks::Marks;
use crate::node::{End, Lost, Node};
use crate::rot;
use crate::settings::{DATA, Settings};
use crate::surroundings::{self, SimEnv};
use crate::trace;
use crate::watermarks::Watermarks;

/// Whoever looks after the machines starts a process again this long after it ended by itself.
const RESTART: Duration = Duration::from_millis(300);
/// Open files beside those of partitions: log files, and those of calls under way.
const OTHER_FILES: usize = 200;

/// The nodes.
pub struct Cluster {
    nodes: Vec<Node>,
    max_open_files: usize,
    watermarks: Watermarks,
    marks: Marks,
    /// What has struck since somebody asked last.
    strikes: Vec<(Fault, Strike)>,
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
            let node = Node::new(name, skew)?;
            let config = settings.config(id, name)?;
            let (current, its_clock) = (Arc::clone(&node.disk), node.clock.clone());
            let its_name = *name;
            surroundings::set_disk(name, node.disk.lock().clone());
            surroundings::set_slowness(name, Duration::from_millis(settings.slowness_ms));
            sim.host(*name, move || {
                let env = SimEnv::new(current.lock().clone(), its_clock.clone());
                let config = config.clone();
                async move {
                    let disk = env.disk().clone();
                    let watch = move |broker: broker::marks::Watched<SimEnv>| {
                        surroundings::watch(its_name, move || broker.marks());
                    };
                    let ran = broker::run_in(env, config, CancellationToken::new(), watch).await;
                    // A broker whose disk has stopped may end as it likes until it is taken down.
                    if disk.exists(Path::new(DATA)).is_ok() {
                        let why = ran.map_or_else(|error| format!("{error:#}"), |()| String::new());
                        surroundings::process_ends(&why);
                    }
                    std::future::pending().await
                }
            });
            nodes.push(node);
        }
        Ok(Self {
            nodes,
            max_open_files: settings.max_open_files() + OTHER_FILES,
            watermarks: Watermarks::default(),
            marks: Marks::default(),
            strikes: Vec::new(),
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
    /// The faults that have struck since this was asked last.
    pub fn take_strikes(&mut self) -> Vec<(Fault, Strike)> {
        std::mem::take(&mut self.strikes)
    }
    /// Checkpoints that were looked at, and those that another replica had at the same entry.
    #[must_use]
    pub fn checkpoints(&self) -> (u64, u64) {
        self.watermarks.counts()
    }

    /// A node goes down at its `calls`-th file call from now.
    pub fn arm(&mut self, node: usize, calls: u64, end: End, fault: Fault) {
        if let Some(node) = self.running(node) {
            let disk = node.disk.lock();
            node.stops_at = Some((disk.calls().saturating_add(calls), end, fault));
            disk.stop_after(calls);
        }
    }

    /// A node's next sync of that kind fails.
    pub fn fail_sync(&mut self, node: usize, call: CallKind, fault: Fault) {
        if let Some(node) = self.running(node) {
            node.sync_fault = Some(fault);
            node.disk.lock().fail_next(call, ErrorKind::Other);
        }
    }

    /// A node's disk has room for so many bytes more, or all that it wants.
    pub fn set_room(&mut self, node: usize, bytes: Option<u64>, fault: Fault) {
        if let Some(node) = self.nodes.get_mut(node) {
            node.set_room(bytes, Some(fault));
        }
    }

    /// A node's wall clock jumps. Whether anybody goes by it.
    pub fn jump(&self, node: usize, ms: i64) -> bool {
        self.nodes.get(node).is_some_and(|node| {
            node.clock.jump(ms);
            node.running
        })
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
        for ended in surroundings::take_ended() {
            let Some(at) = self.nodes.iter().position(|node| node.name == ended.node) else {
                continue;
            };
            let node = &self.nodes[at];
            if node.has_stopped() || !node.running {
                continue;
            }
            node.check_open_files(self.max_open_files)?;
            let (name, why) = (node.name, &ended.why);
            ensure!(
                node.excuses(&ended, now),
                "the process of {name} has ended: {why}"
            );
            let full = node.room_fault.filter(|_| !ended.served);
            self.strikes
                .extend(full.map(|fault| (fault, Strike::Other)));
            self.fail(sim, at, End::Kill);
            self.nodes[at].starts_at = Some(now + RESTART);
        }
        for name in trace::take_full() {
            let node = self.nodes.iter().find(|node| node.name == name);
            let fault = node.and_then(|node| node.room_fault);
            self.strikes
                .extend(fault.map(|fault| (fault, Strike::Other)));
        }
        for at in 0..self.nodes.len() {
            let node = &mut self.nodes[at];
            if node.has_stopped()
                && let Some((_, end, fault)) = node.stops_at.take()
            {
                self.strikes.push((fault, Strike::Down));
                self.fail(sim, at, end);
            }
            let node = &mut self.nodes[at];
            if node.starts_at.is_some_and(|at| now >= at) {
                node.start(sim);
            }
        }
        Ok(())
    }

    fn fail(&mut self, sim: &mut Sim<'_>, node: usize, end: End) {
        if let Some(node) = self.nodes.get_mut(node)
            && let End::Power(_) = node.fail(sim, end)
        {
            self.watermarks.power_lost(node.name);
        }
    }

    /// Every disk lies: what is synced from now on is not durable until the next call. This is a
    /// control: a run with it must fail, or it would not notice a loss.
    pub fn lie(&mut self) {
        for node in self.nodes.iter_mut().filter(|node| node.running) {
            node.really = Some(node.disk.lock().crash(Loss::Everything));
        }
    }

    /// A node goes down now. Whether it ran.
    pub fn end(&mut self, sim: &mut Sim<'_>, node: usize, end: End) -> bool {
        let runs = self.running(node).is_some();
        if runs {
            self.fail(sim, node, end);
        }
        runs
    }

    /// A node loses its disk, and comes back with an empty one.
    ///
    /// # Errors
    /// When an empty disk cannot be prepared: never.
    pub fn wipe(&mut self, sim: &mut Sim<'_>, node: usize, now: Duration) -> anyhow::Result<()> {
        if let Some(node) = self.nodes.get_mut(node) {
            node.wipe(sim)?;
            self.watermarks.wiped(node.name);
            node.starts_at = Some(now + RESTART);
        }
        Ok(())
    }
    /// The number of the broker that has lost its disk and waits to be let in.
    #[must_use]
    pub fn wiped(&self) -> Option<u32> {
        (1..)
            .zip(&self.nodes)
            .find(|(_, node)| node.lost == Lost::Unknown)
            .map(|(id, _)| id)
    }
    /// The operator is about to give the lost disk up.
    pub fn let_in(&self) {
        let unknown = self.nodes.iter().filter(|node| node.lost == Lost::Unknown);
        unknown.for_each(|node| trace::let_in(node.name));
    }
    /// The operator has given the lost disk up.
    pub fn replaced(&mut self, now: Duration) {
        let nodes = self.nodes.iter_mut();
        for node in nodes.filter(|node| node.lost == Lost::Unknown) {
            node.lost = Lost::LetIn(now);
        }
    }

    /// Every wall clock is set right.
    pub fn set_clocks(&self) {
        self.nodes.iter().for_each(|node| node.clock.set_right());
    }

    /// Starts every node that is down, and lets none go down any more.
    pub fn heal(&mut self, sim: &mut Sim<'_>) {
        for node in &mut self.nodes {
            node.stops_at = None;
            node.sync_fault = None;
            node.disk.lock().clear_faults();
            node.set_room(None, None);
            surroundings::set_slowness(node.name, Duration::ZERO);
            if !node.running {
                node.start(sim);
            }
        }
    }

    /// Starts a node if it is down.
    pub fn bounce(&mut self, sim: &mut Sim<'_>, node: usize) {
        if let Some(node) = self.nodes.get_mut(node).filter(|node| !node.running) {
            node.start(sim);
        }
    }

    /// Looks at how far all replicas are.
    ///
    /// # Errors
    /// One that is not in order, or has gone back.
    pub fn look_at_marks(&mut self) -> anyhow::Result<()> {
        for node in self.nodes.iter().filter(|node| node.running) {
            self.marks.look(node.name, surroundings::marks(node.name))?;
        }
        Ok(())
    }
    /// Replicas that were looked at, each as often as it was.
    #[must_use]
    pub fn marks(&self) -> u64 {
        self.marks.count()
    }

    /// Moves the file calls since the last time into the trace.
    ///
    /// # Errors
    /// A process that goes on although a sync of its has failed, and a checkpoint that says less than
    /// one before it.
    pub fn note_calls(&mut self, now: Duration) -> anyhow::Result<()> {
        for node in &mut self.nodes {
            let disk = node.disk.lock().clone();
            for call in disk.take_trace() {
                let fault = node.note(&call, now);
                self.strikes
                    .extend(fault.map(|fault| (fault, Strike::Other)));
                self.watermarks.note(node.name, &disk, &call)?;
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
            node.check_ended(now)?;
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
        nodes.try_for_each(|node| node.check_open_files(self.max_open_files))
    }
}

/// Nodes by their place, without those left out.
#[must_use]
pub fn others(nodes: usize, without: &[usize]) -> Vec<usize> {
    let without: BTreeSet<usize> = without.iter().copied().collect();
    (0..nodes).filter(|node| !without.contains(node)).collect()
}
