//! Each rule of checkpoints is seen to be broken, and checkpoints that keep them are not.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use highwater_proto::internal::ShardPartition;

use super::*;

const SHARD: &str = "/data/shards/000001.checkpoint";

fn mark(position: u64, (start, next): (u64, u64)) -> Mark {
    let tp = TopicPartition::new(TopicId(1), PartitionId(0));
    Mark {
        position,
        partitions: BTreeMap::from([((tp, 0), (Offset(start), Offset(next)))]),
        place: Bytes::from(position.to_string()),
        state: position * 31 + start,
    }
}

/// Whether the checkpoints of one node may follow each other.
fn may_follow(marks: &[Mark]) -> bool {
    let mut all = Watermarks::default();
    let mut taken = marks
        .iter()
        .map(|mark| all.take("n1", Path::new(SHARD), mark.clone()));
    taken.all(|taken| taken.is_ok())
}

#[test]
fn nothing_goes_back_in_one_life() {
    assert!(may_follow(&[
        mark(3, (0, 5)),
        mark(3, (0, 5)),
        mark(4, (2, 9))
    ]));
    assert!(!may_follow(&[mark(3, (0, 5)), mark(2, (0, 5))]));
    assert!(!may_follow(&[mark(3, (1, 5)), mark(4, (0, 6))]));
    assert!(!may_follow(&[mark(3, (0, 5)), mark(4, (0, 4))]));
}

#[test]
fn what_was_durable_is_a_bound_for_later_lives() {
    let path = PathBuf::from(SHARD);
    let mut all = Watermarks::default();
    let disk = SimDisk::new();
    all.take("n1", &path, mark(3, (0, 5))).unwrap();
    let synced = Call {
        kind: CallKind::SyncDir,
        path: PathBuf::from(SHARDS),
        offset: 0,
        len: 0,
        failed: false,
    };
    all.note("n1", &disk, &synced).unwrap();
    all.take("n1", &path, mark(9, (0, 9))).unwrap();
    all.power_lost("n1");
    all.take("n1", &path, mark(4, (0, 6))).unwrap();
    all.power_lost("n1");
    assert!(all.take("n1", &path, mark(2, (0, 4))).is_err());
    all.wiped("n1");
    all.take("n1", &path, mark(2, (0, 4))).unwrap();
}

#[test]
fn replicas_are_alike_at_the_same_place() {
    let mut all = Watermarks::default();
    let path = Path::new(SHARD);
    all.take("n1", path, mark(3, (0, 5))).unwrap();
    all.take("n2", path, mark(3, (0, 5))).unwrap();
    all.take("n2", path, mark(4, (0, 6))).unwrap();
    assert_eq!(all.counts(), (3, 1));
    let other = Mark {
        state: 1,
        ..mark(4, (0, 6))
    };
    assert!(all.take("n1", path, other).is_err());
}

#[test]
fn temporary_files_become_checkpoints() {
    let becomes = |path: &str| becomes(Path::new(path));
    assert_eq!(becomes("/data/shards/000001.tmp"), Some(SHARD.into()));
    let metadata = becomes("/data/metadata/checkpoint.tmp");
    assert_eq!(metadata, Some("/data/metadata/checkpoint".into()));
    assert_eq!(becomes("/data/identity.tmp"), None);
}

#[test]
fn files_hold_what_readers_are_told() {
    let shown = |importing| ShardSnapshot {
        partitions: vec![ShardPartition {
            topic: 1,
            log_start: 2,
            next_offset: 7,
            importing,
            ..ShardPartition::default()
        }],
        ..ShardSnapshot::default()
    };
    let files = |start, next| {
        let manifest = PartitionManifest {
            log_start: Offset(start),
            next_offset: Offset(next),
            ..PartitionManifest::default()
        };
        [(TopicPartition::new(TopicId(1), PartitionId(0)), manifest)]
    };
    assert!(bounds(&shown(false), &files(2, 7)).is_ok());
    assert!(bounds(&shown(false), &files(2, 6)).is_err());
    assert!(bounds(&shown(false), &[]).is_err());
    assert!(bounds(&shown(true), &files(2, 6)).is_ok());
}
