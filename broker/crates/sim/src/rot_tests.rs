//! What replicas lack is seen, and what one of them holds beside the others.

use highwater_env::{Disk, DiskFile, OpenMode, SimDisk};
use highwater_proto::batch::{BatchBuilder, Compression, Record};
use highwater_proto::{LeaderEpoch, Offset, PartitionId, TimestampMs};
use highwater_segment::log_path;

use super::*;

fn partition() -> TopicPartition {
    TopicPartition::new(TopicId(7), PartitionId(0))
}

fn expected(from: Option<u64>, end: u64) -> [Expected; 1] {
    [Expected {
        log: (partition(), 0),
        replicas: vec![1, 2],
        from,
        end,
    }]
}

/// A disk with one segment that holds one record at each of these offsets.
fn disk(offsets: &[u64]) -> SimDisk {
    let mut content = Vec::new();
    for offset in offsets {
        let mut builder = BatchBuilder::new(Compression::None);
        let record = Record {
            offset: Offset(0),
            timestamp: TimestampMs(1),
            key: None,
            value: Some(offset.to_string().into()),
            headers: Vec::new(),
        };
        builder.append_record(&record).unwrap();
        let batch = RecordBatch::validate(builder.build(), 1 << 20).unwrap();
        let stamped = batch.stamp(Offset(*offset), LeaderEpoch(1));
        content.extend_from_slice(&stamped.to_bytes());
    }
    let disk = SimDisk::new();
    let dir = partition_dir(Path::new(SEGMENTS), (partition(), 0));
    disk.create_dir_all(&dir).unwrap();
    let path = log_path(&dir, Offset(0), 0);
    let file = disk.open(&path, OpenMode::Truncate).unwrap();
    file.write_at(&content, 0).unwrap();
    disk
}

/// What two brokers with these records are said to lack; nothing if they are alike.
fn lacking(one: &[u64], other: &[u64], (from, end): (Option<u64>, u64)) -> Option<String> {
    let disks = [("n1", disk(one)), ("n2", disk(other))];
    match compare(&disks, None, &expected(from, end)).unwrap() {
        Compared::Alike(_) => None,
        Compared::Lacks(what) => Some(what),
    }
}

#[test]
fn whole_replicas_are_alike() {
    assert_eq!(lacking(&[0, 1, 2], &[0, 1, 2], (Some(0), 3)), None);
    // What was trimmed lies there, or does not.
    assert_eq!(lacking(&[0, 1, 2], &[2], (Some(2), 3)), None);
    assert_eq!(lacking(&[0, 1, 2], &[2], (None, 3)), None);
}

#[test]
fn what_is_not_there_is_seen() {
    let lacks = |one: &[u64], other: &[u64]| lacking(one, other, (Some(0), 3)).unwrap_or_default();
    assert!(lacks(&[0, 1, 2], &[0, 1]).contains("n2 holds 0..2"));
    assert!(lacks(&[0, 2], &[0, 1, 2]).contains("n1 holds 0..1"));
    assert!(lacks(&[], &[0, 1, 2]).contains("n1 holds 0..0"));
    assert!(lacks(&[0, 1, 2, 3], &[0, 1, 2]).contains("end at"));
    let third = Expected {
        replicas: vec![3],
        ..expected(None, 0)[0].clone()
    };
    let disks = [("n1", disk(&[])), ("n2", disk(&[]))];
    let compared = compare(&disks, None, &[third]).unwrap();
    assert!(matches!(compared, Compared::Lacks(_)));
}
