//! The known-bad brokers: what shows each of them, and how. `jepsen/MUTANTS.md` says why.

use highwater_checker::Anomaly;

use crate::settings::TINY as SMALL;

/// A mutant of the broker, by what it takes to notice it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mutant {
    /// What `HIGHWATER_MUTANT` names.
    pub name: &'static str,
    /// The rule that it breaks.
    pub breaks: &'static str,
    /// Faults of the schedule that bring it to light, the best first.
    pub faults: &'static [&'static str],
    /// Settings of the brokers without which it may not show, as `--set KEY=VALUE`.
    pub settings: &'static [(&'static str, &'static str)],
    /// What the checker should find; any one of it will do. A run that fails for another
    /// reason has not caught it.
    pub anomalies: &'static [Anomaly],
    /// What else gives it away: broken promises that no history shows.
    pub findings: &'static [Finding],
}

/// Broken promises outside of a history.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finding {
    /// A broker ended by itself, or did not start again.
    Death,
    /// Replicas of a partition differ, or one cannot be read to its end.
    Divergence,
    /// The cluster did not come back.
    NoRecovery,
    /// A broker was let in that should have been refused.
    Admitted,
    /// A broker went on where it should have ended.
    WentOn,
    /// A broker knows an older term than it knew.
    Forgot,
    /// A broker started over damage, and neither refused nor said so.
    Unnoticed,
}

/// All of them.
pub const MUTANTS: [Mutant; 17] = [
    Mutant {
        name: "ack-before-fsync",
        breaks: "an entry is acknowledged after its sync",
        faults: &["power-loss-all", "laggard"],
        settings: &[],
        anomalies: &[
            Anomaly::LostWrite,
            Anomaly::Unseen,
            Anomaly::InconsistentOffset,
        ],
        findings: &[Finding::Divergence, Finding::Death],
    },
    Mutant {
        name: "ack-at-leader-alone",
        breaks: "an entry is acknowledged when a majority has it",
        faults: &["isolate-leader", "halves", "kill-leader"],
        settings: &[],
        anomalies: &[
            Anomaly::LostWrite,
            Anomaly::Unseen,
            Anomaly::InconsistentOffset,
        ],
        findings: &[Finding::Divergence, Finding::Death, Finding::NoRecovery],
    },
    Mutant {
        name: "vote-not-fsynced",
        breaks: "a vote is durable before it is given",
        faults: &["amnesia", "kingmaker"],
        settings: &[],
        anomalies: &[
            Anomaly::LostWrite,
            Anomaly::Unseen,
            Anomaly::InconsistentOffset,
        ],
        findings: &[Finding::Forgot, Finding::Divergence, Finding::Death],
    },
    Mutant {
        name: "dedup-not-in-snapshot",
        breaks: "a checkpoint knows what its producers have sent",
        faults: &["kill-all", "crash-loop", "kill-leader"],
        settings: SMALL,
        anomalies: &[Anomaly::Duplicate, Anomaly::NonMonotonicSend],
        findings: &[Finding::Divergence],
    },
    Mutant {
        name: "read-above-high-watermark",
        breaks: "readers see committed records only",
        faults: &["isolate-leader", "kill-leader", "halves"],
        settings: &[],
        anomalies: &[
            Anomaly::InconsistentOffset,
            Anomaly::LostWrite,
            Anomaly::PrecommittedRead,
            Anomaly::AbortedRead,
            Anomaly::Duplicate,
        ],
        findings: &[],
    },
    Mutant {
        name: "skip-directory-fsync",
        breaks: "a name is durable before anything rests on it",
        faults: &["power-loss-all", "power-loss"],
        settings: SMALL,
        anomalies: &[Anomaly::LostWrite, Anomaly::Unseen],
        findings: &[Finding::Death, Finding::NoRecovery],
    },
    Mutant {
        name: "recycle-drops-vote",
        breaks: "a recycled log file leaves no vote behind",
        faults: &["amnesia", "kingmaker"],
        settings: SMALL,
        anomalies: &[
            Anomaly::LostWrite,
            Anomaly::Unseen,
            Anomaly::InconsistentOffset,
        ],
        findings: &[Finding::Forgot, Finding::Death, Finding::Divergence],
    },
    Mutant {
        name: "wiped-broker-votes",
        breaks: "a broker that lost its disk votes nowhere",
        faults: &["wipe"],
        settings: &[],
        anomalies: &[Anomaly::LostWrite, Anomaly::Unseen],
        findings: &[Finding::Admitted, Finding::Divergence],
    },
    Mutant {
        name: "retry-fsync",
        breaks: "a sync that failed ends the broker",
        faults: &["fsync-error"],
        settings: &[],
        anomalies: &[
            Anomaly::LostWrite,
            Anomaly::Unseen,
            Anomaly::InconsistentOffset,
        ],
        findings: &[Finding::WentOn, Finding::Divergence, Finding::Death],
    },
    Mutant {
        name: "unverified-reads",
        breaks: "what is read is what was written",
        faults: &["bit-flip"],
        settings: &[],
        anomalies: &[Anomaly::Phantom, Anomaly::ReplicaDivergence],
        findings: &[Finding::Divergence],
    },
    Mutant {
        name: "compacts-the-latest",
        breaks: "the latest record of each key survives compaction",
        faults: &["kill-follower"],
        settings: &[],
        anomalies: &[
            Anomaly::StaleKey,
            Anomaly::Unseen,
            Anomaly::LostWrite,
            Anomaly::PollSkip,
        ],
        findings: &[],
    },
    Mutant {
        name: "trims-too-much",
        breaks: "records go only as far as somebody asked",
        faults: &["kill-follower"],
        settings: &[],
        anomalies: &[
            Anomaly::OverTrim,
            Anomaly::Unseen,
            Anomaly::LostWrite,
            Anomaly::PollSkip,
        ],
        findings: &[],
    },
    Mutant {
        name: "unclean-election",
        breaks: "who is elected has all that was acknowledged",
        faults: &["laggard", "isolate-leader", "kill-leader"],
        settings: &[],
        anomalies: &[
            Anomaly::LostWrite,
            Anomaly::Unseen,
            Anomaly::InconsistentOffset,
        ],
        findings: &[Finding::Death, Finding::Divergence, Finding::NoRecovery],
    },
    Mutant {
        name: "deposed-reads",
        breaks: "who answers with the latest offset leads",
        faults: &["isolate-leader", "pause"],
        settings: &[],
        anomalies: &[Anomaly::StaleLatest],
        findings: &[],
    },
    Mutant {
        name: "ignores-epoch",
        breaks: "a producer's new epoch begins anew",
        faults: &["isolate-leader", "kill-leader", "pause"],
        settings: &[],
        anomalies: &[
            Anomaly::LostWrite,
            Anomaly::Unseen,
            Anomaly::InconsistentOffset,
            Anomaly::Duplicate,
            Anomaly::NonMonotonicSend,
        ],
        findings: &[Finding::NoRecovery],
    },
    Mutant {
        name: "truncates-damage",
        breaks: "only a torn tail is cut off in silence",
        faults: &["rotten-start"],
        settings: &[],
        anomalies: &[
            Anomaly::LostWrite,
            Anomaly::Unseen,
            Anomaly::InconsistentOffset,
        ],
        findings: &[Finding::Unnoticed, Finding::Divergence],
    },
    Mutant {
        name: "stamps-own-time",
        breaks: "appends have the time that most brokers have",
        faults: &["clock-jump"],
        settings: &[],
        anomalies: &[
            Anomaly::OverTrim,
            Anomaly::Unseen,
            Anomaly::LostWrite,
            Anomaly::PollSkip,
        ],
        findings: &[],
    },
];

/// Mutants that are left to other tests, and why.
pub const ELSEWHERE: [(&str, &str); 5] = [
    (
        "copies-unheld",
        "tombstones outlast a run here, because readers are to see them; a test of highwater-shard \
         and the simulator show it",
    ),
    (
        "commits-first",
        "it is the client's, and this program's own client keeps the rule; a test of the client \
         and the simulator show it",
    ),
    (
        "trusts-the-cache",
        "a process has to die between a rename and its sync, start, and lose power before the next \
         checkpoint; a test of highwater-env shows it",
    ),
    (
        "counts-the-old-replica",
        "a broker has to lag behind the plan that takes a replica from it and gives it another; a test \
         of the broker shows it",
    ),
    (
        "forgets-arrivals",
        "a leader has to be elected between a partition's arrival and its being applied; a test of the \
         broker shows it",
    ),
];
