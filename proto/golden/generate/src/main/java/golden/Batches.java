// The golden batches: each kind of content, each compression, each kind of producer.
package golden;

import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.util.Map;
import org.apache.kafka.common.compress.Compression;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.header.internals.RecordHeader;
import org.apache.kafka.common.record.CompressionType;
import org.apache.kafka.common.record.ControlRecordType;
import org.apache.kafka.common.record.DefaultRecordBatch;
import org.apache.kafka.common.record.EndTransactionMarker;
import org.apache.kafka.common.record.MemoryRecords;
import org.apache.kafka.common.record.MemoryRecordsBuilder;
import org.apache.kafka.common.record.RecordBatch;
import org.apache.kafka.common.record.TimestampType;

final class Batches {
    private static final long TIME = 1_700_000_000_000L;

    static void addAll(Map<String, ByteBuffer> batches) {
        for (CompressionType type : CompressionType.values()) {
            Options options = new Options();
            options.compression = type;
            batches.put("mixed-" + type.name, mixed(options.builder()));
            batches.put("large-" + type.name, large(options.builder()));
        }
        // Uncompressed, its 300 kB would say nothing more than the mixed one does.
        batches.remove("large-none");
        addProducers(batches);
        addStored(batches);
        addMarkers(batches);
    }

    private static void addProducers(Map<String, ByteBuffer> batches) {
        Options options = new Options();
        options.producer(4711, (short) 3, 17);
        batches.put("idempotent", mixed(options.builder()));
        options.producer(Long.MAX_VALUE, Short.MAX_VALUE, Integer.MAX_VALUE - 1);
        batches.put("sequence-wraps", mixed(options.builder()));
        options.producer(4712, (short) 0, 0);
        options.transactional = true;
        options.compression = CompressionType.ZSTD;
        batches.put("transactional-zstd", mixed(options.builder()));
        MemoryRecordsBuilder one = new Options().builder();
        one.append(0L, (byte[]) null, null);
        batches.put("one-null", one.build().buffer());
        MemoryRecordsBuilder untimed = new Options().builder();
        untimed.append(RecordBatch.NO_TIMESTAMP, bytes("key"), bytes("value"));
        batches.put("no-timestamp", untimed.build().buffer());
    }

    private static void addStored(Map<String, ByteBuffer> batches) {
        Options stamped = new Options();
        stamped.baseOffset = 123_456_789_012L;
        stamped.leaderEpoch = 7;
        batches.put("stamped", mixed(stamped.builder()));
        for (CompressionType type : new CompressionType[] {CompressionType.NONE,
                CompressionType.LZ4}) {
            Options options = new Options();
            options.compression = type;
            MemoryRecords records = MemoryRecords.readableRecords(mixed(options.builder()));
            records.batches().iterator().next()
                .setMaxTimestamp(TimestampType.LOG_APPEND_TIME, TIME + 86_400_000);
            batches.put("append-time-" + type.name, records.buffer());
        }
        MemoryRecordsBuilder gaps = stamped.builder();
        gaps.appendWithOffset(stamped.baseOffset + 2, TIME, bytes("a"), bytes("1"));
        gaps.appendWithOffset(stamped.baseOffset + 40, TIME + 5, bytes("b"), bytes("2"));
        gaps.overrideLastOffset(stamped.baseOffset + 99);
        batches.put("compacted", gaps.build().buffer());
        ByteBuffer empty = ByteBuffer.allocate(DefaultRecordBatch.RECORD_BATCH_OVERHEAD);
        DefaultRecordBatch.writeEmptyHeader(empty, RecordBatch.MAGIC_VALUE_V2, 4711L, (short) 3,
            17, 500L, 509L, 7, TimestampType.CREATE_TIME, TIME, false, false);
        batches.put("compacted-empty", empty.flip());
    }

    private static void addMarkers(Map<String, ByteBuffer> batches) {
        for (ControlRecordType type : new ControlRecordType[] {ControlRecordType.COMMIT,
                ControlRecordType.ABORT}) {
            MemoryRecords marker = MemoryRecords.withEndTransactionMarker(900L, TIME, 7, 4712L,
                (short) 0, new EndTransactionMarker(type, 12));
            batches.put("control-" + type.name().toLowerCase(), marker.buffer());
        }
    }

    /** Every shape of key, value and headers, with times that go backwards. */
    private static ByteBuffer mixed(MemoryRecordsBuilder builder) {
        byte[] empty = new byte[0];
        builder.append(TIME, bytes("key"), bytes("value"));
        builder.append(TIME + 1, null, bytes("no key"));
        builder.append(TIME - 1000, bytes("tombstone"), null);
        builder.append(TIME, (byte[]) null, null);
        builder.append(TIME + 70_000, empty, empty);
        builder.append(TIME + 2, bytes("headers"), bytes("in order, with duplicates"),
            new Header[] {
                new RecordHeader("trace", bytes("1")),
                new RecordHeader("content-type", bytes("application/json")),
                new RecordHeader("trace", bytes("2")),
                new RecordHeader("trace", (byte[]) null),
                new RecordHeader("", empty),
                new RecordHeader("gr\u00f6\u00dfe \ud83d\ude80", new byte[] {0, -1, 127, -128}),
                new RecordHeader("trace", bytes("1")),
            });
        builder.append(TIME + 3, bytes("long ".repeat(40)), bytes("0123456789".repeat(300)));
        return builder.build().buffer();
    }

    /** More than one block of every compression. */
    private static ByteBuffer large(MemoryRecordsBuilder builder) {
        for (int i = 0; i < 4000; i++) {
            String value = "{\"order\":" + i + ",\"account\":\"A-" + (i * 7919) % 1009
                + "\",\"state\":\"accepted\",\"total_cents\":" + (i * 104_729L) % 99_991 + "}";
            builder.append(TIME + i, bytes("order-" + i), bytes(value));
        }
        return builder.build().buffer();
    }

    private static byte[] bytes(String text) {
        return text.getBytes(StandardCharsets.UTF_8);
    }

    /** What a batch is besides its records. */
    private static final class Options {
        CompressionType compression = CompressionType.NONE;
        long producerId = RecordBatch.NO_PRODUCER_ID;
        short producerEpoch = RecordBatch.NO_PRODUCER_EPOCH;
        int baseSequence = RecordBatch.NO_SEQUENCE;
        boolean transactional;
        long baseOffset;
        int leaderEpoch = RecordBatch.NO_PARTITION_LEADER_EPOCH;

        void producer(long id, short epoch, int sequence) {
            producerId = id;
            producerEpoch = epoch;
            baseSequence = sequence;
        }

        MemoryRecordsBuilder builder() {
            return new MemoryRecordsBuilder(ByteBuffer.allocate(1 << 20),
                RecordBatch.MAGIC_VALUE_V2, Compression.of(compression).build(),
                TimestampType.CREATE_TIME, baseOffset, RecordBatch.NO_TIMESTAMP, producerId,
                producerEpoch, baseSequence, transactional, false, leaderEpoch, 1 << 20);
        }
    }
}
