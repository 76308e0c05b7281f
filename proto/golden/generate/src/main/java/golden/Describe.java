// What Kafka reads in a batch, as JSON. Bytes are hexadecimal; null is null.
package golden;

import java.nio.ByteBuffer;
import java.util.HexFormat;
import java.util.zip.CRC32C;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.record.DefaultRecordBatch;
import org.apache.kafka.common.record.MemoryRecords;
import org.apache.kafka.common.record.MutableRecordBatch;
import org.apache.kafka.common.record.Record;
import org.apache.kafka.common.record.TimestampType;
import org.apache.kafka.common.utils.BufferSupplier;
import org.apache.kafka.common.utils.Utils;

final class Describe {
    /** Batches of more records are described by a checksum over all keys and values. */
    private static final int LISTED = 100;

    static String batch(byte[] bytes) {
        var batches = MemoryRecords.readableRecords(ByteBuffer.wrap(bytes)).batches().iterator();
        MutableRecordBatch batch = batches.next();
        if (batches.hasNext() || batch.sizeInBytes() != bytes.length) {
            throw new IllegalStateException("not exactly one batch");
        }
        batch.ensureValid();
        int count = batch.countOrNull();
        StringBuilder out = new StringBuilder("{\n");
        field(out, "base_offset", batch.baseOffset());
        field(out, "last_offset", batch.lastOffset());
        field(out, "leader_epoch", batch.partitionLeaderEpoch());
        field(out, "crc", batch.checksum());
        field(out, "compression", '"' + batch.compressionType().name + '"');
        field(out, "log_append_time", batch.timestampType() == TimestampType.LOG_APPEND_TIME);
        field(out, "transactional", batch.isTransactional());
        field(out, "control", batch.isControlBatch());
        field(out, "delete_horizon", batch.deleteHorizonMs().isPresent());
        field(out, "base_timestamp", ((DefaultRecordBatch) batch).baseTimestamp());
        field(out, "max_timestamp", batch.maxTimestamp());
        field(out, "producer_id", batch.producerId());
        field(out, "producer_epoch", batch.producerEpoch());
        field(out, "base_sequence", batch.baseSequence());
        field(out, "last_sequence", batch.lastSequence());
        field(out, "count", count);
        records(out, batch, count <= LISTED);
        return out.append("}\n").toString();
    }

    private static void records(StringBuilder out, MutableRecordBatch batch, boolean list) {
        CRC32C sum = new CRC32C();
        StringBuilder listed = new StringBuilder("[");
        String separator = "\n";
        int seen = 0;
        try (var records = batch.streamingIterator(BufferSupplier.NO_CACHING)) {
            while (records.hasNext()) {
                Record record = records.next();
                record.ensureValid();
                seen++;
                if (record.hasKey()) sum.update(record.key());
                if (record.hasValue()) sum.update(record.value());
                listed.append(separator).append(list ? record(record) : "");
                separator = ",\n";
            }
        }
        if (seen != batch.countOrNull()) {
            throw new IllegalStateException("count is " + batch.countOrNull() + ", saw " + seen);
        }
        field(out, "keys_and_values_crc32c", sum.getValue());
        out.append("\"records\": ").append(list ? listed.append("]\n") : "null\n");
    }

    private static String record(Record record) {
        StringBuilder out = new StringBuilder("{");
        out.append("\"offset\": ").append(record.offset());
        out.append(", \"timestamp\": ").append(record.timestamp());
        out.append(", \"key\": ").append(quoted(record.key()));
        out.append(", \"value\": ").append(quoted(record.value()));
        out.append(", \"headers\": [");
        String separator = "";
        for (Header header : record.headers()) {
            String value = header.value() == null ? "null" : '"' + hex(header.value()) + '"';
            out.append(separator).append("[\"").append(hex(Utils.utf8(header.key())))
                .append("\", ").append(value).append(']');
            separator = ", ";
        }
        return out.append("]}").toString();
    }

    private static void field(StringBuilder out, String name, Object value) {
        out.append('"').append(name).append("\": ").append(value).append(",\n");
    }

    private static String quoted(ByteBuffer bytes) {
        return bytes == null ? "null" : '"' + hex(Utils.toArray(bytes)) + '"';
    }

    static String hex(byte[] bytes) {
        return HexFormat.of().formatHex(bytes);
    }
}
