//! Child processes that are not brokers: what is seen of them, and that none outlives its owner.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use tempfile::TempDir;

use super::*;

/// A spec whose executable is the given shell script.
fn spec(directory: &TempDir, script: &str) -> BrokerSpec {
    let executable = directory.path().join("broker");
    std::fs::write(&executable, format!("#!/bin/sh\n{script}\n")).expect("written");
    let runnable = std::fs::Permissions::from_mode(0o700);
    std::fs::set_permissions(&executable, runnable).expect("made runnable");
    BrokerSpec {
        executable,
        node: 2,
        data_dir: directory.path().join("data"),
        // Port 1 is reserved: nobody answers there.
        grpc: 1,
        admin: 1,
        join: vec!["127.0.0.1:1".into(), "127.0.0.1:2".into()],
        log: directory.path().join("broker.log"),
        settings: vec![("wal.file_bytes".into(), "1MiB".into())],
    }
}

fn runs(pid: u32) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}

async fn log_line(spec: &BrokerSpec) -> String {
    let read = async {
        loop {
            let text = std::fs::read_to_string(&spec.log).unwrap_or_default();
            if text.ends_with('\n') {
                return text.trim().to_owned();
            }
            sleep(POLL).await;
        }
    };
    timeout(Duration::from_secs(20), read)
        .await
        .expect("a line in the log")
}

#[tokio::test]
async fn a_broker_that_ends_shows_the_end_of_its_log() {
    let directory = TempDir::new().expect("a directory");
    let mut broker = Broker::start(spec(&directory, "echo no room >&2; exit 3")).expect("started");
    let error = broker
        .wait_ready(Duration::from_secs(20))
        .await
        .expect_err("it ended");
    assert!(error.is_address_in_use());
    let message = error.to_string();
    assert!(
        message.starts_with("broker 2 ended (exit status: 3); its log "),
        "{message}"
    );
    assert!(message.ends_with("ends with:\nno room"), "{message}");
}

#[tokio::test]
async fn a_broker_that_never_answers_is_given_up_in_time() {
    let directory = TempDir::new().expect("a directory");
    let mut broker = Broker::start(spec(&directory, "exec sleep 600")).expect("started");
    let error = broker
        .wait_ready(Duration::from_millis(100))
        .await
        .expect_err("never ready");
    assert!(
        matches!(error, ProcessError::NotReady { node: 2, .. }),
        "{error}"
    );
    assert!(!error.is_address_in_use());
}

#[tokio::test]
async fn it_gets_the_same_arguments_at_every_start() {
    let directory = TempDir::new().expect("a directory");
    let spec = spec(&directory, "echo \"$@\"; exec sleep 600");
    let mut broker = Broker::start(spec.clone()).expect("started");
    let first = log_line(&spec).await;
    for wanted in [
        "server --die-with-parent ",
        " --node-id 2 ",
        " --grpc-address 127.0.0.1:1 ",
        " --set node.join=127.0.0.1:1,127.0.0.1:2 --set wal.file_bytes=1MiB",
    ] {
        assert!(first.contains(wanted), "{first}");
    }
    std::fs::remove_file(&spec.log).expect("removed");
    broker.restart().await.expect("restarted");
    assert_eq!(log_line(&spec).await, first);
}

#[tokio::test]
async fn stop_is_graceful_when_it_can_be_and_certain_when_not() {
    let directory = TempDir::new().expect("a directory");
    let polite = spec(
        &directory,
        "trap 'exit 0' TERM; echo up; while :; do sleep 0.01; done",
    );
    let mut broker = Broker::start(polite.clone()).expect("started");
    log_line(&polite).await;
    assert!(broker.stop(Duration::from_secs(20)).await.expect("stopped"));
    assert!(
        broker
            .stop(Duration::from_secs(20))
            .await
            .expect("stopped already")
    );

    let other = TempDir::new().expect("a directory");
    let stubborn = spec(
        &other,
        "trap '' TERM; echo up; while :; do sleep 0.01; done",
    );
    let mut broker = Broker::start(stubborn.clone()).expect("started");
    log_line(&stubborn).await;
    let pid = broker.pid().expect("it runs");
    assert!(
        !broker
            .stop(Duration::from_millis(50))
            .await
            .expect("killed")
    );
    assert!(!runs(pid));
}

#[tokio::test]
async fn a_dropped_broker_leaves_no_process() {
    let directory = TempDir::new().expect("a directory");
    let spec = spec(&directory, "echo up; exec sleep 600");
    let broker = Broker::start(spec.clone()).expect("started");
    log_line(&spec).await;
    let pid = broker.pid().expect("it runs");
    drop(broker);
    let gone = async {
        while runs(pid) {
            sleep(POLL).await;
        }
    };
    timeout(Duration::from_secs(20), gone)
        .await
        .expect("reaped");
}
