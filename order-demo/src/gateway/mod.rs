//! The gateway: the HTTP door of the pipeline. An order that got a 202 is on the disk, together
//! with the message that will carry it on.

pub mod door;
pub mod event;
pub mod limit;
pub mod statuses;
