//! Reading: from every kind of start, with little credit, off the end; and what a broker shows of
//! itself meanwhile.

use std::time::Duration;

use futures_util::StreamExt as _;
use highwater_client::{
    Client, Consumer, NewTopic, NodeId, Offset, ProducerRecord, ReadFrom, Start, TimestampMs,
};
use highwater_proto::v1::fetch_request::Request;
use highwater_proto::v1::{ErrorCode, FetchRequest, FetchResponse, Subscribe};
use tokio::time::timeout;

use super::fleet::{Fleet, PATIENCE, eventually};
use super::journal::{Journal, make_topic, text};
use super::raw::{Raw, said};

#[tokio::test(flavor = "multi_thread")]
async fn what_was_written_is_read_from_wherever_a_reader_wants() {
    let fleet = Fleet::started(3, &[]).await;
    let client = fleet.client().await;
    make_topic(&client, NewTopic::named("orders")).await;
    let producer = client.producer().build();
    for number in 0..100 {
        let record = ProducerRecord::to("orders").value(format!("{number}"));
        let record = record.timestamp_ms(1_000_000 + number * 10);
        producer.send(record).await.expect("acknowledged");
    }
    starts(&client).await;
    followers_wait(&fleet, &client).await;
    offsets_off_the_log(&fleet, &client).await;
    slow_reader(&client).await;
    credit_is_kept(&fleet, &client).await;
    one_replica(&fleet, &client).await;
    surface(&fleet, &client).await;
}

async fn next(consumer: &mut Consumer) -> (u64, String) {
    let next = timeout(PATIENCE, consumer.next()).await.expect("in time");
    let record = next.expect("a stream without end").expect("a record");
    (record.offset.0, text(&record))
}

async fn starts(client: &Client) {
    let cases = [
        (Start::Earliest, 0),
        (Start::Offset(Offset(42)), 42),
        (Start::AfterEarliest(3), 3),
        (Start::BeforeLatest(10), 90),
        (Start::Time(TimestampMs(1_000_500)), 50),
        (Start::Time(TimestampMs(1_000_501)), 51),
        (Start::Time(TimestampMs(0)), 0),
    ];
    let consumer = client.consumer().topic("orders").build().await;
    let mut consumer = consumer.expect("assigned");
    for (start, first) in cases {
        consumer.seek("orders", 0, start).await.expect("found");
        for offset in first..first + 3 {
            assert_eq!(next(&mut consumer).await, (offset, offset.to_string()));
        }
    }
    // From the end: what is acknowledged from now on, and nothing before.
    let latest = client.consumer().topic("orders").start_at(Start::Latest);
    let mut latest = latest.build().await.expect("assigned");
    let record = ProducerRecord::to("orders").value("100");
    let producer = client.producer().build();
    producer.send(record).await.expect("acknowledged");
    assert_eq!(next(&mut latest).await, (100, "100".to_owned()));
}

/// A replica that does not lead serves what it has, and goes on when more comes.
async fn followers_wait(fleet: &Fleet, client: &Client) {
    let producer = client.producer().build();
    for node in fleet.nodes() {
        let consumer = client
            .consumer()
            .read_from(ReadFrom::Broker(NodeId(node)))
            .assign("orders", 0, Start::Offset(Offset(95)));
        let mut consumer = consumer.build().await.expect("assigned");
        assert_eq!(next(&mut consumer).await.0, 95);
        let record = ProducerRecord::to("orders").value("more");
        let stored = producer.send(record).await.expect("acknowledged");
        while next(&mut consumer).await.0 < stored.offset.0 {}
    }
}

async fn first_answer(raw: &mut Raw, offset: u64, allow_follower: bool) -> FetchResponse {
    let subscribe = Request::Subscribe(Subscribe {
        subscription_id: 3,
        topic_id: raw.topic,
        partition: raw.partition,
        offset,
        max_bytes: 0,
        allow_follower,
    });
    let requests = [Request::CreditBytes(1 << 20), subscribe].map(|request| FetchRequest {
        request: Some(request),
    });
    let requests = tokio_stream::iter(requests).chain(tokio_stream::pending());
    let answers = raw.log.fetch(requests).await.expect("open");
    let answer = timeout(PATIENCE, answers.into_inner().message()).await;
    let answer = answer.expect("in time").expect("no error").expect("one");
    assert_eq!(answer.subscription_id, 3);
    answer
}

async fn offsets_off_the_log(fleet: &Fleet, client: &Client) {
    let mut raw = Raw::to_leader(fleet, client, "orders", 0).await;
    eprintln!("beyond the end, an unknown partition, an unknown topic:");
    let beyond = first_answer(&mut raw, 100_000, false).await;
    said(beyond.error.as_ref(), ErrorCode::OffsetOutOfRange);
    raw.partition = 5;
    let unknown = first_answer(&mut raw, 0, false).await;
    said(unknown.error.as_ref(), ErrorCode::UnknownPartition);
    raw.topic = 99;
    let unknown = first_answer(&mut raw, 0, true).await;
    said(unknown.error.as_ref(), ErrorCode::UnknownTopic);
    let consumer = client.consumer().assign("orders", 7, Start::Earliest);
    let error = consumer.build().await.expect_err("no such partition");
    eprintln!("  says: {error}");
    let error = client.consumer().topic("nowhere").build().await;
    eprintln!("  says: {}", error.expect_err("no such topic"));
}

/// Much less credit than a batch is large, a reader that pauses, and yet everything comes.
async fn slow_reader(client: &Client) {
    make_topic(client, NewTopic::named("large").partitions(2)).await;
    let producer = client.producer().build();
    let mut acks = Vec::new();
    for number in 0..150 {
        let value = format!("{number} {}", "x".repeat(20_000));
        let record = ProducerRecord::to("large").value(value);
        acks.push(producer.enqueue(record).await.expect("taken"));
    }
    for ack in acks {
        ack.await.expect("acknowledged");
    }
    let consumer = client.consumer().topic("large");
    let consumer = consumer.credit_bytes(1_000).max_fetch_bytes(500);
    let mut consumer = consumer.build().await.expect("assigned");
    let mut seen = vec![0; 150];
    for _ in 0..150 {
        let (_, value) = next(&mut consumer).await;
        let number = value.split(' ').next().and_then(|n| n.parse().ok());
        let number: usize = number.expect("a number");
        seen[number] += 1;
        tokio::task::yield_now().await;
    }
    assert!(seen.iter().all(|times| *times == 1), "{seen:?}");
    let more = timeout(Duration::from_millis(5), consumer.next()).await;
    assert!(more.is_err(), "nothing twice: {more:?}");
}

/// Without credit nothing is sent; a batch larger than what is left overdraws it once.
async fn credit_is_kept(fleet: &Fleet, client: &Client) {
    let mut raw = Raw::to_leader(fleet, client, "orders", 0).await;
    let (requests, stream) = tokio::sync::mpsc::channel(4);
    let stream = tokio_stream::wrappers::ReceiverStream::new(stream);
    let send = async |request| {
        let request = FetchRequest {
            request: Some(request),
        };
        requests.send(request).await.expect("open");
    };
    send(Request::Subscribe(Subscribe {
        subscription_id: 1,
        topic_id: raw.topic,
        partition: 0,
        offset: 0,
        max_bytes: 1,
        allow_follower: false,
    }))
    .await;
    let answers = raw.log.fetch(stream).await.expect("open");
    let mut answers = answers.into_inner();
    let moment = Duration::from_millis(20);
    for _ in 0..5 {
        let nothing = timeout(moment, answers.message()).await;
        assert!(nothing.is_err(), "without credit: {nothing:?}");
        // One byte is enough for one batch, and not for the next.
        send(Request::CreditBytes(100)).await;
        let one = timeout(PATIENCE, answers.message()).await.expect("in time");
        let one = one.expect("no error").expect("a batch");
        let bytes: usize = one.pieces.iter().map(bytes::Bytes::len).sum();
        assert!((61..=100).contains(&bytes), "one small batch: {bytes}");
        // Pays for what was sent, so that the account is at zero again.
        drain(&mut answers, moment).await;
    }
}

/// Takes what the rest of the credit is good for.
async fn drain(answers: &mut tonic::Streaming<FetchResponse>, moment: Duration) {
    while timeout(moment, answers.message()).await.is_ok() {}
}

/// Topics of one replica live on one broker each, spread over all of them.
async fn one_replica(fleet: &Fleet, client: &Client) {
    let single = NewTopic::named("single")
        .partitions(6)
        .replication_factor(1);
    make_topic(client, single).await;
    let mut journal = Journal::of("single");
    journal.produce(&client.producer().build(), 200).await;
    journal.check(client, ReadFrom::Leader, &[]).await;
    let topic = client.topic("single").await.expect("known");
    let mut homes: Vec<u32> = topic.partitions.iter().map(|p| p.replicas[0].0).collect();
    assert!(topic.partitions.iter().all(|p| p.replicas.len() == 1));
    homes.sort_unstable();
    homes.dedup();
    assert_eq!(homes, fleet.nodes(), "spread over all brokers");
}

/// Names that a dashboard relies on.
const METRICS: [&str; 20] = [
    "kafka_topic_partition_current_offset",
    "kafka_topic_partition_oldest_offset",
    "kafka_topic_partition_leader",
    "kafka_topic_partition_replicas",
    "kafka_topic_partition_under_replicated_partition",
    "highwater_build_info",
    "highwater_partition_size_bytes",
    "highwater_shard_leading",
    "highwater_shard_applied_index",
    "highwater_shard_checkpoint_lag",
    "highwater_shards_without_leader",
    "highwater_admission_bytes",
    "highwater_tail_bytes",
    "highwater_wal_files",
    "highwater_wal_live_bytes",
    "highwater_open_segments",
    "highwater_storage_full",
    "highwater_disk_free_bytes",
    "highwater_wal_fsync_seconds_count",
    "highwater_wal_commit_bytes_count",
];

async fn surface(fleet: &Fleet, client: &Client) {
    let mut leading = 0.0;
    let mut offsets = 0.0;
    for node in fleet.nodes() {
        for path in ["/livez", "/readyz", "/healthz"] {
            let (code, body) = fleet.http(node, path).await;
            assert_eq!(code, 200, "{path} of broker {node}: {body}");
        }
        assert_eq!(fleet.http(node, "/nothing").await.0, 404);
        for name in METRICS {
            let there = eventually(name, async || fleet.metric(node, name).await);
            there.await;
        }
        leading += fleet
            .metric(node, "highwater_shard_leading")
            .await
            .expect("there");
        offsets += fleet
            .metric(node, "kafka_topic_partition_current_offset")
            .await
            .expect("there");
    }
    let cluster = client.admin().describe_cluster().await.expect("described");
    let all = f64::from(u32::try_from(cluster.shards.len()).expect("a few"));
    assert!(
        leading >= all,
        "every shard has one leader: {leading}, {all}"
    );
    assert!((offsets - (104.0 + 150.0 + 200.0)).abs() < 0.5, "{offsets}");
}
