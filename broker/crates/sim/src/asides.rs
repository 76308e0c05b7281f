//! What a seed decides of the topics beside the one that is written all the time.

use std::collections::BTreeSet;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

use crate::settings::Kind;

/// Tells what was added later from the other choices of a seed. It is such that the seeds of the corpus have
/// nothing of it, and mean what they meant.
const RETAINED: u64 = 0x4e8b;

/// A topic of which the latest record of each key is kept.
#[derive(Debug, Clone)]
pub struct Compacted {
    /// Its partitions.
    pub partitions: u32,
    /// Tombstones go at once. Then nobody reads it before the end: a replica that is late with a compaction
    /// still shows what they have removed, and a reader may find them gone when it comes to their place.
    pub forgets: bool,
    /// Its first records are deleted now and then.
    pub trims: bool,
    /// Its settings.
    pub topic: Vec<(&'static str, String)>,
    /// Memory for keys, in bytes.
    pub dedupe_buffer: u64,
    /// Between two looks at what may be compacted.
    pub interval_ms: u64,
}

impl Compacted {
    /// Keys of a partition's records.
    pub const KEYS: i64 = 11;

    /// What a seed decides of it, apart from everything else, so that it changes no other world.
    #[must_use]
    pub fn of(seed: u64, faults: &BTreeSet<Kind>) -> Option<Self> {
        let mut rng = StdRng::seed_from_u64(seed ^ 0x00c0_3bac);
        if !rng.random_ratio(1, 3) {
            return None;
        }
        // Clocks that jump make tombstones old.
        let forgets = rng.random_ratio(1, 2) && !faults.contains(&Kind::Clock);
        let kept_ms: u64 = if forgets { 200 } else { 24 * 3_600_000 };
        let mut pick = |choices: &[u64]| choices.choose(&mut rng).copied().unwrap_or(1);
        let topic = vec![
            ("cleanup.policy", "compact".to_owned()),
            ("segment.bytes", (64 << 10).to_string()),
            ("segment.ms", pick(&[50, 200, 500]).to_string()),
            (
                "min.cleanable.dirty.ratio",
                format!("0.{}", pick(&[0, 1, 5])),
            ),
            ("delete.retention.ms", kept_ms.to_string()),
        ];
        Some(Self {
            partitions: if pick(&[1, 1, 2]) == 1 { 1 } else { 2 },
            forgets,
            trims: pick(&[0, 0, 0, 1]) == 1,
            topic,
            // Room for a few keys: then it takes several rounds.
            dedupe_buffer: pick(&[200, 1 << 20]),
            interval_ms: pick(&[100, 500]),
        })
    }
}

/// A topic from which old records go by themselves.
#[derive(Debug, Clone)]
pub struct Retained {
    /// They go when more than this is left.
    pub bytes: Option<u64>,
    /// They go when they are older than this, in milliseconds.
    pub ms: Option<u64>,
}

impl Retained {
    /// What a seed decides of it, apart from everything else, so that it changes no other world.
    #[must_use]
    pub fn of(seed: u64) -> Option<Self> {
        let mut rng = StdRng::seed_from_u64(seed ^ RETAINED);
        if !rng.random_ratio(1, 5) {
            return None;
        }
        let ms = *[5_000, 7_000].choose(&mut rng).unwrap_or(&5_000);
        let bytes = *[128 << 10, 512 << 10]
            .choose(&mut rng)
            .unwrap_or(&(128 << 10));
        let (by_age, by_size) = *[(true, false), (false, true), (true, true)]
            .choose(&mut rng)
            .unwrap_or(&(true, true));
        Some(Self {
            bytes: by_size.then_some(bytes),
            ms: by_age.then_some(ms),
        })
    }
}
