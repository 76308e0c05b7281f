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
        let mut ports = Vec::new();
        for _ in 0..6 {
            ports.push(TcpListener::bind("127.0.0.1:0").await?);
        }
        let mut addresses = Vec::new();
        for port in &ports {
            addresses.push(port.local_addr()?.to_string());
        }
        drop(ports);
        let (grpc, admin) = addresses.split_at(3);
        let join = grpc.join(",");
        let mut cluster = Self {
            brokers: Vec::new(),
            directory,
        };
        for (index, (address, admin)) in grpc.iter().zip(admin).enumerate() {
            let dir = cluster
                .directory
                .path()
                .join(format!("broker-{}", index + 1));
            let mut keys = vec![
                format!("node.id={}", index + 1),
                format!("node.data_dir={}", dir.display()),
                format!("node.join={join}"),
                format!("node.advertised_address={address}"),
                format!("listen.grpc={address}"),
                format!("listen.admin={admin}"),
            ];
            keys.extend(settings.iter().cloned());
            let mut command = vec!["server".to_owned()];
            for key in keys {
                command.extend(["--set".to_owned(), key]);
            }
            let mut process = Process {
                command,
                binary: binary.to_owned(),
                environment: environment.to_vec(),
                log: cluster
                    .directory
                    .path()
                    .join(format!("broker-{}.log", index + 1)),
                child: None,
                address: address.clone(),
                admin: admin.clone(),
            };
            process.start()?;
            cluster.brokers.push(process);
        }
        cluster.wait_ready().await?;
        Ok(cluster)
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
