import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.ByteBuffer;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.Paths;
import java.util.List;
import java.util.Map;
import java.util.UUID;
import java.util.concurrent.atomic.AtomicInteger;
import org.apache.kafka.common.Uuid;
import org.apache.kafka.common.metrics.KafkaMetric;
import org.apache.kafka.common.metrics.MetricsReporter;
import org.apache.kafka.server.authorizer.AuthorizableRequestContext;
import org.apache.kafka.server.telemetry.ClientTelemetry;
import org.apache.kafka.server.telemetry.ClientTelemetryPayload;
import org.apache.kafka.server.telemetry.ClientTelemetryReceiver;

/** A broker's receiver for clients' metrics (KIP-714): each push becomes a file. */
public class FileTelemetry implements MetricsReporter, ClientTelemetry, ClientTelemetryReceiver {
    private static final AtomicInteger COUNT = new AtomicInteger();
    private final Path folder = Paths.get(System.getProperty("kprod.telemetry.folder"));

    @Override
    public ClientTelemetryReceiver clientReceiver() {
        return this;
    }

    /** The name says: when and where it came, the client id, the client instance id, whether it is the last one. */
    @Override
    public void exportMetrics(AuthorizableRequestContext context, ClientTelemetryPayload payload) {
        Uuid uuid = payload.clientInstanceId();
        UUID id = new UUID(uuid.getMostSignificantBits(), uuid.getLeastSignificantBits());
        // Several brokers may share the folder.
        String when = String.format("%d-%06d-%d", System.currentTimeMillis(), COUNT.incrementAndGet(),
            ProcessHandle.current().pid());
        String name = String.join(",", when, context.clientId(), id.toString(),
            String.valueOf(payload.isTerminating()));
        ByteBuffer data = payload.data();
        byte[] bytes = new byte[data.remaining()];
        data.get(bytes);
        try {
            Path unfinished = folder.resolve("." + name);
            Files.write(unfinished, bytes);
            Files.move(unfinished, folder.resolve(name));
        } catch (IOException error) {
            throw new UncheckedIOException(error);
        }
    }

    @Override
    public void configure(Map<String, ?> configs) {
    }

    @Override
    public void init(List<KafkaMetric> metrics) {
    }

    @Override
    public void metricChange(KafkaMetric metric) {
    }

    @Override
    public void metricRemoval(KafkaMetric metric) {
    }

    @Override
    public void close() {
    }
}
