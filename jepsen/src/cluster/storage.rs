//! Where a broker keeps its data: a plain directory, or a file system that can lose power.

use std::path::Path;

use super::shell;

/// Takes a mount away, if it is one; whoever still has files open there keeps them until it ends.
/// Safe to repeat.
///
/// # Errors
/// When it stays mounted.
pub async fn unmount(mount: &Path) -> anyhow::Result<()> {
    if !is_mounted(mount) {
        return Ok(());
    }
    shell::run("umount", &[Path::new("--lazy"), mount]).await.map(drop)
}

fn is_mounted(mount: &Path) -> bool {
    let table = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let wanted = mount.to_string_lossy();
    table
        .lines()
        .filter_map(|line| line.split(' ').nth(1))
        // Blanks and backslashes are written as octal numbers; this harness makes no such names.
        .any(|point| point == wanted)
}
