// Keys, their hashes and their partitions, as the Java producer computes them.
package golden;

import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.List;
import java.util.Random;
import org.apache.kafka.clients.producer.internals.BuiltInPartitioner;
import org.apache.kafka.common.utils.Utils;

final class Keys {
    private static final int[] PARTITIONS = {1, 2, 3, 6, 12, 50, 1000, 2147483647};

    static String describe() {
        StringBuilder out = new StringBuilder("[\n");
        String separator = "";
        for (byte[] key : keys()) {
            out.append(separator).append("{\"key\":\"").append(Describe.hex(key))
                .append("\",\"hash\":").append(Utils.murmur2(key)).append(",\"partitions\":{");
            String comma = "";
            for (int partitions : PARTITIONS) {
                out.append(comma).append('"').append(partitions).append("\":")
                    .append(BuiltInPartitioner.partitionForKey(key, partitions));
                comma = ",";
            }
            out.append("}}");
            separator = ",\n";
        }
        return out.append("\n]\n").toString();
    }

    private static List<byte[]> keys() {
        List<byte[]> keys = new ArrayList<>();
        for (String text : new String[] {"", "a", "ab", "abc", "abcd", "abcde", "order-1",
                "7590-VHVEG", "5575-GNVDE", "\u00e9\u4e16\ud83d\ude80"}) {
            keys.add(text.getBytes(StandardCharsets.UTF_8));
        }
        Random random = new Random(20260101);
        for (int length = 1; length <= 64; length++) {
            byte[] key = new byte[length];
            random.nextBytes(key);
            keys.add(key);
        }
        return keys;
    }
}
