//! Transactional outbox: rows that a database transaction wrote beside its data become records,
//! each stored once.
//!
//! An application that changes its database and must tell others writes both into the database, in
//! one transaction: its data, and a row of the outbox. A [`Relay`] publishes the rows in order and
//! marks them. (The pattern: Chris Richardson, "Transactional outbox", microservices.io.)
//!
//! # How a crash between publishing and marking is survived
//!
//! Before anything is sent, the relay stores a *claim*: which rows form one batch, for which
//! partition, under which producer id and sequence number. Only then it sends the batch. A relay
//! that starts and finds a claim sends the very same batch under the very same numbers, and the
//! cluster, which remembers the last five batches of each producer and partition, stores it once
//! whatever became of the first attempt. Claims are stored by compare-and-swap
//! ([`OutboxStore::save`]), so that a second relay, or one that slept and wakes up, can repeat a
//! claim but never number another batch with the same numbers.
//!
//! # What is promised
//!
//! - Each row is stored exactly once, and rows of one partition in the order in which
//!   [`OutboxStore::pending`] gives them, over crashes of the relay, of brokers, and with several
//!   relays at once.
//! - A relay that stood still for longer than the cluster remembers producers (24 hours) with a
//!   claim open reads the partition back from where it stood when the claim was made, and sends
//!   the claim only if its rows are not there. The same is done at every start, so also when the
//!   cluster forgot the producer early because too many others came after it. What is left: rows
//!   whose records were deleted by retention before the relay came back are stored again.
//! - Every record carries its row in the header [`OUTBOX_HEADER`] (`name/row`), which consumers
//!   can keep in an inbox.
//!
//! Order among rows of concurrent transactions is the database's business: if a transaction with a
//! lower row number commits later, its row is published later.

mod lanes;
mod publish;
mod relay;
mod state;

use std::future::Future;

pub use relay::{OutboxError, Relay, RelayBuilder, Relayed};
pub use state::{Claim, Identity, PartitionState, RelayState};

use crate::record::ProducerRecord;

/// The header that names a record's row: the outbox's name, a slash, the row's number.
pub const OUTBOX_HEADER: &str = "highwater-outbox";

/// One row that waits to be published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutboxRow {
    /// Its number, unique in the outbox.
    pub id: u64,
    /// What is to be published. Without a partition it is chosen by key, without a key by number.
    /// It must not change until the row is marked.
    pub record: ProducerRecord,
}

/// The application's database, as far as the relay needs it: a table of rows, and one more row for
/// the relay's own state.
pub trait OutboxStore: Send {
    /// What can go wrong. The relay ends with it, and can be started again.
    type Error: std::error::Error + Send + Sync + 'static;

    /// The state that was saved last; nothing before the first time.
    fn load(&mut self) -> impl Future<Output = Result<Option<RelayState>, Self::Error>> + Send;

    /// The oldest rows that are not marked, `most` of them, in the order in which they are to be
    /// published.
    fn pending(
        &mut self,
        most: usize,
    ) -> impl Future<Output = Result<Vec<OutboxRow>, Self::Error>> + Send;

    /// These rows, marked or not, in this order.
    fn rows(
        &mut self,
        ids: &[u64],
    ) -> impl Future<Output = Result<Vec<OutboxRow>, Self::Error>> + Send;

    /// In one transaction: if the stored state's revision is `expected` (0: there is none), stores
    /// `state` and marks the rows `published`. Answers false, and changes nothing, if it is not.
    /// Must be durable when it answers.
    fn save(
        &mut self,
        expected: u64,
        state: &RelayState,
        published: &[u64],
    ) -> impl Future<Output = Result<bool, Self::Error>> + Send;
}
