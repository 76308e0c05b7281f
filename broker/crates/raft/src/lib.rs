//! Raft groups over the shared log: the only user of openraft.
//!
//! A broker has one [`Groups`]; it starts a [`Group`] per replica it hosts, around a
//! [`StateMachine`]. Entries go through one write-ahead log for all groups and one pair of lanes
//! per peer. openraft decides; this crate stores, carries and applies.

mod adapter;
mod append_stream;
mod beat;
mod cache;
mod checkpoint;
mod coalesced;
mod codec;
mod completions;
mod config;
mod entry;
mod error;
mod everywhere;
mod group;
mod groups;
mod inbound;
mod journal;
mod lane;
mod liveness;
mod machine;
mod messages;
mod network;
mod propose;
mod reader;
mod registry;
mod replica;
mod reshape;
mod rotten;
mod runtime;
mod silence;
mod status;
mod store;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod toy;
mod types;

pub use config::{Admission, Caller, GroupsConfig, Identity, Peers, Timings};
pub use error::{
    CheckpointError, MembershipError, ProposeError, PurgeError, ReadError, RecoveryError,
    StartError, TransferError,
};
pub use group::Group;
pub use groups::Groups;
pub use lane::service::RaftService;
pub use machine::{Frozen, Position, StateMachine, StoredCheckpoint};
pub use replica::VoteFloor;
pub use reshape::{Goal, NextChange};
pub use rotten::last_covered;
pub use runtime::fix_randomness;
pub use status::{GroupStatus, Role};
