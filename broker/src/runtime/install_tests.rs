//! What a pulled piece brings.

use highwater_proto::LeaderEpoch;
use highwater_proto::batch::{BatchBuilder, Compression, RecordBatch};

use super::*;

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
    let stored = batch.stamp(Offset(base), LeaderEpoch(1));
    [&stored.head[..], &stored.body[..]].concat()
}

#[test]
fn the_batch_that_the_start_lies_in_is_kept() {
    let piece = Bytes::from([batch(0), batch(3), batch(6)].concat());
    let starts = BTreeMap::from([(Offset(6), TimestampMs(900))]);
    for (from, bases) in [(3, vec![3, 6]), (4, vec![3, 6]), (6, vec![6])] {
        let (batches, after) =
            stored_batches(piece.clone(), Offset(from), &starts).expect("whole batches");
        let found: Vec<u64> = batches.iter().map(|batch| batch.base_offset.0).collect();
        assert_eq!((found, after), (bases, Offset(9)), "from {from}");
        let rolled: Vec<bool> = batches.iter().map(|batch| batch.new_segment).collect();
        assert_eq!(rolled.last(), Some(&true));
        assert_eq!(rolled.iter().filter(|rolls| **rolls).count(), 1);
        // Its producer said 1; it was appended with the others of its segment.
        let appended = batches.last().map(|batch| batch.append_time);
        assert_eq!(appended, Some(TimestampMs(900)));
    }
}

#[test]
fn only_a_log_with_a_hole_begins_anew() {
    let pulled = |base: u64| {
        let piece = Bytes::from(batch(base));
        stored_batches(piece, Offset(base), &BTreeMap::new())
            .expect("a whole batch")
            .0
    };
    let start = |held: Option<u64>, next, base| {
        start_over(held.map(Offset), Offset(next), &pulled(base)).map(|start| start.0)
    };
    assert_eq!(start(Some(3), 7, 6), Some(6), "their start lies in a batch");
    assert_eq!(start(Some(3), 6, 6), Some(6));
    assert_eq!(start(Some(6), 6, 6), None, "it continues what is held");
    assert_eq!(start(None, 6, 6), None, "nothing is held");
    assert_eq!(start(Some(3), 6, 9), None, "a later piece");
}
