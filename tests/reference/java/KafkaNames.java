import java.time.Duration;
import java.util.Map;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerConfig;
import org.apache.kafka.common.MetricName;
import org.apache.kafka.common.config.ConfigDef;
import org.apache.kafka.common.errors.ApiException;
import org.apache.kafka.common.errors.InvalidMetadataException;
import org.apache.kafka.common.errors.RetriableException;
import org.apache.kafka.common.protocol.Errors;
import org.apache.kafka.common.serialization.ByteArraySerializer;

/**
 * The Java client's tables of names, for tests that hold kprod's tables against them. Tabs between columns.
 *
 *   errors    code, name, retriable, refresh metadata
 *   options   name, default value ("null" is none)
 *   metrics   group, name: of a producer that has just been made
 */
public class KafkaNames {
    private static void errors() {
        for (Errors error : Errors.values()) {
            ApiException exception = error.exception();
            System.out.println(error.code() + "\t" + error.name() + "\t" + (exception instanceof RetriableException)
                    + "\t" + (exception instanceof InvalidMetadataException));
        }
    }

    private static void options() {
        for (ConfigDef.ConfigKey key : ProducerConfig.configDef().configKeys().values()) {
            String value = key.hasDefault() ? ConfigDef.convertToString(key.defaultValue, key.type()) : "required";
            System.out.println(key.name + "\t" + value);
        }
    }

    private static void metrics() {
        Map<String, Object> options = Map.of(
                "bootstrap.servers", "127.0.0.1:1",
                "transactional.id", "names",
                "key.serializer", ByteArraySerializer.class,
                "value.serializer", ByteArraySerializer.class);
        try (KafkaProducer<byte[], byte[]> producer = new KafkaProducer<>(options)) {
            for (MetricName name : producer.metrics().keySet()) {
                System.out.println(name.group() + "\t" + name.name());
            }
            producer.close(Duration.ZERO);
        }
    }

    public static void main(String[] arguments) {
        switch (arguments[0]) {
            case "errors" -> errors();
            case "options" -> options();
            case "metrics" -> metrics();
            default -> throw new IllegalArgumentException(arguments[0]);
        }
    }
}
