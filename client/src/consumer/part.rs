//! What a consumer keeps per partition and per stream, and the words of its state machine.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use highwater_proto::batch::RecordBatch;
use highwater_proto::{NodeId, TopicPartition};

/// Validated batches of one partition, waiting to be decoded.
#[derive(Debug)]
pub(crate) struct Chunk {
    pub tp: TopicPartition,
    pub topic: Arc<str>,
    pub batches: VecDeque<RecordBatch>,
    pub(super) generation: u64,
    pub(super) session: u64,
    pub(super) bytes: u64,
}

#[derive(Debug)]
pub(super) struct Part {
    pub(super) topic: Arc<str>,
    /// Next offset to hand to the application.
    pub(super) position: u64,
    /// Next offset to ask a broker for.
    pub(super) fetched: u64,
    /// Changes with every seek: what was buffered before is void.
    pub(super) generation: u64,
    pub(super) paused: bool,
    /// Stands still after an error until the next seek.
    pub(super) halted: bool,
    pub(super) target: Option<NodeId>,
    pub(super) live: Option<(u64, u32)>,
    pub(super) retry_at: Duration,
    /// When the last subscription was asked for.
    pub(super) subscribed_at: Duration,
    /// Subscriptions in a row that failed before they had lived for a while.
    pub(super) failures: u32,
    /// Since when all that is said is that there is no such partition.
    pub(super) unknown_since: Option<Duration>,
    /// Brokers at which a range is damaged.
    pub(super) avoid: BTreeSet<NodeId>,
    pub(super) high_watermark: Option<u64>,
    pub(super) log_start: Option<u64>,
}

#[derive(Debug)]
pub(super) struct Session {
    pub(super) node: NodeId,
    /// Credit granted and not used, in bytes; below zero by at most one batch.
    pub(super) credit: i64,
    /// Credit to be granted with the next message.
    pub(super) owed: u64,
    pub(super) next_id: u32,
    pub(super) live: BTreeMap<u32, TopicPartition>,
    pub(super) ending: Vec<u32>,
}

/// A message to the broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Request {
    Subscribe {
        id: u32,
        tp: TopicPartition,
        offset: u64,
    },
    Unsubscribe(u32),
    Credit(u64),
}

/// What an application may want when its offset is not in the log (any more).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OutOfRange {
    /// Hand out an error; the partition stands still until a seek.
    #[default]
    Error,
    /// Go on at the first record kept.
    Earliest,
    /// Go on at the end.
    Latest,
}

/// How one error of a subscription is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trouble {
    Retried,
    /// The offset has to be looked up anew, by the rule given to the builder.
    Reset,
    Surfaced,
}

impl Part {
    /// A partition to be read from `offset` on, nowhere yet.
    pub(super) fn at(topic: Arc<str>, offset: u64) -> Self {
        Self {
            topic,
            position: offset,
            fetched: offset,
            generation: 0,
            paused: false,
            halted: false,
            target: None,
            live: None,
            retry_at: Duration::ZERO,
            subscribed_at: Duration::ZERO,
            failures: 0,
            unknown_since: None,
            avoid: BTreeSet::new(),
            high_watermark: None,
            log_start: None,
        }
    }
}

impl Session {
    /// Whether credit is to be granted now. Small grants are saved up, unless the broker may be
    /// waiting for them.
    pub(super) fn grants(&self, window: u64) -> bool {
        let starving = i128::from(self.credit) < i128::from(window / 2);
        self.owed > 0 && (starving || self.owed >= window / 4)
    }
}
