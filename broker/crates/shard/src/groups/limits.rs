//! Bounds of a group. They are rules of apply: changing one takes a new feature level.

/// Members of one group.
pub const MAX_MEMBERS: usize = 2_000;
/// Groups of one shard.
pub(super) const MAX_GROUPS: usize = 10_000;
/// Partitions with a committed offset, of one group.
pub const MAX_OFFSETS: usize = 100_000;
/// Text beside a committed offset, in bytes.
pub const MAX_METADATA_BYTES: usize = 4_096;
/// What a member says of itself, all strings together, in bytes.
pub const MAX_SPEC_BYTES: usize = 64 << 10;
/// A group's name and a member's id, in bytes.
pub(super) const MAX_NAME_BYTES: usize = 249;
/// Parked keys of one group.
pub const MAX_PARKED_KEYS: usize = 10_000;
/// Bytes of the parked keys of one group.
pub const MAX_PARKED_BYTES: usize = 4 << 20;
/// One parked key, in bytes.
pub const MAX_KEY_BYTES: usize = 64 << 10;
/// A group that has nothing to remember goes after this long without members, in milliseconds of
/// the shard's clock.
pub(super) const BARE_RETENTION_MS: u64 = 600_000;
