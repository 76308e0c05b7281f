//! The service `Records` by bare gRPC, as grpcurl or another language would call it.

use highwater_client::{Client, NewTopic};
use highwater_proto::v1::read_request::From;
use highwater_proto::v1::records_client::RecordsClient;
use highwater_proto::v1::{
    ErrorCode, Header, Outcome, Producer, PublishRequest, PublishResponse, ReadRequest,
    ReadResponse,
};
use tonic::transport::Channel;

use super::fleet::{Fleet, eventually};
use super::journal::make_topic;
use super::raw::{Raw, said};

fn record(value: &str) -> PublishRequest {
    PublishRequest {
        topic: "orders".to_owned(),
        partition: Some(0),
        value: Some(value.to_owned().into()),
        ..PublishRequest::default()
    }
}

async fn publish(door: &mut RecordsClient<Channel>, request: PublishRequest) -> PublishResponse {
    let answer = door.publish(request).await.expect("an answer");
    answer.into_inner()
}

fn stored(response: &PublishResponse) -> u64 {
    assert_eq!(response.outcome(), Outcome::Acknowledged, "{response:?}");
    response.offset
}

async fn read(door: &mut RecordsClient<Channel>, from: From, limit: u64) -> Vec<ReadResponse> {
    let request = ReadRequest {
        topic: "orders".to_owned(),
        partition: 0,
        from: Some(from),
        limit,
    };
    let mut stream = door.read(request).await.expect("open").into_inner();
    let mut records = Vec::new();
    while let Some(record) = stream.message().await.expect("no error") {
        records.push(record);
    }
    records
}

#[tokio::test(flavor = "multi_thread")]
async fn records_go_in_and_come_out_one_by_one() {
    let fleet = Fleet::started(1, &[]).await;
    let client = fleet.client().await;
    make_topic(&client, NewTopic::named("orders").partitions(3)).await;
    let mut door = RecordsClient::connect(fleet.uri(1)).await.expect("a door");

    let header = |key: &str, value: Option<&'static [u8]>| Header {
        key: key.to_owned(),
        value: value.map(bytes::Bytes::from_static),
    };
    let headers = vec![
        header("kind", Some(b"first")),
        header("kind", Some(b"second")),
        header("none", None),
        header("empty", Some(b"")),
    ];
    let request = PublishRequest {
        key: Some("order-1".into()),
        headers: headers.clone(),
        timestamp_ms: Some(1_234),
        ..record("3 lines")
    };
    assert_eq!(stored(&publish(&mut door, request).await), 0);
    let tombstone = PublishRequest {
        value: None,
        key: Some("order-1".into()),
        ..record("")
    };
    assert_eq!(stored(&publish(&mut door, tombstone).await), 1);
    let read_back = read(&mut door, From::Earliest(true), 2).await;
    let first = &read_back[0];
    assert_eq!((first.offset, first.timestamp_ms), (0, 1_234));
    assert_eq!(first.key.as_deref(), Some(&b"order-1"[..]));
    assert_eq!(first.value.as_deref(), Some(&b"3 lines"[..]));
    assert_eq!(first.headers, headers, "in order, with duplicates");
    assert_eq!(read_back[1].value, None);

    retries(&fleet, &client, &mut door).await;
    spreads(&mut door).await;
    refusals(&mut door).await;
    let by_time = read(&mut door, From::TimestampMs(1_235), 1).await;
    assert_eq!(by_time[0].offset, 1);
    let by_offset = read(&mut door, From::Offset(2), 1).await;
    assert_eq!(by_offset[0].offset, 2);
}

/// The same sequence again is the same record.
async fn retries(fleet: &Fleet, client: &Client, door: &mut RecordsClient<Channel>) {
    let mut raw = Raw::to_leader(fleet, client, "orders", 0).await;
    let id = raw.producer().await.0;
    let numbered = |sequence, epoch| PublishRequest {
        producer: Some(Producer {
            id,
            epoch,
            sequence,
        }),
        ..record(&format!("number {sequence}"))
    };
    let first = stored(&publish(door, numbered(0, 0)).await);
    let second = stored(&publish(door, numbered(1, 0)).await);
    assert_eq!(second, first + 1);
    assert_eq!(stored(&publish(door, numbered(0, 0)).await), first);
    assert_eq!(stored(&publish(door, numbered(1, 0)).await), second);
    eprintln!("a gap, an older epoch, an epoch that is none:");
    let gap = publish(door, numbered(5, 0)).await;
    said(gap.error.as_ref(), ErrorCode::OutOfOrderSequence);
    assert_eq!(stored(&publish(door, numbered(0, 1)).await), second + 1);
    let fenced = publish(door, numbered(2, 0)).await;
    said(fenced.error.as_ref(), ErrorCode::ProducerFenced);
    assert_eq!(fenced.outcome(), Outcome::Rejected);
    let absurd = publish(door, numbered(0, 1 << 20)).await;
    said(absurd.error.as_ref(), ErrorCode::InvalidRequest);
}

/// Keys decide; without one, records go round.
async fn spreads(door: &mut RecordsClient<Channel>) {
    let mut partitions = std::collections::BTreeSet::new();
    for _ in 0..6 {
        let request = PublishRequest {
            partition: None,
            ..record("anywhere")
        };
        let response = publish(door, request).await;
        stored(&response);
        partitions.insert(response.partition);
    }
    assert_eq!(partitions.len(), 3);
    let keyed = || PublishRequest {
        partition: None,
        key: Some("always the same".into()),
        ..record("keyed")
    };
    let first = publish(door, keyed()).await.partition;
    assert_eq!(publish(door, keyed()).await.partition, first);
}

async fn refusals(door: &mut RecordsClient<Channel>) {
    eprintln!("an unknown topic, an unknown partition, too large:");
    let nowhere = PublishRequest {
        topic: "nowhere".to_owned(),
        ..record("x")
    };
    let nowhere = publish(door, nowhere).await;
    said(nowhere.error.as_ref(), ErrorCode::UnknownTopic);
    assert_eq!(nowhere.outcome(), Outcome::Rejected);
    let outside = PublishRequest {
        partition: Some(3),
        ..record("x")
    };
    let outside = publish(door, outside).await;
    said(outside.error.as_ref(), ErrorCode::UnknownPartition);
    let large = publish(door, record(&"x".repeat(2 << 20))).await;
    said(large.error.as_ref(), ErrorCode::BatchTooLarge);
    eprintln!("reading beyond the end, and an unknown topic:");
    let beyond = read(door, From::Offset(1_000_000), 1).await;
    said(
        beyond.last().and_then(|last| last.error.as_ref()),
        ErrorCode::OffsetOutOfRange,
    );
    let request = ReadRequest {
        topic: "nowhere".to_owned(),
        ..ReadRequest::default()
    };
    let mut stream = door.read(request).await.expect("open").into_inner();
    let last = eventually("an error", async || stream.message().await.ok()?).await;
    said(last.error.as_ref(), ErrorCode::UnknownTopic);
}
