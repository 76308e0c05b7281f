//! Rot in the write-ahead log of a running broker: it is found, what the log retained gives way to
//! checkpoints, and no start stumbles over it; a start that comes first does without what a checkpoint
//! holds, and refuses when anything else is gone.

use std::path::PathBuf;

use highwater_client::{NewTopic, v1};

use super::failover::Load;
use super::fleet::{Fleet, eventually};
use super::group_sdk_members::CALM;
use super::journal::{Journal, make_topic};
use super::life;
use super::rot::{filled, flip, produce};
use super::wal_file::WalFile;

/// No checkpoint comes by itself, and all of the log is in one file, the one that is written: it
/// retains everything.
const RETAINED: [(&str, &str); 4] = [
    ("storage.checkpoint_interval_ms", "1h"),
    ("scrub.interval_ms", "1s"),
    ("scrub.bytes_per_second", "256MiB"),
    ("wal.file_bytes", "64MiB"),
];

/// With other values for some keys.
fn but<'a>(changed: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    let mut settings = RETAINED.to_vec();
    settings.retain(|(key, _)| changed.iter().all(|(other, _)| other != key));
    settings.extend(changed);
    settings
}

/// Places within the data of large entries, in their order, in the file that is written.
fn entries(fleet: &Fleet, node: u32) -> Vec<(PathBuf, u64)> {
    let file = WalFile::newest(&fleet.data_dir(node).join("wal"));
    let groups = file.groups();
    // One that holds a whole record of 8 KiB.
    let large = groups.iter().filter(|group| group.end - group.at > 8_192);
    large
        .map(|group| (file.path.clone(), (group.at + 4_096) as u64))
        .collect()
}

/// Waits until the log was written anew, since the broker was started.
async fn renewed(fleet: &Fleet, node: u32) {
    eventually(&format!("broker {node} writes its log anew"), async || {
        let renewals = fleet.metric(node, "highwater_log_renewals_total").await;
        (renewals >= Some(1.0)).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rot_in_the_log_that_is_written_heals_under_load_and_stops_no_start() {
    let mut fleet = Fleet::started(3, &RETAINED).await;
    let client = life::patient(&fleet).await;
    let (journal, producer) = filled(&client).await;
    make_topic(&client, NewTopic::named("more")).await;
    let mut more = Journal::of("more");
    let load = Load::start(client.producer().build(), journal);
    load.progress(200).await;
    let leader = fleet.leader(&client, "orders", 0).await;
    // What a start could do without, and what it could not: the header of a group.
    for (who, node, header) in [
        ("follower", 1 + leader % 3, false),
        ("leader", leader, false),
        ("follower", 1 + leader % 3, true),
    ] {
        eprintln!("the log of {who} {node} rots, in a header: {header}");
        let large = entries(&fleet, node);
        let (path, at) = if header {
            let file = WalFile::newest(&fleet.data_dir(node).join("wal"));
            let groups = file.groups();
            let middle = groups[groups.len() / 2];
            (file.path.clone(), (middle.at + 9) as u64)
        } else {
            large[large.len() / 2].clone()
        };
        flip(&path, at);
        fleet.logged(node, "a part of the log is bad").await;
        renewed(&fleet, node).await;
        let newest = WalFile::newest(&fleet.data_dir(node).join("wal"));
        assert_ne!(newest.path, path, "it goes on in another file");
        load.progress(100).await;

        eprintln!("kill -9: what is left of the log is whole");
        fleet.kill(node).await;
        fleet.start(node);
        fleet.ready(node).await;
        load.progress(100).await;
        fleet.caught_up(node).await;
        assert!(!fleet.log(node).contains("had rotted"));
        // Enough for the next one to rot in the middle of.
        produce(&mut more, &producer, 60).await;
    }
    let journal = load.end().await.unharmed("rot in logs");
    for node in fleet.nodes() {
        fleet.caught_up(node).await;
    }
    life::healthy(&fleet, &client).await;
    life::check_replicas(&fleet, &journal).await;
    life::check_replicas(&fleet, &more).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_does_without_what_a_checkpoint_holds_and_without_nothing_else() {
    let settings = but(&[
        ("storage.checkpoint_interval_ms", "200ms"),
        // Nobody looks before the start does.
        ("scrub.bytes_per_second", "0"),
    ]);
    let mut fleet = Fleet::started(3, &settings).await;
    let client = life::patient(&fleet).await;
    let (mut journal, producer) = filled(&client).await;
    let leader = fleet.leader(&client, "orders", 0).await;
    for node in [1 + leader % 3, leader] {
        eprintln!("broker {node} is killed, and its log rots where checkpoints cover it");
        eventually("everything is behind a checkpoint", async || {
            let lag = fleet.metric(node, "highwater_shard_checkpoint_lag").await;
            (lag == Some(0.0)).then_some(())
        })
        .await;
        fleet.kill(node).await;
        let large = entries(&fleet, node);
        for (path, at) in [&large[1], &large[large.len() / 2]] {
            flip(path, *at);
        }
        fleet.start(node);
        fleet.logged(node, "nothing of it is needed").await;
        fleet.ready(node).await;
        renewed(&fleet, node).await;
        fleet.caught_up(node).await;
        produce(&mut journal, &producer, 60).await;
    }
    life::healthy(&fleet, &client).await;

    eprintln!("no checkpoint covers what rots now");
    let node = 1 + leader % 3;
    fleet.stop(node).await;
    fleet.set_everywhere("storage.checkpoint_interval_ms", "1h");
    fleet.start(node);
    fleet.ready(node).await;
    produce(&mut journal, &producer, 60).await;
    fleet.caught_up(node).await;
    fleet.kill(node).await;
    let large = entries(&fleet, node);
    // Not the last: without a marker behind it, it could be a torn one.
    let (path, at) = &large[large.len() - 3];
    flip(path, *at);
    let words = ["damaged", "an entry", "cluster replace"];
    fleet.refused(node).await.expect(1, &words);
    produce(&mut journal, &producer, 20).await;

    eprintln!("it is put back: nothing was cut");
    flip(path, *at);
    fleet.start(node);
    fleet.ready(node).await;
    fleet.caught_up(node).await;
    life::healthy(&fleet, &client).await;
    life::check_replicas(&fleet, &journal).await;
}

/// Entries of the log go to a follower from the file, as it was away for longer than memory reaches.
#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_stopped_is_filled_again_by_itself() {
    let settings = but(&[
        ("limits.log_cache_bytes", "1MiB"),
        ("limits.tail_cache_bytes", "1MiB"),
        ("repair.after_ms", "2s"),
        // Nobody looks: the bad entry is met when it is needed.
        ("scrub.bytes_per_second", "0"),
        // A busy machine moves no leader: another one would not need the entry.
        CALM[0],
        CALM[1],
        CALM[2],
    ]);
    let mut fleet = Fleet::started(3, &settings).await;
    let client = life::patient(&fleet).await;
    let (mut journal, producer) = filled(&client).await;
    let leader = fleet.leader(&client, "orders", 0).await;
    let away = 1 + leader % 3;
    fleet.caught_up(away).await;
    fleet.kill(away).await;
    let before = entries(&fleet, leader).len();
    produce(&mut journal, &producer, 600).await;
    assert_eq!(fleet.leader(&client, "orders", 0).await, leader);
    // More than one: an append that is under way since before may hold the first of them, whole.
    let missed = entries(&fleet, leader).split_off(before);
    for (path, at) in missed.iter().skip(5).step_by(100) {
        flip(path, *at);
    }
    fleet.start(away);
    fleet.ready(away).await;

    eventually("a replica that stopped is filled again", async || {
        let mut begun = 0.0;
        for node in fleet.nodes() {
            let here = fleet
                .metric(node, "highwater_automatic_repairs_total")
                .await;
            begun += here.unwrap_or_default();
        }
        (begun >= 1.0).then_some(())
    })
    .await;
    let plan = life::plan(&client).await;
    assert_eq!(plan.kind(), v1::PlanKind::Repair);
    assert_eq!(plan.broker, leader, "the one whose log is bad");
    let plan = life::ended(&client, plan.id).await;
    assert_eq!(life::done(&plan), 1, "{plan:?}");
    produce(&mut journal, &producer, 20).await;
    for node in fleet.nodes() {
        fleet.caught_up(node).await;
    }
    life::healthy(&fleet, &client).await;
    life::check_replicas(&fleet, &journal).await;
}
