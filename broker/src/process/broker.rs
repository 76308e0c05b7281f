//! One broker as a child process.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};
use tokio::time::{sleep, timeout};

use super::probe::{Readiness, caught_up, readiness};

/// How often a condition of a child is looked at again.
const POLL: Duration = Duration::from_millis(20);

/// How much of a log's end goes into an error.
const LOG_TAIL: u64 = 2_048;

/// The exit code of a `server` whose address someone else has.
pub const ADDRESS_IN_USE: u8 = 3;

/// Everything needed to start a broker, and to start it again just the same.
#[derive(Debug, Clone)]
pub struct BrokerSpec {
    /// The executable, whose `server` verb is run.
    pub executable: PathBuf,
    /// The broker's number.
    pub node: u32,
    /// Where its data lies.
    pub data_dir: PathBuf,
    /// Its gRPC port on the loopback address.
    pub grpc: u16,
    /// Its admin port on the loopback address.
    pub admin: u16,
    /// The cluster's addresses; empty for a broker alone.
    pub join: Vec<String>,
    /// Where its output goes; appended to.
    pub log: PathBuf,
    /// Further settings as (`section.key`, value).
    pub settings: Vec<(String, String)>,
}

/// Why a broker process is not as wanted.
#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    /// It could not be started.
    #[error("broker {node} could not be started: {source}")]
    Start {
        /// The broker.
        node: u32,
        /// Why not.
        source: io::Error,
    },
    /// It ended while it should have become ready.
    #[error("broker {node} ended ({status}); its log {} ends with:\n{tail}", log.display())]
    Ended {
        /// The broker.
        node: u32,
        /// How it ended.
        status: ExitStatus,
        /// Its whole log.
        log: PathBuf,
        /// The log's last lines.
        tail: String,
    },
    /// It runs but did not become ready.
    #[error(
        "broker {node} is not ready after {} s ({reason}); see {}",
        waited.as_secs(),
        log.display()
    )]
    NotReady {
        /// The broker.
        node: u32,
        /// How long it was waited for.
        waited: Duration,
        /// Its own explanation.
        reason: String,
        /// Its whole log.
        log: PathBuf,
    },
    /// There is no such broker.
    #[error("there is no broker {0}")]
    Unknown(u32),
    /// The operating system refused something.
    #[error("broker {node}: {source}")]
    System {
        /// The broker.
        node: u32,
        /// What it said.
        source: io::Error,
    },
}

impl ProcessError {
    /// Whether the broker ended because someone else has its address.
    pub fn is_address_in_use(&self) -> bool {
        matches!(self, Self::Ended { status, .. } if status.code() == Some(ADDRESS_IN_USE.into()))
    }
}

impl BrokerSpec {
    /// Where clients reach it.
    pub fn address(&self) -> String {
        format!("{}:{}", Ipv4Addr::LOCALHOST, self.grpc)
    }

    /// Where its admin server listens.
    pub fn admin_address(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.admin))
    }

    fn arguments(&self) -> Vec<OsString> {
        let mut arguments: Vec<OsString> = vec!["server".into()];
        let mut flag = |name: &str, value: OsString| {
            arguments.push(name.into());
            arguments.push(value);
        };
        flag("--die-with-parent", std::process::id().to_string().into());
        flag("--node-id", self.node.to_string().into());
        flag("--data-dir", self.data_dir.clone().into());
        flag("--grpc-address", self.address().into());
        flag("--admin-address", self.admin_address().to_string().into());
        flag("--advertised-address", self.address().into());
        flag("--set", format!("node.join={}", self.join.join(",")).into());
        for (key, value) in &self.settings {
            flag("--set", format!("{key}={value}").into());
        }
        arguments
    }
}

/// A broker that was started. Dropping it kills the process.
#[derive(Debug)]
pub struct Broker {
    spec: BrokerSpec,
    child: Child,
}

impl Broker {
    /// Starts the process and returns at once.
    ///
    /// Call it from a thread that lives as long as the broker should, such as a worker of the
    /// runtime: the kernel counts the end of that thread as the end of the parent.
    ///
    /// # Errors
    /// [`ProcessError::Start`].
    pub fn start(spec: BrokerSpec) -> Result<Self, ProcessError> {
        let node = spec.node;
        let child = spawn(&spec).map_err(|source| ProcessError::Start { node, source })?;
        Ok(Self { spec, child })
    }

    /// How it was started.
    pub fn spec(&self) -> &BrokerSpec {
        &self.spec
    }

    /// The process id while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    /// How it ended, when it did.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Waits until the broker says it is ready. Cancellation-safe.
    ///
    /// # Errors
    /// When it ends instead, or is not ready in time.
    pub async fn wait_ready(&mut self, patience: Duration) -> Result<(), ProcessError> {
        self.wait(readiness, patience).await
    }

    /// Waits until the broker is ready and its replicas hold all that is committed.
    /// Cancellation-safe.
    ///
    /// # Errors
    /// When it ends instead, or needs longer than `patience`.
    pub async fn wait_caught_up(&mut self, patience: Duration) -> Result<(), ProcessError> {
        self.wait(caught_up, patience).await
    }

    async fn wait<P: Future<Output = Readiness>>(
        &mut self,
        probe: fn(SocketAddr) -> P,
        patience: Duration,
    ) -> Result<(), ProcessError> {
        let mut reason = String::new();
        if let Ok(outcome) = timeout(patience, self.poll(probe, &mut reason)).await {
            return outcome;
        }
        Err(ProcessError::NotReady {
            node: self.spec.node,
            waited: patience,
            reason,
            log: self.spec.log.clone(),
        })
    }

    async fn poll<P: Future<Output = Readiness>>(
        &mut self,
        probe: fn(SocketAddr) -> P,
        reason: &mut String,
    ) -> Result<(), ProcessError> {
        loop {
            if let Some(status) = self.ended() {
                return Err(ProcessError::Ended {
                    node: self.spec.node,
                    status,
                    log: self.spec.log.clone(),
                    tail: tail_of(&self.spec),
                });
            }
            match probe(self.spec.admin_address()).await {
                Readiness::Ready => return Ok(()),
                Readiness::NotReady(why) => *reason = why,
            }
            sleep(POLL).await;
        }
    }

    /// Kills it as a crash would (SIGKILL) and waits until the process is gone.
    ///
    /// # Errors
    /// When the operating system refuses.
    pub async fn kill(&mut self) -> Result<(), ProcessError> {
        self.child
            .kill()
            .await
            .map_err(|source| self.system(source))
    }

    /// Starts it again just as before, after it ended.
    ///
    /// # Errors
    /// [`ProcessError::Start`].
    pub async fn restart(&mut self) -> Result<(), ProcessError> {
        self.kill().await?;
        let node = self.spec.node;
        self.child = spawn(&self.spec).map_err(|source| ProcessError::Start { node, source })?;
        Ok(())
    }

    /// Asks it to stop (SIGTERM) and waits; kills it when `patience` is over. Returns whether it
    /// stopped by itself.
    ///
    /// # Errors
    /// When the operating system refuses.
    pub async fn stop(&mut self, patience: Duration) -> Result<bool, ProcessError> {
        let Some(pid) = self
            .child
            .id()
            .and_then(|id| Pid::from_raw(i32::try_from(id).ok()?))
        else {
            return Ok(true);
        };
        if let Err(refusal) = kill_process(pid, Signal::TERM) {
            return Err(self.system(refusal.into()));
        }
        match timeout(patience, self.child.wait()).await {
            Ok(ended) => ended.map(|_| true).map_err(|source| self.system(source)),
            Err(_) => self.kill().await.map(|()| false),
        }
    }

    fn system(&self, source: io::Error) -> ProcessError {
        ProcessError::System {
            node: self.spec.node,
            source,
        }
    }
}

fn spawn(spec: &BrokerSpec) -> io::Result<Child> {
    let log = OpenOptions::new()
        .create(true)
        .append(true)
        .open(&spec.log)?;
    Command::new(&spec.executable)
        .args(spec.arguments())
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        // A group of its own: Ctrl-C in the terminal goes to the parent alone, which stops its
        // brokers in order.
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
}

/// The last lines of a broker's log; empty when it cannot be read.
fn tail_of(spec: &BrokerSpec) -> String {
    let read = || -> io::Result<String> {
        let mut file = File::open(&spec.log)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(LOG_TAIL)))?;
        let mut bytes = Vec::new();
        file.take(LOG_TAIL).read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).trim().to_owned())
    };
    read().unwrap_or_default()
}

#[cfg(test)]
#[path = "broker_tests.rs"]
mod tests;
