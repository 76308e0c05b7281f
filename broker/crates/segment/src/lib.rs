//! Partition segment files: batches, sparse indexes, lookups, recovery from a manifest.
//!
//! - [`PartitionLog`] appends the committed batches of one partition; its owner is one worker.
//! - [`PartitionReader`] reads them from many threads.
//! - [`FileCache`] bounds open descriptors over all partitions and knows what is dirty.
//! - [`SegmentStore`] owns all logs of a broker behind two workers.
//! - [`Compaction`] keeps the latest record of each key.
//! - [`SegmentCheck`] finds what rotted, [`Mend`] puts it back from another replica's bytes.
//! - [`PartitionManifest`] and [`Checkpoint`] say what counts after a restart.
//!
//! Nothing here knows what Raft is: a checkpoint carries its words as opaque bytes. No file is
//! truncated because its content is unknown, and none is removed that a durable manifest names.
//! Formats: `FORMAT.md`.

mod append;
mod aside;
mod check;
mod checkpoint;
mod compact;
mod config;
mod decode;
mod error;
mod fault;
mod file_cache;
mod header;
mod index_cache;
mod index_file;
mod layout;
mod log;
mod manifest;
mod map;
mod mend;
#[cfg(test)]
mod model_tests;
mod open;
mod reader;
mod retention;
mod scan;
mod segment;
mod sparse_index;
mod store;
mod sync;
#[cfg(test)]
mod test_support;
mod time_lookup;
mod trim;

pub use append::AppendBatch;
pub use check::{Checked, SegmentCheck};
pub use checkpoint::{Checkpoint, CheckpointError, ReadCheckpointError};
pub use compact::{
    AdoptError, Adopted, Adoption, Begun, CompactError, Compaction, CompactionOptions,
    CompactionProgress, CompactionStats, CompactionTask, Pin, PinnedPiece, Replaced, Replacement,
};
pub use config::SegmentConfig;
pub use error::{AppendError, Damage, OpenError, ReadError};
pub use fault::{OnFatal, SegmentFault};
pub use file_cache::{FileCache, FileCacheConfig, FileError};
pub use layout::{LogIdentity, log_path, partition_dir};
pub use log::PartitionLog;
pub use manifest::{Compacted, ManifestError, PartitionManifest, SegmentManifest};
pub use mend::{Mend, MendError};
pub use reader::PartitionReader;
pub use retention::Retention;
pub use store::{
    FreezeTicket, SegmentStore, SegmentStoreConfig, ShardSegments, StartError, StoreError,
};
pub use sync::SyncReport;
