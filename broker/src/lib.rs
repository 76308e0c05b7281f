//! The Highwater server and its one binary.

pub mod cli;
pub mod config;
pub mod control;
pub mod front;
pub mod gate;
pub mod groups;
pub mod node;
pub mod observe;
pub mod process;
pub mod router;
pub mod runtime;
pub mod upkeep;
