//! Keeping what is stored as it was written: looking for rot, fetching again what rotted, comparing
//! the replicas. All of it in the background, paced, and none of it on the way of an acknowledgement.

mod adopt;
pub mod compact;
pub mod compare;
pub mod log;
pub mod mend;
mod notes;
pub mod pace;
pub mod scrub;
