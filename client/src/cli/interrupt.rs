//! The end that somebody asks for: Ctrl-C, or SIGTERM as service managers send it.

use std::io;

use tokio::signal::unix::{SignalKind, signal};

/// Returns when the process is asked to end. Cancellation-safe.
///
/// # Errors
/// When the signals cannot be listened to.
pub(super) async fn asked_to_end() -> io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        interrupted = tokio::signal::ctrl_c() => interrupted,
        _ = terminate.recv() => Ok(()),
    }
}
