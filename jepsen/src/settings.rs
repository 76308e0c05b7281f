//! How many brokers are under test, and what they are configured with.

use std::str::FromStr;

use crate::schedule::Kind;

/// How many brokers a run has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Brokers {
    /// So many.
    Exactly(u32),
    /// Three, and five for every fourth seed.
    BySeed,
}

impl Brokers {
    /// How many there are in a run.
    #[must_use]
    pub const fn of(self, seed: u64) -> u32 {
        match self {
            Self::Exactly(count) => count,
            Self::BySeed if seed % 4 == 3 => 5,
            Self::BySeed => 3,
        }
    }
}

impl FromStr for Brokers {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "by-seed" => Ok(Self::BySeed),
            "1" | "3" | "5" => text.parse().map(Self::Exactly).map_err(|_| text.to_owned()),
            _ => Err("1, 3, 5 or by-seed".to_owned()),
        }
    }
}

/// How often shards are checkpointed, and how large the log is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Checkpoints {
    /// Often enough for a run to see some
    #[default]
    Usual,
    /// All the time, and a log of four files: starts from checkpoints, followers that need one, files
    /// that are recycled under whoever still reads them
    Tiny,
    /// Tiny for every third seed
    BySeed,
}

/// Keeps a broker under test small: a run should not fill the disk, and should see checkpoints,
/// recycled files and followers that fell behind. Whoever reads from the beginning reads from the disk, and so sees
/// what has rotted and what was compacted there.
const USUAL: [(&str, &str); 8] = [
    ("wal.budget_bytes", "256MiB"),
    ("wal.file_bytes", "4MiB"),
    ("storage.reserve_bytes", "128MiB"),
    ("storage.checkpoint_interval_ms", "5s"),
    ("storage.checkpoint_bytes", "4MiB"),
    ("storage.retention_interval_ms", "2s"),
    ("compaction.interval_ms", "2s"),
    ("limits.tail_cache_bytes", "256KiB"),
];

/// Small log files, so that they are recycled, and many checkpoints.
pub(crate) const TINY: &[(&str, &str)] = &[
    ("wal.file_bytes", "1MiB"),
    ("wal.budget_bytes", "4MiB"),
    ("storage.checkpoint_bytes", "256KiB"),
    ("storage.checkpoint_interval_ms", "2s"),
];

/// Rot must be found within a run, not within a day.
const SCRUB: &[(&str, &str)] = &[("scrub.interval_ms", "5s")];

impl Checkpoints {
    /// Whether they are tiny in a run.
    #[must_use]
    pub const fn tiny(self, seed: u64) -> bool {
        match self {
            Self::Usual => false,
            Self::Tiny => true,
            Self::BySeed => seed % 3 == 2,
        }
    }
}

/// All settings of a run; what somebody set by hand counts before everything else.
pub(crate) fn of_run(
    tiny: bool,
    kinds: &[Kind],
    by_hand: &[(String, String)],
) -> Vec<(String, String)> {
    let rots = kinds.contains(&Kind::BitFlip) || kinds.contains(&Kind::RottenStart);
    let layers = [
        USUAL.as_slice(),
        if tiny { TINY } else { &[] },
        if rots { SCRUB } else { &[] },
    ];
    let mut settings: Vec<(String, String)> = Vec::new();
    let all = layers.into_iter().flatten();
    let all = all.map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
    for (key, value) in all.chain(by_hand.iter().cloned()) {
        settings.retain(|(known, _)| *known != key);
        settings.push((key, value));
    }
    settings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fourth_seed_has_five_brokers_if_nobody_says_how_many() {
        let counts: Vec<u32> = (0..8).map(|seed| Brokers::BySeed.of(seed)).collect();
        assert_eq!(counts, [3, 3, 3, 5, 3, 3, 3, 5]);
        assert_eq!("5".parse::<Brokers>().map(|brokers| brokers.of(2)), Ok(5));
        assert_eq!("by-seed".parse(), Ok(Brokers::BySeed));
        assert!("4".parse::<Brokers>().is_err());
    }

    #[test]
    fn what_is_set_by_hand_counts_before_what_a_seed_says() {
        let by_hand = [("wal.file_bytes".to_owned(), "2MiB".to_owned())];
        let settings = of_run(Checkpoints::BySeed.tiny(5), &[Kind::BitFlip], &by_hand);
        let of = |key: &str| {
            let found: Vec<&str> = settings
                .iter()
                .filter(|(known, _)| known == key)
                .map(|(_, value)| value.as_str())
                .collect();
            found
        };
        assert_eq!(of("wal.file_bytes"), ["2MiB"]);
        assert_eq!(of("wal.budget_bytes"), ["4MiB"]);
        assert_eq!(of("scrub.interval_ms"), ["5s"]);
        assert!(!Checkpoints::BySeed.tiny(6) && Checkpoints::Tiny.tiny(6));
    }
}
