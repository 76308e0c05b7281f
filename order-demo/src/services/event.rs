//! A service over the broker: a consumer group hands it messages, its store makes each count once,
//! and a relay publishes what it has to say.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use highwater_client::Client;
use highwater_client::group::{
    Chunk, GroupRecord, GroupWorker, HandlerError, NamedPartition, RetryPolicy, RevokeReason,
};
use highwater_client::resilience::RetryBudget;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::config::{Mutant, ServiceConfig};
use super::kit::{HandleError, Kit};
use super::prices::PriceCache;
use crate::domain::context::{LogicError, Outcome};
use crate::domain::message::Message;
use crate::domain::{catalogue, role::Role};
use crate::gateway::door::unix_ms;
use crate::money::Cents;
use crate::store::{Store, StoredOutbox};

/// After so long without a heartbeat others may take over. A service that was killed is started
/// again by its supervisor, under the same instance id, long before.
const SESSION: Duration = Duration::from_secs(6);
const COMMIT_EVERY: Duration = Duration::from_millis(250);
/// Keys at work at a time: as many as may share one commit.
const PARALLEL: usize = 512;
/// Messages of one key at work at a time.
const CHUNK: usize = 64;
const ROWS_PER_ROUND: usize = 2_000;
/// Pause before a relay that failed starts again.
const RELAY_PAUSE: Duration = Duration::from_millis(100);
/// How long a service that is to stop waits for its outbox.
const LAST_WORDS: Duration = Duration::from_secs(10);
/// How long a worker that gives up partitions waits until what they led to is published.
const HANDING_OVER: Duration = Duration::from_secs(15);

/// Connects to the brokers. Calls are retried as far as the service's budget reaches.
///
/// # Errors
/// When none answers.
pub async fn connect(
    config: &ServiceConfig,
    name: &str,
    budget: &Arc<RetryBudget>,
) -> anyhow::Result<Client> {
    let client = Client::builder()
        .brokers(config.brokers.iter().cloned())
        .client_id(format!("order-demo-{name}"))
        .connect_timeout(Duration::from_secs(30))
        .retry_budget(Arc::clone(budget))
        .connect()
        .await;
    client.context("no broker answers")
}

/// Runs the service until it is told to stop.
///
/// # Errors
/// When it cannot start, or its group membership has ended.
pub async fn run(
    role: Role,
    config: &ServiceConfig,
    kit: Arc<Kit>,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let name = role.worker(config.worker);
    let client = connect(config, &name, &kit.budget).await?;
    let relaying = tokio::spawn(relay(client.clone(), name, kit.store.clone()));
    let pricing = match &kit.prices {
        Some(prices) => tokio::select! {
            following = priced(config, &client, &kit, prices) => Some(following?),
            () = stop.cancelled() => return Ok(()),
        },
        None => None,
    };
    let mut worker = join(role, config, &client, &kit)?;
    tokio::select! {
        () = stop.cancelled() => {}
        error = worker.ended() => return Err(error).context("the membership has ended"),
    }
    // What is not committed now is handled again later, and has no effect then.
    if let Err(error) = worker.stop().await {
        tracing::warn!(%error, "the last offsets are not committed");
    }
    last_words(&kit.store).await;
    relaying.abort();
    if let Some(following) = pricing {
        following.abort();
    }
    Ok(())
}

/// Publishes the catalogue once, and returns when all of its prices have been read back. They are
/// followed until the task is aborted.
async fn priced(
    config: &ServiceConfig,
    client: &Client,
    kit: &Kit,
    prices: &PriceCache,
) -> anyhow::Result<JoinHandle<()>> {
    let dearer = i64::from(config.mutant == Some(Mutant::WrongPrice));
    let outcome = Outcome {
        sent: catalogue::published(Cents(dearer)),
        ..Outcome::default()
    };
    kit.store.write("published".to_owned(), outcome).await?;
    // The end of the topic is past what was published only when that is published.
    kit.store.published().await;
    let following = tokio::spawn(prices.clone().follow(client.clone()));
    prices.whole().await;
    tracing::info!(items = prices.items(), "the prices are known");
    Ok(following)
}

/// Waits until everything in the outbox is published, for a while. What is left is published when
/// the service starts again.
pub async fn last_words(store: &Store) {
    let said = async {
        while store.waiting() > 0 {
            sleep(Duration::from_millis(10)).await;
        }
    };
    if timeout(LAST_WORDS, said).await.is_err() {
        tracing::warn!(waiting = store.waiting(), "messages stay in the outbox");
    }
}

/// A service that is to be found out without its inbox commits nothing before it ends: a kill then
/// brings back what it has handled, whenever it comes.
fn commit_every(config: &ServiceConfig) -> Duration {
    if config.mutant == Some(Mutant::NoInbox) {
        Duration::from_secs(3_600)
    } else {
        COMMIT_EVERY
    }
}

fn join(
    role: Role,
    config: &ServiceConfig,
    client: &Client,
    kit: &Arc<Kit>,
) -> anyhow::Result<GroupWorker> {
    let (came, went, kit) = (Arc::clone(kit), Arc::clone(kit), Arc::clone(kit));
    let mut group = client
        .group(role.name())
        .topic(role.topic())
        .session_timeout(SESSION)
        .commit_interval(commit_every(config))
        .parallelism(PARALLEL)
        .retry(RetryPolicy::default().budget(Arc::clone(&kit.budget)))
        .on_assigned(move |partitions| {
            note(role, &partitions, &came.counters.came_ms);
            async {}
        })
        .on_revoked(move |partitions, reason| {
            note(role, &partitions, &went.counters.went_ms);
            let store = went.store.clone();
            // Whoever takes over may say the next thing of an order: what was said of it before has
            // to be there first.
            async move {
                // After a lost session others may be at work already: there is nothing to hand over.
                let hands_over = reason != RevokeReason::Lost;
                if hands_over && timeout(HANDING_OVER, store.published()).await.is_err() {
                    tracing::warn!("partitions go before all is published");
                }
            }
        });
    // The first worker finds its partitions again when it comes back. Others come and go, and nobody is
    // to wait for one that went.
    if config.worker == 1 {
        group = group.instance_id(role.name());
    }
    let worker = group.run_chunks(CHUNK, move |records: Vec<GroupRecord>| {
        let kit = Arc::clone(&kit);
        async move { handle(&kit, &records).await }
    });
    worker.context("cannot join the group")
}

/// Notes the time when partitions of the service's own topic come or go.
fn note(role: Role, partitions: &[NamedPartition], at: &AtomicI64) {
    if partitions.iter().any(|(topic, _)| **topic == *role.topic()) {
        at.store(unix_ms(), Ordering::Relaxed);
    }
}

async fn handle(kit: &Kit, records: &[GroupRecord]) -> Chunk {
    let mut messages = Vec::with_capacity(records.len());
    let mut unreadable = None;
    for record in records {
        match serde_json::from_slice::<Message>(record.value.as_deref().unwrap_or_default()) {
            Ok(message) => messages.push(message),
            Err(error) => {
                unreadable = Some(HandlerError::permanent(error));
                break;
            }
        }
    }
    let (finished, error) = kit.handle_all(messages).await;
    let error = match error {
        None => unreadable,
        // Three attempts also for bad messages: who knows whether it is not the service.
        Some(HandleError::Logic(error @ LogicError::Poison(_))) => {
            Some(HandlerError::retryable(error).class("poison"))
        }
        Some(error) => Some(HandlerError::retryable(error)),
    };
    Chunk { finished, error }
}

/// Publishes the outbox for ever. A relay that fails, as in a failover, starts again and goes on
/// with what it had claimed.
pub async fn relay(client: Client, name: String, store: Store) -> Infallible {
    loop {
        let outbox = StoredOutbox(store.clone());
        let mut relay = client
            .outbox(name.as_str())
            .poll_every(Duration::from_millis(1))
            .rows_per_round(ROWS_PER_ROUND)
            .build(outbox);
        let Err(error) = relay.run().await;
        tracing::warn!(%error, "the relay starts again");
        sleep(RELAY_PAUSE).await;
    }
}
