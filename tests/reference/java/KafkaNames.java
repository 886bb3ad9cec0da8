import org.apache.kafka.clients.producer.ProducerConfig;
import org.apache.kafka.common.config.ConfigDef;
import org.apache.kafka.common.errors.ApiException;
import org.apache.kafka.common.errors.InvalidMetadataException;
import org.apache.kafka.common.errors.RetriableException;
import org.apache.kafka.common.protocol.Errors;

/**
 * The Java client's tables of names, for tests that hold kprod's tables against them. Tabs between columns.
 *
 *   errors    code, name, retriable, refresh metadata
 *   options   name, default value ("null" is none)
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

    public static void main(String[] arguments) {
        switch (arguments[0]) {
            case "errors" -> errors();
            case "options" -> options();
            default -> throw new IllegalArgumentException(arguments[0]);
        }
    }
}
