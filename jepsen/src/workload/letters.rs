//! Dead letters under faults: a group whose handlers fail for some records. At the end exactly the
//! poisoned records, and what came behind them in their keys, wait; a redrive brings back exactly
//! those, in order.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::StreamExt as _;
use highwater_client::group::redrive::Selection;
use highwater_client::group::{GroupWorker, HandlerError, RetryPolicy};
use highwater_client::resilience::Backoff;
use highwater_client::{At, Client, NewTopic, ProducerRecord};
use rand::Rng as _;
use serde_json::{Value as Json, json};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::letters_judge::{Logged, is_poison, judge_end, judge_order, waiting_of};
use super::member::SESSION;
use super::pace::Pace;
use super::{CALM_REQUEST, DELIVERY, Shared, own_thread};

const PARTITIONS: u32 = 4;
/// Records a second.
const RATE: f64 = 25.0;
/// So many records share a set of keys, of so many keys; then others begin, so that not every key
/// ends up parked.
const KEYS_TURN_AFTER: u32 = 200;
const KEYS: u32 = 20;
const LIFE_MS: std::ops::Range<u64> = 3_000..15_000;
const PAUSE_MS: std::ops::Range<u64> = 500..10_000;
const LOOK: Duration = Duration::from_millis(200);
/// The worker that goes on to the end, among the numbers of workers.
const LAST: u32 = 99;

/// What its members did.
#[derive(Debug, Default)]
pub(super) struct Letters {
    /// Numbers whose handler succeeded, in the order in which it did.
    handled: Mutex<Vec<u32>>,
    /// From now on nothing fails.
    cured: AtomicBool,
}

fn topic_of(shared: &Shared) -> String {
    format!("{}-letters", shared.plan.topic)
}

fn group_of(shared: &Shared) -> String {
    format!("{}-billing", shared.plan.topic)
}

pub(super) async fn create_topic(shared: &Shared, client: &Client) -> anyhow::Result<()> {
    let new = NewTopic::named(topic_of(shared))
        .partitions(PARTITIONS)
        .replication_factor(shared.plan.replication);
    let admin = client.admin().timeout(Duration::from_secs(60));
    admin.create_topic(new).await?;
    Ok(())
}

/// Writes one record after the other until `stop`, whatever becomes of each.
pub(super) async fn produce(shared: Arc<Shared>, stop: CancellationToken) -> anyhow::Result<()> {
    let mut random = shared.random(20_000);
    let client = shared.client("letters-producer")?;
    let producer = client.producer().delivery_timeout(DELIVERY).build();
    let mut pace = Pace::new(RATE);
    let mut number: u32 = 0;
    while pace.wait(&mut random, &stop).await {
        let key = number / KEYS_TURN_AFTER * KEYS + number % KEYS;
        let record = ProducerRecord::to(topic_of(&shared))
            .key(format!("k{key}"))
            .value(number.to_string());
        // Whether it is stored is seen at the end.
        if let Err(error) = producer.send(record).await {
            shared.complain(format!("letters: {error}"));
        }
        number += 1;
    }
    Ok(())
}

fn worker(shared: &Arc<Shared>, client: &Client, who: u32) -> anyhow::Result<GroupWorker> {
    let policy = RetryPolicy::default().attempts(2).backoff(Backoff {
        first: Duration::from_millis(5),
        most: Duration::from_millis(50),
    });
    let own = Arc::clone(shared);
    let builder = client
        .group(group_of(shared))
        .topic(topic_of(shared))
        .session_timeout(SESSION)
        .rebalance_timeout(SESSION)
        .commit_interval(Duration::from_millis(200))
        .retry(policy);
    let worker = builder.run(move |record| {
        let done = handle(&own.letters, record.value.as_deref());
        let what = json!({
            "worker": who, "partition": record.partition.0, "offset": record.offset.0,
            "number": record.value.as_deref().map(String::from_utf8_lossy), "ok": done.is_ok(),
        });
        own.recorder.note("handle", &what);
        async move { done }
    });
    Ok(worker?)
}

fn handle(letters: &Letters, value: Option<&[u8]>) -> Result<(), HandlerError> {
    let text = std::str::from_utf8(value.unwrap_or_default())?;
    let number: u32 = text.parse()?;
    if is_poison(number) && !letters.cured.load(Ordering::SeqCst) {
        return Err(HandlerError::retryable("cannot be billed"));
    }
    let handled = letters.handled.lock();
    handled.unwrap_or_else(PoisonError::into_inner).push(number);
    Ok(())
}

/// Members one after the other, on one thread: each leaves, dies, or stands still and goes on.
pub(super) async fn member(
    shared: Arc<Shared>,
    number: u32,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    own_thread::run(move || async move {
        let mut random = shared.random(u64::from(number) + 30_000);
        while !stop.is_cancelled() {
            let client = shared.client(&format!("letters-{number}"))?;
            let worker = worker(&shared, &client, number)?;
            loop {
                let life = Duration::from_millis(random.random_range(LIFE_MS));
                tokio::select! {
                    () = sleep(life) => {}
                    () = stop.cancelled() => {}
                }
                if stop.is_cancelled() || !random.random_bool(0.3) {
                    break;
                }
                shared.disturbed("a worker stands still");
                own_thread::stand_still(Duration::from_millis(random.random_range(PAUSE_MS)));
            }
            if random.random_bool(0.5) {
                // Without a coordinator it is gone all the same.
                if !matches!(timeout(SESSION, worker.stop()).await, Ok(Ok(()))) {
                    shared.disturbed("a worker could not leave");
                }
            } else {
                shared.disturbed("a worker is killed");
                drop(worker);
            }
        }
        Ok(())
    })
    .await
}

/// Redrives while everything fails as before, until `stop`: nothing may come of it.
pub(super) async fn redrive(shared: Arc<Shared>, stop: CancellationToken) -> anyhow::Result<()> {
    const BETWEEN: Duration = Duration::from_secs(10);
    let client = shared.client("letters-redrive")?;
    let selection = Selection {
        patience: Duration::from_secs(5),
        ..Selection::default()
    };
    loop {
        tokio::select! {
            () = sleep(BETWEEN) => {}
            () = stop.cancelled() => return Ok(()),
        }
        let group = group_of(&shared);
        let admin = client.groups();
        let redriven = admin.redrive(&group, &selection, |_, _| {});
        shared.recorder.note("begin-redrive", &Json::Null);
        tokio::select! {
            done = redriven => if let Err(error) = done {
                shared.complain(format!("redrive: {error}"));
            },
            // As if its operator had lost patience, at any point.
            () = stop.cancelled() => return Ok(()),
        }
        shared.recorder.note("end-redrive", &Json::Null);
    }
}

/// Everything in the topic, in order.
async fn log(client: &Client, topic: &str, given_up: Instant) -> anyhow::Result<Vec<Logged>> {
    let ends = client.topic_offsets(topic, At::Latest).await?;
    let mut reader = client.consumer().topic(topic).build().await?;
    let mut log = Vec::new();
    loop {
        let open = |end: &&highwater_client::FoundOffset| {
            let position = reader.position(topic, end.partition.0);
            position.is_none_or(|at| at.0 < end.offset.0)
        };
        if !ends.iter().any(|end| open(&end)) {
            break;
        }
        let Some(record) = tokio::time::timeout_at(given_up, reader.next()).await? else {
            anyhow::bail!("the reader of {topic} ended");
        };
        let record = record?;
        log.push(Logged {
            partition: record.partition.0,
            offset: record.offset.0,
            key: String::from_utf8_lossy(record.key.as_deref().unwrap_or_default()).into_owned(),
            number: std::str::from_utf8(record.value.as_deref().unwrap_or_default())?.parse()?,
        });
    }
    log.sort_by_key(|record| (record.partition, record.offset));
    Ok(log)
}

async fn all_committed(
    client: &Client,
    (group, topic): (&str, &str),
    log: &[Logged],
    given_up: Instant,
) -> anyhow::Result<()> {
    let id = client.topic(topic).await?.id.0;
    loop {
        let offsets = client.groups().offsets(group).await.unwrap_or_default();
        let at = |partition: u32| {
            let of = offsets
                .iter()
                .find(|o| o.topic_id == id && o.partition == partition);
            of.map_or(0, |o| o.offset)
        };
        let open = log
            .iter()
            .filter(|record| record.offset >= at(record.partition))
            .count();
        if open == 0 {
            return Ok(());
        }
        anyhow::ensure!(
            Instant::now() < given_up,
            "{open} records of {topic} are not committed"
        );
        sleep(LOOK).await;
    }
}

/// After everything was healed: what waits, and what a redrive brings back. Answers with what is
/// wrong.
pub(super) async fn finish(shared: &Arc<Shared>, patience: Duration) -> Vec<String> {
    match try_finish(shared, Instant::now() + patience).await {
        Ok(wrong) => wrong,
        Err(error) => vec![format!("dead letters: {error:#}")],
    }
}

async fn try_finish(shared: &Arc<Shared>, given_up: Instant) -> anyhow::Result<Vec<String>> {
    let client = shared.client_with("letters-end", CALM_REQUEST)?;
    let (group, topic) = (group_of(shared), topic_of(shared));
    let log = log(&client, &topic, given_up).await?;
    let worker = worker(shared, &client, LAST)?;
    all_committed(&client, (&group, &topic), &log, given_up).await?;
    let letters = client.groups().dead_letters(&group, false).await?;
    let found: BTreeSet<(u32, u64)> = letters
        .iter()
        .map(|letter| (letter.letter.partition.0, letter.letter.offset.0))
        .collect();
    let (expected, mut wrong) = (waiting_of(&log), Vec::new());
    for (what, places) in [
        ("wait and should not", found.difference(&expected)),
        ("should wait and do not", expected.difference(&found)),
    ] {
        let places: Vec<_> = places.collect();
        if !places.is_empty() {
            wrong.push(format!("dead letters that {what}: {places:?}"));
        }
    }
    let before = shared.letters.seen();
    wrong.extend(judge_order(&log, &before));
    shared.letters.cured.store(true, Ordering::SeqCst);
    let admin = client.groups().timeout(CALM_REQUEST);
    admin
        .redrive(&group, &Selection::default(), |_, _| {})
        .await?;
    let left = admin.dead_letters(&group, false).await?;
    if !left.is_empty() {
        wrong.push(format!("{} dead letters wait after a redrive", left.len()));
    }
    worker.stop().await?;
    let all = shared.letters.seen();
    wrong.extend(judge_end(&log, &all, before.len()));
    shared.note_letters(log.len(), expected.len());
    Ok(wrong)
}

impl Letters {
    fn seen(&self) -> Vec<u32> {
        let handled = self.handled.lock();
        handled.unwrap_or_else(PoisonError::into_inner).clone()
    }
}
