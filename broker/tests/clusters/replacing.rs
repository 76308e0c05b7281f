//! A broker's disk is lost: an empty one under the same id is filled by the others.

use std::fs;

use highwater_client::{Client, NewPlan, NewTopic, NodeId};

use super::failover::Load;
use super::fleet::{Fleet, eventually};
use super::journal::{Journal, make_topic};
use super::life::{CALM, check_replicas, done, ended, healthy, moved, start, told};

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_disk_is_given_up_and_filled_again() {
    let mut fleet = Fleet::started(3, &CALM).await;
    let client = fleet.client().await;
    make_topic(&client, NewTopic::named("orders").partitions(12)).await;
    let load = Load::start(client.producer().build(), Journal::of("orders"));
    load.progress(300).await;

    eprintln!("an empty disk under a known id is not let in by itself");
    fleet.kill(3).await;
    fs::remove_dir_all(fleet.data_dir(3)).expect("wiped");
    fleet.refused(3).await.expect(1, &["cluster replace 3"]);
    fs::remove_dir_all(fleet.data_dir(3)).expect("wiped");
    load.progress(100).await;

    eprintln!("it is replaced");
    told(&client, "broker 3 counts as away", |found| {
        found.cure.contains("cluster replace 3")
    })
    .await;
    let started = start(&client, NewPlan::replace(NodeId(3))).await;
    assert_eq!(started.moves.len(), 24 + 2);
    load.progress(100).await;
    fleet.start(3);
    moved(&client, 3).await;

    eprintln!("the driver and the new broker die in the middle");
    let cluster = client.admin().describe_cluster().await.expect("described");
    let driver = cluster.metadata_leader.expect("one");
    fleet.kill(3).await;
    fleet.start(3);
    moved(&client, 5).await;
    fleet.kill(driver).await;
    fleet.start(driver);
    let plan = ended(&client, started.id).await;
    assert_eq!(done(&plan), 26, "{plan:?}");
    for node in fleet.nodes() {
        fleet.ready(node).await;
        fleet.caught_up(node).await;
    }
    healthy(&fleet, &client).await;

    eprintln!("it votes: any one of the others may go");
    for node in [1, 2] {
        fleet.kill(node).await;
        load.progress(100).await;
        fleet.start(node);
        fleet.ready(node).await;
        fleet.caught_up(node).await;
    }
    let journal = load.end().await.unharmed("replacing");
    check_replicas(&fleet, &journal).await;

    one_goes_and_the_others_must_stay(&mut fleet, &client).await;
}

async fn one_goes_and_the_others_must_stay(fleet: &mut Fleet, client: &Client) {
    let admin = client.admin();
    // Told from what brokers said last: one that has just recovered counts from its next heartbeat.
    eventually("any one may go", async || {
        let verdicts = admin.restart_check(None).await.ok()?;
        verdicts.iter().all(|verdict| verdict.safe).then_some(())
    })
    .await;
    fleet.stop(2).await;
    eventually("the others must stay", async || {
        let verdicts = admin.restart_check(Some(NodeId(1))).await.ok()?;
        let reason = verdicts[0].reasons.first()?;
        eprintln!("  says: {reason}");
        (!verdicts[0].safe).then_some(())
    })
    .await;
    fleet.start(2);
    fleet.ready(2).await;
}
