"I
orders"'
message.timestamp.typeLogAppendTime"
retention.ms-1