//! `highwater verify` from outside: exit codes, what it leaves behind, and what it must not leave.

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// Longer than any run below on a machine that is busy with other things.
const PATIENCE: Duration = Duration::from_secs(300);

fn verify(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_highwater"));
    command.arg("verify").args(arguments).stdin(Stdio::null());
    command
}

fn output(arguments: &[&str]) -> Output {
    verify(arguments).output().expect("it runs")
}

fn text(output: &Output) -> String {
    let (out, err) = (&output.stdout, &output.stderr);
    format!(
        "{}{}",
        String::from_utf8_lossy(out),
        String::from_utf8_lossy(err)
    )
}

fn path(directory: &TempDir, name: &str) -> String {
    directory.path().join(name).display().to_string()
}

#[test]
fn a_short_run_with_faults_passes_and_its_history_is_readable_by_the_checker() {
    let directory = TempDir::new().expect("a directory");
    let out = path(&directory, "run");
    let common = [
        "--time",
        "15",
        "--rate",
        "60",
        "--clients",
        "6",
        "--out",
        &out,
    ];
    let run = output(&[&common[..], &["--faults", "kill-leader,pause,transfer"]].concat());
    assert!(run.status.success(), "{}", text(&run));
    assert!(text(&run).contains("\nPASS\n"), "{}", text(&run));
    for name in [
        "history.edn",
        "history.jsonl",
        "report.json",
        "timeline.html",
        "broker-1.log",
    ] {
        assert!(Path::new(&out).join(name).is_file(), "{name} is missing");
    }
    let report = fs::read_to_string(format!("{out}/report.json")).expect("a report");
    let report: serde_json::Value = serde_json::from_str(&report).expect("JSON");
    let faults = report["faults"].as_array().expect("faults");
    assert!(!faults.is_empty());
    for name in ["history.edn", "history.jsonl"] {
        let check = output(&["check", &format!("{out}/{name}")]);
        assert!(check.status.success(), "{name}: {}", text(&check));
    }
    // A directory that holds something is never written to.
    let again = output(&[&common[..], &["--faults", "none"]].concat());
    assert_eq!(again.status.code(), Some(3), "{}", text(&again));
    assert!(text(&again).contains("is not empty"), "{}", text(&again));
}

const SEND: &str = "\
{:index 0 :time 1 :type :invoke :process 0 :f :send :value [[:send 0 1]]}
{:index 1 :time 2 :type :ok :process 0 :f :send :value [[:send 0 [0 1]]]}
";

#[test]
fn check_names_what_is_wrong_and_its_exit_code_says_how_bad_it_is() {
    let directory = TempDir::new().expect("a directory");
    let file = path(&directory, "history.edn");
    let verdict = path(&directory, "verdict.json");
    let poll = |records: &str| {
        format!(
            "{SEND}{{:index 2 :time 3 :type :invoke :process 1 :f :poll :value [[:poll]]}}\n\
             {{:index 3 :time 4 :type :ok :process 1 :f :poll :value [[:poll {{0 {records}}}]]}}\n"
        )
    };
    for (history, code, words) in [
        (poll("[[0 1]]"), 0, "PASS"),
        (poll("[[0 7]]"), 1, "inconsistent-offset: 1"),
        (SEND.to_owned(), 1, "unseen: 1"),
        ("\n".to_owned(), 2, "no send was acknowledged"),
        ("nonsense".to_owned(), 3, "line 1"),
    ] {
        fs::write(&file, &history).expect("written");
        let check = output(&["check", &file, "--json", &verdict]);
        assert_eq!(check.status.code(), Some(code), "{history}{}", text(&check));
        assert!(text(&check).contains(words), "{}", text(&check));
    }
    fs::write(&file, poll("[[0 7]]")).expect("written");
    assert_eq!(
        output(&["check", &file, "--json", &verdict]).status.code(),
        Some(1)
    );
    let json = fs::read_to_string(&verdict).expect("a verdict");
    let json: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    let found = &json["anomalies"]["inconsistent-offset"]["examples"][0];
    assert_eq!((&found["key"], &found["offset"]), (&0.into(), &0.into()));
    assert!(
        found["entries"]
            .as_array()
            .is_some_and(|entries| !entries.is_empty()),
        "{found}"
    );
}

/// Command lines of processes that name a directory.
fn processes_of(directory: &str) -> Vec<String> {
    let all = fs::read_dir("/proc").expect("a process table").flatten();
    all.filter_map(|entry| fs::read(entry.path().join("cmdline")).ok())
        .map(|line| String::from_utf8_lossy(&line).replace('\0', " "))
        .filter(|line| line.contains(directory))
        .collect()
}

fn mounts_of(directory: &str) -> usize {
    let table = fs::read_to_string("/proc/self/mounts").expect("a table of mounts");
    table
        .lines()
        .filter(|line| line.contains(directory))
        .count()
}

fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let given_up = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < given_up, "{what}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn a_harness_that_was_killed_leaves_nothing_that_the_next_one_does_not_remove() {
    let can = rustix::process::geteuid().is_root() && Path::new("/dev/fuse").exists();
    if !can || Command::new("nft").arg("--version").output().is_err() {
        eprintln!("SKIPPED: needs root, /dev/fuse, ip and nft");
        return;
    }
    let directory = TempDir::new().expect("a directory");
    let (first, second) = (path(&directory, "first"), path(&directory, "second"));
    let faults = [
        "--faults",
        "isolate-leader,power-loss",
        "--rate",
        "30",
        "--clients",
        "3",
    ];
    let long = [&faults[..], &["--time", "600", "--out", &first]].concat();
    let mut killed = verify(&long)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("runs");
    wait_until("three brokers run", || {
        mounts_of(&first) == 3
            && processes_of(&first)
                .iter()
                .filter(|p| p.contains("server"))
                .count()
                >= 3
    });
    killed.kill().expect("killed");
    killed.wait().expect("reaped");
    // Brokers and disks end with it, whatever else stays.
    wait_until("no process is left", || processes_of(&first).is_empty());

    let short = [&faults[..], &["--time", "5", "--out", &second]].concat();
    let mut next = verify(&short)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("runs");
    wait_until("its mounts are gone", || mounts_of(&first) == 0);
    wait_until("the next run ends", || {
        next.try_wait().expect("a child").is_some()
    });
    assert_eq!((mounts_of(&second), processes_of(&second).len()), (0, 0));
}

#[cfg(feature = "mutant")]
#[test]
fn every_mutant_is_hunted_or_left_to_other_tests_by_name() {
    use highwater_jepsen::mutants::{ELSEWHERE, MUTANTS};
    let hunted = MUTANTS.iter().map(|mutant| mutant.name);
    let left = ELSEWHERE.iter().map(|(name, _)| *name);
    let mut known: Vec<&str> = hunted.chain(left).collect();
    let mut all: Vec<&str> = highwater_mutant::Mutant::ALL
        .iter()
        .map(|mutant| mutant.name())
        .collect();
    known.sort_unstable();
    all.sort_unstable();
    assert_eq!(known, all);
}
