//! Which shards of this broker have a range that cannot be read. What is noted stays until the
//! replica is filled anew: rot does not heal.

use std::collections::BTreeMap;

use highwater_proto::ShardId;
use highwater_segment::ReadError;
use parking_lot::Mutex;

/// The first bad range found in each shard, in words.
#[derive(Debug, Default)]
pub struct DamageNotes(Mutex<BTreeMap<ShardId, String>>);

impl DamageNotes {
    /// Takes note of a failed read, if it says that a stored range is bad or missing.
    pub fn note(&self, shard: ShardId, cause: &ReadError) {
        let bad = matches!(cause, ReadError::Damaged(_) | ReadError::File(_));
        if !bad {
            return;
        }
        metrics::counter!("highwater_damaged_reads_total").increment(1);
        let mut notes = self.0.lock();
        notes.entry(shard).or_insert_with(|| {
            tracing::error!(shard = shard.0, error = %cause, "a stored range is bad");
            cause.to_string()
        });
    }
    /// What is bad in a shard.
    #[must_use]
    pub fn of(&self, shard: ShardId) -> Option<String> {
        self.0.lock().get(&shard).cloned()
    }
    /// The replica is gone, or is filled anew.
    pub fn forget(&self, shard: ShardId) {
        self.0.lock().remove(&shard);
    }
}
