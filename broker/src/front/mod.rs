//! The gRPC doors. Wire types enter and leave here and go no further.

pub mod admin;
mod convert;
mod credit;
mod describe;
pub mod egress;
mod fetch;
pub mod groups;
pub mod ingress;
mod keyed;
pub mod lifecycle;
mod list_offsets;
pub mod log;
pub mod members;
pub mod metadata;
pub mod peer;
mod produce;
pub mod records;
mod subscription;
pub mod topics;
mod view;

/// Responses waiting for a slow reader of a stream.
const RESPONSES_IN_FLIGHT: usize = 64;
