import java.io.Reader;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Properties;
import java.util.SplittableRandom;
import java.util.concurrent.CountDownLatch;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.Topology;
import org.apache.kafka.streams.errors.StreamsUncaughtExceptionHandler.StreamThreadExceptionResponse;
import org.apache.kafka.streams.processor.api.ContextualProcessor;
import org.apache.kafka.streams.processor.api.Record;

/**
 * The hop in Kafka Streams: decode, discrete noise on one field, map two, encode, send.
 *
 * <p>Arguments: a properties file, passed on to Kafka Streams as it is, with {@code bench.raw}, {@code bench.shared} (topics)
 * and {@code bench.raw.id}, {@code bench.shared.id} (schema ids) in it. Runs until it is told to stop.
 */
public final class Hop {
    private Hop() {}

    public static void main(String[] arguments) throws Exception {
        Properties settings = new Properties();
        try (Reader reader = Files.newBufferedReader(Path.of(arguments[0]))) {
            settings.load(reader);
        }
        int rawId = Integer.parseInt(settings.getProperty("bench.raw.id"));
        int sharedId = Integer.parseInt(settings.getProperty("bench.shared.id"));
        var bytes = Serdes.ByteArray();
        Topology topology = new Topology();
        topology.addSource("raw", bytes.deserializer(), bytes.deserializer(), settings.getProperty("bench.raw"));
        topology.addProcessor("share", () -> new Share(rawId, sharedId), "raw");
        topology.addSink("shared", settings.getProperty("bench.shared"), bytes.serializer(), bytes.serializer(), "share");
        KafkaStreams streams = new KafkaStreams(topology, settings);
        CountDownLatch ended = new CountDownLatch(1);
        streams.setUncaughtExceptionHandler(problem -> {
            problem.printStackTrace();
            ended.countDown();
            return StreamThreadExceptionResponse.SHUTDOWN_CLIENT;
        });
        Runtime.getRuntime().addShutdownHook(new Thread(streams::close));
        streams.start();
        ended.await();
        System.exit(1);
    }

    /** One event to one event, on byte arrays. A reader written for the schema: no objects but the value that goes out. */
    private static final class Share extends ContextualProcessor<byte[], byte[], byte[], byte[]> {
        private static final int HEADER = 5;
        private static final int DRAWS = 1 << 16;
        private static final long GRID_MS = 60_000;
        private static final long MOST = 1000;

        private final int rawId;
        private final int sharedId;
        private final int[] noise = new int[DRAWS];
        private final SplittableRandom random = new SplittableRandom();
        private final byte[] out = new byte[1 << 16];
        private int at; // where the reader stands in the value

        Share(int rawId, int sharedId) {
            this.rawId = rawId;
            this.sharedId = sharedId;
            for (int i = 0; i < DRAWS; i++) { // the difference of two geometric variables is discrete Laplace
                noise[i] = geometric() - geometric();
            }
        }

        private int geometric() {
            return (int) Math.floor(-Math.log(1 - random.nextDouble()));
        }

        @Override
        public void process(Record<byte[], byte[]> event) {
            byte[] value = event.value();
            if (value[0] != 0 || readInt(value) != rawId) {
                throw new IllegalArgumentException("not an event of this contract");
            }
            at = HEADER;
            int card = (int) readLong(value); // dropped: its length is read, its letters are not
            at += card;
            long time = readLong(value);
            int siteLength = (int) readLong(value);
            int site = at;
            at += siteLength;
            long amount = readLong(value) == 0 ? 0 : readLong(value);

            long shared = Math.min(Math.max(amount + noise[random.nextInt() & (DRAWS - 1)], 0), MOST);

            out[0] = 0;
            out[1] = (byte) (sharedId >>> 24);
            out[2] = (byte) (sharedId >>> 16);
            out[3] = (byte) (sharedId >>> 8);
            out[4] = (byte) sharedId;
            int end = writeLong(HEADER, siteLength);
            System.arraycopy(value, site, out, end, siteLength);
            end = writeLong(end + siteLength, time - Math.floorMod(time, GRID_MS));
            long bits = Double.doubleToRawLongBits(shared * 0.1);
            for (int i = 0; i < 8; i++) {
                out[end++] = (byte) (bits >>> (8 * i));
            }
            byte[] whole = new byte[end];
            System.arraycopy(out, 0, whole, 0, end);
            context().forward(event.withValue(whole));
        }

        private static int readInt(byte[] value) {
            return (value[1] & 0xff) << 24 | (value[2] & 0xff) << 16 | (value[3] & 0xff) << 8 | (value[4] & 0xff);
        }

        /** Avro's zigzag number at {@code at}, which moves behind it. */
        private long readLong(byte[] value) {
            long found = 0;
            int shift = 0;
            byte next;
            do {
                next = value[at++];
                found |= (long) (next & 0x7f) << shift;
                shift += 7;
            } while (next < 0);
            return (found >>> 1) ^ -(found & 1);
        }

        /** Writes at {@code end}, returns the new end. */
        private int writeLong(int end, long number) {
            long rest = (number << 1) ^ (number >> 63);
            while ((rest & ~0x7fL) != 0) {
                out[end++] = (byte) (rest & 0x7f | 0x80);
                rest >>>= 7;
            }
            out[end++] = (byte) rest;
            return end;
        }
    }
}
