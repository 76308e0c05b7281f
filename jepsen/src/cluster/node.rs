//! One broker: how it is started, and the process that runs now.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{Read as _, Seek as _, SeekFrom};
use std::net::SocketAddr;
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};
use tokio::time::{sleep, timeout};

use super::probe;

/// Between two looks at a process.
const POLL: Duration = Duration::from_millis(20);

/// How long a killed process may take to be gone. A process that writes to a file system which has
/// stopped answering cannot be killed; that is an error of the harness.
const DEATH: Duration = Duration::from_secs(20);

/// How long a broker may take to stop in order; its own bounds add up to less.
const STOP: Duration = Duration::from_secs(40);

/// Everything that stays the same from start to start.
#[derive(Debug, Clone)]
pub struct Spec {
    /// The broker's number.
    pub node: u32,
    /// The program.
    pub executable: PathBuf,
    /// What is put before the program to run it in its namespace.
    pub prefix: Vec<OsString>,
    /// Where its data lies.
    pub data_dir: PathBuf,
    /// Where its output goes; appended to.
    pub log: PathBuf,
    /// Where clients and brokers reach it.
    pub grpc: SocketAddr,
    /// Where it tells about its health.
    pub admin: SocketAddr,
    /// All brokers' addresses.
    pub join: String,
    /// Settings as (`section.key`, value).
    pub settings: Vec<(String, String)>,
    /// Variables of the environment.
    pub environment: Vec<(String, String)>,
}

/// How a broker ended although nobody had ended it.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Death {
    /// The broker.
    pub node: u32,
    /// How, in the words of the operating system.
    pub status: String,
    /// The end of its log.
    pub tail: String,
}

/// One broker.
#[derive(Debug)]
pub struct Node {
    spec: Spec,
    child: Option<Child>,
    paused: bool,
    /// Whether it is expected to end by itself.
    may_end: bool,
    /// An end that was noticed and not told yet.
    death: Option<Death>,
    /// How long the log was when the present process, or the last one, was started; bytes.
    log_from: u64,
}

impl Spec {
    fn arguments(&self) -> Vec<OsString> {
        let mut words: Vec<OsString> = vec!["server".into()];
        let mut flag = |name: &str, value: String| {
            words.push(name.into());
            words.push(value.into());
        };
        // The kernel ends the broker with the harness, so that nothing outlives a kill -9 of it.
        flag("--die-with-parent", std::process::id().to_string());
        flag("--node-id", self.node.to_string());
        flag("--data-dir", self.data_dir.display().to_string());
        flag("--grpc-address", self.grpc.to_string());
        flag("--admin-address", self.admin.to_string());
        flag("--advertised-address", self.grpc.to_string());
        flag("--join", self.join.clone());
        for (key, value) in &self.settings {
            flag("--set", format!("{key}={value}"));
        }
        words
    }

    fn spawn(&self) -> anyhow::Result<Child> {
        let log = OpenOptions::new().create(true).append(true).open(&self.log);
        let log = log.with_context(|| format!("cannot open {}", self.log.display()))?;
        let mut words = self.prefix.clone();
        words.push(self.executable.clone().into());
        words.extend(self.arguments());
        let (program, arguments) = words.split_first().context("no program")?;
        let mut command = Command::new(program);
        command
            .args(arguments)
            .envs(self.environment.iter().cloned())
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            // Ctrl-C in the terminal goes to the harness alone, which ends its brokers in order.
            .process_group(0)
            .kill_on_drop(true);
        let child = command.spawn();
        child.with_context(|| format!("cannot start broker {}", self.node))
    }

    /// The last 2,000 bytes of the log, or as many as there are.
    fn tail(&self) -> String {
        let bytes = fs::read(&self.log).unwrap_or_default();
        let from = bytes.len().saturating_sub(2_000);
        let end = bytes.get(from..).unwrap_or_default();
        String::from_utf8_lossy(end).trim().to_owned()
    }
}

impl Node {
    /// A broker that does not run yet.
    #[must_use]
    pub const fn new(spec: Spec) -> Self {
        Self {
            spec,
            child: None,
            paused: false,
            may_end: false,
            death: None,
            log_from: 0,
        }
    }

    /// How it is started.
    #[must_use]
    pub const fn spec(&self) -> &Spec {
        &self.spec
    }

    /// Its process id, while it is meant to run.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().and_then(Child::id)
    }

    /// Starts it. Call it from a worker of the runtime: the kernel counts the end of the thread
    /// that calls as the end of the parent.
    ///
    /// # Errors
    /// When it runs already, or the system refuses.
    pub fn start(&mut self) -> anyhow::Result<u32> {
        ensure!(
            self.child.is_none(),
            "broker {} runs already",
            self.spec.node
        );
        // There is none before the first start.
        self.log_from = fs::metadata(&self.spec.log).map_or(0, |log| log.len());
        let child = self.spec.spawn()?;
        let pid = child.id().context("it ended at once")?;
        self.child = Some(child);
        self.paused = false;
        self.may_end = false;
        Ok(pid)
    }

    /// As [`Node::start`], of a process that is expected to refuse and end by itself.
    ///
    /// # Errors
    /// As there.
    pub fn start_to_be_refused(&mut self) -> anyhow::Result<u32> {
        let pid = self.start()?;
        self.may_end = true;
        Ok(pid)
    }

    /// What its present process has said so far, or the last one said.
    ///
    /// # Errors
    /// When its log cannot be read.
    pub fn said(&self) -> anyhow::Result<String> {
        let log = &self.spec.log;
        let mut file = File::open(log).with_context(|| format!("cannot read {}", log.display()))?;
        file.seek(SeekFrom::Start(self.log_from))?;
        let mut said = Vec::new();
        file.read_to_end(&mut said)?;
        Ok(String::from_utf8_lossy(&said).into_owned())
    }

    /// Ends it with SIGKILL and waits until it is gone. Answers with the process id that was.
    ///
    /// # Errors
    /// When it does not run, ended by something else, or cannot be killed.
    pub async fn kill(&mut self) -> anyhow::Result<u32> {
        use std::os::unix::process::ExitStatusExt as _;

        let node = self.spec.node;
        let mut child = self
            .child
            .take()
            .with_context(|| format!("broker {node} does not run"))?;
        let pid = child
            .id()
            .with_context(|| format!("broker {node} had ended"))?;
        child.start_kill()?;
        let status = timeout(DEATH, child.wait()).await;
        let status = status.with_context(|| format!("broker {node} cannot be killed"))??;
        if status.signal() != Some(Signal::KILL.as_raw()) && !self.may_end {
            self.death = Some(self.death_by(status));
            bail!("broker {node} ended by itself ({status}) before it was killed");
        }
        Ok(pid)
    }

    /// Sends SIGKILL and waits for nothing; [`Node::kill`] does, later.
    ///
    /// # Errors
    /// When it does not run.
    pub fn send_kill(&self) -> anyhow::Result<()> {
        self.signal(Signal::KILL).map(drop)
    }

    /// Says whether its next end, by itself, is no surprise.
    pub const fn expect_end(&mut self, expected: bool) {
        self.may_end = expected;
    }

    /// Stops it in order (SIGTERM) and waits until it is gone. An end that is none in order counts
    /// as one by itself.
    ///
    /// # Errors
    /// When it does not run, or does not end in time; it is then killed.
    pub async fn terminate(&mut self) -> anyhow::Result<u32> {
        let pid = self.signal(Signal::TERM)?;
        let mut child = self.child.take().context("it runs")?;
        match timeout(STOP, child.wait()).await {
            Ok(status) => {
                let status = status?;
                // A broker that dies of the signal had not begun: it handles it before it opens anything.
                let not_begun = status.signal() == Some(Signal::TERM.as_raw());
                if !status.success() && !not_begun {
                    self.death = Some(self.death_by(status));
                }
                Ok(pid)
            }
            Err(_elapsed) => {
                child.kill().await?;
                bail!(
                    "broker {} did not stop within {} s of SIGTERM",
                    self.spec.node,
                    STOP.as_secs()
                )
            }
        }
    }

    /// Stops it in its tracks (SIGSTOP) and waits until the kernel shows it as stopped.
    ///
    /// # Errors
    /// When it does not run or does not stop.
    pub async fn pause(&mut self) -> anyhow::Result<u32> {
        let pid = self.signal(Signal::STOP)?;
        self.paused = true;
        let given_up = Instant::now() + DEATH;
        while !is_stopped(pid) {
            ensure!(Instant::now() < given_up, "process {pid} does not stop");
            sleep(POLL).await;
        }
        Ok(pid)
    }

    /// Whether the kernel shows its process as stopped.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.pid().is_some_and(is_stopped)
    }

    /// Lets it go on (SIGCONT).
    ///
    /// # Errors
    /// When it does not run.
    pub fn resume(&mut self) -> anyhow::Result<()> {
        self.signal(Signal::CONT)?;
        self.paused = false;
        Ok(())
    }

    fn signal(&self, signal: Signal) -> anyhow::Result<u32> {
        let node = self.spec.node;
        let pid = self
            .pid()
            .with_context(|| format!("broker {node} does not run"))?;
        let raw = i32::try_from(pid)
            .ok()
            .and_then(Pid::from_raw)
            .context("a process id")?;
        kill_process(raw, signal).with_context(|| format!("cannot signal broker {node}"))?;
        Ok(pid)
    }

    /// How it ended by itself, when it did; told once.
    pub fn ended(&mut self) -> Option<Death> {
        if let Some(death) = self.death.take() {
            return Some(death);
        }
        let status: ExitStatus = self.child.as_mut()?.try_wait().ok().flatten()?;
        self.child = None;
        (!self.may_end).then(|| self.death_by(status))
    }

    fn death_by(&self, status: ExitStatus) -> Death {
        Death {
            node: self.spec.node,
            status: status.to_string(),
            tail: self.spec.tail(),
        }
    }

    /// Whether it is meant to run and is not paused.
    #[must_use]
    pub const fn is_up(&self) -> bool {
        self.child.is_some() && !self.paused
    }

    /// Whether it is paused.
    #[must_use]
    pub const fn is_paused(&self) -> bool {
        self.paused
    }

    /// Nothing when it serves and has caught up; otherwise what is missing.
    ///
    /// # Errors
    /// With the broker's own words.
    pub async fn caught_up(&self) -> Result<(), String> {
        if self.child.is_none() {
            return Err("it does not run".to_owned());
        }
        probe::caught_up(self.spec.admin).await
    }
}

/// Whether the kernel shows a process as stopped by a signal.
fn is_stopped(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The state follows the name, which may itself hold brackets and blanks.
    stat.rsplit_once(") ")
        .is_some_and(|(_, rest)| rest.starts_with('T'))
}
