// Writes the golden batches with Kafka's own client library, and reads ours with it.
package golden;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.Map;
import java.util.TreeMap;

public final class Main {
    public static void main(String[] args) throws IOException {
        if (args.length != 2) {
            throw new IllegalArgumentException("usage: write|check DIRECTORY");
        }
        Path directory = Path.of(args[1]);
        switch (args[0]) {
            case "write" -> write(directory);
            case "check" -> check(directory);
            default -> throw new IllegalArgumentException("unknown mode " + args[0]);
        }
    }

    private static void write(Path directory) throws IOException {
        Map<String, ByteBuffer> batches = new TreeMap<>();
        Batches.addAll(batches);
        for (var entry : batches.entrySet()) {
            ByteBuffer batch = entry.getValue();
            byte[] bytes = new byte[batch.remaining()];
            batch.duplicate().get(bytes);
            Path file = directory.resolve("kafka-" + entry.getKey() + ".bin");
            Files.write(file, bytes);
            describe(file, bytes);
        }
        Files.writeString(directory.resolve("murmur2.json"), Keys.describe());
    }

    /** Reads each of our batches as a Kafka client would and notes down what it saw. */
    private static void check(Path directory) throws IOException {
        try (var files = Files.newDirectoryStream(directory, "highwater-*.bin")) {
            Path[] sorted = java.util.stream.StreamSupport.stream(files.spliterator(), false)
                .sorted().toArray(Path[]::new);
            for (Path file : Arrays.asList(sorted)) {
                describe(file, Files.readAllBytes(file));
                System.out.println("Kafka reads " + file.getFileName());
            }
        }
    }

    private static void describe(Path file, byte[] bytes) throws IOException {
        String name = file.getFileName().toString().replace(".bin", ".json");
        Files.writeString(file.resolveSibling(name), Describe.batch(bytes));
    }
}
