//! Brokers that know only each other's addresses become one cluster, and stay it.

use std::collections::BTreeSet;
use std::time::Duration;

use highwater_client::{NewPlan, NewTopic, NodeId, ReadFrom};
use highwater_proto::v1::DescribeClusterRequest;
use highwater_proto::v1::admin_client::AdminClient;

use super::fleet::{Fleet, eventually};
use super::journal::{Journal, make_topic};
use super::life::{CALM, ended};
use super::refusals::edit_identity;

async fn cluster_id(fleet: &Fleet, node: u32) -> String {
    let mut admin = AdminClient::connect(fleet.uri(node)).await.expect("a door");
    let answer = admin.describe_cluster(DescribeClusterRequest {}).await;
    let answer = answer.expect("described").into_inner();
    assert_eq!(answer.brokers.len(), fleet.nodes().len());
    answer.cluster_id
}

/// The one cluster id that all brokers name.
async fn same_cluster(fleet: &Fleet) -> String {
    let mut ids = BTreeSet::new();
    for node in fleet.nodes() {
        ids.insert(cluster_id(fleet, node).await);
    }
    assert_eq!(ids.len(), 1, "one cluster: {ids:?}");
    ids.pop_first().expect("one")
}

#[tokio::test(flavor = "multi_thread")]
async fn three_brokers_become_one_cluster_in_any_order_and_stay_it() {
    let mut fleet = Fleet::of(3, &[]).await;
    fleet.start(3);
    fleet.logged(3, "waiting for the other founders").await;
    fleet.start(1);
    fleet.logged(1, "waiting for the other founders").await;
    // Two of three found nothing, not even when one of them starts over.
    fleet.kill(1).await;
    fleet.start(1);
    fleet.start(2);
    for node in fleet.nodes() {
        fleet.ready(node).await;
    }
    let id = same_cluster(&fleet).await;
    let client = fleet.client().await;
    make_topic(&client, NewTopic::named("orders").partitions(4)).await;
    let mut journal = Journal::of("orders");
    let producer = client.producer().build();
    journal.produce(&producer, 200).await;

    eprintln!("one is restarted gracefully, one after a crash");
    fleet.stop(2).await;
    journal.produce(&producer, 50).await;
    fleet.start(2);
    fleet.kill(3).await;
    fleet.start(3);
    fleet.ready(2).await;
    fleet.ready(3).await;
    assert_eq!(same_cluster(&fleet).await, id);
    journal.produce(&producer, 50).await;

    eprintln!("all are stopped, and started the other way round");
    fleet.stop_all().await;
    for node in [3, 2, 1] {
        fleet.start(node);
    }
    for node in fleet.nodes() {
        fleet.ready(node).await;
    }
    assert_eq!(same_cluster(&fleet).await, id);
    journal.produce(&producer, 50).await;
    for node in fleet.nodes() {
        fleet.caught_up(node).await;
    }
    journal.check_everywhere(&client, &fleet.nodes()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_alone_is_a_cluster() {
    let mut fleet = Fleet::started(1, &[]).await;
    says_where_it_is(&fleet, 1);
    let id = same_cluster(&fleet).await;
    let client = fleet.client().await;
    // The cluster's default of three replicas is more than there can be.
    make_topic(&client, NewTopic::named("orders").partitions(2)).await;
    let factor = client.admin().describe_topic("orders").await;
    let factor = factor.expect("described").topic.expect("a topic");
    assert_eq!(factor.replication_factor, 1);
    let too_many = NewTopic::named("more").replication_factor(3);
    let error = client.admin().create_topic(too_many).await;
    let error = error.expect_err("one broker cannot have three replicas");
    eprintln!("  says: {error}");
    let mut journal = Journal::of("orders");
    let producer = client.producer().build();
    journal.produce(&producer, 300).await;

    fleet.kill_all().await;
    fleet.start_all().await;
    assert_eq!(same_cluster(&fleet).await, id);
    journal.produce(&producer, 50).await;
    journal.check(&client, ReadFrom::Leader, &[]).await;
    fleet.stop_all().await;
    fleet.start_all().await;
    journal.check(&client, ReadFrom::Leader, &[]).await;
    let healthy = eventually("health after a restart", async || {
        let (code, body) = fleet.http(1, "/healthz?verbose").await;
        (code == 200).then_some(body)
    });
    eprintln!("{}", healthy.await);
}

/// Addresses, data and durability, in one line at the start.
fn says_where_it_is(fleet: &Fleet, node: u32) {
    let (log, spec) = (fleet.log(node), fleet.spec(node));
    let line = log.lines().find(|line| line.contains(" started "));
    let line = line.unwrap_or_else(|| panic!("it did not say where it is: {log}"));
    eprintln!("  says: {line}");
    let admin = spec.admin_address().to_string();
    let data = spec.data_dir.display().to_string();
    let id = format!("node_id={node}");
    for word in [&id, &spec.address(), &admin, &data, "fsynced by a majority"] {
        assert!(line.contains(word), "no {word} in: {line}");
    }
}

/// The one that made the cluster's id lost its disk before it made the cluster: the others wait for
/// a founding that nobody can finish.
#[tokio::test(flavor = "multi_thread")]
async fn a_founding_whose_founder_lost_its_disk_is_begun_anew() {
    let mut fleet = Fleet::of(3, &[]).await;
    for node in [2, 3] {
        fleet.start(node);
        fleet.logged(node, "waiting for the other founders").await;
        fleet.kill(node).await;
        let adopted = "\"cluster_id\": \"00000000000000000000000000000abc\"";
        let dir = fleet.data_dir(node);
        edit_identity(&dir, "\"cluster_id\": null", adopted);
    }
    fleet.start_all().await;
    let id = same_cluster(&fleet).await;
    assert_ne!(id, "00000000000000000000000000000abc");
    let client = fleet.client().await;
    make_topic(&client, NewTopic::named("orders").partitions(3)).await;
    let mut journal = Journal::of("orders");
    journal.produce(&client.producer().build(), 50).await;
    fleet.kill_all().await;
    fleet.start_all().await;
    assert_eq!(same_cluster(&fleet).await, id);
    journal.check(&client, ReadFrom::Leader, &[]).await;
}

/// A broker is lost in the moment in which the cluster is made, before it has begun the groups that it was to
/// lead: the others begin them in its place, and only then is it replaced.
#[tokio::test(flavor = "multi_thread")]
async fn groups_whose_first_leader_is_lost_at_once_are_begun_by_the_others() {
    let mut fleet = Fleet::of(3, &CALM).await;
    for node in fleet.nodes() {
        fleet.start(node);
    }
    fleet.logged(1, "founding the cluster").await;
    fleet.kill(3).await;
    let client = fleet.client().await;
    let replace = NewPlan::replace(NodeId(3));
    let early = eventually("a word about the replacement", async || {
        let admin = client.admin().timeout(Duration::from_secs(1));
        let refused = admin.start_plan(replace.clone()).await;
        let said = refused.expect_err("too early").to_string();
        said.contains("has had no leader yet").then_some(said)
    });
    eprintln!("  says: {}", early.await);

    let begun = "the group is begun here";
    eventually("groups are begun by the others", async || {
        let said = |node| fleet.log(node).contains(begun);
        (said(1) || said(2)).then_some(())
    })
    .await;
    make_topic(&client, NewTopic::named("orders").partitions(24)).await;
    let mut journal = Journal::of("orders");
    let producer = client.producer().build();
    journal.produce(&producer, 200).await;

    std::fs::remove_dir_all(fleet.data_dir(3)).expect("wiped");
    let plan = eventually("it can be replaced", async || {
        client.admin().start_plan(replace.clone()).await.ok()
    });
    let plan = plan.await;
    fleet.start(3);
    ended(&client, plan.id).await;
    for node in fleet.nodes() {
        fleet.ready(node).await;
        fleet.caught_up(node).await;
    }
    journal.produce(&producer, 50).await;
    journal.check_everywhere(&client, &fleet.nodes()).await;
}
