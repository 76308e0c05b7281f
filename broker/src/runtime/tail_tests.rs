//! Reading the tail: whole batches, from the one that contains the position, below the watermark.

use bytes::Buf;
use highwater_proto::LeaderEpoch;
use highwater_proto::batch::{BatchBuilder, Compression};

use super::*;

/// A batch of `count` records at `base`, stamped.
fn batch(base: u64, count: u64) -> AppendBatch {
    let mut builder = BatchBuilder::new(Compression::None);
    for n in 0..count {
        let value = (base + n).to_be_bytes();
        let time = TimestampMs(1000 + (base + n) as i64);
        builder
            .append(time, None, Some(&value), [])
            .expect("appended");
    }
    let made = RecordBatch::validate(builder.build(), 1 << 20).expect("valid");
    let stamped = made.stamp(Offset(base), LeaderEpoch(0));
    AppendBatch {
        head: stamped.head,
        body: stamped.body,
        base_offset: Offset(base),
        last_offset: Offset(base + count - 1),
        max_timestamp: made.header().max_timestamp,
        append_time: TimestampMs(1),
        new_segment: false,
    }
}

fn tail() -> PartitionTail {
    PartitionTail {
        batches: [batch(10, 5), batch(15, 1), batch(16, 4)].into(),
    }
}

fn bases(pieces: &Pieces) -> Vec<u64> {
    pieces
        .pieces
        .iter()
        .step_by(2)
        .map(|head| head.clone().get_u64())
        .collect()
}

#[test]
fn a_position_inside_a_batch_begins_with_that_batch() {
    let pieces = tail()
        .read(Offset(12), 1 << 20, Offset(20))
        .expect("in the tail");
    assert_eq!(bases(&pieces), [10, 15, 16]);
    assert_eq!(pieces.next_offset, Some(Offset(20)));
    assert_eq!(
        pieces.bytes,
        pieces.pieces.iter().map(Bytes::len).sum::<usize>()
    );
}

#[test]
fn nothing_at_or_above_the_end_is_read() {
    let pieces = tail()
        .read(Offset(10), 1 << 20, Offset(18))
        .expect("in the tail");
    assert_eq!(bases(&pieces), [10, 15]);
    assert_eq!(pieces.next_offset, Some(Offset(16)));
}

#[test]
fn a_limit_still_gives_one_batch() {
    let pieces = tail().read(Offset(10), 1, Offset(20)).expect("in the tail");
    assert_eq!(bases(&pieces), [10]);
}

#[test]
fn what_lies_before_the_tail_is_left_to_the_files() {
    assert!(tail().read(Offset(9), 1 << 20, Offset(20)).is_none());
    assert!(
        PartitionTail::default()
            .read(Offset(0), 1 << 20, Offset(20))
            .is_none()
    );
}

#[test]
fn pieces_from_a_file_know_where_they_end() {
    let stored: Vec<u8> = [batch(10, 5), batch(15, 1)]
        .iter()
        .flat_map(|batch| [&batch.head[..], &batch.body[..]].concat())
        .collect();
    let pieces = Pieces::from_stored(stored.into());
    assert_eq!(pieces.next_offset, Some(Offset(16)));
    assert_eq!(Pieces::from_stored(Bytes::new()).next_offset, None);
}

#[test]
fn the_first_record_at_a_time_is_found_inside_its_batch() {
    let found = tail().find_by_timestamp(TimestampMs(1012), Offset(20));
    assert_eq!(found, Some((Offset(12), TimestampMs(1012))));
    assert_eq!(
        tail().find_by_timestamp(TimestampMs(1016), Offset(18)),
        None
    );
    assert_eq!(
        tail().find_by_timestamp(TimestampMs(2000), Offset(20)),
        None
    );
}
