//! A cluster grows and shrinks under load, while those who drive it die.

use std::collections::BTreeMap;

use highwater_client::{Client, NewPlan, NewTopic, NodeId};

use super::failover::Load;
use super::fleet::{Fleet, PATIENCE, refused};
use super::journal::{Journal, make_topic};
use super::life::{
    CALM, check_replicas, done, ended, healthy, leads, loads, metadata_leader, moved, plan, start,
};

#[tokio::test(flavor = "multi_thread")]
async fn a_fourth_broker_gets_its_share_and_a_founder_is_removed() {
    let mut fleet = Fleet::started(3, &CALM).await;
    let client = fleet.client().await;
    make_topic(&client, NewTopic::named("orders").partitions(12)).await;
    let journal = Journal::of("orders");
    let load = Load::start(client.producer().build(), journal);
    load.progress(200).await;

    eprintln!("a fourth broker joins");
    fleet.add(4);
    fleet.start(4);
    fleet.ready(4).await;
    let dry = start(&client, NewPlan::rebalance().dry_run(true)).await;
    assert_eq!(dry.moves.len(), 19, "{dry:?}");
    assert!(dry.moves.iter().all(|step| step.add == 4));
    assert!(loads(&client, 3).await.values().all(|load| *load == 24));

    eprintln!("its share comes, while the driver, the target and a leader are killed");
    let started = start(&client, NewPlan::rebalance().parallel(2)).await;
    let error = client.admin().start_plan(NewPlan::rebalance()).await;
    eprintln!("  says: {}", error.expect_err("one plan at a time"));
    moved(&client, 2).await;
    let driver = metadata_leader(&client).await;
    fleet.kill(driver).await;
    load.progress(100).await;
    moved(&client, 4).await;
    fleet.start(driver);
    fleet.kill(4).await;
    load.progress(100).await;
    fleet.start(4);
    moved(&client, 6).await;
    let leader = fleet.leader(&client, "orders", 0).await;
    fleet.ready(driver).await;
    fleet.ready(4).await;
    fleet.caught_up(driver).await;
    fleet.kill(leader).await;
    load.progress(100).await;
    fleet.start(leader);
    let plan = ended(&client, started.id).await;
    assert_eq!(done(&plan), 19, "{plan:?}");
    let even: BTreeMap<u32, usize> = (1..=4).map(|node| (node, 18)).collect();
    assert_eq!(loads(&client, 3).await, even);
    let even: BTreeMap<u32, usize> = (1..=4).map(|node| (node, 6)).collect();
    assert_eq!(leads(&client, 3).await, even);
    for node in fleet.nodes() {
        fleet.ready(node).await;
        fleet.caught_up(node).await;
    }
    healthy(&fleet, &client).await;
    let journal = load.end().await.unharmed("growing");
    check_replicas(&fleet, &journal).await;

    a_founder_goes(&mut fleet, &client, journal).await;
}

async fn keeps_nothing(fleet: &Fleet, node: u32) {
    super::fleet::eventually("it keeps nothing", async || {
        let shards = fleet.data_dir(node).join("shards");
        let left = std::fs::read_dir(shards).expect("listed").count();
        (left == 0).then_some(())
    })
    .await;
}

/// Broker 1 gives everything away, leaves, and is not let in again.
async fn a_founder_goes(fleet: &mut Fleet, client: &Client, journal: Journal) {
    eprintln!("a founder is drained; the plan is cancelled once, and begun again");
    let load = Load::start(client.producer().build(), journal);
    let admin = client.admin().timeout(PATIENCE);
    let remove = admin.remove_broker(NodeId(1), false).await;
    eprintln!("  says: {}", remove.expect_err("it holds replicas"));
    let started = start(client, NewPlan::drain(NodeId(1)).parallel(1)).await;
    moved(client, 2).await;
    admin.cancel_plan().await.expect("cancelled");
    let cancelled = ended(client, started.id).await;
    assert!(cancelled.cancelled && done(&cancelled) < cancelled.moves.len());
    load.progress(100).await;
    let started = start(client, NewPlan::drain(NodeId(1))).await;
    moved(client, 2).await;
    let driver = metadata_leader(client).await;
    eprintln!("broker {driver}, which drives it, dies");
    fleet.kill(driver).await;
    load.progress(50).await;
    fleet.start(driver);
    ended(client, started.id).await;
    fleet.ready(driver).await;
    assert_eq!(plan(client).await.id, started.id);
    assert!(!loads(client, 3).await.contains_key(&1));
    assert!(!loads(client, 1).await.contains_key(&1));
    keeps_nothing(fleet, 1).await;
    load.progress(100).await;

    eprintln!("it is removed, and its directory does not come back");
    admin
        .remove_broker(NodeId(1), false)
        .await
        .expect("removed");
    super::fleet::eventually("it says that it is none of them", async || {
        let (status, said) = fleet.http(1, "/readyz").await;
        let why = ["removed or replaced", "does not hear this broker"];
        let told = why.iter().any(|why| said.contains(why));
        (status == 503 && told).then_some(())
    })
    .await;
    fleet.stop(1).await;
    super::fleet::eventually("broker 1 is forgotten", async || {
        let brokers = admin.describe_cluster().await.ok()?.brokers;
        brokers.iter().all(|known| known.id != 1).then_some(())
    })
    .await;
    let spec = fleet.forget(1);
    let refusal = refused(spec.clone()).await;
    refusal.expect(1, &["replaced or removed", "empty"]);
    load.progress(100).await;
    healthy(fleet, client).await;
    for node in fleet.nodes() {
        fleet.caught_up(node).await;
    }
    let journal = load.end().await.unharmed("shrinking");
    check_replicas(fleet, &journal).await;

    eprintln!("and three of the four it had are a cluster like any other");
    fleet.kill_all().await;
    fleet.start_all().await;
    let load = Load::start(client.producer().build(), journal);
    load.progress(100).await;
    let journal = load.end().await.unharmed("after a restart");
    for node in fleet.nodes() {
        fleet.caught_up(node).await;
    }
    check_replicas(fleet, &journal).await;
}
