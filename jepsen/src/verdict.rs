//! What a run amounts to: the checker's verdict, and what the harness saw itself.

use std::fmt;
use std::process::ExitCode;

use highwater_checker::{Conclusion, Verdict};
use serde::Serialize;

use crate::cluster::node::Death;

/// The whole verdict of a run.
#[derive(Debug, Clone, Serialize)]
pub struct Judgement {
    /// What the history shows.
    pub history: Verdict,
    /// Broken promises that no history shows: a broker that ended by itself, a cluster that did
    /// not recover, a replica that could not be read to its end.
    pub findings: Vec<String>,
    /// Brokers that ended by themselves.
    pub deaths: Vec<Death>,
    /// What could not be done here, one sentence each.
    pub skipped: Vec<String>,
    /// The run ended before its time.
    pub interrupted: bool,
}

impl Judgement {
    /// The conclusion. What was found counts, however little else happened.
    #[must_use]
    pub fn conclusion(&self) -> Conclusion {
        let found = !self.findings.is_empty() || !self.deaths.is_empty();
        match self.history.conclusion {
            _ if found => Conclusion::Fail,
            Conclusion::Pass if self.interrupted => Conclusion::Unknown,
            conclusion => conclusion,
        }
    }

    /// 0 valid, 1 anomaly, 2 unknown; with `require_all`, skipping is a failure.
    #[must_use]
    pub fn exit_code(&self, require_all: bool) -> u8 {
        match self.conclusion() {
            Conclusion::Fail => 1,
            _ if require_all && !self.skipped.is_empty() => 1,
            Conclusion::Unknown => 2,
            Conclusion::Pass => 0,
        }
    }

    /// The same for the operating system.
    #[must_use]
    pub fn exit(&self, require_all: bool) -> ExitCode {
        self.exit_code(require_all).into()
    }
}

/// The word of a conclusion.
#[must_use]
pub const fn word(conclusion: Conclusion) -> &'static str {
    match conclusion {
        Conclusion::Pass => "PASS",
        Conclusion::Fail => "FAIL",
        Conclusion::Unknown => "UNKNOWN",
    }
}

impl fmt::Display for Judgement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "history {}", self.history)?;
        for finding in &self.findings {
            writeln!(f, "  found: {finding}")?;
        }
        for death in &self.deaths {
            writeln!(
                f,
                "  broker {} ended by itself ({}):",
                death.node, death.status
            )?;
            for line in death.tail.lines() {
                writeln!(f, "    {line}")?;
            }
        }
        if self.interrupted {
            writeln!(f, "  the run was interrupted")?;
        }
        for what in &self.skipped {
            writeln!(f, "  skipped: {what}")?;
        }
        writeln!(f, "SKIPPED {}", self.skipped.len())?;
        writeln!(f, "{}", word(self.conclusion()))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::collections::BTreeMap;

    use super::*;

    /// One that holds nothing against anybody.
    pub(crate) fn judgement(conclusion: Conclusion) -> Judgement {
        Judgement {
            history: Verdict {
                conclusion,
                operations: 1,
                ok: 1,
                failed: 0,
                unknown: 0,
                anomalies: BTreeMap::new(),
                tolerated: BTreeMap::new(),
                vacuous: Vec::new(),
            },
            findings: Vec::new(),
            deaths: Vec::new(),
            skipped: Vec::new(),
            interrupted: false,
        }
    }

    #[test]
    fn exit_codes_are_those_of_the_manual() {
        assert_eq!(judgement(Conclusion::Pass).exit_code(true), 0);
        assert_eq!(judgement(Conclusion::Fail).exit_code(false), 1);
        assert_eq!(judgement(Conclusion::Unknown).exit_code(false), 2);
    }

    #[test]
    fn what_the_harness_saw_counts_beside_the_history() {
        let mut found = judgement(Conclusion::Unknown);
        found.findings.push("not healthy".into());
        assert_eq!(found.exit_code(false), 1);
        let mut skipped = judgement(Conclusion::Pass);
        skipped.skipped.push("no root".into());
        assert_eq!((skipped.exit_code(false), skipped.exit_code(true)), (0, 1));
        assert!(skipped.to_string().contains("SKIPPED 1\n"));
        let mut interrupted = judgement(Conclusion::Pass);
        interrupted.interrupted = true;
        assert_eq!(interrupted.exit_code(false), 2);
    }
}
