//! The Rust client: producer, consumer, admin, and the command line built on them.
