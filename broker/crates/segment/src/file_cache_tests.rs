//! Bounds and dirt, over a disk that counts and fails on demand.

use std::io::IoSlice;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicUsize;

use highwater_env::OsDisk;
use highwater_proto::Offset;

use super::*;
use crate::test_support::{SHARD, batch, config, owner, stored};
use crate::{PartitionLog, ReadError, partition_dir};

#[derive(Default)]
struct Counts {
    open: AtomicUsize,
    most_open: AtomicUsize,
    syncs: AtomicUsize,
    closed_dirty: AtomicUsize,
    writes: AtomicUsize,
    /// Writes up to this one are durable by a sync of the file system.
    whole_synced: AtomicUsize,
    /// Segment files and directories with changes that no sync covered. Indexes are derived and
    /// never synced.
    unsynced: Mutex<BTreeSet<PathBuf>>,
    fail_syncs: AtomicBool,
    no_whole_syncs: AtomicBool,
    full: Mutex<Option<io::ErrorKind>>,
}

/// A real disk that counts open files and notices one that is closed dirty.
#[derive(Clone, Default)]
pub(crate) struct CountingDisk(Arc<Counts>);

pub(crate) struct CountedFile {
    file: std::fs::File,
    /// The last write that was not synced; 0 is none.
    dirty: AtomicUsize,
    counts: Arc<Counts>,
    path: PathBuf,
}

impl CountingDisk {
    fn unsynced(&self) -> Vec<PathBuf> {
        self.0.unsynced.lock().iter().cloned().collect()
    }
    pub(crate) fn fail_syncs(&self, fail: bool) {
        self.0.fail_syncs.store(fail, Ordering::SeqCst);
    }
    pub(crate) fn set_full(&self, full: bool) {
        self.refuse(full.then_some(io::ErrorKind::StorageFull));
    }
    /// What it says to writes from now on.
    fn refuse(&self, kind: Option<io::ErrorKind>) {
        *self.0.full.lock() = kind;
    }
}

impl Drop for CountedFile {
    fn drop(&mut self) {
        self.counts.open.fetch_sub(1, Ordering::SeqCst);
        if self.dirty.load(Ordering::SeqCst) > self.counts.whole_synced.load(Ordering::SeqCst) {
            self.counts.closed_dirty.fetch_add(1, Ordering::SeqCst);
        }
    }
}

impl Disk for CountingDisk {
    type File = CountedFile;

    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<CountedFile> {
        if !path.exists() {
            self.0.changed(path.parent().expect("a directory"));
        }
        let file = OsDisk.open(path, mode)?;
        let open = self.0.open.fetch_add(1, Ordering::SeqCst) + 1;
        self.0.most_open.fetch_max(open, Ordering::SeqCst);
        Ok(CountedFile {
            file,
            dirty: AtomicUsize::new(0),
            counts: self.0.clone(),
            path: path.to_owned(),
        })
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        OsDisk.rename(from, to)
    }
    fn remove_file(&self, path: &Path) -> io::Result<()> {
        OsDisk.remove_file(path)
    }
    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        OsDisk.remove_dir(path)
    }
    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.0.changed(path.parent().expect("a directory"));
        OsDisk.create_dir_all(path)
    }
    fn read_dir(&self, path: &Path) -> io::Result<Vec<PathBuf>> {
        OsDisk.read_dir(path)
    }
    fn exists(&self, path: &Path) -> io::Result<bool> {
        OsDisk.exists(path)
    }
    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.0.unsynced.lock().remove(path);
        OsDisk.sync_dir(path)
    }
    fn sync_file_system(&self, path: &Path) -> io::Result<()> {
        if self.0.no_whole_syncs.load(Ordering::SeqCst) {
            return Err(io::ErrorKind::Unsupported.into());
        }
        self.0.check_sync()?;
        let writes = self.0.writes.load(Ordering::SeqCst);
        self.0.whole_synced.store(writes, Ordering::SeqCst);
        self.0.unsynced.lock().clear();
        OsDisk.sync_file_system(path)
    }
    fn free_bytes(&self, path: &Path) -> io::Result<u64> {
        OsDisk.free_bytes(path)
    }
}

impl Counts {
    fn changed(&self, path: &Path) {
        self.unsynced.lock().insert(path.to_owned());
    }
    fn check_sync(&self) -> io::Result<()> {
        if self.fail_syncs.load(Ordering::SeqCst) {
            return Err(io::Error::other("the sync was made to fail"));
        }
        Ok(())
    }
}

impl CountedFile {
    fn room(&self) -> io::Result<()> {
        self.counts
            .full
            .lock()
            .map_or(Ok(()), |kind| Err(kind.into()))
    }
}

impl DiskFile for CountedFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        DiskFile::read_at(&self.file, buf, offset)
    }
    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        DiskFile::write_at(&self.file, buf, offset)
    }
    fn write_vectored_at(&self, bufs: &[IoSlice<'_>], offset: u64) -> io::Result<()> {
        self.room()?;
        let write = self.counts.writes.fetch_add(1, Ordering::SeqCst) + 1;
        self.dirty.store(write, Ordering::SeqCst);
        self.counts.changed(&self.path);
        self.file.write_vectored_at(bufs, offset)
    }
    fn sync_data(&self) -> io::Result<()> {
        self.counts.check_sync()?;
        self.counts.syncs.fetch_add(1, Ordering::SeqCst);
        self.dirty.store(0, Ordering::SeqCst);
        self.counts.unsynced.lock().remove(&self.path);
        DiskFile::sync_data(&self.file)
    }
    fn allocate(&self, len: u64) -> io::Result<()> {
        self.room()?;
        self.file.allocate(len)
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.counts.changed(&self.path);
        DiskFile::set_len(&self.file, len)
    }
    fn len(&self) -> io::Result<u64> {
        DiskFile::len(&self.file)
    }
}

fn small_cache(disk: &CountingDisk, max_open_files: usize) -> Arc<FileCache<CountingDisk>> {
    let config = FileCacheConfig {
        max_open_files,
        ..FileCacheConfig::default()
    };
    FileCache::new(disk.clone(), config, Arc::new(|_| {}))
}

fn logs(
    files: &Arc<FileCache<CountingDisk>>,
    root: &Path,
    count: u32,
) -> Vec<PartitionLog<CountingDisk>> {
    (0..count)
        .map(|i| {
            let dir = partition_dir(root, (crate::test_support::tp(i), 0));
            PartitionLog::create(files, owner(i), &dir, config())
        })
        .collect()
}

#[test]
fn two_thousand_partitions_share_few_descriptors() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let disk = CountingDisk::default();
    let files = small_cache(&disk, 64);
    let mut logs = logs(&files, dir.path(), 2_000);
    for base in 0..2 {
        for log in &mut logs {
            log.append(&batch(base, &[1], 20)).expect("append");
        }
    }
    for log in &logs {
        let got = log.reader().read(Offset(1), 1, Offset(2)).expect("read");
        assert_eq!(got, stored(&batch(1, &[1], 20)));
    }
    assert!(disk.0.most_open.load(Ordering::SeqCst) <= 64);
    assert_eq!(disk.0.closed_dirty.load(Ordering::SeqCst), 0);
    assert_eq!(files.open_files(), 64);
}

#[test]
fn concurrent_readers_stay_within_the_bound() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let disk = CountingDisk::default();
    let files = small_cache(&disk, 8);
    let mut logs = logs(&files, dir.path(), 50);
    for log in &mut logs {
        log.append(&batch(0, &[1], 20)).expect("append");
    }
    let readers: Vec<_> = logs.iter().map(PartitionLog::reader).collect();
    std::thread::scope(|scope| {
        for start in 0..4 {
            let readers = &readers;
            scope.spawn(move || {
                for i in 0..500 {
                    let reader = &readers[(start * 13 + i * 7) % 50];
                    assert!(
                        !reader
                            .read(Offset(0), 1, Offset(1))
                            .expect("read")
                            .is_empty()
                    );
                }
            });
        }
    });
    assert!(disk.0.most_open.load(Ordering::SeqCst) <= 8 + 4);
    assert_eq!(disk.0.closed_dirty.load(Ordering::SeqCst), 0);
}

#[test]
fn a_failed_sync_before_closing_is_fatal_and_reported_once() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let disk = CountingDisk::default();
    let reports = Arc::new(AtomicUsize::new(0));
    let counted = reports.clone();
    let config = FileCacheConfig {
        max_open_files: 1,
        ..FileCacheConfig::default()
    };
    let hook: OnFatal = Arc::new(move |_| {
        counted.fetch_add(1, Ordering::SeqCst);
    });
    let files = FileCache::new(disk.clone(), config, hook);
    let mut logs = logs(&files, dir.path(), 3);
    logs[0].append(&batch(0, &[1], 20)).expect("append");
    logs[1].append(&batch(0, &[1], 20)).expect("append");
    disk.fail_syncs(true);
    let error = logs[0]
        .reader()
        .read(Offset(0), 1, Offset(1))
        .expect_err("eviction fails");
    assert!(
        matches!(error, ReadError::File(FileError::Fault(_))),
        "{error}"
    );
    assert!(logs[2].sync_dirty().is_ok());
    assert!(
        logs[0].append(&batch(1, &[1], 20)).is_ok(),
        "no file needs to be closed for this one"
    );
    assert!(logs[0].sync_dirty().is_err());
    assert_eq!(reports.load(Ordering::SeqCst), 1);
}

#[test]
fn many_dirty_files_are_synced_at_once_and_only_of_the_shard() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let disk = CountingDisk::default();
    let files = small_cache(&disk, 100);
    let mut logs = logs(&files, dir.path(), 40);
    for log in &mut logs {
        log.append(&batch(0, &[1], 20)).expect("append");
    }
    let other = highwater_proto::ShardId(1);
    assert_eq!(
        files.sync(|o| o.shard == other).expect("sync"),
        crate::SyncReport::default()
    );
    let report = files.sync(|o| o.shard == SHARD).expect("sync");
    assert_eq!(
        (report.files, report.directories, report.whole_file_system),
        (40, 41, true)
    );
    logs[3].append(&batch(1, &[1], 20)).expect("append");
    let report = files.sync(|o| o.shard == SHARD).expect("sync");
    assert_eq!(
        (report.files, report.directories, report.whole_file_system),
        (1, 0, false)
    );
    assert_eq!(disk.0.syncs.load(Ordering::SeqCst), 1);
}

#[test]
fn a_full_disk_leaves_the_log_as_it_was() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let disk = CountingDisk::default();
    let files = small_cache(&disk, 10);
    let mut log = logs(&files, dir.path(), 1).remove(0);
    log.append(&batch(0, &[1], 20)).expect("append");
    let before = log.freeze();
    let next = batch(1, &[2], 2_000);
    for kind in [io::ErrorKind::StorageFull, io::ErrorKind::QuotaExceeded] {
        disk.refuse(Some(kind));
        let error = log.append(&next).expect_err("full");
        assert!(
            matches!(error, crate::AppendError::StorageFull { .. }),
            "{error}"
        );
        assert_eq!(log.freeze(), before);
    }
    disk.refuse(None);
    log.append(&next).expect("append");
    assert_eq!(log.next_offset(), Offset(2));
    assert!(files.faults.first().is_none());
}

#[test]
fn a_directory_that_was_removed_is_not_synced() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let disk = CountingDisk::default();
    let files = small_cache(&disk, 10);
    let mut log = logs(&files, dir.path(), 1).remove(0);
    log.append(&batch(0, &[1], 20)).expect("append");
    let path = log.dir().to_owned();
    log.close_for_removal();
    std::fs::remove_dir_all(path).expect("remove");
    let report = files.sync(|_| true).expect("sync");
    assert_eq!(
        (report.files, report.directories),
        (0, 1),
        "the parent alone"
    );
}

#[test]
fn a_sync_leaves_nothing_that_a_power_loss_could_take() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    // The last one is a file system that cannot be synced as a whole.
    let bounds = [
        (4, 1_000, false),
        (4, 3, false),
        (100, 1_000, false),
        (100, 5, false),
        (100, 5, true),
    ];
    for (max_open_files, sync_file_system_from, no_whole_syncs) in bounds {
        let disk = CountingDisk::default();
        disk.0
            .no_whole_syncs
            .store(no_whole_syncs, Ordering::SeqCst);
        let bounds = FileCacheConfig {
            max_open_files,
            sync_file_system_from,
            ..Default::default()
        };
        let files = FileCache::new(disk.clone(), bounds, Arc::new(|_| {}));
        let root = dir.path().join(format!(
            "{max_open_files}-{sync_file_system_from}-{no_whole_syncs}"
        ));
        let mut logs = logs(&files, &root, 12);
        for round in 0..6 {
            for (i, log) in logs
                .iter_mut()
                .enumerate()
                .filter(|(i, _)| (i + round) % 3 > 0)
            {
                let new_segment = (i + round) % 4 == 0;
                let next = batch(log.next_offset().0, &[1], 300);
                log.append(&crate::AppendBatch {
                    new_segment,
                    ..next
                })
                .expect("append");
            }
            if round == 2 {
                // What is trimmed may still be named by the manifest that this sync is for.
                logs[1].set_log_start(Offset(2));
            }
            assert!(!disk.unsynced().is_empty());
            let report = files.sync(|o| o.shard == SHARD).expect("sync");
            assert_eq!(disk.unsynced(), Vec::<PathBuf>::new(), "round {round}");
            let many = report.files + report.directories >= sync_file_system_from;
            assert_eq!(report.whole_file_system, many && !no_whole_syncs);
        }
        assert_eq!(disk.0.closed_dirty.load(Ordering::SeqCst), 0);
    }
}

/// A killed process leaves directories whose names no checkpoint has made durable. The next one
/// finds them and must not take them for durable, or a power loss takes the whole partition.
#[test]
fn a_directory_that_a_killed_process_made_is_made_durable_with_the_next_checkpoint() {
    let dir = tempfile::tempdir().expect("tempdir");
    let disk = CountingDisk::default();
    for life in 0..2 {
        let bounds = FileCacheConfig::default();
        let files = FileCache::new(disk.clone(), bounds, Arc::new(|_| {}));
        for log in &mut logs(&files, dir.path(), 2) {
            log.append(&batch(0, &[1], 300)).expect("append");
        }
        assert!(
            disk.unsynced().contains(&dir.path().to_owned()),
            "life {life}"
        );
        // Only the second life comes as far as a checkpoint.
        if life == 1 {
            files.sync(|o| o.shard == SHARD).expect("sync");
        }
    }
    assert_eq!(disk.unsynced(), Vec::<PathBuf>::new());
}
