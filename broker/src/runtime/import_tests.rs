//! What is copied keeps its segments and the times of its appends.

use highwater_proto::batch::{BatchBuilder, Compression, RecordBatch};
use highwater_proto::internal::WrittenSegment;
use highwater_proto::{LeaderEpoch, PartitionId, TopicId};

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

/// A stored batch of three records.
fn batch(base: u64) -> Vec<u8> {
    let mut builder = BatchBuilder::new(Compression::None);
    for _ in 0..3 {
        let headers = std::iter::empty::<(&[u8], Option<&[u8]>)>();
        builder
            .append(TimestampMs(1), None, Some(b"value"), headers)
            .expect("appended");
    }
    let batch = RecordBatch::validate(builder.build(), usize::MAX).expect("valid");
    let stored = batch.stamp(Offset(base), LeaderEpoch(4));
    [&stored.head[..], &stored.body[..]].concat()
}

#[test]
fn nothing_counts_as_older_than_it_is() {
    let source = source(&[(0, 6, 700), (6, 12, 800)]);
    let place = |base| source.place(Offset(base));
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
    let piece = Bytes::from([batch(0), batch(3), batch(6)].concat());
    let (imported, end) = source.imported(piece, Offset(4)).expect("whole");
    assert_eq!((imported.len(), end), (2, Offset(9)));
    assert_eq!(
        imported[0].batch,
        batch(3),
        "the one that it lies in is whole"
    );
    assert_eq!(imported[1].batch, batch(6));
    let cut = Bytes::from(batch(0)[..50].to_vec());
    assert!(source.imported(cut, Offset(0)).is_err());
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
