//! The program as a shell sees it: the README's first hour as it stands there, `highwater dev`, and
//! configurations that are refused.

use std::io::{BufRead as _, BufReader, Read as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

const HIGHWATER: &str = env!("CARGO_BIN_EXE_highwater");
const README: &str = include_str!("../../README.md");
const PATIENCE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(20);

/// One cluster after the other: some want the usual ports, and some want them to be taken.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Polls until `done`.
fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !done() {
        assert!(Instant::now() < end, "not in time: {what}");
        std::thread::sleep(POLL);
    }
}

/// `highwater dev` that has greeted; killed when dropped.
struct Dev {
    process: Child,
    output: BufReader<ChildStdout>,
    greeting: String,
}

impl Dev {
    /// Starts it, and reads up to the last line of its greeting. It gives up by itself when its
    /// brokers do not become ready.
    fn start(arguments: &[&str]) -> Self {
        let process = Command::new(HIGHWATER)
            .arg("dev")
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn();
        let mut process = process.expect("started");
        let output = BufReader::new(process.stdout.take().expect("piped"));
        let mut dev = Self {
            process,
            output,
            greeting: String::new(),
        };
        while !dev.greeting.contains("Ctrl-C stops the cluster.") {
            let read = dev.output.read_line(&mut dev.greeting).expect("text");
            assert!(read > 0, "it ended: {}", dev.greeting);
        }
        eprintln!("{}", dev.greeting);
        dev
    }

    /// As in the ready line.
    fn addresses(&self) -> String {
        let (ready, _) = self.greeting.split_once(" (").expect("a ready line");
        assert!(ready.starts_with("ready in "), "{ready}");
        let (_, addresses) = ready.split_once(" s: ").expect("addresses");
        addresses.to_owned()
    }

    fn directory(&self) -> PathBuf {
        let (_, rest) = self.greeting.split_once("data in ").expect("a directory");
        let end = rest.find([',', '\n']).expect("an end");
        PathBuf::from(&rest[..end])
    }

    fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.process.id())
            .ok()
            .and_then(Pid::from_raw);
        kill_process(pid.expect("a process"), signal).expect("signalled");
    }

    /// Ctrl-C: a clean end, and nobody is left.
    fn interrupt(mut self) {
        self.signal(Signal::INT);
        let status = self.process.wait().expect("ended");
        assert_eq!(status.code(), Some(0));
        let mut rest = String::new();
        self.output.read_to_string(&mut rest).expect("text");
        assert_eq!(rest, "", "the greeting was all");
        let addresses = self.addresses();
        assert!(!addresses.split(',').any(somebody_listens), "{addresses}");
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn somebody_listens(address: &str) -> bool {
    TcpStream::connect(address).is_ok()
}

/// Types a line into a shell that finds the program.
fn typed(line: &str, brokers: &str) -> Output {
    let directory = Path::new(HIGHWATER).parent().expect("a directory");
    let path = std::env::var("PATH").unwrap_or_default();
    let shell = Command::new("sh")
        .args(["-c", line])
        .env("PATH", format!("{}:{path}", directory.display()))
        .env("HIGHWATER_BROKERS", brokers)
        .stdin(Stdio::null())
        .output();
    let output = shell.expect("it runs");
    eprintln!("$ {line}\n{}{}", text(&output.stdout), text(&output.stderr));
    output
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// What a line that must succeed says.
fn fine(line: &str, brokers: &str) -> String {
    let output = typed(line, brokers);
    assert_eq!(output.status.code(), Some(0), "{line}");
    text(&output.stdout)
}

/// The shell blocks of a section of the README, each as its lines.
fn blocks(section: &str) -> Vec<Vec<&'static str>> {
    let heading = format!("## {section}\n");
    let (_, rest) = README.split_once(&heading).expect("the section");
    let section = rest.split("\n## ").next().expect("its text");
    let blocks = section.split("```sh\n").skip(1);
    blocks
        .map(|block| {
            block
                .split("```")
                .next()
                .expect("its end")
                .lines()
                .collect()
        })
        .collect()
}

#[test]
fn the_first_hour_is_as_the_readme_says() {
    let _alone = alone();
    let blocks = blocks("The first hour");
    let [begin, verbs] = &blocks[..] else {
        panic!("{blocks:?}")
    };
    assert!(
        begin[0].starts_with("cargo install --path broker"),
        "{begin:?}"
    );
    assert!(begin[1].starts_with("highwater dev "), "{begin:?}");
    let dev = Dev::start(&[]);
    let brokers = dev.addresses();
    assert_eq!(brokers.split(',').count(), 3);
    assert!(dev.greeting.contains("fsynced by 2 of 3 brokers"));
    assert_eq!(verbs.len(), 5, "{verbs:?}");
    for line in verbs {
        if line.starts_with("highwater cluster status") {
            // Exit code 6 as long as somebody is catching up.
            wait_until("no problems", || {
                typed(line, &brokers).status.code() == Some(0)
            });
            continue;
        }
        let said = fine(line, &brokers);
        let expected = match line.split("highwater ").nth(1).unwrap_or_default() {
            verb if verb.starts_with("topic create") => "created",
            verb if verb.starts_with("topic list") => "orders",
            verb if verb.starts_with("produce") => "at offset 0",
            verb if verb.starts_with("consume") => "first order",
            _ => panic!("what does {line} say?"),
        };
        assert!(said.contains(expected), "{line} said {said}");
    }
    let described = fine("highwater topic describe orders --output json", &brokers);
    let described: serde_json::Value = serde_json::from_str(&described).expect("JSON");
    assert_eq!(described["partitions"].as_array().map(Vec::len), Some(6));
    let directory = dev.directory();
    assert!(directory.is_dir());
    dev.interrupt();
    assert!(!directory.exists(), "{} is left", directory.display());
}

#[test]
fn kept_data_and_taken_ports_are_no_trouble() {
    let _alone = alone();
    // Whoever else has them, they are taken.
    let _taken = [9094, 9644].map(|port| TcpListener::bind(("127.0.0.1", port)));
    let home = TempDir::new().expect("a directory");
    let data = home.path().join("kept");
    let arguments = [
        "--brokers",
        "1",
        "--data-dir",
        data.to_str().expect("a name"),
    ];
    let dev = Dev::start(&arguments);
    let brokers = dev.addresses();
    assert!(!brokers.contains(":9094"), "{brokers}");
    let advice = format!("the usual port is taken: clients need --brokers {brokers}");
    assert!(dev.greeting.contains(&advice));
    assert!(dev.greeting.contains("fsynced by the one broker"));
    fine("highwater topic create orders --partitions 1", &brokers);
    fine("echo kept | highwater produce orders", &brokers);
    dev.interrupt();

    let mut dev = Dev::start(&arguments);
    let brokers = dev.addresses();
    let read = "highwater consume orders -o start -n 1 -f '%v\\n'";
    assert_eq!(fine(read, &brokers), "kept\n");
    // Nobody outlives it, however it ends.
    dev.signal(Signal::KILL);
    dev.process.wait().expect("ended");
    wait_until("the broker is gone", || !somebody_listens(&brokers));
    assert!(data.join("broker-1/data/identity.json").is_file());
}

/// `highwater server --check` with this file and this variable: exit code and what it says.
fn checked(file: &str, variable: (&str, &str), flags: &[&str]) -> (Option<i32>, String) {
    let home = TempDir::new().expect("a directory");
    let path = home.path().join("hw.toml");
    std::fs::write(&path, file).expect("written");
    let output = Command::new(HIGHWATER)
        .args(["server", "--check"])
        .args(flags)
        .env("HIGHWATER_CONFIG", &path)
        .env(variable.0, variable.1)
        .output()
        .expect("it runs");
    let said = text(&output.stdout) + &text(&output.stderr);
    eprintln!("  says: {said}");
    (output.status.code(), said.trim_end().to_owned())
}

#[test]
fn a_configuration_is_refused_with_one_line() {
    let file = "[node]\nid = 1\n[wal]\nbudget_bytes = \"1GiB\"\n";
    let none = ("HIGHWATER_NODE_RACK", "a");
    let valid = (Some(0), "The configuration is valid.".to_owned());
    assert_eq!(checked(file, none, &[]), valid);
    // The variable outranks the file, and the flag both.
    let little = ("HIGHWATER_WAL_BUDGET_BYTES", "1MiB");
    assert_eq!(
        checked(file, little, &["--set", "wal.budget_bytes=2GiB"]),
        valid
    );
    for (file, variable, flags, expected) in [
        (
            "[node]\nid = 1\n[wal]\nbuget_bytes = 1\n",
            none,
            &[][..],
            "wal.budget_bytes",
        ),
        (
            file,
            ("HIGHWATER_NODE_RAK", "a"),
            &[],
            "HIGHWATER_NODE_RACK",
        ),
        (file, none, &["--set", "node.rak=a"], "node.rack"),
        (file, little, &[], "wal.budget_bytes is 1MiB"),
        ("[node]\nrack = \"a\"\n", none, &[], "node.id is not set"),
        ("[node", none, &[], "hw.toml is not valid TOML"),
    ] {
        let (code, said) = checked(file, variable, flags);
        assert_eq!(code, Some(2), "{said}");
        assert!(
            said.starts_with("highwater: ") && said.contains(expected),
            "{said}"
        );
        assert_eq!(said.lines().count(), 1, "{said}");
    }
}
