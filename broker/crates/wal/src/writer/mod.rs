//! The writer: takes what waits, writes it as one group, syncs once, answers in order; between
//! flushes it prepares files, recycles old ones and marks the end of an idle log.

mod flush;
pub(crate) mod group;
pub(crate) mod queue;
mod recycle;
mod renew;
mod tip;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use highwater_env::{Disk, DiskFile, Worker};
use highwater_mutant::mutant;
use tokio::sync::oneshot;

use crate::config::WalConfig;
use crate::file::{WalFile, write_error};
use crate::frame::{FIRST_GROUP, FileHeader, GroupHeader, HEADER_LEN, PAGE};
use crate::pool::{KEPT_READY, Pool, Step};
use crate::shared::Shared;
use crate::{GroupId, WalError};
use queue::{Job, Submission};
use recycle::{Pass, Relocating};
use renew::Renewals;
pub(crate) use tip::Tip;

/// What is left cached behind the position, and how much is forgotten at once.
const KEPT_CACHED: u64 = 1 << 20;
const FORGET_STEP: u64 = 4 << 20;

/// The file being written.
pub(crate) struct Head<F> {
    pub file: Arc<WalFile<F>>,
    pub generation: u64,
    /// Where the next group goes. Everything before it is durable.
    pub position: u64,
    /// The next group's number.
    pub sequence: u64,
    /// Up to here the page cache was asked to forget what was written.
    pub forgotten: u64,
}

impl<F> Head<F> {
    /// Bytes left for groups.
    fn room(&self) -> u64 {
        self.file.len.saturating_sub(self.position)
    }
}

impl<F: DiskFile> Head<F> {
    /// Gives the page cache back what lies well behind the position: it is durable, memory holds what
    /// followers ask for, and pages that are free again are what the next ones are made of. New ones cost
    /// several times as much where the host has to find them first (benches/README.md).
    pub(super) fn forget_written(&mut self) {
        let upto = self.position.saturating_sub(KEPT_CACHED) / PAGE * PAGE;
        if upto.saturating_sub(self.forgotten) >= FORGET_STEP {
            self.forget(upto);
        }
    }
    fn forget(&mut self, upto: u64) {
        self.file
            .file
            .forget_cached(self.forgotten, upto.saturating_sub(self.forgotten));
        self.forgotten = upto;
    }
}

/// Who asks for room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Need {
    /// Entries: they leave one file ready.
    Entries,
    /// States and what frees space: they may take the last file.
    States,
}

/// The state machine that owns the log's files.
pub(crate) struct Writer<D: Disk> {
    shared: Arc<Shared<D::File>>,
    config: WalConfig,
    pool: Pool<D>,
    head: Head<D::File>,
    /// The oldest generation needed.
    oldest: u64,
    tips: BTreeMap<GroupId, Tip>,
    queue: VecDeque<Submission<D::File>>,
    relocating: Option<Relocating>,
    pass: Pass,
    renewals: Renewals,
    /// Whether an idle marker lies at the head's position.
    marked: bool,
    /// Whether the head is the last file: entries stay out of it, so that votes go on.
    on_reserve: bool,
}

/// What recovery hands to the writer.
pub(crate) struct Start<D: Disk> {
    pub pool: Pool<D>,
    pub head: Head<D::File>,
    pub oldest: u64,
    pub tips: BTreeMap<GroupId, Tip>,
}

impl<D: Disk> Writer<D> {
    pub(crate) fn new(start: Start<D>, shared: Arc<Shared<D::File>>, config: WalConfig) -> Self {
        let Start {
            pool,
            head,
            oldest,
            tips,
        } = start;
        shared.refresh(pool.len());
        Self {
            shared,
            config,
            pool,
            head,
            oldest,
            tips,
            queue: VecDeque::new(),
            relocating: None,
            pass: Pass::NONE,
            renewals: Renewals::default(),
            marked: false,
            on_reserve: false,
        }
    }

    /// Does all that can be done now: flushes what waits, then the work between flushes until
    /// something waits again.
    fn work(&mut self) -> Result<(), WalError> {
        loop {
            self.flush_queue()?;
            self.begin_renewal()?;
            let worked = self.recycle_step()? || self.prepare_step()?;
            self.end_renewal();
            if !worked {
                self.put_renewal_off();
            }
            if !self.shared.is_idle() {
                return Ok(());
            }
            if !worked {
                return self.mark_idle();
            }
        }
    }

    /// Prepares a part of a file, if fewer are ready than should be.
    fn prepare_step(&mut self) -> Result<bool, WalError> {
        if self.pool.usable() >= KEPT_READY {
            self.set_full(false);
            return Ok(false);
        }
        if self.pool.len() > self.config.max_free_files {
            return Ok(false);
        }
        match self.pool.step()? {
            Step::Worked => Ok(true),
            Step::Ready => {
                self.set_full(false);
                Ok(true)
            }
            Step::Full => {
                self.set_full(true);
                Ok(false)
            }
        }
    }

    /// Makes sure that a group of `span` bytes fits behind the head's position, in a new file if
    /// need be. `false`: there is no room on the disk.
    fn make_room(&mut self, span: u64, need: Need) -> Result<bool, WalError> {
        let reserved = self.on_reserve && need == Need::Entries;
        if reserved && !self.ready_files(1)? {
            return Ok(false);
        }
        if span <= self.head.room() {
            return Ok(true);
        }
        let (len, usual) = self.pool.len_for(span);
        let file = if usual {
            self.next_file(need)?
        } else {
            self.pool.create_large(len)?
        };
        let Some(file) = file else {
            self.set_full(true);
            return Ok(false);
        };
        self.rotate(file)?;
        Ok(true)
    }

    fn next_file(&mut self, need: Need) -> Result<Option<Arc<WalFile<D::File>>>, WalError> {
        let wanted = match need {
            Need::Entries => KEPT_READY,
            Need::States => 1,
        };
        if !self.ready_files(wanted)? {
            return Ok(None);
        }
        let file = self.pool.take();
        self.on_reserve = self.pool.usable() == 0;
        Ok(file)
    }

    /// Sees to it that at least `wanted` files can be taken. `false`: the disk is full.
    fn ready_files(&mut self, wanted: usize) -> Result<bool, WalError> {
        while self.pool.usable() < wanted {
            if self.pool.step()? == Step::Full {
                self.set_full(true);
                return Ok(false);
            }
        }
        self.on_reserve = false;
        Ok(true)
    }

    /// Goes on in `file`. Its header is durable before any group is written into it.
    fn rotate(&mut self, file: Arc<WalFile<D::File>>) -> Result<(), WalError> {
        mutant!(AckBeforeFsync => {
            // Late, so that the log stays in one piece.
            let WalFile { file, path, .. } = &*self.head.file;
            file.sync_data().map_err(write_error("sync", path))?;
        });
        let header = FileHeader {
            generation: self.head.generation + 1,
            first_sequence: self.head.sequence,
            previous_end: self.head.position,
            oldest: self.oldest,
        };
        file.file
            .write_at(&header.encode(), 0)
            .map_err(write_error("write", &file.path))?;
        file.file
            .sync_data()
            .map_err(write_error("sync", &file.path))?;
        self.shared
            .index
            .write()
            .add_file(header.generation, Arc::clone(&file));
        self.head.forget(self.head.file.len);
        self.head = Head {
            file,
            generation: header.generation,
            position: FIRST_GROUP,
            sequence: header.first_sequence,
            forgotten: 0,
        };
        self.marked = false;
        self.shared.refresh(self.pool.len());
        Ok(())
    }

    /// Leaves a marker behind the last group: whoever finds it knows that everything before it
    /// was synced. The next group takes its place, and bears the same witness.
    fn mark_idle(&mut self) -> Result<(), WalError> {
        if self.marked || self.head.room() < HEADER_LEN as u64 {
            return Ok(());
        }
        let marker = GroupHeader {
            generation: self.head.generation,
            sequence: self.head.sequence,
            body_len: 0,
            frames: 0,
            heads_crc: 0,
            idle: true,
            durable_to: self.head.position,
            oldest: self.oldest,
        };
        let WalFile { file, path, .. } = &*self.head.file;
        file.write_at(&marker.encode(self.head.position), self.head.position)
            .map_err(write_error("write", path))?;
        self.marked = true;
        Ok(())
    }

    fn set_full(&mut self, full: bool) {
        let changed = {
            let mut stats = self.shared.stats.lock();
            let changed = stats.storage_full != full;
            stats.storage_full = full;
            stats.publish();
            changed
        };
        if changed && full {
            tracing::warn!("the write-ahead log finds no disk space for a new file; appends wait");
        } else if changed {
            tracing::info!("the write-ahead log has disk space again");
        }
        if full {
            self.shared.full.notify_one();
        }
    }

    /// Ends the log: everybody who waits is answered with the error, and so is who comes later.
    fn fail(&mut self, error: &WalError) {
        if self.shared.fail(error.clone()) {
            tracing::error!(%error, "the write-ahead log has failed");
            self.answer_all(error);
            (self.config.on_fatal)(error);
        }
    }

    fn answer_all(&mut self, error: &WalError) {
        for submission in self.queue.drain(..) {
            submission.complete(Err(error.clone()));
        }
        self.fail_renewal(error);
    }

    fn close(&mut self, answer: oneshot::Sender<()>) {
        self.shared.closed.store(true, Ordering::SeqCst);
        if self.shared.failure().is_none()
            && let Err(error) = self.finish()
        {
            self.fail(&error);
        }
        self.answer_all(&WalError::Closed);
        let _ = answer.send(());
    }

    fn finish(&mut self) -> Result<(), WalError> {
        self.flush_queue()?;
        self.mark_idle()?;
        let WalFile { file, path, .. } = &*self.head.file;
        file.sync_data().map_err(write_error("sync", path))
    }
}

impl<D: Disk> Worker for Writer<D> {
    type Job = Job<D::File>;

    fn run(&mut self, jobs: &mut Vec<Self::Job>) -> bool {
        let mut closing = None;
        for job in jobs.drain(..) {
            match job {
                Job::Submit(mut submission) => {
                    submission.taken();
                    self.queue.push_back(submission);
                }
                Job::Poke => {}
                Job::Renew(answer) => self.renewals.ask(answer),
                Job::Close(answer) => closing = Some(answer),
            }
        }
        if let Some(error) = self.shared.failure().cloned() {
            self.answer_all(&error);
        } else if let Err(error) = self.work() {
            self.fail(&error);
        }
        if let Some(answer) = closing {
            self.close(answer);
            return false;
        }
        true
    }

    fn stop(&mut self) {
        self.shared.closed.store(true, Ordering::SeqCst);
        self.answer_all(&WalError::Closed);
    }
}
