//! The relay: claims rows, publishes them under the claim's numbers, marks them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures_util::StreamExt;
use highwater_proto::v1::{self, log_client::LogClient};
use highwater_proto::{Offset, PartitionId, TopicId, TopicPartition};
use tokio::time::{Instant, sleep};

use super::lanes::Lanes;
use super::publish::{self, Published};
use super::state::{Claim, Identity, RelayState, Target};
use super::{OUTBOX_HEADER, OutboxRow, OutboxStore};
use crate::client::Client;
use crate::consumer::Start;
use crate::error::{Cause, ConsumeError, OffsetsError, SendError};
use crate::offsets::At;
use crate::record::ProducerRecord;
use crate::rpc;

/// The largest batch of a topic that does not say otherwise, in bytes.
const DEFAULT_MAX_MESSAGE_BYTES: usize = 1 << 20;

/// The relay ended. Nothing is lost: start it again.
#[derive(Debug, thiserror::Error)]
pub enum OutboxError<E: std::error::Error + 'static> {
    /// The store failed.
    #[error("outbox store: {0}")]
    Store(#[source] E),
    /// Rows were not acknowledged. [`SendError::Unknown`] here means: in time. They stay claimed.
    #[error("outbox rows {first} to {last} of {topic}-{partition}: {error}")]
    Send {
        /// The first row of the batch.
        first: u64,
        /// The last.
        last: u64,
        /// The topic.
        topic: String,
        /// The partition.
        partition: u32,
        /// Why.
        error: SendError,
    },
    /// The row is larger than a batch of its topic may be. Change or remove it.
    #[error("outbox row {row} takes {bytes} bytes; its topic allows {limit}")]
    TooLarge {
        /// The row.
        row: u64,
        /// Its size in bytes.
        bytes: usize,
        /// The limit in bytes.
        limit: usize,
    },
    /// A topic of the rows could not be looked up.
    #[error("outbox topic {topic:?}: {cause}")]
    Topic {
        /// Its name.
        topic: String,
        /// Why.
        cause: Cause,
    },
    /// Rows of a claim are gone or changed their order; they must stay until they are marked.
    #[error("the store does not give back the claimed rows {0:?}")]
    RowsChanged(Vec<u64>),
    /// What is stored could not be read back.
    #[error("outbox: reading back: {0}")]
    ReadBack(#[from] ConsumeError),
    /// No producer id could be had.
    #[error("outbox: no producer id: {0}")]
    Identity(Cause),
    /// The topic was deleted and created again with a claim open: nobody can say what became of
    /// the rows.
    #[error("outbox topic {0:?} is not the one that rows were claimed for")]
    AnotherTopic(String),
}

/// What one round did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Relayed {
    /// Rows published and marked.
    pub rows: u64,
    /// Another relay was faster; its state was taken over.
    pub overtaken: bool,
}

/// Settings of a [`Relay`].
#[derive(Debug)]
pub struct RelayBuilder {
    client: Client,
    name: String,
    poll: Duration,
    most_rows: usize,
    delivery_timeout: Duration,
}

impl RelayBuilder {
    pub(crate) fn new(client: Client, name: String) -> Self {
        Self {
            client,
            name,
            poll: Duration::from_millis(200),
            most_rows: 500,
            delivery_timeout: Duration::from_secs(30),
        }
    }
    /// How often the store is asked when it had no row. Default 200 ms.
    #[must_use]
    pub fn poll_every(mut self, interval: Duration) -> Self {
        self.poll = interval.max(Duration::from_millis(1));
        self
    }
    /// Rows of one round. Default 500.
    #[must_use]
    pub fn rows_per_round(mut self, rows: usize) -> Self {
        self.most_rows = rows.max(1);
        self
    }
    /// How long one batch is tried before the relay ends with an error. Default 30 s.
    #[must_use]
    pub fn delivery_timeout(mut self, timeout: Duration) -> Self {
        self.delivery_timeout = timeout;
        self
    }
    /// The relay over `store`.
    #[must_use]
    pub fn build<S: OutboxStore>(self, store: S) -> Relay<S> {
        Relay {
            settings: self,
            store,
            open: None,
            lanes: Lanes::default(),
        }
    }
}

/// Publishes the rows of an outbox, each once; see the [module](super).
#[derive(Debug)]
pub struct Relay<S> {
    settings: RelayBuilder,
    store: S,
    /// Absent before the first round, and after one that failed: then it is loaded.
    open: Option<Open>,
    lanes: Lanes,
}

/// Where a relay is.
#[derive(Debug, Default)]
struct Open {
    state: RelayState,
    /// Published and not marked.
    published: Vec<u64>,
    /// The rows that were claimed last, for as long as this relay lives.
    rows: BTreeMap<u64, ProducerRecord>,
}

impl Open {
    /// The rows of a claim; none when it is an earlier relay's.
    fn rows_of(&self, claim: &Claim) -> Option<Vec<(u64, &ProducerRecord)>> {
        let row = |id: &u64| Some((*id, self.rows.get(id)?));
        claim.rows.iter().map(row).collect()
    }
}

/// What became of a round's claims.
struct Sent {
    /// Those that are left have other numbers now.
    renumbered: bool,
    failed: Option<(Claim, SendError)>,
}

type Fails<S> = OutboxError<<S as OutboxStore>::Error>;

impl<S: OutboxStore> Relay<S> {
    /// Publishes for ever. While there is more to publish, one save marks the rows of a round and
    /// claims those of the next.
    ///
    /// Cancellation-safe, as a crash is: what was claimed is cleared up by the next relay.
    ///
    /// # Errors
    /// [`OutboxError`]; it can be run again.
    pub async fn run(&mut self) -> Result<std::convert::Infallible, Fails<S>> {
        loop {
            let done = self.work(true).await?;
            if done.rows == 0 && !done.overtaken {
                sleep(self.settings.poll).await;
            }
        }
    }

    /// Publishes and marks what is there now, some hundred rows at the most.
    ///
    /// Cancellation-safe, as a crash is.
    ///
    /// # Errors
    /// [`OutboxError`]; it can be called again.
    pub async fn round(&mut self) -> Result<Relayed, Fails<S>> {
        self.work(false).await
    }

    /// One round, or `onwards` until there is nothing to publish.
    async fn work(&mut self, onwards: bool) -> Result<Relayed, Fails<S>> {
        // Taken out: work that fails or is dropped leaves nothing that could be out of date.
        let mut open = match self.open.take() {
            Some(open) => open,
            None => self.resume().await?,
        };
        let mut done = Relayed::default();
        loop {
            if open.state.claims.is_empty() {
                self.claim(&mut open).await?;
                if open.state.claims.is_empty() && open.published.is_empty() {
                    break;
                }
                if !self.save(&mut open, &mut done).await? {
                    return Ok(done);
                }
            }
            if open.state.claims.is_empty() {
                continue;
            }
            let sent = self.publish(&mut open).await?;
            done.overtaken |= sent.renumbered;
            if let Some((claim, error)) = sent.failed {
                self.save(&mut open, &mut done).await?;
                return Err(not_sent(claim, error));
            }
            if !onwards || sent.renumbered {
                if !self.save(&mut open, &mut done).await? {
                    return Ok(done);
                }
                break;
            }
        }
        self.open = Some(open);
        Ok(done)
    }

    /// Loads what was saved last, and finds out which claims of an earlier relay are stored.
    async fn resume(&mut self) -> Result<Open, Fails<S>> {
        let loaded = self.store.load().await.map_err(OutboxError::Store)?;
        let mut open = Open {
            state: loaded.unwrap_or_default(),
            ..Open::default()
        };
        for claim in open.state.claims.clone() {
            if let Some(next) = self.read_back(&claim).await? {
                tracing::info!(rows = ?claim.rows, "claimed rows were stored already");
                open.state.settle(&claim, Some(next));
                open.published.extend(claim.rows);
            }
        }
        Ok(open)
    }

    /// Claims the oldest rows that are not published.
    async fn claim(&mut self, open: &mut Open) -> Result<(), Fails<S>> {
        let most = self.settings.most_rows;
        // What is published and not marked yet is among them.
        let asked = most.saturating_add(open.published.len());
        let mut rows = self
            .store
            .pending(asked)
            .await
            .map_err(OutboxError::Store)?;
        if !open.published.is_empty() {
            let published: BTreeSet<u64> = open.published.iter().copied().collect();
            rows.retain(|row| !published.contains(&row.id));
        }
        rows.truncate(most);
        if rows.is_empty() {
            return Ok(());
        }
        let targets = self.targets(&rows).await?;
        let state = &mut open.state;
        if state.identity.is_none() {
            state.identity = Some(self.new_identity().await?);
        }
        let known: BTreeSet<_> = state.places().collect();
        state
            .claim(&rows, &targets)
            .map_err(|large| OutboxError::TooLarge {
                row: large.row,
                bytes: large.bytes,
                limit: large.limit,
            })?;
        for at in 0..state.claims.len() {
            let fresh = |c: &&Claim| !known.contains(&(c.topic_id, c.partition));
            let Some(claim) = state.claims.get(at).filter(fresh).cloned() else {
                continue;
            };
            let end = self.offset(&claim, At::Latest).await?;
            state.partition(claim.topic_id, claim.partition).from = end;
            if let Some(claim) = state.claims.get_mut(at) {
                claim.from = end;
            }
        }
        open.rows = rows.into_iter().map(|row| (row.id, row.record)).collect();
        Ok(())
    }

    /// Sends every claim. What is stored is to be marked with the next save.
    async fn publish(&mut self, open: &mut Open) -> Result<Sent, Fails<S>> {
        let outcomes = self.send_all(open).await?;
        let (mut forgotten, mut failed) = (false, None);
        for (claim, outcome) in outcomes {
            match outcome {
                Ok(Published::At(base)) => {
                    let next = base.saturating_add(claim.rows.len() as u64);
                    open.state.settle(&claim, Some(next));
                    open.published.extend(&claim.rows);
                }
                Ok(Published::Before) => {
                    open.state.settle(&claim, None);
                    open.published.extend(&claim.rows);
                }
                Ok(Published::Forgotten) => forgotten = true,
                Err(error) => failed = Some((claim, error)),
            }
        }
        // Everything else has its outcome, so what remains was certainly not stored.
        let renumbered = forgotten && failed.is_none();
        if renumbered {
            open.state.renumber(self.new_identity().await?);
        }
        Ok(Sent { renumbered, failed })
    }

    async fn send_all(
        &mut self,
        open: &Open,
    ) -> Result<Vec<(Claim, Result<Published, SendError>)>, Fails<S>> {
        let Some(identity) = open.state.identity else {
            return Ok(Vec::new());
        };
        let mut outcomes = Vec::new();
        let (mut claims, mut batches) = (Vec::new(), Vec::new());
        for claim in &open.state.claims {
            self.same_topic(claim).await?;
            let read;
            let rows = match open.rows_of(claim) {
                Some(rows) => rows,
                None => {
                    read = self.claimed_rows(claim).await?;
                    read.iter().map(|row| (row.id, &row.record)).collect()
                }
            };
            let tp = place(claim);
            let now_ms = (self.settings.client.inner.wall_clock)();
            let numbers = (identity, claim.sequence);
            match publish::build(tp, numbers, &self.settings.name, &rows, now_ms) {
                Ok(batch) => {
                    claims.push(claim.clone());
                    batches.push(batch);
                }
                Err(cause) => outcomes.push((claim.clone(), Err(SendError::Rejected(cause)))),
            }
        }
        let deadline = Instant::now() + self.settings.delivery_timeout;
        let client = &self.settings.client;
        let sent = publish::publish_all(client, &self.lanes, &batches, deadline).await;
        outcomes.extend(claims.into_iter().zip(sent));
        Ok(outcomes)
    }

    async fn claimed_rows(&mut self, claim: &Claim) -> Result<Vec<OutboxRow>, Fails<S>> {
        let rows = self
            .store
            .rows(&claim.rows)
            .await
            .map_err(OutboxError::Store)?;
        let same = rows.iter().map(|row| row.id).eq(claim.rows.iter().copied());
        if !same {
            return Err(OutboxError::RowsChanged(claim.rows.clone()));
        }
        Ok(rows)
    }

    /// Saves the state, and marks what is published with it. False: another relay was faster, and the
    /// next round loads what it saved.
    async fn save(&mut self, open: &mut Open, done: &mut Relayed) -> Result<bool, Fails<S>> {
        let expected = open.state.revision;
        open.state.revision += 1;
        let saved = self.store.save(expected, &open.state, &open.published);
        if saved.await.map_err(OutboxError::Store)? {
            done.rows += open.published.len() as u64;
            open.published.clear();
            return Ok(true);
        }
        tracing::info!("another relay works on this outbox");
        done.overtaken = true;
        Ok(false)
    }

    async fn targets(&self, rows: &[OutboxRow]) -> Result<BTreeMap<String, Target>, Fails<S>> {
        let mut targets = BTreeMap::new();
        let names: BTreeSet<&str> = rows.iter().map(|row| row.record.topic.as_str()).collect();
        for name in names {
            let topic = self.settings.client.topic(name).await;
            let topic = topic.map_err(|cause| OutboxError::Topic {
                topic: name.to_owned(),
                cause,
            })?;
            let limit = topic
                .max_message_bytes()
                .unwrap_or(DEFAULT_MAX_MESSAGE_BYTES);
            let target = Target {
                topic_id: topic.id.0,
                partitions: topic.partition_count(),
                limit,
            };
            targets.insert(name.to_owned(), target);
        }
        Ok(targets)
    }

    async fn same_topic(&self, claim: &Claim) -> Result<(), Fails<S>> {
        let topic = self.settings.client.topic(&claim.topic).await;
        let topic = topic.map_err(|cause| OutboxError::Topic {
            topic: claim.topic.clone(),
            cause,
        })?;
        if topic.id.0 != claim.topic_id {
            return Err(OutboxError::AnotherTopic(claim.topic.clone()));
        }
        Ok(())
    }

    async fn new_identity(&self) -> Result<Identity, Fails<S>> {
        let cluster = &self.settings.client.inner.cluster;
        let deadline = Instant::now() + cluster.timings.request_timeout;
        let granted = rpc::call(cluster, None, deadline, |channel| async move {
            let request = v1::InitProducerRequest {};
            LogClient::new(channel).init_producer(request).await
        });
        let granted = granted
            .await
            .map_err(|failure| OutboxError::Identity(failure.cause))?;
        Ok(Identity {
            id: granted.producer_id,
            epoch: 0,
        })
    }

    async fn offset(&self, claim: &Claim, at: At) -> Result<u64, Fails<S>> {
        let query = [(PartitionId(claim.partition), at)];
        let client = &self.settings.client;
        let found = client.list_offsets(&claim.topic, &query).await;
        let found =
            found.map_err(|OffsetsError { topic, cause }| OutboxError::Topic { topic, cause })?;
        Ok(found.first().map_or(0, |found| found.offset.0))
    }

    /// Looks for the claim in its partition; answers with the offset after it.
    async fn read_back(&mut self, claim: &Claim) -> Result<Option<u64>, Fails<S>> {
        self.same_topic(claim).await?;
        let end = self.offset(claim, At::Latest).await?;
        let from = self.offset(claim, At::Earliest).await?.max(claim.from);
        if from >= end {
            return Ok(None);
        }
        let client = self.settings.client.clone();
        let start = Start::Offset(Offset(from));
        let consumer = client
            .consumer()
            .assign(&claim.topic, claim.partition, start);
        let mut records = consumer.build().await?;
        let last = claim.rows.last().copied().unwrap_or_default();
        let wanted = format!("{}/{last}", self.settings.name);
        let patience = self.settings.delivery_timeout;
        while records
            .position(&claim.topic, claim.partition)
            .is_some_and(|at| at.0 < end)
        {
            let record = match tokio::time::timeout(patience, records.next()).await {
                Ok(Some(record)) => record?,
                Ok(None) => return Ok(None),
                Err(_) => {
                    let cause = Cause::Deadline("the partition could not be read".to_owned());
                    let topic = claim.topic.clone();
                    return Err(OutboxError::Topic { topic, cause });
                }
            };
            if record.header(OUTBOX_HEADER).map(bytes::Bytes::as_ref) == Some(wanted.as_bytes()) {
                return Ok(Some(record.offset.0 + 1));
            }
        }
        Ok(None)
    }
}

fn not_sent<E: std::error::Error>(claim: Claim, error: SendError) -> OutboxError<E> {
    OutboxError::Send {
        first: claim.rows.first().copied().unwrap_or_default(),
        last: claim.rows.last().copied().unwrap_or_default(),
        topic: claim.topic,
        partition: claim.partition,
        error,
    }
}

fn place(claim: &Claim) -> TopicPartition {
    TopicPartition::new(TopicId(claim.topic_id), PartitionId(claim.partition))
}
