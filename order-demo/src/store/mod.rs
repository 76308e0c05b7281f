//! A service's own store: state, inbox and outbox in one file, changed together in one commit.

mod database;
mod outbox;
mod writer;

pub use database::{Database, StoreError};
pub use outbox::StoredOutbox;
pub use writer::{Handled, Logic, Store, StoreOptions};
