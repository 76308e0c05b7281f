//! What is copied keeps its segments and the times of its appends.

use highwater_proto::internal::{PullSnapshotResponse, WrittenSegment};
use highwater_proto::{PartitionId, TopicId};

use super::super::install::tests::batch;
use super::*;

fn source(segments: &[(u64, u64, i64)]) -> Source {
    let segment = |(base, next, appended): &(u64, u64, i64)| WrittenSegment {
        base_offset: *base,
        next_offset: *next,
        appended_ms: *appended,
    };
    let leaving = LeavingPartitionResponse {
        segments: segments.iter().map(segment).collect(),
        now_ms: 9_000,
        ..LeavingPartitionResponse::default()
    };
    let tp = TopicPartition::new(TopicId(3), PartitionId(0));
    Source::new(NodeId(1), ShardId(7), tp, leaving)
}

fn piece(batches: Vec<u8>) -> Piece {
    Piece::from(PullSnapshotResponse {
        batches: batches.into(),
        ..PullSnapshotResponse::default()
    })
}

#[test]
fn nothing_counts_as_older_than_it_is() {
    let source = source(&[(0, 6, 700), (6, 12, 800)]);
    let place = |base| source.place((Offset(base), Offset(base)));
    assert_eq!(place(0), (TimestampMs(700), true));
    assert_eq!(place(3), (TimestampMs(700), false));
    assert_eq!(place(6), (TimestampMs(800), true));
    assert_eq!(place(9), (TimestampMs(800), false));
    // Not in a file yet when it was looked at.
    assert_eq!(place(12), (TimestampMs(9_000), false));
}

#[test]
fn batches_come_as_they_are_stored_without_those_that_are_not_asked_for() {
    let source = source(&[(0, 9, 700)]);
    let all = piece([batch(0), batch(3), batch(6)].concat());
    let (imported, end) = source.imported(&all, Offset(4)).expect("whole");
    assert_eq!((imported.len(), end), (2, Offset(9)));
    assert_eq!(
        imported[0].batch,
        batch(3),
        "the one that it lies in is whole"
    );
    assert_eq!(imported[1].batch, batch(6));
    let cut = piece(batch(0)[..50].to_vec());
    assert!(source.imported(&cut, Offset(0)).is_err());
}

#[test]
fn a_copy_has_no_gap() {
    let source = source(&[(0, 9, 700)]);
    let lacks = |batches: Vec<Vec<u8>>, next_offset: u64| {
        let piece = Piece::from(PullSnapshotResponse {
            batches: batches.concat().into(),
            next_offset,
            ..PullSnapshotResponse::default()
        });
        let refused = source.imported(&piece, Offset(3)).map(|(_, end)| end);
        refused.map_err(|error| error.to_string())
    };
    assert_eq!(lacks(vec![batch(3), batch(6)], 9), Ok(Offset(9)));
    let said = |from: u64, to: u64| Err(format!("3-0 has nothing from {from} to {to}"));
    assert_eq!(lacks(vec![batch(6)], 9), said(3, 6), "before its beginning");
    assert_eq!(lacks(vec![batch(0), batch(6)], 9), said(3, 6));
    assert_eq!(lacks(vec![batch(3), batch(9)], 12), said(6, 9));
    assert_eq!(lacks(vec![batch(3)], 9), said(6, 9), "at its end");
    assert_eq!(lacks(vec![], 9), said(3, 9), "all of it");
}

/// Compacted up to 9 by compaction 41.
fn compacted_source() -> Source {
    let mut source = source(&[(0, 9, 700), (9, 15, 800)]);
    source.leaving.generation = 41;
    source.leaving.compacted_upto = 9;
    source
}

fn compacted_piece(batches: &[Vec<u8>], next_offset: u64, generation: u64) -> Piece {
    Piece::from(PullSnapshotResponse {
        batches: batches.concat().into(),
        next_offset,
        generation,
        compacted_upto: 9,
        ..PullSnapshotResponse::default()
    })
}

#[test]
fn a_copy_of_what_is_compacted_has_gaps_where_that_is_so() {
    let source = compacted_source();
    let take = |batches: &[Vec<u8>], from: u64, next: u64| {
        let piece = compacted_piece(batches, next, 41);
        let taken = source.imported(&piece, Offset(from));
        let begins = |batch: &ImportedBatch| batch.begins_segment;
        taken
            .map(|(batches, end)| (batches.iter().map(begins).collect::<Vec<_>>(), end.0))
            .map_err(|error| error.to_string())
    };
    assert_eq!(take(&[batch(3)], 0, 9), Ok((vec![true], 9)), "at both ends");
    assert_eq!(take(&[], 0, 9), Ok((vec![], 9)), "nothing is left");
    assert_eq!(
        take(&[batch(0), batch(6)], 0, 9),
        Ok((vec![true, false], 9))
    );
    assert_eq!(
        take(&[batch(9), batch(12)], 9, 15),
        Ok((vec![true, false], 15))
    );
    // The segments that are known may be older than what was sent, or newer: one begins where compaction ends,
    // which is where a piece ends.
    let mut stale = compacted_source();
    stale.leaving.segments.truncate(1);
    let place = |base, before| stale.place((Offset(base), Offset(before)));
    assert_eq!(place(9, 9), (TimestampMs(9_000), true));
    assert_eq!(place(12, 12), (TimestampMs(9_000), false));
    let lost = Err("3-0 has nothing from 9 to 12".to_owned());
    assert_eq!(
        take(&[batch(12)], 9, 15),
        lost,
        "what is not compacted has none"
    );
    let lost = Err("3-0 has nothing from 6 to 12".to_owned());
    assert_eq!(
        take(&[batch(3), batch(12)], 3, 15),
        lost,
        "and they end with it"
    );
}

#[test]
fn a_copy_is_made_of_one_state() {
    let source = compacted_source();
    for generation in [0, 40, 42] {
        let piece = compacted_piece(&[batch(3)], 9, generation);
        let why = source.imported(&piece, Offset(0)).map(|(_, end)| end);
        let why = why.expect_err("another state").to_string();
        assert!(why.contains("broker 1 has 3-0 compacted up to 9"), "{why}");
    }
    // Behind its end it does not matter who has done it, unless somebody has done more.
    let behind = |compacted_upto| {
        let piece = Piece::from(PullSnapshotResponse {
            batches: [batch(9), batch(12)].concat().into(),
            next_offset: 15,
            generation: 40,
            compacted_upto,
            ..PullSnapshotResponse::default()
        });
        source.imported(&piece, Offset(9)).map(|(_, end)| end).ok()
    };
    assert_eq!(behind(6), Some(Offset(15)));
    assert_eq!(behind(0), Some(Offset(15)));
    assert_eq!(behind(12), None);
}

#[test]
fn entries_are_bounded_and_lose_nothing() {
    let of = |len: usize| ImportedBatch {
        append_time: TimestampMs(0),
        begins_segment: false,
        batch: vec![0; len].into(),
    };
    let lens = |entries: Vec<Vec<ImportedBatch>>| -> Vec<Vec<usize>> {
        let lens = |entry: &Vec<ImportedBatch>| entry.iter().map(|b| b.batch.len()).collect();
        entries.iter().map(lens).collect()
    };
    let half = ENTRY_BYTES / 2;
    let cut = entries(vec![of(half), of(half), of(1), of(3 * ENTRY_BYTES), of(2)]);
    assert_eq!(
        lens(cut),
        [vec![half, half], vec![1], vec![3 * ENTRY_BYTES], vec![2]]
    );
    assert!(entries(Vec::new()).is_empty());
}
