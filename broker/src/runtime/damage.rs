//! What of this broker's replicas is not as it was written. What is noted stays until it is whole
//! again or the replica is gone: rot does not heal, and a restart heals nothing (`damage_file.rs`).

use std::collections::BTreeMap;

use highwater_proto::{Offset, ShardId, TopicPartition};
use highwater_segment::ReadError;
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::damage_file::Noted;

/// A segment, by partition and base offset.
pub type Place = (TopicPartition, Offset);

/// A bad range.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Bad {
    /// What is wrong, and where.
    what: String,
    /// What is being done about it.
    doing: String,
    /// Noted before this process was started, and not read since: it may have been put back.
    unread: bool,
}

/// What is bad in one shard.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct OfShard {
    ranges: BTreeMap<Place, Bad>,
    /// An entry of the log that cannot be read.
    log: Option<String>,
}

/// All that is bad, by shard.
#[derive(Debug, Default)]
pub struct DamageNotes {
    shards: Mutex<BTreeMap<ShardId, OfShard>>,
    /// How often something bad was found in the files of the log, and how much of that is over.
    log: Mutex<(u64, u64)>,
    changed: Notify,
}

impl DamageNotes {
    /// With what an earlier process noted.
    #[must_use]
    pub fn restored(noted: Vec<Noted>) -> Self {
        let notes = Self::default();
        let mut shards = notes.shards.lock();
        for Noted { shard, place, what } in noted {
            tracing::warn!(
                shard = shard.0, partition = %place.0, segment = %place.1, what,
                "a stored range was bad before the restart: this replica does not vote before it is \
                 whole"
            );
            let bad = Bad {
                what,
                doing: String::new(),
                unread: true,
            };
            let ranges = &mut shards.entry(shard).or_default().ranges;
            ranges.insert(place, bad);
        }
        drop(shards);
        notes
    }
    /// What the next process has to know.
    #[must_use]
    pub fn to_keep(&self) -> Vec<Noted> {
        let shards = self.shards.lock();
        let of = |(shard, of): (&ShardId, &OfShard)| {
            let shard = *shard;
            let noted = |(place, bad): (&Place, &Bad)| Noted {
                shard,
                place: *place,
                what: bad.what.clone(),
            };
            of.ranges.iter().map(noted).collect::<Vec<_>>()
        };
        shards.iter().flat_map(of).collect()
    }
    /// Whether a range was noted by an earlier process and has not been read since.
    #[must_use]
    pub fn is_unread(&self, shard: ShardId, place: Place) -> bool {
        let shards = self.shards.lock();
        let bad = shards.get(&shard).and_then(|of| of.ranges.get(&place));
        bad.is_some_and(|bad| bad.unread)
    }
    /// A range that an earlier process noted is bad indeed.
    pub fn confirm(&self, shard: ShardId, place: Place) {
        let mut shards = self.shards.lock();
        let bad = shards
            .get_mut(&shard)
            .and_then(|of| of.ranges.get_mut(&place));
        if let Some(bad) = bad {
            bad.unread = false;
        }
    }
    /// Takes note of a failed read, if it says that a stored range is bad or missing.
    pub fn note(&self, shard: ShardId, cause: &ReadError) {
        let Some(place) = cause.bad_segment() else {
            return;
        };
        metrics::counter!("highwater_damaged_reads_total").increment(1);
        let mut shards = self.shards.lock();
        let ranges = &mut shards.entry(shard).or_default().ranges;
        ranges.entry(place).or_insert_with(|| {
            tracing::error!(
                shard = shard.0, partition = %place.0, segment = %place.1, error = %cause,
                "a stored range is bad: nothing of it is served, and this replica does not vote \
                 before it is whole; it is fetched again from the others, unless repair.automatic \
                 is off"
            );
            Bad {
                what: cause.to_string(),
                doing: String::new(),
                unread: false,
            }
        });
        drop(shards);
        self.changed.notify_waiters();
    }
    /// Takes note of an entry of the log that cannot be read.
    pub fn note_log(&self, shard: ShardId, what: String) {
        self.shards.lock().entry(shard).or_default().log = Some(what);
        self.renew_log();
    }
    /// Something in the files of the log is bad: they are to be written anew.
    pub fn renew_log(&self) {
        self.log.lock().0 += 1;
        self.changed.notify_waiters();
    }
    /// Whether the log is to be written anew; the answer is for [`Self::log_renewed`].
    #[must_use]
    pub fn log_to_renew(&self) -> Option<u64> {
        let (found, over) = *self.log.lock();
        (found > over).then_some(found)
    }
    /// The log was written anew since [`Self::log_to_renew`] said `found`.
    pub fn log_renewed(&self, found: u64) {
        let mut log = self.log.lock();
        log.1 = found;
        if log.0 > found {
            return;
        }
        let mut shards = self.shards.lock();
        shards.values_mut().for_each(|of| of.log = None);
        shards.retain(|_, of| *of != OfShard::default());
        drop((shards, log));
        self.changed.notify_waiters();
    }
    /// Says what is being done about a range.
    pub fn doing(&self, shard: ShardId, place: Place, words: &str) {
        let mut shards = self.shards.lock();
        let bad = shards
            .get_mut(&shard)
            .and_then(|of| of.ranges.get_mut(&place));
        if let Some(bad) = bad {
            words.clone_into(&mut bad.doing);
        }
    }
    /// A range is whole again, or gone.
    pub fn clear(&self, shard: ShardId, place: Place) {
        let mut shards = self.shards.lock();
        if let Some(of) = shards.get_mut(&shard) {
            of.ranges.remove(&place);
        }
        shards.retain(|_, of| *of != OfShard::default());
        drop(shards);
        self.changed.notify_waiters();
    }
    /// What is bad in a shard, and what is done about it, in words.
    #[must_use]
    pub fn of(&self, shard: ShardId) -> Option<String> {
        let shards = self.shards.lock();
        let of = shards.get(&shard)?;
        let mut words: Vec<String> = of.log.iter().cloned().collect();
        words.extend(of.ranges.values().map(|bad| match bad.doing.as_str() {
            "" => bad.what.clone(),
            doing => format!("{} ({doing})", bad.what),
        }));
        let more = words.len().saturating_sub(1);
        let first = words.into_iter().next()?;
        Some(match more {
            0 => first,
            more => format!("{first}; and {more} more"),
        })
    }
    /// Whether anything of a shard is bad.
    #[must_use]
    pub fn is_bad(&self, shard: ShardId) -> bool {
        self.shards.lock().contains_key(&shard)
    }
    /// Whether a range of a partition is noted.
    #[must_use]
    pub fn touches(&self, shard: ShardId, tp: TopicPartition) -> bool {
        let shards = self.shards.lock();
        let of = shards.get(&shard);
        of.is_some_and(|of| of.ranges.keys().any(|place| place.0 == tp))
    }
    /// Whether a range is noted.
    #[must_use]
    pub fn is_noted(&self, shard: ShardId, place: Place) -> bool {
        let shards = self.shards.lock();
        shards
            .get(&shard)
            .is_some_and(|of| of.ranges.contains_key(&place))
    }
    /// All bad ranges.
    #[must_use]
    pub fn ranges(&self) -> Vec<(ShardId, Place)> {
        let shards = self.shards.lock();
        let ranges = |(shard, of): (&ShardId, &OfShard)| {
            let shard = *shard;
            let places: Vec<Place> = of.ranges.keys().copied().collect();
            places.into_iter().map(move |place| (shard, place))
        };
        shards.iter().flat_map(ranges).collect()
    }
    /// Waits for the next note or its end. Call, then look, then await. Cancellation-safe.
    pub fn changed(&self) -> tokio::sync::futures::Notified<'_> {
        self.changed.notified()
    }
    /// The replica is gone, or is filled anew.
    pub fn forget(&self, shard: ShardId) {
        self.shards.lock().remove(&shard);
        self.changed.notify_waiters();
    }
}

#[cfg(test)]
#[path = "damage_tests.rs"]
mod tests;
