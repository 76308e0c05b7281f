//! Ctrl-C and SIGTERM: the first asks for a graceful end, the second ends at once.

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::exit::INTERRUPTED;

/// A token that the first signal cancels. Call it within the runtime.
///
/// # Errors
/// When the handlers cannot be installed.
pub fn stop_on_signals() -> std::io::Result<CancellationToken> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let stop = CancellationToken::new();
    let cancel = stop.clone();
    // Its owner is the process: it ends with it, or ends it.
    tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            if cancel.is_cancelled() {
                std::process::exit(INTERRUPTED.into());
            }
            cancel.cancel();
        }
    });
    Ok(stop)
}
