//! The brokers that are compared: how three of each are started, and what an acknowledgement of
//! theirs is worth.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, bail};
use highwater_load::bench::backend::Backend;
use highwater_load::bench::highwater::Highwater;
use highwater_load::cluster::Cluster;
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, Command};
use tokio::time::Instant;

use crate::{kafka, nats};

const READY_WITHIN: Duration = Duration::from_secs(60);
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// A broker with settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Kind {
    /// Highwater, which has no other setting.
    Highwater,
    /// Kafka as it comes.
    Kafka,
    /// Kafka with `flush.messages=1`.
    KafkaFlush,
    /// NATS JetStream as it comes.
    Nats,
    /// NATS JetStream with `sync_interval: always`.
    NatsAlways,
}

impl Kind {
    /// In the order of a round.
    pub const ALL: [Self; 5] = [
        Self::Highwater,
        Self::Kafka,
        Self::KafkaFlush,
        Self::Nats,
        Self::NatsAlways,
    ];
    /// Its name in results.
    pub fn name(self) -> &'static str {
        match self {
            Self::Highwater => "Highwater",
            Self::Kafka => "Kafka",
            Self::KafkaFlush => "Kafka flush.messages=1",
            Self::Nats => "NATS R3",
            Self::NatsAlways => "NATS R3 sync always",
        }
    }
    /// What is true of a record when it is acknowledged.
    pub fn durability(self) -> &'static str {
        match self {
            Self::Highwater => "on the disks of a majority",
            Self::Kafka => "in the memory of two of three; on disk when the system writes it",
            Self::KafkaFlush => "on the disks of all in-sync replicas",
            Self::Nats => "in the memory of a majority; on disk within two minutes",
            Self::NatsAlways => "on the disks of a majority",
        }
    }
    /// The word for the command line.
    pub fn word(self) -> &'static str {
        match self {
            Self::Highwater => "highwater",
            Self::Kafka => "kafka",
            Self::KafkaFlush => "kafka-flush",
            Self::Nats => "nats",
            Self::NatsAlways => "nats-always",
        }
    }
    /// How to talk to brokers of this kind.
    pub fn backend(self, connection: &str) -> Box<dyn Backend> {
        let connection = connection.to_owned();
        match self {
            Self::Highwater => Box::new(Highwater { connection }),
            Self::Kafka => Box::new(kafka::Kafka {
                connection,
                flush: false,
            }),
            Self::KafkaFlush => Box::new(kafka::Kafka {
                connection,
                flush: true,
            }),
            Self::Nats | Self::NatsAlways => Box::new(nats::Nats { connection }),
        }
    }
}

/// Where the binaries are.
#[derive(Debug, Clone)]
pub struct Places {
    /// The folder that install.sh filled.
    pub peers: PathBuf,
    /// Highwater's binary.
    pub broker: PathBuf,
}

/// Three running brokers; they end with it, and so does their data.
pub struct Brokers {
    /// For clients.
    pub connection: String,
    /// Their process ids.
    pub pids: Vec<u32>,
    /// host:port of metrics, where there are any that are understood.
    pub metrics: Vec<String>,
    /// Where their data is.
    pub directory: PathBuf,
    _running: Running,
}

enum Running {
    Own(#[expect(dead_code, reason = "kept alive")] Cluster),
    Others(
        #[expect(dead_code, reason = "kept alive")] Vec<Child>,
        #[expect(dead_code, reason = "kept alive")] tempfile::TempDir,
    ),
}

/// Starts three brokers and waits until they can be used.
pub async fn start(kind: Kind, places: &Places) -> anyhow::Result<Brokers> {
    if kind == Kind::Highwater {
        let mut cluster = Cluster::start(&places.broker, &[], &[]).await?;
        return Ok(Brokers {
            connection: cluster.connection_string(),
            pids: cluster.pids(),
            metrics: cluster
                .brokers()
                .iter()
                .map(|one| one.admin.clone())
                .collect(),
            directory: cluster.directory().to_owned(),
            _running: Running::Own(cluster),
        });
    }
    let directory = tempfile::Builder::new()
        .prefix("highwater-compare-")
        .tempdir()?;
    let ports = free_ports(9).await?;
    let started = match kind {
        Kind::Nats | Kind::NatsAlways => {
            nats::start(kind == Kind::NatsAlways, places, directory.path(), &ports).await?
        }
        _ => kafka::start(places, directory.path(), &ports).await?,
    };
    Ok(Brokers {
        connection: started.connection,
        pids: started.children.iter().filter_map(Child::id).collect(),
        metrics: Vec::new(),
        directory: directory.path().to_owned(),
        _running: Running::Others(started.children, directory),
    })
}

/// What a module of a broker gives back.
pub struct Started {
    pub connection: String,
    pub children: Vec<Child>,
}

async fn free_ports(count: usize) -> anyhow::Result<Vec<u16>> {
    let mut listeners = Vec::new();
    for _ in 0..count {
        listeners.push(TcpListener::bind("127.0.0.1:0").await?);
    }
    let mut ports = Vec::new();
    for listener in &listeners {
        ports.push(listener.local_addr()?.port());
    }
    Ok(ports)
}

/// Starts a program with its output in a file.
pub fn spawn(command: &mut Command, log: &Path) -> anyhow::Result<Child> {
    let log = std::fs::File::create(log)?;
    let program = command.as_std().get_program().to_owned();
    command
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("cannot start {}", program.display()))
}

/// Waits until something listens on each port.
pub async fn wait_for_ports(ports: &[u16], log: &Path) -> anyhow::Result<()> {
    let deadline = Instant::now() + READY_WITHIN;
    for port in ports {
        while TcpStream::connect(("127.0.0.1", *port)).await.is_err() {
            if Instant::now() > deadline {
                let log = std::fs::read_to_string(log).unwrap_or_default();
                let end: Vec<&str> = log.lines().rev().take(5).collect();
                bail!("nothing listens on port {port}: {end:?}");
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }
    Ok(())
}
