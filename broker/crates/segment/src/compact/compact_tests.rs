//! Compaction against a model: what is left, and that it is the same bytes whatever the way there.

use std::collections::BTreeMap;

use highwater_env::OsDisk;
use highwater_proto::batch::{Compression, split_batches};
use proptest::prelude::*;

use super::*;
use crate::test_support::{Fixture, Keyed, keyed};
use crate::{AppendBatch, PartitionLog, PartitionManifest};

const ALL: Offset = Offset(u64::MAX);
const PLENTY: usize = 1 << 20;

/// Offset, key, value.
pub(super) type Seen = (u64, Option<String>, Option<String>);

pub(super) fn task(generation: u64, upto: u64) -> CompactionTask {
    CompactionTask {
        generation,
        upto: Offset(upto),
        floor: Offset(0),
        tombstones_below: Offset(0),
        segment_bytes: 1_000,
    }
}

fn options(key_bytes: usize) -> CompactionOptions {
    CompactionOptions {
        key_bytes,
        secret: [5; 16],
    }
}

fn begin(
    log: &PartitionLog<OsDisk>,
    task: CompactionTask,
    key_bytes: usize,
) -> Box<Compaction<OsDisk>> {
    match log.reader().compact(task, &options(key_bytes)) {
        Begun::Ready(compaction) => compaction,
        Begun::Done => panic!("done"),
        Begun::NotYet => panic!("not yet"),
        Begun::Unaligned => panic!("unaligned"),
    }
}

fn complete(compaction: &mut Compaction<OsDisk>) -> Result<(), CompactError> {
    while compaction.step(100)? != CompactionProgress::Complete {}
    Ok(())
}

pub(super) fn compact(
    log: &mut PartitionLog<OsDisk>,
    task: CompactionTask,
    key_bytes: usize,
) -> CompactionStats {
    let mut compaction = begin(log, task, key_bytes);
    complete(&mut compaction).expect("compacted");
    let stats = compaction.stats();
    let new = compaction.finish().expect("complete");
    assert_eq!(log.replace(&new), Replaced::Done);
    stats
}

/// All records of a log, by a reader that goes on behind each batch.
pub(super) fn seen(log: &PartitionLog<OsDisk>) -> Vec<Seen> {
    let (reader, mut at) = (log.reader().verifying(), log.reader().log_start());
    let mut found = Vec::new();
    loop {
        let read = reader.read(at, 300, ALL).expect("readable");
        if read.is_empty() {
            return found;
        }
        for batch in split_batches(read) {
            let batch = batch.expect("whole");
            at = batch.header().next_offset();
            for record in batch.records(&DecodeLimits::default()).expect("decodes") {
                let record = record.expect("whole");
                let text = |bytes: Option<bytes::Bytes>| {
                    bytes.map(|bytes| String::from_utf8(bytes.to_vec()).expect("text"))
                };
                found.push((record.offset.0, text(record.key), text(record.value)));
            }
        }
    }
}

/// What must be left of these.
fn model(all: &[Seen], task: &CompactionTask) -> Vec<Seen> {
    let mut latest: BTreeMap<&str, u64> = BTreeMap::new();
    for (offset, key, _) in all {
        if let Some(key) = key
            && (task.floor.0..task.upto.0).contains(offset)
        {
            latest.insert(key, *offset);
        }
    }
    let is_left = |(offset, key, value): &&Seen| {
        if *offset >= task.upto.0 {
            return true;
        }
        let is_latest = key
            .as_ref()
            .is_none_or(|key| latest.get(key.as_str()) == Some(offset));
        let is_gone = key.is_some() && value.is_none() && *offset < task.tombstones_below.0;
        *offset >= task.floor.0 && is_latest && !is_gone
    };
    all.iter().filter(is_left).cloned().collect()
}

/// Batches of these records, `per_segment` batches in each segment; the offset behind each segment.
pub(super) fn filled(
    log: &mut PartitionLog<OsDisk>,
    batches: &[(Compression, Vec<Seen>)],
    per_segment: usize,
) -> Vec<u64> {
    let mut ends = Vec::new();
    for (at, batch) in to_append(batches, per_segment).into_iter().enumerate() {
        if at > 0 && batch.new_segment {
            ends.push(batch.base_offset.0);
        }
        log.append(&batch).expect("appended");
    }
    ends
}

fn to_append(batches: &[(Compression, Vec<Seen>)], per_segment: usize) -> Vec<AppendBatch> {
    let batches = batches.iter().enumerate();
    let made = batches.map(|(at, (compression, records))| {
        let fields: Vec<Keyed<'_>> = records
            .iter()
            .map(|(_, key, value)| (key.as_deref(), value.as_deref()))
            .collect();
        let mut batch = keyed(records[0].0, 1_000 + at as i64, *compression, &fields);
        batch.new_segment = at % per_segment == 0;
        batch
    });
    made.collect()
}

fn all_of(batches: &[(Compression, Vec<Seen>)]) -> Vec<Seen> {
    batches
        .iter()
        .flat_map(|(_, records)| records.clone())
        .collect()
}

/// What two replicas must have alike.
pub(super) fn ranges(manifest: &PartitionManifest) -> Vec<(u64, u64, u64, u32, i64)> {
    let range = |s: &crate::SegmentManifest| {
        let (base, end) = (s.base_offset.0, s.next_offset.0);
        (base, end, s.len_bytes, s.checksum, s.max_timestamp.0)
    };
    manifest.segments.iter().map(range).collect()
}

fn life() -> impl Strategy<Value = Vec<(Compression, Vec<Seen>)>> {
    let kinds = prop_oneof![
        3 => Just(Compression::None),
        1 => Just(Compression::Lz4),
        1 => Just(Compression::Zstd),
        1 => Just(Compression::Gzip),
        1 => Just(Compression::Snappy),
    ];
    let key = prop_oneof![20 => (0..12_u8).prop_map(Some), 1 => Just(None)];
    let value = prop_oneof![4 => (0..90_usize).prop_map(Some), 1 => Just(None)];
    let batch = (kinds, prop::collection::vec((key, value), 1..6));
    prop::collection::vec(batch, 8..40).prop_map(|batches| {
        let mut offset = 0;
        let mut numbered = |(key, value): (Option<u8>, Option<usize>)| {
            offset += 1;
            let key = key.map(|key| format!("key {key}"));
            let value = value.map(|len| format!("{offset} ").repeat(len / 4 + 1));
            (offset - 1, key, value)
        };
        let numbered = |(kind, records): (Compression, Vec<_>)| {
            (kind, records.into_iter().map(&mut numbered).collect())
        };
        batches.into_iter().map(numbered).collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]
    #[test]
    fn the_latest_of_each_key_is_left_and_every_way_there_ends_alike(
        batches in life(),
        per_segment in 1..5_usize,
        floor_part in 0..4_u64,
        tombstones_part in 0..3_u64,
        slots in 4..40_usize,
        steps in prop::collection::vec(any::<u8>(), 0..3),
    ) {
        let all = all_of(&batches);
        let at_once = Fixture::new();
        let mut direct = at_once.create(0);
        let ends = filled(&mut direct, &batches, per_segment);
        let Some(upto) = ends.last().copied() else { return Ok(()) };
        // Decisions whose bounds only ever rise, as apply makes them.
        let last = CompactionTask {
            floor: Offset(upto * floor_part / 10),
            tombstones_below: Offset(upto * tombstones_part / 3),
            ..task(100, upto)
        };
        compact(&mut direct, last, PLENTY);
        let left = seen(&direct);
        prop_assert_eq!(&left, &model(&all, &last));

        let in_steps = Fixture::new();
        let mut slow = in_steps.create(0);
        filled(&mut slow, &batches, per_segment);
        let mut places: Vec<usize> = steps.iter().map(|s| usize::from(*s) % ends.len()).collect();
        places.sort_unstable();
        places.dedup();
        for (generation, place) in places.iter().enumerate() {
            let upto = ends[*place];
            let earlier = CompactionTask {
                floor: Offset(last.floor.0 / 2).min(Offset(upto)),
                tombstones_below: Offset(last.tombstones_below.0 / 2).min(Offset(upto)),
                ..task(generation as u64 + 1, upto)
            };
            let before = seen(&slow);
            compact(&mut slow, earlier, slots * keys::SLOT_BYTES);
            prop_assert_eq!(seen(&slow), model(&before, &earlier));
        }
        let stats = compact(&mut slow, last, slots * keys::SLOT_BYTES);
        prop_assert_eq!(seen(&slow), left);
        prop_assert_eq!(ranges(&slow.freeze()), ranges(&direct.freeze()));
        prop_assert!(stats.rounds >= 1);
        // What is left behind the process's back: nothing but the log's own files, before and now.
        prop_assert_eq!(slow.orphans(&slow.freeze()).expect("listed"), Vec::<PathBuf>::new());
        slow.take_unlinkable(&slow.freeze()).iter().for_each(|path| drop(std::fs::remove_file(path)));
        let reopened = in_steps.reopen(&slow.freeze());
        reopened.check_files().expect("all there");
        prop_assert_eq!(seen(&reopened), seen(&direct));
        prop_assert_eq!(reopened.reader().compacted().upto, last.upto);
    }
}

fn simple(count: u64) -> Vec<(Compression, Vec<Seen>)> {
    let record = |n: u64| {
        (
            n,
            Some(format!("key {}", n % 3)),
            Some(format!("value {n}")),
        )
    };
    (0..count)
        .map(|n| (Compression::None, vec![record(n)]))
        .collect()
}

#[test]
fn what_was_done_is_not_done_again_and_what_is_not_written_waits() {
    let fixture = Fixture::new();
    let mut log = fixture.create(0);
    let ends = filled(&mut log, &simple(20), 4);
    assert_eq!(ends, [4, 8, 12, 16]);
    let reader = log.reader();
    let begun = |task| match reader.compact(task, &options(PLENTY)) {
        Begun::Done => "done",
        Begun::NotYet => "not yet",
        Begun::Unaligned => "unaligned",
        Begun::Ready(compaction) => {
            compaction.discard();
            "ready"
        }
    };
    assert_eq!(begun(task(1, 20)), "not yet", "it may still grow");
    assert_eq!(begun(task(1, 40)), "not yet");
    assert_eq!(begun(task(1, 10)), "unaligned");
    assert_eq!(begun(task(1, 16)), "ready");
    let pin = reader.pin();
    assert_eq!(begun(task(1, 16)), "not yet", "somebody copies it");
    drop(pin);
    compact(&mut log, task(5, 16), PLENTY);
    assert_eq!(begun(task(5, 16)), "done");
    assert_eq!(begun(task(4, 16)), "done");
    assert_eq!(begun(task(6, 16)), "ready");
    assert!(log.orphans(&log.freeze()).expect("listed").is_empty());
}

#[test]
fn a_log_that_was_trimmed_pinned_or_begun_anew_meanwhile() {
    let fixture = Fixture::new();
    let mut log = fixture.create(0);
    filled(&mut log, &simple(20), 4);
    let mut compaction = begin(&log, task(1, 16), PLENTY);
    complete(&mut compaction).expect("compacted");
    let new = compaction.finish().expect("complete");
    let pin = log.reader().pin();
    assert_eq!(log.replace(&new), Replaced::Pinned);
    drop(pin);
    // Trimmed: what is above the start takes the place of what is.
    log.set_log_start(Offset(14));
    assert_eq!(log.replace(&new), Replaced::Done);
    let offsets: Vec<u64> = seen(&log).iter().map(|(offset, ..)| *offset).collect();
    assert_eq!(offsets, [14, 15, 16, 17, 18, 19]);
    assert_eq!(log.replace(&new), Replaced::Stale, "it is there already");

    let mut compaction = begin(&log, task(2, 16), PLENTY);
    complete(&mut compaction).expect("compacted");
    let new = compaction.finish().expect("complete");
    let before = log.freeze();
    // What another replica has takes its place; nothing that the manifest names is written over.
    let mut aside = log.aside();
    for mut batch in to_append(&simple(20), 4).into_iter().skip(14) {
        batch.new_segment |= batch.base_offset == Offset(14);
        aside.append(&batch).expect("appended");
    }
    let compacted = Compacted {
        generation: 2,
        upto: Offset(16),
    };
    aside.set_compacted(compacted, Offset(25));
    log.take_over(aside);
    assert_eq!(log.replace(&new), Replaced::Stale);
    new.discard();
    assert_eq!(
        (log.next_offset(), log.reader().compacted()),
        (Offset(25), compacted)
    );
    fixture.reopen(&before).check_files().expect("all there");
    let is_named = |path: &PathBuf| {
        let file = crate::layout::parse_segment_file(path);
        file.is_some_and(|(base, version)| before.names(base, version))
    };
    let files = log.take_unlinkable(&before);
    assert!(
        !files.is_empty() && !files.iter().any(is_named),
        "{files:?}"
    );
    for path in files {
        // Some never were.
        let _ = std::fs::remove_file(path);
    }
    assert!(log.orphans(&log.freeze()).expect("listed").is_empty());
}

#[test]
fn what_cannot_be_decoded_or_has_no_key_stays_as_it_is() {
    let fixture = Fixture::new();
    let mut log = fixture.create(0);
    let mut odd = keyed(0, 1, Compression::Lz4, &[(Some("a"), Some("1"))]);
    // Its compressed bytes are nonsense, its checksum is right.
    let mut whole = [&odd.head[..], &odd.body].concat();
    let len = whole.len();
    whole[len - 6..].fill(0xee);
    let crc = crc32c::crc32c(&whole[21..]);
    whole[17..21].copy_from_slice(&crc.to_be_bytes());
    odd.body = bytes::Bytes::from(whole).slice(16..);
    log.append(&odd).expect("appended");
    let records = [(None, Some("x")), (Some("a"), Some("2")), (None, Some("x"))];
    log.append(&keyed(1, 2, Compression::None, &records))
        .expect("appended");
    let mut next = keyed(4, 3, Compression::None, &[(Some("a"), Some("3"))]);
    next.new_segment = true;
    log.append(&next).expect("appended");
    let before = log
        .reader()
        .read(Offset(0), 10_000, Offset(4))
        .expect("read");
    compact(&mut log, task(1, 4), PLENTY);
    let after = log
        .reader()
        .read(Offset(0), 10_000, Offset(4))
        .expect("read");
    assert_eq!(after, before, "all of it");
    // Offsets that nothing is left of are stepped over.
    let fixture = Fixture::new();
    let mut log = fixture.create(0);
    filled(&mut log, &simple(20), 4);
    let gone = CompactionTask {
        floor: Offset(16),
        ..task(1, 16)
    };
    compact(&mut log, gone, PLENTY);
    let read = log.reader().read(Offset(2), 1, ALL).expect("read");
    let first = highwater_proto::batch::BatchHeader::parse(&read).expect("a batch");
    assert_eq!(first.base_offset, Offset(16));
    let nothing = log.reader().read(Offset(2), 1, Offset(16)).expect("read");
    assert!(nothing.is_empty());
}

#[test]
fn rot_is_found_and_never_copied() {
    let fixture = Fixture::new();
    let mut log = fixture.create(0);
    filled(&mut log, &simple(20), 4);
    let path = fixture.path(0).join(format!("{:020}.log", 4));
    let good = std::fs::read(&path).expect("read");
    for at in 0..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 0x04;
        std::fs::write(&path, &bad).expect("written");
        let mut compaction = begin(&log, task(1, 16), PLENTY);
        let error = complete(&mut compaction).expect_err("found");
        let CompactError::Read(error) = error else {
            panic!("byte {at}: {error}");
        };
        let place = error.bad_segment().expect("a place");
        assert_eq!(place.1, Offset(4), "byte {at}");
        compaction.discard();
    }
    std::fs::write(&path, &good).expect("written");
    assert!(log.orphans(&log.freeze()).expect("listed").is_empty());
    compact(&mut log, task(1, 16), PLENTY);
}

#[test]
fn readers_in_the_middle_of_what_is_replaced_read_on() {
    let fixture = Fixture::new();
    let mut log = fixture.create(0);
    filled(&mut log, &simple(2_000), 50);
    let reader = log.reader().verifying();
    #[allow(clippy::disallowed_methods)] // a reader beside the log, as the test is about
    let read = std::thread::spawn(move || {
        for _ in 0..30 {
            let mut at = Offset(0);
            let mut last: BTreeMap<String, u64> = BTreeMap::new();
            while at < Offset(2_000) {
                let read = reader.read(at, 500, ALL).expect("readable");
                for batch in split_batches(read) {
                    let batch = batch.expect("whole");
                    at = batch.header().next_offset();
                    for record in batch.records(&DecodeLimits::default()).expect("decodes") {
                        let record = record.expect("whole");
                        let key = String::from_utf8_lossy(&record.key.expect("a key")).into_owned();
                        last.insert(key, record.offset.0);
                    }
                }
            }
            let latest: Vec<u64> = last.into_values().collect();
            assert_eq!(latest, [1_998, 1_999, 1_997]);
        }
    });
    for generation in 1..40 {
        compact(&mut log, task(generation, generation * 50), PLENTY);
        let durable = log.freeze();
        for path in log.take_unlinkable(&durable) {
            // Some never were.
            let _ = std::fs::remove_file(path);
        }
    }
    read.join().expect("no panic");
}

#[cfg(feature = "mutant")]
#[test]
fn the_mutant_breaks_its_rule() {
    highwater_mutant::fails(
        highwater_mutant::Mutant::CompactsTheLatest,
        "compact::tests::the_latest_of_each_key_is_left_and_every_way_there_ends_alike",
    );
    highwater_mutant::fails(
        highwater_mutant::Mutant::UnverifiedReads,
        "check::tests::every_flipped_bit_is_found_wherever_it_lies",
    );
}
