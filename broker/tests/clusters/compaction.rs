//! Log compaction on real brokers: whoever dies in the middle, whoever was away for long, the latest
//! value of every key is there, and the replicas have the same bytes.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use highwater_client::{
    Client, ErrorCode, NewTopic, NodeId, Producer, ProducerRecord, ReadFrom, TopicChange,
};

use super::fleet::{Fleet, PATIENCE, eventually};
use super::journal::{ends, make_topic, read};
use super::life;
use super::raw::{Raw, batch, rejected};
use super::rot::flip;

/// Looks, checkpoints, scrubs and compares without a pause, and keeps little of the log.
pub(super) const EAGER: [(&str, &str); 12] = [
    ("storage.retention_interval_ms", "300ms"),
    ("compaction.interval_ms", "200ms"),
    ("compaction.dedupe_buffer_bytes", "1MiB"),
    ("storage.checkpoint_interval_ms", "300ms"),
    ("storage.checkpoint_bytes", "256KiB"),
    ("scrub.interval_ms", "1s"),
    ("scrub.bytes_per_second", "256MiB"),
    ("scrub.compare_interval_ms", "1s"),
    ("wal.file_bytes", "1MiB"),
    ("wal.budget_bytes", "4MiB"),
    ("limits.tail_cache_bytes", "1MiB"),
    ("raft.election_max_ms", "900ms"),
];
pub(super) const TOPIC: &str = "accounts";
const KEYS: usize = 200;

/// What was acknowledged last of each key: its value, or that it is gone.
type Latest = BTreeMap<String, Option<String>>;
/// Offset, key, value.
type Seen = (u64, String, Option<String>);

/// What is written, and what of it must be known in the end.
pub(super) struct Ledger {
    producer: Producer,
    pub latest: Latest,
    round: usize,
    /// How often a value says the same, at least.
    repeat: usize,
}

impl Ledger {
    /// Nothing is written yet. Values have about eight times `repeat` bytes.
    pub fn new(producer: Producer, repeat: usize) -> Self {
        Self {
            producer,
            latest: Latest::new(),
            round: 0,
            repeat,
        }
    }
    /// So many times a value for each key, or its end.
    pub async fn more(&mut self, rounds: usize) {
        for _ in 0..rounds {
            self.round += 1;
            self.produce().await;
        }
    }
    async fn produce(&mut self) {
        let mut acks = Vec::new();
        for number in 0..KEYS {
            let key = format!("account {number}");
            let is_end = (number * 7 + self.round).is_multiple_of(11);
            let value = format!(
                "{} {}",
                self.round,
                "balance ".repeat(self.repeat + number % 20)
            );
            let record = ProducerRecord::to(TOPIC).partition(0).key(key.clone());
            let (record, value) = match is_end {
                true => (record, None),
                false => (record.value(value.clone()), Some(value)),
            };
            let ack = self.producer.enqueue(record).await.expect("taken");
            acks.push((key, value, ack));
        }
        for (key, value, ack) in acks {
            ack.await.expect("acknowledged");
            self.latest.insert(key, value);
        }
    }
}

/// All that a broker has of the partition.
async fn seen(client: &Client, node: u32) -> Vec<Seen> {
    let end = ends(client, TOPIC).await[0];
    let records = read(client, TOPIC, 0, end, ReadFrom::Broker(NodeId(node))).await;
    let text = |bytes: Option<bytes::Bytes>| {
        bytes.map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
    };
    let seen = records.into_iter().map(|record| {
        let key = text(record.key).expect("a key");
        (record.offset.0, key, text(record.value))
    });
    seen.collect()
}

/// What a reader of these records knows in the end.
fn known(seen: &[Seen]) -> Latest {
    let mut latest = Latest::new();
    for (_, key, value) in seen {
        latest.insert(key.clone(), value.clone());
    }
    latest.retain(|_, value| value.is_some());
    latest
}

/// Every broker has the latest values; in the end, the same records and no more than they need.
pub(super) async fn agree(fleet: &Fleet, client: &Client, latest: &Latest) {
    let mut wanted = latest.clone();
    wanted.retain(|_, value| value.is_some());
    for node in fleet.nodes() {
        let found = known(&seen(client, node).await);
        assert!(found == wanted, "broker {node} has other values");
    }
    let records = eventually("all replicas have the same records", async || {
        let first = seen(client, 1).await;
        for node in [2, 3] {
            if seen(client, node).await != first {
                return None;
            }
        }
        Some(first.len())
    })
    .await;
    eprintln!(
        "{records} records of {} are left",
        ends(client, TOPIC).await[0]
    );
    for node in fleet.nodes() {
        let metric = async |name| fleet.metric(node, name).await.unwrap_or_default();
        assert_eq!(metric("highwater_divergent_ranges").await, 0.0, "{node}");
        assert_eq!(
            metric("highwater_compaction_failures_total").await,
            0.0,
            "{node}"
        );
    }
}

pub(super) async fn compacted(fleet: &Fleet, node: u32, least: f64) {
    eventually(
        &format!("broker {node} has compacted {least}"),
        async || {
            let done = fleet.metric(node, "highwater_compactions_total").await?;
            (done >= least).then_some(())
        },
    )
    .await;
}

/// Waits until a broker's log is within its budget again. Twice as much was written since somebody went away.
async fn log_is_short(fleet: &Fleet, node: u32) {
    const BUDGET: f64 = 4.0 * 1024.0 * 1024.0;
    eventually(
        &format!("broker {node} has given up what nobody but the absent one needs"),
        async || {
            let live = fleet.metric(node, "highwater_wal_live_bytes").await?;
            (live <= BUDGET).then_some(())
        },
    )
    .await;
}

/// Tombstones last half a second, and compaction has always something to do.
pub(super) fn compact_topic() -> NewTopic {
    NewTopic::named(TOPIC)
        .config("cleanup.policy", "compact")
        .config("segment.bytes", "65536")
        .config("min.cleanable.dirty.ratio", "0.3")
        .config("delete.retention.ms", "500")
}

#[tokio::test(flavor = "multi_thread")]
async fn the_latest_value_of_each_key_survives_whoever_dies() {
    let mut fleet = Fleet::started(3, &EAGER).await;
    let client = life::patient(&fleet).await;
    make_topic(&client, compact_topic()).await;
    let mut ledger = Ledger::new(client.producer().build(), 30);
    ledger.more(6).await;
    for node in fleet.nodes() {
        compacted(&fleet, node, 1.0).await;
    }

    let mut raw = Raw::to_leader(&fleet, &client, TOPIC, 0).await;
    let refused = raw.one(batch(&["no key"]).build()).await;
    rejected(&refused, ErrorCode::InvalidRecord);

    eprintln!("the leader dies, again and again");
    for _ in 0..3 {
        let leader = fleet.leader(&client, TOPIC, 0).await;
        fleet.kill(leader).await;
        ledger.more(4).await;
        fleet.start(leader);
        fleet.ready(leader).await;
        fleet.caught_up(leader).await;
    }
    agree(&fleet, &client, &ledger.latest).await;

    eprintln!(
        "a follower is away until its log is gone, and what it holds was compacted elsewhere"
    );
    let away = 1 + fleet.leader(&client, TOPIC, 0).await % 3;
    fleet.kill(away).await;
    ledger.more(100).await;
    for node in fleet.nodes().into_iter().filter(|node| *node != away) {
        log_is_short(&fleet, node).await;
    }
    fleet.start(away);
    fleet.ready(away).await;
    fleet.caught_up(away).await;
    fleet.logged(away, "took a checkpoint instead").await;
    agree(&fleet, &client, &ledger.latest).await;

    eprintln!("everybody dies at once");
    ledger.more(4).await;
    fleet.kill_all().await;
    fleet.start_all().await;
    let client = life::patient(&fleet).await;
    agree(&fleet, &client, &ledger.latest).await;
    rot_heals(&fleet).await;
    agree(&fleet, &client, &ledger.latest).await;
    rot_of_what_exists_nowhere_else(&mut fleet, &client, &mut ledger).await;
    agree(&fleet, &client, &ledger.latest).await;
    retention_as_well(&client).await;
    life::healthy(&fleet, &client).await;
}

/// What compaction has written on a broker.
fn compacted_files(fleet: &Fleet, node: u32) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let partitions = fleet.data_dir(node).join("partitions");
    for dir in fs::read_dir(partitions).into_iter().flatten().flatten() {
        let files = fs::read_dir(dir.path()).into_iter().flatten().flatten();
        found.extend(files.map(|file| file.path()));
    }
    found.retain(|path| {
        let name = path
            .file_name()
            .map(|name| name.to_string_lossy().into_owned());
        name.is_some_and(|name| name.contains('-') && name.ends_with(".log"))
    });
    found
}

/// A compacted range comes back from a replica that has compacted it alike.
async fn rot_heals(fleet: &Fleet) {
    let mut flipped: Option<PathBuf> = None;
    eventually("it is whole again", async || {
        let mended = fleet.metric(2, "highwater_mended_ranges_total").await;
        let bad = fleet.metric(2, "highwater_damaged_ranges").await;
        // What was replaced already, and only waits to be removed, does not count.
        if flipped.as_ref().is_none_or(|file| !file.exists()) {
            let file = compacted_files(fleet, 2).into_iter().next()?;
            flip(&file, 300);
            flipped = Some(file);
        }
        (mended >= Some(1.0) && bad == Some(0.0)).then_some(())
    })
    .await;
}

/// While it is away, all that a broker has compacted rots, and the others compact it once more: what they have
/// made of it takes its place, and stays over a restart.
async fn rot_of_what_exists_nowhere_else(fleet: &mut Fleet, client: &Client, ledger: &mut Ledger) {
    let leader = fleet.leader(client, TOPIC, 0).await;
    let away = 1 + leader % 3;
    fleet.kill(away).await;
    let files = compacted_files(fleet, away);
    assert!(!files.is_empty());
    for file in &files {
        flip(file, 300);
    }
    let others: Vec<u32> = fleet.nodes().into_iter().filter(|n| *n != away).collect();
    let mut done = BTreeMap::new();
    for node in &others {
        let count = fleet.metric(*node, "highwater_compactions_total").await;
        done.insert(*node, count.unwrap_or(0.0));
    }
    ledger.more(8).await;
    for node in &others {
        compacted(fleet, *node, done[node] + 1.0).await;
    }
    fleet.start(away);
    fleet.ready(away).await;
    fleet.caught_up(away).await;
    eventually("it has what the others have made of it", async || {
        let taken = fleet.metric(away, "highwater_adopted_compactions_total");
        let bad = fleet.metric(away, "highwater_damaged_ranges");
        // They go when a checkpoint names what took their place.
        let old = files.iter().any(|file| file.exists());
        (!old && taken.await >= Some(1.0) && bad.await == Some(0.0)).then_some(())
    })
    .await;
    fleet.kill(away).await;
    fleet.start(away);
    fleet.ready(away).await;
    fleet.caught_up(away).await;
}

/// With `compact,delete` old records go by age too, whatever their key.
async fn retention_as_well(client: &Client) {
    let change = TopicChange::of(TOPIC).set("cleanup.policy", "compact,delete");
    let altered = client.admin().timeout(PATIENCE);
    let altered = altered.alter_topic(change.set("retention.ms", "1")).await;
    assert_eq!(altered.expect("altered").pending, 0);
    let described = eventually("everything is too old", async || {
        let described = client.admin().describe_topic(TOPIC).await.ok()?;
        let partition = described.partitions.into_iter().next()?;
        (partition.log_start_offset == partition.high_watermark).then_some(partition)
    });
    assert!(described.await.high_watermark > 0);
}
