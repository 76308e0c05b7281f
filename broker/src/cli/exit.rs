//! Exit codes that scripts can trust, and the one line that goes with each failure.

use std::process::ExitCode;

use crate::config::ConfigError;
use crate::process::ADDRESS_IN_USE;

/// The last lines of `--help`. Those of the client's verbs are among them.
pub const HELP: &str = "\
Exit codes: 0 done; 1 failed, and certainly not done; 2 wrong usage or configuration;
3 an address to listen on is in use; 4 no broker answered; 5 outcome unknown, it may have been
done; 6 the cluster has problems (cluster status); 130 interrupted.";

const FAILED: u8 = 1;
const USAGE: u8 = 2;
/// As a shell reports a process that Ctrl-C ended.
pub const INTERRUPTED: u8 = 130;

/// Why a verb did not do what it was asked to.
#[derive(Debug)]
pub struct Failure {
    code: u8,
    error: anyhow::Error,
}

impl Failure {
    /// The verb ran and failed; an address in use is told apart by its cause.
    pub fn failed(error: anyhow::Error) -> Self {
        let in_use = error.chain().any(|cause| {
            let cause = cause.downcast_ref::<std::io::Error>();
            cause.is_some_and(|cause| cause.kind() == std::io::ErrorKind::AddrInUse)
        });
        Self {
            code: if in_use { ADDRESS_IN_USE } else { FAILED },
            error,
        }
    }

    /// The command line or the configuration asks for something impossible.
    pub fn usage(error: impl Into<anyhow::Error>) -> Self {
        Self {
            code: USAGE,
            error: error.into(),
        }
    }

    /// A failure that has its own code.
    pub fn with_code(code: u8, error: impl Into<anyhow::Error>) -> Self {
        Self {
            code,
            error: error.into(),
        }
    }

    /// Tells the person at the terminal, and gives the code.
    pub fn report(&self) -> ExitCode {
        eprintln!("highwater: {}", self.line());
        ExitCode::from(self.code)
    }

    /// The error and its causes. Some errors name their cause themselves: it is said once.
    fn line(&self) -> String {
        let mut line = String::new();
        for cause in self.error.chain().map(ToString::to_string) {
            if line.is_empty() {
                line = cause;
            } else if !line.contains(&cause) {
                line.push_str(": ");
                line.push_str(&cause);
            }
        }
        line
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self::usage(error)
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::failed(error)
    }
}

#[cfg(test)]
#[path = "exit_tests.rs"]
mod tests;
