//! A partition goes to another shard while a replica is away, and comes back in the middle of it, or after it: what
//! it lacks is the beginning of a copy, or the whole of a move, and the log of it is gone.

use highwater_client::{Client, NewPlan, PartitionId, ShardId, v1};

use super::failover::Load;
use super::fleet::{Fleet, eventually};
use super::journal::Journal;
use super::life::{CALM, check_replicas, ended, healthy, start};
use super::moving::{another, copied, large_topic, only, place, shard_leader, slow_fleet};

/// Less than a copy writes, so that who is away lacks more than is kept.
const LITTLE_LOG: [(&str, &str); 9] = [
    CALM[0],
    CALM[1],
    ("limits.move_bytes_per_second", "1MiB"),
    ("storage.checkpoint_interval_ms", "1s"),
    ("wal.file_bytes", "1MiB"),
    ("wal.budget_bytes", "4MiB"),
    ("storage.checkpoint_bytes", "512KiB"),
    ("limits.log_cache_bytes", "1MiB"),
    ("limits.tail_cache_bytes", "1MiB"),
];

/// Who leads neither where the partition is nor where it goes.
async fn third(client: &Client, from: u32, to: ShardId) -> u32 {
    eventually("they have different leaders", async || {
        let source = shard_leader(client, ShardId(from)).await;
        let target = shard_leader(client, to).await;
        (source != target).then(|| 6 - source - target)
    })
    .await
}

async fn moved(client: &Client, to: ShardId) -> v1::Plan {
    let wanted = NewPlan::move_partition("orders", PartitionId(0), to);
    start(client, wanted).await
}

async fn is_done(client: &Client, plan: &v1::Plan) {
    let ended = ended(client, plan.id).await;
    assert_eq!(
        ended.partitions[0].state(),
        v1::MoveState::Done,
        "{ended:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn who_was_away_while_a_partition_moved_catches_up() {
    let mut fleet = Fleet::started(3, &LITTLE_LOG).await;
    let (client, topic, load) = large_topic(&fleet, 256).await;
    load.progress(50).await;

    let before = place(&client, "orders", 0).await;
    let to = another(&client, &before).await;
    let away = third(&client, before.shard, to).await;
    eprintln!("broker {away} is away while the copy begins, and comes back in the middle");
    fleet.kill(away).await;
    let plan = moved(&client, to).await;
    copied(&client, 80).await;
    fleet.start(away);
    fleet.ready(away).await;
    let half = copied(&client, 100).await;
    assert_eq!(half.state(), v1::MoveState::Learning);
    fleet.kill(away).await;
    fleet.start(away);
    fleet.ready(away).await;
    fleet.logged(away, "took a checkpoint instead").await;

    eprintln!("who carries it out dies: the others go on with what they have of the copy");
    let target = shard_leader(&client, to).await;
    fleet.kill(target).await;
    load.progress(50).await;
    fleet.start(target);
    fleet.ready(target).await;
    is_done(&client, &plan).await;
    only(&fleet, topic, &format!("{topic}-0-{}", plan.id)).await;
    load.progress(50).await;
    for node in fleet.nodes() {
        fleet.caught_up(node).await;
    }

    let back = ShardId(before.shard);
    let away = third(&client, to.0, back).await;
    eprintln!("broker {away} is away from the middle of a copy until the partition has long moved");
    let plan = moved(&client, back).await;
    copied(&client, 40).await;
    fleet.kill(away).await;
    is_done(&client, &plan).await;
    load.progress(200).await;
    fleet.start(away);
    fleet.ready(away).await;
    fleet.caught_up(away).await;
    only(&fleet, topic, &format!("{topic}-0-{}", plan.id)).await;
    let journal = load.end().await.unharmed("late");
    check_replicas(&fleet, &journal).await;

    others_go(&mut fleet, (&client, away), journal).await;
}

async fn others_go(fleet: &mut Fleet, (client, stays): (&Client, u32), journal: Journal) {
    eprintln!("and it leads: the others go one by one");
    let load = Load::start(client.producer().build(), journal);
    for node in fleet.nodes().into_iter().filter(|node| *node != stays) {
        fleet.kill(node).await;
        load.progress(50).await;
        fleet.start(node);
        fleet.ready(node).await;
        fleet.caught_up(node).await;
    }
    let journal = load.end().await.unharmed("the late one leads");
    healthy(fleet, client).await;
    check_replicas(fleet, &journal).await;
}

/// A replica that stands still in the middle of a copy, and goes on after the switch: neither as a leader of the
/// shard that the partition left, nor of the one that it goes to, does it say anything wrong.
#[tokio::test(flavor = "multi_thread")]
async fn who_stood_still_while_a_partition_moved_serves_nothing_old() {
    let fleet = slow_fleet(3, "1MiB").await;
    let (client, topic, load) = large_topic(&fleet, 64).await;
    load.progress(50).await;
    let before = place(&client, "orders", 0).await;
    let to = another(&client, &before).await;
    let mut last = 0;
    for (who, goal) in [("source", to), ("target", ShardId(before.shard))] {
        let from = ShardId(place(&client, "orders", 0).await.shard);
        let plan = moved(&client, goal).await;
        copied(&client, 16).await;
        let shard = if who == "source" { from } else { goal };
        let stands = shard_leader(&client, shard).await;
        eprintln!("the {who}, broker {stands}, stands still from the middle of the copy on");
        fleet.pause(stands);
        load.progress(20).await;
        is_done(&client, &plan).await;
        load.progress(50).await;
        fleet.resume(stands);
        load.progress(50).await;
        last = plan.id;
    }
    only(&fleet, topic, &format!("{topic}-0-{last}")).await;
    let journal = load.end().await.unharmed("standing still");
    healthy(&fleet, &client).await;
    check_replicas(&fleet, &journal).await;
}
