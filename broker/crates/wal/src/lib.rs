//! One write-ahead log per broker, shared by all its shards.
