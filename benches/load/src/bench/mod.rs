//! A workload driven through a cluster: producers and consumers are processes of their own, and
//! what they, the brokers and the disk did is counted.
//!
//! `workload` says what to do, `coordinate` starts workers and keeps the phases, `worker` is what
//! such a process runs over a `backend`, `collect` puts their seconds together, `result` and
//! `report` say what came out, `plot` draws it.

pub mod backend;
mod calibrate;
mod cli;
mod collect;
mod consume;
mod coordinate;
pub mod highwater;
mod histogram;
mod keys;
mod meter;
mod payload;
mod plans;
mod plot;
pub mod procfs;
mod produce;
pub mod profiles;
mod report;
mod result;
pub mod worker;
pub mod workload;

pub use calibrate::{Calibration, calibrate};
pub use cli::{Bench, run};
pub use coordinate::{Subject, measure};
pub use result::{Costs, Outcome};
