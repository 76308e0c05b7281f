//! Several brokers on this machine that form one cluster.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::TempDir;

use super::broker::{Broker, BrokerSpec, ProcessError};
use super::ports::HeldPort;

/// Starts with other ports before giving up.
const STARTS: u32 = 5;

/// What cluster to start.
#[derive(Debug, Clone)]
pub struct ClusterSpec {
    /// The `highwater` executable.
    pub executable: PathBuf,
    /// How many brokers, numbered from 1.
    pub brokers: u32,
    /// Where their data and logs lie; a temporary directory, removed with the cluster, when absent.
    pub directory: Option<PathBuf>,
    /// The first gRPC and the first admin port to try; any free ones when absent.
    pub usual_ports: Option<(u16, u16)>,
    /// Further settings for every broker as (`section.key`, value).
    pub settings: Vec<(String, String)>,
    /// How long all brokers together may take to become ready.
    pub patience: Duration,
}

/// Where the brokers' files lie.
enum Directory {
    Kept(PathBuf),
    Temporary(TempDir),
}

/// A running cluster. Dropping it kills every broker and removes a temporary directory.
pub struct Cluster {
    // Before the directory, so that no broker writes to it while it is removed.
    brokers: Vec<Broker>,
    directory: Directory,
    patience: Duration,
}

impl Cluster {
    /// Starts the brokers and waits until all of them are ready.
    ///
    /// # Errors
    /// [`ProcessError`] of the first broker that fails; the others are killed.
    pub async fn start(spec: &ClusterSpec) -> Result<Self, ProcessError> {
        let start = |source| ProcessError::Start { node: 1, source };
        let mut usual = spec.usual_ports;
        let mut tries = 1;
        loop {
            let directory = match &spec.directory {
                Some(path) => Directory::Kept(path.clone()),
                None => {
                    let prefix = tempfile::Builder::new().prefix("highwater-").tempdir();
                    Directory::Temporary(prefix.map_err(start)?)
                }
            };
            let (ports, specs) = specs(spec, directory.path(), usual).map_err(start)?;
            let mut cluster = Self {
                brokers: Vec::new(),
                directory,
                patience: spec.patience,
            };
            let Err(error) = cluster.start_on(ports, specs).await else {
                return Ok(cluster);
            };
            cluster.abandon().await;
            if !error.is_address_in_use() || tries == STARTS {
                cluster.directory.keep();
                return Err(error);
            }
            tries += 1;
            usual = None;
        }
    }

    async fn start_on(
        &mut self,
        ports: Vec<HeldPort>,
        specs: Vec<BrokerSpec>,
    ) -> Result<(), ProcessError> {
        for port in ports {
            port.release();
        }
        for spec in specs {
            self.brokers.push(Broker::start(spec)?);
        }
        self.wait_all_ready().await
    }

    /// Ends what did start, so that the next try finds no data directory in use.
    async fn abandon(&mut self) {
        for broker in &mut self.brokers {
            // A broker that cannot be killed now is killed when it is dropped.
            let _ = broker.kill().await;
        }
    }

    /// Waits for every broker, all within one patience.
    async fn wait_all_ready(&mut self) -> Result<(), ProcessError> {
        let patience = self.patience;
        let waits = self
            .brokers
            .iter_mut()
            .map(|broker| broker.wait_ready(patience));
        futures_util::future::try_join_all(waits).await.map(|_| ())
    }

    /// The brokers' addresses, comma-separated: what clients connect to.
    pub fn addresses(&self) -> String {
        let addresses: Vec<String> = self.brokers.iter().map(|b| b.spec().address()).collect();
        addresses.join(",")
    }

    /// The brokers in the order of their numbers.
    pub fn brokers(&self) -> &[Broker] {
        &self.brokers
    }

    /// Where data and logs lie.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Whether the directory goes away with the cluster.
    pub fn is_temporary(&self) -> bool {
        matches!(self.directory, Directory::Temporary(_))
    }

    fn broker(&mut self, node: u32) -> Result<&mut Broker, ProcessError> {
        let found = self
            .brokers
            .iter_mut()
            .find(|broker| broker.spec().node == node);
        found.ok_or(ProcessError::Unknown(node))
    }

    /// Kills a broker as a crash would and waits until its process is gone.
    ///
    /// # Errors
    /// [`ProcessError`].
    pub async fn kill(&mut self, node: u32) -> Result<(), ProcessError> {
        self.broker(node)?.kill().await
    }

    /// Starts a killed broker again and waits until it is ready.
    ///
    /// # Errors
    /// [`ProcessError`].
    pub async fn restart(&mut self, node: u32) -> Result<(), ProcessError> {
        let patience = self.patience;
        let broker = self.broker(node)?;
        broker.restart().await?;
        broker.wait_ready(patience).await
    }

    /// Waits until a broker's replicas hold all that is committed.
    ///
    /// # Errors
    /// [`ProcessError`].
    pub async fn wait_caught_up(&mut self, node: u32) -> Result<(), ProcessError> {
        let patience = self.patience;
        self.broker(node)?.wait_caught_up(patience).await
    }

    /// The brokers that ended since, each with how.
    pub fn ended(&mut self) -> Vec<(u32, std::process::ExitStatus)> {
        let ended = |broker: &mut Broker| broker.ended().map(|status| (broker.spec().node, status));
        self.brokers.iter_mut().filter_map(ended).collect()
    }

    /// Stops every broker gracefully, all at once, and kills those that take longer than
    /// `patience`. Returns whether none had to be killed.
    ///
    /// # Errors
    /// [`ProcessError`] of the first that cannot be stopped; dropping the cluster kills it.
    pub async fn stop(mut self, patience: Duration) -> Result<bool, ProcessError> {
        let stops = self.brokers.iter_mut().map(|broker| broker.stop(patience));
        let stopped = futures_util::future::try_join_all(stops).await?;
        Ok(stopped.into_iter().all(|by_itself| by_itself))
    }
}

impl Directory {
    fn path(&self) -> &Path {
        match self {
            Self::Kept(path) => path,
            Self::Temporary(directory) => directory.path(),
        }
    }

    /// Leaves the files where they are: an error names them.
    fn keep(self) {
        if let Self::Temporary(directory) = self {
            let _ = directory.keep();
        }
    }
}

/// One spec per broker, with the ports held that they name.
fn specs(
    cluster: &ClusterSpec,
    directory: &Path,
    usual: Option<(u16, u16)>,
) -> io::Result<(Vec<HeldPort>, Vec<BrokerSpec>)> {
    let mut held = Vec::new();
    let mut ports = Vec::new();
    for index in 0..u16::try_from(cluster.brokers).unwrap_or(u16::MAX) {
        let hold = |first: Option<u16>| match first.and_then(|port| port.checked_add(index)) {
            Some(port) => HeldPort::preferably(port),
            None => HeldPort::any(),
        };
        let grpc = hold(usual.map(|(grpc, _)| grpc))?;
        let admin = hold(usual.map(|(_, admin)| admin))?;
        ports.push((grpc.number(), admin.number()));
        held.extend([grpc, admin]);
    }
    let addresses: Vec<String> = ports
        .iter()
        .map(|(grpc, _)| format!("127.0.0.1:{grpc}"))
        .collect();
    let mut specs = Vec::new();
    for (node, (grpc, admin)) in (1_u32..).zip(ports) {
        let home = directory.join(format!("broker-{node}"));
        fs::create_dir_all(&home)?;
        specs.push(BrokerSpec {
            executable: cluster.executable.clone(),
            node,
            data_dir: home.join("data"),
            grpc,
            admin,
            join: if cluster.brokers > 1 {
                addresses.clone()
            } else {
                Vec::new()
            },
            log: home.join("log"),
            settings: cluster.settings.clone(),
        });
    }
    Ok((held, specs))
}
