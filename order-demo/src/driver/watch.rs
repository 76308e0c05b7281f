//! Watches the order events while a run goes on: how many orders have ended, how long each stage
//! took, how many events there are. It only listens.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::StreamExt as _;
use hdrhistogram::Histogram;
use highwater_client::{Client, Start};
use tokio::time::sleep;

use crate::domain::message::{Body, Message};
use crate::domain::state::{OrderState, Stage};
use crate::domain::topics;
use crate::gateway::door::unix_ms;
use crate::report::SLOWEST_MICROS;

/// Orders that have not ended so long after they were due count against availability.
pub const DEADLINE_MS: i64 = 5_000;
/// Pause before the events are read on after an error.
const PAUSE: Duration = Duration::from_millis(200);

/// What was seen.
#[derive(Debug)]
pub struct Seen {
    /// Orders by their latest state.
    pub states: BTreeMap<OrderState, u64>,
    /// Orders that have ended.
    pub ended: u64,
    /// Of those, orders that were completed.
    pub completed: u64,
    /// Orders that were priced and may go on.
    pub priced: u64,
    /// Events.
    pub events: u64,
    /// Orders that ended within [`DEADLINE_MS`].
    pub in_time: u64,
    /// Microseconds from the intended request to the end; completed orders only.
    pub to_end: Histogram<u64>,
    /// Milliseconds from the intended request to each stage, as the events' records are stamped.
    pub to_stage: BTreeMap<Stage, Histogram<u64>>,
    /// The wall clock at the last end, in milliseconds since 1970.
    pub last_end_ms: i64,
    latest: HashMap<String, (u32, OrderState)>,
}

impl Seen {
    fn new() -> anyhow::Result<Self> {
        Ok(Self {
            states: BTreeMap::new(),
            ended: 0,
            completed: 0,
            priced: 0,
            events: 0,
            in_time: 0,
            to_end: Histogram::new_with_max(SLOWEST_MICROS, 3)?,
            to_stage: BTreeMap::new(),
            last_end_ms: 0,
            latest: HashMap::new(),
        })
    }

    /// Takes in one event, read at `now_ms` and stamped `stamp_ms`.
    pub fn take(&mut self, message: &Message, now_ms: i64, stamp_ms: i64) {
        let Body::Event(event) = &message.body else {
            return;
        };
        let known = self.latest.get(&message.order_id).copied();
        if known.is_some_and(|(sequence, _)| sequence >= message.sequence) {
            return;
        }
        self.events += 1;
        let place = (message.sequence, event.state);
        self.latest.insert(message.order_id.clone(), place);
        if let Some((_, before)) = known
            && let Some(count) = self.states.get_mut(&before)
        {
            *count -= 1;
        }
        *self.states.entry(event.state).or_default() += 1;
        let since = |now: i64| u64::try_from(now - message.intended_start_ms).unwrap_or(0);
        if let Ok(empty) = Histogram::new_with_max(SLOWEST_MICROS, 3) {
            let stage = self.to_stage.entry(event.stage).or_insert(empty);
            stage.saturating_record(since(stamp_ms));
        }
        self.priced += u64::from(event.stage == Stage::Assessed);
        let ended_before = known.is_some_and(|(_, before)| before.is_terminal());
        if event.state.is_terminal() && !ended_before {
            self.ended += 1;
            self.last_end_ms = self.last_end_ms.max(now_ms);
            self.in_time += u64::from(now_ms - message.intended_start_ms <= DEADLINE_MS);
            if event.state == OrderState::Completed {
                self.completed += 1;
                self.to_end.saturating_record(since(now_ms) * 1_000);
            }
        }
    }
}

/// The watcher. Clones see the same.
#[derive(Clone)]
pub struct Watch(Arc<Mutex<Seen>>);

impl Watch {
    /// A watcher that has seen nothing.
    ///
    /// # Errors
    /// None that can occur: the bounds are fixed.
    pub fn new() -> anyhow::Result<Self> {
        Ok(Self(Arc::new(Mutex::new(Seen::new()?))))
    }

    /// What was seen so far.
    pub fn seen(&self) -> MutexGuard<'_, Seen> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Follows the events for ever.
    pub async fn follow(self, client: Client) {
        loop {
            // After an error from the start: what was seen before is not counted again.
            if let Err(error) = self.read(&client).await {
                tracing::warn!(%error, "the events are read again");
            }
            sleep(PAUSE).await;
        }
    }

    async fn read(&self, client: &Client) -> anyhow::Result<()> {
        let consumer = client.consumer().topic(topics::EVENTS);
        let mut records = consumer.start_at(Start::Earliest).build().await?;
        while let Some(record) = records.next().await {
            let record = record?;
            let value = record.value.as_deref().unwrap_or_default();
            let message: Message = serde_json::from_slice(value)?;
            self.seen().take(&message, unix_ms(), record.timestamp.0);
        }
        Ok(())
    }
}
