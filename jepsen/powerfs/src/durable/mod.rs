//! What is durable: pure bookkeeping, without a file or a clock.

mod choice;
mod content;
mod names;

pub(crate) use choice::{Choice, next};
pub(crate) use content::{Content, Reversal, SECTOR};
pub(crate) use names::{Listing, Names, NodeId, ROOT};
