//! Which mutant this process is.

use std::fmt;
use std::sync::atomic::{AtomicU8, Ordering};

/// The variable that names the mutant.
pub const VARIABLE: &str = "HIGHWATER_MUTANT";

/// Rules that can be broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Mutant {
    /// Entries are acknowledged when they are written, and synced only when something else is.
    AckBeforeFsync = 1,
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
}

impl Mutant {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::AckBeforeFsync,
        Self::AckAtLeaderAlone,
        Self::VoteNotFsynced,
        Self::DedupNotInSnapshot,
        Self::ReadAboveHighWatermark,
        Self::SkipDirectoryFsync,
        Self::RecycleDropsVote,
        Self::WipedBrokerVotes,
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

/// The chosen mutant's number; 0 is none.
static CHOSEN: AtomicU8 = AtomicU8::new(0);

/// Makes this process that mutant, or none.
pub fn choose(mutant: Option<Mutant>) {
    CHOSEN.store(mutant.map_or(0, |mutant| mutant as u8), Ordering::SeqCst);
}

/// Whether this process is that mutant.
#[must_use]
pub fn is_chosen(mutant: Mutant) -> bool {
    CHOSEN.load(Ordering::Relaxed) == mutant as u8
}

/// Chooses what the environment names, and says so on the standard error, loudly.
///
/// # Errors
/// When it names what does not exist.
pub fn start() -> Result<(), UnknownMutant> {
    let name = std::env::var_os(VARIABLE).unwrap_or_default();
    let name = name.to_string_lossy();
    let line = "=".repeat(72);
    if name.is_empty() {
        choose(None);
        eprintln!("{line}\nTHIS BUILD CAN BREAK ITS PROMISES. No mutant is chosen.\n{line}");
        return Ok(());
    }
    let found = Mutant::ALL.into_iter().find(|mutant| mutant.name() == name);
    let mutant = found.ok_or_else(|| UnknownMutant(name.into_owned()))?;
    choose(Some(mutant));
    eprintln!(
        "{line}\nTHIS BROKER LOSES DATA ON PURPOSE: mutant {}.\n{line}",
        mutant.name()
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_chosen_at_a_time_and_names_are_different() {
        for mutant in Mutant::ALL {
            choose(Some(mutant));
            let chosen: Vec<_> = Mutant::ALL.into_iter().filter(|m| is_chosen(*m)).collect();
            assert_eq!(chosen, [mutant]);
            assert_eq!(
                crate::mutant!(AckBeforeFsync => 1; else 2) == 1,
                mutant == Mutant::AckBeforeFsync
            );
            let same = Mutant::ALL.iter().filter(|m| m.name() == mutant.name());
            assert_eq!(same.count(), 1);
        }
        choose(None);
        assert!(Mutant::ALL.into_iter().all(|mutant| !is_chosen(mutant)));
        assert!(
            UnknownMutant("x".to_owned())
                .to_string()
                .contains("ack-before-fsync")
        );
    }
}
