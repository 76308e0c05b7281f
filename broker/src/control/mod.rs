//! Control: the cluster image, who leads and who lives, and what is done about it.

pub mod checkpointer;
pub mod clocks;
pub mod cluster;
pub mod compaction;
pub mod controller;
pub mod diagnosis;
mod founding;
pub mod heartbeat;
pub mod host;
pub mod leaving;
pub mod machine;
pub mod members;
pub mod moves;
pub mod peers;
pub mod plans;
pub mod producer_ids;
pub mod proposer;
pub mod repairs;
pub mod reports;
pub mod restart;
pub mod retention;
pub mod storage;
mod strays;
pub mod topics;
pub mod transfer;
