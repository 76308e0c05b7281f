//! Disks without a byte left, in all brokers at once: nothing that was acknowledged is lost, and the
//! cluster goes on by itself when there is room again.

use std::fs;
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use highwater_client::{NewTopic, SendError};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

use super::fleet::{Fleet, eventually};
use super::journal::{Journal, make_topic, send};

const DISK: &std::ffi::CStr = c"size=64m";

/// A small file system in memory, mounted until dropped.
struct SmallDisk(PathBuf);

impl SmallDisk {
    /// `None` without the right to mount.
    fn at(dir: &Path) -> Option<Self> {
        fs::create_dir_all(dir).expect("a directory");
        mount("tmpfs", dir, "tmpfs", MountFlags::empty(), Some(DISK)).ok()?;
        Some(Self(dir.to_owned()))
    }
    fn ballast(&self) -> PathBuf {
        self.0.join("ballast")
    }
    /// Takes every byte that is left.
    fn fill(&self) {
        let mut file = fs::File::create(self.ballast()).expect("a file");
        let mut size = 1 << 20;
        while size > 0 {
            match file.write(&vec![0; size]) {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::StorageFull => size /= 2,
                Err(error) => panic!("{error}"),
            }
        }
    }
    fn make_room(&self) {
        fs::remove_file(self.ballast()).expect("removed");
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = unmount(&self.0, UnmountFlags::DETACH);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn full_disks_lose_nothing_and_are_left_behind() {
    // Without a reserve it is the disk that says no.
    let settings = [("storage.reserve_bytes", "0")];
    let mut fleet = Fleet::of(3, &settings).await;
    let homes = fleet.nodes().into_iter().map(|node| fleet.data_dir(node));
    let disks: Vec<SmallDisk> = homes.map_while(|home| SmallDisk::at(&home)).collect();
    if disks.len() < 3 {
        eprintln!("SKIPPED: mounting a small file system needs root");
        return;
    }
    fleet.start_all().await;
    let client = fleet.client().await;
    make_topic(&client, NewTopic::named("orders").partitions(4)).await;
    let mut journal = Journal::of("orders");
    journal.produce(&client.producer().build(), 200).await;

    disks.iter().for_each(SmallDisk::fill);
    let producer = client.producer().delivery_timeout(Duration::from_secs(2));
    let producer = producer.build();
    let mut number = 200;
    let mut unknown = Vec::new();
    let mut refused = 0;
    // What is preallocated is written still.
    while refused == 0 {
        for (value, outcome) in send(&producer, "orders", number..number + 500).await {
            match outcome {
                Ok(delivery) => journal.note(&delivery, &value),
                Err(SendError::Unknown(_)) => unknown.push(value),
                Err(error) => {
                    if refused == 0 {
                        eprintln!("  says: {error}");
                    }
                    refused += 1;
                    assert!(matches!(error, SendError::Rejected(_)), "{error}");
                }
            }
        }
        number += 500;
    }
    eprintln!("full: {refused} rejected, {} unknown", unknown.len());
    let (_, health) = fleet.http(2, "/healthz?verbose").await;
    eprintln!("{health}");
    fleet.kill(1).await;
    fleet.start(1);

    disks.iter().for_each(SmallDisk::make_room);
    for node in fleet.nodes() {
        fleet.ready(node).await;
        eventually("the gate is open", async || {
            (fleet.metric(node, "highwater_storage_full").await == Some(0.0)).then_some(())
        })
        .await;
    }
    for (value, outcome) in send(&client.producer().build(), "orders", number..number + 100).await {
        journal.note(&outcome.expect("there is room again"), &value);
    }
    for node in fleet.nodes() {
        fleet.caught_up(node).await;
    }
    journal.check_with(&client, &fleet.nodes(), &unknown).await;
    fleet.kill_all().await; // before their disks go
}
