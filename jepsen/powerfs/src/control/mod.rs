//! The control socket: one JSON object per line, a reply to each.

mod client;
mod protocol;
mod server;

pub use client::{Control, ControlError};
pub use protocol::{
    Fault, FaultId, FaultKind, FaultStatus, Flipped, Loss, LossReport, Place, Request, Response,
    Stats,
};
pub(crate) use server::{Ending, Server};
