//! One write-ahead log per broker, shared by all its shards.
//!
//! Votes, log entries, truncations and purge points of all groups go into one sequence of files.
//! One writer takes all that waits, writes it as one group, syncs once and answers everybody:
//! nothing is answered before it is durable. FORMAT.md says what the bytes mean, and which rules
//! tell a torn tail from damage.
//!
//! Step 6a of the produce journey: before it, the raft crate proposes an entry; after it, the
//! entry counts towards its majority.

mod check;
mod config;
mod error;
mod file;
mod frame;
mod handle;
mod index;
mod ops;
mod pool;
mod read;
mod recover;
mod shared;
mod stats;
mod writer;

pub use check::{LogCheck, LogChecked};
pub use config::{Covered, OnFatal, WalConfig};
pub use error::{BadPlace, RenewError, WalError, WalOpenError, WalReadError};
pub use handle::{PurgeHint, Wal};
pub use index::Bounds;
pub use ops::{Done, GroupId, LogIndex, Op};
pub use recover::{RecoveredGroup, Recovery, TornTail};
pub use stats::WalStats;
