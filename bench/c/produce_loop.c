/* The loop that bench/measure.py runs for Python clients, for librdkafka: warm-up, then the measured records with a
 * delivery report on each, then flush. Prints one JSON line.
 *
 *     produce_loop TOPIC RECORDS WARMUP BLOCK RATE FILE
 *
 * The first record of each block is timed; with a rate (records per second, 0: no limit) a block is a burst, and every
 * record is timed. FILE has lines of key TAB value; standard input has librdkafka's properties, "name=value" a line.
 *
 * As librdkafka's documentation has it, rd_kafka_poll() is called after each record, for the reports. Records are
 * copied: they stay the program's.
 */
#include <librdkafka/rdkafka.h>
#include <errno.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

enum { QUEUE_FULL_POLL_MS = 100, LINE_BYTES = 4096, NS_PER_MS = 1000000 };
static const int64_t NS_PER_S = 1000000000;

struct record {
    char *key, *value;
    size_t key_size, value_size;
};

static struct record *pool;
static size_t pool_size;
static int64_t acked, failed;
static rd_kafka_resp_err_t last_error;
static int64_t *latencies; /* ns */
static size_t latencies_count, latencies_room;

static void fail(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    exit(1);
}

static void *grown(void *memory, size_t size) {
    memory = realloc(memory, size);
    if (memory == NULL)
        fail("no memory for %zu bytes", size);
    return memory;
}

static int64_t now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * NS_PER_S + now.tv_nsec;
}

/* -- records ---------------------------------------------------------------------------------------------------- */

static void read_pool(const char *path) {
    FILE *file = fopen(path, "rb");
    if (file == NULL || fseek(file, 0, SEEK_END))
        fail("%s: %s", path, strerror(errno));
    size_t size = (size_t)ftell(file), room = 0;
    char *at = grown(NULL, size + 1), *end = at + size;
    rewind(file);
    if (fread(at, 1, size, file) != size)
        fail("%s: cut short", path);
    fclose(file);
    while (at < end) {
        char *line_end = memchr(at, '\n', end - at);
        char *tab = line_end == NULL ? NULL : memchr(at, '\t', line_end - at);
        if (tab == NULL)
            fail("%s: line %zu is not \"key TAB value\"", path, pool_size + 1);
        if (pool_size == room) {
            room = room == 0 ? 1024 : room * 2;
            pool = grown(pool, room * sizeof *pool);
        }
        pool[pool_size++] = (struct record){tab == at ? NULL : at, tab + 1, tab - at, line_end - tab - 1};
        at = line_end + 1;
    }
    if (pool_size == 0)
        fail("%s: no records", path);
}

/* -- the client ------------------------------------------------------------------------------------------------- */

/* The opaque of a timed record is when it was handed over, of the others NULL. */
static void delivered(rd_kafka_t *client, const rd_kafka_message_t *message, void *opaque) {
    (void)client;
    (void)opaque;
    if (message->_private != NULL) {
        int64_t latency = now_ns() - (int64_t)(intptr_t)message->_private;
        if (latencies_count == latencies_room) {
            latencies_room = latencies_room == 0 ? 1 << 16 : latencies_room * 2;
            latencies = grown(latencies, latencies_room * sizeof *latencies);
        }
        latencies[latencies_count++] = latency;
    }
    if (message->err == RD_KAFKA_RESP_ERR_NO_ERROR)
        acked++;
    else {
        failed++;
        last_error = message->err;
    }
}

static rd_kafka_t *make_client(void) {
    char line[LINE_BYTES], error[512];
    rd_kafka_conf_t *conf = rd_kafka_conf_new();
    while (fgets(line, sizeof line, stdin) != NULL) {
        line[strcspn(line, "\n")] = 0;
        char *value = strchr(line, '=');
        if (value == NULL)
            fail("\"%s\" is not \"name=value\"", line);
        *value++ = 0;
        if (rd_kafka_conf_set(conf, line, value, error, sizeof error) != RD_KAFKA_CONF_OK)
            fail("%s", error);
    }
    rd_kafka_conf_set_dr_msg_cb(conf, delivered);
    rd_kafka_t *client = rd_kafka_new(RD_KAFKA_PRODUCER, conf, error, sizeof error);
    if (client == NULL)
        fail("%s", error);
    return client;
}

/* rd_kafka_poll() returns after a report, and takes whole ms: a burst may be late by one, and the next follows at once. */
static void wait_until(rd_kafka_t *client, int64_t time) {
    for (int64_t ahead; (ahead = time - now_ns()) > 0;)
        rd_kafka_poll(client, (int)((ahead + NS_PER_MS - 1) / NS_PER_MS));
}

static void send_all(rd_kafka_t *client, rd_kafka_topic_t *topic, int64_t records, int64_t block, int64_t rate) {
    int64_t start = now_ns();
    for (int64_t i = 0; i < records; i++) {
        const struct record *record = &pool[i % pool_size];
        int first = i % block == 0;
        if (rate > 0 && first)
            wait_until(client, start + i * NS_PER_S / rate);
        void *since = rate > 0 || first ? (void *)(intptr_t)now_ns() : NULL;
        while (rd_kafka_produce(topic, RD_KAFKA_PARTITION_UA, RD_KAFKA_MSG_F_COPY, record->value, record->value_size,
                                record->key, record->key_size, since)) {
            if (rd_kafka_last_error() != RD_KAFKA_RESP_ERR__QUEUE_FULL)
                fail("rd_kafka_produce: %s", rd_kafka_err2str(rd_kafka_last_error()));
            rd_kafka_poll(client, QUEUE_FULL_POLL_MS);
        }
        rd_kafka_poll(client, 0);
    }
    rd_kafka_resp_err_t error = rd_kafka_flush(client, -1);
    if (error != RD_KAFKA_RESP_ERR_NO_ERROR)
        fail("rd_kafka_flush: %s", rd_kafka_err2str(error));
}

/* -- what it took ----------------------------------------------------------------------------------------------- */

static double seconds(struct timeval time) {
    return time.tv_sec + time.tv_usec / 1e6;
}

static struct rusage usage_now(void) {
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return usage;
}

/* Of /proc/self/status. */
static long long resident(const char *field) {
    char line[256];
    long long kib = -1;
    FILE *status = fopen("/proc/self/status", "r");
    while (status != NULL && kib < 0 && fgets(line, sizeof line, status) != NULL)
        if (!strncmp(line, field, strlen(field)))
            sscanf(line + strlen(field), ": %lld", &kib);
    if (kib < 0)
        fail("no %s in /proc/self/status", field);
    return kib * 1024;
}

int main(int argc, char **argv) {
    if (argc != 7)
        fail("usage: produce_loop TOPIC RECORDS WARMUP BLOCK RATE FILE");
    int64_t records = atoll(argv[2]), warmup = atoll(argv[3]), block = atoll(argv[4]), rate = atoll(argv[5]);
    if (block < 1)
        fail("blocks of %s records", argv[4]);
    read_pool(argv[6]);
    rd_kafka_t *client = make_client();
    rd_kafka_topic_t *topic = rd_kafka_topic_new(client, argv[1], NULL);
    if (topic == NULL)
        fail("rd_kafka_topic_new: %s", rd_kafka_err2str(rd_kafka_last_error()));
    send_all(client, topic, warmup, block, 0);
    latencies_count = 0;

    struct rusage before = usage_now();
    int64_t start = now_ns();
    send_all(client, topic, records, block, rate);
    int64_t end = now_ns();
    struct rusage after = usage_now();
    long long rss = resident("VmRSS");

    printf("{\"acked\": %lld, \"failed\": %lld, \"error\": \"%s\", \"seconds\": %.9f, \"user_seconds\": %.6f, "
           "\"system_seconds\": %.6f, \"rss\": %lld, \"peak_rss\": %lld, \"latencies_ns\": [",
           (long long)acked, (long long)failed, failed ? rd_kafka_err2name(last_error) : "", (end - start) / 1e9,
           seconds(after.ru_utime) - seconds(before.ru_utime), seconds(after.ru_stime) - seconds(before.ru_stime),
           rss, resident("VmHWM"));
    for (size_t i = 0; i < latencies_count; i++)
        printf(i == 0 ? "%lld" : ", %lld", (long long)latencies[i]);
    printf("]}\n");
    rd_kafka_topic_destroy(topic);
    rd_kafka_destroy(client);
}
