//! A client on a thread of its own, so that all of it can stand still as a stopped process does:
//! heartbeats, commits and handlers alike.

use std::time::Duration;

use anyhow::Context as _;

/// Runs a future on a runtime of one thread. What it spawned ends with it, as in a crash.
///
/// # Errors
/// Those of the future; a thread that cannot be had.
pub(super) async fn run<F, Fut>(make: F) -> anyhow::Result<()>
where
    F: FnOnce() -> Fut + Send + 'static,
    Fut: Future<Output = anyhow::Result<()>>,
{
    let thread = tokio::task::spawn_blocking(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("no runtime")?;
        runtime.block_on(make())
    });
    thread.await.context("a client's thread stopped")?
}

/// Everything that runs on this thread stands still.
pub(super) fn stand_still(time: Duration) {
    std::thread::sleep(time);
}
