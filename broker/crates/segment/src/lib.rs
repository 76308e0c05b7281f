//! Partition segment files: batches, sparse indexes, lookups, recovery from a manifest.
