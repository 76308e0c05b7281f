//! What becomes of a produced batch, said to a client that speaks the bare protocol: offsets,
//! duplicates, and stable codes for everything that is wrong.

use highwater_client::{Client, NewTopic};
use highwater_proto::batch::{BatchBuilder, Compression};
use highwater_proto::v1::admin_client::AdminClient;
use highwater_proto::v1::offset_query::At;
use highwater_proto::v1::{
    CreateTopicRequest, DescribeTopicRequest, ErrorCode, ListOffsetsRequest, OffsetQuery,
    OffsetResult,
};
use highwater_proto::{BatchSequence, ProducerEpoch, ProducerId};

use super::fleet::Fleet;
use super::journal::make_topic;
use super::raw::{Raw, acknowledged, append, batch, numbered, rejected, said, undecided};

#[tokio::test(flavor = "multi_thread")]
async fn every_batch_gets_its_verdict() {
    let fleet = Fleet::started(3, &[]).await;
    let client = fleet.client().await;
    make_topic(&client, NewTopic::named("orders").partitions(3)).await;
    let small = NewTopic::named("small").config("max.message.bytes", "2000");
    make_topic(&client, small).await;

    let mut raw = Raw::to_leader(&fleet, &client, "orders", 0).await;
    offsets_are_dense(&mut raw).await;
    let mut raw = Raw::to_leader(&fleet, &client, "orders", 1).await;
    sequences_are_kept(&mut raw).await;
    batches_are_checked(&mut raw).await;
    let mut raw = Raw::to_leader(&fleet, &client, "small", 0).await;
    size_is_checked(&mut raw).await;
    places_are_checked(&fleet, &client).await;
    topics_are_checked(&fleet).await;
    offsets_are_looked_up(&fleet, &client).await;
}

async fn offsets_are_dense(raw: &mut Raw) {
    eprintln!("offsets:");
    let mut next = 0;
    for count in [1, 5, 2, 100, 1] {
        let values: Vec<String> = (0..count).map(|n| n.to_string()).collect();
        let values: Vec<&str> = values.iter().map(String::as_str).collect();
        let result = raw.one(batch(&values).build()).await;
        assert_eq!(acknowledged(&result), next);
        assert!(!result.duplicate);
        next += count;
    }
    // Many in one request: in the order sent, each with its own verdict.
    let mut broken = batch(&["broken"]).build().to_vec();
    *broken.last_mut().expect("a byte") ^= 1;
    let batches = vec![
        batch(&["a", "b"]).build(),
        broken.into(),
        batch(&["c"]).build(),
    ];
    let results = raw.send(batches, 0).await;
    assert_eq!(acknowledged(&results[0]), next);
    rejected(&results[1], ErrorCode::CorruptBatch);
    assert_eq!(acknowledged(&results[2]), next + 2);
}

async fn sequences_are_kept(raw: &mut Raw) {
    eprintln!("sequences:");
    let id = raw.producer().await;
    let other = raw.producer().await;
    assert_ne!(id, other, "no id is given twice");
    // Ten batches of three records.
    let mut offsets = Vec::new();
    for sequence in (0..30).step_by(3) {
        let result = raw.one(numbered(id, 0, sequence, 3)).await;
        offsets.push(acknowledged(&result));
    }
    assert!(offsets.windows(2).all(|pair| pair[1] == pair[0] + 3));
    // The last five are known by their offsets. Older ones no more: they may be the very batch that
    // is sent again, so that nobody can say that it is not stored.
    for (index, offset) in offsets.iter().enumerate() {
        let sequence = u32::try_from(index).expect("small") * 3;
        let again = raw.one(numbered(id, 0, sequence, 3)).await;
        if index < 5 {
            undecided(&again, ErrorCode::DuplicateSequence);
        } else {
            assert_eq!(acknowledged(&again), *offset);
            assert!(again.duplicate, "the original offset, said to be one");
        }
    }
    eprintln!("a gap:");
    let gap = raw.one(numbered(id, 0, 33, 3)).await;
    rejected(&gap, ErrorCode::OutOfOrderSequence);
    eprintln!("a producer that nobody knows, in the middle:");
    let unknown = raw.one(numbered(other, 0, 7, 1)).await;
    rejected(&unknown, ErrorCode::UnknownProducer);
    // From zero it is welcome, and others do not disturb it.
    acknowledged(&raw.one(numbered(other, 0, 0, 1)).await);
    eprintln!("a newer epoch, then the older one:");
    acknowledged(&raw.one(numbered(id, 1, 0, 3)).await);
    let stale = raw.one(numbered(id, 0, 30, 3)).await;
    rejected(&stale, ErrorCode::ProducerFenced);
    acknowledged(&raw.one(numbered(id, 1, 3, 3)).await);
    acknowledged(&raw.one(numbered(other, 0, 1, 1)).await);
}

async fn batches_are_checked(raw: &mut Raw) {
    let good = batch(&["one", "two"]).build();
    let spoilt = |at: usize, mask: u8| {
        let mut bytes = good.to_vec();
        bytes[at] ^= mask;
        bytes::Bytes::from(bytes)
    };
    let wrong = [
        ("a wrong checksum", spoilt(good.len() - 1, 1)),
        ("another magic", spoilt(16, 1)),
        ("a length that is too short", spoilt(11, 1)),
        ("a length that is absurd", spoilt(8, 0x7f)),
        ("a count that is wrong", spoilt(60, 8)),
        ("cut short", good.slice(..good.len() - 1)),
        ("nothing at all", bytes::Bytes::new()),
        ("a few bytes", good.slice(..20)),
        ("two batches in one", [&good[..], &good[..]].concat().into()),
    ];
    for (what, bytes) in wrong {
        eprintln!("{what}:");
        rejected(&raw.one(bytes).await, ErrorCode::CorruptBatch);
    }
    eprintln!("control and transactional batches:");
    let control = batch(&["marker"]).control().build();
    rejected(&raw.one(control).await, ErrorCode::Unsupported);
    let transactional = batch(&["one"])
        .producer(ProducerId(1), ProducerEpoch(0), BatchSequence(0))
        .transactional()
        .build();
    rejected(&raw.one(transactional).await, ErrorCode::Unsupported);
    acknowledged(&raw.one(good).await);
}

async fn size_is_checked(raw: &mut Raw) {
    eprintln!("too large:");
    let large = "x".repeat(3_000);
    let large = batch(&[&large]).build();
    rejected(&raw.one(large).await, ErrorCode::BatchTooLarge);
    let fits = "x".repeat(1_800);
    acknowledged(&raw.one(batch(&[&fits]).build()).await);
    // Compressed it fits, however large it is inside: what counts is what is stored.
    let mut compressed = BatchBuilder::new(Compression::Zstd);
    append(&mut compressed, &[b'x'; 100_000]);
    acknowledged(&raw.one(compressed.build()).await);
}

async fn places_are_checked(fleet: &Fleet, client: &Client) {
    let mut raw = Raw::to_leader(fleet, client, "orders", 2).await;
    let some = || batch(&["one"]).build();
    eprintln!("an unknown partition:");
    raw.partition = 3;
    rejected(&raw.one(some()).await, ErrorCode::UnknownPartition);
    eprintln!("an unknown topic:");
    (raw.partition, raw.topic) = (0, 4_711);
    rejected(&raw.one(some()).await, ErrorCode::UnknownTopic);

    eprintln!("another broker leads:");
    let leader = fleet.leader(client, "orders", 2).await;
    let other = fleet.nodes().into_iter().find(|node| *node != leader);
    let place = (2, other.expect("three brokers"));
    let mut raw = Raw::to(fleet, client, "orders", place).await;
    let result = raw.one(some()).await;
    rejected(&result, ErrorCode::NotLeader);
    let hint = result.error.and_then(|error| error.leader);
    let hint = hint.expect("a hint");
    assert_eq!(hint.broker_id, leader);
    assert_eq!(hint.address, fleet.spec(leader).address());
    assert!(hint.term > 0);
}

async fn topics_are_checked(fleet: &Fleet) {
    let mut admin = AdminClient::connect(fleet.uri(1)).await.expect("a door");
    let config = |key: &str, value: &str| [(key.to_owned(), value.to_owned())].into();
    let request = |name: &str| CreateTopicRequest {
        name: name.to_owned(),
        timeout_ms: 30_000,
        ..CreateTopicRequest::default()
    };
    let long = "x".repeat(250);
    let mut wrong: Vec<(CreateTopicRequest, ErrorCode)> = ["", ".", "..", "a b", "ä", &long]
        .into_iter()
        .map(|name| (request(name), ErrorCode::InvalidTopicName))
        .collect();
    wrong.push((request("orders"), ErrorCode::TopicExists));
    for (key, value) in [("no.such.key", "1"), ("max.message.bytes", "many")] {
        let mut bad = request("fine");
        bad.configs = config(key, value);
        wrong.push((bad, ErrorCode::InvalidConfig));
    }
    let mut five = request("fine");
    five.replication_factor = 5;
    wrong.push((five, ErrorCode::NotEnoughBrokers));
    for (request, code) in wrong {
        eprintln!("topic {:?}, {:?}:", request.name, request.configs);
        for validate_only in [true, false] {
            let mut request = request.clone();
            request.validate_only = validate_only;
            let answer = admin.create_topic(request).await.expect("an answer");
            said(answer.into_inner().error.as_ref(), code);
        }
    }
    let name = "nowhere".to_owned();
    let answer = admin.describe_topic(DescribeTopicRequest { name }).await;
    let answer = answer.expect("an answer").into_inner();
    said(answer.error.as_ref(), ErrorCode::UnknownTopic);
}

async fn offsets_are_looked_up(fleet: &Fleet, client: &Client) {
    let mut raw = Raw::to_leader(fleet, client, "orders", 0).await;
    let end = acknowledged(&raw.one(batch(&["last"]).build()).await) + 1;
    let ends = [
        (Some(At::Earliest(true)), 0),
        (Some(At::Latest(true)), end),
        (Some(At::TimestampMs(0)), 0),
        (Some(At::TimestampMs(i64::MAX)), end),
    ];
    for (at, offset) in ends {
        let found = look_up(&mut raw, at).await;
        assert_eq!((found.error, found.offset), (None, offset), "{at:?}");
    }
    eprintln!("offsets by no rule, and of an unknown partition:");
    let found = look_up(&mut raw, None).await;
    said(found.error.as_ref(), ErrorCode::InvalidRequest);
    raw.partition = 9;
    let found = look_up(&mut raw, Some(At::Earliest(true))).await;
    said(found.error.as_ref(), ErrorCode::UnknownPartition);
}

async fn look_up(raw: &mut Raw, at: Option<At>) -> OffsetResult {
    let query = OffsetQuery {
        topic_id: raw.topic,
        partition: raw.partition,
        at,
    };
    let queries = vec![query];
    let answer = raw.log.list_offsets(ListOffsetsRequest { queries }).await;
    answer.expect("an answer").into_inner().results.remove(0)
}
