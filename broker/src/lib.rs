//! The Highwater server and its one binary.

pub mod config;
pub mod observe;
pub mod process;
