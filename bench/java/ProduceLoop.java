import com.sun.management.OperatingSystemMXBean;
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.lang.management.ManagementFactory;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Locale;
import java.util.Properties;
import java.util.concurrent.atomic.AtomicLong;
import java.util.concurrent.atomic.AtomicReference;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.serialization.ByteArraySerializer;

/**
 * The loop that bench/measure.py runs for Python clients, for the Java client: warm-up, then the measured
 * records with a callback on each, then flush. Prints one JSON line.
 *
 * Arguments: topic, records, warm-up records, block, records per second (0: no limit), file of "key TAB value" lines; producer properties on stdin.
 */
public class ProduceLoop {
    private static final AtomicLong acked = new AtomicLong();
    private static final AtomicReference<Exception> failure = new AtomicReference<>();
    private static final List<Long> latencies = new ArrayList<>(); // filled by the producer's one thread

    private static void send(KafkaProducer<byte[], byte[]> producer, String topic, byte[][] keys, byte[][] values,
                             long records, int block, long rate) throws InterruptedException {
        long start = System.nanoTime();
        for (long i = 0; i < records; i++) {
            int at = (int) (i % values.length);
            ProducerRecord<byte[], byte[]> record = new ProducerRecord<>(topic, keys[at], values[at]);
            if (rate > 0 || i % block == 0) { // with a rate, a block is a burst and every record is timed
                if (rate > 0 && i % block == 0) {
                    long ahead = start + i * 1_000_000_000L / rate - System.nanoTime();
                    if (ahead > 0)
                        Thread.sleep(ahead / 1_000_000, (int) (ahead % 1_000_000));
                }
                long since = System.nanoTime();
                producer.send(record, (metadata, error) -> {
                    latencies.add(System.nanoTime() - since);
                    count(error);
                });
            } else {
                producer.send(record, (metadata, error) -> count(error));
            }
        }
        producer.flush();
    }

    private static void count(Exception error) {
        if (error == null)
            acked.incrementAndGet();
        else
            failure.set(error);
    }

    /** Nearest rank, in ms. */
    private static double quantile(long[] sorted, double fraction) {
        return sorted[Math.max(0, (int) Math.ceil(sorted.length * fraction) - 1)] / 1e6;
    }

    private static long peakRssKib() throws Exception {
        for (String line : Files.readAllLines(Path.of("/proc/self/status")))
            if (line.startsWith("VmHWM:"))
                return Long.parseLong(line.replaceAll("[^0-9]", ""));
        throw new IllegalStateException("no VmHWM in /proc/self/status");
    }

    public static void main(String[] arguments) throws Exception {
        String topic = arguments[0];
        long records = Long.parseLong(arguments[1]);
        long warmup = Long.parseLong(arguments[2]);
        int block = Integer.parseInt(arguments[3]);
        long rate = Long.parseLong(arguments[4]);
        List<String> lines = Files.readAllLines(Path.of(arguments[5]), StandardCharsets.ISO_8859_1);
        byte[][] keys = new byte[lines.size()][];
        byte[][] values = new byte[lines.size()][];
        for (int i = 0; i < keys.length; i++) {
            String[] part = lines.get(i).split("\t", 2);
            keys[i] = part[0].isEmpty() ? null : part[0].getBytes(StandardCharsets.ISO_8859_1);
            values[i] = part[1].getBytes(StandardCharsets.ISO_8859_1);
        }
        Properties properties = new Properties();
        properties.load(new BufferedReader(new InputStreamReader(System.in)));
        var process = (OperatingSystemMXBean) ManagementFactory.getOperatingSystemMXBean();
        var serializer = new ByteArraySerializer();
        try (var producer = new KafkaProducer<>(properties, serializer, serializer)) {
            send(producer, topic, keys, values, warmup, block, 0);
            latencies.clear();
            long cpu = process.getProcessCpuTime();
            long start = System.nanoTime();
            send(producer, topic, keys, values, records, block, rate);
            long end = System.nanoTime();
            cpu = process.getProcessCpuTime() - cpu;
            if (failure.get() != null || acked.get() != warmup + records)
                throw new IllegalStateException(acked.get() + " acknowledged", failure.get());
            long[] sorted = latencies.stream().mapToLong(Long::longValue).toArray();
            Arrays.sort(sorted);
            System.out.println(String.format(Locale.ROOT,
                "{\"records\": %d, \"seconds\": %f, \"cpu_seconds\": %f, \"system_seconds\": null, "
                    + "\"peak_rss\": %d, \"p50_ms\": %f, \"p99_ms\": %f, \"p999_ms\": %f}",
                records, (end - start) / 1e9, cpu / 1e9, peakRssKib() * 1024,
                quantile(sorted, 0.5), quantile(sorted, 0.99), quantile(sorted, 0.999)));
        }
    }
}
