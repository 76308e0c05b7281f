//! The producer against a fake cluster: each record once, in order, whatever happens on the way.

mod fake;

use std::time::Duration;

use fake::{FakeCluster, Fault};
use futures_util::future::join_all;
use highwater_client::{Ack, Cause, Compression, ErrorCode, Producer, ProducerRecord, SendError};

async fn enqueue(producer: &Producer, partition: u32, values: std::ops::Range<u32>) -> Vec<Ack> {
    let mut acks = Vec::new();
    for value in values {
        let record = ProducerRecord::to("t")
            .partition(partition)
            .value(format!("{value}"));
        acks.push(producer.enqueue(record).await.unwrap());
    }
    acks
}

fn numbers(values: std::ops::Range<u32>) -> Vec<String> {
    values.map(|value| value.to_string()).collect()
}

/// Small batches, so that several are in flight.
fn small(client: &highwater_client::Client) -> Producer {
    client
        .producer()
        .linger(Duration::ZERO)
        .batch_bytes(150)
        .build()
}

async fn all_ok(acks: Vec<Ack>) {
    for (at, outcome) in (0_u64..).zip(join_all(acks).await) {
        assert_eq!(
            outcome.unwrap().offset.0,
            at,
            "offsets follow the order of sending"
        );
    }
}

#[tokio::test]
async fn records_are_stored_in_order_with_their_offsets() {
    let cluster = FakeCluster::start(3).await;
    cluster.topic("t", 3);
    let client = cluster.client().await;
    for compression in [Compression::None, Compression::Zstd, Compression::Lz4] {
        let producer = client.producer().compression(compression).build();
        let record = ProducerRecord::to("t").key("k").value("v").header("h", "1");
        producer.send(record).await.unwrap();
        producer.close().await;
    }
    let producer = small(&client);
    let acks = enqueue(&producer, 0, 0..200).await;
    let outcomes: Vec<_> = join_all(acks)
        .await
        .into_iter()
        .map(Result::unwrap)
        .collect();
    assert!(
        outcomes
            .windows(2)
            .all(|pair| pair[1].offset.0 == pair[0].offset.0 + 1)
    );
    let stored = cluster.values("t", 0);
    assert_eq!(stored[stored.len() - 200..], numbers(0..200));
}

#[tokio::test]
async fn a_reset_after_the_append_stores_nothing_twice() {
    let cluster = FakeCluster::start(1).await;
    cluster.topic("t", 1);
    use Fault::{AnswerUnknown, LoseUnknown, None, Reject, ResetAfter, ResetBefore};
    let faults = [
        None,
        ResetAfter,
        ResetBefore,
        AnswerUnknown,
        None,
        LoseUnknown,
        ResetAfter,
        Reject(ErrorCode::Overloaded),
        None,
        AnswerUnknown,
        Reject(ErrorCode::LeaderUnavailable),
        ResetAfter,
        None,
        None,
        ResetBefore,
    ];
    cluster.faults(1, &faults);
    let producer = small(&cluster.client().await);
    all_ok(enqueue(&producer, 0, 0..300).await).await;
    assert_eq!(cluster.values("t", 0), numbers(0..300));
    assert_eq!(
        cluster.state.lock().init_calls,
        1,
        "no new epoch was needed"
    );
}

#[tokio::test]
async fn a_new_leader_is_followed_by_stream_and_by_hint() {
    let cluster = FakeCluster::start(3).await;
    cluster.topic("t", 1);
    let producer = small(&cluster.client().await);
    let mut acks = Vec::new();
    for (turn, quietly) in [(0_u32, false), (1, true), (2, false), (3, true)] {
        acks.extend(enqueue(&producer, 0, turn * 50..turn * 50 + 50).await);
        cluster.lead("t", 0, 1 + (turn + 1) % 3, quietly);
    }
    all_ok(acks).await;
    assert_eq!(cluster.values("t", 0), numbers(0..200));
}

#[tokio::test]
async fn a_fatal_batch_is_rejected_and_the_rest_goes_on_under_a_new_epoch() {
    let cluster = FakeCluster::start(1).await;
    cluster.topic("t", 2);
    let producer = small(&cluster.client().await);
    all_ok(enqueue(&producer, 0, 0..10).await).await;
    cluster.faults(1, &[Fault::Reject(ErrorCode::CorruptBatch)]);
    cluster.hold(true);
    let acks = enqueue(&producer, 0, 10..40).await;
    cluster.hold(false);
    let outcomes = join_all(acks).await;
    let mut expected = numbers(0..10);
    for (value, outcome) in (10..40).zip(&outcomes) {
        match outcome {
            Ok(_) => expected.push(format!("{value}")),
            Err(SendError::Rejected(cause)) => {
                assert_eq!(cause.code(), Some(ErrorCode::CorruptBatch));
            }
            Err(unknown) => panic!("{unknown}"),
        }
    }
    assert!(expected.len() < 40 && expected.len() > 20);
    assert_eq!(cluster.values("t", 0), expected);
    let state = cluster.state.lock();
    assert_eq!(state.topics["t"].partitions[0].epochs, [(1, 0), (1, 1)]);
}

#[tokio::test]
async fn a_batch_without_an_answer_is_unknown_at_its_deadline() {
    let cluster = FakeCluster::start(1).await;
    cluster.topic("t", 1);
    let client = cluster.client().await;
    let producer = client
        .producer()
        .linger(Duration::ZERO)
        .delivery_timeout(Duration::from_millis(300))
        .build();
    let first = ProducerRecord::to("t").value("0");
    producer.send(first).await.unwrap();
    cluster.faults(1, &[Fault::Swallow]);
    let swallowed = producer.send(ProducerRecord::to("t").value("lost")).await;
    assert!(
        matches!(swallowed, Err(SendError::Unknown(Cause::Deadline(_)))),
        "{swallowed:?}"
    );
    // The hole is left behind with its epoch.
    producer
        .send(ProducerRecord::to("t").value("1"))
        .await
        .unwrap();
    assert_eq!(cluster.values("t", 0), ["0", "1"]);
    // Never sent at all: certainly not written.
    cluster.hold(true);
    cluster.faults(1, &vec![Fault::Reject(ErrorCode::StorageFull); 1000]);
    cluster.hold(false);
    let refused = producer.send(ProducerRecord::to("t").value("2")).await;
    let Err(SendError::Rejected(cause)) = refused else {
        panic!("{refused:?}")
    };
    assert_eq!(cause.code(), Some(ErrorCode::StorageFull));
}

#[tokio::test]
async fn the_buffer_holds_senders_back_and_gives_way() {
    let cluster = FakeCluster::start(1).await;
    cluster.topic("t", 1);
    let client = cluster.client().await;
    let producer = client.producer().buffer_bytes(4_000).build();
    cluster.hold(true);
    let value = vec![b'x'; 1_000];
    let mut acks = Vec::new();
    let record = || ProducerRecord::to("t").value(value.clone());
    for _ in 0..3 {
        acks.push(producer.enqueue(record()).await.unwrap());
    }
    assert!(producer.free_bytes() < 1_000);
    {
        // Dropped half-way: it was not handed over, and takes no room.
        let blocked = producer.enqueue(record());
        tokio::pin!(blocked);
        assert!(futures_util::poll!(blocked.as_mut()).is_pending());
    }
    let mut blocked = Box::pin(producer.enqueue(record()));
    assert!(futures_util::poll!(blocked.as_mut()).is_pending());
    cluster.hold(false);
    acks.push(blocked.await.unwrap());
    all_ok(acks).await;
    assert_eq!(producer.free_bytes(), 4_000);
    assert_eq!(cluster.values("t", 0).len(), 4);
    let large = producer
        .enqueue(ProducerRecord::to("t").value(vec![0; 5_000]))
        .await;
    assert!(matches!(
        large,
        Err(SendError::Rejected(Cause::RecordTooLarge { .. }))
    ));
}

#[tokio::test]
async fn mistakes_are_rejected_at_once_and_keys_choose_partitions() {
    let cluster = FakeCluster::start(2).await;
    cluster.topic("t", 6);
    let client = cluster
        .builder()
        .missing_topic_grace(Duration::from_millis(50))
        .connect()
        .await
        .unwrap();
    let producer = client.producer().build();
    let unknown = producer
        .send(ProducerRecord::to("nowhere").value("v"))
        .await;
    assert_eq!(
        unknown,
        Err(SendError::Rejected(Cause::UnknownTopic("nowhere".into())))
    );
    let beyond = producer.send(ProducerRecord::to("t").partition(6)).await;
    assert!(matches!(
        beyond,
        Err(SendError::Rejected(Cause::UnknownPartition { .. }))
    ));
    for key in ["a", "order-17", "klø"] {
        let delivery = producer
            .send(ProducerRecord::to("t").key(key).value("v"))
            .await
            .unwrap();
        assert_eq!(
            delivery.partition,
            highwater_proto::partition_for_key(key.as_bytes(), 6)
        );
    }
    producer.flush().await;
    let clone = producer.clone();
    producer.close().await;
    let closed = clone.send(ProducerRecord::to("t").value("v")).await;
    assert_eq!(closed, Err(SendError::Rejected(Cause::Closed)));
}

#[tokio::test]
async fn records_without_a_key_are_spread_batch_by_batch() {
    let cluster = FakeCluster::start(1).await;
    cluster.topic("t", 4);
    let client = cluster.client().await;
    for linger in [Duration::ZERO, Duration::from_millis(1)] {
        let producer = client.producer().linger(linger).build();
        let mut partitions = std::collections::BTreeSet::new();
        // A choice of one of four that was the same 64 times would be one in 2^126.
        for value in 0..64 {
            let record = ProducerRecord::to("t").value(value.to_string());
            partitions.insert(producer.send(record).await.unwrap().partition);
        }
        assert!(partitions.len() > 1, "{partitions:?} with {linger:?}");
    }
    // What is handed over while a batch is open goes into that.
    let producer = client.producer().linger(Duration::from_millis(200)).build();
    let mut acks = Vec::new();
    for value in 0..64 {
        let record = ProducerRecord::to("t").value(value.to_string());
        acks.push(producer.enqueue(record).await.unwrap());
    }
    producer.flush().await;
    let mut partitions = std::collections::BTreeSet::new();
    for ack in acks {
        partitions.insert(ack.await.unwrap().partition);
    }
    assert_eq!(partitions.len(), 1, "{partitions:?}");
}
