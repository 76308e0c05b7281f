//! The broker's surroundings as parameters: disk, clock, network and workers.
//!
//! Every crate that touches a file, reads a clock, opens a connection or needs a thread takes it
//! from here, so that the simulator runs the same code with all four replaced. Nothing in this
//! crate knows what a record, a shard or a log is.

mod clock;
mod disk;
mod durable;
mod net;
mod os_disk;
mod sim_disk;
mod worker;

pub use clock::{Clock, ManualClock, SystemClock};
pub use disk::{Disk, DiskFile, OpenMode};
pub use durable::{SyncFailed, is_full, read_if_exists, replace_durably, settle};
pub use net::{Listener, Net, TcpNet};
pub use os_disk::OsDisk;
pub use sim_disk::{Call, CallKind, Loss, SimDisk, SimFile};
pub use worker::{Job, Worker, WorkerHandle, WorkerJoin, WorkerStopped, Workers, slow_tasks};

/// The four surroundings of a broker, as one type parameter.
pub trait Env: Clone + Send + Sync + 'static {
    /// Files.
    type Disk: Disk;
    /// Wall-clock time. Monotonic time is tokio's, which simulators replace already.
    type Clock: Clock;
    /// Connections.
    type Net: Net;

    /// The disk.
    fn disk(&self) -> &Self::Disk;
    /// The wall clock.
    fn clock(&self) -> &Self::Clock;
    /// The network.
    fn net(&self) -> &Self::Net;
    /// How workers are driven: owned threads, or tasks in simulation.
    fn workers(&self) -> Workers;
}

/// The real surroundings: this machine's file system, clock, TCP and threads.
#[derive(Debug, Clone, Default)]
pub struct OsEnv {
    disk: OsDisk,
    clock: SystemClock,
    net: TcpNet,
}

impl Env for OsEnv {
    type Disk = OsDisk;
    type Clock = SystemClock;
    type Net = TcpNet;

    fn disk(&self) -> &OsDisk {
        &self.disk
    }
    fn clock(&self) -> &SystemClock {
        &self.clock
    }
    fn net(&self) -> &TcpNet {
        &self.net
    }
    fn workers(&self) -> Workers {
        Workers::Threads
    }
}
