//! The write-ahead log against a model: on a simulated disk that loses power, fails and rots, and
//! on a real one.

mod basics;
mod crash;
mod damage;
mod errors;
mod full;
mod golden;
mod model;
#[cfg(feature = "mutant")]
mod mutants;
mod random;
mod renew;
mod rotten;
mod support;
