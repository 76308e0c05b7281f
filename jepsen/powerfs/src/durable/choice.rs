//! What survives of that which was not synced: nothing, or what a seed says.

use crate::control::Loss;

/// Decides, for one power loss.
#[derive(Debug)]
pub(crate) enum Choice {
    /// Nothing survives.
    Nothing,
    /// A seeded sequence (splitmix64), so that the same loss of the same state can be had again.
    Seeded(u64),
}

impl From<Loss> for Choice {
    fn from(loss: Loss) -> Self {
        match loss {
            Loss::Everything => Self::Nothing,
            Loss::Torn { seed } => Self::Seeded(seed),
        }
    }
}

impl Choice {
    /// Whether the next thing survives: never, or every second time.
    pub(crate) fn survives(&mut self) -> bool {
        let Self::Seeded(state) = self else {
            return false;
        };
        next(state) & 1 == 1
    }
}

/// The next number of a seeded sequence (splitmix64).
pub(crate) const fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut mixed = *state;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}
