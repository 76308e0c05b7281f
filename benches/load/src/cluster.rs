//! Three broker processes on this machine, started from the binary under test.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, Command};
use tokio::time::Instant;

const READY_WITHIN: Duration = Duration::from_secs(60);
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// The binary to test: as told, beside this program, or freshly built.
pub fn find_broker(told: Option<PathBuf>) -> anyhow::Result<PathBuf> {
    if let Some(path) = told {
        return Ok(path);
    }
    let me = std::env::current_exe()?;
    let sibling = me.with_file_name("highwater");
    if sibling.exists() {
        return Ok(sibling);
    }
    eprintln!("no broker binary beside {}; building it", me.display());
    let mut build = std::process::Command::new("cargo");
    build.args(["build", "-p", "highwater-broker", "--bin", "highwater"]);
    if me.parent().is_some_and(|dir| dir.ends_with("release")) {
        build.arg("--release");
    }
    if !build.status().context("cannot run cargo")?.success() || !sibling.exists() {
        bail!("the broker could not be built; name it with --broker");
    }
    Ok(sibling)
}

/// A running cluster. Its processes die with it, and so does its directory.
pub struct Cluster {
    brokers: Vec<Process>,
    /// Addresses of those that founded it.
    join: String,
    settings: Vec<String>,
    environment: Vec<(String, String)>,
    binary: PathBuf,
    directory: tempfile::TempDir,
}

/// One broker.
pub struct Process {
    command: Vec<String>,
    binary: PathBuf,
    environment: Vec<(String, String)>,
    log: PathBuf,
    child: Option<Child>,
    /// host:port of its gRPC door.
    pub address: String,
    /// host:port of its metrics.
    pub admin: String,
}

impl Cluster {
    /// Starts three brokers and waits until all are ready.
    pub async fn start(
        binary: &Path,
        settings: &[String],
        environment: &[(String, String)],
    ) -> anyhow::Result<Self> {
        let directory = tempfile::Builder::new()
            .prefix("highwater-load-")
            .tempdir()?;
        let mut addresses = free_addresses(6).await?;
        let admin = addresses.split_off(3);
        let mut cluster = Self {
            brokers: Vec::new(),
            join: addresses.join(","),
            settings: settings.to_vec(),
            environment: environment.to_vec(),
            binary: binary.to_owned(),
            directory,
        };
        for (address, admin) in addresses.into_iter().zip(admin) {
            cluster.add(address, admin)?;
        }
        cluster.wait_ready().await?;
        Ok(cluster)
    }
    /// Starts a further broker and waits until it is ready.
    pub async fn join(&mut self) -> anyhow::Result<()> {
        let mut addresses = free_addresses(2).await?;
        let admin = addresses.pop().context("no address")?;
        let address = addresses.pop().context("no address")?;
        self.add(address, admin)?;
        self.wait_ready().await
    }
    fn add(&mut self, address: String, admin: String) -> anyhow::Result<()> {
        let id = self.brokers.len() + 1;
        let dir = self.directory.path().join(format!("broker-{id}"));
        let mut keys = vec![
            format!("node.id={id}"),
            format!("node.data_dir={}", dir.display()),
            format!("node.join={}", self.join),
            format!("node.advertised_address={address}"),
            format!("listen.grpc={address}"),
            format!("listen.admin={admin}"),
        ];
        keys.extend(self.settings.iter().cloned());
        let mut command = vec!["server".to_owned()];
        for key in keys {
            command.extend(["--set".to_owned(), key]);
        }
        let mut process = Process {
            command,
            binary: self.binary.clone(),
            environment: self.environment.clone(),
            log: self.directory.path().join(format!("broker-{id}.log")),
            child: None,
            address,
            admin,
        };
        process.start()?;
        self.brokers.push(process);
        Ok(())
    }
    /// The brokers, by id from 1.
    pub fn brokers(&mut self) -> &mut [Process] {
        &mut self.brokers
    }
    /// The broker with this id.
    pub fn broker(&mut self, id: u32) -> anyhow::Result<&mut Process> {
        let index = id.checked_sub(1).context("broker ids begin at 1")? as usize;
        self.brokers
            .get_mut(index)
            .with_context(|| format!("no broker {id}"))
    }
    /// The directory of all that the brokers keep.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }
    /// A connection string for clients.
    pub fn connection_string(&self) -> String {
        let addresses: Vec<&str> = self.brokers.iter().map(|b| b.address.as_str()).collect();
        format!("highwater://{}", addresses.join(","))
    }
    /// Process ids of the brokers that run.
    pub fn pids(&self) -> Vec<u32> {
        self.brokers
            .iter()
            .filter_map(|b| b.child.as_ref().and_then(Child::id))
            .collect()
    }
    /// Waits until every broker says that it is ready.
    pub async fn wait_ready(&self) -> anyhow::Result<()> {
        let deadline = Instant::now() + READY_WITHIN;
        for broker in &self.brokers {
            while !broker.is_ready().await {
                if Instant::now() > deadline {
                    bail!(
                        "{} is not ready; its log is {}",
                        broker.address,
                        broker.log.display()
                    );
                }
                tokio::time::sleep(LOOK_AGAIN).await;
            }
        }
        Ok(())
    }
}

/// Addresses that nobody listens at.
async fn free_addresses(count: usize) -> anyhow::Result<Vec<String>> {
    let mut listeners = Vec::new();
    for _ in 0..count {
        listeners.push(TcpListener::bind("127.0.0.1:0").await?);
    }
    let addresses = listeners.iter().map(TcpListener::local_addr);
    let addresses: Result<Vec<_>, _> = addresses.collect();
    Ok(addresses?.iter().map(ToString::to_string).collect())
}

impl Process {
    /// Starts it.
    pub fn start(&mut self) -> anyhow::Result<()> {
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(&self.log)?;
        let child = Command::new(&self.binary)
            .args(&self.command)
            .envs(self.environment.iter().cloned())
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start {}", self.binary.display()))?;
        self.child = Some(child);
        Ok(())
    }
    /// Its process id, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().and_then(Child::id)
    }
    /// kill -9, and waits until the process is gone.
    pub async fn kill(&mut self) -> anyhow::Result<()> {
        if let Some(mut child) = self.child.take() {
            child.kill().await?;
        }
        Ok(())
    }
    async fn is_ready(&self) -> bool {
        let ask = get(&self.admin, "/readyz");
        matches!(
            tokio::time::timeout(Duration::from_secs(1), ask).await,
            Ok(Ok(answer)) if answer.starts_with("HTTP/1.1 200")
        )
    }
}

/// The sum of a metric's values over all its labels; `None` when the broker does not tell.
pub async fn scrape(admin: &str, name: &str) -> Option<f64> {
    let page = tokio::time::timeout(Duration::from_secs(2), get(admin, "/metrics"));
    let page = page.await.ok()?.ok()?;
    let mut sum = None;
    for line in page.lines() {
        let Some((left, value)) = line.rsplit_once(' ') else {
            continue;
        };
        if left.split('{').next() == Some(name)
            && let Ok(value) = value.parse::<f64>()
        {
            sum = Some(sum.unwrap_or(0.0) + value);
        }
    }
    sum
}

/// A page of a broker's admin door, with its headers.
async fn get(admin: &str, path: &str) -> std::io::Result<String> {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut stream = TcpStream::connect(admin).await?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {admin}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}
