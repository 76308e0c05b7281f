//! Mounting, serving and unmounting.

use std::io;
use std::path::{Path, PathBuf};

/// Where a mount lives.
#[derive(Debug, Clone)]
pub struct Options {
    /// A directory of this file system's own, on any local file system. What is found there from
    /// an earlier mount is there again, and durable.
    pub backing: PathBuf,
    /// Where it is mounted: an empty directory.
    pub mount: PathBuf,
    /// The Unix socket for control. It is there only while the mount is.
    pub control: PathBuf,
}

/// Why nothing was mounted.
#[derive(Debug, thiserror::Error)]
pub enum MountError {
    /// The mount point is in use, or not a directory, or the kernel refused.
    #[error("cannot mount on {path}: {source}", path = path.display())]
    Mount {
        /// The mount point.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The backing directory cannot be used.
    #[error("cannot use {path} as backing: {source}", path = path.display())]
    Backing {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The control socket cannot be used.
    #[error("cannot listen on {path}: {source}", path = path.display())]
    Control {
        /// The socket.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// A mount. Dropping it unmounts.
#[derive(Debug)]
pub struct Mounted {
    _options: Options,
}

/// Mounts, and serves files and the control socket on threads of its own.
///
/// # Errors
/// See [`MountError`]. Nothing is left behind.
pub fn mount(options: &Options) -> Result<Mounted, MountError> {
    Err(MountError::Mount {
        path: options.mount.clone(),
        source: io::ErrorKind::Unsupported.into(),
    })
}

impl Mounted {
    /// Waits until somebody asks for the end: through the control socket, or by unmounting from
    /// outside.
    pub fn wait(&self) {}

    /// Unmounts. Processes that still have files open there keep a dead mount of their own.
    ///
    /// # Errors
    /// Those of the kernel and of writing the names into the backing directory.
    pub fn unmount(self) -> io::Result<()> {
        Ok(())
    }
}

/// Mounts and serves until SIGTERM, SIGINT or a request to shut down, then unmounts. Prints one
/// line when the mount is there.
///
/// # Errors
/// See [`MountError`]; errors of unmounting are among those of [`MountError::Mount`].
pub fn serve(options: &Options) -> Result<(), MountError> {
    mount(options)?.wait();
    Ok(())
}

/// Lazily unmounts what a killed server of this file system left at `path`. Says whether there
/// was such a mount. A mount that answers is left alone.
///
/// # Errors
/// Those of the kernel.
pub fn release_stale(path: &Path) -> io::Result<bool> {
    let _ = path;
    Ok(false)
}
