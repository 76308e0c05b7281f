//! The life of topics on real brokers: deleted and made again under load, grown, cut by retention and
//! by hand, while brokers die.

use std::path::Path;
use std::time::Duration;

use futures_util::StreamExt as _;
use highwater_client::{
    Client, Consumer, ErrorCode, NewTopic, NodeId, Offset, OutOfRange, PartitionId, Producer,
    ProducerRecord, ReadFrom, SendError, Start, TopicChange, TopicId,
};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::failover::Load;
use super::fleet::{Fleet, PATIENCE, eventually};
use super::journal::{Journal, make_topic, text};
use super::raw::{Raw, batch, rejected};

/// Looks for what is too old, and checkpoints, are frequent enough to be waited for.
const SETTINGS: [(&str, &str); 2] = [
    ("storage.retention_interval_ms", "300ms"),
    ("storage.checkpoint_interval_ms", "500ms"),
];
const VALUE_BYTES: usize = 1_000;

async fn metadata_leader(client: &Client) -> u32 {
    eventually("the metadata group has a leader", async || {
        client
            .admin()
            .describe_cluster()
            .await
            .ok()?
            .metadata_leader
    })
    .await
}

/// Files below a broker's directories of a topic.
fn files_of(fleet: &Fleet, node: u32, topic: TopicId) -> Vec<String> {
    let root = fleet.data_dir(node).join("partitions");
    let prefix = format!("{topic}-");
    let listed = |dir: &Path| -> Vec<std::fs::DirEntry> {
        std::fs::read_dir(dir)
            .map(|entries| entries.filter_map(Result::ok).collect())
            .unwrap_or_default()
    };
    let mut files = Vec::new();
    for dir in listed(&root) {
        let name = dir.file_name().to_string_lossy().into_owned();
        if name.starts_with(&prefix) {
            files.push(name.clone());
            let inside = listed(&dir.path()).into_iter();
            files.extend(inside.map(|f| format!("{name}/{}", f.file_name().to_string_lossy())));
        }
    }
    files
}

/// Everybody has given the space back.
async fn reclaimed(fleet: &Fleet, topic: TopicId) {
    for node in fleet.nodes() {
        let what = format!("broker {node} has nothing left of topic {topic}");
        eventually(&what, async || {
            files_of(fleet, node, topic).is_empty().then_some(())
        })
        .await;
    }
}

/// What a producer of a topic that is deleted and made again saw.
#[derive(Default)]
struct Seen {
    /// Value, and whether it was sent when the new topic was known.
    acknowledged: Vec<(String, bool)>,
    deleted: usize,
}

fn produce_through(producer: Producer, mut phase: watch::Receiver<u8>) -> JoinHandle<Seen> {
    tokio::spawn(async move {
        let mut seen = Seen::default();
        for number in 0_usize.. {
            let now = *phase.borrow_and_update();
            if now == 2 {
                break;
            }
            let value = format!("value {number}");
            let record = ProducerRecord::to("orders")
                .key(format!("key {number}"))
                .value(value.clone());
            match producer.send(record).await {
                Ok(_) => seen.acknowledged.push((value, now == 1)),
                // Unknown only because of an attempt that a dead broker did not answer.
                Err(SendError::Rejected(cause) | SendError::Unknown(cause)) => {
                    assert_eq!(cause.code(), Some(ErrorCode::TopicDeleted), "{cause}");
                    assert_eq!(now, 0, "the new topic is known: {cause}");
                    seen.deleted += 1;
                }
            }
        }
        seen
    })
}

/// The consumer of the old topic is told, whatever it was about to read.
async fn told_that_it_is_gone(reader: &mut Consumer) {
    let told = timeout(PATIENCE, async {
        loop {
            match reader.next().await.expect("a stream") {
                Ok(_) => {}
                Err(error) => return error.to_string(),
            }
        }
    });
    let told = told.await.expect("told in time");
    eprintln!("  says: {told}");
    assert!(told.contains("TOPIC_DELETED"), "{told}");
}

/// The values that must be in the new topic.
async fn gather(load: Vec<JoinHandle<Seen>>) -> Vec<String> {
    let mut expected: Vec<String> = Vec::new();
    for task in load {
        let seen = timeout(PATIENCE, task).await.expect("in time");
        let seen = seen.expect("no panic");
        let (acked, deleted) = (seen.acknowledged.len(), seen.deleted);
        eprintln!("{acked} acknowledged, {deleted} told that the topic was deleted");
        let sure = seen.acknowledged.into_iter().filter(|(_, sure)| *sure);
        expected.extend(sure.map(|(value, _)| value));
    }
    eprintln!("{} must be there", expected.len());
    assert!(!expected.is_empty());
    expected
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_is_deleted_and_made_again_under_load_while_the_controller_dies() {
    let mut fleet = Fleet::started(3, &SETTINGS).await;
    let client = fleet.client().await;
    make_topic(&client, NewTopic::named("orders").partitions(6)).await;
    let old = client.topic("orders").await.expect("there").id;
    let mut reader = client
        .consumer()
        .topic("orders")
        .build()
        .await
        .expect("assigned");
    let (phases, phase) = watch::channel(0);
    let mut load = Vec::new();
    for _ in 0..8 {
        load.push(produce_through(client.producer().build(), phase.clone()));
    }
    for _ in 0..200 {
        let next = timeout(PATIENCE, reader.next()).await.expect("in time");
        next.expect("a stream").expect("a record");
    }

    let admin = client.admin().timeout(PATIENCE);
    let deleted = admin.delete_topic("orders").await.expect("deleted");
    assert_eq!(TopicId(deleted.id), old);
    make_topic(&client, NewTopic::named("orders").partitions(6)).await;
    let driver = metadata_leader(&client).await;
    fleet.kill(driver).await;
    let new = eventually("the new topic is known", async || {
        let known = client.topic("orders").await.ok()?.id;
        (known != old).then_some(known)
    })
    .await;
    told_that_it_is_gone(&mut reader).await;
    phases.send_replace(1);
    fleet.start(driver);
    fleet.ready(driver).await;
    tokio::time::sleep(Duration::from_millis(500)).await; // of load, not of waiting
    phases.send_replace(2);
    let expected = gather(load).await;
    fleet.caught_up(driver).await;
    for node in fleet.nodes() {
        holds(&client, NodeId(node), &expected).await;
    }
    reclaimed(&fleet, old).await;
    for node in fleet.nodes() {
        assert!(!files_of(&fleet, node, new).is_empty(), "broker {node}");
    }
    // What was deleted stays deleted over a restart of everybody.
    fleet.kill_all().await;
    fleet.start_all().await;
    let client = fleet.client().await;
    holds(&client, NodeId(1), &expected).await;
    reclaimed(&fleet, old).await;
    // A producer that still has the old id is told so, for certain and by any leader.
    let mut raw = Raw::to_leader(&fleet, &client, "orders", 0).await;
    raw.topic = old.0;
    rejected(
        &raw.one(batch(&["late"]).build()).await,
        ErrorCode::TopicDeleted,
    );
    let error = admin_error(&client, "no-such-topic").await;
    assert!(error.contains("UNKNOWN_TOPIC"), "{error}");
}

async fn admin_error(client: &Client, topic: &str) -> String {
    let deleted = client.admin().timeout(PATIENCE).delete_topic(topic).await;
    deleted.expect_err("there is none").to_string()
}

/// A broker has each of these values in the topic.
async fn holds(client: &Client, node: NodeId, expected: &[String]) {
    let mut counts: std::collections::BTreeMap<String, usize> = std::collections::BTreeMap::new();
    for (partition, end) in (0_u32..).zip(super::journal::ends(client, "orders").await) {
        let from = ReadFrom::Broker(node);
        let records = super::journal::read(client, "orders", partition, end, from).await;
        for record in records {
            *counts.entry(text(&record)).or_default() += 1;
        }
    }
    // Eight producers count from zero, so a value is there up to eight times.
    for value in expected {
        let left = counts.get_mut(value).filter(|left| **left > 0);
        let left = left.unwrap_or_else(|| panic!("broker {node} lacks {value}"));
        *left -= 1;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_grows_under_load_while_the_controller_dies() {
    let mut fleet = Fleet::started(3, &SETTINGS).await;
    let client = fleet.client().await;
    make_topic(&client, NewTopic::named("orders").partitions(3)).await;
    let load = Load::start(client.producer().build(), Journal::of("orders"));
    load.progress(200).await;
    let admin = client.admin().timeout(PATIENCE);
    let preview = admin
        .add_partitions("orders", 12, true)
        .await
        .expect("previewed");
    assert_eq!(preview.partitions.len(), 12);
    assert_eq!(
        client
            .topic("orders")
            .await
            .expect("there")
            .partition_count(),
        3
    );
    let driver = metadata_leader(&client).await;
    let growing = {
        let admin = client.admin().timeout(PATIENCE);
        tokio::spawn(async move { admin.add_partitions("orders", 12, false).await })
    };
    fleet.kill(driver).await;
    let grown = growing.await.expect("no panic");
    // Whoever was asked may be the one that died; asking again is harmless.
    let grown = match grown {
        Ok(grown) => grown,
        Err(_) => admin
            .add_partitions("orders", 12, false)
            .await
            .expect("grown"),
    };
    assert_eq!(grown.partitions.len(), 12);
    load.progress(400).await;
    fleet.start(driver);
    fleet.caught_up(driver).await;
    let journal = load.end().await.unharmed("growth");
    let used: std::collections::BTreeSet<u32> = journal.stored.keys().map(|(p, _)| *p).collect();
    assert_eq!(used.len(), 12, "records in every partition: {used:?}");
    journal.check_everywhere(&client, &fleet.nodes()).await;
    let error = admin.add_partitions("orders", 5, false).await;
    eprintln!("  says: {}", error.expect_err("it cannot shrink"));
}

/// In small batches, so that segments are about as large as the topic says.
async fn produce(producer: &Producer, count: usize) -> u64 {
    const AT_ONCE: usize = 20;
    let mut end = 0;
    for first in (0..count).step_by(AT_ONCE) {
        let sends = (first..count.min(first + AT_ONCE)).map(|_| {
            let record = ProducerRecord::to("events").value(vec![b'x'; VALUE_BYTES]);
            producer.send(record)
        });
        for delivery in futures_util::future::join_all(sends).await {
            end = end.max(delivery.expect("acknowledged").offset.0 + 1);
        }
    }
    end
}

/// Where the log begins and ends, by its leader.
async fn range(client: &Client) -> (u64, u64) {
    eventually("the partition's leader answers", async || {
        let described = client.admin().describe_topic("events").await.ok()?;
        let status = described.partitions.into_iter().next()?;
        status
            .error
            .is_none()
            .then_some((status.log_start_offset, status.high_watermark))
    })
    .await
}

/// The log begins at or behind `start` on every replica, and at the same offset.
async fn begins_everywhere(fleet: &Fleet, client: &Client, start: u64) {
    for node in fleet.nodes() {
        eventually(&format!("broker {node} begins at {start}"), async || {
            let below = first_read(client, node, start - 1).await;
            let at = first_read(client, node, start).await;
            let says = below.err()?.contains("OFFSET_OUT_OF_RANGE");
            (says && at == Ok(start)).then_some(())
        })
        .await;
    }
}

async fn first_read(client: &Client, node: u32, offset: u64) -> Result<u64, String> {
    let consumer = client
        .consumer()
        .read_from(ReadFrom::Broker(NodeId(node)))
        .out_of_range(OutOfRange::Error)
        .assign("events", 0, Start::Offset(Offset(offset)));
    let mut consumer = consumer.build().await.map_err(|error| error.to_string())?;
    let next = timeout(PATIENCE, consumer.next()).await.expect("in time");
    match next.expect("a stream") {
        Ok(record) => Ok(record.offset.0),
        Err(error) => Err(error.to_string()),
    }
}

/// A broker has at most so many segments of a topic.
async fn has_segments(fleet: &Fleet, topic: TopicId, most: usize) {
    for node in fleet.nodes() {
        eventually(
            &format!("broker {node} has at most {most} segments"),
            async || {
                let logs = files_of(fleet, node, topic).into_iter();
                (logs.filter(|file| file.ends_with(".log")).count() <= most).then_some(())
            },
        )
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn records_go_by_size_by_age_and_by_hand_and_offsets_never_come_back() {
    let mut fleet = Fleet::started(3, &SETTINGS).await;
    let client = fleet.client().await;
    let topic = NewTopic::named("events").config("segment.bytes", "65536");
    make_topic(&client, topic.config("retention.bytes", "200000")).await;
    let id = client.topic("events").await.expect("there").id;
    let producer = client.producer().build();
    let (start, end) = by_size(&fleet, &client, &producer).await;
    has_segments(&fleet, id, 6).await;
    by_hand(&fleet, &client, (start, end)).await;
    by_age(&mut fleet, &client, end).await;
    assert_eq!(produce(&producer, 50).await, end + 50, "offsets go on");
    for node in fleet.nodes() {
        if !fleet.is_running(node) {
            fleet.start(node);
            fleet.caught_up(node).await;
        }
    }
    begins_everywhere(&fleet, &client, end).await;
    fleet.kill_all().await;
    fleet.start_all().await;
    let client = fleet.client().await;
    eventually("the leader knows all that was acknowledged", async || {
        (range(&client).await == (end, end + 50)).then_some(())
    })
    .await;
    begins_everywhere(&fleet, &client, end).await;
    has_segments(&fleet, id, 1).await;
}

/// At least what the topic keeps stays, whole segments go, on every replica the same.
async fn by_size(fleet: &Fleet, client: &Client, producer: &Producer) -> (u64, u64) {
    let end = produce(producer, 1_000).await;
    let start = eventually("old segments go", async || {
        let (start, _) = range(client).await;
        // While more is left than what is to be kept and one segment, another one is about to go.
        let left = usize::try_from(end - start).expect("small") * VALUE_BYTES;
        (left <= 200_000 + 65_536).then_some(start)
    })
    .await;
    let left = usize::try_from(end - start).expect("small") * VALUE_BYTES;
    assert!(left >= 190_000, "{left} bytes left from {start} to {end}");
    begins_everywhere(fleet, client, start).await;
    (start, end)
}

/// A dry run changes nothing; beyond the end nothing can be deleted.
async fn by_hand(fleet: &Fleet, client: &Client, (start, end): (u64, u64)) {
    let admin = client.admin().timeout(PATIENCE);
    let cut = start + 10;
    let before = [(PartitionId(0), Offset(cut))];
    let dry = admin.delete_records("events", &before, true).await;
    let dry = dry.expect("previewed");
    assert_eq!((dry[0].old_log_start, dry[0].log_start), (start, cut));
    assert_eq!(range(client).await, (start, end));
    let gone = admin.delete_records("events", &before, false).await;
    assert_eq!(gone.expect("deleted")[0].log_start, cut);
    begins_everywhere(fleet, client, cut).await;
    let beyond = [(PartitionId(0), Offset(end + 1))];
    let refused = admin.delete_records("events", &beyond, false).await;
    let refused = refused
        .expect("an answer")
        .remove(0)
        .error
        .expect("refused");
    eprintln!("  says: {}", refused.message);
    assert_eq!(refused.code(), ErrorCode::OffsetOutOfRange);
}

/// The segment that grows goes too; the leader dies before everybody has removed the files.
async fn by_age(fleet: &mut Fleet, client: &Client, end: u64) {
    let admin = client.admin().timeout(PATIENCE);
    let shorter = TopicChange::of("events").set("retention.ms", "1");
    let preview = admin.alter_topic(shorter.clone().dry_run(true)).await;
    let preview = preview.expect("previewed").topic.expect("a topic");
    assert_eq!(
        preview.configs.get("retention.ms").map(String::as_str),
        Some("1")
    );
    let altered = admin.alter_topic(shorter).await.expect("altered");
    assert_eq!(altered.pending, 0);
    eventually("everything is too old", async || {
        (range(client).await == (end, end)).then_some(())
    })
    .await;
    let leader = fleet.leader(client, "events", 0).await;
    fleet.kill(leader).await;
    let back = TopicChange::of("events")
        .unset("retention.ms")
        .unset("retention.bytes");
    eventually("the settings are taken back", async || {
        let altered = admin.alter_topic(back.clone()).await.ok()?;
        (altered.pending == 0).then_some(())
    })
    .await;
}
