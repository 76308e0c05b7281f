//! Chaos harness: real broker processes, faults on purpose, a history of what clients saw, and a
//! verdict over it.
//!
//! A run starts brokers (each in a network namespace, each on a file system that can lose power),
//! lets clients write and read while a seeded schedule breaks things, heals, reads everything back
//! from every replica, and hands the history to [`highwater_checker`]. Every fault brings a proof
//! that it was active; without one the verdict is "unknown".
//!
//! The broker is only known as a program and through its client.

mod bounds;
pub mod cli;
pub mod cluster;
pub mod history;
pub mod kind;
pub mod leaders;
pub mod means;
pub mod mutants;
pub mod nemesis;
pub mod recovery;
pub mod run;
pub mod schedule;
pub mod settings;
pub mod soak;
pub mod timeline;
pub mod verdict;
pub mod workload;
