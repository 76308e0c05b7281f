//! What an operator does to a running cluster, by the commands that operators have: dry runs, tables, JSON, waiting
//! with progress, exit codes, and what is said when something cannot be.

use highwater_client::{Client, NewTopic, v1};

use super::commands::{command, ended, run};
use super::failover::Load;
use super::fleet::{Fleet, eventually};
use super::journal::{Journal, make_topic};
use super::life::{CALM, check_replicas, healthy, metadata_leader, moved, patient};

#[tokio::test(flavor = "multi_thread")]
async fn topics_are_changed_by_commands() {
    let mut fleet = Fleet::started(3, &CALM).await;
    let client = patient(&fleet).await;
    let dry = run(&fleet, "topic create orders -p 6 --dry-run").await;
    dry.expect(0, &["could be created", "6  "]);
    let dry = run(&fleet, "topic describe orders").await;
    dry.expect(1, &["no topic is named", "topic list"]);
    run(&fleet, "topic create orders -p 6 -c segment.bytes=65536")
        .await
        .expect(0, &["created"]);
    let some = run(&fleet, "topic create one orders two").await;
    some.expect(1, &["one", "two", "failed", "exists already"]);
    let all = run(
        &fleet,
        "topic create one orders two --if-not-exists --output json",
    )
    .await;
    let all = all.expect(0, &[]).json();
    assert_eq!(all["topics"].as_array().map(Vec::len), Some(3), "{all}");

    let altered = run(&fleet, "topic alter orders -c retention.ms=60000 --dry-run").await;
    altered.expect(0, &["WOULD BE  retention.ms=60000"]);
    let described = run(&fleet, "topic describe orders --output json").await;
    let described = described.expect(0, &[]).json();
    assert!(
        described["configs"]["retention.ms"].is_null(),
        "{described}"
    );
    let altered = run(&fleet, "topic alter orders -c retention.ms=60000000").await;
    altered.expect(0, &["NOW  retention.ms=60000000"]);
    let wrong = run(&fleet, "topic alter orders -c retention.ms=soon").await;
    wrong.expect(1, &["retention.ms", "soon"]);
    let wrong = run(&fleet, "topic alter orders").await;
    wrong.expect(2, &["--config", "--replication-factor"]);

    let grown = run(&fleet, "topic add-partitions orders --total 8 --dry-run").await;
    grown.expect(0, &["would be spread over 8"]);
    let grown = run(&fleet, "topic add-partitions orders --total 8").await;
    grown.expect(0, &["are spread over 8"]);
    let shrunk = run(&fleet, "topic add-partitions orders --total 5").await;
    shrunk.expect(1, &["8 partitions"]);
    records_are_deleted(&fleet, &client).await;

    let deleted = run(&fleet, "topic delete orders --dry-run").await;
    deleted.expect(0, &["would be deleted"]);
    let deleted = run(&fleet, "topic delete orders one nobody two").await;
    deleted.expect(1, &["orders", "nobody"]);
    let deleted = run(&fleet, "topic delete two nobody --if-exists").await;
    deleted.expect(0, &["does not exist"]);
    let none = run(&fleet, "topic list --output json").await.json();
    assert_eq!(none["topics"].as_array().map(Vec::len), Some(0), "{none}");

    eprintln!("two of three are gone");
    fleet.kill(1).await;
    fleet.kill(2).await;
    let words = ["metadata group has no leader", "start broker 1, 2: 1 of"];
    run(&fleet, "cluster health").await.expect(6, &words);
}

async fn records_are_deleted(fleet: &Fleet, client: &Client) {
    let load = Load::start(client.producer().build(), Journal::of("orders"));
    load.progress(200).await;
    load.end().await.unharmed("records");
    let dry = run(
        fleet,
        "topic delete-records orders --before +2 -p 1 --dry-run",
    )
    .await;
    dry.expect(0, &["would be deleted"]);
    let gone = run(
        fleet,
        "topic delete-records orders --before +2 -p 1 --output json",
    )
    .await;
    let gone = gone.expect(0, &[]).json();
    assert_eq!(gone["partitions"][0]["log_start"], 2, "{gone}");
    let beyond = run(fleet, "topic delete-records orders --before 100000 -p 1").await;
    beyond.expect(1, &["partition 1", "above the end of the log"]);
    let nowhere = run(fleet, "topic delete-records orders --before end -p 77").await;
    nowhere.expect(1, &["77"]);
}

/// Waits until there is such a plan.
async fn runs(client: &Client, is_it: impl Fn(&v1::Plan) -> bool) {
    eventually("the plan was begun", async || {
        let plan = client.admin().plan().await.ok()??;
        is_it(&plan).then_some(())
    })
    .await;
}

/// What cannot be is said in one line, which says what can.
async fn refusals(fleet: &Fleet) {
    for (words, said) in [
        ("cluster drain 9", "there is no broker 9"),
        ("cluster drain 1", "add a broker first"),
        ("cluster replace 1", "broker 1 answers"),
        ("cluster repair 1 999", "shard 999"),
        ("cluster remove 1", "cluster drain 1"),
        ("cluster plan cancel", "no plan is running"),
        ("cluster restart-check 9", "there is no broker 9"),
        ("topic move orders -p 0 -s 999", "shard 999"),
        ("topic move orders -p 99 -s 1", "no partition 99"),
        ("topic alter orders --replication-factor 5", "5"),
    ] {
        let ran = run(fleet, words).await.expect(1, &[said]);
        assert_eq!(ran.out, "", "{words}");
        assert_eq!(ran.err.lines().count(), 1, "{words}: {}", ran.err);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn brokers_come_and_go_by_commands() {
    let mut fleet = Fleet::started(3, &CALM).await;
    let client = patient(&fleet).await;
    make_topic(&client, NewTopic::named("orders").partitions(6)).await;
    let load = Load::start(client.producer().build(), Journal::of("orders"));
    load.progress(50).await;
    healthy(&fleet, &client).await;
    run(&fleet, "cluster health")
        .await
        .expect(0, &["Nothing is wrong"]);
    run(&fleet, "cluster restart-check")
        .await
        .expect(0, &["broker 3 may be restarted"]);
    run(&fleet, "cluster rebalance --dry-run")
        .await
        .expect(0, &["nothing would be moved"]);
    refusals(&fleet).await;

    eprintln!("a fourth broker; whoever drives the plan dies while a person waits for it");
    fleet.add(4);
    fleet.start(4);
    fleet.ready(4).await;
    run(&fleet, "cluster health")
        .await
        .expect(0, &["broker 4 holds no replicas", "cluster rebalance"]);
    run(&fleet, "cluster rebalance --dry-run")
        .await
        .expect(0, &["dry run: 1"]);
    let waiting = command(
        &fleet,
        &["cluster", "rebalance", "--wait", "--parallel", "1"],
    )
    .spawn();
    let waiting = waiting.expect("started");
    runs(&client, |plan| plan.kind() == v1::PlanKind::Rebalance).await;
    moved(&client, 2).await;
    let driver = metadata_leader(&client).await;
    fleet.kill(driver).await;
    load.progress(50).await;
    fleet.start(driver);
    let waited = ended(waiting).await.expect(0, &["moves have ended"]);
    assert!(waited.out.contains("STATUS  ended: "), "{}", waited.out);
    fleet.ready(driver).await;
    let members = run(&fleet, "cluster members --output json").await.json();
    assert_eq!(members[3]["id"], 4);
    assert!(members[3]["replicas"].as_u64() >= Some(18), "{members}");

    a_plan_is_cancelled(&fleet, &client).await;

    eprintln!("it goes again");
    let drained = run(&fleet, "cluster drain 4 --wait").await;
    drained.expect(0, &["STATUS  ended: "]);
    run(&fleet, "cluster members").await.expect(0, &["drained"]);
    run(&fleet, "cluster health")
        .await
        .expect(0, &["is drained", "cluster remove 4"]);
    fleet.stop(4).await;
    run(&fleet, "cluster remove 4 --dry-run")
        .await
        .expect(0, &["could be removed"]);
    run(&fleet, "cluster remove 4")
        .await
        .expect(0, &["removed"]);
    fleet.forget(4);
    let journal = load.end().await.unharmed("commands");
    for node in fleet.nodes() {
        fleet.caught_up(node).await;
    }
    check_replicas(&fleet, &journal).await;
}

/// Whoever waits for a plan is told that somebody has cancelled it.
async fn a_plan_is_cancelled(fleet: &Fleet, client: &Client) {
    let waiting = command(
        fleet,
        &["cluster", "drain", "4", "--wait", "--parallel", "1"],
    )
    .spawn();
    let waiting = waiting.expect("started");
    runs(client, |plan| plan.broker == 4 && !plan.ended).await;
    moved(client, 1).await;
    run(fleet, "cluster plan show")
        .await
        .expect(0, &["running", "drain broker 4"]);
    run(fleet, "cluster plan cancel")
        .await
        .expect(0, &["cancelled"]);
    let waited = ended(waiting).await;
    waited.expect(1, &["was cancelled", "cancelled"]);
    let shown = run(fleet, "cluster plan show --wait --output json").await;
    assert_eq!(shown.json()["cancelled"], true);
}
