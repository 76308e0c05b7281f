//! Real clusters of real broker processes: how they form, what they refuse, what they promise, and
//! what is left when brokers die.
//!
//! Clusters run one after the other, so that a machine with two cores is enough. Every message that
//! a person may get to read is printed on the way: `cargo test -- --nocapture` shows them all.

#[path = "clusters/admission.rs"]
mod admission;
#[path = "clusters/catching_up.rs"]
mod catching_up;
#[path = "clusters/cli_life.rs"]
mod cli_life;
#[path = "clusters/clocks.rs"]
mod clocks;
#[path = "clusters/commands.rs"]
mod commands;
#[path = "clusters/compaction.rs"]
mod compaction;
#[path = "clusters/damage.rs"]
mod damage;
#[path = "clusters/failover.rs"]
mod failover;
#[path = "clusters/fleet.rs"]
mod fleet;
#[path = "clusters/formation.rs"]
mod formation;
#[path = "clusters/full_disk.rs"]
mod full_disk;
#[path = "clusters/group_sdk_letters.rs"]
mod group_sdk_letters;
#[path = "clusters/group_sdk_members.rs"]
mod group_sdk_members;
#[path = "clusters/group_sdk_outages.rs"]
mod group_sdk_outages;
#[path = "clusters/groups.rs"]
mod groups;
#[path = "clusters/growing.rs"]
mod growing;
#[path = "clusters/journal.rs"]
mod journal;
#[path = "clusters/lagging.rs"]
mod lagging;
#[path = "clusters/life.rs"]
mod life;
#[path = "clusters/losing.rs"]
mod losing;
#[path = "clusters/many.rs"]
mod many;
#[path = "clusters/members.rs"]
mod members;
#[path = "clusters/moving.rs"]
mod moving;
#[path = "clusters/moving_compacted.rs"]
mod moving_compacted;
#[path = "clusters/moving_late.rs"]
mod moving_late;
#[path = "clusters/paused.rs"]
mod paused;
#[path = "clusters/racks.rs"]
mod racks;
#[path = "clusters/raw.rs"]
mod raw;
#[path = "clusters/reading.rs"]
mod reading;
#[path = "clusters/refusals.rs"]
mod refusals;
#[path = "clusters/replacing.rs"]
mod replacing;
#[path = "clusters/rolling.rs"]
mod rolling;
#[path = "clusters/rot.rs"]
mod rot;
#[path = "clusters/rot_log.rs"]
mod rot_log;
#[path = "clusters/thin_door.rs"]
mod thin_door;
#[path = "clusters/topics.rs"]
mod topics;
#[path = "clusters/verdicts.rs"]
mod verdicts;
#[path = "clusters/wal_file.rs"]
mod wal_file;
