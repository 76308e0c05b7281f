//! Raft groups over the shared log: the only user of openraft.
