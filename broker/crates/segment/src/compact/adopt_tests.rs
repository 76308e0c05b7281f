//! What another replica has compacted is taken over byte by byte, or not at all.

use highwater_env::OsDisk;
use highwater_proto::batch::{Compression, split_batches};

use super::*;
use crate::compact::tests::{Seen, compact, filled, ranges, seen, task};
use crate::test_support::Fixture;
use crate::{PartitionLog, Replaced};

const PLENTY: usize = 1 << 20;

/// Five batches to a segment, each with a value for four of ten keys.
fn batches() -> Vec<(Compression, Vec<Seen>)> {
    let batch = |at: u64| {
        let record = |number: u64| {
            let offset = at * 4 + number;
            let value = format!("{offset} ").repeat(9);
            (
                offset,
                Some(format!("key {}", offset * 7 % 10)),
                Some(value),
            )
        };
        (Compression::None, (0..4).map(record).collect())
    };
    (0..40).map(batch).collect()
}

/// Sends what `from` has compacted, in pieces of one segment each.
fn send(from: &PartitionLog<OsDisk>, to: &mut Adoption<OsDisk>) -> Result<(), AdoptError> {
    let reader = from.reader();
    let pin = reader.pin();
    let end = pin.compacted().upto;
    let mut next = to.from();
    while next < end {
        let piece = pin.read(next, 300, end).expect("read");
        let Some(segment) = piece.segment else { break };
        let last = split_batches(piece.batches.clone()).last();
        next = last
            .expect("a batch")
            .expect("whole")
            .header()
            .next_offset();
        to.push(
            (segment.base_offset, segment.last_append_time),
            piece.batches,
        )?;
    }
    Ok(())
}

fn two(compacted: u64) -> ([Fixture; 2], [PartitionLog<OsDisk>; 2]) {
    let fixtures = [Fixture::new(), Fixture::new()];
    let mut logs = [fixtures[0].create(0), fixtures[1].create(0)];
    let ends = logs.each_mut().map(|log| filled(log, &batches(), 5));
    compact(&mut logs[0], task(8, ends[0][1]), PLENTY);
    compact(&mut logs[1], task(8, ends[0][1]), PLENTY);
    compact(&mut logs[0], task(compacted, ends[0][5]), PLENTY);
    (fixtures, logs)
}

#[test]
fn what_another_replica_compacted_takes_the_place_of_what_is_bad_here() {
    let (fixtures, [whole, mut bad]) = two(9);
    let reader = bad.reader();
    // In the middle of what was not compacted here: it exists nowhere else any more.
    let segment = reader.segments()[4].base_offset;
    let path = reader.segment(segment).expect("there").0.name.log_path();
    std::fs::write(&path, b"rot").expect("written");
    let mut adoption = reader.adopt(whole.reader().compacted()).expect("begun");
    send(&whole, &mut adoption).expect("taken");
    let adopted = adoption.finish().expect("written");
    let upto = whole.reader().compacted().upto;
    let all = whole.reader().segments().into_iter();
    let theirs: Vec<_> = all.filter(|s| s.next_offset <= upto).collect();
    let sums = |segments: &[SegmentManifest]| -> Vec<_> {
        let sum = |s: &SegmentManifest| (s.base_offset, s.next_offset, s.len_bytes, s.checksum);
        segments.iter().map(sum).collect()
    };
    assert_eq!(sums(&adopted.segments), sums(&theirs));
    assert_eq!(bad.replace(&adopted.replacement), Replaced::Done);
    assert_eq!(seen(&bad), seen(&whole));
    assert_eq!(ranges(&bad.freeze()), ranges(&whole.freeze()));
    assert_eq!(reader.compacted(), whole.reader().compacted());
    // As after a compaction of its own, what was replaced goes, and a restart finds the rest.
    let manifest = bad.freeze();
    let old = bad.take_unlinkable(&manifest);
    assert!(old.contains(&path));
    // Not every segment has every index.
    old.iter().for_each(|path| drop(std::fs::remove_file(path)));
    let reopened = fixtures[1].reopen(&manifest);
    reopened.check_files().expect("all there");
    assert_eq!(seen(&reopened), seen(&whole));
}

#[test]
fn what_is_bad_or_out_of_its_order_is_not_taken_and_leaves_nothing() {
    let (_fixtures, [whole, bad]) = two(9);
    let reader = bad.reader();
    let before = seen(&bad);
    let at = (Offset(0), TimestampMs(1));
    let there = whole.reader();
    let segment = there.segments()[0];
    let right = there.read(segment.base_offset, 1, segment.next_offset);
    let right = right.expect("read");
    let mut wrong = right.to_vec();
    wrong[80] ^= 4;
    let beyond = there.read(there.compacted().upto, 1, there.next_offset());
    let offered = [
        vec![Bytes::from(wrong)],
        vec![right.clone(), right],
        vec![beyond.expect("read")],
    ];
    for pieces in offered {
        let mut adoption = reader.adopt(there.compacted()).expect("begun");
        let mut outcome = Ok(());
        for piece in pieces {
            outcome = outcome.and_then(|()| adoption.push(at, piece));
        }
        assert!(matches!(outcome, Err(AdoptError::Malformed(_))));
        adoption.discard();
    }
    assert_eq!(seen(&bad), before);
    assert!(bad.orphans(&bad.freeze()).expect("listed").is_empty());
}

#[test]
fn nothing_older_and_nothing_that_is_not_here_is_taken() {
    let (_fixtures, [whole, bad]) = two(9);
    let (reader, compacted) = (bad.reader(), whole.reader().compacted());
    let refused = |compacted| matches!(reader.adopt(compacted), Err(AdoptError::NotYet(_)));
    assert!(refused(Compacted {
        generation: 8,
        ..compacted
    }));
    assert!(refused(Compacted {
        upto: reader.next_offset().plus(1),
        ..compacted
    }));
    assert!(refused(Compacted {
        upto: compacted.upto.plus(1),
        ..compacted
    }));
    assert!(!refused(compacted));
}
