//! What is said on the control socket.

use serde::{Deserialize, Serialize};

/// A request: `{"cmd":"power_loss"}` and so on, on a line of its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "cmd", rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// Answers with nothing: the mount is there.
    Ping {},
    /// Drops what was not synced. Answers with a [`LossReport`].
    PowerLoss {
        /// What of it may survive.
        #[serde(default)]
        loss: Loss,
    },
    /// Answers with [`Stats`].
    Stats {},
    /// Sets a fault. Answers with its [`FaultId`].
    AddFault {
        /// What is to go wrong.
        fault: Fault,
    },
    /// Takes a fault back. Answers with its last [`FaultStatus`].
    RemoveFault {
        /// Which.
        id: FaultId,
    },
    /// Takes all faults back and lets stalled syncs finish. Answers with what each of them did.
    ClearFaults {},
    /// Flips one bit of a file, for good. Answers with nothing.
    FlipBit {
        /// Which file, from the root of the mount.
        path: String,
        /// Which byte.
        offset: u64,
        /// Which bit of it, 0 to 7.
        bit: u8,
    },
    /// Flips one bit, for good, of a file that is chosen here. Answers with [`Flipped`].
    Rot {
        /// Among which files: a pattern as that of a [`Fault`]. Files that hold nothing but zeroes
        /// are passed over.
        pattern: String,
        /// Where in the file.
        place: Place,
        /// From which the file, the byte and the bit are chosen.
        seed: u64,
    },
    /// Unmounts and ends the server. Answers with nothing, before it does so.
    Shutdown {},
}

/// A reply: `{"ok":...}` or `{"error":"..."}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Response<T> {
    /// It was done.
    Ok(T),
    /// It was not done; why.
    Error(String),
}

/// Where in a file. What counts of a file ends with its last byte that is not zero: space that was
/// only preallocated holds nothing that could rot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Place {
    /// In the first sector.
    Head,
    /// In the middle third.
    Middle,
    /// Within the last 512 bytes.
    Tail,
    /// Anywhere.
    Anywhere,
}

/// A bit that was flipped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flipped {
    /// The file, from the root of the mount.
    pub path: String,
    /// The byte.
    pub offset: u64,
    /// The bit of it, 0 to 7.
    pub bit: u8,
}

/// What a power loss takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Loss {
    /// Everything that was not synced.
    #[default]
    Everything,
    /// Of the bytes that were not synced, some sectors of 512 bytes reached the disk and some did
    /// not, some files have their new length and some the old, and some new names are there: the
    /// seed says which. A sector is old or new, never a mixture.
    Torn {
        /// Where the choices come from.
        seed: u64,
    },
}

/// What a power loss did.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct LossReport {
    /// The how manyth loss of this mount, from 1.
    pub number: u64,
    /// Bytes that had been written, cut or zeroed since the last sync and went back to what they
    /// were. Counted in sectors of 512 bytes.
    pub discarded_bytes: u64,
    /// Files among whose bytes or lengths something was discarded.
    pub discarded_files: u64,
    /// Files whose length went back.
    pub reverted_lengths: u64,
    /// Changes of directories (names made, removed, renamed) that were discarded.
    pub discarded_entries: u64,
    /// Bytes that survived without a sync ([`Loss::Torn`] only), in sectors of 512 bytes.
    pub survived_bytes: u64,
    /// Changes of directories that survived without a sync ([`Loss::Torn`] only).
    pub survived_entries: u64,
    /// Files and directories that were still open: their handles are dead from now on. Not zero
    /// when a process outlives its machine, which is a mistake of whoever asked for the loss, or
    /// when the kernel has not yet closed the files of a process that was just killed.
    pub open_handles: u64,
}

impl LossReport {
    /// Whether anything at all was lost. A loss that discards nothing proves nothing.
    #[must_use]
    pub fn was_active(&self) -> bool {
        self.discarded_bytes > 0 || self.discarded_entries > 0 || self.reverted_lengths > 0
    }
}

/// Counts of a mount: of its present state, and of everything since it was mounted.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Stats {
    /// Files that have a name.
    pub files: u64,
    /// Directories, the root among them.
    pub directories: u64,
    /// Files and directories that are open.
    pub open_handles: u64,
    /// Files with bytes or a length that a power loss would take back.
    pub dirty_files: u64,
    /// Bytes that a power loss would take back, in sectors of 512 bytes.
    pub dirty_bytes: u64,
    /// Changes of directories that a power loss would take back.
    pub unsynced_entries: u64,
    /// Write requests so far.
    pub writes: u64,
    /// Bytes written so far.
    pub written_bytes: u64,
    /// Syncs of files so far that succeeded.
    pub file_syncs: u64,
    /// Syncs of directories so far that succeeded.
    pub directory_syncs: u64,
    /// Power losses so far.
    pub losses: u64,
    /// What the last power loss did.
    pub last_loss: Option<LossReport>,
    /// Bits flipped so far.
    pub flipped_bits: u64,
    /// The faults that are set, and how often each was active.
    pub faults: Vec<FaultStatus>,
}

/// Names a fault that was set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct FaultId(pub u64);

/// Something that goes wrong with some files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    /// Which paths, from the root of the mount without a leading slash: `*` stands for any
    /// characters (slashes too), `?` for one, everything else for itself. The path that a file
    /// was created, found or renamed under last counts; the root's own path is empty.
    pub pattern: String,
    /// What happens to them.
    pub kind: FaultKind,
    /// How often; without it, until the fault is taken back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub times: Option<u64>,
}

/// Kinds of faults: `"sync_error"`, `{"slow_sync":{"millis":50}}`, `"no_space"`,
/// `"disk_full"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum FaultKind {
    /// A sync of the file or directory fails with EIO. What it should have made durable never
    /// becomes so by a later sync, as on Linux, although reads still show it, until it is written
    /// again.
    SyncError,
    /// A sync takes this many milliseconds longer. The other requests go on.
    SlowSync {
        /// Milliseconds.
        millis: u64,
    },
    /// What makes a file longer, and new names, fail with ENOSPC. What lies within a file's length
    /// has its space, as on ext4 and XFS, and can be written. statfs goes on telling of free space,
    /// as under a quota.
    NoSpace,
    /// As `NoSpace`, and statfs tells that no space is free, where the pattern matches the path
    /// that is asked about.
    DiskFull,
}

/// A fault with its effect so far.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FaultStatus {
    /// Its name.
    pub id: FaultId,
    /// What was asked for.
    pub fault: Fault,
    /// How often it struck.
    pub struck: u64,
}
