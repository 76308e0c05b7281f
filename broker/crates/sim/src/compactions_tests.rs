//! Replicas that are compacted alike pass, and each way in which one may differ is seen.

use std::path::Path;

use highwater_env::{Disk, DiskFile, OpenMode, SimDisk};
use highwater_proto::batch::{BatchBuilder, Compression, Record, RecordBatch};
use highwater_proto::{LeaderEpoch, Offset, PartitionId, TimestampMs, TopicId, TopicPartition};
use highwater_segment::{
    Checkpoint, Compacted, PartitionManifest, SegmentManifest, log_path, partition_dir,
};

use super::{compare, settled};
use crate::board::Compacting;
use crate::settings::SEGMENTS;

const TOPIC: TopicId = TopicId(7);
const NODES: [&str; 3] = ["n1", "n2", "n3"];

fn what(surely: bool) -> Compacting {
    Compacting {
        topic: TOPIC,
        surely,
    }
}

/// A batch with one record.
fn batch(base: u64, value: &'static str) -> Vec<u8> {
    let mut builder = BatchBuilder::new(Compression::None);
    let record = Record {
        offset: Offset(0),
        timestamp: TimestampMs(1),
        key: Some("key".into()),
        value: Some(value.into()),
        headers: Vec::new(),
    };
    builder.append_record(&record).unwrap();
    let batch = RecordBatch::validate(builder.build(), 1 << 20).unwrap();
    batch
        .stamp(Offset(base), LeaderEpoch(1))
        .to_bytes()
        .to_vec()
}

fn write(disk: &SimDisk, path: &Path, content: &[u8]) {
    disk.create_dir_all(path.parent().unwrap()).unwrap();
    let file = disk.open(path, OpenMode::Truncate).unwrap();
    file.write_at(content, 0).unwrap();
}

/// A disk with one partition, compacted so often, that holds these batches and ends at offset 10.
fn disk(generation: u64, batches: &[(u64, &'static str)]) -> SimDisk {
    let disk = SimDisk::new();
    let tp = TopicPartition::new(TOPIC, PartitionId(0));
    let content: Vec<u8> = batches
        .iter()
        .flat_map(|(base, value)| batch(*base, value))
        .collect();
    let dir = partition_dir(Path::new(SEGMENTS), (tp, 0));
    let mut file = content.clone();
    // Reserved space does not count, and neither do old files that the checkpoint does not name.
    file.resize(content.len() + 100, 0);
    write(&disk, &log_path(&dir, Offset(0), generation), &file);
    write(&disk, &log_path(&dir, Offset(0), generation + 1), b"old");
    let segment = SegmentManifest {
        base_offset: Offset(0),
        len_bytes: content.len() as u64,
        next_offset: Offset(10),
        max_timestamp: TimestampMs(1),
        last_append_time: TimestampMs(1),
        sealed: true,
        checksum: 0,
        version: generation,
    };
    let manifest = PartitionManifest {
        log_start: Offset(0),
        next_offset: Offset(10),
        segments: vec![segment],
        compacted: Compacted {
            generation,
            upto: Offset(10),
        },
        arrival: 0,
    };
    let checkpoint = Checkpoint {
        partitions: vec![(tp, manifest)],
        ..Checkpoint::default()
    };
    let path = Path::new("/data/shards/000001.checkpoint");
    write(&disk, path, &checkpoint.encode());
    disk
}

fn disks(each: [SimDisk; 3]) -> Vec<(&'static str, SimDisk)> {
    NODES.into_iter().zip(each).collect()
}

#[test]
fn replicas_that_hold_the_same_pass() {
    let same = || disk(3, &[(4, "a"), (9, "b")]);
    let disks = disks([same(), same(), same()]);
    assert!(settled(&disks, what(true)).unwrap());
    assert_eq!(compare(&disks, what(true)).unwrap(), 4);
}

#[test]
fn one_that_is_behind_is_waited_for() {
    let done = || disk(3, &[(9, "b")]);
    let disks = disks([done(), disk(2, &[(4, "a"), (9, "b")]), done()]);
    assert!(!settled(&disks, what(true)).unwrap());
    // One replica is not all.
    assert!(!settled(&disks[..1], what(true)).unwrap());
    let mut never = disks;
    never
        .iter_mut()
        .for_each(|(_, one)| *one = disk(0, &[(9, "b")]));
    assert!(!settled(&never, what(true)).unwrap());
    assert!(settled(&never, what(false)).unwrap());
}

#[test]
fn other_bytes_a_missing_batch_and_one_too_many_are_seen() {
    let right = || disk(3, &[(4, "a"), (9, "b")]);
    for wrong in [
        disk(3, &[(4, "a"), (9, "c")]),
        disk(3, &[(9, "b")]),
        disk(3, &[(4, "a"), (7, "x"), (9, "b")]),
        disk(3, &[(4, "a")]),
    ] {
        let disks = disks([right(), right(), wrong]);
        let error = compare(&disks, what(true)).unwrap_err().to_string();
        assert!(error.contains("n1 and n3"), "{error}");
    }
}

#[test]
fn a_log_that_lost_nothing_is_not_compacted() {
    let all: Vec<(u64, &str)> = (0..10).map(|base| (base, "a")).collect();
    let disks = disks([disk(3, &all), disk(3, &all), disk(3, &all)]);
    let error = compare(&disks, what(true)).unwrap_err().to_string();
    assert!(error.contains("not become smaller"), "{error}");
    assert!(compare(&disks, what(false)).is_ok());
}
