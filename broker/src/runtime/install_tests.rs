//! What a pulled piece brings.

use highwater_proto::LeaderEpoch;
use highwater_proto::batch::{BatchBuilder, Compression, RecordBatch};

use super::*;

/// A stored batch of three records.
pub(in crate::runtime) fn batch(base: u64) -> Vec<u8> {
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

/// A piece of a source that is compacted below 10.
fn piece(batches: Vec<u8>, segment: u64, next_offset: u64) -> Piece {
    Piece {
        batches: Bytes::from(batches),
        next_offset: Offset(next_offset),
        compacted: Compacted {
            generation: 7,
            upto: Offset(10),
        },
        segment: (Offset(segment), TimestampMs(500)),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_source_has_compacted_comes_as_a_whole_or_not_at_all() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let config = highwater_segment::SegmentStoreConfig::new(dir.path().join("partitions"));
    let hook = Arc::new(|fault: &highwater_segment::SegmentFault| panic!("{fault}"));
    let disk = highwater_env::OsDisk;
    let store = highwater_segment::SegmentStore::start(&disk, Workers::Threads, config, hook);
    let store = store.expect("started");
    let tp = TopicPartition::new(TopicId(1), PartitionId(0));
    let mut segments = store.shard(ShardId(1));
    segments.create(tp, 0).await.expect("created");
    let range = |from| Range {
        shard: ShardId(1),
        tp,
        from: Offset(from),
        end: Offset(13),
    };
    // The source's checkpoint is older than what it sends: it still knows segments 3 and 6.
    let starts: Starts = [0, 3, 6, 10]
        .map(|base| (Offset(base), TimestampMs(900)))
        .into();
    let mut pulling = Pulling {
        segments: &mut segments,
        starts,
        range: range(3),
        held: Some(Offset(3)),
        compacted: Compacted::default(),
        superseded: false,
    };
    // What is held may contain what a record superseded that is gone there.
    let taken = pulling.take(piece(batch(3), 0, 6)).await.expect("taken");
    assert_eq!((taken, pulling.superseded), (Taken::Enough, true));
    (pulling.held, pulling.range, pulling.superseded) = (None, range(0), false);
    for (sent, after) in [
        (piece(batch(0), 0, 3), 3),
        (piece(batch(6), 0, 9), 9),
        // Nothing is left of it.
        (piece(Vec::new(), 0, 10), 10),
        (piece(batch(10), 0, 13), 13),
    ] {
        let taken = pulling.take(sent).await.expect("taken");
        assert_eq!(taken, Taken::Upto(Offset(after)));
    }
    let manifests = segments.freeze().wait().await.expect("frozen");
    let found: Vec<_> = manifests[0]
        .1
        .segments
        .iter()
        .map(|s| (s.base_offset.0, s.next_offset.0, s.last_append_time.0))
        .collect();
    assert_eq!(found, [(0, 9, 500), (10, 13, 900)]);
    store.close().await.expect("closed");
}
