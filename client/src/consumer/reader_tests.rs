//! Tests of what is read where, with how much credit.

use highwater_proto::batch::{BatchBuilder, Compression};
use highwater_proto::{LeaderEpoch, PartitionId, TimestampMs, TopicId};

use super::*;

const NOW: Duration = Duration::ZERO;

fn tp(partition: u32) -> TopicPartition {
    TopicPartition::new(TopicId(1), PartitionId(partition))
}

fn batches(base: u64, count: u32) -> VecDeque<RecordBatch> {
    let mut builder = BatchBuilder::new(Compression::None);
    for _ in 0..count {
        builder
            .append(TimestampMs(1), None, Some(b"v"), [])
            .unwrap();
    }
    let batch = RecordBatch::validate(builder.build(), 1 << 20).unwrap();
    let stamped = batch.stamp(Offset(base), LeaderEpoch(1)).to_bytes();
    VecDeque::from([RecordBatch::validate_stored(stamped).unwrap()])
}

fn reader(window: u64, partitions: u32) -> Reader {
    reader_from(ReadFrom::Leader, window, partitions)
}

fn reader_from(read_from: ReadFrom, window: u64, partitions: u32) -> Reader {
    let config = ConsumerConfig {
        credit_bytes: window,
        max_fetch_bytes: 1 << 20,
        read_from,
        out_of_range: OutOfRange::Error,
    };
    let mut reader = Reader::new(&config, 1);
    for partition in 0..partitions {
        reader.assign(tp(partition), Arc::from("t"), 0);
        reader.set_target(tp(partition), Some(NodeId(1)));
    }
    reader
}

fn subscribed(requests: &[Request]) -> Vec<(u32, u64)> {
    let of = |request: &Request| match request {
        Request::Subscribe { id, offset, .. } => Some((*id, *offset)),
        _ => None,
    };
    requests.iter().filter_map(of).collect()
}

#[test]
fn credit_follows_what_is_used_up_and_a_broker_without_it_is_refused() {
    let mut reader = reader(1_000, 1);
    reader.open_session(1, NodeId(1));
    let requests = reader.requests(1, NOW);
    assert!(requests.contains(&Request::Credit(1_000)));
    reader
        .arrived((1, 1), batches(0, 2), 1_200, (2, 0))
        .unwrap();
    assert!(reader.requests(1, NOW).is_empty(), "nothing was used up");
    assert!(
        reader.arrived((1, 1), batches(2, 1), 10, (3, 0)).is_err(),
        "overdrawn twice"
    );
    let chunk = reader.next_chunk().unwrap();
    assert_eq!(reader.position_in(&chunk), Some(0));
    reader.advance(&chunk, Offset(2));
    reader.finished(&chunk);
    assert_eq!(reader.requests(1, NOW), [Request::Credit(1_200)]);
}

#[test]
fn a_move_goes_on_where_the_data_ended_and_late_data_is_dropped() {
    let mut reader = reader(1_000, 1);
    reader.open_session(1, NodeId(1));
    assert_eq!(subscribed(&reader.requests(1, NOW)), [(1, 0)]);
    reader.arrived((1, 1), batches(0, 3), 100, (3, 0)).unwrap();
    reader.set_target(tp(0), Some(NodeId(2)));
    assert!(reader.requests(1, NOW).contains(&Request::Unsubscribe(1)));
    reader.open_session(2, NodeId(2));
    assert_eq!(subscribed(&reader.requests(2, NOW)), [(1, 3)]);
    reader.arrived((1, 1), batches(3, 3), 100, (6, 0)).unwrap();
    reader.arrived((2, 1), batches(3, 1), 100, (4, 0)).unwrap();
    let ends = std::iter::from_fn(|| reader.next_chunk())
        .map(|chunk| chunk.batches[0].header().next_offset().0);
    assert_eq!(ends.collect::<Vec<_>>(), [3, 4]);
}

#[test]
fn a_seek_voids_what_is_buffered_and_what_is_at_hand() {
    let mut reader = reader(1_000, 1);
    reader.open_session(1, NodeId(1));
    reader.requests(1, NOW);
    reader.arrived((1, 1), batches(0, 3), 100, (9, 0)).unwrap();
    let chunk = reader.next_chunk().unwrap();
    reader.arrived((1, 1), batches(3, 3), 100, (9, 0)).unwrap();
    reader.seek(tp(0), 7);
    assert_eq!(reader.position_in(&chunk), None);
    reader.advance(&chunk, Offset(3));
    assert_eq!(reader.position(tp(0)), Some(7));
    assert!(reader.next_chunk().is_none());
    assert_eq!(subscribed(&reader.requests(1, NOW)), [(2, 7)]);
}

#[test]
fn errors_are_retried_or_stand_still_until_a_seek() {
    let mut reader = reader(1_000, 2);
    reader.open_session(1, NodeId(1));
    reader.requests(1, NOW);
    let refuse = |reader: &mut Reader, id, code| {
        reader
            .refused((1, id), code, Cause::Closed, NOW)
            .map(|(_, trouble)| trouble)
    };
    assert_eq!(
        refuse(&mut reader, 1, ErrorCode::LeaderUnavailable),
        Some(Trouble::Retried)
    );
    assert_eq!(
        refuse(&mut reader, 1, ErrorCode::LeaderUnavailable),
        None,
        "it has ended"
    );
    assert!(
        subscribed(&reader.requests(1, NOW)).is_empty(),
        "after a pause"
    );
    let later = reader.next_wake(NOW).unwrap();
    assert_eq!(subscribed(&reader.requests(1, later)), [(3, 0)]);
    assert_eq!(
        refuse(&mut reader, 2, ErrorCode::OffsetOutOfRange),
        Some(Trouble::Surfaced)
    );
    assert!(
        reader
            .next_error()
            .unwrap()
            .to_string()
            .contains("t-1 at offset 0")
    );
    assert!(subscribed(&reader.requests(1, later * 100)).is_empty());
    // Damage: other replicas are asked; the same one a second time is the end.
    assert_eq!(
        refuse(&mut reader, 3, ErrorCode::Damaged),
        Some(Trouble::Retried)
    );
    assert!(reader.avoided(tp(0)).unwrap().contains(&NodeId(1)));
    assert_eq!(subscribed(&reader.requests(1, later * 100)), [(4, 0)]);
    assert_eq!(
        refuse(&mut reader, 4, ErrorCode::Damaged),
        Some(Trouble::Surfaced)
    );
    reader.seek(tp(1), 5);
    assert_eq!(subscribed(&reader.requests(1, later * 100)), [(5, 5)]);
}

#[test]
fn what_was_buffered_before_a_partition_was_given_up_is_void() {
    let mut reader = reader(1_000, 1);
    reader.open_session(1, NodeId(1));
    reader.requests(1, NOW);
    reader.arrived((1, 1), batches(0, 3), 100, (9, 0)).unwrap();
    let chunk = reader.next_chunk().unwrap();
    reader.arrived((1, 1), batches(3, 3), 100, (9, 0)).unwrap();
    reader.unassign(tp(0));
    assert!(reader.next_chunk().is_none());
    assert_eq!(reader.position_in(&chunk), None);
    reader.arrived((1, 1), batches(6, 1), 10, (9, 0)).unwrap();
    reader.assign(tp(0), Arc::from("t"), 2);
    reader.set_target(tp(0), Some(NodeId(1)));
    assert_eq!(reader.position_in(&chunk), None, "of the assignment before");
    reader.advance(&chunk, Offset(3));
    assert_eq!(subscribed(&reader.requests(1, NOW)), [(2, 2)]);
}

fn refusal(code: ErrorCode) -> Cause {
    let message = "this broker has no replica of 1-0; broker 2 leads it".to_owned();
    Cause::Broker { code, message }
}

/// A subscription at `from` that is refused at `to`; whether it was believed.
fn refused(reader: &mut Reader, (from, to): (Duration, Duration), code: ErrorCode) -> bool {
    let requests = reader.requests(1, from);
    let (id, _) = subscribed(&requests)[0];
    reader.refused((1, id), code, refusal(code), to);
    let error = reader.next_error().map(|error| error.to_string());
    assert!(
        error
            .as_ref()
            .is_none_or(|said| said.contains("no replica"))
    );
    error.is_some()
}

/// The broker to read from has no replica: it may just be given one, and if it is not, that is said.
#[test]
fn what_is_said_to_be_unknown_is_believed_when_nothing_else_is_said_for_long() {
    const STEP: Duration = Duration::from_millis(500);
    let steps = |read_from, code| {
        let mut reader = reader_from(read_from, 1_000, 1);
        reader.open_session(1, NodeId(1));
        (0..200).position(|step| refused(&mut reader, (step * STEP, step * STEP), code))
    };
    let pinned = ReadFrom::Broker(NodeId(1));
    assert_eq!(
        steps(ReadFrom::Leader, ErrorCode::NotLeader),
        None,
        "led elsewhere"
    );
    assert_eq!(steps(pinned, ErrorCode::NotLeader), Some(10));
    assert_eq!(steps(ReadFrom::Leader, ErrorCode::UnknownTopic), Some(120));

    // Another word, or a subscription that was accepted and has brought nothing, and all begins anew.
    let mut reader = reader_from(pinned, 1_000, 1);
    reader.open_session(1, NodeId(1));
    let mut at = |from: u64, to: u64, code| {
        let times = (Duration::from_secs(from), Duration::from_secs(to));
        refused(&mut reader, times, code)
    };
    assert!(!at(10, 10, ErrorCode::NotLeader));
    assert!(!at(14, 14, ErrorCode::TopicNotReady));
    assert!(!at(16, 16, ErrorCode::NotLeader));
    assert!(!at(20, 40, ErrorCode::NotLeader));
    assert!(!at(44, 44, ErrorCode::NotLeader));
    assert!(at(45, 45, ErrorCode::NotLeader));
}

#[test]
fn what_stands_still_goes_on_where_it_is_read_to() {
    let mut reader = reader(1_000, 1);
    reader.open_session(1, NodeId(1));
    reader.requests(1, NOW);
    reader.arrived((1, 1), batches(0, 2), 10, (2, 0)).unwrap();
    let code = ErrorCode::InvalidRequest;
    reader.refused((1, 1), code, refusal(code), NOW);
    let chunk = reader.next_chunk().unwrap();
    reader.advance(&chunk, Offset(2));
    assert!(subscribed(&reader.requests(1, LIVED)).is_empty());
    reader.go_on(tp(0));
    assert_eq!(subscribed(&reader.requests(1, LIVED))[0].1, 2);
    reader.go_on(tp(0));
    assert!(
        subscribed(&reader.requests(1, LIVED)).is_empty(),
        "it goes on already"
    );
}

#[test]
fn an_error_waits_for_what_is_buffered_of_its_own_partition_alone() {
    let mut reader = reader(1 << 20, 2);
    reader.open_session(1, NodeId(1));
    assert_eq!(subscribed(&reader.requests(1, NOW)).len(), 2);
    let arrived = |reader: &mut Reader, id| {
        reader
            .arrived((1, id), batches(0, 2), 100, (2, 0))
            .expect("granted");
    };
    arrived(&mut reader, 1);
    arrived(&mut reader, 2);
    let first = reader.partition_of((1, 1)).expect("subscribed");
    let cause = Cause::Transport("broken".to_owned());
    reader.halt(first, cause);
    assert!(reader.next_error().is_none(), "its records come first");
    let chunk = reader.next_chunk().expect("buffered");
    assert_eq!(chunk.tp, first);
    let error = reader.next_error().expect("others may have more for ever");
    assert!(
        matches!(error, ConsumeError::Partition { partition, .. } if partition == first.partition.0)
    );
    assert!(reader.next_error().is_none());
}

#[test]
fn whoever_is_behind_is_asked_again_less_and_less_often() {
    let mut reader = reader(1 << 20, 1);
    reader.out_of_range = OutOfRange::Earliest;
    reader.open_session(1, NodeId(1));
    let mut now = NOW;
    let mut longest = Duration::ZERO;
    for id in 1..=10 {
        assert_eq!(subscribed(&reader.requests(1, now)), [(id, 0)]);
        let code = ErrorCode::OffsetOutOfRange;
        let cause = Cause::Transport("behind".to_owned());
        let refused = reader.refused((1, id), code, cause, now);
        assert_eq!(refused, Some((tp(0), Trouble::Reset)));
        reader.ask_again(tp(0));
        assert_eq!(subscribed(&reader.requests(1, now)), [], "not at once");
        let wake = reader.next_wake(now).expect("again");
        longest = longest.max(wake - now);
        now = wake;
    }
    assert!(longest > Duration::from_millis(100), "{longest:?}");
}
