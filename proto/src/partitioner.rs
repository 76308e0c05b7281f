//! Which partition a key belongs to: what Kafka's default partitioner answers, so that clients of
//! both protocols agree.

use crate::PartitionId;

/// The 32-bit MurmurHash 2 (Austin Appleby, public domain) with the seed that Kafka's clients use.
/// Their result is signed; this is the same 32 bits.
#[must_use]
pub fn murmur2(key: &[u8]) -> u32 {
    const SEED: u32 = 0x9747_b28c;
    const M: u32 = 0x5bd1_e995;
    const R: u32 = 24;
    // Keys beyond 4 GiB do not exist: a record is shorter.
    let mut hash = SEED ^ key.len() as u32;
    let (words, tail) = key.as_chunks::<4>();
    for word in words {
        let mixed = u32::from_le_bytes(*word).wrapping_mul(M);
        let mixed = (mixed ^ (mixed >> R)).wrapping_mul(M);
        hash = hash.wrapping_mul(M) ^ mixed;
    }
    if !tail.is_empty() {
        let last = tail
            .iter()
            .rev()
            .fold(0u32, |last, &byte| last << 8 | u32::from(byte));
        hash = (hash ^ last).wrapping_mul(M);
    }
    hash = (hash ^ (hash >> 13)).wrapping_mul(M);
    hash ^ (hash >> 15)
}

/// The partition of a record with this key. A topic has at least one partition: zero counts as
/// one.
#[must_use]
pub fn partition_for_key(key: &[u8], partitions: u32) -> PartitionId {
    // The sign bit is cleared, not the value negated, as in the Java client.
    let positive = murmur2(key) & 0x7fff_ffff;
    PartitionId(positive % partitions.max(1))
}

#[cfg(test)]
#[path = "partitioner_tests.rs"]
mod tests;
