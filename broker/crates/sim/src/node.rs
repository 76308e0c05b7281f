//! One node as the simulator keeps it: its disk, its clock, whether it runs, and what it may end for.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::bail;
use highwater_env::{Call, CallKind, Disk, Loss, SimDisk};
use parking_lot::Mutex;
use turmoil::Sim;

use crate::faults::Fault;
use crate::settings::DATA;
use crate::surroundings::{self, Ended, SimClock};
use crate::trace;

/// A process whose sync has failed ends within this.
const AT_ONCE: Duration = Duration::from_secs(1);
/// The answer that turns away one whose disk is lost may have been on its way, for so long, when the disk was
/// given up: whoever asks waits no longer.
const ON_ITS_WAY: Duration = Duration::from_secs(2);
/// How a broker says that the cluster does not take its disk.
const REFUSED: &str = "refuses this broker";

/// How a node goes down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The power fails.
    Power(Loss),
    /// The process is killed.
    Kill,
}

/// A disk that was lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lost {
    /// Never.
    No,
    /// The node came back without it, and nobody has let it in yet.
    Unknown,
    /// Somebody has, then.
    LetIn(Duration),
}

/// One node, running or not.
pub struct Node {
    /// Its name.
    pub name: &'static str,
    /// What its process uses now.
    pub disk: Arc<Mutex<SimDisk>>,
    /// Its wall clock.
    pub clock: SimClock,
    /// The disk stops at this call, and the node with it.
    pub stops_at: Option<(u64, End, Fault)>,
    /// Whether its process runs.
    pub running: bool,
    /// When its process is started again, as long as nobody does before.
    pub starts_at: Option<Duration>,
    /// A sync has failed: its process must have ended by then.
    pub ends_by: Option<Duration>,
    /// The sync of a directory has failed: a journal is broken, and the file system must be mounted
    /// anew, without what was not durable.
    pub remounts: bool,
    /// The fault that makes its next sync fail.
    pub sync_fault: Option<Fault>,
    /// The fault that bounds its disk.
    pub room_fault: Option<Fault>,
    /// Its disk was bounded while this process ran.
    pub was_bounded: bool,
    /// Whether it has lost its disk.
    pub lost: Lost,
    /// What a lying disk really holds.
    pub really: Option<SimDisk>,
}

impl Node {
    /// One with an empty disk, which runs.
    ///
    /// # Errors
    /// When an empty disk cannot be prepared: never.
    pub fn new(name: &'static str, skew_ms: i64) -> anyhow::Result<Self> {
        Ok(Self {
            name,
            disk: Arc::new(Mutex::new(empty_disk()?)),
            clock: SimClock::ahead(skew_ms),
            stops_at: None,
            running: true,
            starts_at: None,
            ends_by: None,
            remounts: false,
            sync_fault: None,
            room_fault: None,
            was_bounded: false,
            lost: Lost::No,
            really: None,
        })
    }

    /// Whether its disk has stopped where it was told to.
    #[must_use]
    pub fn has_stopped(&self) -> bool {
        let stops = self.stops_at.map(|(at, ..)| at);
        stops.is_some_and(|at| self.disk.lock().calls() >= at)
    }

    /// Whether its process may have ended as it did. Each reason excuses its own kind of end alone:
    /// a failed sync must be one, a full disk lets a start fail but nothing that runs, and whose
    /// disk is lost is turned away.
    #[must_use]
    pub fn excuses(&self, ended: &Ended, now: Duration) -> bool {
        // Those of this step are in what it said when it ended; later calls of it count no more.
        let failed_before = self.ends_by.is_some_and(|by| by < now + AT_ONCE);
        let sync_failed = ended.sync_failed || failed_before;
        let found_no_room = self.was_bounded && ended.call_failed && !ended.served;
        let is_unknown = match self.lost {
            Lost::No => false,
            Lost::Unknown => true,
            Lost::LetIn(at) => now < at + ON_ITS_WAY,
        };
        sync_failed || found_no_room || (is_unknown && ended.why.contains(REFUSED))
    }

    /// Takes note of a call that its process has made, and answers with the fault that has struck.
    pub fn note(&mut self, call: &Call, now: Duration) -> Option<Fault> {
        let is_sync = matches!(call.kind, CallKind::SyncData | CallKind::SyncDir);
        if !call.failed || !is_sync || self.has_stopped() {
            return None;
        }
        self.ends_by.get_or_insert(now + AT_ONCE);
        self.remounts |= call.kind == CallKind::SyncDir;
        self.sync_fault.take()
    }

    /// Sees that it has not gone on with a failed sync.
    ///
    /// # Errors
    /// When it has.
    pub fn check_ended(&self, now: Duration) -> anyhow::Result<()> {
        if self.ends_by.is_some_and(|by| now > by) {
            bail!("{} goes on although a sync has failed", self.name);
        }
        Ok(())
    }

    /// Sees that it held no more than so many files open.
    ///
    /// # Errors
    /// When it did.
    pub fn check_open_files(&self, max: usize) -> anyhow::Result<()> {
        let (_, most) = self.disk.lock().open_files();
        if most > max {
            bail!("{} held {most} files open at a time", self.name);
        }
        Ok(())
    }

    /// Bounds its disk to so many bytes more than it holds, or lifts the bound.
    pub fn set_room(&mut self, bytes: Option<u64>, fault: Option<Fault>) {
        self.was_bounded |= bytes.is_some();
        self.room_fault = fault.filter(|_| bytes.is_some());
        let disk = self.disk.lock();
        disk.set_capacity(bytes.map(|bytes| disk.used_bytes().saturating_add(bytes)));
    }

    /// It goes down. Answers with how: whoever remounts loses what was not durable.
    pub fn fail(&mut self, sim: &mut Sim<'_>, end: End) -> End {
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
        self.sync_fault = None;
        self.stops_at = None;
        self.starts_at = None;
        end
    }

    /// It starts.
    pub fn start(&mut self, sim: &mut Sim<'_>) {
        trace::note("node starts", self.name, format_args!(""));
        let disk = self.disk.lock().clone();
        surroundings::set_disk(self.name, disk);
        self.running = true;
        self.was_bounded = self.room_fault.is_some();
        self.starts_at = None;
        sim.bounce(self.name);
    }

    /// It loses its disk, and is down.
    ///
    /// # Errors
    /// When an empty disk cannot be prepared: never.
    pub fn wipe(&mut self, sim: &mut Sim<'_>) -> anyhow::Result<()> {
        if self.running {
            self.fail(sim, End::Kill);
        }
        *self.disk.lock() = empty_disk()?;
        self.room_fault = None;
        self.lost = Lost::Unknown;
        trace::wiped(self.name);
        Ok(())
    }
}

fn empty_disk() -> anyhow::Result<SimDisk> {
    let disk = SimDisk::new();
    disk.create_dir_all(Path::new(DATA))?;
    disk.sync_dir(Path::new("/"))?;
    disk.start_trace();
    Ok(disk)
}
