//! Checkpoints: one durable file per shard that names everything needed to go on without the log
//! before it.
//!
//! Order, each step durable before the next: state and file lengths frozen at one applied entry;
//! the log durable past it (the raft crate waits for that); the segments and their directories
//! synced; the manifest replaced. Only then are files unlinked that no durable manifest names.
