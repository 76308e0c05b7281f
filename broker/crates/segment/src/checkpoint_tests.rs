//! The format of checkpoint files.

#![allow(clippy::indexing_slicing)] // the offsets are the test's own

use highwater_env::OsDisk;
use highwater_proto::{Offset, TimestampMs};

use super::*;
use crate::{Compacted, SegmentManifest};

fn sample() -> Checkpoint {
    let segment = |base: u64, sealed| SegmentManifest {
        base_offset: Offset(base),
        len_bytes: 4_000,
        next_offset: Offset(base + 50),
        max_timestamp: TimestampMs(1_700_000_000_000),
        last_append_time: TimestampMs(1_700_000_000_005),
        sealed,
        checksum: 0xdead_beef,
        version: 0,
    };
    let full = PartitionManifest {
        log_start: Offset(110),
        next_offset: Offset(200),
        segments: vec![segment(100, true), segment(150, false)],
        compacted: Compacted::default(),
        arrival: 0,
    };
    let at = |partition| TopicPartition::new(TopicId(42), PartitionId(partition));
    Checkpoint {
        raft_meta: Bytes::from_static(b"meta"),
        state: Bytes::from_static(b"the shard's state"),
        partitions: vec![(at(0), full), (at(1), PartitionManifest::default())],
    }
}

#[test]
fn golden_file_of_version_1() {
    let golden = Bytes::from_static(include_bytes!("../golden/v1.checkpoint"));
    assert_eq!(sample().encode(), golden);
    assert_eq!(Checkpoint::decode(&golden), Ok(sample()));
}

/// The same, with the first segment compacted.
fn compacted() -> Checkpoint {
    let mut sample = sample();
    let manifest = &mut sample.partitions[0].1;
    manifest.segments[0].version = 3;
    manifest.compacted = Compacted {
        generation: 77,
        upto: Offset(150),
    };
    sample
}

#[test]
fn golden_file_of_version_2_which_releases_before_compaction_refuse() {
    let golden = Bytes::from_static(include_bytes!("../golden/v2.checkpoint"));
    assert_eq!(compacted().encode(), golden);
    assert_eq!(Checkpoint::decode(&golden), Ok(compacted()));
}

/// The same, with a partition that came by a move.
fn moved() -> Checkpoint {
    let mut sample = compacted();
    sample.partitions[0].1.arrival = 12;
    sample
}

#[test]
fn golden_file_of_version_3_which_releases_before_moves_refuse() {
    let golden = Bytes::from_static(include_bytes!("../golden/v3.checkpoint"));
    assert_eq!(moved().encode(), golden);
    assert_eq!(Checkpoint::decode(&golden), Ok(moved()));
}

#[test]
fn every_flipped_bit_and_every_cut_is_found() {
    let good = sample().encode();
    for at in 0..good.len() {
        let cut = Checkpoint::decode(&good.slice(..at)).expect_err("cut");
        assert!(
            matches!(cut, CheckpointError::Damaged(_)),
            "cut at {at}: {cut}"
        );
        for bit in 0..8 {
            let mut bad = good.to_vec();
            bad[at] ^= 1 << bit;
            assert!(
                Checkpoint::decode(&bad.into()).is_err(),
                "byte {at} bit {bit}"
            );
        }
    }
}

#[test]
fn a_newer_version_is_not_taken_for_damage() {
    let mut newer = sample().encode().to_vec();
    newer[11] = 9;
    let expected = CheckpointError::NewerVersion {
        found: 9,
        supported: VERSION,
    };
    assert_eq!(Checkpoint::decode(&newer.into()), Err(expected));
    let other = Bytes::from_static(b"something else altogether");
    assert_eq!(
        Checkpoint::decode(&other),
        Err(CheckpointError::NotACheckpoint)
    );
}

#[test]
fn a_file_is_replaced_whole() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = dir.path().join("shard-7.checkpoint");
    assert_eq!(Checkpoint::read(&OsDisk, &path).expect("no file"), None);
    Checkpoint::default().write(&OsDisk, &path).expect("write");
    sample().write(&OsDisk, &path).expect("write");
    assert_eq!(
        Checkpoint::read(&OsDisk, &path).expect("read"),
        Some(sample())
    );
    std::fs::write(&path, b"HWCHKPT\n...").expect("damage");
    let error = Checkpoint::read(&OsDisk, &path)
        .expect_err("damaged")
        .to_string();
    assert!(
        error.contains("shard-7.checkpoint") && error.contains("damaged"),
        "{error}"
    );
    assert!(path.exists());
}
