/* A Kafka cluster that acknowledges everything and keeps nothing: what is left of a measurement is the client.
 *
 *     sink BROKERS PARTITIONS
 *
 * One thread, one epoll, one listening socket per broker on 127.0.0.1 with a port that the system chooses. Every
 * topic that a client asks for exists, has PARTITIONS partitions, and broker (partition mod BROKERS) + 1 leads each.
 * It answers ApiVersions, Metadata, InitProducerId and Produce in the versions of Kafka 4.1 (Produce from v3 on: record
 * batches v2 only), at once, in one write per batch of requests that were read together. Nothing is checked, no
 * checksum is computed, no record is read; of each batch the header's record count is added up, so that a benchmark
 * can tell whether all records arrived, and offsets in the answers count up as they should.
 *
 * Prints "ready PORT PORT ..." and then answers lines on standard input: "stats" with a line of JSON, "reset" (sets
 * all counts to 0) with "ok". Ends at the end of its input, so it cannot outlive the benchmark that started it.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

enum { PRODUCE = 0, FETCH = 1, LIST_OFFSETS = 2, METADATA = 3, FIND_COORDINATOR = 10, API_VERSIONS = 18,
       INIT_PRODUCER_ID = 22, API_KEYS = 23 };

/* What ApiVersions tells. Fetch, ListOffsets and FindCoordinator are never asked of a producer's cluster, but
 * librdkafka takes brokers without them for too old for record batches v2, lz4 and zstd. */
static const struct { int16_t key, min, max; } APIS[] = {
    {PRODUCE, 3, 13},      {FETCH, 4, 17},         {LIST_OFFSETS, 1, 10}, {METADATA, 0, 13},
    {FIND_COORDINATOR, 0, 6}, {API_VERSIONS, 0, 4}, {INIT_PRODUCER_ID, 0, 5},
};
enum { APIS_COUNT = sizeof APIS / sizeof *APIS };

enum { MAX_FRAME = 128 << 20, FIRST_INPUT = 1 << 20, EVENTS = 256, BATCH_HEADER = 61, RECORD_COUNT_AT = 57 };

static int brokers, partitions;
static uint16_t *ports;

static struct {
    uint64_t requests, by_api[API_KEYS], batches, records, batch_bytes, bytes_in, bytes_out, connections, largest;
} count;

static void fail(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    fputs("sink: ", stderr);
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

/* -- topics ---------------------------------------------------------------------------------------------------- */

struct topic {
    uint8_t *name;
    int length;
    uint8_t id[16];
    int64_t *end; /* next offset of each partition */
    int next;     /* in its bucket, -1: the last */
};

enum { BUCKETS = 1 << 14 };
static struct topic *topics;
static int topics_count, buckets[BUCKETS];

static struct topic *topic_by_name(const uint8_t *name, int length) {
    uint32_t hash = 2166136261u;
    for (int i = 0; i < length; i++)
        hash = (hash ^ name[i]) * 16777619u;
    int *bucket = &buckets[hash % BUCKETS];
    for (int i = *bucket; i >= 0; i = topics[i].next)
        if (topics[i].length == length && !memcmp(topics[i].name, name, length))
            return &topics[i];
    topics = grown(topics, (topics_count + 1) * sizeof *topics);
    struct topic *made = &topics[topics_count];
    made->name = memcpy(grown(NULL, length + 1), name, length);
    made->length = length;
    memset(made->id, 0x5a, sizeof made->id);
    memcpy(made->id + 12, &(int32_t){topics_count}, 4);
    made->end = memset(grown(NULL, partitions * sizeof(int64_t)), 0, partitions * sizeof(int64_t));
    made->next = *bucket;
    *bucket = topics_count++;
    return made;
}

static struct topic *topic_by_id(const uint8_t *id) {
    int32_t number;
    memcpy(&number, id + 12, 4);
    return number >= 0 && number < topics_count ? &topics[number] : NULL;
}

/* -- reading a request ------------------------------------------------------------------------------------------ */

/* Reads past the end give zeros and set `bad`. */
struct reader {
    const uint8_t *at, *end;
    int bad, flexible;
};

static const uint8_t *take(struct reader *in, int64_t size) {
    if (size < 0 || size > in->end - in->at) {
        in->bad = 1;
        return NULL;
    }
    const uint8_t *bytes = in->at;
    in->at += size;
    return bytes;
}

static int64_t get(struct reader *in, int size) {
    const uint8_t *bytes = take(in, size);
    if (bytes == NULL)
        return 0;
    int64_t value = (int8_t)bytes[0];
    for (int i = 1; i < size; i++)
        value = value << 8 | bytes[i];
    return value;
}

static uint64_t get_varint(struct reader *in) {
    uint64_t value = 0;
    for (int shift = 0; shift < 64; shift += 7) {
        const uint8_t *byte = take(in, 1);
        if (byte == NULL)
            return 0;
        value |= (uint64_t)(*byte & 0x7f) << shift;
        if (*byte < 0x80)
            return value;
    }
    in->bad = 1;
    return 0;
}

/* A length of a string (size 2) or of an array or bytes (size 4), compact if flexible; -1 for null. */
static int64_t get_length(struct reader *in, int size) {
    return in->flexible ? (int64_t)get_varint(in) - 1 : get(in, size);
}

static const uint8_t *get_string(struct reader *in, int64_t *length) {
    *length = get_length(in, 2);
    return *length <= 0 ? NULL : take(in, *length);
}

static void skip_tags(struct reader *in) {
    if (!in->flexible)
        return;
    for (uint64_t left = get_varint(in); left > 0 && !in->bad; left--) {
        get_varint(in);
        take(in, (int64_t)get_varint(in));
    }
}

/* -- writing an answer ------------------------------------------------------------------------------------------ */

struct connection {
    int fd, flexible, stalled;
    uint8_t *input, *output;
    size_t input_size, have, output_size, filled, sent;
};

static uint8_t *room(struct connection *c, size_t size) {
    if (c->filled + size > c->output_size) {
        c->output_size = (c->filled + size) * 2;
        c->output = grown(c->output, c->output_size);
    }
    c->filled += size;
    return c->output + c->filled - size;
}

static void put(struct connection *c, int size, int64_t value) {
    uint8_t *bytes = room(c, size);
    for (int i = size - 1; i >= 0; i--, value >>= 8)
        bytes[i] = (uint8_t)value;
}

static void put_bytes(struct connection *c, const void *bytes, size_t size) {
    memcpy(room(c, size), bytes, size);
}

static void put_varint(struct connection *c, uint64_t value) {
    for (; value >= 0x80; value >>= 7)
        put(c, 1, (value & 0x7f) | 0x80);
    put(c, 1, value);
}

static void put_length(struct connection *c, int size, int64_t length) {
    if (c->flexible)
        put_varint(c, length + 1);
    else
        put(c, size, length);
}

static void put_string(struct connection *c, const void *bytes, int length) {
    put_length(c, 2, length);
    put_bytes(c, bytes, length);
}

static void put_tags(struct connection *c) {
    if (c->flexible)
        put_varint(c, 0);
}

/* -- the requests ------------------------------------------------------------------------------------------------ */

static void api_versions(struct connection *c, int version) {
    put(c, 2, version > 4 ? 35 : 0); /* UNSUPPORTED_VERSION, and the answer in version 0 */
    if (version > 4)
        version = c->flexible = 0;
    put_length(c, 4, APIS_COUNT);
    for (int i = 0; i < APIS_COUNT; i++) {
        put(c, 2, APIS[i].key);
        put(c, 2, APIS[i].min);
        put(c, 2, APIS[i].max);
        put_tags(c);
    }
    if (version >= 1)
        put(c, 4, 0); /* throttle time */
    put_tags(c);
}

static void metadata_of_topic(struct connection *c, int version, const struct topic *topic) {
    put(c, 2, 0);
    put_string(c, topic->name, topic->length);
    if (version >= 10)
        put_bytes(c, topic->id, 16);
    if (version >= 1)
        put(c, 1, 0); /* internal */
    put_length(c, 4, partitions);
    for (int p = 0; p < partitions; p++) {
        int leader = p % brokers + 1;
        put(c, 2, 0);
        put(c, 4, p);
        put(c, 4, leader);
        if (version >= 7)
            put(c, 4, 0); /* leader epoch */
        for (int list = 0; list < 2; list++) { /* replicas, in-sync replicas */
            put_length(c, 4, 1);
            put(c, 4, leader);
        }
        if (version >= 5)
            put_length(c, 4, 0); /* offline replicas */
        put_tags(c);
    }
    if (version >= 8)
        put(c, 4, INT32_MIN); /* authorized operations: not asked for */
    put_tags(c);
}

static void metadata(struct connection *c, struct reader *in, int version) {
    if (version >= 3)
        put(c, 4, 0); /* throttle time */
    put_length(c, 4, brokers);
    for (int i = 0; i < brokers; i++) {
        put(c, 4, i + 1);
        put_string(c, "127.0.0.1", 9);
        put(c, 4, ports[i]);
        if (version >= 1)
            put_length(c, 2, -1); /* rack */
        put_tags(c);
    }
    if (version >= 2)
        put_string(c, "sink", 4);
    if (version >= 1)
        put(c, 4, 1); /* controller */
    int64_t asked = get_length(in, 4);
    /* All topics: those that were asked for by name so far. */
    if (asked < 0 || (version == 0 && asked == 0)) {
        put_length(c, 4, topics_count);
        for (int i = 0; i < topics_count; i++)
            metadata_of_topic(c, version, &topics[i]);
    } else {
        put_length(c, 4, asked);
        for (int64_t i = 0; i < asked && !in->bad; i++) {
            const uint8_t *id = version >= 10 ? take(in, 16) : NULL;
            int64_t length;
            const uint8_t *name = get_string(in, &length);
            skip_tags(in);
            const struct topic *topic = name != NULL ? topic_by_name(name, (int)length)
                                        : id != NULL ? topic_by_id(id) : NULL;
            if (topic == NULL)
                in->bad = 1;
            else
                metadata_of_topic(c, version, topic);
        }
    }
    if (version >= 8 && version <= 10)
        put(c, 4, INT32_MIN); /* the cluster's authorized operations */
    if (version >= 13)
        put(c, 2, 0);
    put_tags(c);
}

static void init_producer_id(struct connection *c) {
    static int64_t last_id;
    put(c, 4, 0); /* throttle time */
    put(c, 2, 0);
    put(c, 8, ++last_id);
    put(c, 2, 0); /* epoch */
    put_tags(c);
}

/* Returns whether the producer wants an answer (acks is not 0). */
static int produce(struct connection *c, struct reader *in, int version) {
    int64_t length;
    get_string(in, &length); /* transactional id */
    int acks = (int)get(in, 2);
    get(in, 4); /* timeout */
    int64_t topics_left = get_length(in, 4);
    put_length(c, 4, topics_left);
    for (; topics_left > 0 && !in->bad; topics_left--) {
        struct topic *topic;
        if (version >= 13) {
            const uint8_t *id = take(in, 16);
            topic = id != NULL ? topic_by_id(id) : NULL;
        } else {
            const uint8_t *name = get_string(in, &length);
            topic = name != NULL ? topic_by_name(name, (int)length) : NULL;
        }
        if (topic == NULL) {
            in->bad = 1;
            break;
        }
        if (version >= 13)
            put_bytes(c, topic->id, 16);
        else
            put_string(c, topic->name, topic->length);
        int64_t left = get_length(in, 4);
        put_length(c, 4, left);
        for (; left > 0 && !in->bad; left--) {
            int32_t partition = (int32_t)get(in, 4);
            int64_t size = get_length(in, 4);
            const uint8_t *batch = take(in, size);
            skip_tags(in);
            if (batch == NULL || size < BATCH_HEADER || partition < 0 || partition >= partitions) {
                in->bad = 1;
                break;
            }
            struct reader number = {batch + RECORD_COUNT_AT, batch + BATCH_HEADER, 0, 0};
            int64_t records = get(&number, 4);
            count.batches++;
            count.records += records;
            count.batch_bytes += size;
            put(c, 4, partition);
            put(c, 2, 0);
            put(c, 8, topic->end[partition]);
            put(c, 8, -1); /* append time: the records' own timestamps count */
            if (version >= 5)
                put(c, 8, 0); /* log start offset */
            if (version >= 8) {
                put_length(c, 4, 0);  /* errors of single records */
                put_length(c, 2, -1); /* error message */
            }
            put_tags(c);
            topic->end[partition] += records;
        }
        skip_tags(in);
        put_tags(c);
    }
    put(c, 4, 0); /* throttle time */
    put_tags(c);
    return acks != 0;
}

static int is_flexible(int api, int version) {
    switch (api) {
    case PRODUCE: return version >= 9;
    case METADATA: return version >= 9;
    case API_VERSIONS: return version >= 3;
    case INIT_PRODUCER_ID: return version >= 2;
    default: return 0;
    }
}

/* Returns 0, or -1 to close the connection. */
static int answer(struct connection *c, const uint8_t *frame, size_t size) {
    struct reader in = {frame, frame + size, 0, 0};
    int api = (int)get(&in, 2), version = (int)get(&in, 2);
    int32_t correlation = (int32_t)get(&in, 4);
    int64_t length = get(&in, 2); /* the client id's length is not compact in any version */
    if (length > 0)
        take(&in, length);
    in.flexible = c->flexible = is_flexible(api, version);
    skip_tags(&in);
    count.requests++;
    if (api >= 0 && api < API_KEYS)
        count.by_api[api]++;

    size_t start = c->filled;
    int wanted = 1;
    put(c, 4, 0); /* length, known below */
    put(c, 4, correlation);
    if (api != API_VERSIONS) /* its answer has header version 0 always */
        put_tags(c);
    switch (api) {
    case PRODUCE: wanted = produce(c, &in, version); break;
    case METADATA: metadata(c, &in, version); break;
    case API_VERSIONS: api_versions(c, version); break;
    case INIT_PRODUCER_ID: init_producer_id(c); break;
    default:
        fprintf(stderr, "sink: a client sent API %d version %d, which the sink has not\n", api, version);
        return -1;
    }
    if (in.bad) {
        fprintf(stderr, "sink: malformed request, API %d version %d, %zu bytes\n", api, version, size);
        return -1;
    }
    if (!wanted) {
        c->filled = start;
        return 0;
    }
    uint32_t written = htonl((uint32_t)(c->filled - start - 4));
    memcpy(c->output + start, &written, 4);
    return 0;
}

/* -- sockets ------------------------------------------------------------------------------------------------------- */

static int epoll;

static void watch(int fd, void *data, uint32_t events, int operation) {
    struct epoll_event event = {.events = events, .data.ptr = data};
    if (epoll_ctl(epoll, operation, fd, &event))
        fail("epoll_ctl: %s", strerror(errno));
}

static void end(struct connection *c) {
    close(c->fd);
    free(c->input);
    free(c->output);
    free(c);
}

/* Returns 0, or -1 if the connection has broken. */
static int flush(struct connection *c) {
    while (c->sent < c->filled) {
        ssize_t n = send(c->fd, c->output + c->sent, c->filled - c->sent, MSG_NOSIGNAL);
        if (n < 0) {
            if (errno == EINTR)
                continue;
            if (errno != EAGAIN)
                return -1;
            if (!c->stalled) {
                watch(c->fd, c, EPOLLIN | EPOLLOUT, EPOLL_CTL_MOD);
                c->stalled = 1;
            }
            return 0;
        }
        c->sent += n;
        count.bytes_out += n;
    }
    c->sent = c->filled = 0;
    if (c->stalled) {
        watch(c->fd, c, EPOLLIN, EPOLL_CTL_MOD);
        c->stalled = 0;
    }
    return 0;
}

/* Reads once and answers the requests that are complete. Returns 0, or -1 to close the connection. */
static int serve(struct connection *c) {
    ssize_t n = recv(c->fd, c->input + c->have, c->input_size - c->have, 0);
    if (n <= 0)
        return n < 0 && (errno == EAGAIN || errno == EINTR) ? 0 : -1;
    count.bytes_in += n;
    c->have += n;
    size_t at = 0, need = 0;
    while (c->have - at >= 4) {
        uint32_t size;
        memcpy(&size, c->input + at, 4);
        size = ntohl(size);
        if (size > MAX_FRAME) {
            fprintf(stderr, "sink: a request of %u bytes\n", size);
            return -1;
        }
        if (size > count.largest)
            count.largest = size;
        need = (size_t)size + 4;
        if (c->have - at < need)
            break;
        if (answer(c, c->input + at + 4, size))
            return -1;
        at += need;
    }
    c->have -= at;
    if (at > 0 && c->have > 0)
        memmove(c->input, c->input + at, c->have);
    if (need > c->input_size) {
        c->input_size = need;
        c->input = grown(c->input, need);
    }
    return flush(c);
}

static void accept_one(int listener) {
    int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0)
        return;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int));
    struct connection *c = memset(grown(NULL, sizeof *c), 0, sizeof *c);
    c->fd = fd;
    c->input_size = FIRST_INPUT;
    c->input = grown(NULL, c->input_size);
    count.connections++;
    watch(fd, c, EPOLLIN, EPOLL_CTL_ADD);
}

static int listen_on_loopback(uint16_t *port) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0 || bind(fd, (struct sockaddr *)&address, size) || listen(fd, 128)
        || getsockname(fd, (struct sockaddr *)&address, &size))
        fail("listening: %s", strerror(errno));
    *port = ntohs(address.sin_port);
    return fd;
}

/* -- commands ------------------------------------------------------------------------------------------------------ */

static void print_stats(void) {
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    printf("{\"requests\": %lu, \"produce_requests\": %lu, \"metadata_requests\": %lu, \"batches\": %lu, "
           "\"records\": %lu, \"batch_bytes\": %lu, \"bytes_in\": %lu, \"bytes_out\": %lu, \"connections\": %lu, "
           "\"largest_request\": %lu, \"cpu_seconds\": %.6f}\n",
           count.requests, count.by_api[PRODUCE], count.by_api[METADATA], count.batches, count.records,
           count.batch_bytes, count.bytes_in, count.bytes_out, count.connections, count.largest,
           usage.ru_utime.tv_sec + usage.ru_stime.tv_sec
               + (usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6);
}

static void obey(void) {
    static char line[64];
    static size_t have;
    ssize_t n = read(STDIN_FILENO, line + have, sizeof line - 1 - have);
    if (n <= 0)
        exit(0);
    have += n;
    for (char *end; (end = memchr(line, '\n', have)) != NULL;) {
        *end = 0;
        if (!strcmp(line, "stats"))
            print_stats();
        else if (!strcmp(line, "reset")) {
            memset(&count, 0, sizeof count);
            puts("ok");
        } else
            fail("unknown command \"%s\"", line);
        have -= end + 1 - line;
        memmove(line, end + 1, have);
    }
    if (have == sizeof line - 1)
        fail("a command of %zu bytes without an end", have);
}

int main(int argc, char **argv) {
    if (argc != 3 || (brokers = atoi(argv[1])) < 1 || (partitions = atoi(argv[2])) < 1)
        fail("usage: sink BROKERS PARTITIONS, both at least 1");
    setvbuf(stdout, NULL, _IOLBF, 0);
    memset(buckets, -1, sizeof buckets);
    epoll = epoll_create1(EPOLL_CLOEXEC);
    ports = grown(NULL, brokers * sizeof *ports);
    /* What an event belongs to: a pointer into this table for listeners, NULL for standard input. */
    int *listeners = grown(NULL, brokers * sizeof *listeners);
    printf("ready");
    for (int i = 0; i < brokers; i++) {
        listeners[i] = listen_on_loopback(&ports[i]);
        watch(listeners[i], &listeners[i], EPOLLIN, EPOLL_CTL_ADD);
        printf(" %u", ports[i]);
    }
    putchar('\n');
    watch(STDIN_FILENO, NULL, EPOLLIN, EPOLL_CTL_ADD);
    for (;;) {
        struct epoll_event events[EVENTS];
        int n = epoll_wait(epoll, events, EVENTS, -1);
        if (n < 0 && errno != EINTR)
            fail("epoll_wait: %s", strerror(errno));
        for (int i = 0; i < n; i++) {
            void *of = events[i].data.ptr;
            if (of == NULL)
                obey();
            else if ((int *)of >= listeners && (int *)of < listeners + brokers)
                accept_one(*(int *)of);
            else {
                struct connection *c = of;
                int broken = events[i].events & EPOLLOUT ? flush(c) : 0;
                if (broken || (events[i].events & ~EPOLLOUT && serve(c)))
                    end(c);
            }
        }
    }
}
