//! Partitions that are compacted all the time go to other shards, while those who are concerned die: the latest
//! value of every key is there, and nothing comes back that was deleted.

use highwater_client::{Client, NewPlan, PartitionId, ShardId, v1};

use super::compaction::{EAGER, Ledger, TOPIC, agree, compact_topic, compacted};
use super::fleet::{Fleet, PATIENCE};
use super::journal::make_topic;
use super::life::{ended, healthy, metadata_leader, patient, start};
use super::moving::{another, copied, only, place, shard_leader};

/// Three brokers that compact without a pause and copy slowly.
async fn slow_fleet() -> Fleet {
    let mut fleet = Fleet::of(3, &EAGER).await;
    fleet.set_everywhere("limits.move_bytes_per_second", "512KiB");
    fleet.start_all().await;
    fleet
}

/// A round is two mebibytes.
fn ledger(client: &Client) -> Ledger {
    Ledger::new(client.producer().build(), 1_300)
}

/// Compactions of a broker so far.
async fn compactions(fleet: &Fleet, node: u32) -> f64 {
    let done = fleet.metric(node, "highwater_compactions_total").await;
    done.unwrap_or(0.0)
}

/// Every broker compacts once more.
async fn goes_on(fleet: &Fleet, ledger: &mut Ledger) {
    let mut before = Vec::new();
    for node in fleet.nodes() {
        before.push((node, compactions(fleet, node).await));
    }
    ledger.more(3).await;
    for (node, done) in before {
        compacted(fleet, node, done + 1.0).await;
    }
}

/// A broker dies and comes back while values are written.
async fn die(fleet: &mut Fleet, ledger: &mut Ledger, node: u32) {
    fleet.kill(node).await;
    ledger.more(1).await;
    fleet.start(node);
    fleet.ready(node).await;
}

async fn moved(client: &Client, plan: u64) {
    let plan = ended(client, plan).await;
    let done = |step: &v1::PlanPartition| step.state() == v1::MoveState::Done;
    assert!(plan.partitions.iter().all(done), "{plan:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_compacted_goes_to_another_shard_whoever_dies() {
    let mut fleet = slow_fleet().await;
    let client = patient(&fleet).await;
    make_topic(&client, compact_topic()).await;
    let topic = client.topic(TOPIC).await.expect("known").id.0;
    let mut ledger = ledger(&client);
    ledger.more(4).await;
    for node in fleet.nodes() {
        compacted(&fleet, node, 1.0).await;
    }

    eprintln!("given up it is compacted again where it is");
    let before = place(&client, TOPIC, 0).await;
    let to = another(&client, &before).await;
    let wanted = || NewPlan::move_partition(TOPIC, PartitionId(0), to);
    start(&client, wanted()).await;
    copied(&client, 1).await;
    let admin = client.admin().timeout(PATIENCE);
    let cancelled = admin.cancel_plan().await.expect("cancelled");
    assert!(cancelled.ended && cancelled.cancelled, "{cancelled:?}");
    goes_on(&fleet, &mut ledger).await;
    only(&fleet, topic, &format!("{topic}-0")).await;

    eprintln!("who carries it out, who has it and who drives the plan die on the way");
    let started = start(&client, wanted()).await;
    copied(&client, 1).await;
    let target = shard_leader(&client, to).await;
    die(&mut fleet, &mut ledger, target).await;
    let source = shard_leader(&client, ShardId(before.shard)).await;
    die(&mut fleet, &mut ledger, source).await;
    let driver = metadata_leader(&client).await;
    die(&mut fleet, &mut ledger, driver).await;
    moved(&client, started.id).await;
    let after = place(&client, TOPIC, 0).await;
    assert_eq!((after.shard, after.arrival), (to.0, started.id));
    only(&fleet, topic, &format!("{topic}-0-{}", started.id)).await;
    for node in fleet.nodes() {
        fleet.caught_up(node).await;
    }
    agree(&fleet, &client, &ledger.latest).await;

    eprintln!("it is compacted where it came to, over the end of everybody");
    goes_on(&fleet, &mut ledger).await;
    fleet.kill_all().await;
    fleet.start_all().await;
    goes_on(&fleet, &mut ledger).await;
    agree(&fleet, &client, &ledger.latest).await;

    eprintln!("and back again");
    let back = NewPlan::move_partition(TOPIC, PartitionId(0), ShardId(before.shard));
    let back = start(&client, back).await;
    moved(&client, back.id).await;
    goes_on(&fleet, &mut ledger).await;
    agree(&fleet, &client, &ledger.latest).await;
    healthy(&fleet, &client).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_compacted_topic_of_one_replica_gets_three() {
    let mut fleet = slow_fleet().await;
    let client = patient(&fleet).await;
    make_topic(&client, compact_topic().replication_factor(1)).await;
    let mut ledger = ledger(&client);
    ledger.more(4).await;
    let only = place(&client, TOPIC, 0).await.replicas;
    compacted(&fleet, only[0], 1.0).await;
    let started = start(&client, NewPlan::replicate(TOPIC, 3)).await;
    copied(&client, 1).await;
    // Not that one: nothing could be written meanwhile.
    let others = fleet.nodes().into_iter().find(|node| only != [*node]);
    die(&mut fleet, &mut ledger, others.expect("two more")).await;
    moved(&client, started.id).await;
    let now = place(&client, TOPIC, 0).await;
    assert_eq!(now.replicas, [1, 2, 3], "{now:?}");
    goes_on(&fleet, &mut ledger).await;
    for node in fleet.nodes() {
        fleet.caught_up(node).await;
    }
    agree(&fleet, &client, &ledger.latest).await;
    healthy(&fleet, &client).await;
}
