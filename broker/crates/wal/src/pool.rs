//! Files ready for use: created, preallocated, written through once, or recycled.
//!
//! A sync of a file that was never written through is three to ten times slower, so a file goes
//! into use only after that; the work is done in steps between flushes.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use highwater_env::{Disk, DiskFile, OpenMode, is_full};

use crate::WalError;
use crate::file::{WalFile, file_name, write_error};
use crate::frame::{FIRST_GROUP, FileHeader};

/// How many bytes one step writes and syncs.
const STEP: usize = 1 << 20;
/// How many files are kept ready: one to go on with, and one that only votes and other small
/// states may take, so that they go on when the disk is full.
pub(crate) const KEPT_READY: usize = 2;

static ZEROES: [u8; STEP] = [0; STEP];

/// What a step has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// Something; more is to do.
    Worked,
    /// A file has become ready.
    Ready,
    /// The disk is full. Nothing is left behind.
    Full,
}

struct Preparing<F> {
    file: F,
    path: PathBuf,
    len: u64,
    written: u64,
}

/// Files not in use.
pub(crate) struct Pool<D: Disk> {
    disk: D,
    dir: PathBuf,
    file_bytes: u64,
    ready: Vec<Arc<WalFile<D::File>>>,
    preparing: Option<Preparing<D::File>>,
    /// Files that exist but were never finished.
    pub unfinished: Vec<PathBuf>,
    /// The number of the next new file.
    pub next_number: u32,
}

impl<D: Disk> Pool<D> {
    pub(crate) fn new(disk: D, dir: &Path, file_bytes: u64) -> Self {
        Self {
            disk,
            dir: dir.to_owned(),
            file_bytes,
            ready: Vec::new(),
            preparing: None,
            unfinished: Vec::new(),
            next_number: 1,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.ready.len()
    }

    /// How many files could be taken now: no reader holds them any more.
    pub(crate) fn usable(&self) -> usize {
        self.ready
            .iter()
            .filter(|file| Arc::strong_count(file) == 1)
            .count()
    }

    /// Takes a file of the usual size that no reader holds.
    pub(crate) fn take(&mut self) -> Option<Arc<WalFile<D::File>>> {
        let at = self
            .ready
            .iter()
            .position(|file| Arc::strong_count(file) == 1)?;
        Some(self.ready.remove(at))
    }

    /// Puts in a file that is written through and not needed; it is removed when there are `max`
    /// already or when its size is not the usual one. The removal need not be durable: a file
    /// that comes back bears a generation that is no longer needed.
    pub(crate) fn put(&mut self, file: Arc<WalFile<D::File>>, max: usize) -> Result<(), WalError> {
        if file.len == self.file_bytes && self.ready.len() < max.max(KEPT_READY) {
            self.ready.push(file);
            return Ok(());
        }
        self.disk
            .remove_file(&file.path)
            .map_err(write_error("remove", &file.path))
    }

    /// Takes in a file found when the log was opened. `false`: it has not the usual size.
    pub(crate) fn put_found(&mut self, file: Arc<WalFile<D::File>>) -> bool {
        let usual = file.len == self.file_bytes;
        if usual {
            self.ready.push(file);
        }
        usual
    }

    /// Removes what is more than `max` files, and files beyond need that are not of the usual
    /// size.
    pub(crate) fn trim(&mut self, max: usize) -> Result<(), WalError> {
        let max = max.max(KEPT_READY);
        let surplus = self.ready.split_off(max.min(self.ready.len()));
        let mut paths: Vec<_> = surplus.iter().map(|file| file.path.clone()).collect();
        let wanted = KEPT_READY.saturating_sub(self.ready.len());
        paths.extend(self.unfinished.split_off(wanted.min(self.unfinished.len())));
        for path in &paths {
            self.disk
                .remove_file(path)
                .map_err(write_error("remove", path))?;
        }
        Ok(())
    }

    /// Does a part of what makes a file ready.
    pub(crate) fn step(&mut self) -> Result<Step, WalError> {
        let len = self.file_bytes;
        let step = self.advance(len)?;
        if step == Step::Ready
            && let Some(done) = self.preparing.take()
        {
            self.ready.push(Arc::new(WalFile {
                file: done.file,
                path: done.path,
                len,
            }));
        }
        Ok(step)
    }

    /// Makes a file of `len` bytes, for an operation too large for a file of the usual size.
    pub(crate) fn create_large(
        &mut self,
        len: u64,
    ) -> Result<Option<Arc<WalFile<D::File>>>, WalError> {
        let interrupted = self.preparing.take();
        let made = loop {
            match self.advance(len) {
                Ok(Step::Worked) => {}
                Ok(Step::Ready) => break Ok(self.preparing.take()),
                Ok(Step::Full) => break Ok(None),
                Err(e) => break Err(e),
            }
        };
        self.preparing = interrupted;
        Ok(made?.map(|done| {
            Arc::new(WalFile {
                file: done.file,
                path: done.path,
                len,
            })
        }))
    }

    fn advance(&mut self, len: u64) -> Result<Step, WalError> {
        let Some(preparing) = &mut self.preparing else {
            return self.begin(len);
        };
        let Preparing {
            file,
            path,
            len,
            written,
        } = preparing;
        if *written < *len {
            let part = usize::try_from(*len - *written).unwrap_or(STEP).min(STEP);
            let outcome = file.write_at(ZEROES.get(..part).unwrap_or(&ZEROES), *written);
            match outcome.and_then(|()| file.sync_data()) {
                Ok(()) => *written += part as u64,
                Err(e) if is_full(&e) => return self.abandon(),
                Err(e) => return Err(write_error("prepare", path)(e)),
            }
            return Ok(Step::Worked);
        }
        self.disk
            .sync_dir(&self.dir)
            .map_err(write_error("sync_dir", &self.dir))?;
        // Last, so that a file that bears it is known to be finished. It need not be durable.
        let unused = FileHeader {
            generation: 0,
            first_sequence: 0,
            previous_end: 0,
            oldest: 0,
        };
        file.write_at(&unused.encode(), 0)
            .map_err(write_error("write", path))?;
        Ok(Step::Ready)
    }

    fn begin(&mut self, len: u64) -> Result<Step, WalError> {
        let path = if let Some(path) = self.unfinished.pop() {
            // Created again, because its name may be one that a failed sync left undurable.
            self.disk
                .remove_file(&path)
                .map_err(write_error("remove", &path))?;
            path
        } else {
            let path = self.dir.join(file_name(self.next_number));
            self.next_number += 1;
            path
        };
        let file = match self.disk.open(&path, OpenMode::CreateNew) {
            Ok(file) => file,
            Err(e) if is_full(&e) => return Ok(Step::Full),
            Err(e) => return Err(write_error("create", &path)(e)),
        };
        let allocated = file.allocate(len);
        self.preparing = Some(Preparing {
            file,
            path: path.clone(),
            len,
            written: 0,
        });
        match allocated {
            Ok(()) => Ok(Step::Worked),
            Err(e) if is_full(&e) => self.abandon(),
            Err(e) => Err(write_error("allocate", &path)(e)),
        }
    }

    /// Gives the space of an unfinished file back.
    fn abandon(&mut self) -> Result<Step, WalError> {
        if let Some(Preparing { file, path, .. }) = self.preparing.take() {
            drop(file);
            self.disk
                .remove_file(&path)
                .map_err(write_error("remove", &path))?;
        }
        Ok(Step::Full)
    }

    /// The smallest file that holds a group of `span` bytes, and whether that is the usual size.
    pub(crate) fn len_for(&self, span: u64) -> (u64, bool) {
        let needed = FIRST_GROUP + span;
        if needed <= self.file_bytes {
            (self.file_bytes, true)
        } else {
            (needed, false)
        }
    }
}

#[cfg(test)]
#[path = "pool_tests.rs"]
mod tests;
