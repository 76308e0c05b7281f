//! A replica is filled by a checkpoint while whoever sends it, whoever gets it and whoever leads die in turn, while
//! records are acknowledged, and while retention and compaction take away what is being sent.

use std::collections::BTreeMap;

use highwater_client::{
    Client, NewTopic, NodeId, Offset, OutOfRange, Producer, ProducerRecord, ReadFrom, Start,
};

use super::failover::Load;
use super::fleet::{Fleet, PATIENCE, eventually};
use super::journal::{Journal, ends, make_topic, text};
use super::life::{CALM, check_replicas, healthy, patient};

const SETTINGS: [(&str, &str); 11] = [
    CALM[0],
    CALM[1],
    ("wal.file_bytes", "1MiB"),
    ("wal.budget_bytes", "4MiB"),
    ("storage.checkpoint_bytes", "256KiB"),
    ("storage.checkpoint_interval_ms", "1s"),
    ("storage.retention_interval_ms", "300ms"),
    ("compaction.interval_ms", "300ms"),
    ("limits.log_cache_bytes", "1MiB"),
    ("limits.tail_cache_bytes", "1MiB"),
    // So that a checkpoint takes its time.
    ("limits.move_bytes_per_second", "1MiB"),
];
const LARGE: usize = 50_000;
const KEYS: usize = 40;

/// So many megabytes into each of three topics: one that keeps all, one that keeps little, and one that keeps the
/// latest of each key.
async fn filled(producer: &Producer, large: &mut Journal, rounds: usize) {
    const AT_ONCE: usize = 10;
    for round in 0..rounds {
        let mut acks = Vec::new();
        for number in 0..AT_ONCE {
            let first = large.stored.len();
            let value = format!("large {first} {number} {}", "x".repeat(LARGE));
            let record = ProducerRecord::to("large").key(format!("{round} {number}"));
            acks.push((value.clone(), producer.enqueue(record.value(value)).await));
        }
        for (value, ack) in acks {
            let delivery = ack.expect("taken").await.expect("acknowledged");
            large.note(&delivery, &value);
        }
        for number in 0..AT_ONCE {
            let value = format!("{round} {}", "y".repeat(LARGE));
            let key = format!("key {}", (round * AT_ONCE + number) % KEYS);
            for topic in ["short", "latest"] {
                let record = ProducerRecord::to(topic).partition(0).key(key.clone());
                let sent = producer.send(record.value(value.clone())).await;
                sent.expect("acknowledged");
            }
        }
    }
}

/// What a broker has of a topic's partition, from the first record that it keeps.
async fn kept(client: &Client, topic: &str, node: u32) -> Vec<(u64, String, String)> {
    use futures_util::StreamExt as _;
    let end = ends(client, topic).await[0];
    let consumer = client
        .consumer()
        .read_from(ReadFrom::Broker(NodeId(node)))
        .out_of_range(OutOfRange::Earliest)
        .assign(topic, 0, Start::Offset(Offset(0)));
    let mut consumer = consumer.build().await.expect("assigned");
    let mut seen = Vec::new();
    loop {
        let next = tokio::time::timeout(PATIENCE, consumer.next()).await;
        let record = next.expect("in time").expect("no end").expect("a record");
        let key = record.key.as_deref().map(String::from_utf8_lossy);
        let key = key.unwrap_or_default().into_owned();
        seen.push((record.offset.0, key, text(&record)));
        if record.offset.0 + 1 >= end {
            return seen;
        }
    }
}

/// All replicas have the same of it.
async fn alike(client: &Client, topic: &str) -> Vec<(u64, String, String)> {
    eventually(&format!("all have the same of {topic}"), async || {
        let first = kept(client, topic, 1).await;
        for node in [2, 3] {
            if kept(client, topic, node).await != first {
                return None;
            }
        }
        Some(first)
    })
    .await
}

async fn topics(client: &Client) {
    let topic = |name: &str| NewTopic::named(name).config("segment.bytes", "262144");
    make_topic(client, topic("large").partitions(2)).await;
    let short = topic("short").config("retention.bytes", "1000000");
    make_topic(client, short.partitions(1)).await;
    let latest = topic("latest").config("cleanup.policy", "compact");
    let latest = latest.config("min.cleanable.dirty.ratio", "0.2");
    make_topic(client, latest.partitions(1)).await;
    make_topic(client, NewTopic::named("orders").partitions(3)).await;
}

/// Bytes that brokers have sent to replicas that are filled, since they were started.
async fn sent(fleet: &Fleet, nodes: &[u32]) -> f64 {
    let mut sum = 0.0;
    for node in nodes {
        let here = fleet.metric(*node, "highwater_move_bytes_total").await;
        sum += here.unwrap_or_default();
    }
    sum
}

/// Waits until a mebibyte more was sent.
async fn on_its_way(fleet: &Fleet, nodes: &[u32]) {
    let before = sent(fleet, nodes).await;
    eventually("a checkpoint is on its way", async || {
        (sent(fleet, nodes).await > before + 1e6).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_checkpoint_arrives_whoever_dies_on_its_way() {
    let mut fleet = Fleet::started(3, &SETTINGS).await;
    let client = patient(&fleet).await;
    topics(&client).await;
    let mut large = Journal::of("large");
    let patient = || client.producer().delivery_timeout(2 * PATIENCE).build();
    let producer = patient();
    filled(&producer, &mut large, 1).await;
    let away = 1 + fleet.leader(&client, "large", 0).await % 3;
    fleet.caught_up(away).await;
    fleet.kill(away).await;
    filled(&producer, &mut large, 20).await;
    let others: Vec<u32> = fleet.nodes().into_iter().filter(|n| *n != away).collect();
    let load = Load::start(patient(), Journal::of("orders"));
    load.progress(50).await;

    eprintln!("broker {away} comes back; it dies with half of what it lacks");
    fleet.start(away);
    on_its_way(&fleet, &others).await;
    on_its_way(&fleet, &others).await;
    fleet.kill(away).await;
    load.progress(50).await;
    fleet.start(away);
    on_its_way(&fleet, &others).await;

    eprintln!("a leader hands over in order, meanwhile: others send from then on");
    let leader = fleet.leader(&client, "large", 0).await;
    let leader = if leader == away { others[0] } else { leader };
    fleet.stop(leader).await;
    fleet.start(leader);
    load.progress(20).await;
    filled(&producer, &mut large, 2).await;
    fleet.ready(leader).await;

    eprintln!("and one dies that sends and leads");
    let sender = fleet.leader(&client, "large", 1).await;
    let sender = if sender == away { others[1] } else { sender };
    fleet.kill(sender).await;
    fleet.start(sender);
    fleet.ready(sender).await;
    load.progress(50).await;
    filled(&producer, &mut large, 2).await;
    for node in fleet.nodes() {
        fleet.ready(node).await;
        fleet.caught_up(node).await;
    }
    fleet.logged(away, "took a checkpoint instead").await;
    all_is_there(&fleet, &client, (load, large)).await;
}

async fn all_is_there(fleet: &Fleet, client: &Client, (load, large): (Load, Journal)) {
    let journal = load.end().await.unharmed("catching up");
    check_replicas(fleet, &journal).await;
    check_replicas(fleet, &large).await;
    let short = alike(client, "short").await;
    assert!(short[0].0 > 0, "retention took its part meanwhile");
    let latest = alike(client, "latest").await;
    let of_key: BTreeMap<&String, usize> =
        latest
            .iter()
            .fold(BTreeMap::new(), |mut counts, (_, key, _)| {
                *counts.entry(key).or_default() += 1;
                counts
            });
    assert_eq!(of_key.len(), KEYS);
    assert!(latest[0].0 > 0, "compaction took its part");
    healthy(fleet, client).await;
}
