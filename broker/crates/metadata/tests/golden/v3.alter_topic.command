ú(
retention.ms60000segment.bytes