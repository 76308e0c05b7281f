//! All brokers are restarted one after the other by one command, under load.

use std::fs;
use std::path::{Path, PathBuf};

use highwater_client::NewTopic;
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::Command;

use super::commands::{Ran, command, ended};
use super::failover::Load;
use super::fleet::{Fleet, eventually};
use super::journal::{Journal, make_topic};
use super::life::{check_replicas, healthy};

/// `highwater cluster rolling-restart`, not started yet.
fn roll(fleet: &Fleet, arguments: &[&str]) -> Command {
    let all = [&["cluster", "rolling-restart"], arguments].concat();
    command(fleet, &all)
}

/// A service manager: the command asks for a restart by a file, and waits until it was done.
fn service_manager(dir: &Path) -> String {
    let dir = dir.display();
    format!("touch {dir}/ask-{{id}} && while [ -e {dir}/ask-{{id}} ]; do sleep 0.1; done")
}

/// Serves one request for a restart, whoever's it is.
async fn serve(fleet: &mut Fleet, dir: &Path) -> u32 {
    let ask = |node: u32| -> PathBuf { dir.join(format!("ask-{node}")) };
    let nodes = fleet.nodes();
    let asked = eventually("somebody is to be restarted", async || {
        nodes.iter().copied().find(|node| ask(*node).exists())
    })
    .await;
    fleet.stop(asked).await;
    fleet.start(asked);
    fs::remove_file(ask(asked)).expect("answered");
    asked
}

#[tokio::test(flavor = "multi_thread")]
async fn all_brokers_are_restarted_by_one_command_under_load() {
    let mut fleet = Fleet::started(3, &[]).await;
    let client = fleet.client().await;
    make_topic(&client, NewTopic::named("orders").partitions(6)).await;
    let load = Load::start(client.producer().build(), Journal::of("orders"));
    load.progress(300).await;
    let cluster = client.admin().describe_cluster().await.expect("described");
    let leader = cluster.metadata_leader.expect("one");
    let dir = fleet.directory().join("asked");
    fs::create_dir_all(&dir).expect("made");
    let manager = service_manager(&dir);

    eprintln!("a dry run does nothing");
    let dry = roll(&fleet, &["--exec", &manager, "--dry-run"]).spawn();
    let shown = ended(dry.expect("started")).await.expect(0, &[]).out;
    for node in fleet.nodes() {
        assert!(shown.contains(&format!("ask-{node}")), "{shown}");
        assert!(!dir.join(format!("ask-{node}")).exists());
    }

    eprintln!("everyone has a turn");
    let arguments = ["--exec", &manager, "--step-timeout", "120"];
    let rolling = roll(&fleet, &arguments).spawn().expect("started");
    let mut restarted = Vec::new();
    for turn in 0..3 {
        restarted.push(serve(&mut fleet, &dir).await);
        let log = fleet.log(restarted[turn]);
        assert!(!log.contains("not all leaders moved away"), "{log}");
    }
    let shown = ended(rolling).await.expect(0, &[]).out;
    assert_eq!(
        restarted[2], leader,
        "the metadata leader has the last turn"
    );
    let (mut each, nodes) = (restarted.clone(), fleet.nodes());
    each.sort_unstable();
    assert_eq!(each, nodes, "each once");
    assert_eq!(shown.matches("caught up").count(), 3, "{shown}");
    load.progress(200).await;
    let journal = load.end().await.unharmed("a rolling restart of all");
    for node in fleet.nodes() {
        fleet.caught_up(node).await;
    }
    healthy(&fleet, &client).await;
    check_replicas(&fleet, &journal).await;

    it_stops_where_it_must(&mut fleet, &manager, &dir).await;
}

/// What fails, and what the cluster cannot spare, ends the roll before anybody else is touched.
async fn it_stops_where_it_must(fleet: &mut Fleet, manager: &str, dir: &Path) {
    eprintln!("a command that fails");
    let failing = roll(fleet, &["2", "1", "--exec", "exit 3"]).spawn();
    let failed = ended(failing.expect("started")).await;
    let Ran {
        out: shown,
        err: why,
        ..
    } = failed.expect(1, &[]);
    assert!(
        why.contains("broker 2") && why.contains("exit status: 3"),
        "{why}"
    );
    assert!(why.contains("rolling-restart 2 1 --brokers '"), "{why}");
    assert!(why.contains("--exec 'exit 3'"), "{why}");
    assert!(!shown.contains("broker 1: restarting"), "{shown}");

    eprintln!("a command that restarts nobody");
    let idle = roll(fleet, &["2", "1", "--exec", "true", "--step-timeout", "3"]).spawn();
    let stood = ended(idle.expect("started")).await;
    let Ran {
        out: shown,
        err: why,
        ..
    } = stood.expect(6, &[]);
    assert!(why.contains("broker 2 has not been restarted yet"), "{why}");
    assert!(!shown.contains("broker 1: restarting"), "{shown}");

    a_killed_roll_leaves_no_command(fleet, dir).await;

    eprintln!("a broker is away: no other may go");
    fleet.stop(3).await;
    let waiting = ["1", "3", "--exec", manager, "--step-timeout", "6"];
    let waiting = roll(fleet, &waiting).spawn().expect("started");
    let why = ended(waiting).await.expect(6, &[]).err;
    assert!(why.contains("broker 1 could not be restarted"), "{why}");
    assert!(!dir.join("ask-1").exists(), "nobody was asked");
    fleet.start(3);
    fleet.ready(3).await;
}

/// Nothing restarts a broker any more once whoever saw to it that the cluster can spare it is gone.
async fn a_killed_roll_leaves_no_command(fleet: &Fleet, dir: &Path) {
    for signal in [Signal::KILL, Signal::TERM, Signal::INT] {
        eprintln!("the roll gets {signal:?} while its command runs");
        let file = dir.join("pid");
        let command = format!("sh -c 'echo $$ > {}; exec sleep 600'", file.display());
        let mut rolling = roll(fleet, &["2", "--exec", &command])
            .spawn()
            .expect("started");
        let pid: u32 = eventually("the command runs", async || {
            let text = fs::read_to_string(&file).ok()?;
            text.trim().parse().ok()
        })
        .await;
        let roll = rolling.id().and_then(|id| i32::try_from(id).ok());
        let roll = roll.and_then(Pid::from_raw).expect("a process");
        kill_process(roll, signal).expect("signalled");
        rolling.wait().await.expect("ended");
        eventually("its command has ended", async || {
            let status = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            // Nothing, or what its parent has not asked for yet.
            (status.is_empty() || status.contains(") Z ")).then_some(())
        })
        .await;
        fs::remove_file(&file).expect("removed");
    }
}
