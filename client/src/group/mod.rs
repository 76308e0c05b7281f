//! Consumer groups: members share partitions, each record is handled at least once.
//!
//! ```no_run
//! use highwater_client::Client;
//!
//! # async fn bill(_order: &[u8]) -> std::io::Result<()> { Ok(()) }
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let client = Client::connect("highwater://localhost:9094").await?;
//! let worker = client.group("billing").topic("orders").run(|record| async move {
//!     bill(record.value.as_deref().unwrap_or_default()).await?;
//!     Ok(())
//! })?;
//! tokio::signal::ctrl_c().await?;
//! worker.stop().await?; // finishes, commits, leaves
//! # Ok(())
//! # }
//! ```
//!
//! # What is promised
//!
//! **At least once.** What is committed never passes a record that is not finished: with handlers
//! in parallel, the offset behind the longest prefix of finished records is committed, for all
//! partitions in one call. After a crash, or when a partition moves before its last commit, records
//! behind the committed offset are handled again. A handler must bear that; where an effect must
//! happen once, keep an inbox of event ids, or the offsets, in the database transaction that has
//! the effect (see the examples `inbox` and `offsets_with_data`).
//!
//! **In order within a key.** [`GroupBuilder::run`] handles records of a key one after the other,
//! also across retries; keys run side by side. [`GroupBuilder::run_chunks`] hands over several at a
//! time where a key's records wait, for handlers with one transaction for all of them. In one process that holds also when a partition
//! leaves and comes back while a handler is still at work.
//!
//! **Handlers never delay heartbeats.** Session, assignments, commits and handlers are tasks of
//! their own. A slow handler delays its own key, and holds up a partition's move for half of the
//! rebalance timeout at the most. As everywhere in async code, a handler must not block its thread:
//! use `tokio::task::spawn_blocking`.
//!
//! **A failing record does not stop the others.** [`RetryPolicy`]: three attempts, then the record
//! goes to `<group>.dlq` and its key is parked: later records of that key follow it there, in
//! order, until they are redriven. Parked keys are state of the group; they survive restarts,
//! rebalances and failover. Records reach the dead letter queue at least once; listing, counting
//! and redriving take each (topic id, partition, offset) once.
//!
//! Members of one group should have the same settings. [`GroupConsumer`] hands records out itself
//! and leaves retries to the application: it does not know parked keys.

pub(crate) mod admin;
mod config;
pub(crate) mod coordinator;
mod dead_letter;
mod dispatch;
mod ledger;
mod letters;
mod membership;
mod parked;
mod policy;
mod progress;
mod reconcile;
pub mod redrive;
mod rounds;
mod session;
mod shared;
mod state;
mod stream;
mod worker;

use std::ops::Deref;

pub use admin::{GroupAdmin, Reset, ResetTo};
pub use config::{CommitMode, GroupBuilder, GroupStart, NamedPartition, Ordering, RevokeReason};
pub use dead_letter::{DeadLetter, headers};
pub use policy::{HandlerError, OnFailure, RetryPolicy};
pub use stream::GroupConsumer;
pub use worker::{Chunk, GroupWorker};

use crate::error::{Cause, ConsumeError};
use crate::record::ConsumedRecord;

/// The topic that takes a group's dead letters.
#[must_use]
pub fn dlq_topic(group: &str) -> String {
    format!("{group}.dlq")
}

/// The topic by which dead letters come back to their group, and to no other.
#[must_use]
pub fn redrive_topic(group: &str) -> String {
    format!("{group}.redrive")
}

/// A member of a group cannot go on, or not with this.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GroupError {
    /// The settings make no sense.
    #[error("{0}")]
    Settings(String),
    /// The membership has ended for good: another process took over the instance id, the group is
    /// full, the subscription is refused.
    #[error("the group membership has ended: {0}")]
    Ended(Cause),
    /// One partition cannot be read; the others go on.
    #[error(transparent)]
    Partition(#[from] ConsumeError),
    /// What is finished could not be committed in time; it may be handled again.
    #[error("not committed: {0}")]
    Commit(Cause),
    /// It was stopped.
    #[error("closed")]
    Closed,
}

/// A record handed out by a group. It is finished by [`GroupRecord::done`] (with
/// [`CommitMode::Explicit`]), when the next one is asked for ([`CommitMode::Auto`]), or when the
/// handler that got it returns `Ok`.
#[derive(Debug)]
pub struct GroupRecord {
    record: ConsumedRecord,
    attempt: u32,
    redriven: bool,
    receipt: Option<stream::Receipt>,
}

impl GroupRecord {
    /// The handler's attempt, from 1.
    #[must_use]
    pub fn attempt(&self) -> u32 {
        self.attempt
    }
    /// Whether it comes from the dead letter queue. Topic, partition, offset and timestamp are
    /// those of the original.
    #[must_use]
    pub fn redriven(&self) -> bool {
        self.redriven
    }
    /// The record is finished: what is committed may pass it. Records may be finished in any
    /// order. Has no effect where the group counts by itself.
    pub fn done(mut self) {
        if let Some(receipt) = self.receipt.take() {
            receipt.finish();
        }
    }
    /// The record itself. With [`CommitMode::Explicit`], a record that is taken out of its wrapper
    /// without [`GroupRecord::done`] comes again.
    #[must_use]
    pub fn into_record(mut self) -> ConsumedRecord {
        std::mem::replace(&mut self.record, worker::empty())
    }
}

impl Deref for GroupRecord {
    type Target = ConsumedRecord;

    fn deref(&self) -> &ConsumedRecord {
        &self.record
    }
}
