//! The verbs as a shell sees them: output, errors, exit codes.

mod fake;

use std::path::PathBuf;
use std::process::Stdio;

use fake::{FakeCluster, Fault};
use highwater_client::ErrorCode;
use serde_json::Value;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

struct Ran {
    code: i32,
    out: String,
    err: String,
}

/// The example program lies beside the directory of this test program.
fn program() -> PathBuf {
    let mut path = std::env::current_exe().unwrap();
    path.pop();
    path.pop();
    path.join("examples")
        .join(format!("highwater_cli{}", std::env::consts::EXE_SUFFIX))
}

async fn run(brokers: &str, input: &str, args: &[&str]) -> Ran {
    let mut child = Command::new(program())
        .args(args)
        .env("HIGHWATER_BROKERS", brokers)
        .env("HOME", "/nonexistent")
        .env_remove("XDG_CONFIG_HOME")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    // A program that failed early does not read: that is its business.
    let _ = stdin.write_all(input.as_bytes()).await;
    drop(stdin);
    let ran = child.wait_with_output().await.unwrap();
    Ran {
        code: ran.status.code().unwrap(),
        out: String::from_utf8(ran.stdout).unwrap(),
        err: String::from_utf8(ran.stderr).unwrap(),
    }
}

#[tokio::test]
async fn topics_are_created_listed_and_described() {
    let cluster = FakeCluster::start(3).await;
    let brokers = cluster.brokers();
    let at = async |args: &[&str]| run(&brokers, "", args).await;
    let ran = at(&[
        "topic",
        "create",
        "a",
        "b",
        "c",
        "-p",
        "6",
        "-r",
        "3",
        "-c",
        "retention.ms=5",
    ])
    .await;
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert!(
        ran.out.starts_with("TOPIC") && ran.out.contains("created"),
        "{}",
        ran.out
    );
    let again = at(&["topic", "create", "a"]).await;
    assert_eq!((again.code, again.out.as_str()), (1, ""));
    assert!(
        again.err.contains("topic a") && again.err.contains("TOPIC_EXISTS"),
        "{}",
        again.err
    );
    assert_eq!(
        at(&["topic", "create", "a", "--if-not-exists"]).await.code,
        0
    );
    let listed = at(&["topic", "list", "--output", "json"]).await;
    let listed: Value = serde_json::from_str(&listed.out).unwrap();
    let names: Vec<_> = listed["topics"]
        .as_array()
        .unwrap()
        .iter()
        .map(|t| &t["name"])
        .collect();
    assert_eq!(names, ["a", "b", "c"], "both pages");
    let described = at(&["topic", "describe", "a"]).await;
    assert!(
        described.out.contains("HIGH-WATERMARK"),
        "{}",
        described.out
    );
    assert!(
        described.out.contains("retention.ms=5"),
        "{}",
        described.out
    );
    assert_eq!(
        at(&["topic", "describe", "nowhere", "--timeout", "1"])
            .await
            .code,
        1
    );
}

#[tokio::test]
async fn the_cluster_is_shown_and_a_lost_answer_is_found_again() {
    let cluster = FakeCluster::start(3).await;
    let brokers = cluster.brokers();
    let at = async |args: &[&str]| run(&brokers, "", args).await;
    let status = at(&["cluster", "status"]).await;
    assert_eq!(status.code, 0, "{}", status.err);
    assert!(status.out.contains("No problems."), "{}", status.out);
    // A creation whose first answer was lost is found again.
    cluster
        .state
        .lock()
        .create_faults
        .push_back(ErrorCode::TimedOut);
    assert_eq!(at(&["topic", "create", "d", "-p", "2"]).await.code, 0);
}

#[tokio::test]
async fn lines_become_records_and_records_lines() {
    let cluster = FakeCluster::start(2).await;
    cluster.topic("t", 2);
    let brokers = cluster.brokers();
    let produce = [
        "produce", "t", "-p", "1", "-f", "%k|%v\\n", "-H", "a=1", "-z", "zstd",
    ];
    let ran = run(&brokers, "k1|v 1\nk2|v 2\nk3|v 3", &produce).await;
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert_eq!(
        ran.out.lines().last(),
        Some("Stored in partition 1 at offset 2")
    );
    let consume = [
        "consume",
        "t",
        "-o",
        "-2",
        "-e",
        "-f",
        "%t %p %o %k=%v %h\\n",
    ];
    let ran = run(&brokers, "", &consume).await;
    assert_eq!((ran.code, ran.err.as_str()), (0, ""));
    assert_eq!(ran.out, "t 1 1 k2=v 2 a=1\nt 1 2 k3=v 3 a=1\n");
    let ran = run(
        &brokers,
        "",
        &["consume", "t", "-n", "1", "--output", "json"],
    )
    .await;
    let record: Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!(
        (&record["key"], &record["offset"]),
        (&Value::from("k1"), &Value::from(0))
    );
    let empty = run(&brokers, "", &["consume", "t", "-o", "end", "-e"]).await;
    assert_eq!((empty.code, empty.out.as_str()), (0, ""));
}

#[tokio::test]
async fn exit_codes_tell_what_happened() {
    let cluster = FakeCluster::start(1).await;
    cluster.topic("t", 1);
    let brokers = cluster.brokers();
    cluster.faults(1, &[Fault::Reject(ErrorCode::CorruptBatch)]);
    let rejected = run(&brokers, "x\n", &["produce", "t"]).await;
    assert_eq!(rejected.code, 1, "{}", rejected.err);
    assert!(
        rejected.err.contains("0 records acknowledged"),
        "{}",
        rejected.err
    );
    for usage in [
        &["produce"][..],
        &["produce", "t", "-f", "%k%v"],
        &["consume", "t", "-o", "middle"],
        &["consume", "t", "--context", "nowhere"],
        &["topic", "create", "x", "-c", "novalue"],
        &["topic", "list", "--brokers", "kafka://x"],
    ] {
        let ran = run(&brokers, "", usage).await;
        assert_eq!(
            (ran.code, ran.out.as_str()),
            (2, ""),
            "{usage:?}: {}",
            ran.err
        );
    }
    let bad_line = run(&brokers, "no separator\n", &["produce", "t", "-f", "%k|%v"]).await;
    assert!(
        bad_line.code == 2 && bad_line.err.contains("line 1"),
        "{}",
        bad_line.err
    );
    let unreachable = run("127.0.0.1:1", "", &["cluster", "status", "--timeout", "1"]).await;
    assert_eq!(unreachable.code, 4, "{}", unreachable.err);
    assert!(
        unreachable.err.contains("127.0.0.1:1"),
        "{}",
        unreachable.err
    );
}

#[tokio::test]
async fn a_group_reads_on_where_it_was_and_its_mistakes_are_named() {
    let cluster = FakeCluster::start(2).await;
    cluster.topic("t", 1);
    let brokers = cluster.brokers();
    let at = async |input: &str, args: &[&str]| run(&brokers, input, args).await;
    at("a\nb\nc\nd\n", &["produce", "t"]).await;
    let group = ["consume", "t", "--group", "g", "-f", "%v\\n", "-n", "2"];
    assert_eq!(at("", &group).await.out, "a\nb\n");
    assert_eq!(at("", &group).await.out, "c\nd\n");
    assert_eq!(cluster.state.lock().groups["g"].left, 2);
    let ran = at("", &["consume", "t", "--group", "g", "-o", "42"]).await;
    assert!(
        ran.code == 2 && ran.err.contains("group reset"),
        "{}",
        ran.err
    );
    let ran = at("", &["dlq", "redrive", "g", "--since", "42"]).await;
    assert!(ran.code == 2 && ran.err.contains("a time"), "{}", ran.err);
    let ran = at("", &["dlq", "list", "g", "--output", "json"]).await;
    let listed: Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!(listed["parked"], Value::Array(Vec::new()));
}
