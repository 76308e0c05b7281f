//! Whether a verdict shows what a mutant breaks, or something else.

use super::table::{Finding, Mutant};
use crate::verdict::Judgement;

impl Mutant {
    /// What of a verdict is the broken rule's doing; empty: whatever made the run fail was something else.
    #[must_use]
    pub fn shown_by(&self, judgement: &Judgement) -> Vec<String> {
        let anomalies = judgement.history.anomalies.iter();
        let expected = anomalies.filter(|(anomaly, _)| self.anomalies.contains(anomaly));
        let mut shown: Vec<String> = expected
            .map(|(anomaly, found)| format!("{anomaly} {}", found.count))
            .collect();
        let said = judgement.findings.iter();
        let told = said.filter(|said| self.findings.iter().any(|finding| finding.is_told_by(said)));
        shown.extend(told.cloned());
        if self.findings.contains(&Finding::Death) {
            let deaths = judgement.deaths.iter();
            shown.extend(deaths.map(|death| format!("broker {} died", death.node)));
        }
        shown
    }
}

impl Finding {
    /// Whether a sentence of the harness is this one.
    fn is_told_by(self, sentence: &str) -> bool {
        let words: &[&str] = match self {
            // Told by the exit of a process.
            Self::Death => &[],
            Self::Divergence => &["could not be read", "reading broker", "differ"],
            Self::NoRecovery => &["after healing", "takes nothing", "no record came"],
            Self::Admitted => &["was let in", "let in again"],
            Self::WentOn => &["went on after a sync had failed"],
            Self::Forgot => &["forgot elections"],
            Self::Unnoticed => &["without noticing"],
        };
        words.iter().any(|word| sentence.contains(word))
    }
}

#[cfg(test)]
mod tests {
    use highwater_checker::Conclusion;

    use super::super::MUTANTS;
    use super::*;
    use crate::verdict::tests::judgement as harmless;

    fn judgement(findings: &[&str]) -> Judgement {
        let findings = findings.iter().map(|&said| said.to_owned()).collect();
        Judgement {
            findings,
            ..harmless(Conclusion::Pass)
        }
    }

    fn mutant(name: &str) -> Mutant {
        *MUTANTS.iter().find(|mutant| mutant.name == name).unwrap()
    }

    #[test]
    fn a_run_that_fails_for_another_reason_catches_nothing() {
        let went_on = judgement(&["broker 2 went on after a sync had failed"]);
        assert_eq!(mutant("retry-fsync").shown_by(&went_on).len(), 1);
        assert!(mutant("deposed-reads").shown_by(&went_on).is_empty());
        assert!(mutant("retry-fsync").shown_by(&judgement(&[])).is_empty());
    }

    #[test]
    fn each_mutant_can_be_told() {
        for mutant in MUTANTS {
            let signs = mutant.anomalies.len() + mutant.findings.len();
            assert!(signs > 0, "{} shows in nothing", mutant.name);
        }
    }
}
