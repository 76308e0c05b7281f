//! Kafka RecordBatch v2: header view, validation, builder, iterator.
