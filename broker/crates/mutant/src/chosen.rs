//! Which mutant this process is.

use std::fmt;
use std::io::Read;
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// The variable that names the mutant.
pub const VARIABLE: &str = "HIGHWATER_MUTANT";

/// Rules that can be broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mutant {
    /// Entries are acknowledged when they are written, and synced only when something else is.
    AckBeforeFsync,
    /// The leader counts an entry as stored by a follower as soon as it is on its way there.
    AckAtLeaderAlone,
    /// A vote is given and remembered in memory alone.
    VoteNotFsynced,
    /// A checkpoint forgets which batches its producers have sent.
    DedupNotInSnapshot,
    /// Readers see a batch when the leader takes it, before the log has it.
    ReadAboveHighWatermark,
    /// Syncs of directories do nothing.
    SkipDirectoryFsync,
    /// A recycled log file takes the votes of idle shards along.
    RecycleDropsVote,
    /// A broker whose disk was wiped comes back as if nothing had happened, and votes.
    WipedBrokerVotes,
    /// A sync that failed is tried again, and what it says then is believed.
    RetryFsync,
    /// Batches are served, and stored ranges found whole, whatever their checksums say.
    UnverifiedReads,
    /// Compaction takes the latest record of each key with the others.
    CompactsTheLatest,
    /// Whoever deletes some records of a partition deletes all.
    TrimsTooMuch,
    /// A partition is compacted while it is copied to another shard, and the copy is of several states.
    CopiesUnheld,
    /// Whoever stands for election is voted for, however short its log is.
    UncleanElection,
    /// Who led last answers what it knows, without asking whether it still leads.
    DeposedReads,
    /// A producer's epoch is not looked at, only its sequence.
    IgnoresEpoch,
    /// Whatever does not match its checksum at the end of the log is taken for a torn tail, and cut off.
    TruncatesDamage,
    /// The client says that a record is finished before anybody has it.
    CommitsFirst,
    /// A start builds on files that only the page cache may know.
    TrustsTheCache,
    /// A leader stamps appends by its own clock, whatever the others' say.
    StampsOwnTime,
    /// A replica of a broker that has not followed a plan yet is taken for the one that the plan makes.
    CountsTheOldReplica,
    /// A leader that has not applied the arrival of a partition takes it for one that belongs elsewhere.
    ForgetsArrivals,
}

impl Mutant {
    /// All of them.
    pub const ALL: [Self; 22] = [
        Self::AckBeforeFsync,
        Self::AckAtLeaderAlone,
        Self::VoteNotFsynced,
        Self::DedupNotInSnapshot,
        Self::ReadAboveHighWatermark,
        Self::SkipDirectoryFsync,
        Self::RecycleDropsVote,
        Self::WipedBrokerVotes,
        Self::RetryFsync,
        Self::UnverifiedReads,
        Self::CompactsTheLatest,
        Self::TrimsTooMuch,
        Self::CopiesUnheld,
        Self::UncleanElection,
        Self::DeposedReads,
        Self::IgnoresEpoch,
        Self::TruncatesDamage,
        Self::CommitsFirst,
        Self::TrustsTheCache,
        Self::StampsOwnTime,
        Self::CountsTheOldReplica,
        Self::ForgetsArrivals,
    ];

    /// What it is called.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::AckBeforeFsync => "ack-before-fsync",
            Self::AckAtLeaderAlone => "ack-at-leader-alone",
            Self::VoteNotFsynced => "vote-not-fsynced",
            Self::DedupNotInSnapshot => "dedup-not-in-snapshot",
            Self::ReadAboveHighWatermark => "read-above-high-watermark",
            Self::SkipDirectoryFsync => "skip-directory-fsync",
            Self::RecycleDropsVote => "recycle-drops-vote",
            Self::WipedBrokerVotes => "wiped-broker-votes",
            Self::RetryFsync => "retry-fsync",
            Self::UnverifiedReads => "unverified-reads",
            Self::CompactsTheLatest => "compacts-the-latest",
            Self::TrimsTooMuch => "trims-too-much",
            Self::CopiesUnheld => "copies-unheld",
            Self::UncleanElection => "unclean-election",
            Self::DeposedReads => "deposed-reads",
            Self::IgnoresEpoch => "ignores-epoch",
            Self::TruncatesDamage => "truncates-damage",
            Self::CommitsFirst => "commits-first",
            Self::TrustsTheCache => "trusts-the-cache",
            Self::StampsOwnTime => "stamps-own-time",
            Self::CountsTheOldReplica => "counts-the-old-replica",
            Self::ForgetsArrivals => "forgets-arrivals",
        }
    }
}

/// A name that no mutant has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownMutant(String);

impl fmt::Display for UnknownMutant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = Mutant::ALL.iter().map(|mutant| mutant.name()).collect();
        write!(
            f,
            "{VARIABLE} names no mutant: {:?}; there are {}",
            self.0,
            names.join(", ")
        )
    }
}

impl std::error::Error for UnknownMutant {}

/// What the environment names; read once.
fn named() -> &'static Result<Option<Mutant>, UnknownMutant> {
    static NAMED: OnceLock<Result<Option<Mutant>, UnknownMutant>> = OnceLock::new();
    NAMED.get_or_init(|| {
        find(
            &std::env::var_os(VARIABLE)
                .unwrap_or_default()
                .to_string_lossy(),
        )
    })
}

/// The mutant of a name; an empty name is none.
fn find(name: &str) -> Result<Option<Mutant>, UnknownMutant> {
    let found = Mutant::ALL.into_iter().find(|mutant| mutant.name() == name);
    match found {
        None if !name.is_empty() => Err(UnknownMutant(name.to_owned())),
        found => Ok(found),
    }
}

/// Whether this process is that mutant.
///
/// # Panics
/// When the environment names what does not exist: a harness must not take that for a broker that
/// passed.
#[must_use]
pub fn is_chosen(mutant: Mutant) -> bool {
    match named() {
        Ok(chosen) => *chosen == Some(mutant),
        Err(unknown) => panic!("{unknown}"),
    }
}

/// Says on the standard error, loudly, which mutant this process is.
///
/// # Errors
/// When the environment names what does not exist.
pub fn start() -> Result<(), UnknownMutant> {
    let line = "=".repeat(72);
    match named().clone()? {
        None => {
            eprintln!("{line}\nTHIS BUILD CAN BREAK ITS PROMISES. No mutant is chosen.\n{line}")
        }
        Some(mutant) => eprintln!(
            "{line}\nTHIS BROKER LOSES DATA ON PURPOSE: mutant {}.\n{line}",
            mutant.name()
        ),
    }
    Ok(())
}

/// How long a mutant may take to fail a test. One that hangs has failed it too.
const PATIENCE: Duration = Duration::from_secs(120);

/// For tests: holds that another test of the calling program passes without a mutant and does not
/// with this one. Each runs in a process of its own, because a process is one mutant at most.
///
/// # Panics
/// When it does not hold.
pub fn fails(mutant: Mutant, test: &str) {
    assert_eq!(run("", test), Some(true), "{test} passes without a mutant");
    assert_ne!(
        run(mutant.name(), test),
        Some(true),
        "{} passes {test}",
        mutant.name()
    );
}

/// Whether a test passes; `None` if it does not end.
fn run(name: &str, test: &str) -> Option<bool> {
    let program = std::env::current_exe().expect("the path of this program");
    let mut child = Command::new(program)
        .args([test, "--exact", "--test-threads=1"])
        .env(VARIABLE, name)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("this program starts again");
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        if let Some(status) = child.try_wait().expect("its end") {
            let mut output = String::new();
            let mut pipe = child.stdout.take().expect("its output");
            pipe.read_to_string(&mut output).expect("its output");
            assert!(output.contains("running 1 test"), "there is no test {test}");
            return Some(status.success());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    child.kill().expect("it is killed");
    child.wait().expect("its end");
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_mutant_is_found_by_its_own_name_alone() {
        for mutant in Mutant::ALL {
            assert_eq!(find(mutant.name()), Ok(Some(mutant)));
        }
        assert_eq!(find(""), Ok(None));
        let unknown = find("ack").unwrap_err().to_string();
        assert!(unknown.contains("ack-before-fsync"), "{unknown}");
    }

    #[test]
    fn what_is_right_is_done_without_a_mutant() {
        assert_eq!(crate::mutant!(SkipDirectoryFsync => 1; else 2), 2);
    }

    #[test]
    fn a_mutant_does_what_is_broken() {
        fails(
            Mutant::SkipDirectoryFsync,
            "chosen::tests::what_is_right_is_done_without_a_mutant",
        );
    }
}
