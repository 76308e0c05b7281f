//! The brokers under test: their network, their processes, their disks.

pub mod binary;
pub mod network;
pub mod node;
mod probe;
pub mod shell;
pub mod slot;
pub mod storage;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use tokio::sync::{Mutex, MutexGuard};
use tokio::time::sleep;

use highwater_powerfs::{Loss, LossReport};
use network::Network;
use node::{Death, Node, Spec};
pub use probe::{caught_up, metrics};
use slot::Slot;
use storage::PowerDisk;

/// Between two looks at a condition of the whole cluster.
const POLL: Duration = Duration::from_millis(50);

const GRPC_PORT: u16 = 9094;
const ADMIN_PORT: u16 = 9644;

/// What to start.
#[derive(Debug, Clone)]
pub struct ClusterSpec {
    /// The broker's program.
    pub executable: PathBuf,
    /// How many brokers.
    pub brokers: u32,
    /// Where data and logs go.
    pub directory: PathBuf,
    /// Each broker in a network namespace of its own.
    pub namespaces: bool,
    /// The words that start a server of a file system that can lose power; every broker then has
    /// one. Needs namespaces.
    pub disks: Option<Vec<OsString>>,
    /// Settings of every broker as (`section.key`, value).
    pub settings: Vec<(String, String)>,
    /// Variables of the environment of every broker.
    pub environment: Vec<(String, String)>,
}

/// Brokers that were started, and what they stand on. Call [`Cluster::end`] at the end: what is
/// left when that is not possible goes with the next run that starts.
#[derive(Debug)]
pub struct Cluster {
    nodes: BTreeMap<u32, Mutex<Node>>,
    network: Option<Network>,
    slot: Option<Mutex<Slot>>,
    disks: BTreeMap<u32, Mutex<PowerDisk>>,
    deaths: Mutex<Vec<Death>>,
}

impl Cluster {
    /// Makes the network and starts every broker; does not wait for them.
    ///
    /// # Errors
    /// When something cannot be made; what was made is removed.
    pub async fn start(spec: &ClusterSpec) -> anyhow::Result<Self> {
        let slot = if spec.namespaces {
            Some(Slot::take().await?)
        } else {
            None
        };
        let mut cluster = Self {
            nodes: BTreeMap::new(),
            network: None,
            slot: None,
            disks: BTreeMap::new(),
            deaths: Mutex::new(Vec::new()),
        };
        let number = slot.as_ref().map(Slot::number);
        cluster.slot = slot.map(Mutex::new);
        if let Err(error) = cluster.build(spec, number).await {
            cluster.end().await?;
            return Err(error);
        }
        Ok(cluster)
    }

    async fn build(&mut self, spec: &ClusterSpec, slot: Option<u8>) -> anyhow::Result<()> {
        let numbers: Vec<u32> = (1..=spec.brokers).collect();
        if let Some(slot) = slot {
            self.network = Some(Network::create(slot, &numbers).await?);
        }
        let addresses = addresses(&numbers, self.network.as_ref())?;
        let join: Vec<String> = addresses
            .values()
            .map(|(grpc, _)| grpc.to_string())
            .collect();
        for (node, (grpc, admin)) in &addresses {
            let data_dir = spec.directory.join(format!("broker-{node}"));
            fs::create_dir_all(&data_dir)
                .with_context(|| format!("cannot create {}", data_dir.display()))?;
            if let Some(program) = &spec.disks {
                self.mount(*node, program, &spec.directory, &data_dir)
                    .await?;
            }
            let network = self.network.as_ref();
            let spec = Spec {
                node: *node,
                executable: spec.executable.clone(),
                prefix: network.map(|n| n.entering(*node)).unwrap_or_default(),
                // One below, so that all of it can be put aside.
                data_dir: data_dir.join("data"),
                log: spec.directory.join(format!("broker-{node}.log")),
                grpc: *grpc,
                admin: *admin,
                join: join.join(","),
                settings: spec.settings.clone(),
                environment: spec.environment.clone(),
            };
            self.nodes.insert(*node, Mutex::new(Node::new(spec)));
        }
        for node in self.nodes.values() {
            node.lock().await.start()?;
        }
        Ok(())
    }

    async fn mount(
        &mut self,
        node: u32,
        program: &[OsString],
        directory: &Path,
        mount: &Path,
    ) -> anyhow::Result<()> {
        let slot = self
            .slot
            .as_ref()
            .context("disks that lose power need namespaces")?;
        let mut slot = slot.lock().await;
        // Written down first: if this process is killed now, the next run unmounts it.
        slot.note_mount(mount)?;
        let socket = slot.socket(node);
        let backing = directory.join(format!("disk-{node}"));
        let disk = PowerDisk::start(program, mount, &backing, &socket).await?;
        self.disks.insert(node, Mutex::new(disk));
        Ok(())
    }

    /// Takes from a broker's disk what was not synced. The broker must have been killed.
    ///
    /// # Errors
    /// When it runs, or its disk cannot lose power.
    pub async fn lose_power(&self, node: u32, loss: Loss) -> anyhow::Result<LossReport> {
        let broker = self.node(node).await?;
        anyhow::ensure!(broker.pid().is_none(), "broker {node} still runs");
        let disk = self
            .disks
            .get(&node)
            .context("the disk cannot lose power")?;
        disk.lock().await.lose_power(loss).await
    }

    /// A broker's process id, while it is meant to run.
    pub async fn pid(&self, node: u32) -> Option<u32> {
        self.nodes.get(&node)?.lock().await.pid()
    }

    /// Where a broker tells about its health.
    ///
    /// # Errors
    /// When there is no such broker.
    pub async fn admin_address(&self, node: u32) -> anyhow::Result<SocketAddr> {
        Ok(self.node(node).await?.spec().admin)
    }

    /// The brokers' numbers.
    #[must_use]
    pub fn numbers(&self) -> Vec<u32> {
        self.nodes.keys().copied().collect()
    }

    /// The brokers' addresses for clients.
    pub async fn addresses(&self) -> Vec<String> {
        let mut addresses = Vec::new();
        for node in self.nodes.values() {
            addresses.push(node.lock().await.spec().grpc.to_string());
        }
        addresses
    }

    /// A broker, alone for the holder of the answer.
    ///
    /// # Errors
    /// When there is no such broker.
    pub async fn node(&self, node: u32) -> anyhow::Result<MutexGuard<'_, Node>> {
        let found = self
            .nodes
            .get(&node)
            .with_context(|| format!("there is no broker {node}"))?;
        Ok(found.lock().await)
    }

    /// The network.
    ///
    /// # Errors
    /// When the brokers share the machine's.
    pub fn network(&self) -> anyhow::Result<&Network> {
        self.network
            .as_ref()
            .context("the brokers have no network of their own")
    }

    /// Notes brokers that ended by themselves. Anything but a kill of ours is a finding.
    pub async fn notice_deaths(&self) {
        for node in self.nodes.values() {
            if let Some(death) = node.lock().await.ended() {
                self.deaths.lock().await.push(death);
            }
        }
    }

    /// Brokers that ended by themselves so far.
    pub async fn deaths(&self) -> Vec<Death> {
        self.deaths.lock().await.clone()
    }

    /// Starts what does not run, lets go on what is paused.
    ///
    /// # Errors
    /// When the system refuses.
    pub async fn revive(&self) -> anyhow::Result<()> {
        self.notice_deaths().await;
        for node in self.nodes.values() {
            let mut node = node.lock().await;
            if node.is_paused() {
                node.resume()?;
            } else if !node.is_up() {
                node.start()?;
            }
        }
        Ok(())
    }

    /// Waits until every broker serves and has caught up. Cancellation-safe.
    ///
    /// # Errors
    /// Who does not, and what that broker says, when `patience` is over; at once when a broker
    /// ended by itself.
    pub async fn wait_caught_up(&self, patience: Duration) -> anyhow::Result<()> {
        let given_up = Instant::now() + patience;
        loop {
            let mut missing = Vec::new();
            for (number, node) in &self.nodes {
                let mut node = node.lock().await;
                if let Some(death) = node.ended() {
                    let text = format!("broker {number} ended ({}):\n{}", death.status, death.tail);
                    self.deaths.lock().await.push(death);
                    bail!(text);
                }
                if let Err(why) = node.caught_up().await {
                    missing.push(format!("broker {number}: {why}"));
                }
            }
            if missing.is_empty() {
                return Ok(());
            }
            if Instant::now() > given_up {
                let seconds = patience.as_secs();
                bail!("not healthy after {seconds} s: {}", missing.join("; "));
            }
            sleep(POLL).await;
        }
    }

    /// Ends every broker and removes what they stood on. Safe to repeat.
    ///
    /// # Errors
    /// When something stays.
    pub async fn end(&self) -> anyhow::Result<()> {
        for node in self.nodes.values() {
            let mut node = node.lock().await;
            node.ended();
            if node.pid().is_some() {
                node.kill().await?;
            }
        }
        let mut trouble = Ok(());
        for disk in self.disks.values() {
            trouble = trouble.and(disk.lock().await.end().await);
        }
        if let Some(slot) = &self.slot {
            slot.lock().await.clear().await?;
        }
        trouble
    }
}

/// Addresses for clients and for health. Without a network of their own the brokers take ports of
/// the loopback address that are free now and lie outside the range for outgoing connections.
fn addresses(
    nodes: &[u32],
    network: Option<&Network>,
) -> anyhow::Result<BTreeMap<u32, (SocketAddr, SocketAddr)>> {
    let mut addresses = BTreeMap::new();
    if let Some(network) = network {
        for node in nodes {
            let ip = network.address(*node).into();
            let at = |port| SocketAddr::new(ip, port);
            addresses.insert(*node, (at(GRPC_PORT), at(ADMIN_PORT)));
        }
        return Ok(addresses);
    }
    // All are held until all are chosen, so that none is chosen twice.
    let mut held = Vec::new();
    for node in nodes {
        let mut free = || -> anyhow::Result<SocketAddr> {
            for _ in 0..64 {
                let port = rand::random_range(20_000..32_000);
                if let Ok(listener) = TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
                    let address = listener.local_addr()?;
                    held.push(listener);
                    return Ok(address);
                }
            }
            bail!("no free port")
        };
        addresses.insert(*node, (free()?, free()?));
    }
    Ok(addresses)
}

/// Whether namespaces can be made here; otherwise why not.
///
/// # Errors
/// One sentence.
pub fn can_make_namespaces() -> Result<(), String> {
    if !rustix::process::geteuid().is_root() {
        return Err("network namespaces need root".to_owned());
    }
    for program in ["ip", "nft", "nsenter"] {
        if shell::find(program).is_none() {
            return Err(format!(
                "`{program}` is not there (packages iproute2, nftables, util-linux)"
            ));
        }
    }
    if !Path::new("/run").is_dir() {
        return Err("there is no /run".to_owned());
    }
    Ok(())
}

/// Whether file systems can be mounted here; otherwise why not.
///
/// # Errors
/// One sentence.
pub fn can_mount() -> Result<(), String> {
    if !rustix::process::geteuid().is_root() {
        return Err("mounting a file system needs root".to_owned());
    }
    if !Path::new("/dev/fuse").exists() {
        return Err("there is no /dev/fuse".to_owned());
    }
    Ok(())
}
