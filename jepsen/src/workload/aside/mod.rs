//! Topics beside the main one, a small share of a run: one whose records are deleted on request, one
//! with retention by size, one that is compacted, and one that is deleted and made again all the time.
//! Each has numbers of its own in the history.

mod compacted;
mod ends;
mod reborn;
mod scan;
mod trimmed;

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use highwater_checker::{Action, Function, Key, Kind, Offset, Process, Value};
use highwater_client::{Cause, Client, Producer, ProducerRecord, TopicId};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::{CALM_REQUEST, DELIVERY, Shared};

pub use ends::finish_asides;

/// Numbers of partitions in the history, counted from the first behind those of the main topic.
const TRIMMED: u32 = 0;
const RETAINED: u32 = 1;
const COMPACTED: u32 = 2;
/// Each life of the topic that is made again has one of its own, from here on.
const LIVES: u32 = 8;

/// Bound of a change of topics while things are broken.
const CHANGE: Duration = Duration::from_secs(8);

/// What these workloads remember.
#[derive(Default)]
pub(super) struct Aside {
    next: AtomicI64,
    kept: trimmed::Kept,
    lives: reborn::Lives,
}

/// How often things happened beside the main topic.
#[derive(Debug, Clone, Default, serde::Serialize, serde::Deserialize)]
pub struct AsideCounts {
    /// Where the topic with deleted records begins, and how many it ever had.
    pub trimmed: (u64, u64),
    /// The same of the one with retention.
    pub retained: (u64, u64),
    /// Records that the compacted topic holds, and how many it ever had.
    pub compacted: (u64, u64),
    /// How often the last topic was made.
    pub lives: u32,
}

/// The compacted topic and its partitions.
pub(super) fn compacted_topic(shared: &Shared) -> (String, u32) {
    compacted::named(shared)
}

fn key(shared: &Shared, place: u32) -> Key {
    Key(shared.plan.partitions + place)
}

pub(super) async fn create_topics(shared: &Shared, client: &Client) -> anyhow::Result<()> {
    let admin = client.admin().timeout(Duration::from_secs(60));
    for topic in trimmed::topics(shared)
        .into_iter()
        .chain([compacted::topic(shared)])
    {
        admin
            .create_topic(topic)
            .await
            .context("a topic beside the main one")?;
    }
    compacted::declare(shared);
    Ok(())
}

/// Starts them all.
pub(super) fn start(
    shared: &Arc<Shared>,
    stop: &CancellationToken,
    tasks: &mut JoinSet<anyhow::Result<()>>,
) {
    if !shared.plan.asides {
        return;
    }
    tasks.spawn(trimmed::produce(Arc::clone(shared), stop.clone()));
    tasks.spawn(trimmed::trim(Arc::clone(shared), stop.clone()));
    tasks.spawn(trimmed::ask(Arc::clone(shared), stop.clone()));
    for partition in 0..compacted::PARTITIONS {
        tasks.spawn(compacted::produce(
            Arc::clone(shared),
            partition,
            stop.clone(),
        ));
    }
    tasks.spawn(scan::run(Arc::clone(shared), stop.clone()));
    tasks.spawn(reborn::run(Arc::clone(shared), stop.clone()));
}

/// Where records lie, and how to read them.
#[derive(Debug, Clone)]
struct Place {
    topic: String,
    partition: u32,
    key: Key,
    decode: fn(&highwater_client::ConsumedRecord) -> Value,
}

/// All places that are there during the whole run.
fn places(shared: &Shared) -> Vec<Place> {
    let mut places = trimmed::places(shared);
    places.extend(compacted::places(shared));
    places
}

/// A process that sends one record at a time.
struct Sender {
    shared: Arc<Shared>,
    producer: Producer,
    process: Process,
    /// What is stored in another topic of the name is not stored as far as the history knows.
    only: Option<TopicId>,
}

impl Sender {
    fn new(shared: &Arc<Shared>, client: &Client) -> Self {
        Self {
            shared: Arc::clone(shared),
            producer: client.producer().delivery_timeout(DELIVERY).build(),
            process: shared.recorder.new_process(),
            only: None,
        }
    }

    /// A sender whose records belong in this topic, whatever bears its name.
    fn to(shared: &Arc<Shared>, client: &Client, topic: TopicId) -> Self {
        Self {
            only: Some(topic),
            ..Self::new(shared, client)
        }
    }

    /// A value that no topic beside the main one ever had.
    fn fresh(&self) -> Value {
        Value(self.shared.aside.next.fetch_add(1, Ordering::Relaxed))
    }

    /// Sends and waits for the outcome: the offset, if there is one, and whether it may be stored.
    async fn send(
        &mut self,
        key: Key,
        value: Value,
        record: ProducerRecord,
    ) -> (Option<u64>, bool) {
        let recorder = &self.shared.recorder;
        let send = |offset| vec![Action::Send { key, value, offset }];
        recorder.invoke(self.process, Function::Send, send(None));
        let sent = self.producer.send(record).await;
        let (kind, offset) = match &sent {
            Ok(delivery) if self.only.is_some_and(|only| only != delivery.topic) => {
                (Kind::Info, None)
            }
            Ok(delivery) => (Kind::Ok, Some(delivery.offset.0)),
            Err(error) if error.may_be_written() => (Kind::Info, None),
            Err(_) => (Kind::Fail, None),
        };
        recorder.complete(kind, self.process, Function::Send, send(offset.map(Offset)));
        if kind == Kind::Info {
            self.process = recorder.new_process();
        }
        (offset, kind != Kind::Fail)
    }
}

/// One request that is recorded, by a process of its own: its answer, or what became of it.
fn record_one(shared: &Shared, function: Function, ask: Action) -> Process {
    let process = shared.recorder.new_process();
    shared.recorder.invoke(process, function, vec![ask]);
    process
}

fn code(cause: &Cause) -> Option<highwater_client::ErrorCode> {
    cause.code()
}
