//! Partitions go to other shards under load, while those who are concerned die: nothing acknowledged is
//! lost, nothing is stored twice, offsets and order stay, and nothing is left behind.

use std::collections::BTreeMap;
use std::fs;

use futures_util::StreamExt as _;
use highwater_client::{
    Client, NewPlan, NewTopic, NodeId, Offset, PartitionId, ProducerRecord, ShardId, Start, v1,
};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::failover::Load;
use super::fleet::{Fleet, PATIENCE, eventually};
use super::journal::{Journal, make_topic, text};
use super::life::{
    CALM, check_replicas, ended, healthy, metadata_leader, patient, plan, shards, start,
};

/// Bytes of a record that makes a copy take its time.
const LARGE: usize = 128 << 10;

/// A cluster whose copies are slow, and whose checkpoints are often.
pub(super) async fn slow_fleet(brokers: u32, bytes_per_second: &str) -> Fleet {
    let mut fleet = Fleet::of(brokers, &CALM).await;
    fleet.set_everywhere("limits.move_bytes_per_second", bytes_per_second);
    fleet.set_everywhere("storage.checkpoint_interval_ms", "1s");
    fleet.start_all().await;
    fleet
}

/// Large records into every partition of a topic.
pub(super) async fn fill(client: &Client, journal: &mut Journal, count: usize) {
    let producer = client.producer().build();
    for number in 0..count {
        let value = format!("large {number} {}", "x".repeat(LARGE));
        let record = ProducerRecord::to(&journal.topic)
            .key(format!("large {number}"))
            .value(value.clone());
        let sent = producer.send(record).await.expect("acknowledged");
        journal.note(&sent, &value);
    }
}

/// A topic of one partition with so many large records, and its id; records go on coming.
pub async fn large_topic(fleet: &Fleet, count: usize) -> (Client, u64, Load) {
    let client = patient(fleet).await;
    make_topic(&client, NewTopic::named("orders").partitions(1)).await;
    let topic = client.topic("orders").await.expect("known").id.0;
    let mut journal = Journal::of("orders");
    fill(&client, &mut journal, count).await;
    let load = Load::start(client.producer().build(), journal);
    (client, topic, load)
}

/// Where a partition is, as its cluster says.
pub(super) async fn place(client: &Client, topic: &str, partition: usize) -> v1::PartitionMetadata {
    let admin = client.admin().timeout(PATIENCE);
    let described = admin.describe_topic(topic).await.expect("described");
    let topic = described.topic.expect("a topic");
    topic.partitions[partition].clone()
}

/// A shard of as many replicas that another broker leads.
pub(super) async fn another(client: &Client, now: &v1::PartitionMetadata) -> ShardId {
    let class = now.replicas.len();
    let found = shards(client).await.into_iter().find(|shard| {
        let elsewhere = shard.shard != now.shard && shard.preferred_leader != now.leader;
        elsewhere && shard.replication_factor as usize == class
    });
    ShardId(found.expect("another shard").shard)
}

/// Waits until so much of a partition is copied by the running plan.
pub(super) async fn copied(client: &Client, least: u64) -> v1::PlanPartition {
    eventually(&format!("{least} offsets are copied"), async || {
        let admin = client.admin().timeout(PATIENCE);
        let plan = admin.plan().await.ok()??;
        let step = plan.partitions.into_iter().next()?;
        assert!(!plan.ended, "it has ended: {step:?}");
        (step.copied_offset >= least).then_some(step)
    })
    .await
}

/// The partition's leader epoch, as its leader says.
async fn epoch(client: &Client) -> u32 {
    eventually("the partition's leader answers", async || {
        let described = client.admin().describe_topic("orders").await.ok()?;
        let status = described.partitions.into_iter().next()?;
        status.error.is_none().then_some(status.leader_epoch)
    })
    .await
}

pub(super) async fn shard_leader(client: &Client, shard: ShardId) -> u32 {
    eventually(&format!("shard {shard} has a leader"), async || {
        let shards = client.admin().describe_cluster().await.ok()?.shards;
        shards.into_iter().find(|s| s.shard == shard.0)?.leader
    })
    .await
}

/// Who leads a shard dies, and comes back when another broker leads it. Waits for no writer meanwhile: what
/// has its only replica there cannot be written before it is back.
async fn leader_dies(fleet: &mut Fleet, client: &Client, shard: ShardId) {
    let dead = shard_leader(client, shard).await;
    fleet.kill(dead).await;
    eventually(&format!("another broker leads shard {shard}"), async || {
        let shards = client.admin().describe_cluster().await.ok()?.shards;
        let leader = shards.into_iter().find(|s| s.shard == shard.0)?.leader?;
        (leader != dead).then_some(())
    })
    .await;
    fleet.start(dead);
    fleet.ready(dead).await;
}

/// A broker dies and comes back while records are acknowledged.
async fn die(fleet: &mut Fleet, load: &Load, node: u32) {
    fleet.kill(node).await;
    load.progress(50).await;
    fleet.start(node);
    fleet.ready(node).await;
    load.progress(50).await;
}

/// Directories of a topic's partitions, by broker.
fn directories(fleet: &Fleet, topic: u64) -> BTreeMap<u32, Vec<String>> {
    let of = |node: u32| {
        let root = fleet.data_dir(node).join("partitions");
        let found = fs::read_dir(root).into_iter().flatten().flatten();
        let names = found.map(|entry| entry.file_name().to_string_lossy().into_owned());
        let prefix = format!("{topic}-");
        let mut names: Vec<String> = names.filter(|name| name.starts_with(&prefix)).collect();
        names.sort_unstable();
        (node, names)
    };
    fleet.nodes().into_iter().map(of).collect()
}

/// Waits until every broker has this directory of a topic and no other.
pub(super) async fn only(fleet: &Fleet, topic: u64, name: &str) {
    let wanted = [name.to_owned()];
    eventually(&format!("{name} is all that is left"), async || {
        let found = directories(fleet, topic);
        found.values().all(|names| *names == wanted).then_some(())
    })
    .await;
}

/// A consumer that reads a partition from its start, through everything that happens.
struct Reader(JoinHandle<Vec<String>>);

impl Reader {
    /// Reads up to the record of this value.
    async fn start(client: &Client, topic: &str, last: &'static str) -> Self {
        let consumer = client
            .consumer()
            .assign(topic, 0, Start::Offset(Offset(0)))
            .build();
        let mut consumer = consumer.await.expect("assigned");
        Self(tokio::spawn(async move {
            let mut values = Vec::new();
            loop {
                let record = consumer.next().await.expect("no end").expect("a record");
                assert_eq!(record.offset.0, values.len() as u64, "offsets are dense");
                values.push(text(&record));
                if values.last().is_some_and(|value| value == last) {
                    return values;
                }
            }
        }))
    }
    async fn end(self) -> Vec<String> {
        let read = tokio::time::timeout(PATIENCE, self.0).await;
        read.expect("it reads to the end").expect("no panic")
    }
}

const LAST: &str = "the last record";

/// The last record: whoever reads it has read everything.
async fn say_last(client: &Client, journal: &mut Journal) {
    let producer = client.producer().build();
    let record = ProducerRecord::to(&journal.topic).value(LAST);
    let sent = producer.send(record).await.expect("acknowledged");
    journal.note(&sent, LAST);
}

/// Small records lie in the order in which their one producer sent them.
fn in_order(journal: &Journal) {
    let number = |value: &String| -> Option<u64> {
        value
            .strip_prefix("value ")?
            .split(' ')
            .next()?
            .parse()
            .ok()
    };
    let numbers: Vec<u64> = journal.stored.values().filter_map(number).collect();
    assert!(numbers.len() > 100, "{}", numbers.len());
    assert!(numbers.is_sorted(), "out of order");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_goes_to_another_shard_whoever_dies() {
    let mut fleet = slow_fleet(3, "512KiB").await;
    let client = patient(&fleet).await;
    make_topic(&client, NewTopic::named("orders").partitions(1)).await;
    let topic = client.topic("orders").await.expect("known").id.0;
    let mut journal = Journal::of("orders");
    fill(&client, &mut journal, 192).await;
    let reader = Reader::start(&client, "orders", LAST).await;
    let load = Load::start(client.producer().build(), journal);
    load.progress(100).await;

    let before = place(&client, "orders", 0).await;
    let to = another(&client, &before).await;
    let moved = || NewPlan::move_partition("orders", PartitionId(0), to);
    let dry = start(&client, moved().dry_run(true)).await;
    assert_eq!((dry.id, dry.partitions.len()), (0, 1), "{dry:?}");
    assert_eq!(place(&client, "orders", 0).await.shard, before.shard);
    let started = start(&client, moved()).await;
    let error = client.admin().start_plan(NewPlan::rebalance()).await;
    eprintln!("  says: {}", error.expect_err("one plan at a time"));

    eprintln!("who carries it out, who drives the plan, and who has the partition, die on the way");
    let first = copied(&client, 8).await;
    assert_eq!(first.state(), v1::MoveState::Learning);
    let target = shard_leader(&client, to).await;
    die(&mut fleet, &load, target).await;
    let second = copied(&client, 16).await;
    assert!(second.copied_offset >= first.copied_offset, "it goes on");
    let driver = metadata_leader(&client).await;
    die(&mut fleet, &load, driver).await;
    copied(&client, 24).await;
    let source = shard_leader(&client, ShardId(before.shard)).await;
    die(&mut fleet, &load, source).await;
    let plan = ended(&client, started.id).await;
    assert_eq!(plan.partitions[0].state(), v1::MoveState::Done, "{plan:?}");
    let after = place(&client, "orders", 0).await;
    assert_eq!((after.shard, after.arrival), (to.0, started.id));
    load.progress(100).await;

    eprintln!("where it was nothing is left, and it survives the end of everybody");
    only(&fleet, topic, &format!("{topic}-0-{}", started.id)).await;
    fleet.kill_all().await;
    fleet.start_all().await;
    load.progress(100).await;
    let mut journal = load.end().await.unharmed("moving");
    say_last(&client, &mut journal).await;
    let read = reader.end().await;
    let stored: Vec<&String> = journal.stored.values().collect();
    assert_eq!(read.len(), stored.len());
    assert!(read.iter().eq(stored), "what a reader saw all the way");
    in_order(&journal);
    for node in fleet.nodes() {
        fleet.caught_up(node).await;
    }
    check_replicas(&fleet, &journal).await;
    healthy(&fleet, &client).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_move_is_cancelled_and_one_comes_back() {
    let fleet = slow_fleet(3, "1MiB").await;
    let (client, topic, load) = large_topic(&fleet, 64).await;
    load.progress(100).await;
    let before = place(&client, "orders", 0).await;
    let to = another(&client, &before).await;
    let admin = client.admin().timeout(PATIENCE);

    eprintln!("cancelled on the way it stays, and the copy goes");
    let started = start(
        &client,
        NewPlan::move_partition("orders", PartitionId(0), to),
    )
    .await;
    copied(&client, 4).await;
    let cancelled = admin.cancel_plan().await.expect("cancelled");
    assert!(cancelled.ended && cancelled.cancelled, "{cancelled:?}");
    assert_eq!(cancelled.id, started.id);
    load.progress(100).await;
    assert_eq!(place(&client, "orders", 0).await.shard, before.shard);
    only(&fleet, topic, &format!("{topic}-0")).await;

    eprintln!("there and back again; the leader epoch is the partition's own");
    let mut at = started.id;
    let mut newest = epoch(&client).await;
    for goal in [to, ShardId(before.shard)] {
        let wanted = NewPlan::move_partition("orders", PartitionId(0), goal);
        let started = start(&client, wanted).await;
        let plan = ended(&client, started.id).await;
        assert_eq!(plan.partitions[0].state(), v1::MoveState::Done, "{plan:?}");
        assert_eq!(place(&client, "orders", 0).await.shard, goal.0);
        load.progress(50).await;
        let now = epoch(&client).await;
        assert!(now > newest, "{now} after {newest}");
        (at, newest) = (started.id, now);
    }
    only(&fleet, topic, &format!("{topic}-0-{at}")).await;

    eprintln!("what is not there is said at once, and not asked for until the deadline");
    for (topic, text) in [
        ("orders", "no partition 99"),
        ("nobody", "no topic is named"),
    ] {
        let wanted = NewPlan::move_partition(topic, PartitionId(99), to);
        let within = tokio::time::timeout(PATIENCE / 2, admin.start_plan(wanted)).await;
        let error = within.expect("at once").expect_err("not there");
        assert!(error.to_string().contains(text), "{error}");
    }

    let journal = load.end().await.unharmed("cancelling");
    in_order(&journal);
    check_replicas(&fleet, &journal).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn writers_wait_for_a_moment_only() {
    let fleet = Fleet::started(3, &CALM).await;
    let client = patient(&fleet).await;
    make_topic(&client, NewTopic::named("orders").partitions(2)).await;
    let load = Load::start(client.producer().build(), Journal::of("orders"));
    load.progress(200).await;
    let mut took = Vec::new();
    for turn in 0..6_u32 {
        let partition = turn % 2;
        let before = place(&client, "orders", partition as usize).await;
        let to = another(&client, &before).await;
        let begin = Instant::now();
        let wanted = NewPlan::move_partition("orders", PartitionId(partition), to);
        let started = start(&client, wanted).await;
        let ended = ended(&client, started.id).await;
        took.push(begin.elapsed());
        assert_eq!(ended.partitions[0].state(), v1::MoveState::Done);
        load.progress(40).await;
    }
    eprintln!("six moves took {took:?}");
    let journal = load.end().await.unharmed("six moves");
    check_replicas(&fleet, &journal).await;
}

/// Whether each partition of a topic is on all three brokers, and the topic says so.
async fn on_three(client: &Client, topic: &str) {
    let described = client.admin().timeout(PATIENCE);
    let described = described.describe_topic(topic).await.expect("described");
    let topic = described.topic.expect("a topic");
    assert_eq!(topic.replication_factor, 3);
    for partition in &topic.partitions {
        assert_eq!(partition.replicas, [1, 2, 3], "{partition:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_of_one_replica_gets_three_when_the_cluster_has_grown() {
    let mut fleet = slow_fleet(1, "1MiB").await;
    let client = patient(&fleet).await;
    let single = NewTopic::named("orders").partitions(3);
    make_topic(&client, single.replication_factor(1)).await;
    let mut journal = Journal::of("orders");
    fill(&client, &mut journal, 90).await;
    let producer = client.producer().delivery_timeout(2 * PATIENCE);
    let load = Load::start(producer.build(), journal);
    load.progress(100).await;
    let admin = client.admin().timeout(PATIENCE);
    let replicate = || NewPlan::replicate("orders", 3);
    let error = admin.start_plan(replicate()).await.expect_err("too few");
    eprintln!("  says: {error}");

    eprintln!("two brokers join, and get shards of three replicas");
    for node in [2, 3] {
        fleet.add(node);
        fleet.start(node);
        fleet.ready(node).await;
    }
    let client = patient(&fleet).await;
    let rebalanced = start(&client, NewPlan::rebalance()).await;
    ended(&client, rebalanced.id).await;
    eventually("every shard has a leader", async || {
        let shards = client.admin().describe_cluster().await.ok()?.shards;
        shards.iter().all(|s| s.leader.is_some()).then_some(())
    })
    .await;

    eprintln!("the partitions move, and a new broker dies on the way");
    let dry = start(&client, replicate().dry_run(true)).await;
    assert_eq!(dry.partitions.len(), 3, "{dry:?}");
    let started = start(&client, replicate().parallel(2)).await;
    copied(&client, 4).await;
    let shard = ShardId(plan(&client).await.partitions[0].to_shard);
    leader_dies(&mut fleet, &client, shard).await;
    load.progress(50).await;
    let plan = ended(&client, started.id).await;
    let done = |step: &v1::PlanPartition| step.state() == v1::MoveState::Done;
    assert!(plan.partitions.iter().all(done), "{plan:?}");
    on_three(&client, "orders").await;
    load.progress(100).await;

    eprintln!("the disk that had everything alone is lost, and nothing with it");
    fleet.kill(1).await;
    fs::remove_dir_all(fleet.data_dir(1)).expect("wiped");
    load.progress(100).await;
    // It founded the cluster alone: with an empty disk and nobody to ask it would found another one.
    let nodes = fleet.nodes().into_iter();
    let others: Vec<String> = nodes.map(|node| fleet.spec(node).address()).collect();
    fleet.set_everywhere("node.join", &others.join(","));
    let client = patient(&fleet).await;
    let replaced = eventually("it counts as away, and is given up", async || {
        let admin = client.admin().timeout(PATIENCE);
        admin.start_plan(NewPlan::replace(NodeId(1))).await.ok()
    })
    .await;
    fleet.start(1);
    ended(&client, replaced.id).await;
    for node in fleet.nodes() {
        fleet.ready(node).await;
        fleet.caught_up(node).await;
    }
    let journal = load.end().await.unharmed("raising");
    check_replicas(&fleet, &journal).await;
}
