//! What can go wrong, one enum per operation.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use crate::{GroupId, LogIndex};

/// What an operator does about a damaged log. Votes and acknowledged entries may be among what is
/// lost, so the broker must not vote until it has caught up from the others.
const DAMAGE_ADVICE: &str = "acknowledged entries or votes of this broker are lost; keep a copy of \
     the directory, then give it up with `highwater cluster replace` and this broker's id, and start \
     the broker with an empty one: it is filled again from the other replicas";

/// What an operator does when the log's files cannot be used.
fn advice(cause: &io::Error) -> String {
    match cause.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "nothing is lost: make room on that disk, then start the broker again".to_owned()
        }
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            "nothing is lost: let the user that highwater runs as read and write it, then start the \
             broker again"
                .to_owned()
        }
        _ => format!(
            "start the broker again once the disk can be read and written (the kernel's log \
             says more); if it never can, {DAMAGE_ADVICE}"
        ),
    }
}

/// Why a submission failed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum WalError {
    /// A file call failed. Whether the operations are durable is unknown; the log takes nothing
    /// any more, and the process has to stop.
    #[error("write-ahead log: {call} of {} failed: {source}", .file.display())]
    Io {
        /// The call.
        call: &'static str,
        /// The file or directory.
        file: PathBuf,
        /// The file system's error.
        source: Arc<io::Error>,
    },
    /// An append does not follow what the group has. Nothing of its submission was written.
    #[error("group {group}: entry {found} does not follow, entry {expected} was expected")]
    OutOfOrder {
        /// The group.
        group: GroupId,
        /// The place that would have followed.
        expected: LogIndex,
        /// The place asked for.
        found: LogIndex,
    },
    /// The submission is larger than a file may become. Nothing of it was written.
    #[error("a submission of {bytes} bytes exceeds the most that is written at once, {max} bytes")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The largest.
        max: usize,
    },
    /// The log was closed. Nothing was written.
    #[error("the write-ahead log is closed")]
    Closed,
}

/// Bytes of the log that are not what was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadPlace {
    /// The file.
    pub file: PathBuf,
    /// Where the bad frame, group or header starts, in bytes.
    pub offset: u64,
    /// Whose frame it is; `None` when that cannot be told.
    pub group: Option<GroupId>,
    /// What is wrong.
    pub what: &'static str,
}

impl std::fmt::Display for BadPlace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (file, offset) = (self.file.display(), self.offset);
        write!(
            f,
            "write-ahead log file {file}, byte {offset}: {}",
            self.what
        )?;
        self.group
            .map_or(Ok(()), |group| write!(f, " (group {group})"))
    }
}

/// Why the log was not renewed.
#[derive(Debug, thiserror::Error)]
pub enum RenewError {
    /// Some of the old files still hold what is needed: an entry in them is unreadable and not
    /// purged yet, or the disk is full. Nothing is lost by asking again.
    #[error(
        "old files are still needed, {}",
        if *.unreadable { "an unreadable entry among them: it can go when a checkpoint covers it" }
        else { "and there is no disk space for what they hold" }
    )]
    NotYet {
        /// Whether an unreadable entry is the reason.
        unreadable: bool,
    },
    /// The log has ended.
    #[error(transparent)]
    Ended(#[from] WalError),
}

/// Why a log could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum WalOpenError {
    /// A file call failed.
    #[error("write-ahead log: {call} of {} failed: {source}; {}", .file.display(), advice(source))]
    Io {
        /// The call.
        call: &'static str,
        /// The file or directory.
        file: PathBuf,
        /// The file system's error.
        source: io::Error,
    },
    /// Content below a position known durable does not match its checksum.
    #[error("write-ahead log file {} is damaged at byte {offset} ({what}), below byte \
             {durable_to} known durable: {DAMAGE_ADVICE}", .file.display())]
    Damaged {
        /// The file.
        file: PathBuf,
        /// Where the bad group or header starts, in bytes.
        offset: u64,
        /// Up to where the file was known durable, in bytes.
        durable_to: u64,
        /// What does not match.
        what: &'static str,
    },
    /// A file in the middle of the log is not there, or its header is unreadable.
    #[error("write-ahead log {}: the file of generation {generation} is missing{}: {DAMAGE_ADVICE}",
            .dir.display(), name_unreadable(.unreadable))]
    MissingFile {
        /// The log's directory.
        dir: PathBuf,
        /// Which file, counted over all uses of all files.
        generation: u64,
        /// Files whose header is unreadable, one of which may be it.
        unreadable: Vec<PathBuf>,
    },
    /// The frames are whole but tell an impossible story.
    #[error("write-ahead log {}: group {group} has no entry {missing} between its first and its \
             last: {DAMAGE_ADVICE}", .dir.display())]
    Gap {
        /// The log's directory.
        dir: PathBuf,
        /// The group.
        group: GroupId,
        /// The first entry that is not there.
        missing: LogIndex,
    },
    /// The file was written by a version of the software that this one does not know.
    #[error("write-ahead log file {} has format version {version}, this version reads up to \
             {known}: start the newer version of the software again", .file.display())]
    UnsupportedVersion {
        /// The file.
        file: PathBuf,
        /// Its version.
        version: u32,
        /// The newest that is known here.
        known: u32,
    },
    /// The settings cannot work.
    #[error("write-ahead log: {what}")]
    Config {
        /// What is wrong with them.
        what: &'static str,
    },
}

fn name_unreadable(files: &[PathBuf]) -> String {
    if files.is_empty() {
        return String::new();
    }
    let names: Vec<_> = files.iter().map(|f| f.display().to_string()).collect();
    format!(" (no readable header in {})", names.join(", "))
}

/// Why entries could not be read.
#[derive(Debug, thiserror::Error)]
pub enum WalReadError {
    /// The bytes on the disk do not match their checksum.
    #[error("write-ahead log file {} is damaged at byte {offset}: entry {index} of group {group} \
             does not match its checksum; read it from another replica", .file.display())]
    Damaged {
        /// The file.
        file: PathBuf,
        /// Where the frame starts, in bytes.
        offset: u64,
        /// The group.
        group: GroupId,
        /// The entry.
        index: LogIndex,
    },
    /// A file call failed.
    #[error("write-ahead log: reading {} at byte {offset} failed: {source}", .file.display())]
    Io {
        /// The file.
        file: PathBuf,
        /// Where, in bytes.
        offset: u64,
        /// The file system's error.
        source: io::Error,
    },
}
