//! The known-bad brokers: what shows each of them, and how. `jepsen/MUTANTS.md` says why.

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
    /// What the checker should find, by its names; any one of them will do.
    pub anomalies: &'static [&'static str],
    /// What else gives it away: broken promises that no history shows.
    pub findings: &'static [Finding],
    /// Seconds of faults after which it should have shown.
    pub seconds: u64,
    /// Whether random faults find it in that time, or only a schedule made for it.
    pub chance: Chance,
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
}

/// How a mutant is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Chance {
    /// The faults named find it, whatever the seed.
    Sure,
    /// The faults named find it with most seeds.
    Likely,
    /// It needs faults in an order that chance hardly ever makes.
    Directed,
}

/// All of them.
pub const MUTANTS: [Mutant; 12] = [
    Mutant {
        name: "ack-before-fsync",
        breaks: "an entry is acknowledged after its sync",
        faults: &["power-loss-all", "laggard"],
        settings: &[],
        anomalies: &["lost-write", "unseen", "inconsistent-offset"],
        findings: &[Finding::Divergence, Finding::Death],
        seconds: 30,
        chance: Chance::Sure,
    },
    Mutant {
        name: "ack-at-leader-alone",
        breaks: "an entry is acknowledged when a majority has it",
        faults: &["isolate-leader", "halves", "kill-leader"],
        settings: &[],
        anomalies: &["lost-write", "unseen", "inconsistent-offset"],
        findings: &[Finding::Divergence, Finding::Death, Finding::NoRecovery],
        seconds: 60,
        chance: Chance::Likely,
    },
    Mutant {
        name: "vote-not-fsynced",
        breaks: "a vote is durable before it is given",
        faults: &["amnesia", "kingmaker"],
        settings: &[],
        anomalies: &["lost-write", "unseen", "inconsistent-offset"],
        findings: &[Finding::Divergence, Finding::Death],
        seconds: 600,
        chance: Chance::Directed,
    },
    Mutant {
        name: "dedup-not-in-snapshot",
        breaks: "a checkpoint knows what its producers have sent",
        faults: &["kill-all", "crash-loop", "kill-leader"],
        settings: SMALL,
        anomalies: &["duplicate", "non-monotonic-send"],
        findings: &[Finding::Divergence],
        seconds: 120,
        chance: Chance::Likely,
    },
    Mutant {
        name: "read-above-high-watermark",
        breaks: "readers see committed records only",
        faults: &["isolate-leader", "kill-leader", "halves"],
        settings: &[],
        anomalies: &[
            "inconsistent-offset",
            "lost-write",
            "precommitted-read",
            "aborted-read",
            "duplicate",
        ],
        findings: &[],
        seconds: 60,
        chance: Chance::Likely,
    },
    Mutant {
        name: "skip-directory-fsync",
        breaks: "a name is durable before anything rests on it",
        faults: &["power-loss-all", "power-loss"],
        settings: SMALL,
        anomalies: &["lost-write", "unseen"],
        findings: &[Finding::Death, Finding::NoRecovery],
        seconds: 30,
        chance: Chance::Sure,
    },
    Mutant {
        name: "recycle-drops-vote",
        breaks: "a recycled log file leaves no vote behind",
        faults: &["amnesia", "kingmaker"],
        settings: SMALL,
        anomalies: &["lost-write", "unseen", "inconsistent-offset"],
        findings: &[Finding::Death, Finding::Divergence],
        seconds: 600,
        chance: Chance::Directed,
    },
    Mutant {
        name: "wiped-broker-votes",
        breaks: "a broker that lost its disk votes nowhere",
        faults: &["wipe"],
        settings: &[],
        anomalies: &["lost-write", "unseen"],
        findings: &[Finding::Admitted, Finding::Divergence],
        seconds: 60,
        chance: Chance::Directed,
    },
    Mutant {
        name: "retry-fsync",
        breaks: "a sync that failed ends the broker",
        faults: &["fsync-error"],
        settings: &[],
        anomalies: &["lost-write", "unseen", "inconsistent-offset"],
        findings: &[Finding::WentOn, Finding::Divergence, Finding::Death],
        seconds: 60,
        chance: Chance::Sure,
    },
    Mutant {
        name: "unverified-reads",
        breaks: "what is read is what was written",
        faults: &["bit-flip"],
        settings: &[],
        anomalies: &["phantom", "replica-divergence"],
        findings: &[Finding::Divergence],
        seconds: 60,
        chance: Chance::Likely,
    },
    Mutant {
        name: "compacts-the-latest",
        breaks: "the latest record of each key survives compaction",
        faults: &["kill-follower"],
        settings: &[],
        anomalies: &["stale-key", "unseen", "lost-write", "poll-skip"],
        findings: &[],
        seconds: 60,
        chance: Chance::Sure,
    },
    Mutant {
        name: "trims-too-much",
        breaks: "records go only as far as somebody asked",
        faults: &["kill-follower"],
        settings: &[],
        anomalies: &["over-trim", "unseen", "lost-write", "poll-skip"],
        findings: &[],
        seconds: 30,
        chance: Chance::Sure,
    },
];
