//! The relay's state, and which rows become which batch. Pure.

use std::collections::{BTreeMap, BTreeSet};

use highwater_proto::partition_for_key;
use serde::{Deserialize, Serialize};

use super::OutboxRow;

/// A producer id and epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The id.
    pub id: u64,
    /// Its epoch.
    pub epoch: u16,
}

/// What the relay knows of one partition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartitionState {
    /// The topic's id.
    pub topic_id: u64,
    /// The partition.
    pub partition: u32,
    /// The sequence number of the next batch.
    pub sequence: u32,
    /// No later batch of this relay lies below this offset.
    pub from: u64,
}

/// Rows that form one batch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// The topic's name.
    pub topic: String,
    /// Its id.
    pub topic_id: u64,
    /// The partition.
    pub partition: u32,
    /// The sequence number of the first row.
    pub sequence: u32,
    /// If the batch is stored, it lies at or after this offset.
    pub from: u64,
    /// The rows, in order.
    pub rows: Vec<u64>,
}

/// What the store keeps for the relay: one small document, as JSON or however it likes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RelayState {
    /// Raised with every save.
    pub revision: u64,
    /// Under which batches are numbered.
    pub identity: Option<Identity>,
    /// Partitions that the relay has written to.
    pub partitions: Vec<PartitionState>,
    /// Batches that may or may not be stored.
    pub claims: Vec<Claim>,
}

/// Sequence numbers wrap from `i32::MAX` to 0.
const SEQUENCES: u32 = 1 << 31;

/// A topic as planning needs it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Target {
    pub topic_id: u64,
    pub partitions: u32,
    /// The largest batch in bytes.
    pub limit: usize,
}

/// A row that no batch can hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TooLarge {
    pub row: u64,
    pub bytes: usize,
    pub limit: usize,
}

/// Bytes of a batch beside its records, and of the header that names the row.
const BATCH_BYTES: usize = 61;
const HEADER_BYTES: usize = 128;

impl RelayState {
    pub(super) fn partition(&mut self, topic_id: u64, partition: u32) -> &mut PartitionState {
        let known = self
            .partitions
            .iter()
            .position(|p| p.topic_id == topic_id && p.partition == partition);
        let at = known.unwrap_or(self.partitions.len());
        if known.is_none() {
            self.partitions.push(PartitionState {
                topic_id,
                partition,
                sequence: 0,
                from: 0,
            });
        }
        // It is there: found, or pushed.
        #[allow(clippy::indexing_slicing)]
        &mut self.partitions[at]
    }

    /// The partitions that were written to, with their topics' ids.
    pub(super) fn places(&self) -> impl Iterator<Item = (u64, u32)> {
        self.partitions.iter().map(|p| (p.topic_id, p.partition))
    }

    /// Claims the oldest rows of each partition, one batch each, in their order. Rows that do not
    /// fit wait for the next time.
    pub(super) fn claim(
        &mut self,
        rows: &[OutboxRow],
        targets: &BTreeMap<String, Target>,
    ) -> Result<(), TooLarge> {
        let mut open: BTreeMap<(u64, u32), (usize, usize)> = BTreeMap::new();
        let mut full = BTreeSet::new();
        for row in rows {
            let Some(target) = targets.get(&row.record.topic) else {
                continue;
            };
            let partition = partition_of(row, target.partitions);
            let place = (target.topic_id, partition);
            let bytes = row.record.size_bytes() + HEADER_BYTES;
            if bytes + BATCH_BYTES > target.limit {
                return Err(TooLarge {
                    row: row.id,
                    bytes,
                    limit: target.limit,
                });
            }
            if full.contains(&place) {
                continue;
            }
            if let Some((at, held)) = open.get_mut(&place) {
                if *held + bytes > target.limit {
                    full.insert(place);
                } else if let Some(claim) = self.claims.get_mut(*at) {
                    *held += bytes;
                    claim.rows.push(row.id);
                }
                continue;
            }
            let known = self.partition(target.topic_id, partition).clone();
            open.insert(place, (self.claims.len(), BATCH_BYTES + bytes));
            self.claims.push(Claim {
                topic: row.record.topic.clone(),
                topic_id: target.topic_id,
                partition,
                sequence: known.sequence,
                from: known.from,
                rows: vec![row.id],
            });
        }
        Ok(())
    }

    /// The claim is stored, up to `next` (absent: somewhere).
    pub(super) fn settle(&mut self, claim: &Claim, next: Option<u64>) {
        let records = u32::try_from(claim.rows.len()).unwrap_or(u32::MAX);
        let partition = self.partition(claim.topic_id, claim.partition);
        partition.sequence = claim.sequence.wrapping_add(records) % SEQUENCES;
        partition.from = partition.from.max(next.unwrap_or(claim.from));
        self.claims.retain(|open| open != claim);
    }

    /// Numbers everything anew under another id: what is claimed was certainly not stored.
    pub(super) fn renumber(&mut self, identity: Identity) {
        self.identity = Some(identity);
        for partition in &mut self.partitions {
            partition.sequence = 0;
        }
        for claim in &mut self.claims {
            claim.sequence = 0;
        }
    }
}

/// The row's partition: as it says, by key, or spread by number.
fn partition_of(row: &OutboxRow, partitions: u32) -> u32 {
    match (row.record.partition, &row.record.key) {
        (Some(partition), _) => partition.0,
        (None, Some(key)) => partition_for_key(key, partitions).0,
        (None, None) => u32::try_from(row.id % u64::from(partitions.max(1))).unwrap_or(0),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::record::ProducerRecord;

    fn targets() -> BTreeMap<String, Target> {
        let target = Target {
            topic_id: 7,
            partitions: 3,
            limit: 2_000,
        };
        BTreeMap::from([("t".to_owned(), target)])
    }

    fn row(id: u64, key: u8, bytes: usize) -> OutboxRow {
        OutboxRow {
            id,
            record: ProducerRecord::to("t").key(vec![key]).value(vec![0; bytes]),
        }
    }

    proptest! {
        /// Claimed round by round, every row is claimed once, rows of a partition in their order,
        /// each batch within the limit, under numbers without gap or overlap.
        #[test]
        fn claims_cover_the_rows(sizes in proptest::collection::vec((any::<u8>(), 0_usize..1_500), 0..60)) {
            let all: Vec<_> = (0..).zip(&sizes).map(|(id, (key, size))| row(id, *key, *size)).collect();
            let mut state = RelayState::default();
            let mut pending = all.clone();
            let mut published: BTreeMap<u32, Vec<u64>> = BTreeMap::new();
            while !pending.is_empty() {
                state.claim(&pending, &targets()).unwrap();
                prop_assert!(!state.claims.is_empty(), "no progress");
                for claim in state.claims.clone() {
                    let of = published.entry(claim.partition).or_default();
                    prop_assert_eq!(claim.sequence as usize, of.len());
                    let bytes: usize = pending.iter()
                        .filter(|row| claim.rows.contains(&row.id))
                        .map(|row| row.record.size_bytes())
                        .sum();
                    prop_assert!(bytes <= 2_000);
                    of.extend(&claim.rows);
                    pending.retain(|row| !claim.rows.contains(&row.id));
                    state.settle(&claim, None);
                }
                prop_assert!(state.claims.is_empty());
            }
            let total: usize = published.values().map(Vec::len).sum();
            prop_assert_eq!(total, all.len());
            for rows in published.values() {
                prop_assert!(rows.is_sorted());
            }
        }
    }

    #[test]
    fn a_row_that_fits_no_batch_is_named_and_the_state_is_plain_json() {
        let mut state = RelayState::default();
        let refused = state.claim(&[row(1, 1, 10), row(2, 1, 3_000)], &targets());
        assert_eq!(refused.unwrap_err().row, 2);
        state.identity = Some(Identity { id: 4, epoch: 2 });
        state.renumber(Identity { id: 5, epoch: 0 });
        let text = serde_json::to_string(&state).unwrap();
        assert_eq!(serde_json::from_str::<RelayState>(&text).unwrap(), state);
        assert!(
            text.contains("\"rows\":[1]") && text.contains("\"id\":5"),
            "{text}"
        );
    }
}
