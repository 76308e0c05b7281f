//! Broken files: a torn tail is cut in silence, everything else is named and nothing is built on it.

use std::fs;
use std::path::{Path, PathBuf};

use futures_util::StreamExt as _;
use highwater_client::{NewPlan, NewTopic, NodeId, ReadFrom, ShardId};
use tokio::time::timeout;

use super::fleet::{Fleet, PATIENCE, copy_dir, eventually};
use super::journal::{Journal, make_topic};
use super::life;
use super::wal_file::WalFile;

#[tokio::test(flavor = "multi_thread")]
async fn a_torn_tail_is_cut_and_damage_is_named() {
    let settings = [("storage.checkpoint_interval_ms", "500ms")];
    let mut fleet = Fleet::started(3, &settings).await;
    let client = fleet.client().await;
    make_topic(&client, NewTopic::named("orders").partitions(6)).await;
    let mut journal = Journal::of("orders");
    let producer = client.producer().build();
    for _ in 0..10 {
        journal.produce(&producer, 20).await;
    }

    torn_tail(&mut fleet).await;
    journal.produce(&producer, 20).await;
    for node in fleet.nodes() {
        fleet.caught_up(node).await;
    }
    journal.check_everywhere(&client, &fleet.nodes()).await;

    // A fast machine has come here before the first of them.
    let shards = fleet.data_dir(3).join("shards");
    eventually("a shard's checkpoint", async || {
        files_below(&shards).into_iter().next()
    })
    .await;
    damaged_middle(&mut fleet).await;
    // Two of three go on.
    journal.produce(&producer, 20).await;
    damaged_checkpoints(&mut fleet).await;
    unreadable_log(&mut fleet).await;
    journal.produce(&producer, 20).await;

    eprintln!("the damage is undone: the broker comes back");
    fleet.start(3);
    fleet.ready(3).await;
    fleet.caught_up(3).await;
    journal.check_everywhere(&client, &fleet.nodes()).await;
}

/// Loaded into a broker, it has the log behind its first block fail to be read, as a disk does that dies.
const DYING_DISK: &str = "
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>
ssize_t pread64(int file, void *to, size_t bytes, off64_t at) {
    char link[64], path[4096];
    snprintf(link, sizeof link, \"/proc/self/fd/%d\", file);
    ssize_t len = readlink(link, path, sizeof path);
    if (len > 4 && !memcmp(path + len - 4, \".wal\", 4) && at >= 4096) {
        errno = EIO;
        return -1;
    }
    return syscall(SYS_pread64, file, to, bytes, at);
}
";

/// Nobody can say what was in it: the broker does not start, and says what there is to do.
async fn unreadable_log(fleet: &mut Fleet) {
    eprintln!("the log cannot be read:");
    let dying = fleet.preload("dying", DYING_DISK);
    fleet.set_environment_of(3, &dying);
    let words = ["os error 5", "once the disk can be read", "cluster replace"];
    fleet.refused(3).await.expect(1, &words);
    fleet.set_environment_of(3, "");
}

#[tokio::test(flavor = "multi_thread")]
async fn rot_in_a_segment_is_never_handed_out() {
    let settings = [
        ("storage.checkpoint_interval_ms", "200ms"),
        // A person does it here; `rot` shows the broker doing it.
        ("repair.automatic", "false"),
        ("scrub.bytes_per_second", "0"),
    ];
    let mut fleet = Fleet::started(3, &settings).await;
    let client = fleet.client().await;
    make_topic(&client, NewTopic::named("orders")).await;
    let mut journal = Journal::of("orders");
    let producer = client.producer().build();
    journal.produce(&producer, 200).await;
    let partitions = fleet.data_dir(3).join("partitions");
    eventually("everything is behind a checkpoint", async || {
        let lag = fleet.metric(3, "highwater_shard_checkpoint_lag").await;
        (lag == Some(0.0)).then_some(())
    })
    .await;
    fleet.stop(3).await;
    let files = files_below(&partitions);
    let file = files
        .iter()
        .find(|file| file.extension().is_some_and(|e| e == "log"));
    let file = file.expect("a segment");
    let mut bytes = fs::read(file).expect("read");
    // Within the first batch, behind its header.
    bytes[90] ^= 0xff;
    fs::write(file, bytes).expect("written");
    fleet.start(3);
    fleet.ready(3).await;
    fleet.caught_up(3).await;

    let from = ReadFrom::Broker(NodeId(3));
    let consumer = client.consumer().read_from(from).topic("orders");
    let mut consumer = consumer.build().await.expect("assigned");
    let first = timeout(PATIENCE, consumer.next()).await.expect("in time");
    let error = first.expect("a stream without end").expect_err("rot");
    eprintln!("  says: {error}");
    // The others have it whole.
    for node in [1, 2] {
        let from = ReadFrom::Broker(NodeId(node));
        journal.check(&client, from, &[]).await;
    }
    journal.produce(&producer, 20).await;

    eprintln!("it is named, and filled again from the others");
    let named = life::told(&client, "the damage is named", |found| {
        found.what.contains("bad range")
    });
    let cure = named.await.cure;
    let words: Vec<&str> = cure.split(['`', ' ']).collect();
    let at = words
        .iter()
        .position(|word| *word == "repair")
        .expect("a verb");
    assert_eq!(words[at + 1], "3");
    let shard = words[at + 2].parse().map(ShardId).expect("a shard");
    let started = life::start(&client, NewPlan::repair(NodeId(3), shard)).await;
    life::ended(&client, started.id).await;
    journal.produce(&producer, 20).await;
    fleet.caught_up(3).await;
    journal.check_everywhere(&client, &fleet.nodes()).await;
    life::healthy(&fleet, &client).await;
}

/// A group that was being written when the power went.
async fn torn_tail(fleet: &mut Fleet) {
    fleet.kill(3).await;
    let mut file = WalFile::newest(&fleet.data_dir(3).join("wal"));
    let groups = file.groups();
    let last = groups.last().expect("groups");
    let end = if last.idle_marker { last.at } else { last.end };
    // A header of this use of the file, and nothing behind it that matches it.
    let mut torn = file.bytes()[groups[0].at..groups[0].at + 24].to_vec();
    torn.extend((0..700_u32).map(|n| (n * 37 % 251) as u8));
    file.overwrite(end, &torn);
    fleet.start(3);
    fleet.ready(3).await;
    let log = fleet.log(3);
    let cut = log.lines().find(|line| line.contains("torn tail"));
    eprintln!("  a torn tail: {}", cut.expect("said so"));
}

/// A byte that rotted below a position known durable.
async fn damaged_middle(fleet: &mut Fleet) {
    fleet.kill(3).await;
    let mut file = WalFile::newest(&fleet.data_dir(3).join("wal"));
    let groups = file.groups();
    assert!(groups.len() > 8, "only {} groups", groups.len());
    let middle = groups[groups.len() / 2];
    for (what, at) in [
        ("a group's frames", middle.at + 70),
        ("its header", middle.at + 9),
    ] {
        eprintln!("rot in {what}:");
        file.flip(at);
        let name = file.path.display().to_string();
        let place = format!("byte {}", middle.at);
        let words = [name.as_str(), place.as_str(), "damaged", "replica"];
        fleet.refused(3).await.expect(1, &words);
        file.flip(at);
    }
}

async fn damaged_checkpoints(fleet: &mut Fleet) {
    let data = fleet.data_dir(3);
    let shard = files_below(&data.join("shards")).into_iter().next();
    let shard = shard.expect("a shard's checkpoint");
    let kept = fleet.directory().join("kept");
    for file in [shard, data.join("metadata").join("checkpoint")] {
        eprintln!("rot in {}:", file.display());
        copy_dir(&data, &kept);
        let mut bytes = fs::read(&file).expect("a checkpoint");
        let middle = bytes.len() / 2;
        bytes[middle] ^= 0xff;
        fs::write(&file, bytes).expect("written");
        let name = file.display().to_string();
        let words = [name.as_str(), "damaged", "replace this broker"];
        fleet.refused(3).await.expect(1, &words);
        fs::remove_dir_all(&data).expect("removed");
        fs::rename(&kept, &data).expect("put back");
    }
}

fn files_below(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).expect("listed") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            found.extend(files_below(&path));
        } else if fs::metadata(&path).is_ok_and(|file| file.len() > 0) {
            found.push(path);
        }
    }
    found.sort();
    found
}
