//! What a broker refuses to start with: each is one line that says what, where and what to do, and
//! loses nothing.

use std::fs;
use std::net::TcpListener;
use std::path::Path;

use highwater_broker::process::{ADDRESS_IN_USE, Broker, BrokerSpec, ProcessError};
use highwater_client::NewTopic;

use super::fleet::{Fleet, PATIENCE, copy_dir, eventually, refused};
use super::journal::{Journal, make_topic};

const FAILED: i32 = 1;
const USAGE: i32 = 2;

/// What is changed between two lives of broker 3, and put back.
struct Case<'a> {
    what: &'a str,
    spoil: fn(&mut BrokerSpec),
    words: &'a [&'a str],
}

fn identity(spec: &BrokerSpec) -> std::path::PathBuf {
    spec.data_dir.join("identity.json")
}

/// Writes something else into an identity, and no checksum, as releases before it did.
pub fn edit_identity(data_dir: &Path, from: &str, to: &str) {
    let path = data_dir.join("identity.json");
    let text = fs::read_to_string(&path).expect("an identity");
    let (fields, _checksum) = text.split_once(",\n  \"crc32\"").expect("a checksum");
    assert!(fields.contains(from), "{text}");
    let edited = format!("{}\n}}", fields.replacen(from, to, 1));
    fs::write(path, edited).expect("written");
}

const CASES: [Case<'static>; 7] = [
    Case {
        what: "a wiped directory under a known id",
        spoil: |spec| fs::remove_dir_all(&spec.data_dir).expect("wiped"),
        words: &[
            "/data",
            "broker 3",
            "another data directory",
            "cluster replace 3",
        ],
    },
    Case {
        what: "the directory of another broker",
        spoil: |spec| spec.node = 2,
        words: &["belongs to broker 3", "node.id is 2"],
    },
    Case {
        what: "a directory in a newer format",
        spoil: |spec| {
            edit_identity(
                &spec.data_dir,
                "\"format_version\": 1",
                "\"format_version\": 2",
            )
        },
        words: &["written in format 2", "run a newer highwater"],
    },
    Case {
        what: "a damaged identity",
        spoil: |spec| edit_identity(&spec.data_dir, "\"node_id\"", "\"nde_id\""),
        words: &["identity.json", "damaged", "nothing was changed"],
    },
    Case {
        what: "a rotten identity",
        spoil: |spec| {
            let mut bytes = fs::read(identity(spec)).expect("an identity");
            let text = String::from_utf8_lossy(&bytes).into_owned();
            let digit = text.find("incarnation").expect("one") + 16;
            bytes[digit] ^= 1;
            fs::write(identity(spec), bytes).expect("written");
        },
        words: &[
            "identity.json",
            "does not match its checksum",
            "nothing was changed",
        ],
    },
    Case {
        what: "no identity, but a log",
        spoil: |spec| fs::remove_file(identity(spec)).expect("removed"),
        words: &["holds data but no identity.json", "empty directory"],
    },
    Case {
        what: "an identity cut short",
        spoil: |spec| {
            let text = fs::read(identity(spec)).expect("an identity");
            fs::write(identity(spec), &text[..text.len() / 2]).expect("written");
        },
        words: &["identity.json", "damaged", "nothing was changed"],
    },
];

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_that_is_not_the_one_the_cluster_knows_is_refused() {
    let mut fleet = Fleet::started(3, &[]).await;
    let client = fleet.client().await;
    make_topic(&client, NewTopic::named("orders").partitions(2)).await;
    let mut journal = Journal::of("orders");
    let producer = client.producer().build();
    journal.produce(&producer, 20).await;
    fleet.kill(3).await;
    let kept = fleet.directory().join("kept");
    copy_dir(&fleet.data_dir(3), &kept);
    for case in CASES {
        eprintln!("{}:", case.what);
        let mut spec = fleet.spec(3).clone();
        (case.spoil)(&mut spec);
        refused(spec.clone()).await.expect(FAILED, case.words);
        // The others go on meanwhile.
        journal.produce(&producer, 10).await;
        let _ = fs::remove_dir_all(&spec.data_dir);
        copy_dir(&kept, &spec.data_dir);
    }

    eprintln!("the directory of another cluster:");
    let mut stranger = fleet.new_spec(3, "stranger");
    let mut alone = Broker::start(stranger.clone()).expect("started");
    alone
        .wait_ready(PATIENCE)
        .await
        .expect("a cluster of its own");
    alone.kill().await.expect("killed");
    stranger.join.clone_from(&fleet.spec(3).join);
    (stranger.grpc, stranger.admin) = (fleet.spec(3).grpc, fleet.spec(3).admin);
    let refusal = refused(stranger).await;
    refusal.expect(FAILED, &["belongs to cluster", "this is cluster"]);

    eprintln!("the right directory comes back");
    fleet.start(3);
    fleet.ready(3).await;
    fleet.caught_up(3).await;
    journal.check_everywhere(&client, &fleet.nodes()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_place_that_is_taken_is_refused() {
    let mut fleet = Fleet::started(1, &[]).await;

    eprintln!("a data directory in use:");
    let mut second = fleet.new_spec(1, "second");
    second.data_dir = fleet.data_dir(1);
    let refusal = refused(second.clone()).await;
    refusal.expect(FAILED, &["in use by another process"]);

    eprintln!("the gRPC address in use:");
    let mut second = fleet.new_spec(2, "second");
    second.grpc = fleet.spec(1).grpc;
    let refusal = refused(second).await;
    let address = fleet.spec(1).address();
    refusal.expect(ADDRESS_IN_USE.into(), &[&address, "listen.grpc"]);

    eprintln!("the admin address in use:");
    let second = fleet.new_spec(2, "second");
    let held = TcpListener::bind(second.admin_address()).expect("held");
    let refusal = refused(second).await;
    let address = held.local_addr().expect("bound").to_string();
    refusal.expect(ADDRESS_IN_USE.into(), &[&address, "listen.admin"]);

    eprintln!("an unknown key, and a value that is none:");
    for (setting, words) in [
        (
            ("wal.file_byte", "4MiB"),
            ["wal.file_byte", "wal.file_bytes"],
        ),
        (("wal.file_bytes", "many"), ["wal.file_bytes", "many"]),
    ] {
        let mut second = fleet.new_spec(2, "second");
        second.settings = vec![(setting.0.to_owned(), setting.1.to_owned())];
        refused(second).await.expect(USAGE, &words);
    }

    eprintln!("a data directory that cannot be made:");
    let mut second = fleet.new_spec(2, "second");
    let file = fleet.directory().join("a-file");
    fs::write(&file, "").expect("written");
    second.data_dir = file.join("data");
    refused(second).await.expect(FAILED, &["a-file"]);

    let client = fleet.client().await;
    make_topic(&client, NewTopic::named("orders")).await;
    Journal::of("orders")
        .produce(&client.producer().build(), 5)
        .await;
    fleet.stop_all().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn founders_that_contradict_each_other_do_not_found() {
    let mut fleet = Fleet::of(3, &[]).await;

    eprintln!("two brokers with one id, before there is a cluster:");
    let mut twin = fleet.new_spec(1, "twin");
    (twin.grpc, twin.join) = (fleet.spec(2).grpc, fleet.spec(2).join.clone());
    contradicted(&mut fleet, twin, &["is broker 1 too", "node.id"]).await;

    eprintln!("another list of founders:");
    let mut other = fleet.spec(2).clone();
    other.join.pop();
    contradicted(&mut fleet, other, &["another list of brokers", "--join"]).await;

    fleet.start_all().await;
    eprintln!("two brokers with one id, in a cluster:");
    let mut twin = fleet.new_spec(3, "twin-3");
    twin.join.clone_from(&fleet.spec(3).join);
    let refusal = refused(twin).await;
    refusal.expect(FAILED, &["broker 3", "another data directory"]);
    // None of this disturbed the founders.
    let client = fleet.client().await;
    make_topic(&client, NewTopic::named("orders")).await;
    let mut journal = Journal::of("orders");
    journal.produce(&client.producer().build(), 5).await;
    fleet.stop_all().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_disk_is_turned_away_only_when_a_leader_says_so() {
    let mut fleet = Fleet::started(3, &[]).await;
    fleet.stop_all().await;
    fs::remove_dir_all(fleet.data_dir(3)).expect("wiped");
    // Alone it does not know what the others have decided.
    fleet.start(2);
    let mut lost = Broker::start(fleet.spec(3).clone()).expect("started");
    let asks = "waiting for its metadata leader to say";
    fleet.logged(3, asks).await;
    fleet.start(1);
    let ended = lost.wait_ready(PATIENCE).await.expect_err("turned away");
    assert!(matches!(ended, ProcessError::Ended { .. }), "{ended}");
    fleet
        .logged(3, "refuses this broker: broker 3 is known")
        .await;
    fleet.ready(1).await;
    fleet.ready(2).await;
    fleet.stop_all().await;
}

/// Starts broker 1 and one that contradicts it: the first of them to see it says so and ends.
async fn contradicted(fleet: &mut Fleet, other: BrokerSpec, words: &[&str]) {
    let logs = [fleet.spec(1).log.clone(), other.log.clone()];
    for log in &logs {
        let _ = fs::remove_file(log);
    }
    fleet.start(1);
    fleet.logged(1, "waiting for the other founders").await;
    let mut other = Broker::start(other).expect("started");
    let line = eventually("one of them refuses", async || {
        let said = logs.iter().filter_map(|log| fs::read_to_string(log).ok());
        let mut lines = said.flat_map(|log| log.lines().map(str::to_owned).collect::<Vec<_>>());
        lines.find(|line| line.starts_with("highwater: "))
    })
    .await;
    eprintln!("  says: {line}");
    assert!(words.iter().all(|word| line.contains(word)), "{line}");
    other.kill().await.expect("killed");
    fleet.kill(1).await;
    for log in &logs {
        let log = fs::read_to_string(log).unwrap_or_default();
        assert!(!log.contains("founding the cluster"), "{log}");
    }
}
