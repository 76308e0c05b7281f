//! What the tests share: surroundings whose connections can be cut, and a
//! cluster of brokers with one group each in one process.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use highwater_env::{Disk as _, Env, Net, OsDisk, OsEnv, SimDisk, SystemClock, TcpNet, Workers};
use highwater_proto::{NodeId, Payload, ShardId};
use highwater_wal::{Wal, WalConfig};
use parking_lot::Mutex;
use tokio::io::DuplexStream;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_stream::wrappers::TcpListenerStream;

use crate::toy::{Toy, ToyState, read_stored};
use crate::{
    Caller, Group, GroupStatus, Groups, GroupsConfig, Peers, StoredCheckpoint, Timings, VoteFloor,
};

pub(crate) const GROUP: ShardId = ShardId(7);
const PATIENCE: Duration = Duration::from_secs(30);

/// TCP whose open connections can be cut.
#[derive(Clone, Default)]
pub(crate) struct CutNet {
    wires: Arc<Mutex<JoinSet<()>>>,
}

impl CutNet {
    pub(crate) fn cut(&self) {
        self.wires.lock().abort_all();
    }
}

impl Net for CutNet {
    type Stream = DuplexStream;
    type Listener = Never;

    async fn connect(&self, address: &str) -> io::Result<DuplexStream> {
        let mut tcp: TcpStream = TcpNet.connect(address).await?;
        let (near, mut far) = tokio::io::duplex(1 << 20);
        self.wires.lock().spawn(async move {
            let _ = tokio::io::copy_bidirectional(&mut tcp, &mut far).await;
        });
        Ok(near)
    }
    async fn listen(&self, _: &str) -> io::Result<Never> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

/// The tests listen by themselves.
pub(crate) enum Never {}

impl highwater_env::Listener for Never {
    type Stream = DuplexStream;
    async fn accept(&mut self) -> io::Result<(DuplexStream, std::net::SocketAddr)> {
        match *self {}
    }
    fn local_addr(&self) -> io::Result<std::net::SocketAddr> {
        match *self {}
    }
}

/// This machine, with connections that can be cut.
#[derive(Clone, Default)]
pub(crate) struct TestEnv {
    os: OsEnv,
    pub(crate) net: CutNet,
}

impl Env for TestEnv {
    type Disk = OsDisk;
    type Clock = SystemClock;
    type Net = CutNet;

    fn disk(&self) -> &OsDisk {
        self.os.disk()
    }
    fn clock(&self) -> &SystemClock {
        self.os.clock()
    }
    fn net(&self) -> &CutNet {
        &self.net
    }
    fn workers(&self) -> Workers {
        Workers::Threads
    }
}

/// A disk that forgets what was not synced, and a log driven by tasks.
#[derive(Clone, Default)]
pub(crate) struct SimEnv {
    pub(crate) disk: SimDisk,
}

impl Env for SimEnv {
    type Disk = SimDisk;
    type Clock = SystemClock;
    type Net = TcpNet;

    fn disk(&self) -> &SimDisk {
        &self.disk
    }
    fn clock(&self) -> &SystemClock {
        &SystemClock
    }
    fn net(&self) -> &TcpNet {
        &TcpNet
    }
    fn workers(&self) -> Workers {
        Workers::Tasks
    }
}

fn wal_config() -> WalConfig {
    WalConfig {
        file_bytes: 8 << 20,
        ..WalConfig::default()
    }
}

/// Where peers are, and what they said of their clocks.
pub(crate) struct Addresses {
    known: BTreeMap<NodeId, String>,
    pub(crate) clocks: Mutex<BTreeMap<NodeId, i64>>,
    /// Data directories that were given up, as this broker knows.
    pub(crate) retired: Mutex<BTreeSet<String>>,
}

impl Peers for Addresses {
    fn address(&self, node: NodeId) -> Option<String> {
        self.known.get(&node).cloned()
    }
    fn heard_clock(&self, node: NodeId, wall_ms: i64) {
        self.clocks.lock().insert(node, wall_ms);
    }
    fn is_retired(&self, incarnation: &str) -> bool {
        self.retired.lock().contains(incarnation)
    }
}

/// A running broker.
pub(crate) struct Broker {
    pub(crate) env: TestEnv,
    pub(crate) group: Group,
    pub(crate) state: Arc<Mutex<ToyState>>,
    pub(crate) peers: Arc<Addresses>,
    pub(crate) groups: Groups<TestEnv>,
    wal: Wal<TestEnv>,
    server: JoinSet<()>,
}

/// Three brokers, some of them running.
pub(crate) struct Cluster {
    dir: tempfile::TempDir,
    addresses: BTreeMap<NodeId, String>,
    pub(crate) brokers: BTreeMap<NodeId, Broker>,
}

impl Cluster {
    /// Brokers 1 to 3 with one group of all three, initialized.
    pub(crate) async fn start() -> Self {
        let mut listeners = BTreeMap::new();
        let mut addresses = BTreeMap::new();
        for node in (1..=3).map(NodeId) {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            addresses.insert(node, listener.local_addr().unwrap().to_string());
            listeners.insert(node, listener);
        }
        let dir = tempfile::tempdir().unwrap();
        let mut cluster = Self {
            dir,
            addresses,
            brokers: BTreeMap::new(),
        };
        for (node, listener) in listeners {
            cluster.run(node, listener).await;
        }
        for broker in cluster.brokers.values() {
            broker
                .group
                .initialize(cluster.addresses.clone())
                .await
                .unwrap();
        }
        cluster
    }

    /// Starts a stopped broker from what its directory holds.
    pub(crate) async fn restart(&mut self, node: NodeId) {
        let listener = TcpListener::bind(&self.addresses[&node]).await.unwrap();
        self.run(node, listener).await;
    }

    async fn run(&mut self, node: NodeId, listener: TcpListener) {
        let env = TestEnv::default();
        let dir = self.dir.path().join(node.to_string());
        env.disk().create_dir_all(&dir.join("wal")).unwrap();
        let (wal, _) = Wal::open(&env, &dir.join("wal"), wal_config()).unwrap();
        let config = GroupsConfig {
            node_id: node,
            identity: Arc::new(move || Caller {
                cluster: "test".to_owned(),
                node,
                incarnation: format!("life-{node}"),
            }),
            admission: Arc::new(|caller| {
                let known = caller.cluster == "test"
                    && caller.incarnation == format!("life-{}", caller.node);
                if known {
                    Ok(())
                } else {
                    Err("not one of us".to_owned())
                }
            }),
            timings: Timings::default(),
            cache_bytes: 64 << 10,
        };
        let peers = Arc::new(Addresses {
            known: self.addresses.clone(),
            clocks: Mutex::default(),
            retired: Mutex::default(),
        });
        let known = Arc::clone(&peers) as Arc<dyn Peers>;
        let groups = Groups::new(config, env.clone(), wal.clone(), known);
        let service = groups.service().into_server();
        let mut server = JoinSet::new();
        server.spawn(async move {
            let incoming = TcpListenerStream::new(listener);
            let server = tonic::transport::Server::builder().add_service(service);
            server.serve_with_incoming(incoming).await.unwrap();
        });
        let toy = Toy::new(&dir);
        let state = Arc::clone(&toy.state);
        let group = groups.start(GROUP, toy, VoteFloor::Usual).await.unwrap();
        self.brokers.insert(
            node,
            Broker {
                env,
                group,
                state,
                peers,
                groups,
                wal,
                server,
            },
        );
    }

    /// Stops a broker; its directory stays.
    pub(crate) async fn stop(&mut self, node: NodeId) {
        let Broker {
            group,
            groups,
            wal,
            mut server,
            ..
        } = self.brokers.remove(&node).unwrap();
        group.shutdown().await;
        groups.close().await;
        server.shutdown().await;
        wal.close().await;
    }

    /// The last checkpoint that a broker has stored.
    pub(crate) fn stored(&self, node: NodeId) -> StoredCheckpoint {
        let path = self.dir.path().join(node.to_string()).join("checkpoint");
        read_stored(&path).unwrap().expect("a checkpoint")
    }

    pub(crate) async fn stop_all(&mut self) {
        for node in self.brokers.keys().copied().collect::<Vec<_>>() {
            self.stop(node).await;
        }
    }

    /// Waits until all running brokers agree on a running leader that can take commands.
    pub(crate) async fn leader(&self) -> NodeId {
        let agreed = async {
            loop {
                for (node, broker) in &self.brokers {
                    let all = self.brokers.values();
                    let mut leaders = all.map(|b| b.group.status().borrow().leader);
                    if leaders.all(|leader| leader == Some(*node))
                        && broker.group.read_barrier().await.is_ok()
                    {
                        return *node;
                    }
                }
                self.any_change().await;
            }
        };
        tokio::time::timeout(PATIENCE, agreed)
            .await
            .expect("a leader")
    }

    async fn any_change(&self) {
        let mut statuses: Vec<_> = self.brokers.values().map(|b| b.group.status()).collect();
        let changes = statuses.iter_mut().map(|status| Box::pin(status.changed()));
        let first = futures_util::future::select_all(changes);
        // A leader may also become ready without any change of status.
        let _ = tokio::time::timeout(Duration::from_millis(100), first).await;
    }

    pub(crate) fn followers(&self, leader: NodeId) -> Vec<NodeId> {
        self.brokers
            .keys()
            .copied()
            .filter(|node| *node != leader)
            .collect()
    }

    pub(crate) fn group(&self, node: NodeId) -> &Group {
        &self.brokers[&node].group
    }

    pub(crate) fn commands(&self, node: NodeId) -> Vec<Bytes> {
        self.brokers[&node].state.lock().applied.clone()
    }

    /// Waits until a broker's status is as wanted.
    pub(crate) async fn wait(&self, node: NodeId, wanted: impl FnMut(&GroupStatus) -> bool) {
        let mut status = self.group(node).status();
        let reached = tokio::time::timeout(PATIENCE, status.wait_for(wanted)).await;
        reached.expect("in time").expect("still running");
    }

    /// Waits until all running brokers know that every member has the log up to an entry.
    pub(crate) async fn wait_everywhere(&self, index: u64) {
        for node in self.brokers.keys() {
            let mut known = self.group(*node).inner.everywhere.watch();
            let reached = known.wait_for(|count| *count > index);
            let reached = tokio::time::timeout(PATIENCE, reached).await;
            reached.expect("in time").expect("still running");
        }
    }

    /// Waits until all running brokers have applied what the leader has.
    pub(crate) async fn settle(&self) {
        let leader = self.leader().await;
        let index = self.group(leader).read_barrier().await.unwrap();
        for node in self.brokers.keys() {
            self.wait(*node, |status| status.applied >= index).await;
        }
    }

    /// Writes commands through the leader, in order, and waits for their replies.
    pub(crate) async fn write(&self, name: &str, count: usize, bytes: usize) {
        let leader = self.leader().await;
        let group = self.group(leader);
        let pending: Vec<_> = (0..count)
            .map(|i| group.propose_ordered(command(name, i, bytes)))
            .collect();
        for reply in pending {
            reply.await.unwrap();
        }
    }
}

/// A command that says who wrote it, padded to a length.
pub(crate) fn command(name: &str, number: usize, bytes: usize) -> Payload {
    let text = format!("{name}:{number}");
    let padding = bytes.saturating_sub(text.len());
    let parts = [Bytes::from(text), Bytes::from(vec![b'.'; padding])];
    parts.into_iter().collect()
}

/// The numbers of a writer's commands, in the order applied.
pub(crate) fn numbers(commands: &[Bytes], name: &str) -> Vec<usize> {
    let of = |command: &Bytes| {
        let text = String::from_utf8(command.to_vec()).unwrap();
        let (writer, number) = text.trim_end_matches('.').split_once(':')?;
        (writer == name).then(|| number.parse().unwrap())
    };
    commands.iter().filter_map(of).collect()
}
