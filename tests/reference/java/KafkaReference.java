import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.HexFormat;
import java.util.List;
import org.apache.kafka.common.compress.Compression;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.header.internals.RecordHeader;
import org.apache.kafka.common.record.CompressionType;
import org.apache.kafka.common.record.MemoryRecords;
import org.apache.kafka.common.record.MutableRecordBatch;
import org.apache.kafka.common.record.Record;
import org.apache.kafka.common.record.SimpleRecord;
import org.apache.kafka.common.utils.Utils;

/**
 * What the Java client's own classes say, for tests that hold kprod against them. Byte strings travel as
 * hex, null is "-". Started from source by tests/reference/java.py.
 *
 *   murmur2          keys, one a line                   ->  their hashes (signed)
 *   read             record batches, one buffer a line  ->  per buffer its records, one a line, then an empty line
 *   write CODEC...   records, one a line                ->  per codec one line: a batch of all of them
 *
 * A record is: timestamp key value [header-key header-value]...; `read` puts the offset in front.
 */
public class KafkaReference {
    private static final HexFormat HEX = HexFormat.of();

    private static String text(ByteBuffer bytes) {
        return bytes == null ? "-" : "x" + HEX.formatHex(Utils.toArray(bytes));
    }

    private static byte[] bytes(String text) {
        return text.equals("-") ? null : HEX.parseHex(text.substring(1));
    }

    private static void read(String line, PrintStream out) {
        MemoryRecords records = MemoryRecords.readableRecords(ByteBuffer.wrap(bytes(line)));
        for (MutableRecordBatch batch : records.batches()) {
            batch.ensureValid();
            for (Record record : batch) {
                out.print(record.offset() + " " + record.timestamp() + " " + text(record.key()) + " " + text(record.value()));
                for (Header header : record.headers()) {
                    byte[] value = header.value();
                    out.print(" " + text(ByteBuffer.wrap(header.key().getBytes(java.nio.charset.StandardCharsets.UTF_8)))
                        + " " + text(value == null ? null : ByteBuffer.wrap(value)));
                }
                out.println();
            }
        }
        out.println();
    }

    private static SimpleRecord record(String line) {
        String[] part = line.split(" ");
        Header[] headers = new Header[(part.length - 3) / 2];
        for (int i = 0; i < headers.length; i++)
            headers[i] = new RecordHeader(Utils.utf8(bytes(part[3 + 2 * i])), bytes(part[4 + 2 * i]));
        return new SimpleRecord(Long.parseLong(part[0]), bytes(part[1]), bytes(part[2]), headers);
    }

    public static void main(String[] arguments) throws Exception {
        BufferedReader in = new BufferedReader(new InputStreamReader(System.in));
        PrintStream out = new PrintStream(System.out, false);
        List<SimpleRecord> records = new ArrayList<>();
        for (String line = in.readLine(); line != null; line = in.readLine()) {
            switch (arguments[0]) {
                case "murmur2" -> out.println(Utils.murmur2(bytes(line)));
                case "read" -> read(line, out);
                case "write" -> records.add(record(line));
                default -> throw new IllegalArgumentException(arguments[0]);
            }
        }
        for (int i = 1; i < arguments.length; i++) {
            Compression codec = Compression.of(CompressionType.forName(arguments[i])).build();
            out.println(text(MemoryRecords.withRecords(codec, records.toArray(new SimpleRecord[0])).buffer()));
        }
        out.flush();
    }
}
