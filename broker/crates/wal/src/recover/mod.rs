//! Opening a log: which files belong to it, where it ends, what its groups have.

#![deny(clippy::indexing_slicing)]

mod bad;
mod replay;
pub(crate) mod scan;
pub(crate) mod window;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use highwater_env::{Disk, DiskFile, OpenMode};

use crate::config::WalConfig;
use crate::error::BadPlace;
use crate::file::{WalFile, file_number, open_error};
use crate::frame::{
    FIRST_GROUP, FileHeader, GroupHeader, HEADER_LEN, PAGE, ParsedFileHeader, VERSION,
};
use crate::index::Bounds;
use crate::pool::{Pool, Step};
use crate::shared::Shared;
use crate::writer::{Head, Start};
use crate::{GroupId, WalError, WalOpenError};
use replay::Replay;
use scan::{Scan, scan};
use window::Window;

/// What a group has after the log was opened. Its entries are read through [`crate::Wal::read`].
pub type RecoveredGroup = Bounds;

/// What was found when the log was opened.
#[derive(Debug, Clone, Default)]
pub struct Recovery {
    /// Every group that has anything.
    pub groups: BTreeMap<GroupId, RecoveredGroup>,
    /// The end of a group that was being written when the power failed, and was cut.
    pub torn_tail: Option<TornTail>,
    /// Whether there was no log, and one was created.
    pub created: bool,
    /// Bytes of log read.
    pub bytes_read: u64,
    /// What has rotted and is done without: nothing of it is needed. [`crate::Wal::renew`] is rid
    /// of it.
    pub bad: Vec<BadPlace>,
}

/// A group that was not whole, above every position known durable: nobody was told that it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TornTail {
    /// The file.
    pub file: PathBuf,
    /// Where the group starts, in bytes.
    pub offset: u64,
    /// Its length in bytes, as far as that can be told.
    pub bytes: u64,
}

/// A file in use, as found.
struct Used<F> {
    file: Arc<WalFile<F>>,
    header: FileHeader,
}

/// All files found.
struct Found<D: Disk> {
    used: BTreeMap<u64, Used<D::File>>,
    invalid: Vec<Arc<WalFile<D::File>>>,
    pool: Pool<D>,
}

/// Opens the log in `dir` and fills the index.
pub(crate) fn open<D: Disk>(
    disk: &D,
    dir: &Path,
    config: &WalConfig,
    shared: &Shared<D::File>,
) -> Result<(Start<D>, Recovery), WalOpenError> {
    disk.create_dir_all(dir)
        .map_err(open_error("create", dir))?;
    let found = find(disk, dir, config)?;
    if found.used.is_empty() {
        refuse_lost_head(&found.invalid, 1)?;
        sync_ancestors(disk, dir)?;
        return create(found, dir, shared);
    }
    recover(found, dir, config, shared)
}

/// Makes the names of the log's directory and of those above it durable. A process that ended in
/// between may have left any of them behind undurable, so all are synced when a log is begun; the
/// first that may not be opened was not made by this process either.
fn sync_ancestors<D: Disk>(disk: &D, dir: &Path) -> Result<(), WalOpenError> {
    for above in dir
        .ancestors()
        .skip(1)
        .filter(|above| !above.as_os_str().is_empty())
    {
        match disk.sync_dir(above) {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return Ok(()),
            outcome => outcome.map_err(open_error("sync_dir", above))?,
        }
    }
    Ok(())
}

fn find<D: Disk>(disk: &D, dir: &Path, config: &WalConfig) -> Result<Found<D>, WalOpenError> {
    let pool = Pool::new(disk.clone(), dir, config.file_bytes);
    let mut found = Found {
        used: BTreeMap::new(),
        invalid: Vec::new(),
        pool,
    };
    for path in disk.read_dir(dir).map_err(open_error("read", dir))? {
        let Some(number) = file_number(&path) else {
            continue;
        };
        found.pool.next_number = found.pool.next_number.max(number.saturating_add(1));
        let file = disk
            .open(&path, OpenMode::Write)
            .map_err(open_error("open", &path))?;
        let len = file.len().map_err(open_error("measure", &path))?;
        let mut start = [0; HEADER_LEN];
        let read = file
            .read_at(&mut start, 0)
            .map_err(open_error("read", &path))?;
        let file = Arc::new(WalFile { file, path, len });
        match FileHeader::parse(start.get(..read).unwrap_or_default()) {
            ParsedFileHeader::OtherVersion(version) => {
                let file = file.path.clone();
                return Err(WalOpenError::UnsupportedVersion {
                    file,
                    version,
                    known: VERSION,
                });
            }
            ParsedFileHeader::Valid(header) if header.generation == 0 => retire(&mut found, file),
            ParsedFileHeader::Valid(header) => {
                let used = Used { file, header };
                if let Some(twin) = found.used.insert(header.generation, used) {
                    let what = "two files bear the same generation";
                    return Err(damaged(&twin.file, 0, HEADER_LEN as u64, what));
                }
            }
            ParsedFileHeader::Invalid => found.invalid.push(file),
        }
    }
    Ok(found)
}

/// Puts a file aside that holds nothing needed.
fn retire<D: Disk>(found: &mut Found<D>, file: Arc<WalFile<D::File>>) {
    if !found.pool.put_found(Arc::clone(&file)) {
        found.pool.unfinished.push(file.path.clone());
    }
}

/// A file whose header is unreadable although a group of the next generation lies in it was in
/// use: its header was durable before that group was written.
fn refuse_lost_head<F: DiskFile>(
    invalid: &[Arc<WalFile<F>>],
    generation: u64,
) -> Result<(), WalOpenError> {
    for file in invalid {
        let mut start = [0; HEADER_LEN];
        let read = file.file.read_at(&mut start, FIRST_GROUP);
        let read = read.map_err(open_error("read", &file.path))?;
        let start = start.get(..read).unwrap_or_default();
        if GroupHeader::parse(start, generation, FIRST_GROUP).is_some() {
            let what = "the file header does not match its checksum";
            return Err(damaged(file, 0, FIRST_GROUP, what));
        }
    }
    Ok(())
}

fn damaged<F>(file: &WalFile<F>, offset: u64, durable_to: u64, what: &'static str) -> WalOpenError {
    WalOpenError::Damaged {
        file: file.path.clone(),
        offset,
        durable_to,
        what,
    }
}

/// Begins a log where there is none.
fn create<D: Disk>(
    mut found: Found<D>,
    dir: &Path,
    shared: &Shared<D::File>,
) -> Result<(Start<D>, Recovery), WalOpenError> {
    found
        .pool
        .unfinished
        .extend(found.invalid.iter().map(|file| file.path.clone()));
    let file = loop {
        if let Some(file) = found.pool.take() {
            break file;
        }
        if found.pool.step().map_err(as_open_error)? == Step::Full {
            let full = io::ErrorKind::StorageFull.into();
            return Err(open_error("create the first file in", dir)(full));
        }
    };
    let header = FileHeader {
        generation: 1,
        first_sequence: 1,
        previous_end: 0,
        oldest: 1,
    };
    file.file
        .write_at(&header.encode(), 0)
        .map_err(open_error("write", &file.path))?;
    file.file
        .sync_data()
        .map_err(open_error("sync", &file.path))?;
    shared.index.write().add_file(1, Arc::clone(&file));
    let head = Head {
        file,
        generation: 1,
        position: FIRST_GROUP,
        sequence: 1,
        forgotten: 0,
    };
    let start = Start {
        pool: found.pool,
        head,
        oldest: 1,
        tips: BTreeMap::new(),
    };
    Ok((
        start,
        Recovery {
            created: true,
            ..Recovery::default()
        },
    ))
}

fn as_open_error(error: WalError) -> WalOpenError {
    match error {
        WalError::Io { call, file, source } => {
            // Shared for the waiters of a running log; here nobody else has it.
            let source = Arc::try_unwrap(source).unwrap_or_else(|s| s.kind().into());
            WalOpenError::Io { call, file, source }
        }
        _ => WalOpenError::Config {
            what: "the log was closed while it was opened",
        },
    }
}

fn recover<D: Disk>(
    mut found: Found<D>,
    dir: &Path,
    config: &WalConfig,
    shared: &Shared<D::File>,
) -> Result<(Start<D>, Recovery), WalOpenError> {
    let Some((generation, head)) = found.used.pop_last() else {
        return create(found, dir, shared);
    };
    refuse_lost_head(&found.invalid, generation + 1)?;
    let mut window = Window::new();
    let tail = scan(&head.file, &head.header, None, &mut window)?;
    let older = scan_older(
        &mut found,
        dir,
        (generation, head.header),
        tail.oldest,
        &mut window,
    )?;
    let mut index = shared.index.write();
    let mut replay = Replay::default();
    let mut bad = Vec::new();
    for (generation, file, scanned) in older.into_iter().rev() {
        index.add_file(generation, file);
        index.written(generation, scanned.end);
        replay.apply_all(scanned.changes);
        bad.extend(scanned.bad);
    }
    index.add_file(generation, Arc::clone(&head.file));
    index.written(generation, tail.end);
    settle(&head, &tail)?;
    let Scan {
        changes,
        bad: bad_in_tail,
        end,
        next_sequence,
        oldest,
        torn,
        ..
    } = tail;
    replay.apply_all(changes);
    let tips = replay.finish(dir, &mut index)?;
    bad.extend(bad_in_tail);
    bad::judge(&mut index, &bad, &config.covered)?;
    let recovered = |(id, group): (&GroupId, _)| (*id, Bounds::from(group));
    let groups = index.groups.iter().map(recovered).collect();
    tidy_up(&mut found, config)?;
    let head = Head {
        file: head.file,
        generation,
        position: end,
        sequence: next_sequence,
        forgotten: end / PAGE * PAGE,
    };
    let start = Start {
        pool: found.pool,
        head,
        oldest,
        tips,
    };
    let recovery = Recovery {
        groups,
        torn_tail: torn,
        created: false,
        bytes_read: window.bytes_read(),
        bad: bad.into_iter().map(|frame| frame.place).collect(),
    };
    Ok((start, recovery))
}

/// Puts files that the log does not need any more, or that were never finished, into the pool.
fn tidy_up<D: Disk>(found: &mut Found<D>, config: &WalConfig) -> Result<(), WalOpenError> {
    for (_, used) in std::mem::take(&mut found.used) {
        retire(found, used.file);
    }
    found
        .pool
        .unfinished
        .extend(found.invalid.iter().map(|file| file.path.clone()));
    found
        .pool
        .trim(config.max_free_files)
        .map_err(as_open_error)
}

/// A file behind the newest: its generation, itself, and what it holds.
type Older<F> = (u64, Arc<WalFile<F>>, Scan);

/// Reads the files before the newest, from the newest to the oldest needed, because each header
/// says where the file before it ends.
fn scan_older<D: Disk>(
    found: &mut Found<D>,
    dir: &Path,
    newest: (u64, FileHeader),
    oldest: u64,
    window: &mut Window,
) -> Result<Vec<Older<D::File>>, WalOpenError> {
    let mut next = newest;
    let mut scans = Vec::new();
    while next.0 > oldest {
        let generation = next.0 - 1;
        let Some(used) = found.used.remove(&generation) else {
            let unreadable = found.invalid.iter().map(|file| file.path.clone()).collect();
            let dir = dir.to_owned();
            return Err(WalOpenError::MissingFile {
                dir,
                generation,
                unreadable,
            });
        };
        let scanned = scan(&used.file, &used.header, Some(&next.1), window)?;
        next = (generation, used.header);
        scans.push((generation, used.file, scanned));
    }
    Ok(scans)
}

/// Makes durable what the log ends with, before anything bears witness that it is.
///
/// A process that ended between write and sync left it in the page cache alone, and after a failed
/// sync the cache even takes it for clean: so it is written again, then synced.
fn settle<F: DiskFile>(head: &Used<F>, tail: &Scan) -> Result<(), WalOpenError> {
    let WalFile { file, path, .. } = &*head.file;
    if tail.proven {
        return Ok(());
    }
    if let Some((start, end)) = tail.last_group {
        let mut group = vec![0; usize::try_from(end - start).unwrap_or(usize::MAX)];
        file.read_exact_at(&mut group, start)
            .map_err(open_error("read", path))?;
        file.write_at(&group, start)
            .map_err(open_error("write", path))?;
    } else {
        file.write_at(&head.header.encode(), 0)
            .map_err(open_error("write", path))?;
    }
    file.sync_data().map_err(open_error("sync", path))
}
