//! The brokers under test: their network, their processes, their disks.

pub mod binary;
pub mod clock;
mod ground;
pub mod link;
mod members;
pub mod network;
pub mod node;
mod probe;
pub mod shell;
pub mod slot;
pub mod storage;
pub mod wal;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use tokio::sync::{Mutex, MutexGuard};
use tokio::time::sleep;

use ground::addresses;
pub use ground::{can_make_namespaces, can_mount};
use highwater_powerfs::{Loss, LossReport};
pub(crate) use members::ROTTED;
use network::Network;
use node::{Death, Node, Spec};
pub use probe::{caught_up, clock_trouble, metrics};
use slot::Slot;
use storage::PowerDisk;

/// Between two looks at a condition of the whole cluster.
const POLL: Duration = Duration::from_millis(50);

/// What to start.
#[derive(Debug, Clone)]
pub struct ClusterSpec {
    /// The broker's program.
    pub executable: PathBuf,
    /// How many brokers.
    pub brokers: u32,
    /// Whether there is one more, which does not run and may join.
    pub spare: bool,
    /// Where data and logs go.
    pub directory: PathBuf,
    /// Each broker in a network namespace of its own.
    pub namespaces: bool,
    /// The words that start a server of a file system that can lose power; every broker then has
    /// one. Needs namespaces.
    pub disks: Option<Vec<OsString>>,
    /// Settings of every broker as (`section.key`, value).
    pub settings: Vec<(String, String)>,
    /// Whether every broker gets a wall clock of its own, that can be set.
    pub clocks: bool,
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
    /// The files that say how far each broker's clock is ahead.
    clocks: BTreeMap<u32, PathBuf>,
    deaths: Mutex<Vec<Death>>,
    /// A broker that does not belong to the cluster all the time, and whether it does now.
    spare: Option<u32>,
    spare_joined: AtomicBool,
    /// Whoever has it starts and stops the spare broker; nobody else does.
    spare_owner: Arc<Mutex<()>>,
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
            clocks: BTreeMap::new(),
            deaths: Mutex::new(Vec::new()),
            spare: spec.spare.then_some(spec.brokers + 1),
            spare_joined: AtomicBool::new(false),
            spare_owner: Arc::default(),
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
        let numbers: Vec<u32> = (1..=spec.brokers).chain(self.spare).collect();
        if let Some(slot) = slot {
            self.network = Some(Network::create(slot, &numbers).await?);
        }
        let addresses = addresses(&numbers, self.network.as_ref())?;
        let founders = addresses
            .iter()
            .filter(|(node, _)| Some(**node) != self.spare);
        let join: Vec<String> = founders.map(|(_, (grpc, _))| grpc.to_string()).collect();
        for (node, (grpc, admin)) in &addresses {
            let data_dir = spec.directory.join(format!("broker-{node}"));
            fs::create_dir_all(&data_dir)
                .with_context(|| format!("cannot create {}", data_dir.display()))?;
            if let Some(program) = &spec.disks {
                self.mount(*node, program, &spec.directory, &data_dir)
                    .await?;
            }
            let mut environment = spec.environment.clone();
            if spec.clocks {
                let file = clock::file(&spec.directory, *node);
                environment.extend(clock::environment(&file)?);
                self.clocks.insert(*node, file);
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
                environment,
            };
            self.nodes.insert(*node, Mutex::new(Node::new(spec)));
        }
        for node in self.members() {
            self.node(node).await?.start()?;
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
        self.disk(node).await?.lose_power(loss).await
    }

    /// The disk of a broker, alone for the holder of the answer.
    ///
    /// # Errors
    /// When it is a plain directory.
    pub async fn disk(&self, node: u32) -> anyhow::Result<MutexGuard<'_, PowerDisk>> {
        let disk = self.disks.get(&node);
        let disk = disk.context("the disk cannot be broken on purpose")?;
        Ok(disk.lock().await)
    }

    /// Sets how many seconds a broker's wall clock is ahead of the machine's; it shows within a
    /// second.
    ///
    /// # Errors
    /// When the broker has no clock of its own, or it cannot be written.
    pub fn set_clock(&self, node: u32, ahead_s: i64) -> anyhow::Result<()> {
        let file = self.clocks.get(&node);
        clock::set(file.context("the broker has no clock of its own")?, ahead_s)
    }

    /// A broker's machine loses power while the broker waits for its disk: what it waits for must
    /// not come to its end first, so the disk goes before the process is gone.
    ///
    /// # Errors
    /// When it does not run, cannot be killed, or its disk cannot lose power.
    pub async fn tear(&self, node: u32, loss: Loss) -> anyhow::Result<LossReport> {
        let mut broker = self.node(node).await?;
        broker.send_kill()?;
        let report = self.disk(node).await?.lose_power(loss).await;
        broker.kill().await?;
        report
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

    /// The brokers' addresses for clients.
    pub async fn addresses(&self) -> Vec<String> {
        let mut addresses = Vec::new();
        for (_, node) in self
            .nodes
            .iter()
            .filter(|(node, _)| Some(**node) != self.spare)
        {
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
        for node in self.members() {
            let mut node = self.node(node).await?;
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
            for number in self.members() {
                let mut node = self.node(number).await?;
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
