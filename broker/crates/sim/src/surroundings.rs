//! A broker's surroundings, simulated: network and time by turmoil, the disk by ours.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use highwater_env::{Clock, Env, Listener, Net, SimDisk, Workers};
use turmoil::net::{TcpListener, TcpStream};

/// What the wall clocks show at the start of a run, in milliseconds since the Unix epoch.
pub const EPOCH_MS: i64 = 1_767_225_600_000;

/// The simulated time that has passed, as the code that runs now sees it.
#[must_use]
pub fn elapsed() -> Duration {
    // Code that runs while a crashed node is taken apart has no time of its own.
    turmoil::sim_elapsed().unwrap_or_default()
}

/// A wall clock that goes with the simulation and is off by a fixed amount.
#[derive(Debug, Clone, Copy)]
pub struct SimClock {
    /// How much it is ahead, in milliseconds.
    pub ahead_ms: i64,
}

impl Clock for SimClock {
    fn now_ms(&self) -> i64 {
        let passed = i64::try_from(elapsed().as_millis()).unwrap_or(i64::MAX);
        EPOCH_MS
            .saturating_add(passed)
            .saturating_add(self.ahead_ms)
    }
}

/// turmoil's TCP.
#[derive(Debug, Clone, Copy)]
pub struct SimNet;

/// A listening socket of [`SimNet`].
pub struct SimListener(TcpListener);

impl Net for SimNet {
    type Stream = TcpStream;
    type Listener = SimListener;

    async fn connect(&self, address: &str) -> io::Result<TcpStream> {
        TcpStream::connect(address).await
    }
    async fn listen(&self, address: &str) -> io::Result<SimListener> {
        TcpListener::bind(address).await.map(SimListener)
    }
}

impl Listener for SimListener {
    type Stream = TcpStream;

    async fn accept(&mut self) -> io::Result<(TcpStream, SocketAddr)> {
        self.0.accept().await
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
    /// Surroundings with this disk and a clock that is off by `ahead_ms`.
    #[must_use]
    pub fn new(disk: SimDisk, ahead_ms: i64) -> Self {
        Self {
            disk,
            clock: SimClock { ahead_ms },
            net: SimNet,
        }
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
