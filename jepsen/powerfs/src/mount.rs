//! Mounting, serving and unmounting.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::{Builder, JoinHandle};

use fuser::{Config, MountOption, Session, SessionACL, SessionUnmounter};
use rustix::mount::UnmountFlags;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::control::{Ending, Server};
use crate::fs::{Disk, Fuse};
use crate::table;

/// How many requests are served at a time. Each thread has a buffer for the largest request.
const THREADS: usize = 4;

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

/// Why nothing was mounted, or not unmounted as it should be.
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
    /// The mount did not end as it should, or its tree could not be left in the backing directory.
    #[error("cannot unmount {path}: {source}", path = path.display())]
    Unmount {
        /// The mount point.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// A mount. Dropping it unmounts.
pub struct Mounted {
    mount: PathBuf,
    ending: Arc<Ending>,
    /// None once it is unmounted.
    running: Option<Running>,
}

struct Running {
    disk: Arc<Disk>,
    control: Server,
    unmounter: SessionUnmounter,
    session: JoinHandle<io::Result<()>>,
}

impl fmt::Debug for Mounted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mounted")
            .field("mount", &self.mount)
            .finish_non_exhaustive()
    }
}

/// Mounts, and serves files and the control socket on threads of its own. What a killed server
/// left at the mount point is unmounted first.
///
/// # Errors
/// See [`MountError`]. Nothing is left behind.
pub fn mount(options: &Options) -> Result<Mounted, MountError> {
    let mounting = |source| MountError::Mount {
        path: options.mount.clone(),
        source,
    };
    release_stale(&options.mount).map_err(mounting)?;
    if table::is_mounted(&options.mount).map_err(mounting)? {
        return Err(mounting(io::ErrorKind::ResourceBusy.into()));
    }
    let disk = Disk::open(&options.backing).map_err(|source| MountError::Backing {
        path: options.backing.clone(),
        source,
    })?;
    let disk = Arc::new(disk);
    let started = start(options, &disk);
    if started.is_err() {
        // The first error says why; what is there is as it was.
        drop(disk.close());
    }
    started
}

fn start(options: &Options, disk: &Arc<Disk>) -> Result<Mounted, MountError> {
    let mounting = |source| MountError::Mount {
        path: options.mount.clone(),
        source,
    };
    let mut config = Config::default();
    config.mount_options = vec![
        MountOption::FSName(table::SOURCE.to_owned()),
        MountOption::DefaultPermissions,
        MountOption::NoAtime,
    ];
    config.acl = SessionACL::All;
    config.n_threads = Some(THREADS);
    config.clone_fd = true;
    let mut session =
        Session::new(Fuse(Arc::clone(disk)), &options.mount, &config).map_err(mounting)?;
    disk.set_notifier(session.notifier());
    let mut unmounter = session.unmount_callable();
    let ending = Arc::new(Ending::default());
    let ended = Arc::clone(&ending);
    let session = Builder::new()
        .name("powerfs".to_owned())
        .spawn(move || {
            let outcome = session.run();
            ended.ask(); // also when it was unmounted from outside
            outcome
        })
        .map_err(mounting)?;
    let control = Server::start(&options.control, Arc::clone(disk), Arc::clone(&ending));
    let control = match control {
        Ok(control) => control,
        Err(source) => {
            let path = options.control.clone();
            // The first error says why nothing is mounted.
            drop(end_session(&options.mount, &mut unmounter, session));
            return Err(MountError::Control { path, source });
        }
    };
    Ok(Mounted {
        mount: options.mount.clone(),
        ending,
        running: Some(Running {
            disk: Arc::clone(disk),
            control,
            unmounter,
            session,
        }),
    })
}

impl Mounted {
    /// Waits until somebody asks for the end: through the control socket, by a signal under
    /// [`serve`], or by unmounting from outside.
    pub fn wait(&self) {
        self.ending.wait();
    }

    /// Unmounts, and leaves the tree in the backing directory. Processes that still have files
    /// open there get errors from now on.
    ///
    /// # Errors
    /// Those of the kernel, and of the file system that holds the backing directory.
    pub fn unmount(mut self) -> Result<(), MountError> {
        self.end()
    }

    fn end(&mut self) -> Result<(), MountError> {
        let Some(running) = self.running.take() else {
            return Ok(());
        };
        let Running {
            disk,
            control,
            mut unmounter,
            session,
        } = running;
        drop(control);
        // Who waits for a stalled sync would keep the mount busy.
        disk.clear_faults();
        end_session(&self.mount, &mut unmounter, session)
            .and_then(|()| disk.close())
            .map_err(|source| MountError::Unmount {
                path: self.mount.clone(),
                source,
            })
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            eprintln!("highwater-powerfs: {error}");
        }
    }
}

fn end_session(
    mount: &Path,
    unmounter: &mut SessionUnmounter,
    session: JoinHandle<io::Result<()>>,
) -> io::Result<()> {
    if unmounter.unmount().is_err() {
        // Somebody has files open: end the connection, and take the mount out of the tree.
        rustix::mount::unmount(mount, UnmountFlags::FORCE | UnmountFlags::DETACH)?;
    }
    match session.join() {
        Ok(outcome) => outcome,
        Err(_) => Err(io::Error::other(
            "the thread that serves the kernel panicked",
        )),
    }
}

/// Mounts and serves until SIGTERM, SIGINT or a request to shut down, then unmounts. Prints one
/// line when the mount is there.
///
/// # Errors
/// See [`MountError`].
pub fn serve(options: &Options) -> Result<(), MountError> {
    allow_many_files();
    let mounted = mount(options)?;
    let control = |source| MountError::Control {
        path: options.control.clone(),
        source,
    };
    let mut signals = Signals::new([SIGTERM, SIGINT]).map_err(control)?;
    let handle = signals.handle();
    let ending = Arc::clone(&mounted.ending);
    let listening = Builder::new()
        .name("powerfs-signals".to_owned())
        .spawn(move || signals.forever().for_each(|_| ending.ask()))
        .map_err(control)?;
    println!("mounted {}", options.mount.display());
    mounted.wait();
    let outcome = mounted.unmount();
    handle.close();
    drop(listening.join());
    outcome
}

/// Each open file needs a descriptor here too.
fn allow_many_files() {
    let limits = getrlimit(Resource::Nofile);
    let wanted = Rlimit {
        current: limits.maximum,
        maximum: limits.maximum,
    };
    if let Err(error) = setrlimit(Resource::Nofile, wanted) {
        eprintln!("highwater-powerfs: cannot raise the limit of open files: {error}");
    }
}

/// Lazily unmounts what a killed server of this file system left at `path`. Says whether there
/// was such a mount. A mount that answers is left alone.
///
/// # Errors
/// Those of the kernel.
pub fn release_stale(path: &Path) -> io::Result<bool> {
    let mut released = false;
    while table::is_mounted(path)? {
        match fs::metadata(path) {
            Err(error)
                if rustix::io::Errno::from_io_error(&error) == Some(rustix::io::Errno::NOTCONN) =>
            {
                rustix::mount::unmount(path, UnmountFlags::DETACH)?;
                released = true;
            }
            _ => break,
        }
    }
    Ok(released)
}
