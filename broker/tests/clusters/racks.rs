//! Replicas of a shard are on different racks, also when a broker comes, and when one goes.

use std::collections::{BTreeMap, BTreeSet};

use highwater_client::{Client, NewPlan, NewTopic, NodeId};

use super::failover::Load;
use super::fleet::Fleet;
use super::journal::{Journal, make_topic};
use super::life::{CALM, check_replicas, ended, loads, moved, patient, shards, start};

const RACKS: [(u32, &str); 4] = [(1, "a"), (2, "b"), (3, "c"), (4, "c")];

/// Each shard of three replicas has one on each rack.
async fn on_all_racks(client: &Client) {
    let racks: BTreeMap<u32, &str> = RACKS.into();
    let shards = shards(client).await.into_iter();
    let shards: Vec<_> = shards.filter(|s| s.replication_factor == 3).collect();
    assert_eq!(shards.len(), 24);
    for shard in shards {
        let on: BTreeSet<&str> = shard.replicas.iter().map(|node| racks[node]).collect();
        assert_eq!(on.len(), 3, "{shard:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_stay_on_different_racks() {
    let mut fleet = Fleet::of(3, &CALM).await;
    for (node, rack) in RACKS.into_iter().take(3) {
        fleet.set(node, "node.rack", rack);
    }
    fleet.start_all().await;
    let client = patient(&fleet).await;
    make_topic(&client, NewTopic::named("orders").partitions(12)).await;
    on_all_racks(&client).await;
    let load = Load::start(client.producer().build(), Journal::of("orders"));
    load.progress(100).await;

    eprintln!(
        "a second broker comes to rack c: it takes from the other one there, and from nobody else"
    );
    fleet.add(4);
    fleet.set(4, "node.rack", "c");
    fleet.start(4);
    fleet.ready(4).await;
    let plan = start(&client, NewPlan::rebalance()).await;
    let replicated = plan.moves.iter().filter(|step| step.remove == Some(3));
    assert_eq!(replicated.count(), 12, "{plan:?}");
    moved(&client, 2).await;
    fleet.kill(4).await;
    load.progress(50).await;
    fleet.start(4);
    ended(&client, plan.id).await;
    on_all_racks(&client).await;
    let half: BTreeMap<u32, usize> = [(1, 24), (2, 24), (3, 12), (4, 12)].into();
    assert_eq!(loads(&client, 3).await, half);

    eprintln!("one of them goes: the other one takes all of it back");
    let plan = start(&client, NewPlan::drain(NodeId(3))).await;
    ended(&client, plan.id).await;
    on_all_racks(&client).await;
    for node in fleet.nodes() {
        fleet.ready(node).await;
        fleet.caught_up(node).await;
    }
    let journal = load.end().await.unharmed("racks");
    check_replicas(&fleet, &journal).await;
}
