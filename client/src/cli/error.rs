//! What can go wrong on the command line, and the exit code of each.

use std::process::ExitCode;

use crate::error::{
    AdminError, Cause, ConnectError, ConsumeError, ErrorCode, OffsetsError, SendError,
};

/// The exit codes of every verb, for `--help`.
pub const EXIT_CODES: &str = "\
Exit codes: 0 done; 1 failed, and certainly not done; 2 wrong usage or configuration;
4 no broker answered; 5 outcome unknown, it may have been done; 6 the cluster has problems
(cluster status); 130 interrupted.";

const FAILED: u8 = 1;
const USAGE: u8 = 2;
const UNREACHABLE: u8 = 4;
const UNKNOWN: u8 = 5;
pub(super) const PROBLEMS: u8 = 6;
pub(super) const INTERRUPTED: u8 = 130;

/// Why a verb did not do what it was asked to; one line each.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// The arguments or the configuration are wrong.
    #[error("{0}")]
    Usage(String),
    /// No connection.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// An administrative call failed.
    #[error("{what}: {error}{}", advice(.what, .error))]
    Admin {
        /// What was to be done.
        what: String,
        /// Why it was not.
        error: AdminError,
    },
    /// Records were not acknowledged.
    #[error("{acknowledged} records acknowledged, then: {error}")]
    Send {
        /// How many before.
        acknowledged: u64,
        /// The first failure, the worst one when there are several.
        error: SendError,
    },
    /// Records could not be read.
    #[error(transparent)]
    Consume(#[from] ConsumeError),
    /// Offsets could not be looked up.
    #[error(transparent)]
    Offsets(#[from] OffsetsError),
    /// The cluster cannot spare what was to be done.
    #[error("{0}")]
    Problems(String),
    /// Something else failed.
    #[error("{0}")]
    Failed(String),
    /// Standard input or output, or a file.
    #[error("{0}")]
    Io(#[from] std::io::Error),
}

/// Where somebody looks when the cluster cannot answer.
fn advice(what: &str, error: &AdminError) -> &'static str {
    let silent = match error.cause() {
        Cause::Deadline(_) | Cause::Transport(_) => true,
        cause => matches!(
            cause.code(),
            Some(ErrorCode::ClusterNotReady | ErrorCode::NotLeader)
        ),
    };
    if silent && what != HEALTH {
        "; `highwater cluster health` says what is missing"
    } else {
        ""
    }
}

/// What the verb that says what is missing calls itself.
pub(super) const HEALTH: &str = "health";

impl CliError {
    pub(super) fn admin(what: impl Into<String>) -> impl FnOnce(AdminError) -> Self {
        let what = what.into();
        |error| Self::Admin { what, error }
    }

    /// The code that the process should end with; see [`EXIT_CODES`].
    #[must_use]
    pub fn code(&self) -> u8 {
        match self {
            Self::Usage(_) | Self::Connect(ConnectError::ConnectionString(_)) => USAGE,
            Self::Connect(ConnectError::NoBroker { .. }) => UNREACHABLE,
            Self::Admin {
                error: AdminError::Unknown(_),
                ..
            }
            | Self::Send {
                error: SendError::Unknown(_),
                ..
            } => UNKNOWN,
            Self::Problems(_) => PROBLEMS,
            _ => FAILED,
        }
    }

    /// [`CliError::code`] as the standard library wants it.
    #[must_use]
    pub fn exit_code(&self) -> ExitCode {
        ExitCode::from(self.code())
    }
}
