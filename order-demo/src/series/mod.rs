//! The long series behind the claims: over a hundred blocks, each a whole run of its own on a cluster of
//! its own, each a few minutes long. What a block measured is appended to a file at once, so that a
//! series can be interrupted anywhere and goes on where it stopped.
//!
//! [`next`] is pure: which block follows is decided by what is in the file. The first blocks search
//! for the highest rate at which the backlog stays bounded; the others are paced by what was found.

mod block;
mod done;
mod page;
mod spread;
mod summary;

pub use block::{Block, Kind, next, total};
pub use done::{Done, DoneFault, DoneMode, append, load};
pub use page::page;
pub use summary::summary;

#[cfg(test)]
#[path = "series_tests.rs"]
mod tests;
