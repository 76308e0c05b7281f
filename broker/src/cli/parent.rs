//! No process of a cluster or a demo outlives the one that started it.

use super::exit::Failure;

/// Asks the kernel to kill this process when its parent is gone, however that happens.
#[cfg(target_os = "linux")]
pub fn die_with(parent: u32) -> Result<(), Failure> {
    use anyhow::Context as _;
    use rustix::process::{Signal, getppid, set_parent_process_death_signal};

    set_parent_process_death_signal(Some(Signal::KILL))
        .context("cannot tie this process to its parent")?;
    // The parent may have gone between the fork and the call above; then no signal will come.
    let actual = getppid().and_then(|pid| u32::try_from(pid.as_raw_nonzero().get()).ok());
    if actual != Some(parent) {
        return Err(Failure::failed(anyhow::anyhow!(
            "the parent process {parent} is gone"
        )));
    }
    Ok(())
}

/// Elsewhere only the parent itself ends its brokers.
#[cfg(not(target_os = "linux"))]
pub fn die_with(_parent: u32) -> Result<(), Failure> {
    Ok(())
}
