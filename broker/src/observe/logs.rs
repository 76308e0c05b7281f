//! What is logged, and how it looks.

use std::io::{IsTerminal as _, stderr};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::FmtSpan;

/// The variable that chooses what is logged.
pub const LOG_VARIABLE: &str = "HIGHWATER_LOG";

/// Logged when the variable is not set. openraft reports every election step as information.
const DEFAULT_FILTER: &str = "info,openraft=warn";

/// Why logging could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The variable does not hold a filter.
    #[error(
        "{LOG_VARIABLE} is {value:?}, which is no filter ({reason}): write for example \"info\" or \
         \"highwater_wal=debug,info\""
    )]
    Filter {
        /// What it holds.
        value: String,
        /// What the parser says.
        reason: String,
    },
    /// Something else in the process logs already.
    #[error("logging was set up twice in this process")]
    Twice,
}

/// Logs to standard error what `filter` (the value of [`LOG_VARIABLE`]) asks for; in colour only
/// on a terminal.
///
/// # Errors
/// [`LogError`].
pub fn init(filter: Option<&str>) -> Result<(), LogError> {
    let value = filter
        .filter(|text| !text.trim().is_empty())
        .unwrap_or(DEFAULT_FILTER);
    let filter = EnvFilter::builder()
        .parse(value)
        .map_err(|error| LogError::Filter {
            value: value.to_owned(),
            reason: error.to_string(),
        })?;
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(stderr().is_terminal())
        .with_span_events(FmtSpan::NONE)
        .with_writer(stderr)
        .try_init()
        .map_err(|_| LogError::Twice)
}
