//! The consumer against a fake cluster: every record once and in order, within its credit.

mod fake;

use std::time::Duration;

use fake::FakeCluster;
use futures_util::StreamExt;
use highwater_client::{
    At, Client, Consumer, NodeId, Offset, OutOfRange, PartitionId, ProducerRecord, ReadFrom, Start,
    TimestampMs,
};

async fn fill(client: &Client, partition: u32, values: std::ops::Range<u32>) {
    let producer = client.producer().batch_bytes(200).build();
    let mut acks = Vec::new();
    for value in values {
        let record = ProducerRecord::to("t")
            .partition(partition)
            .value(format!("{value}"))
            .timestamp_ms(1_000 + i64::from(value));
        acks.push(producer.enqueue(record).await.unwrap());
    }
    for ack in acks {
        ack.await.unwrap();
    }
}

async fn take(consumer: &mut Consumer, count: usize) -> Vec<u64> {
    let mut values = Vec::new();
    while values.len() < count {
        let record = consumer.next().await.unwrap().unwrap();
        let text = String::from_utf8(record.value.unwrap().to_vec()).unwrap();
        values.push(text.parse().unwrap());
    }
    values
}

fn is(range: std::ops::Range<u64>) -> Vec<u64> {
    range.collect()
}

#[tokio::test]
async fn starts_are_found_and_the_first_batch_is_cut() {
    let cluster = FakeCluster::start(2).await;
    cluster.topic("t", 1);
    let client = cluster.client().await;
    fill(&client, 0, 0..100).await;
    for (start, first) in [
        (Start::Earliest, 0),
        (Start::Offset(Offset(37)), 37),
        (Start::AfterEarliest(10), 10),
        (Start::BeforeLatest(10), 90),
        (Start::BeforeLatest(1_000), 0),
    ] {
        let mut consumer = client
            .consumer()
            .topic("t")
            .start_at(start)
            .build()
            .await
            .unwrap();
        let count = 100 - first as usize;
        assert_eq!(
            take(&mut consumer, count).await,
            is(first..100),
            "{start:?}"
        );
        assert_eq!(consumer.position("t", 0), Some(Offset(100)));
        assert_eq!(consumer.high_watermark("t", 0), Some(Offset(100)));
    }
    let time = Start::Time(TimestampMs(1_050));
    let mut consumer = client
        .consumer()
        .topic("t")
        .start_at(time)
        .build()
        .await
        .unwrap();
    assert!(take(&mut consumer, 1).await[0] <= 50);
    let mut consumer = client
        .consumer()
        .topic("t")
        .start_at(Start::Latest)
        .build()
        .await
        .unwrap();
    fill(&client, 0, 100..110).await;
    assert_eq!(take(&mut consumer, 10).await, is(100..110));
    assert_eq!(client.end_offsets("t").await.unwrap(), [Offset(110)]);
    let found = client
        .list_offsets("t", &[(PartitionId(0), At::Earliest)])
        .await
        .unwrap();
    assert_eq!(found[0].offset, Offset(0));
    assert!(
        client
            .list_offsets("t", &[(PartitionId(7), At::Latest)])
            .await
            .is_err()
    );
}

#[tokio::test]
async fn moves_and_resets_neither_lose_nor_repeat() {
    let cluster = FakeCluster::start(3).await;
    cluster.topic("t", 1);
    let client = cluster.client().await;
    let mut consumer = client
        .consumer()
        .topic("t")
        .max_fetch_bytes(300)
        .credit_bytes(1_000)
        .build()
        .await
        .unwrap();
    for turn in 0..6_u32 {
        fill(&client, 0, turn * 50..turn * 50 + 50).await;
        cluster.state.lock().fetch_resets = 2;
        let half = take(&mut consumer, 20).await;
        cluster.lead("t", 0, 1 + (turn + 1) % 3, turn % 2 == 1);
        let rest = take(&mut consumer, 30).await;
        let first = u64::from(turn) * 50;
        assert_eq!([half, rest].concat(), is(first..first + 50));
    }
}

#[tokio::test]
async fn a_broker_sends_no_more_than_its_credit_ahead() {
    let cluster = FakeCluster::start(1).await;
    cluster.topic("t", 2);
    let client = cluster.client().await;
    fill(&client, 0, 0..500).await;
    fill(&client, 1, 0..500).await;
    let window = 2_000;
    let mut consumer = client
        .consumer()
        .topic("t")
        .credit_bytes(window)
        .max_fetch_bytes(500)
        .build()
        .await
        .unwrap();
    let mut changed = cluster.changed.subscribe();
    let mut last = [None::<u64>; 2];
    for read in 0..1_000_u32 {
        if read % 100 == 0 {
            // Everyone comes to rest: more is pushed only for what was used up.
            let _ = tokio::time::timeout(Duration::from_millis(20), changed.changed()).await;
            let (granted, pushed) = {
                let state = cluster.state.lock();
                (state.granted, state.pushed)
            };
            assert!(
                pushed <= granted + 600,
                "one batch may overdraw: {pushed} of {granted}"
            );
            assert!(granted <= pushed + window);
        }
        let record = consumer.next().await.unwrap().unwrap();
        let place = &mut last[record.partition.0 as usize];
        assert_eq!(record.offset.0, place.map_or(0, |last| last + 1));
        *place = Some(record.offset.0);
    }
}

#[tokio::test]
async fn pause_seek_and_resume() {
    let cluster = FakeCluster::start(1).await;
    cluster.topic("t", 2);
    let client = cluster.client().await;
    fill(&client, 0, 0..50).await;
    let mut consumer = client
        .consumer()
        .partitions("t", [0])
        .build()
        .await
        .unwrap();
    assert_eq!(take(&mut consumer, 5).await, is(0..5));
    consumer.pause("t", 0).unwrap();
    let paused = tokio::time::timeout(Duration::from_millis(50), consumer.next()).await;
    assert!(paused.is_err(), "{paused:?}");
    assert_eq!(consumer.position("t", 0), Some(Offset(5)));
    consumer.resume("t", 0).unwrap();
    assert_eq!(take(&mut consumer, 5).await, is(5..10));
    consumer
        .seek("t", 0, Start::Offset(Offset(40)))
        .await
        .unwrap();
    assert_eq!(take(&mut consumer, 10).await, is(40..50));
    consumer.seek("t", 0, Start::Earliest).await.unwrap();
    assert_eq!(take(&mut consumer, 50).await, is(0..50));
    assert!(
        consumer.seek("t", 1, Start::Latest).await.is_err(),
        "not assigned"
    );
}

#[tokio::test]
async fn every_replica_can_be_read() {
    let cluster = FakeCluster::start(3).await;
    cluster.topic("t", 3);
    let client = cluster.client().await;
    for partition in 0..3 {
        fill(&client, partition, 0..20).await;
    }
    for node in 1..=3 {
        let from = ReadFrom::Broker(NodeId(node));
        let mut consumer = client
            .consumer()
            .topic("t")
            .read_from(from)
            .build()
            .await
            .unwrap();
        let mut values = take(&mut consumer, 60).await;
        values.sort_unstable();
        assert_eq!(values, (0..20).flat_map(|v| [v, v, v]).collect::<Vec<_>>());
    }
}

#[tokio::test]
async fn that_a_broker_has_no_replica_is_told() {
    let cluster = FakeCluster::start(3).await;
    cluster.topic("t", 1);
    let client = cluster.client().await;
    fill(&client, 0, 0..2).await;
    cluster.state.lock().empty.insert(2);
    let from = ReadFrom::Broker(NodeId(2));
    let building = client.consumer().topic("t").read_from(from).build();
    let mut consumer = building.await.unwrap();
    let told = tokio::time::timeout(Duration::from_secs(60), consumer.next());
    let error = told.await.expect("in time").unwrap().unwrap_err();
    assert!(error.to_string().contains("NOT_LEADER"), "{error}");
}

#[tokio::test]
async fn an_offset_out_of_range_is_told_or_moved() {
    let cluster = FakeCluster::start(1).await;
    cluster.topic("t", 1);
    let client = cluster.client().await;
    fill(&client, 0, 0..10).await;
    let beyond = Start::Offset(Offset(99));
    let build = || client.consumer().assign("t", 0, beyond);
    let mut consumer = build().build().await.unwrap();
    let error = consumer.next().await.unwrap().unwrap_err();
    assert!(error.to_string().contains("t-0 at offset 99"), "{error}");
    consumer
        .seek("t", 0, Start::Offset(Offset(8)))
        .await
        .unwrap();
    assert_eq!(take(&mut consumer, 2).await, is(8..10));
    let mut consumer = build()
        .out_of_range(OutOfRange::Earliest)
        .build()
        .await
        .unwrap();
    assert_eq!(take(&mut consumer, 10).await, is(0..10));
}
