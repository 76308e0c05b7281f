//! All partitions of a broker behind four workers: one writes, one syncs and unlinks, one checks and
//! mends what lies on the disk, one compacts.
//!
//! Each shard holds one [`ShardSegments`], through which it hands over what apply decided, in
//! order. Checkpoints: [`ShardSegments::freeze`] at the applied index, wait for the ticket, then
//! [`SegmentStore::sync`], store the checkpoint file, and [`SegmentStore::unlink`].

mod aside;
mod barrier;
mod call_worker;
mod job;
mod leftovers;
mod removal;
mod shard;
mod sync_worker;
mod write_worker;

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use highwater_env::{Disk, WorkerHandle, WorkerJoin, Workers};
use highwater_proto::{Offset, ShardId, TopicPartition};
use parking_lot::{Mutex, RwLock};
use tokio::sync::{Semaphore, oneshot};

use crate::compact::{Replaced, Replacement};
use crate::config::SegmentConfig;
use crate::error::OpenError;
use crate::fault::{OnFatal, SegmentFault};
use crate::file_cache::{FileCache, FileCacheConfig};
use crate::manifest::PartitionManifest;
use crate::reader::PartitionReader;
use crate::sync::SyncReport;
use barrier::Barriers;
use call_worker::{CallJob, CallWorker};
use job::{Removal, SyncJob, WriteJob};
use sync_worker::SyncWorker;
use write_worker::WriteWorker;

pub use barrier::FreezeTicket;
pub use shard::ShardSegments;

/// Settings of a store.
#[derive(Debug, Clone)]
pub struct SegmentStoreConfig {
    /// The directory that holds one directory for each partition.
    pub root: PathBuf,
    /// How segments are laid out.
    pub segments: SegmentConfig,
    /// What stays open.
    pub files: FileCacheConfig,
    /// The most jobs that wait to be written.
    pub queue_jobs: usize,
    /// The most bytes that wait to be written. A batch larger than this takes all of it.
    pub queue_bytes: usize,
    /// Appends are gathered until they have this many bytes, or until [`SegmentStore::write`]: many
    /// small batches of many partitions then cost one write each partition. 0: written at once.
    /// Well below `queue_bytes`, which bounds what is gathered too.
    pub gather_bytes: usize,
}

impl SegmentStoreConfig {
    /// Defaults below `root`.
    #[must_use]
    pub fn new(root: PathBuf) -> Self {
        Self {
            root,
            segments: SegmentConfig::default(),
            files: FileCacheConfig::default(),
            queue_jobs: 4096,
            queue_bytes: 64 << 20,
            gather_bytes: 0,
        }
    }
}

/// The store did not do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A write or sync failed: the process has to stop.
    #[error(transparent)]
    Fault(Arc<SegmentFault>),
    /// A partition could not be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The store was closed.
    #[error("the segment store is closed")]
    Closed,
}

/// A store could not be started.
#[derive(Debug, thiserror::Error)]
#[error("preparing segment directory {path} failed: {source}", path = path.display())]
pub struct StartError {
    /// The directory.
    pub path: PathBuf,
    /// What the operating system said.
    pub source: io::Error,
}

/// What every handle and both workers share.
struct Shared<D: Disk> {
    config: SegmentStoreConfig,
    files: Arc<FileCache<D>>,
    /// Never iterated.
    readers: RwLock<HashMap<(ShardId, TopicPartition), PartitionReader<D>>>,
    barriers: Barriers,
    /// Numbers every job of a shard, so that a barrier knows what comes before it, and every handle.
    sequence: AtomicU64,
    storage_full: AtomicBool,
    permits: Arc<Semaphore>,
}

impl<D: Disk> Shared<D> {
    /// Why a worker no longer answers.
    fn stopped(&self) -> StoreError {
        self.files
            .faults
            .first()
            .map_or(StoreError::Closed, StoreError::Fault)
    }
}

/// A handle to the segments of all partitions of a broker.
pub struct SegmentStore<D: Disk> {
    shared: Arc<Shared<D>>,
    writer: WorkerHandle<WriteJob<D>>,
    syncer: WorkerHandle<SyncJob>,
    caller: WorkerHandle<CallJob>,
    compactor: WorkerHandle<CallJob>,
    joins: Arc<Mutex<Vec<WorkerJoin>>>,
}

impl<D: Disk> Clone for SegmentStore<D> {
    fn clone(&self) -> Self {
        Self {
            shared: self.shared.clone(),
            writer: self.writer.clone(),
            syncer: self.syncer.clone(),
            caller: self.caller.clone(),
            compactor: self.compactor.clone(),
            joins: self.joins.clone(),
        }
    }
}

impl<D: Disk> SegmentStore<D> {
    /// Makes the root directory durable and starts both workers. `on_fatal` is called once, with
    /// the first failed write or sync.
    ///
    /// # Errors
    /// Those of the file system, or a refused thread.
    pub fn start(
        disk: &D,
        workers: Workers,
        config: SegmentStoreConfig,
        on_fatal: OnFatal,
    ) -> Result<Self, StartError> {
        let path = config.root.clone();
        let failed = |source| StartError {
            path: path.clone(),
            source,
        };
        make_root(disk, &config.root).map_err(failed)?;
        let files = FileCache::new(disk.clone(), config.files, on_fatal);
        let shared = Arc::new(Shared {
            files,
            readers: RwLock::default(),
            barriers: Barriers::default(),
            sequence: AtomicU64::new(0),
            storage_full: AtomicBool::new(false),
            permits: Arc::new(Semaphore::new(config.queue_bytes.clamp(1, MAX_QUEUE_BYTES))),
            config,
        });
        let capacity = shared.config.queue_jobs.max(1);
        let (writer, write_join) = workers
            .spawn("segment-writer", capacity, WriteWorker::new(shared.clone()))
            .map_err(failed)?;
        let (syncer, sync_join) = workers
            .spawn("segment-sync", capacity, SyncWorker::new(shared.clone()))
            .map_err(failed)?;
        let (caller, call_join) = workers
            .spawn("segment-check", capacity, CallWorker)
            .map_err(failed)?;
        let (compactor, compact_join) = workers
            .spawn("segment-compact", capacity, CallWorker)
            .map_err(failed)?;
        let joins = vec![write_join, sync_join, call_join, compact_join];
        let joins = Arc::new(Mutex::new(joins));
        Ok(Self {
            shared,
            writer,
            syncer,
            caller,
            compactor,
            joins,
        })
    }
    /// The handle of one shard. There must be one at a time for each shard: it defines the order.
    #[must_use]
    pub fn shard(&self, shard: ShardId) -> ShardSegments<D> {
        ShardSegments::new(self.shared.clone(), self.writer.clone(), shard)
    }
    /// A reader of a shard's partition that is open. Holds a lock for moments only.
    #[must_use]
    pub fn reader(&self, shard: ShardId, partition: TopicPartition) -> Option<PartitionReader<D>> {
        let readers = self.shared.readers.read();
        readers.get(&(shard, partition)).cloned()
    }
    /// The offset up to which a partition is written (not: durable). What lies below can be read
    /// from files, so the tail in memory may drop it.
    #[must_use]
    pub fn written_up_to(&self, shard: ShardId, partition: TopicPartition) -> Option<Offset> {
        let readers = self.shared.readers.read();
        let reader = readers.get(&(shard, partition));
        reader.map(PartitionReader::next_offset)
    }
    /// Whether the writer waits for space. It holds everything behind the append that found none.
    #[must_use]
    pub fn is_storage_full(&self) -> bool {
        self.shared.storage_full.load(Ordering::Acquire)
    }
    /// Segment files open now.
    #[must_use]
    pub fn open_files(&self) -> usize {
        self.shared.files.open_files()
    }
    /// Runs a blocking call on the store's own thread for checking and mending, behind the calls
    /// before it. Once handed over it runs, whether or not this future is dropped.
    ///
    /// # Errors
    /// [`StoreError::Closed`] or the fault.
    pub async fn call<T: Send + 'static>(
        &self,
        call: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, StoreError> {
        self.call_on(&self.caller, call).await
    }
    /// The same on the thread for compaction.
    ///
    /// # Errors
    /// [`StoreError::Closed`] or the fault.
    pub async fn call_compactor<T: Send + 'static>(
        &self,
        call: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, StoreError> {
        self.call_on(&self.compactor, call).await
    }
    /// Puts the result of a compaction into its place, behind what was handed over before. It comes
    /// back: unless this was [`Replaced::Done`] it is to be tried again or discarded.
    ///
    /// # Errors
    /// [`StoreError::Closed`] or the fault.
    pub async fn replace(
        &self,
        new: Replacement<D>,
    ) -> Result<(Replaced, Replacement<D>), StoreError> {
        let (done, answer) = oneshot::channel();
        self.write_job(WriteJob::Replace { new, done }).await?;
        answer.await.map_err(|_| self.shared.stopped())
    }
    async fn call_on<T: Send + 'static>(
        &self,
        worker: &WorkerHandle<CallJob>,
        call: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, StoreError> {
        let (done, answer) = oneshot::channel();
        let call = Box::new(move || {
            // A caller that no longer waits wants nothing.
            let _ = done.send(call());
        });
        let sent = worker.send(CallJob::Call(call)).await;
        sent.map_err(|_| self.shared.stopped())?;
        answer.await.map_err(|_| self.shared.stopped())
    }
    /// Writes what was gathered. To be called now and then when `gather_bytes` is not 0.
    /// Cancellation-safe.
    ///
    /// # Errors
    /// [`StoreError::Closed`] or the fault.
    pub async fn write(&self) -> Result<(), StoreError> {
        self.write_job(WriteJob::Write).await
    }
    /// Tries again what waits for space. To be called now and then while
    /// [`Self::is_storage_full`]. Cancellation-safe.
    ///
    /// # Errors
    /// [`StoreError::Closed`] or the fault.
    pub async fn retry_storage(&self) -> Result<(), StoreError> {
        self.write_job(WriteJob::Retry).await
    }

    /// Makes durable everything that was written for the shard before this call, names included.
    /// To be called after the freeze ticket was redeemed. Once handed over it completes, whether
    /// or not this future is dropped.
    ///
    /// # Errors
    /// The fault that stops the process.
    pub async fn sync(&self, shard: ShardId) -> Result<SyncReport, StoreError> {
        let (done, answer) = oneshot::channel();
        let sent = self.syncer.send(SyncJob::Sync { shard, done }).await;
        sent.map_err(|_| self.shared.stopped())?;
        answer
            .await
            .map_err(|_| self.shared.stopped())?
            .map_err(StoreError::Fault)
    }
    /// Removes files of the shard's trimmed segments and deleted partitions that `durable`, the
    /// manifests of its durable checkpoint, no longer names. Returns how many files are gone. What
    /// cannot be removed is logged and left for [`Self::remove_orphans`]. Not cancellation-safe in
    /// that a dropped future may leave files for the same.
    ///
    /// # Errors
    /// [`StoreError::Closed`] or the fault.
    pub async fn unlink(
        &self,
        shard: ShardId,
        durable: Arc<Vec<(TopicPartition, PartitionManifest)>>,
    ) -> Result<usize, StoreError> {
        let (done, answer) = oneshot::channel();
        self.write_job(WriteJob::TakeUnlinkable {
            shard,
            durable,
            done,
        })
        .await?;
        let removal = answer.await.map_err(|_| self.shared.stopped())?;
        self.remove(removal).await
    }
    /// Removes what a crash left behind in the directories of the shard's partitions: files that
    /// neither `durable` names nor a log uses. Returns how many are gone.
    ///
    /// # Errors
    /// [`StoreError::Closed`] or the fault.
    pub async fn remove_orphans(
        &self,
        shard: ShardId,
        durable: Arc<Vec<(TopicPartition, PartitionManifest)>>,
    ) -> Result<usize, StoreError> {
        let (done, answer) = oneshot::channel();
        self.write_job(WriteJob::RemoveOrphans {
            shard,
            durable,
            done,
        })
        .await?;
        answer.await.map_err(|_| self.shared.stopped())
    }
    /// Removes directories of partitions that are in no durable checkpoint of any shard (`named`
    /// has them all, each with the move that brought it) and that no log uses. Returns how many files are gone.
    ///
    /// # Errors
    /// [`StoreError::Closed`] or the fault.
    pub async fn remove_orphan_partitions(
        &self,
        named: Arc<BTreeSet<(TopicPartition, u64)>>,
    ) -> Result<usize, StoreError> {
        let (done, answer) = oneshot::channel();
        self.write_job(WriteJob::RemoveOrphanPartitions { named, done })
            .await?;
        answer.await.map_err(|_| self.shared.stopped())
    }
    /// Writes and syncs what was handed over, and ends all workers. Other handles then get
    /// [`StoreError::Closed`].
    ///
    /// # Errors
    /// The fault that stopped them before.
    pub async fn close(self) -> Result<(), StoreError> {
        // A worker that is gone already was stopped by a fault or by another close.
        let _ = self.writer.send(WriteJob::Stop).await;
        let joins = std::mem::take(&mut *self.joins.lock());
        let mut joins = joins.into_iter();
        if let Some(writer) = joins.next() {
            writer.join().await;
        }
        let _ = self.syncer.send(SyncJob::Stop).await;
        if let Some(syncer) = joins.next() {
            syncer.join().await;
        }
        let _ = self.caller.send(CallJob::Stop).await;
        if let Some(caller) = joins.next() {
            caller.join().await;
        }
        let _ = self.compactor.send(CallJob::Stop).await;
        if let Some(compactor) = joins.next() {
            compactor.join().await;
        }
        self.shared
            .files
            .faults
            .first()
            .map_or(Ok(()), |fault| Err(StoreError::Fault(fault)))
    }

    async fn write_job(&self, job: WriteJob<D>) -> Result<(), StoreError> {
        self.writer
            .send(job)
            .await
            .map_err(|_| self.shared.stopped())
    }
    async fn remove(&self, removal: Removal) -> Result<usize, StoreError> {
        if removal.is_empty() {
            return Ok(0);
        }
        let (done, answer) = oneshot::channel();
        let sent = self.syncer.send(SyncJob::Remove { removal, done }).await;
        sent.map_err(|_| self.shared.stopped())?;
        answer.await.map_err(|_| self.shared.stopped())
    }
}

/// A semaphore counts to less than `usize::MAX`, and one acquisition to `u32::MAX`.
const MAX_QUEUE_BYTES: usize = 1 << 30;

fn make_root<D: Disk>(disk: &D, root: &Path) -> io::Result<()> {
    if disk.exists(root)? {
        return Ok(());
    }
    disk.create_dir_all(root)?;
    // The parent may be new as well; the broker makes its data directory durable before.
    root.parent().map_or(Ok(()), |parent| disk.sync_dir(parent))
}

#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "aside_tests.rs"]
mod aside_tests;

#[cfg(test)]
#[path = "gather_tests.rs"]
mod gather_tests;

#[cfg(test)]
#[path = "crash_tests.rs"]
mod crash_tests;

#[cfg(test)]
#[path = "compact_crash_tests.rs"]
mod compact_crash_tests;
