//! Reading the log again while it is in use, group by group, to find what has rotted before a start
//! has to stumble over it: headers, votes and frames that nothing needs any more among it.

#![deny(clippy::indexing_slicing)]

use std::sync::Arc;

use highwater_env::DiskFile;

use crate::error::BadPlace;
use crate::file::WalFile;
use crate::frame::{FIRST_GROUP, FileHeader, FrameKind, HEADER_LEN, ParsedFileHeader};
use crate::recover::scan::{BadFrame, Place, Scan, Scanner};
use crate::recover::window::Window;
use crate::shared::Shared;

/// What a step of a check has found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogChecked {
    /// So many bytes were read; there is more.
    Some(u64),
    /// This is not what was written; there is more. It names a group if that still has the entry that
    /// cannot be read any more; of everything else nothing is lost while the log is open.
    Bad(BadPlace),
    /// All that was written when its file was come to has been read.
    End,
}

/// One walk over the log, from its oldest file to its newest. Holds one file at a time, which is not
/// used again meanwhile.
pub struct LogCheck<F> {
    shared: Arc<Shared<F>>,
    window: Window,
    /// The generation to go on with.
    next: u64,
    current: Option<Current<F>>,
}

struct Current<F> {
    file: Arc<WalFile<F>>,
    generation: u64,
    /// Where its last durable group ends.
    end: u64,
    /// How far it was read; none: not even its header.
    at: Option<Position>,
    /// Nothing more can be read of it.
    given_up: bool,
    /// Found, and not told yet.
    bad: Vec<BadPlace>,
}

#[derive(Debug, Clone, Copy)]
struct Position {
    header: FileHeader,
    offset: u64,
    sequence: u64,
}

impl<F> std::fmt::Debug for LogCheck<F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LogCheck")
            .field("next", &self.next)
            .finish_non_exhaustive()
    }
}

impl<F: DiskFile> LogCheck<F> {
    pub(crate) fn new(shared: Arc<Shared<F>>) -> Self {
        Self {
            shared,
            window: Window::past_cache(),
            next: 0,
            current: None,
        }
    }

    /// Reads on, at least one group and about `bytes` more. Blocking positional reads.
    pub fn step(&mut self, bytes: u64) -> LogChecked {
        let mut current = match self.current.take().or_else(|| self.open_next()) {
            Some(current) => current,
            None => return LogChecked::End,
        };
        let start = current.at.map_or(0, |at| at.offset);
        let reached = start.saturating_add(bytes.max(1));
        while current.bad.is_empty() && current.offset() < reached && !current.is_done() {
            current.advance(&self.shared, &mut self.window);
        }
        if let Some(bad) = current.bad.pop() {
            self.current = Some(current);
            return LogChecked::Bad(bad);
        }
        let read = current.offset().saturating_sub(start);
        if current.is_done() {
            self.next = current.generation.saturating_add(1);
        } else {
            self.current = Some(current);
        }
        LogChecked::Some(read)
    }

    fn open_next(&mut self) -> Option<Current<F>> {
        self.window.reset();
        let index = self.shared.index.read();
        let (generation, used) = index.files.range(self.next..).next()?;
        Some(Current {
            file: Arc::clone(&used.file),
            generation: *generation,
            end: used.end,
            at: None,
            given_up: false,
            bad: Vec::new(),
        })
    }
}

impl<F: DiskFile> Current<F> {
    fn offset(&self) -> u64 {
        self.at.map_or(0, |at| at.offset)
    }
    fn is_done(&self) -> bool {
        self.given_up || self.at.is_some_and(|at| at.offset >= self.end)
    }

    /// Reads the header, once, from where the groups are read: the page cache may have a better one
    /// than the disk.
    fn begin(&mut self, window: &mut Window) {
        let header = match window.get(&self.file.file, 0, HEADER_LEN) {
            Ok(start) => FileHeader::parse(start),
            Err(error) => {
                tracing::warn!(%error, "a header of the write-ahead log cannot be read");
                return self.give_up(0, "its header cannot be read");
            }
        };
        match header {
            ParsedFileHeader::Valid(header) if header.generation == self.generation => {
                self.at = Some(Position {
                    header,
                    offset: FIRST_GROUP,
                    sequence: header.first_sequence,
                });
            }
            _ => self.give_up(0, "its header is not what was written"),
        }
    }

    /// Reads the header, or the next group. Nothing behind what cannot be told apart is read.
    fn advance(&mut self, shared: &Shared<F>, window: &mut Window) {
        let Some(at) = self.at else {
            return self.begin(window);
        };
        let mut scanner = Scanner::new(&self.file, &at.header, window, Some(self.end));
        scanner.found.end = at.offset;
        scanner.found.next_sequence = at.sequence;
        let place = scanner.place();
        let Scan {
            end,
            next_sequence,
            bad,
            ..
        } = scanner.found;
        match place {
            Ok(Place::Group) => {
                self.bad.extend(bad.into_iter().map(|frame| BadPlace {
                    group: frame.place.group.filter(|_| is_retained(shared, &frame)),
                    ..frame.place
                }));
                self.at = Some(Position {
                    offset: end,
                    sequence: next_sequence,
                    ..at
                });
            }
            Ok(_) => self.give_up(at.offset, "a group does not match its checksum"),
            Err(error) => {
                tracing::warn!(%error, "a part of the write-ahead log cannot be read");
                self.give_up(at.offset, "it cannot be read");
            }
        }
    }

    fn give_up(&mut self, offset: u64, what: &'static str) {
        self.bad.push(BadPlace {
            file: self.file.path.clone(),
            offset,
            group: None,
            what,
        });
        self.given_up = true;
    }
}

/// Whether a bad frame is an entry that its group still has. States and purge points are in memory.
fn is_retained<F>(shared: &Shared<F>, frame: &BadFrame) -> bool {
    let change = &frame.change;
    let index = shared.index.read();
    let group = index.groups.get(&change.group);
    let there = group.and_then(|group| group.get(change.index));
    matches!(change.kind, FrameKind::Append | FrameKind::Relocate) && there == Some(change.location)
}
