//! Three nodes that run the real broker, each with a disk that forgets.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use highwater_broker::config::{Address, Config, Millis};
use highwater_broker::node;
use highwater_env::{Disk, Env, Loss, SimDisk};
use highwater_proto::{ByteSize, NodeId};
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;
use turmoil::Sim;

use crate::surroundings::SimEnv;
use crate::trace;

/// Nodes of the cluster.
pub const NODES: [&str; 3] = ["n1", "n2", "n3"];
/// The port of every node.
pub const PORT: u16 = 9094;

/// One node as the simulator keeps it, running or not.
struct Node {
    disk: Arc<Mutex<SimDisk>>,
    /// The disk stops at this call, and the node with it.
    stops_at: Option<(u64, Loss)>,
    running: bool,
    /// What a lying disk really holds, see [`Cluster::lie`].
    really: Option<SimDisk>,
}

/// The nodes.
pub struct Cluster {
    nodes: Vec<Node>,
}

/// The address of a node.
#[must_use]
pub fn address(node: &str) -> String {
    format!("{node}:{PORT}")
}

impl Cluster {
    /// Starts a node for each of [`NODES`]; the clock of each is off by as many milliseconds as
    /// `skews` says.
    ///
    /// # Errors
    /// When an empty disk cannot be prepared or a configuration is refused.
    pub fn start(sim: &mut Sim<'_>, skews: [i64; 3]) -> anyhow::Result<Self> {
        node::end_with(|why| trace::note("process ends", "", format_args!(" {why}")));
        let mut nodes = Vec::new();
        for (id, (name, skew)) in (1..).zip(NODES.into_iter().zip(skews)) {
            let disk = SimDisk::new();
            disk.create_dir_all(data_dir())?;
            disk.sync_dir(Path::new("/"))?;
            disk.start_trace();
            let disk = Arc::new(Mutex::new(disk));
            let config = config(id, name)?;
            let current = Arc::clone(&disk);
            sim.host(name, move || {
                let env = SimEnv::new(current.lock().clone(), skew);
                let config = config.clone();
                async move {
                    let disk = env.disk().clone();
                    let ran = node::run_in(env, config, CancellationToken::new()).await;
                    // A broker whose disk has stopped may end as it likes until it is taken down.
                    if ran.is_err() && disk.exists(data_dir()).is_err() {
                        return std::future::pending().await;
                    }
                    Ok(ran?)
                }
            });
            nodes.push(Node {
                disk,
                stops_at: None,
                running: true,
                really: None,
            });
        }
        Ok(Self { nodes })
    }

    /// The power of a node fails at its `calls`-th file call from now.
    pub fn arm(&mut self, node: usize, calls: u64, loss: Loss) {
        if let Some(node) = self.nodes.get_mut(node)
            && node.running
        {
            let disk = node.disk.lock();
            node.stops_at = Some((disk.calls().saturating_add(calls), loss));
            disk.stop_after(calls);
        }
    }

    /// Takes down the nodes whose disks have stopped.
    pub fn take_down(&mut self, sim: &mut Sim<'_>) {
        for (node, name) in self.nodes.iter_mut().zip(NODES) {
            if let Some((at, loss)) = node.stops_at
                && node.disk.lock().calls() >= at
            {
                node.stops_at = None;
                node.fail(sim, name, loss);
            }
        }
    }

    /// Every disk lies: what is synced from now on is not durable until the next call. This is a
    /// control: a run with it must fail, or it would not notice a loss.
    pub fn lie(&mut self) {
        for node in self.nodes.iter_mut().filter(|node| node.running) {
            node.really = Some(node.disk.lock().crash(Loss::Everything));
        }
    }

    /// The power of a node fails now.
    pub fn crash(&mut self, sim: &mut Sim<'_>, node: usize, loss: Loss) {
        if let (Some(node), Some(name)) = (self.nodes.get_mut(node), NODES.get(node))
            && node.running
        {
            node.fail(sim, name, loss);
        }
    }

    /// Starts every node that is down, and lets none go down any more.
    pub fn heal(&mut self, sim: &mut Sim<'_>) {
        for at in 0..self.nodes.len() {
            self.bounce(sim, at);
        }
        for node in &mut self.nodes {
            node.stops_at = None;
            node.disk.lock().clear_faults();
        }
    }

    /// Starts a node if it is down.
    pub fn bounce(&mut self, sim: &mut Sim<'_>, node: usize) {
        if let (Some(node), Some(name)) = (self.nodes.get_mut(node), NODES.get(node))
            && !node.running
        {
            trace::note("node starts", name, format_args!(""));
            node.running = true;
            sim.bounce(*name);
        }
    }

    /// Moves the file calls since the last time into the trace.
    pub fn note_calls(&self) {
        for (node, name) in self.nodes.iter().zip(NODES) {
            for call in node.disk.lock().take_trace() {
                trace::note(
                    "file",
                    name,
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
        }
    }
}

impl Node {
    fn fail(&mut self, sim: &mut Sim<'_>, name: &str, loss: Loss) {
        trace::note("power fails", name, format_args!(" {loss:?}"));
        // What the dying node still writes while it is taken apart goes to the disk it had.
        let left = match self.really.take() {
            Some(really) => really,
            None => self.disk.lock().crash(loss),
        };
        left.start_trace();
        sim.crash(name);
        *self.disk.lock() = left;
        self.running = false;
    }
}

fn data_dir() -> &'static Path {
    Path::new("/data")
}

/// Small files and frequent checkpoints, so that a short run recycles the one and replaces the
/// other.
fn config(id: u32, name: &str) -> anyhow::Result<Config> {
    let mut config = Config::default();
    let address = |name| Address::parse(&address(name)).context("a node's address");
    config.node.id = NodeId(id);
    config.node.data_dir = PathBuf::from(data_dir());
    config.node.join = NODES.into_iter().map(address).collect::<Result<_, _>>()?;
    config.node.advertised_address = Some(address(name)?);
    config.wal.file_bytes = ByteSize(1 << 20);
    config.wal.budget_bytes = ByteSize(4 << 20);
    config.storage.checkpoint_interval_ms = Millis(2_000);
    config.storage.checkpoint_bytes = ByteSize(64 << 10);
    config.validate().context("the simulated configuration")?;
    Ok(config)
}
