//! The store's one writer: a thread that handles whatever messages wait, commits them together
//! with a single sync, and only then answers. A service's throughput is therefore not bound to one
//! sync per message.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use highwater_client::resilience::outbox::{OutboxRow, RelayState};
use redb::ReadableTable as _;
use tokio::sync::{Notify, mpsc, oneshot};

use super::database::{Database, RELAY, StoreError, Tables, failed};
use crate::domain::context::{Context, LogicError, Outcome};
use crate::domain::message::Message;
use crate::services::outside::Provider;

/// Messages that wait for the writer; beyond it those who bring them wait.
const WAITING: usize = 4_096;
/// Messages that share one commit.
const TOGETHER: usize = 1_024;
/// Messages that wait to be published; beyond it nothing more is handled.
const OUTBOX_FULL: u64 = 20_000;

/// The logic that a store's messages meet.
pub type Logic =
    Arc<dyn Fn(&mut Context<'_>, &Message) -> Result<(), LogicError> + Send + Sync + 'static>;

/// What became of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Handled {
    /// It has had its effect now.
    Now,
    /// It had its effect before; nothing has happened.
    Before,
}

/// What became of messages, in order, up to the one that failed, and why that one did.
pub type HandledAll = (Vec<Handled>, Option<LogicError>);

/// How a store is run.
#[derive(Debug, Default)]
pub struct StoreOptions {
    /// What the service calls outside.
    pub provider: Option<Provider>,
    /// Does not look into the inbox: for showing that the checker finds out. Never otherwise.
    pub without_inbox: bool,
}

pub(super) enum Job {
    /// Messages in order, up to the first that fails.
    Handle {
        messages: Vec<Message>,
        done: oneshot::Sender<HandledAll>,
    },
    /// Writes and messages that come from no message, if `unless` was not handled before.
    Write {
        unless: String,
        outcome: Outcome,
        done: oneshot::Sender<Handled>,
    },
    Relay {
        expected: u64,
        state: Box<RelayState>,
        published: Vec<u64>,
        done: oneshot::Sender<bool>,
    },
}

/// What the handles of a store share with its thread.
#[derive(Debug, Default)]
pub(super) struct Shared {
    pub waiting: AtomicU64,
    /// The rows of the outbox as they are on the disk, so that the relay need not read them back.
    rows: Mutex<BTreeMap<u64, OutboxRow>>,
    pub changed: Notify,
    pub room: Notify,
    commits: AtomicU64,
    repaired: AtomicBool,
}

impl Shared {
    pub(super) fn rows(&self) -> MutexGuard<'_, BTreeMap<u64, OutboxRow>> {
        self.rows.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A store at work. Clones use the same one; the file is closed when the last is gone.
#[derive(Clone)]
pub struct Store {
    jobs: mpsc::Sender<Job>,
    pub(super) database: Arc<Database>,
    pub(super) shared: Arc<Shared>,
}

impl Store {
    /// Opens the store and starts its thread.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn open(path: &Path, logic: Logic, options: StoreOptions) -> Result<Self, StoreError> {
        let database = Arc::new(Database::open(path)?);
        let shared = Arc::new(Shared::default());
        let rows = database.outbox()?;
        shared.waiting.store(rows.len() as u64, Ordering::Release);
        shared
            .rows()
            .extend(rows.into_iter().map(|row| (row.id, row)));
        let (jobs, queue) = mpsc::channel(WAITING);
        let writer = Writer {
            database: Arc::clone(&database),
            shared: Arc::clone(&shared),
            logic,
            options,
            revision: None,
        };
        std::thread::Builder::new()
            .name("store".to_owned())
            .spawn(move || writer.run(queue))
            .map_err(failed)?;
        Ok(Self {
            jobs,
            database,
            shared,
        })
    }

    /// Handles a message: its effects, its place in the inbox and its messages are on the disk
    /// when this returns. Dropping the future does not take the message back.
    ///
    /// # Errors
    /// Those of the logic; then nothing has happened.
    pub async fn handle(&self, message: Message) -> Result<Handled, LogicError> {
        let (handled, error) = self.handle_all(vec![message]).await;
        match (handled.first(), error) {
            (Some(handled), _) => Ok(*handled),
            (None, Some(error)) => Err(error),
            (None, None) => Err(LogicError::Store("it has not answered".to_owned())),
        }
    }

    /// Handles messages in order, in one commit, up to the first that the logic refuses: what became
    /// of those before it, and why not. Dropping the future does not take the messages back.
    pub async fn handle_all(&self, messages: Vec<Message>) -> HandledAll {
        if messages.is_empty() {
            return (Vec::new(), None);
        }
        self.room().await;
        let (done, answer) = oneshot::channel();
        self.send(Job::Handle { messages, done }).await;
        let closed = |error| (Vec::new(), Some(closed(error)));
        answer.await.unwrap_or_else(closed)
    }

    /// Writes what comes from no message, once per id.
    ///
    /// # Errors
    /// When the store is closed.
    pub async fn write(&self, unless: String, outcome: Outcome) -> Result<Handled, LogicError> {
        self.room().await;
        let (done, answer) = oneshot::channel();
        self.send(Job::Write {
            unless,
            outcome,
            done,
        })
        .await;
        answer.await.map_err(closed)
    }

    pub(super) async fn relay(
        &self,
        expected: u64,
        state: &RelayState,
        published: &[u64],
    ) -> Result<bool, StoreError> {
        let (done, answer) = oneshot::channel();
        self.send(Job::Relay {
            expected,
            state: Box::new(state.clone()),
            published: published.to_vec(),
            done,
        })
        .await;
        answer.await.map_err(failed)
    }

    async fn send(&self, job: Job) {
        // The thread ends after its last handle. A failure here shows as a missing answer.
        let _ = self.jobs.send(job).await;
    }

    /// Waits until the outbox has room.
    async fn room(&self) {
        loop {
            let room = self.shared.room.notified();
            if self.waiting() < OUTBOX_FULL {
                return;
            }
            room.await;
        }
    }

    /// Returns when everything that waits to be published now is published. Cancellation-safe.
    pub async fn published(&self) {
        let last = self.shared.rows().keys().next_back().copied();
        let Some(last) = last else { return };
        loop {
            let room = self.shared.room.notified();
            let first = self.shared.rows().keys().next().copied();
            if first.is_none_or(|first| first > last) {
                return;
            }
            room.await;
        }
    }

    /// Messages that wait to be published.
    #[must_use]
    pub fn waiting(&self) -> u64 {
        self.shared.waiting.load(Ordering::Acquire)
    }

    /// Commits so far.
    #[must_use]
    pub fn commits(&self) -> u64 {
        self.shared.commits.load(Ordering::Relaxed)
    }

    /// Says whether broken lists of prices were repaired.
    pub fn set_repaired(&self, repaired: bool) {
        self.shared.repaired.store(repaired, Ordering::Release);
    }

    /// The file, for reading.
    #[must_use]
    pub fn database(&self) -> &Database {
        &self.database
    }
}

fn closed(_: oneshot::error::RecvError) -> LogicError {
    LogicError::Store("it is closed".to_owned())
}

/// An answer that is given after the commit.
enum Answer {
    Handled(oneshot::Sender<HandledAll>, HandledAll),
    Written(oneshot::Sender<Handled>, Handled),
    Relayed(oneshot::Sender<bool>, bool),
}

struct Writer {
    database: Arc<Database>,
    shared: Arc<Shared>,
    logic: Logic,
    options: StoreOptions,
    /// The revision of the relay's document, once it was looked at: nobody else writes it.
    revision: Option<u64>,
}

impl Writer {
    fn run(mut self, mut queue: mpsc::Receiver<Job>) {
        let mut jobs = Vec::new();
        while queue.blocking_recv_many(&mut jobs, TOGETHER) > 0 {
            if let Err(error) = self.commit(jobs.drain(..)) {
                // What the disk holds is unknown now. Start again from what it says.
                tracing::error!(%error, "the store failed: the service ends");
                std::process::exit(1);
            }
        }
    }

    fn commit(&mut self, jobs: impl Iterator<Item = Job>) -> Result<(), StoreError> {
        let write = self.database.file.begin_write().map_err(failed)?;
        let mut answers = Vec::new();
        let (mut fresh, mut removed) = (Vec::new(), Vec::new());
        {
            let mut tables = Tables::open(&write)?;
            for job in jobs {
                answers.push(self.job(&mut tables, job, (&mut fresh, &mut removed))?);
            }
        }
        // The outside world first: if the process dies between the two, the message comes again,
        // and the idempotency key keeps the effect from happening twice.
        if let Some(provider) = &mut self.options.provider {
            provider.sync().map_err(failed)?;
        }
        write.commit().map_err(failed)?;
        self.shared.commits.fetch_add(1, Ordering::Relaxed);
        self.show(fresh, &removed);
        for answer in answers {
            // Whoever asked may have given up.
            match answer {
                Answer::Handled(done, result) => {
                    let _ = done.send(result);
                }
                Answer::Written(done, handled) => {
                    let _ = done.send(handled);
                }
                Answer::Relayed(done, saved) => {
                    let _ = done.send(saved);
                }
            }
        }
        Ok(())
    }

    /// What is on the disk now, for the relay and for those who wait for room.
    fn show(&self, fresh: Vec<OutboxRow>, removed: &[u64]) {
        let (added, gone) = (!fresh.is_empty(), !removed.is_empty());
        {
            let mut rows = self.shared.rows();
            rows.extend(fresh.into_iter().map(|row| (row.id, row)));
            for row in removed {
                rows.remove(row);
            }
            let waiting = rows.len() as u64;
            self.shared.waiting.store(waiting, Ordering::Release);
        }
        if added {
            self.shared.changed.notify_one();
        }
        if gone {
            self.shared.room.notify_waiters();
        }
    }

    fn job(
        &mut self,
        tables: &mut Tables<'_>,
        job: Job,
        (fresh, removed): (&mut Vec<OutboxRow>, &mut Vec<u64>),
    ) -> Result<Answer, StoreError> {
        match job {
            Job::Handle { messages, done } => {
                let (mut all, mut failed) = (Vec::with_capacity(messages.len()), None);
                for message in &messages {
                    match self.handle(tables, message, fresh)? {
                        Ok(handled) => all.push(handled),
                        Err(error) => {
                            failed = Some(error);
                            break;
                        }
                    }
                }
                Ok(Answer::Handled(done, (all, failed)))
            }
            Job::Write {
                unless,
                outcome,
                done,
            } => {
                let known = tables.inbox.insert(unless.as_str(), ()).map_err(failed)?;
                let handled = if known.is_some() {
                    Handled::Before
                } else {
                    drop(known);
                    tables.take(outcome, fresh)?;
                    Handled::Now
                };
                Ok(Answer::Written(done, handled))
            }
            Job::Relay {
                expected,
                state,
                published,
                done,
            } => {
                let stored = match self.revision {
                    Some(revision) => revision,
                    None => revision(tables)?,
                };
                let saved = stored == expected;
                self.revision = Some(if saved { state.revision } else { stored });
                if saved {
                    relay(tables, &state, &published)?;
                    removed.extend(published);
                }
                Ok(Answer::Relayed(done, saved))
            }
        }
    }

    /// The outer error is the store's, the inner one the message's.
    fn handle(
        &mut self,
        tables: &mut Tables<'_>,
        message: &Message,
        fresh: &mut Vec<OutboxRow>,
    ) -> Result<Result<Handled, LogicError>, StoreError> {
        let id = message.event_id.as_str();
        let known = tables.inbox.get(id).map_err(failed)?.is_some();
        if known && !self.options.without_inbox {
            return Ok(Ok(Handled::Before));
        }
        let repaired = self.shared.repaired.load(Ordering::Acquire);
        let mut nowhere = crate::domain::context::Nowhere;
        let outside: &mut dyn crate::domain::context::Outside = match &mut self.options.provider {
            Some(provider) => provider,
            None => &mut nowhere,
        };
        let mut context = Context::new(&*tables, outside, repaired);
        if let Err(error) = (self.logic)(&mut context, message) {
            return Ok(Err(error));
        }
        let outcome = context.finish();
        tables.take(outcome, fresh)?;
        tables.inbox.insert(id, ()).map_err(failed)?;
        Ok(Ok(Handled::Now))
    }
}

/// The revision of the relay's document.
fn revision(tables: &Tables<'_>) -> Result<u64, StoreError> {
    let Some(value) = tables.meta.get(RELAY).map_err(failed)? else {
        return Ok(0);
    };
    let state: RelayState = serde_json::from_slice(value.value()).map_err(failed)?;
    Ok(state.revision)
}

/// Saves the relay's document, and removes the rows that it has published.
fn relay(tables: &mut Tables<'_>, state: &RelayState, published: &[u64]) -> Result<(), StoreError> {
    let document = serde_json::to_vec(state).map_err(failed)?;
    tables
        .meta
        .insert(RELAY, document.as_slice())
        .map_err(failed)?;
    for row in published {
        tables.outbox.remove(*row).map_err(failed)?;
    }
    Ok(())
}

#[cfg(test)]
#[path = "writer_tests.rs"]
mod tests;
