//! One partition's log against what was appended to it.

use std::fs;

use highwater_proto::TimestampMs;

use super::*;
use crate::test_support::{Fixture, batch, run, stored};
use crate::{Damage, FileError, ReadError};

const ALL: Offset = Offset(u64::MAX);

fn with_rolls(mut batches: Vec<AppendBatch>, every: usize) -> Vec<AppendBatch> {
    for (i, batch) in batches.iter_mut().enumerate() {
        batch.new_segment = i > 0 && i % every == 0;
    }
    batches
}

#[test]
fn nothing_is_made_before_the_first_append() {
    let fixture = Fixture::new();
    let mut log = fixture.create(0);
    assert!(!fixture.path(0).exists());
    assert_eq!(log.sync_dirty().expect("sync"), SyncReport::default());
    assert!(
        log.reader()
            .read(Offset(0), 100, ALL)
            .expect("read")
            .is_empty()
    );
    log.append(&batch(0, &[5], 10)).expect("append");
    assert!(fixture.path(0).join("00000000000000000000.log").exists());
    let report = log.sync_dirty().expect("sync");
    assert_eq!((report.files, report.directories), (1, 2));
    assert_eq!(log.sync_dirty().expect("sync"), SyncReport::default());
}

#[test]
fn every_offset_is_read_in_whole_batches_below_the_end() {
    let fixture = Fixture::new();
    let mut log = fixture.create(0);
    let batches = with_rolls(run(60, 40), 25);
    log.append_all(&batches).expect("append");
    assert_eq!(log.freeze().segments.len(), 3);
    for reader in [log.reader(), fixture.reopen(&log.freeze()).reader()] {
        let reader = reader.verifying();
        for offset in (0..120).rev() {
            let at = offset as usize / 2;
            let got = reader.read(Offset(offset), 1, ALL).expect("read");
            assert_eq!(got, stored(&batches[at]), "offset {offset}");
            let end = Offset(offset / 2 * 2 + 4);
            let got = reader.read(Offset(offset), 1 << 20, end).expect("read");
            let mut expected = stored(&batches[at]);
            if at + 1 < batches.len() && !batches[at + 1].new_segment {
                expected.extend(stored(&batches[at + 1]));
            }
            assert_eq!(got, expected, "offset {offset}");
            assert!(
                reader
                    .read(Offset(offset), 10, Offset(offset / 2 * 2))
                    .expect("ok")
                    .is_empty()
            );
        }
        assert!(reader.read(Offset(120), 10, ALL).expect("read").is_empty());
    }
}

#[test]
fn a_second_append_of_the_same_changes_nothing_and_an_overlap_is_refused() {
    let fixture = Fixture::new();
    let mut log = fixture.create(0);
    let batches = run(4, 10);
    log.append_all(&batches).expect("append");
    let before = log.freeze();
    log.append_all(&batches).expect("append");
    assert_eq!(log.freeze(), before);
    let error = log.append(&batch(7, &[1, 2], 3)).expect_err("overlap");
    assert!(matches!(error, AppendError::OutOfPlace { .. }), "{error}");
    let mut wrong = batch(8, &[1], 3);
    wrong.head[11] ^= 1;
    assert!(matches!(
        log.append(&wrong),
        Err(AppendError::Malformed { .. })
    ));
    assert_eq!(log.freeze(), before);
}

#[test]
fn what_lies_beyond_the_manifest_is_written_over() {
    let fixture = Fixture::new();
    let mut log = fixture.create(0);
    let batches = with_rolls(run(30, 20), 8);
    log.append_all(&batches[..12]).expect("append");
    let manifest = log.freeze();
    log.append_all(&batches[12..]).expect("append");
    let complete = log.freeze();
    drop(log);
    let mut log = fixture.reopen(&manifest);
    assert_eq!(log.next_offset(), Offset(24));
    assert_eq!(
        log.orphans(&manifest).expect("list").len(),
        2 + 2,
        "two segments, one with indexes"
    );
    log.append_all(&batches).expect("append again");
    assert_eq!(log.freeze(), complete);
    assert!(log.orphans(&manifest).expect("list").is_empty());
    let reader = log.reader().verifying();
    for batch in &batches {
        assert_eq!(
            reader.read(batch.base_offset, 1, ALL).expect("read"),
            stored(batch)
        );
    }
}

#[test]
fn orphans_are_removed_only_when_nothing_names_or_uses_them() {
    let fixture = Fixture::new();
    let mut log = fixture.create(0);
    let batches = with_rolls(run(30, 20), 10);
    log.append_all(&batches[..10]).expect("append");
    let manifest = log.freeze();
    log.append_all(&batches[10..]).expect("append");
    drop(log);
    fs::write(fixture.path(0).join("notes.txt"), "not ours").expect("write");
    assert_eq!(
        fixture.create(0).orphans(&manifest).expect("list").len(),
        4,
        "not what is named"
    );
    let log = fixture.reopen(&manifest);
    let removed = log.remove_orphans(&manifest).expect("remove");
    assert!(
        removed
            .iter()
            .all(|path| !path.to_string_lossy().contains("0000000000.log"))
    );
    assert!(fixture.path(0).join("notes.txt").exists());
    assert!(fixture.path(0).join("00000000000000000000.log").exists());
    assert_eq!(
        log.reader().read(Offset(0), 1, ALL).expect("read"),
        stored(&batches[0])
    );
    assert!(!fixture.path(0).join("00000000000000000020.log").exists());
}

#[test]
fn a_trimmed_segment_stays_until_no_durable_manifest_names_it() {
    let fixture = Fixture::new();
    let mut log = fixture.create(0);
    log.append_all(&with_rolls(run(30, 20), 10))
        .expect("append");
    let before = log.freeze();
    log.set_log_start(Offset(25));
    let after = log.freeze();
    assert_eq!((after.log_start, after.segments.len()), (Offset(25), 2));
    let reader = log.reader();
    let error = reader.read(Offset(24), 1, ALL).expect_err("trimmed");
    assert!(matches!(
        error,
        ReadError::BelowStart {
            log_start: Offset(25)
        }
    ));
    assert!(!reader.read(Offset(25), 1, ALL).expect("read").is_empty());
    // Another replica, whose copy of the segment is bad, needs all of it.
    let whole = reader.with_trimmed();
    let base = after.segments.first().expect("kept").base_offset;
    assert!(base < Offset(25));
    assert!(!whole.read(base, 1, ALL).expect("read").is_empty());
    assert!(whole.read(Offset(base.0 - 1), 1, ALL).is_err());
    assert!(log.take_unlinkable(&before).is_empty());
    let gone = log.take_unlinkable(&after);
    assert_eq!(
        gone.len(),
        4,
        "the log, two indexes, what was fetched to mend it"
    );
    let log_file = gone
        .iter()
        .find(|path| path.ends_with("00000000000000000000.log"));
    assert!(log_file.is_some_and(|path| path.exists()));
    assert!(log.take_unlinkable(&after).is_empty());
    log.set_log_start(Offset(100));
    assert_eq!(log.freeze().next_offset, Offset(100));
    log.append(&batch(100, &[9], 1))
        .expect("append behind the gap");
    assert_eq!(log.freeze().segments.len(), 1);
}

#[test]
fn a_timestamp_is_found_inside_its_batch() {
    let fixture = Fixture::new();
    let mut log = fixture.create(0);
    let batches = with_rolls(run(50, 30), 20);
    log.append_all(&batches).expect("append");
    for reader in [log.reader(), fixture.reopen(&log.freeze()).reader()] {
        for i in 0..100 {
            let at = TimestampMs(1_000 + i * 10);
            let expected = Some((Offset(i as u64), at));
            assert_eq!(reader.find_by_timestamp(at, ALL).expect("find"), expected);
            let before = TimestampMs(at.0 - 9);
            assert_eq!(
                reader.find_by_timestamp(before, ALL).expect("find"),
                expected
            );
            let end = Offset(i as u64);
            assert_eq!(reader.find_by_timestamp(at, end).expect("find"), None);
        }
        assert_eq!(
            reader
                .find_by_timestamp(TimestampMs(1_991), ALL)
                .expect("find"),
            None
        );
    }
}

#[test]
fn timestamps_out_of_order_give_the_first_offset() {
    let fixture = Fixture::new();
    let mut log = fixture.create(0);
    log.append(&batch(0, &[50, 10, 70], 5)).expect("append");
    log.append(&batch(3, &[60, 20], 5)).expect("append");
    log.append(&batch(5, &[90, 80], 5)).expect("append");
    log.set_log_start(Offset(1));
    let reader = log.reader();
    for (at, expected) in [(0, (1, 10)), (20, (2, 70)), (60, (2, 70)), (71, (5, 90))] {
        let found = reader
            .find_by_timestamp(TimestampMs(at), ALL)
            .expect("find");
        assert_eq!(
            found,
            Some((Offset(expected.0), TimestampMs(expected.1))),
            "from {at}"
        );
    }
}

#[test]
fn a_missing_or_damaged_index_is_rebuilt() {
    let fixture = Fixture::new();
    let mut log = fixture.create(0);
    let batches = with_rolls(run(40, 30), 30);
    log.append_all(&batches).expect("append");
    let manifest = log.freeze();
    let index = fixture.path(0).join("00000000000000000000.index");
    let original = fs::read(&index).expect("index");
    let mut flipped = original.clone();
    flipped[50] ^= 4;
    for bad in [
        None,
        Some(&original[..30]),
        Some(&[][..]),
        Some(&flipped[..]),
    ] {
        match bad {
            None => fs::remove_file(&index).expect("remove"),
            Some(content) => fs::write(&index, content).expect("write"),
        }
        let reader = fixture.reopen(&manifest).reader();
        for batch in &batches {
            let got = reader.read(batch.last_offset, 1, ALL).expect("read");
            assert_eq!(got, stored(batch));
        }
        assert_eq!(fs::read(&index).expect("rebuilt"), original);
    }
}

#[test]
fn damage_is_named_and_nothing_is_deleted() {
    let fixture = Fixture::new();
    let mut log = fixture.create(0);
    let batches = with_rolls(run(20, 30), 10);
    log.append_all(&batches).expect("append");
    let manifest = log.freeze();
    let path = fixture.path(0).join("00000000000000000000.log");
    let mut content = fs::read(&path).expect("segment");
    let second = stored(&batches[0]).len();
    content[second + 80] ^= 1;
    fs::write(&path, &content).expect("write");
    let reader = fixture.reopen(&manifest).reader().verifying();
    let error = reader.read(Offset(2), 1, ALL).expect_err("damaged");
    let ReadError::Damaged(Damage {
        position,
        path: named,
        ..
    }) = &error
    else {
        panic!("{error}");
    };
    assert_eq!((*position, named), (second as u64, &path));
    assert!(error.to_string().contains("partition 3-0"), "{error}");
    assert_eq!(
        reader.read(Offset(0), 1, ALL).expect("intact"),
        stored(&batches[0])
    );

    content[second + 16] = 9;
    fs::write(&path, &content).expect("write");
    let error = fixture
        .reopen(&manifest)
        .reader()
        .read(Offset(2), 1, ALL)
        .expect_err("no header");
    assert!(matches!(error, ReadError::Damaged(_)), "{error}");

    fs::write(&path, &content[..content.len() - 1]).expect("cut");
    let log = fixture.reopen(&manifest);
    let error = log.check_files().expect_err("short");
    assert!(error.to_string().contains("the manifest says"), "{error}");
    let error = log.reader().read(Offset(0), 1, ALL).expect_err("short");
    assert!(
        matches!(error, ReadError::File(FileError::Short { .. })),
        "{error}"
    );

    fs::remove_file(&path).expect("remove");
    let error = fixture
        .reopen(&manifest)
        .check_files()
        .expect_err("missing");
    assert!(error.to_string().contains("is missing"), "{error}");
}

#[test]
fn sealed_segments_are_not_read_at_start() {
    let fixture = Fixture::new();
    let mut log = fixture.create(0);
    log.append_all(&with_rolls(run(20, 30), 10))
        .expect("append");
    let manifest = log.freeze();
    drop(log);
    // Were a sealed segment touched, its absence would be noticed.
    fs::remove_file(fixture.path(0).join("00000000000000000000.log")).expect("remove");
    let mut log = fixture.reopen(&manifest);
    log.append(&batch(40, &[1], 5)).expect("append");
    assert!(
        !log.reader()
            .read(Offset(20), 1, ALL)
            .expect("read")
            .is_empty()
    );
}

#[test]
fn a_manifest_that_contradicts_itself_is_refused() {
    let fixture = Fixture::new();
    let mut log = fixture.create(0);
    log.append_all(&with_rolls(run(20, 30), 10))
        .expect("append");
    let good = log.freeze();
    let encoded = good.encode();
    assert_eq!(PartitionManifest::decode(&encoded), Ok(good.clone()));
    let changes: [fn(&mut PartitionManifest); 5] = [
        |m| m.segments.swap(0, 1),
        |m| m.segments[0].sealed = false,
        |m| m.segments[1].len_bytes = 0,
        |m| m.log_start = Offset(41),
        |m| m.next_offset = Offset(39),
    ];
    for change in changes {
        let mut bad = good.clone();
        change(&mut bad);
        assert!(PartitionManifest::decode(&bad.encode()).is_err(), "{bad:?}");
    }
}

#[test]
fn a_timestamp_is_found_in_compressed_batches_and_by_append_time() {
    use highwater_proto::LeaderEpoch;
    use highwater_proto::batch::{BatchBuilder, Compression, RecordBatch};
    let fixture = Fixture::new();
    let mut log = fixture.create(0);
    let stamped = |base: u64, append_time: Option<i64>| {
        let mut builder = BatchBuilder::new(Compression::Zstd);
        for at in [100, 200, 300] {
            builder
                .append(
                    TimestampMs(at),
                    None,
                    Some(b"the same value again and again"),
                    [],
                )
                .expect("append");
        }
        let mut batch = RecordBatch::validate(builder.build(), 1 << 20).expect("valid");
        if let Some(at) = append_time {
            batch = batch.with_log_append_time(TimestampMs(at));
        }
        let stamp = batch.stamp(Offset(base), LeaderEpoch(4));
        AppendBatch {
            head: stamp.head,
            body: stamp.body,
            base_offset: Offset(base),
            last_offset: Offset(base + 2),
            max_timestamp: batch.header().max_timestamp,
            append_time: TimestampMs(append_time.unwrap_or(300)),
            new_segment: false,
        }
    };
    log.append_all(&[stamped(0, None), stamped(3, Some(900))])
        .expect("append");
    let reader = log.reader();
    for (at, expected) in [
        (0, (0, 100)),
        (150, (1, 200)),
        (300, (2, 300)),
        (301, (3, 900)),
    ] {
        let found = reader
            .find_by_timestamp(TimestampMs(at), ALL)
            .expect("find");
        assert_eq!(
            found,
            Some((Offset(expected.0), TimestampMs(expected.1))),
            "from {at}"
        );
    }
}

#[test]
fn a_long_growing_segment_keeps_a_stored_index() {
    let fixture = Fixture::new();
    let mut log = fixture.create(0);
    for i in 0..20 {
        log.append(&batch(i, &[i as i64], 1 << 20)).expect("append");
    }
    let index = fixture.path(0).join("00000000000000000000.index");
    assert!(index.exists(), "stored after 16 MiB");
    let manifest = log.freeze();
    drop(log);
    // The front of the segment is taken from the index: what lies below is not walked.
    let path = fixture.path(0).join("00000000000000000000.log");
    let mut content = fs::read(&path).expect("segment");
    let one = stored(&batch(0, &[0], 1 << 20)).len();
    content[one + 16] = 77;
    fs::write(&path, &content).expect("damage in the second batch");
    let reader = fixture.reopen(&manifest).reader();
    for offset in [0, 5, 19] {
        assert!(
            !reader
                .read(Offset(offset), 1, ALL)
                .expect("read")
                .is_empty()
        );
    }
    assert!(reader.read(Offset(1), 1, ALL).is_err());
}
