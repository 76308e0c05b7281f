//! A FUSE file system that knows what is durable, and loses the rest on command.
//!
//! It is a disk for testing what a program does before it says "done": file content is durable
//! after a sync of the file, names are durable after a sync of their directory, and nothing else
//! makes anything durable. A power loss takes back exactly what was not synced.

mod control;
mod durable;
mod fs;
mod mount;
mod table;

pub use control::{
    Control, ControlError, Fault, FaultId, FaultKind, FaultStatus, Flipped, Loss, LossReport,
    Place, Request, Response, Stats,
};
pub use mount::{MountError, Mounted, Options, mount, release_stale, serve};
