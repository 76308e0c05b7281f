//! Consumer groups: who is a member, who holds which partition, what is committed and parked.
//!
//! All of it is decided in apply. The broker that leads the shard (the group's coordinator) only
//! proposes: that a member is to be expelled, or who should have which partition. A partition is
//! held by one member at a time: it is granted when nobody holds it, and given up when its holder
//! says so or is removed. Until then its holder, and nobody else, may commit its offsets.

pub mod assignor;
mod limits;
mod member;
mod membership;
mod offsets;
mod parked;
pub(crate) mod reply;
pub(crate) mod snapshot;
mod state;
pub(crate) mod table;

#[cfg(test)]
mod model_tests;
#[cfg(test)]
mod offset_tests;
#[cfg(test)]
mod tests;

pub use limits::{
    MAX_KEY_BYTES, MAX_MEMBERS, MAX_METADATA_BYTES, MAX_OFFSETS, MAX_PARKED_BYTES, MAX_PARKED_KEYS,
    MAX_SPEC_BYTES,
};
pub use member::{Holding, Member};
pub use offsets::Committed;
pub use parked::{Parked, ParkedKeys};
pub use reply::{GroupOutcome, GroupRefusal, ItemOutcome};
pub use state::{Group, GroupPhase};
