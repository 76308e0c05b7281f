//! A check finds every byte that is not what was written, names it, and finds nothing else.

use std::path::Path;

use highwater_env::SimDisk;

use super::*;
use crate::log::PartitionLog;
use crate::test_support::{config, owner, run, tp};
use crate::{FileCache, FileCacheConfig, partition_dir};

/// Three segments, the last of which grows.
pub(crate) fn three(disk: &SimDisk) -> PartitionLog<SimDisk> {
    // A failed sync ends the process; here it ends the call.
    let files = FileCache::new(disk.clone(), FileCacheConfig::default(), Arc::new(|_| ()));
    let dir = partition_dir(Path::new("/p"), (tp(0), 0));
    disk.create_dir_all(&dir).expect("a directory");
    disk.sync_dir(Path::new("/")).expect("durable");
    let mut log = PartitionLog::create(&files, owner(0), &dir, config());
    let mut batches = run(30, 40);
    for roll in [10, 20] {
        batches[roll].new_segment = true;
    }
    log.append_all(&batches).expect("appended");
    log
}

pub(crate) fn whole(reader: &PartitionReader<SimDisk>, base: Offset) -> Result<u64, ReadError> {
    let mut check = reader.check(base).expect("there");
    let mut bytes = 0;
    loop {
        match check.step(100)? {
            Checked::Some(read) => bytes += read,
            Checked::Whole(read) => return Ok(bytes + read),
        }
    }
}

#[test]
fn every_flipped_bit_is_found_wherever_it_lies() {
    let disk = SimDisk::new();
    let log = three(&disk);
    let reader = log.reader();
    let segments = reader.segments();
    assert_eq!(segments.len(), 3);
    for segment in segments {
        let base = segment.base_offset;
        assert_eq!(whole(&reader, base).expect("whole"), segment.len_bytes);
        let path = reader.segment(base).expect("there").0.name.log_path();
        for at in (0..segment.len_bytes).step_by(7) {
            disk.flip_bit(&path, at, 5).expect("flipped");
            let error = whole(&reader, base).expect_err("found");
            assert_eq!(error.bad_segment(), Some((tp(0), base)), "{error}");
            disk.flip_bit(&path, at, 5).expect("flipped back");
        }
        assert!(whole(&reader, base).is_ok());
    }
}

/// Nothing below the watermark would mean that compaction has left nothing, and be skipped.
#[test]
fn a_read_of_a_batch_with_a_flipped_bit_fails_and_is_never_empty() {
    const LAST_OFFSET_DELTA: u64 = 23;
    let disk = SimDisk::new();
    let log = three(&disk);
    let reader = log.reader().verifying();
    let first = *reader.segments().first().expect("one");
    let (segment, _) = reader.segment(first.base_offset).expect("there");
    let path = segment.name.log_path();
    let end = reader.next_offset();
    for (at, bit) in (LAST_OFFSET_DELTA..LAST_OFFSET_DELTA + 4).flat_map(|at| [(at, 0), (at, 5)]) {
        disk.flip_bit(&path, at, bit).expect("flipped");
        let error = reader.read(first.base_offset, 1, end).expect_err("found");
        assert!(matches!(error, ReadError::Damaged(_)), "{at}: {error}");
        disk.flip_bit(&path, at, bit).expect("flipped back");
    }
    assert!(
        !reader
            .read(first.base_offset, 1, end)
            .expect("whole")
            .is_empty()
    );
}

#[test]
fn what_is_behind_the_last_batch_does_not_count() {
    let disk = SimDisk::new();
    let log = three(&disk);
    let reader = log.reader();
    let last = *reader.segments().last().expect("one");
    let path = reader
        .segment(last.base_offset)
        .expect("there")
        .0
        .name
        .log_path();
    disk.flip_bit(&path, last.len_bytes, 1).expect("reserved");
    assert!(whole(&reader, last.base_offset).is_ok());
}

#[test]
fn a_missing_file_is_bad_and_a_trimmed_segment_is_not() {
    let disk = SimDisk::new();
    let mut log = three(&disk);
    let reader = log.reader();
    let first = reader.segments()[0];
    let mut check = reader.check(first.base_offset).expect("there");
    let path = reader
        .segment(first.base_offset)
        .expect("there")
        .0
        .name
        .log_path();
    disk.remove_file(&path).expect("gone");
    let error = whole(&reader, first.base_offset).expect_err("missing");
    assert_eq!(error.bad_segment(), Some((tp(0), first.base_offset)));
    log.set_log_start(first.next_offset);
    let error = check.step(100).expect_err("trimmed");
    assert!(matches!(error, ReadError::BelowStart { .. }), "{error}");
    assert_eq!(error.bad_segment(), None);
    assert!(reader.check(first.base_offset).is_none());
}
