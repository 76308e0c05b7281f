//! A mount in a directory of its own.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use highwater_powerfs::{Control, Loss, LossReport, Mounted, Options, mount};

static SKIPPED: AtomicUsize = AtomicUsize::new(0);

/// Whether this machine lets us mount. If not, says that a test is left out, past the capture of
/// the test harness.
pub fn can_mount(test: &str) -> bool {
    let root = rustix::process::geteuid().is_root();
    if root
        && File::options()
            .read(true)
            .write(true)
            .open("/dev/fuse")
            .is_ok()
    {
        return true;
    }
    let count = SKIPPED.fetch_add(1, Ordering::SeqCst) + 1;
    let line = format!("SKIPPED ({count} so far): {test} needs root and /dev/fuse\n");
    std::io::stderr().write_all(line.as_bytes()).unwrap();
    false
}

/// Leaves the test when this machine does not let us mount.
macro_rules! rig_or_skip {
    () => {{
        let name = std::thread::current().name().unwrap_or("a test").to_owned();
        if !$crate::rig::can_mount(&name) {
            return;
        }
        $crate::rig::Rig::new()
    }};
}
pub(crate) use rig_or_skip;

pub struct Rig {
    mounted: Option<Mounted>,
    pub options: Options,
    // Last, so that it is removed when nothing is mounted in it.
    _home: tempfile::TempDir,
}

impl Rig {
    pub fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        let options = Options {
            backing: home.path().join("backing"),
            mount: home.path().join("mount"),
            control: home.path().join("control"),
        };
        fs::create_dir(&options.mount).unwrap();
        Self {
            mounted: Some(mount(&options).unwrap()),
            options,
            _home: home,
        }
    }
    pub fn path(&self, name: &str) -> PathBuf {
        self.options.mount.join(name)
    }
    pub fn root(&self) -> &Path {
        &self.options.mount
    }
    pub fn control(&self) -> Control {
        Control::connect(&self.options.control).unwrap()
    }
    /// Waits until as many handles are open: the kernel closes them a little later than a program.
    pub fn settle(&self, handles: u64) {
        let mut control = self.control();
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let open = control.stats().unwrap().open_handles;
            if open == handles {
                return;
            }
            assert!(Instant::now() < deadline, "{open} handles stay open");
            std::thread::yield_now();
        }
    }
    pub fn lose(&self) -> LossReport {
        self.control().power_loss(Loss::Everything).unwrap()
    }
    pub fn sync_dir(&self, name: &str) {
        sync_dir(&self.path(name));
    }
    pub fn unmount(&mut self) {
        self.mounted.take().unwrap().unmount().unwrap();
    }
    pub fn remount(&mut self) {
        self.unmount();
        self.mounted = Some(mount(&self.options).unwrap());
    }
}

pub fn sync_dir(path: &Path) {
    File::open(path).unwrap().sync_all().unwrap();
}

/// Every path below a directory, with the content of files.
pub fn tree(root: &Path) -> Vec<(PathBuf, Option<Vec<u8>>)> {
    let mut all = Vec::new();
    let mut next = vec![root.to_owned()];
    while let Some(dir) = next.pop() {
        for entry in fs::read_dir(&dir).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(root).unwrap().to_owned();
            if path.is_dir() {
                all.push((name, None));
                next.push(path);
            } else {
                all.push((name, Some(fs::read(&path).unwrap())));
            }
        }
    }
    all.sort();
    all
}
