//! Files, directories and symbolic links, whatever their names.

use std::ffi::OsString;
use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, SystemTime};

use fuser::{FileAttr, FileType, INodeNo};
use parking_lot::Mutex;

use super::file::FileState;
use crate::durable::NodeId;

/// Something that can have a name.
#[derive(Debug)]
pub(crate) struct Node {
    pub id: NodeId,
    pub kind: Kind,
    /// How many handles of it are open.
    pub opens: AtomicU64,
}

/// What it is.
#[derive(Debug)]
pub(crate) enum Kind {
    /// Owner, mode and times are those of its object.
    File(Mutex<FileState>),
    Directory(Mutex<Meta>),
    Symlink(OsString, Mutex<Meta>),
}

/// Owner, mode and times of what has no object.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Meta {
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub atime: SystemTime,
    pub mtime: SystemTime,
    pub ctime: SystemTime,
}

impl Meta {
    pub(crate) fn new(mode: u32, uid: u32, gid: u32) -> Self {
        let now = SystemTime::now();
        Self {
            mode,
            uid,
            gid,
            atime: now,
            mtime: now,
            ctime: now,
        }
    }
    pub(crate) fn of(metadata: &Metadata) -> Self {
        let at = |seconds: i64, nanos: i64| {
            let since = Duration::new(
                u64::try_from(seconds).unwrap_or(0),
                u32::try_from(nanos).unwrap_or(0),
            );
            SystemTime::UNIX_EPOCH + since
        };
        Self {
            mode: metadata.mode(),
            uid: metadata.uid(),
            gid: metadata.gid(),
            atime: at(metadata.atime(), metadata.atime_nsec()),
            mtime: at(metadata.mtime(), metadata.mtime_nsec()),
            ctime: at(metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

impl Node {
    pub(crate) fn new(id: NodeId, kind: Kind) -> Self {
        Self {
            id,
            kind,
            opens: AtomicU64::new(0),
        }
    }
    /// # Errors
    /// EISDIR or EINVAL when it is none.
    pub(crate) fn file(&self) -> io::Result<&Mutex<FileState>> {
        match &self.kind {
            Kind::File(state) => Ok(state),
            Kind::Directory(_) => Err(rustix::io::Errno::ISDIR.into()),
            Kind::Symlink(..) => Err(rustix::io::Errno::INVAL.into()),
        }
    }

    /// Attributes; `links` is how many names it has.
    pub(crate) fn attributes(&self, links: usize) -> io::Result<FileAttr> {
        let (meta, kind, size, blocks) = match &self.kind {
            Kind::File(state) => {
                let state = state.lock();
                let metadata = std::fs::metadata(state.path())?;
                let size = state.content().len();
                let blocks = metadata.blocks();
                (Meta::of(&metadata), FileType::RegularFile, size, blocks)
            }
            Kind::Directory(meta) => (*meta.lock(), FileType::Directory, 4096, 8),
            Kind::Symlink(target, meta) => {
                (*meta.lock(), FileType::Symlink, target.len() as u64, 0)
            }
        };
        Ok(FileAttr {
            ino: INodeNo(self.id),
            size,
            blocks,
            atime: meta.atime,
            mtime: meta.mtime,
            ctime: meta.ctime,
            crtime: meta.ctime,
            kind,
            perm: u16::try_from(meta.mode & 0o7777).unwrap_or(0),
            nlink: u32::try_from(links).unwrap_or(u32::MAX),
            uid: meta.uid,
            gid: meta.gid,
            rdev: 0,
            blksize: 4096,
            flags: 0,
        })
    }
}
