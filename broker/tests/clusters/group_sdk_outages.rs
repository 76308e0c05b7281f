//! Groups while brokers are restarted one by one, and while the coordinator stands still: no key
//! loses its order, no record is passed over, nobody is expelled who is there.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use highwater_client::group::redrive::Selection;
use highwater_client::group::{GroupWorker, HandlerError, RetryPolicy};
use highwater_client::resilience::Backoff;
use highwater_client::{Client, NewTopic};
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use super::fleet::{Fleet, PATIENCE, eventually};
use super::group_sdk_members::{
    CALM, Seen, all_committed, check, committed, member, noting, number, produce,
};
use super::journal::make_topic;

const KEYS: u32 = 24;

async fn coordinator(client: &Client) -> u32 {
    let admin = client.groups().timeout(PATIENCE);
    let described = admin.describe("billing").await.expect("described");
    described.summary.expect("a summary").coordinator
}

async fn expelled(fleet: &Fleet) -> f64 {
    let mut sum = 0.0;
    for node in fleet.nodes() {
        let metric = fleet.metric(node, "highwater_group_members_expelled_total");
        sum += metric.await.unwrap_or(0.0);
    }
    sum
}

#[tokio::test(flavor = "multi_thread")]
async fn group_sdk_a_rolling_restart_keeps_every_keys_order_and_skips_nothing() {
    let mut fleet = Fleet::started(3, &CALM).await;
    let client = fleet.client().await;
    make_topic(&client, NewTopic::named("orders").partitions(6)).await;
    let seen = Seen::default();
    let workers: Vec<GroupWorker> = (0..3)
        .map(|_| noting(member(&client, "billing"), &seen))
        .collect();
    let (sent, over) = (Arc::new(Mutex::new(0_u32)), CancellationToken::new());
    let producing = tokio::spawn({
        let (client, sent, over) = (client.clone(), Arc::clone(&sent), over.clone());
        async move {
            while !over.is_cancelled() {
                let from = *sent.lock();
                produce(&client, KEYS, from..from + KEYS).await;
                *sent.lock() = from + KEYS;
            }
        }
    });
    for node in fleet.nodes() {
        let before = committed(&client, "billing").await;
        fleet.stop(node).await;
        eventually("the group goes on without it", async || {
            (committed(&client, "billing").await > before).then_some(())
        })
        .await;
        fleet.start(node);
        fleet.ready(node).await;
        fleet.caught_up(node).await;
    }
    over.cancel();
    producing.await.expect("produced");
    let total = *sent.lock();
    all_committed(&client, "billing", total.into()).await;
    for worker in workers {
        worker.stop().await.expect("committed");
    }
    let handled = seen.lock().clone();
    let repeats = check(&handled, KEYS, total);
    eprintln!("  {total} records, {repeats} repeated");
    assert_eq!(expelled(&fleet).await, 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn group_sdk_a_leader_that_stands_still_for_thirty_seconds_expels_nobody() {
    let fleet = Fleet::started(3, &CALM).await;
    let client = fleet.client().await;
    make_topic(&client, NewTopic::named("orders").partitions(6)).await;
    let seen = Seen::default();
    let worker = || {
        // Shorter than the pause, longer than an election and a heartbeat that is not answered.
        noting(
            member(&client, "billing").session_timeout(Duration::from_secs(15)),
            &seen,
        )
    };
    let workers = [worker(), worker(), worker()];
    produce(&client, KEYS, 0..240).await;
    all_committed(&client, "billing", 240).await;
    eventually("all have their share", async || {
        workers
            .iter()
            .all(|worker| worker.assignment().len() == 2)
            .then_some(())
    })
    .await;
    let shares = || workers.iter().map(GroupWorker::assignment);
    let before: Vec<_> = shares().collect();
    let paused = coordinator(&client).await;
    fleet.pause(paused);
    let begin = tokio::time::Instant::now();
    produce(&client, KEYS, 240..480).await;
    all_committed(&client, "billing", 480).await;
    eprintln!("  the group went on after {:?}", begin.elapsed());
    tokio::time::sleep_until(begin + Duration::from_secs(30)).await;
    fleet.resume(paused);
    produce(&client, KEYS, 480..720).await;
    all_committed(&client, "billing", 720).await;
    assert_eq!(expelled(&fleet).await, 0.0);
    assert_eq!(shares().collect::<Vec<_>>(), before, "nothing has moved");
    for worker in workers {
        worker.stop().await.expect("committed");
    }
    let handled = seen.lock().clone();
    assert_eq!(check(&handled, KEYS, 720), 0, "nothing was repeated");
}

/// 20,000 records; `POISON_RECORDS=100000` makes it the long one.
#[tokio::test(flavor = "multi_thread")]
async fn group_sdk_a_thousand_poisoned_among_many() {
    // Of every tenth key the last ten records are bad.
    const MANY: u32 = 1_000;
    let told = std::env::var("POISON_RECORDS").ok();
    let total: u32 = told.map_or(20_000, |text| text.parse().expect("a number"));
    let fleet = Fleet::started(3, &CALM).await;
    let client = fleet.client().await;
    make_topic(&client, NewTopic::named("orders").partitions(12)).await;
    let is_poison = move |n: u32| (n % MANY).is_multiple_of(10) && n / MANY >= total / MANY - 10;
    let cured = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let seen = Seen::default();
    let worker = || {
        let (seen, cured) = (Arc::clone(&seen), Arc::clone(&cured));
        let policy = RetryPolicy::default().backoff(Backoff {
            first: Duration::from_millis(1),
            most: Duration::from_millis(5),
        });
        let builder = member(&client, "billing").retry(policy).parallelism(64);
        builder
            .run(move |record| {
                let bad =
                    is_poison(number(&record)) && !cured.load(std::sync::atomic::Ordering::SeqCst);
                if !bad {
                    super::group_sdk_members::note(&seen, &record);
                }
                async move {
                    if bad {
                        return Err(HandlerError::retryable("cannot be billed"));
                    }
                    Ok(())
                }
            })
            .expect("settings")
    };
    let workers = [worker(), worker(), worker()];
    produce(&client, MANY, 0..total).await;
    all_committed(&client, "billing", total.into()).await;
    let admin = client.groups().timeout(PATIENCE);
    let letters = admin.dead_letters("billing", false).await.expect("letters");
    let poisoned = (0..total).filter(|n| is_poison(*n)).count();
    assert_eq!(poisoned, 1_000);
    let mut attempts: BTreeMap<u32, usize> = BTreeMap::new();
    for letter in &letters {
        *attempts.entry(letter.letter.attempts).or_default() += 1;
    }
    // Of each of the hundred keys the first bad one was tried, the others follow it.
    assert_eq!(attempts, BTreeMap::from([(0, 900), (3, 100)]));
    assert_eq!(seen.lock().len(), total as usize - 1_000);
    cured.store(true, std::sync::atomic::Ordering::SeqCst);
    let everything = Selection::default();
    let done = admin.redrive("billing", &everything, |_, _| {});
    let done = done.await.expect("redriven");
    assert_eq!((done.records, done.keys, done.failed_keys), (1_000, 100, 0));
    assert!(
        admin
            .dead_letters("billing", false)
            .await
            .expect("letters")
            .is_empty()
    );
    for worker in workers {
        worker.stop().await.expect("committed");
    }
    let handled = seen.lock().clone();
    assert_eq!(check(&handled, MANY, total), 0, "each once, in order");
}
