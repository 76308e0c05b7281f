//! Dead letters on real brokers: exactly the poisoned keys are set aside, over restarts and a dead
//! leader, and a redrive brings back exactly those, in order, to that group alone.

use std::collections::BTreeSet;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use highwater_client::group::redrive::Selection;
use highwater_client::group::{GroupWorker, HandlerError, RetryPolicy};
use highwater_client::resilience::Backoff;
use highwater_client::{Client, NewTopic, ProducerRecord};
use parking_lot::Mutex;

use super::fleet::{Fleet, PATIENCE};
use super::group_sdk_members::{
    CALM, Seen, all_committed, check, member, note, noting, number, produce,
};
use super::journal::make_topic;

type Poison = Arc<Mutex<BTreeSet<u32>>>;

const KEYS: u32 = 16;

fn worker(client: &Client, seen: &Seen, poison: &Poison) -> GroupWorker {
    let (seen, poison) = (Arc::clone(seen), Arc::clone(poison));
    let policy = RetryPolicy::default().backoff(Backoff {
        first: Duration::from_millis(5),
        most: Duration::from_millis(50),
    });
    let worker = member(client, "billing").retry(policy).run(move |record| {
        let (seen, poison) = (Arc::clone(&seen), Arc::clone(&poison));
        async move {
            if poison.lock().contains(&number(&record)) {
                return Err(HandlerError::retryable("cannot be billed").class("poison"));
            }
            note(&seen, &record);
            Ok(())
        }
    });
    worker.expect("settings")
}

/// Numbers in the queue that wait, and how often they were tried.
async fn waiting(client: &Client) -> BTreeSet<(u32, u32)> {
    let letters = client
        .groups()
        .timeout(PATIENCE)
        .dead_letters("billing", false)
        .await
        .expect("letters");
    let numbers = letters.iter().map(|letter| {
        let text = letter.record.value.as_deref().unwrap_or_default();
        let number = std::str::from_utf8(text)
            .expect("text")
            .parse()
            .expect("a number");
        assert_eq!(letter.letter.topic, "orders");
        (number, letter.letter.attempts)
    });
    let all: BTreeSet<_> = numbers.collect();
    assert_eq!(all.len(), letters.len(), "each once");
    all
}

/// What must wait when `poison` fails: each poisoned key from its first poisoned record on.
fn expected(poison: &[u32], total: u32) -> BTreeSet<(u32, u32)> {
    let first = |n: u32| poison.iter().filter(|p| *p % KEYS == n % KEYS).min();
    let set_aside = (0..total).filter(|n| first(*n).is_some_and(|first| first <= n));
    set_aside
        .map(|n| (n, if first(n) == Some(&n) { 3 } else { 0 }))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn group_sdk_poison_is_set_aside_exactly_and_comes_back_exactly() {
    let mut fleet = Fleet::started(3, &CALM).await;
    let client = fleet.client().await;
    make_topic(&client, NewTopic::named("orders").partitions(4)).await;
    let poisoned = [7, 40, 55, 71];
    let poison: Poison = Arc::new(Mutex::new(poisoned.into()));
    let (seen, others) = (Seen::default(), Seen::default());
    let first = worker(&client, &seen, &poison);
    let stranger = noting(member(&client, "shipping"), &others);
    produce(&client, KEYS, 0..200).await;
    all_committed(&client, "billing", 200).await;
    assert_eq!(waiting(&client).await, expected(&poisoned, 200));

    // Parked keys outlive the member and the coordinator.
    first.stop().await.expect("committed");
    let described = client
        .groups()
        .timeout(PATIENCE)
        .describe("billing")
        .await
        .expect("described");
    let coordinator = described.summary.expect("a summary").coordinator;
    fleet.kill(coordinator).await;
    let second = worker(&client, &seen, &poison);
    produce(&client, KEYS, 200..260).await;
    all_committed(&client, "billing", 260).await;
    fleet.start(coordinator);
    fleet.ready(coordinator).await;
    assert_eq!(waiting(&client).await, expected(&poisoned, 260));

    poison.lock().clear();
    bring_back(&client, &poisoned).await;
    second.stop().await.expect("committed");
    let handled = seen.lock().clone();
    // None missing, none twice, in order.
    let repeats = check(&handled, KEYS, 400);
    assert_eq!((handled.len(), repeats), (400, 0));
    all_committed(&client, "shipping", 400).await;
    stranger.stop().await.expect("committed");
    assert_eq!(others.lock().len(), 400, "a redrive went to another group");
}

/// Without a key there is no order: each record that fails waits for itself, whatever else fails
/// before it, after it, or again.
#[tokio::test(flavor = "multi_thread")]
async fn group_sdk_records_without_a_key_wait_until_they_were_handled() {
    let fleet = Fleet::started(3, &CALM).await;
    let client = fleet.client().await;
    make_topic(&client, NewTopic::named("orders").partitions(2)).await;
    let all: BTreeSet<u32> = (0..200).filter(|n| n % 7 == 3).collect();
    let poison: Poison = Arc::new(Mutex::new(all.clone()));
    let seen = Seen::default();
    let worker = worker(&client, &seen, &poison);
    let producer = client.producer().delivery_timeout(PATIENCE).build();
    // All at once, so that they fail in any order.
    let mut acks = Vec::new();
    for number in 0..200_u32 {
        let record = ProducerRecord::to("orders").value(number.to_string());
        let record = record.partition(number % 2);
        acks.push(producer.enqueue(record).await.expect("taken"));
    }
    for ack in acks {
        ack.await.expect("acknowledged");
    }
    all_committed(&client, "billing", 200).await;
    let numbers = async || {
        let waiting = waiting(&client).await;
        waiting.into_iter().map(|(n, _)| n).collect::<BTreeSet<_>>()
    };
    assert_eq!(numbers().await, all);
    let admin = client.groups().timeout(PATIENCE);
    let everything = Selection::default();
    let stubborn = BTreeSet::from([10, 101, 185]);
    poison.lock().clone_from(&stubborn);
    for records in [all.len() - stubborn.len(), 0] {
        let done = admin.redrive("billing", &everything, |_, _| {}).await;
        assert_eq!(done.expect("redriven").records, records as u64);
        assert_eq!(numbers().await, stubborn);
    }
    poison.lock().clear();
    let done = admin.redrive("billing", &everything, |_, _| {}).await;
    assert_eq!(done.expect("redriven").failed_keys, 0);
    assert_eq!(numbers().await, BTreeSet::new());
    worker.stop().await.expect("committed");
    let mut handled: Vec<u32> = seen.lock().iter().map(|(_, number)| *number).collect();
    handled.sort_unstable();
    assert_eq!(handled, (0..200).collect::<Vec<_>>(), "each once");
}

/// Redrives what waits of 260 records, while 140 more come.
async fn bring_back(client: &Client, poisoned: &[u32]) {
    // One key by name, with its later records behind it; then the rest, while more come.
    let one = Selection {
        key: Some("k7".into()),
        ..Selection::default()
    };
    let admin = client.groups().timeout(PATIENCE);
    let done = admin
        .redrive("billing", &one, |_, _| {})
        .await
        .expect("redriven");
    let of_key = expected(poisoned, 260)
        .iter()
        .filter(|(n, _)| n % KEYS == 7)
        .count();
    assert_eq!(
        (done.records, done.keys, done.failed_keys),
        (of_key as u64, 1, 0)
    );
    let rest: BTreeSet<_> = expected(poisoned, 260)
        .into_iter()
        .filter(|(n, _)| n % KEYS != 7)
        .collect();
    assert_eq!(waiting(client).await, rest);
    let producing = tokio::spawn({
        let client = client.clone();
        async move { produce(&client, KEYS, 260..400).await }
    });
    admin
        .redrive("billing", &Selection::default(), |_, _| {})
        .await
        .expect("redriven");
    producing.await.expect("produced");
    all_committed(client, "billing", 400).await;
    // Records on their way when a key unparked may have parked it again.
    admin
        .redrive("billing", &Selection::default(), |_, _| {})
        .await
        .expect("redriven");
    assert_eq!(waiting(client).await, BTreeSet::new());
}

fn highwater(fleet: &Fleet, args: &[&str]) -> (i32, String) {
    let run = Command::new(env!("CARGO_BIN_EXE_highwater"))
        .args(args)
        .args(["--brokers", &fleet.spec(1).address()])
        .output();
    let run = run.expect("ran");
    let text = String::from_utf8_lossy(&run.stdout).into_owned();
    let said = String::from_utf8_lossy(&run.stderr).into_owned();
    eprintln!("$ highwater {}\n{text}{said}", args.join(" "));
    (run.status.code().unwrap_or(-1), text)
}

#[tokio::test(flavor = "multi_thread")]
async fn group_sdk_the_command_line_shows_groups_and_moves_them() {
    let fleet = Fleet::started(1, &[]).await;
    let client = fleet.client().await;
    make_topic(
        &client,
        NewTopic::named("orders")
            .partitions(2)
            .replication_factor(1),
    )
    .await;
    let poison: Poison = Arc::new(Mutex::new([2].into()));
    let seen = Seen::default();
    let first = worker(&client, &seen, &poison);
    produce(&client, 4, 0..20).await;
    all_committed(&client, "billing", 20).await;
    let run = |args: &[&str]| highwater(&fleet, args);

    let (code, text) = run(&["group", "list"]);
    assert!(
        code == 0 && text.contains("billing") && text.contains("GROUP"),
        "{text}"
    );
    let (_, text) = run(&["group", "describe", "billing"]);
    for column in [
        "GROUP",
        "TOPIC",
        "PARTITION",
        "CURRENT-OFFSET",
        "LOG-END-OFFSET",
        "LAG",
        "MEMBER-ID",
        "CLIENT-ID",
        "HOST",
    ] {
        assert!(text.contains(column), "no {column}");
    }
    run(&["group", "describe", "billing", "--members"]);
    let (code, text) = run(&["dlq", "list", "billing"]);
    assert!(
        code == 0 && text.contains("k2") && text.contains("poison"),
        "{text}"
    );
    let (_, text) = run(&["dlq", "show", "billing", "--output", "json"]);
    assert_eq!(text.lines().count(), 5, "2, 6, 10, 14, 18");
    let (code, _) = run(&["group", "reset", "billing", "--to", "earliest"]);
    assert_eq!(code, 1, "it has members");
    poison.lock().clear();
    let (code, text) = run(&["dlq", "redrive", "billing", "--key", "k2", "--rate", "1000"]);
    assert!(code == 0 && text.contains("5 records"), "{text}");
    assert_eq!(waiting(&client).await, BTreeSet::new());
    first.stop().await.expect("committed");
    offsets_are_moved(&fleet, &client).await;
}

/// The group has no members any more.
async fn offsets_are_moved(fleet: &Fleet, client: &Client) {
    let run = |args: &[&str]| highwater(fleet, args);
    let (code, text) = run(&[
        "group", "reset", "billing", "--topics", "orders", "--to", "-3",
    ]);
    assert!(code == 0 && text.contains("--execute"), "{text}");
    all_committed(client, "billing", 20).await;
    let (code, _) = run(&[
        "group",
        "reset",
        "billing",
        "--topics",
        "orders",
        "--to",
        "-3",
        "--execute",
    ]);
    assert_eq!(code, 0);
    all_committed(client, "billing", 14).await;
    assert_eq!(run(&["group", "copy", "billing", "audit"]).0, 0);
    all_committed(client, "audit", 14).await;
    let (code, text) = run(&[
        "consume", "orders", "--group", "audit", "-n", "6", "-f", "%v\\n",
    ]);
    assert!(code == 0 && text.lines().count() == 6, "{text}");
    all_committed(client, "audit", 20).await;
    assert_eq!(run(&["group", "delete", "audit", "billing"]).0, 0);
    assert_eq!(run(&["group", "describe", "billing"]).0, 1);
}
