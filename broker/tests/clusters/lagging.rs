//! A replica that was away for longer than the log is kept, and a disk that is nearly full.

use std::time::Duration;

use highwater_client::{ErrorCode, NewTopic, NodeId, ReadFrom, SendError};

use super::fleet::{Fleet, eventually};
use super::journal::{Journal, make_topic, send};
use super::raw::{Raw, batch, rejected};

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_whose_log_was_purged_gets_a_snapshot() {
    let settings = [
        ("wal.file_bytes", "1MiB"),
        ("wal.budget_bytes", "4MiB"),
        ("storage.checkpoint_bytes", "256KiB"),
        ("storage.checkpoint_interval_ms", "1s"),
        ("limits.log_cache_bytes", "1MiB"),
        ("limits.tail_cache_bytes", "1MiB"),
    ];
    let mut fleet = Fleet::started(3, &settings).await;
    let client = fleet.client().await;
    let topic = NewTopic::named("orders").partitions(3);
    make_topic(&client, topic.config("segment.bytes", "1048576")).await;
    let mut journal = Journal::of("orders");
    let producer = client.producer().build();
    journal.produce(&producer, 100).await;
    fleet.caught_up(3).await;
    fleet.kill(3).await;

    // Several times what the log may keep.
    make_topic(&client, NewTopic::named("filler").partitions(3)).await;
    let filler = "x".repeat(50_000);
    for round in 0..20 {
        journal.produce(&producer, 100).await;
        let acks = (0..20).map(|n| {
            let key = format!("{round} {n}");
            let record = highwater_client::ProducerRecord::to("filler").key(key);
            producer.send(record.value(filler.clone()))
        });
        for ack in futures_util::future::join_all(acks).await {
            ack.expect("acknowledged");
        }
    }
    eprintln!("restarts in between lose nothing either");
    fleet.stop(2).await;
    fleet.start(2);
    fleet.ready(2).await;
    journal.produce(&producer, 100).await;

    fleet.start(3);
    fleet.ready(3).await;
    fleet.caught_up(3).await;
    journal.check_everywhere(&client, &fleet.nodes()).await;
    let log = fleet.log(3);
    let taken: Vec<&str> = log
        .lines()
        .filter(|line| line.contains("took a checkpoint instead"))
        .collect();
    eprintln!("  says: {}", taken.first().expect("the log was gone"));

    eprintln!("and it can lead: the others go away one by one");
    for node in [1, 2] {
        fleet.kill(node).await;
        journal.produce(&producer, 50).await;
        fleet.start(node);
        fleet.ready(node).await;
        fleet.caught_up(node).await;
    }
    let from = ReadFrom::Broker(NodeId(3));
    journal.check(&client, from, &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn below_the_disk_reserve_produce_is_rejected_and_the_rest_goes_on() {
    let mut fleet = Fleet::started(3, &[]).await;
    let client = fleet.client().await;
    make_topic(&client, NewTopic::named("orders").partitions(2)).await;
    let mut journal = Journal::of("orders");
    journal.produce(&client.producer().build(), 100).await;
    fleet.stop_all().await;

    fleet.set_everywhere("storage.reserve_bytes", "1000000TiB");
    fleet.start_all().await;
    for node in fleet.nodes() {
        eventually("the gate is closed", async || {
            (fleet.metric(node, "highwater_storage_full").await == Some(1.0)).then_some(())
        })
        .await;
    }
    eprintln!("below the reserve:");
    let mut raw = Raw::to_leader(&fleet, &client, "orders", 0).await;
    rejected(
        &raw.one(batch(&["x"]).build()).await,
        ErrorCode::StorageFull,
    );
    let producer = client.producer().delivery_timeout(Duration::from_secs(1));
    for (_, outcome) in send(&producer.build(), "orders", 0..3).await {
        let error = outcome.expect_err("not while the disk is full");
        eprintln!("  says: {error}");
        assert!(matches!(error, SendError::Rejected(_)), "{error}");
    }
    // Reading, metadata and leadership go on, and the health page says what is wrong.
    journal.check_everywhere(&client, &fleet.nodes()).await;
    make_topic(&client, NewTopic::named("more")).await;
    let (code, body) = fleet.http(1, "/readyz").await;
    assert_eq!(code, 200, "{body}");
    let (code, body) = fleet.http(1, "/healthz?verbose").await;
    assert_eq!(code, 503, "{body}");
    let disk = body.lines().find(|line| line.contains("disk"));
    eprintln!("  says: {}", disk.expect("a check of the disk"));
    fleet.kill(1).await;
    fleet.start(1);
    fleet.ready(1).await;

    eprintln!("with room again:");
    fleet.stop_all().await;
    fleet.set_everywhere("storage.reserve_bytes", "1MiB");
    fleet.start_all().await;
    journal.produce(&client.producer().build(), 100).await;
    for node in fleet.nodes() {
        fleet.caught_up(node).await;
    }
    journal.check_everywhere(&client, &fleet.nodes()).await;
}
