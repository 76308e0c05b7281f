//! Rules that hold between keys: each broken one is one line that says what to do.

use highwater_metadata::MOST_SHARDS_PER_BROKER;
use highwater_proto::ByteSize;

use super::value::{Millis, Setting};
use super::{Config, ConfigError};

/// The largest record batch that any configuration may allow.
const MAX_BATCH: ByteSize = ByteSize(64 << 20);
/// The smallest log file: the largest entry and its frame must fit with room to spare.
const MIN_WAL_FILE: ByteSize = ByteSize(1 << 20);
const MAX_WAL_FILE: ByteSize = ByteSize(1 << 30);
/// Log files that the budget must hold: one being written, one spare, and something to keep.
const MIN_WAL_FILES: u64 = 4;
/// Descriptors that the broker needs for partition files in any case.
const MIN_OPEN_FILES: u32 = 16;
/// A group must outlive a restart of its members.
const SHORTEST_RETENTION: Millis = Millis(1_000);
const MAX_PARTITIONS: u32 = 100_000;

/// Checks every rule in the order of the reference and returns the first broken one.
pub(super) fn validate(config: &Config) -> Result<(), ConfigError> {
    node(config)?;
    wal(config)?;
    raft(config)?;
    limits(config)?;
    scrub(config)?;
    compaction(config)?;
    let retention = &config.groups.retention_ms;
    at_least("groups.retention_ms", retention, &SHORTEST_RETENTION)?;
    defaults(config)
}

fn refuse<T>(key: &'static str, problem: String, cure: &str) -> Result<T, ConfigError> {
    Err(ConfigError::Invalid {
        key,
        problem,
        cure: cure.to_owned(),
    })
}

fn at_least<T: Setting + PartialOrd>(
    key: &'static str,
    value: &T,
    least: &T,
) -> Result<(), ConfigError> {
    if value < least {
        return refuse(
            key,
            format!("is {}, which is too little", value.show()),
            &format!("give it at least {}", least.show()),
        );
    }
    Ok(())
}

fn at_most<T: Setting + PartialOrd>(
    key: &'static str,
    value: &T,
    most: &T,
) -> Result<(), ConfigError> {
    if value > most {
        return refuse(
            key,
            format!("is {}, which is too much", value.show()),
            &format!("give it at most {}", most.show()),
        );
    }
    Ok(())
}

fn node(config: &Config) -> Result<(), ConfigError> {
    let node = &config.node;
    if node.id.0 == 0 {
        return refuse(
            "node.id",
            "is not set".to_owned(),
            "give this broker its own number with --node-id, HIGHWATER_NODE_ID or `id` under \
             [node]",
        );
    }
    at_most(
        "node.shards_per_broker",
        &node.shards_per_broker,
        &MOST_SHARDS_PER_BROKER,
    )?;
    let mut addresses = node.join.clone();
    addresses.sort();
    if let Some(pair) = addresses.windows(2).find(|pair| pair[0] == pair[1]) {
        return refuse(
            "node.join",
            format!("names {} twice", pair[0].as_str()),
            "name each broker once",
        );
    }
    let grpc = config.listen.grpc;
    if !node.join.is_empty() && grpc.ip().is_unspecified() && node.advertised_address.is_none() {
        return refuse(
            "node.advertised_address",
            format!("is not set, and other brokers cannot reach {grpc}"),
            "set it to this broker's own entry in node.join",
        );
    }
    if grpc == config.listen.admin && grpc.port() != 0 {
        return refuse(
            "listen.admin",
            format!("is {grpc}, which is also listen.grpc"),
            "give each its own port",
        );
    }
    Ok(())
}

fn wal(config: &Config) -> Result<(), ConfigError> {
    let wal = &config.wal;
    at_least("wal.file_bytes", &wal.file_bytes, &MIN_WAL_FILE)?;
    at_most("wal.file_bytes", &wal.file_bytes, &MAX_WAL_FILE)?;
    let least = ByteSize(wal.file_bytes.0.saturating_mul(MIN_WAL_FILES));
    at_least("wal.budget_bytes", &wal.budget_bytes, &least)?;
    let storage = &config.storage;
    at_least(
        "storage.checkpoint_interval_ms",
        &storage.checkpoint_interval_ms,
        &Millis(100),
    )?;
    at_least(
        "storage.checkpoint_bytes",
        &storage.checkpoint_bytes,
        &ByteSize(64 << 10),
    )?;
    at_least(
        "storage.max_open_files",
        &storage.max_open_files,
        &MIN_OPEN_FILES,
    )
}

fn raft(config: &Config) -> Result<(), ConfigError> {
    let raft = &config.raft;
    at_least("raft.heartbeat_ms", &raft.heartbeat_ms, &Millis(1))?;
    // A follower must be able to miss one heartbeat without an election.
    let least = Millis(raft.heartbeat_ms.0.saturating_mul(2).saturating_add(1));
    at_least("raft.election_min_ms", &raft.election_min_ms, &least)?;
    // Without a range, followers stand at the same moment and split the vote.
    let least = Millis(raft.election_min_ms.0.saturating_add(1));
    at_least("raft.election_max_ms", &raft.election_max_ms, &least)
}

fn limits(config: &Config) -> Result<(), ConfigError> {
    let limits = &config.limits;
    let batch = &config.defaults.max_message_bytes;
    at_least("limits.admission_bytes", &limits.admission_bytes, batch)?;
    at_least("limits.max_connections", &limits.max_connections, &1)
}

/// Passes without a pause would be a broker that does nothing else.
fn scrub(config: &Config) -> Result<(), ConfigError> {
    let (scrub, second) = (&config.scrub, Millis(1_000));
    at_least("scrub.interval_ms", &scrub.interval_ms, &second)?;
    if scrub.compare_interval_ms != Millis(0) {
        let every = &scrub.compare_interval_ms;
        at_least("scrub.compare_interval_ms", every, &second)?;
    }
    at_least("repair.after_ms", &config.repair.after_ms, &second)
}

fn compaction(config: &Config) -> Result<(), ConfigError> {
    let compaction = &config.compaction;
    let (buffer, interval) = (&compaction.dedupe_buffer_bytes, &compaction.interval_ms);
    at_least("compaction.dedupe_buffer_bytes", buffer, &ByteSize(1 << 20))?;
    at_least("compaction.interval_ms", interval, &Millis(100))
}

fn defaults(config: &Config) -> Result<(), ConfigError> {
    let defaults = &config.defaults;
    at_least("defaults.partitions", &defaults.partitions, &1)?;
    at_most("defaults.partitions", &defaults.partitions, &MAX_PARTITIONS)?;
    if ![1, 3, 5].contains(&defaults.replication_factor) {
        return refuse(
            "defaults.replication_factor",
            format!("is {}", defaults.replication_factor),
            "use 1, 3 or 5",
        );
    }
    at_least(
        "defaults.max_message_bytes",
        &defaults.max_message_bytes,
        &ByteSize(1 << 10),
    )?;
    at_most(
        "defaults.max_message_bytes",
        &defaults.max_message_bytes,
        &MAX_BATCH,
    )
}
