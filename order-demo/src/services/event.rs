//! A service over the broker: a consumer group hands it messages, its store makes each count once,
//! and a relay publishes what it has to say.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use highwater_client::Client;
use highwater_client::group::{Chunk, GroupRecord, GroupWorker, HandlerError};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::config::{Mutant, ServiceConfig};
use super::kit::{HandleError, Kit};
use crate::domain::context::{LogicError, Outcome};
use crate::domain::message::Message;
use crate::domain::{catalogue, role::Role};
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

/// Connects to the brokers.
///
/// # Errors
/// When none answers.
pub async fn connect(config: &ServiceConfig, name: &str) -> anyhow::Result<Client> {
    let client = Client::builder()
        .brokers(config.brokers.iter().cloned())
        .client_id(format!("order-demo-{name}"))
        .connect_timeout(Duration::from_secs(30))
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
    let client = connect(config, role.name()).await?;
    if role == Role::Catalogue {
        let outcome = Outcome {
            sent: catalogue::published(),
            ..Outcome::default()
        };
        kit.store.write("published".to_owned(), outcome).await?;
    }
    let relaying = tokio::spawn(relay(client.clone(), role.name(), kit.store.clone()));
    let mut worker = join(role, &client, &kit, commit_every(config))?;
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
    Ok(())
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
    client: &Client,
    kit: &Arc<Kit>,
    commit_every: Duration,
) -> anyhow::Result<GroupWorker> {
    let kit = Arc::clone(kit);
    let group = client
        .group(role.name())
        .topic(role.topic())
        .instance_id(role.name())
        .session_timeout(SESSION)
        .commit_interval(commit_every)
        .parallelism(PARALLEL);
    let worker = group.run_chunks(CHUNK, move |records: Vec<GroupRecord>| {
        let kit = Arc::clone(&kit);
        async move { handle(&kit, &records).await }
    });
    worker.context("cannot join the group")
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
pub async fn relay(client: Client, name: &'static str, store: Store) -> Infallible {
    loop {
        let outbox = StoredOutbox(store.clone());
        let mut relay = client
            .outbox(name)
            .poll_every(Duration::from_millis(1))
            .rows_per_round(ROWS_PER_ROUND)
            .build(outbox);
        let Err(error) = relay.run().await;
        tracing::warn!(%error, "the relay starts again");
        sleep(RELAY_PAUSE).await;
    }
}
