//! A cluster whose brokers are started, killed, stopped and set up one by one.

use std::collections::BTreeMap;
use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use highwater_broker::process::{Broker, BrokerSpec, ProcessError};
use highwater_client::{Client, NodeId};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::{Mutex, MutexGuard};
use tokio::time::{Instant, sleep, timeout};

/// Long enough for a machine that is busy with something else.
pub const PATIENCE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(20);
/// How much of a broker's log a test that fails shows, in bytes.
const LAST_WORDS: usize = 4 << 10;

/// Only one fleet at a time.
static TURN: Mutex<()> = Mutex::const_new(());

/// Brokers on this machine, numbered from 1, with data and logs in a temporary directory.
pub struct Fleet {
    // Before the directory: no broker writes to it while it is removed.
    running: BTreeMap<u32, Broker>,
    specs: BTreeMap<u32, BrokerSpec>,
    directory: TempDir,
    _turn: MutexGuard<'static, ()>,
}

/// How a broker said no.
pub struct Refusal {
    /// Its exit code.
    pub code: i32,
    /// The line on standard error.
    pub line: String,
}

impl Fleet {
    /// Brokers that are not started yet; small logs, so that files turn over and disks stay small.
    pub async fn of(brokers: u32, settings: &[(&str, &str)]) -> Self {
        let turn = TURN.lock().await;
        let directory = tempfile::Builder::new().prefix("highwater-test-").tempdir();
        let directory = directory.expect("a directory");
        let mut fleet = Self {
            running: BTreeMap::new(),
            specs: BTreeMap::new(),
            directory,
            _turn: turn,
        };
        for node in 1..=brokers {
            let spec = fleet.new_spec(node, &format!("broker-{node}"));
            fleet.specs.insert(node, spec);
        }
        let join: Vec<String> = fleet.specs.values().map(BrokerSpec::address).collect();
        for spec in fleet.specs.values_mut() {
            if brokers > 1 {
                spec.join.clone_from(&join);
            }
        }
        for (key, value) in settings {
            fleet.set_everywhere(key, value);
        }
        fleet
    }

    /// A cluster that is ready.
    pub async fn started(brokers: u32, settings: &[(&str, &str)]) -> Self {
        let mut fleet = Self::of(brokers, settings).await;
        fleet.start_all().await;
        fleet
    }

    /// A spec with free ports and a home of its own.
    pub fn new_spec(&self, node: u32, home: &str) -> BrokerSpec {
        let home = self.directory.path().join(home);
        fs::create_dir_all(&home).expect("a home");
        BrokerSpec {
            executable: PathBuf::from(env!("CARGO_BIN_EXE_highwater")),
            node,
            data_dir: home.join("data"),
            grpc: free_port(),
            admin: free_port(),
            join: Vec::new(),
            log: home.join("log"),
            // As many shards as large machines would have, whatever this one is: plans have something to do.
            settings: vec![
                ("wal.file_bytes".into(), "4MiB".into()),
                ("node.shards_per_broker".into(), "8".into()),
            ],
        }
    }

    /// A further broker that knows the others' addresses; not started.
    pub fn add(&mut self, node: u32) {
        let mut spec = self.new_spec(node, &format!("broker-{node}"));
        let first = self.specs.values().next().expect("a broker");
        spec.settings.clone_from(&first.settings);
        spec.join = self.specs.values().map(BrokerSpec::address).collect();
        self.specs.insert(node, spec);
    }
    /// Forgets a broker that was removed.
    pub fn forget(&mut self, node: u32) -> BrokerSpec {
        assert!(!self.running.contains_key(&node), "it still runs");
        self.specs.remove(&node).expect("known")
    }

    /// Sets a key for the next start of every broker.
    pub fn set_everywhere(&mut self, key: &str, value: &str) {
        for spec in self.specs.values_mut() {
            spec.settings.retain(|(known, _)| known != key);
            spec.settings.push((key.to_owned(), value.to_owned()));
        }
    }

    /// Sets a key for the next start of a broker.
    pub fn set(&mut self, node: u32, key: &str, value: &str) {
        let spec = self.specs.get_mut(&node).expect("known");
        spec.settings.retain(|(known, _)| known != key);
        spec.settings.push((key.to_owned(), value.to_owned()));
    }

    /// Sets variables (`NAME=value`) for the next start of every broker.
    pub fn set_environment(&mut self, assignment: &str) {
        for node in self.nodes() {
            self.set_environment_of(node, assignment);
        }
    }
    /// Sets variables (`NAME=value`) for the next start of a broker.
    pub fn set_environment_of(&mut self, node: u32, assignment: &str) {
        let script = self.directory.path().join(format!("highwater-{node}"));
        let executable = env!("CARGO_BIN_EXE_highwater");
        let text = format!("#!/bin/sh\n{assignment} exec '{executable}' \"$@\"\n");
        fs::write(&script, text).expect("written");
        fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).expect("set");
        self.specs.get_mut(&node).expect("known").executable = script;
    }

    /// Builds a library out of C, and gives the variable that loads it into a broker: for what no
    /// configuration breaks.
    pub fn preload(&self, name: &str, source: &str) -> String {
        let file = self.directory.path().join(name).with_extension("c");
        let library = file.with_extension("so");
        fs::write(&file, source).expect("written");
        let built = std::process::Command::new("cc")
            .args(["-shared", "-fPIC", "-o"])
            .args([&library, &file])
            .status();
        assert!(built.expect("a C compiler").success());
        format!("LD_PRELOAD='{}'", library.display())
    }

    pub fn spec(&self, node: u32) -> &BrokerSpec {
        &self.specs[&node]
    }
    pub fn nodes(&self) -> Vec<u32> {
        self.specs.keys().copied().collect()
    }
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }
    pub fn data_dir(&self, node: u32) -> PathBuf {
        self.spec(node).data_dir.clone()
    }
    /// Where clients reach a broker, as a URI.
    pub fn uri(&self, node: u32) -> String {
        format!("http://{}", self.spec(node).address())
    }

    /// Starts a broker and returns at once.
    pub fn start(&mut self, node: u32) {
        let broker = Broker::start(self.spec(node).clone()).expect("started");
        self.running.insert(node, broker);
    }
    pub async fn ready(&mut self, node: u32) {
        let broker = self.running.get_mut(&node).expect("a running broker");
        broker.wait_ready(PATIENCE).await.expect("ready");
    }
    pub fn is_running(&self, node: u32) -> bool {
        self.running.contains_key(&node)
    }
    pub async fn caught_up(&mut self, node: u32) {
        let broker = self.running.get_mut(&node).expect("a running broker");
        broker.wait_caught_up(PATIENCE).await.expect("caught up");
    }
    pub async fn start_all(&mut self) {
        for node in self.nodes() {
            self.start(node);
        }
        for node in self.nodes() {
            self.ready(node).await;
        }
    }
    /// As a crash would.
    pub async fn kill(&mut self, node: u32) {
        let mut broker = self.running.remove(&node).expect("a running broker");
        broker.kill().await.expect("killed");
    }
    /// All of them at the same moment.
    pub async fn kill_all(&mut self) {
        let kills = self.running.values_mut().map(Broker::kill);
        futures_util::future::try_join_all(kills)
            .await
            .expect("killed");
        self.running.clear();
    }
    /// The most bytes that were resident so far.
    pub fn peak_memory(&self, node: u32) -> u64 {
        let pid = self.running[&node].pid().expect("a process");
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("readable");
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = line.and_then(|line| line.split_whitespace().next());
        kib.and_then(|kib| kib.parse::<u64>().ok()).expect("a size") << 10
    }
    /// Files and connections that are open.
    pub fn descriptors(&self, node: u32) -> usize {
        let pid = self.running[&node].pid().expect("a process");
        let open = fs::read_dir(format!("/proc/{pid}/fd")).expect("readable");
        open.count()
    }
    /// Makes it stand still, connections open, until [`Self::resume`].
    pub fn pause(&self, node: u32) {
        self.signal(node, Signal::STOP);
    }
    pub fn resume(&self, node: u32) {
        self.signal(node, Signal::CONT);
    }
    fn signal(&self, node: u32, signal: Signal) {
        let pid = self.running[&node]
            .pid()
            .and_then(|pid| i32::try_from(pid).ok());
        let pid = pid.and_then(Pid::from_raw).expect("a process");
        kill_process(pid, signal).expect("signalled");
    }
    /// Gracefully.
    pub async fn stop(&mut self, node: u32) {
        let mut broker = self.running.remove(&node).expect("a running broker");
        let by_itself = broker.stop(PATIENCE).await.expect("stopped");
        assert!(by_itself, "broker {node} had to be killed");
    }
    pub async fn stop_all(&mut self) {
        let stops = self
            .running
            .values_mut()
            .map(|broker| broker.stop(PATIENCE));
        let stopped = futures_util::future::try_join_all(stops).await;
        let stopped = stopped.expect("stopped");
        assert!(stopped.iter().all(|by_itself| *by_itself));
        self.running.clear();
    }

    /// A client of all brokers.
    pub async fn client(&self) -> Client {
        let brokers = self.specs.values().map(BrokerSpec::address);
        let client = Client::builder().brokers(brokers).connect().await;
        client.expect("a broker answers")
    }

    /// Everything a broker logged so far, over all its starts.
    pub fn log(&self, node: u32) -> String {
        fs::read_to_string(&self.spec(node).log).unwrap_or_default()
    }
    /// Waits until a broker has logged `text`.
    pub async fn logged(&self, node: u32, text: &str) {
        eventually(&format!("broker {node} logs {text:?}"), async || {
            self.log(node).contains(text).then_some(())
        })
        .await;
    }

    /// Starts a broker that must not start.
    pub async fn refused(&self, node: u32) -> Refusal {
        refused(self.spec(node).clone()).await
    }

    /// What a broker's admin server says at `path`.
    pub async fn http(&self, node: u32, path: &str) -> (u16, String) {
        http(self.spec(node), path).await
    }
    /// The value of a metric without labels, or the sum over its labels.
    pub async fn metric(&self, node: u32, name: &str) -> Option<f64> {
        let (_, text) = self.http(node, "/metrics").await;
        let values: Vec<f64> = text
            .lines()
            .filter(|line| line.strip_prefix(name).is_some_and(names_end))
            .filter_map(|line| line.rsplit(' ').next()?.parse().ok())
            .collect();
        (!values.is_empty()).then(|| values.iter().sum())
    }

    /// Who leads a partition, as soon as somebody does.
    pub async fn leader(&self, client: &Client, topic: &str, partition: u32) -> u32 {
        eventually(&format!("{topic}-{partition} has a leader"), async || {
            let topic = client.topic(topic).await.ok()?;
            let leader = topic.partitions.get(partition as usize)?.leader;
            leader.map(|NodeId(node)| node)
        })
        .await
    }
}

/// A test that fails shows what the brokers said last.
impl Drop for Fleet {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        for node in self.nodes() {
            let log = self.log(node);
            let last = log.len().saturating_sub(LAST_WORDS);
            let last = log.get(log.ceil_char_boundary(last)..).unwrap_or_default();
            eprintln!("-- what broker {node} said last:\n{last}");
        }
    }
}

fn names_end(rest: &str) -> bool {
    rest.starts_with('{') || rest.starts_with(' ')
}

/// Starts a broker that must end by itself, and reads why.
///
/// # Panics
/// When it becomes ready, or says more or less than one line.
pub async fn refused(mut spec: BrokerSpec) -> Refusal {
    spec.log = spec.log.with_file_name("refusal-log");
    let _ = fs::remove_file(&spec.log);
    let mut broker = Broker::start(spec.clone()).expect("started");
    let error = broker
        .wait_ready(PATIENCE)
        .await
        .expect_err("it should not start");
    let ProcessError::Ended { status, .. } = &error else {
        panic!("{error}");
    };
    let log = fs::read_to_string(&spec.log).expect("a log");
    let mut said = log
        .split("highwater: ")
        .skip(1)
        .map(|text| text.trim_end().to_owned());
    let line = said.next().unwrap_or_else(|| panic!("no reason: {log}"));
    assert_eq!(said.next(), None, "more than one reason: {log}");
    assert!(!line.contains('\n'), "more than one line: {line}");
    eprintln!("  says: {line}");
    let code = status.code().expect("no signal ended it");
    Refusal { code, line }
}

impl Refusal {
    /// Checks the exit code and the words of the line.
    pub fn expect(&self, code: i32, words: &[&str]) {
        assert_eq!(self.code, code, "{}", self.line);
        for word in words {
            assert!(self.line.contains(word), "no {word:?} in: {}", self.line);
        }
    }
}

/// Polls until `found` answers.
///
/// # Panics
/// When it does not within [`PATIENCE`].
pub async fn eventually<T>(what: &str, mut found: impl AsyncFnMut() -> Option<T>) -> T {
    let end = Instant::now() + PATIENCE;
    while Instant::now() < end {
        if let Ok(Some(value)) = timeout(PATIENCE, found()).await {
            return value;
        }
        sleep(POLL).await;
    }
    panic!("not within {} s: {what}", PATIENCE.as_secs());
}

/// Status code and body of a GET.
pub async fn http(spec: &BrokerSpec, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(spec.admin_address())
        .await
        .expect("the admin server listens");
    let request = format!("GET {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("read");
    let code = answer.split(' ').nth(1).and_then(|code| code.parse().ok());
    let body = answer.split_once("\r\n\r\n").map(|(_, body)| body);
    (code.expect("a status"), body.unwrap_or_default().to_owned())
}

/// A port that nobody listens on, from a range that neither the kernel nor other tests take from.
pub fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let first = u16::try_from(std::process::id() % 7_000).expect("small");
    loop {
        let port = 12_000 + (first + NEXT.fetch_add(1, Ordering::Relaxed)) % 8_000;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// Copies a directory with everything in it.
pub fn copy_dir(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("made");
    for entry in fs::read_dir(from).expect("listed") {
        let entry = entry.expect("an entry");
        let target = to.join(entry.file_name());
        if entry.file_type().expect("a type").is_dir() {
            copy_dir(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).expect("copied");
        }
    }
}
