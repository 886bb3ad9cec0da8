"""The mock cluster against independent clients: what they write and read is the same, what is wrong is
refused.

None of this uses kprod's own producer.
"""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import Iterator
from typing import Any

import aiokafka
import confluent_kafka
import pytest

from kprod.testing import MockCluster

with warnings.catch_warnings():
    # kafka-python reads its message definitions with a deprecated function.
    warnings.simplefilter("ignore", DeprecationWarning)
    import kafka

CODECS = ("none", "gzip", "snappy", "lz4", "zstd")
COUNT = 300
QUIET = {"log_level": 0}

Message = tuple[int, "bytes | None", "bytes | None", tuple[tuple[str, bytes], ...], int]
"""partition, key, value, headers, time stamp"""


def messages() -> list[Message]:
    """Keys, null keys, null and empty values, headers, and values that compress and that do not."""
    made: list[Message] = []
    for i in range(COUNT):
        value = [b"value %d " % i * (i % 50), b"", None, bytes(j * i % 256 for j in range(200))][i % 4]
        # kafka-python refuses records with neither key nor value.
        key = None if i % 7 == 0 and value is not None else b"key-%d" % (i % 20)
        headers = tuple((f"h{j}", b"x" * j) for j in range(i % 3))
        made.append((i % 3, key, value, headers, 1_700_000_000_000 + i))
    return made


@pytest.fixture(scope="module")
def cluster() -> Iterator[MockCluster]:
    with MockCluster(3) as cluster:
        yield cluster
        assert cluster.problems == []


@pytest.fixture
def topic(cluster: MockCluster, request: pytest.FixtureRequest) -> str:
    name = "".join(c if c.isalnum() else "-" for c in request.node.name)
    cluster.create_topic(name, 3)
    return name


def stored(cluster: MockCluster, topic: str) -> list[Message]:
    return [
        (r.partition, r.key, r.value, tuple((k, v or b"") for k, v in r.headers), r.timestamp)
        for r in cluster.records(topic)
    ]


def in_partition_order(made: list[Message]) -> list[Message]:
    return sorted(made, key=lambda m: m[0])


def produce_with_confluent(
    servers: str, topic: str, made: list[Message], codec: str, idempotent: bool
) -> None:
    producer = confluent_kafka.Producer(
        {
            "bootstrap.servers": servers,
            "compression.type": codec,
            "enable.idempotence": idempotent,
            "linger.ms": 2,
            **QUIET,
        }
    )
    errors: list[Any] = []
    for partition, key, value, headers, timestamp in made:
        producer.produce(
            topic,
            value=value,
            key=key,
            partition=partition,
            headers=list(headers),
            timestamp=timestamp,
            on_delivery=lambda error, message: errors.append(error) if error else None,
        )
    assert producer.flush(10) == 0
    assert errors == []


def produce_with_kafka_python(
    servers: str, topic: str, made: list[Message], codec: str, idempotent: bool
) -> None:
    producer = kafka.KafkaProducer(
        bootstrap_servers=servers,
        compression_type=None if codec == "none" else codec,
        enable_idempotence=idempotent,
        linger_ms=2,
    )
    futures = [
        producer.send(topic, value, key, list(headers), partition, timestamp)
        for partition, key, value, headers, timestamp in made
    ]
    try:
        producer.flush(10)
        for future in futures:
            future.get(1)
    finally:
        producer.close(1)


def produce_with_aiokafka(
    servers: str, topic: str, made: list[Message], codec: str, idempotent: bool
) -> None:
    async def run() -> None:
        producer = aiokafka.AIOKafkaProducer(
            bootstrap_servers=servers,
            compression_type=None if codec == "none" else codec,
            enable_idempotence=idempotent,
            linger_ms=2,
        )
        await producer.start()
        try:
            futures = [
                await producer.send(topic, value, key, partition, timestamp, list(headers))
                for partition, key, value, headers, timestamp in made
            ]
            await producer.flush()
            await asyncio.gather(*futures)
        finally:
            await producer.stop()

    asyncio.run(run())


def consume_with_confluent(servers: str, topic: str, isolation: str = "read_uncommitted") -> list[Message]:
    consumer = confluent_kafka.Consumer(
        {
            "bootstrap.servers": servers,
            "group.id": "reader",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "isolation.level": isolation,
            **QUIET,
        }
    )
    read: list[Message] = []
    try:
        consumer.assign([confluent_kafka.TopicPartition(topic, p, 0) for p in range(3)])
        at_end: set[int] = set()
        while len(at_end) < 3:
            message = consumer.poll(10)
            assert message is not None, "no message and no end of a partition within 10 seconds"
            error = message.error()
            if error is not None:
                assert error.code() == confluent_kafka.KafkaError._PARTITION_EOF, error
                at_end.add(message.partition())
                continue
            headers = tuple(message.headers() or ())
            read.append(
                (message.partition(), message.key(), message.value(), headers, message.timestamp()[1])
            )
    finally:
        consumer.close()
    return read


def consume_with_kafka_python(servers: str, topic: str, isolation: str = "read_uncommitted") -> list[Message]:
    consumer = kafka.KafkaConsumer(bootstrap_servers=servers, isolation_level=isolation, check_crcs=True)
    read: list[Message] = []
    try:
        partitions = [kafka.TopicPartition(topic, p) for p in range(3)]
        ends = consumer.end_offsets(partitions)
        consumer.assign(partitions)
        consumer.seek_to_beginning()
        while any(consumer.position(p) < ends[p] for p in partitions):
            for records in consumer.poll(10_000).values():
                read += [(r.partition, r.key, r.value, tuple(r.headers), r.timestamp) for r in records]
    finally:
        consumer.close()
    return read


PRODUCERS = {
    "confluent-kafka": produce_with_confluent,
    "kafka-python": produce_with_kafka_python,
    "aiokafka": produce_with_aiokafka,
}
CONSUMERS = {"confluent-kafka": consume_with_confluent, "kafka-python": consume_with_kafka_python}


@pytest.mark.parametrize("idempotent", [True, False], ids=["idempotent", "plain"])
@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("client", PRODUCERS)
def test_what_a_client_produces_is_there(
    cluster: MockCluster, topic: str, client: str, codec: str, idempotent: bool
) -> None:
    made = messages()
    PRODUCERS[client](cluster.bootstrap_servers, topic, made, codec, idempotent)
    assert stored(cluster, topic) == in_partition_order(made)
    batches = cluster.batches(topic)
    # A client may leave a batch alone that would not shrink.
    assert codec in {b.compression for b in batches} <= {codec, "none"}
    records = cluster.records(topic)
    assert [r.offset for r in records] == [r for p in range(3) for r in range(COUNT // 3)]
    if idempotent:
        assert len({r.producer_id for r in records}) == 1
        assert records[0].producer_id >= 0
        assert [r.sequence for r in records] == [r.offset for r in records]
    else:
        assert {(r.producer_id, r.sequence) for r in records} == {(-1, -1)}


@pytest.mark.parametrize("reader", CONSUMERS)
def test_consumers_read_what_is_there(cluster: MockCluster, topic: str, reader: str) -> None:
    made = messages()
    for codec in CODECS:
        produce_with_confluent(cluster.bootstrap_servers, topic, made, codec, False)
    assert {b.compression for b in cluster.batches(topic)} == set(CODECS)
    read = CONSUMERS[reader](cluster.bootstrap_servers, topic)
    assert in_partition_order(read) == in_partition_order(made * len(CODECS))


@pytest.mark.parametrize("version", ["2.1", "2.8", "4.0"])
def test_clients_work_with_older_releases(version: str) -> None:
    made = messages()
    with MockCluster(2, as_version=version) as cluster:
        for client, produce in PRODUCERS.items():
            cluster.create_topic(client, 3)
            produce(cluster.bootstrap_servers, client, made, "zstd", client != "confluent-kafka")
            assert stored(cluster, client) == in_partition_order(made)
        for consume in CONSUMERS.values():
            read = consume(cluster.bootstrap_servers, "aiokafka")
            assert in_partition_order(read) == in_partition_order(made)
        assert cluster.problems == []


def test_cluster_in_a_process_of_its_own() -> None:
    made = messages()
    with MockCluster(2, process=True) as cluster:
        cluster.create_topic("topic", 3)
        produce_with_confluent(cluster.bootstrap_servers, "topic", made, "lz4", False)
        assert cluster.wait_for(COUNT, "topic") == COUNT
        assert stored(cluster, "topic") == in_partition_order(made)
        read = consume_with_kafka_python(cluster.bootstrap_servers, "topic")
        assert in_partition_order(read) == in_partition_order(made)
        produced = cluster.requests_of("Produce")
        assert sum(sum(r.partitions.values()) for r in produced) == sum(
            len(b.data) for b in cluster.batches("topic")
        )


@pytest.mark.parametrize("version", ["2.5", "4.1"])
def test_transactions_of_confluent(version: str) -> None:
    with MockCluster(2, as_version=version) as cluster:
        cluster.create_topic("t", 3)
        producer = confluent_kafka.Producer(
            {"bootstrap.servers": cluster.bootstrap_servers, "transactional.id": "T", **QUIET}
        )
        producer.init_transactions(10)
        for number, commit in enumerate((True, False, True)):
            producer.begin_transaction()
            for partition in range(3):
                producer.produce("t", b"%d" % number, partition=partition)
            if commit:
                producer.commit_transaction(10)
            else:
                assert producer.flush(10) == 0
                producer.abort_transaction(10)
        for consume in CONSUMERS.values():
            committed = consume(cluster.bootstrap_servers, "t", "read_committed")
            assert sorted((m[0], m[2]) for m in committed) == [(p, v) for p in range(3) for v in (b"0", b"2")]
            read = consume(cluster.bootstrap_servers, "t")
            assert sorted((m[0], m[2]) for m in read) == [
                (p, v) for p in range(3) for v in (b"0", b"1", b"2")
            ]


def test_open_transaction_is_hidden_and_its_producer_can_be_fenced(cluster: MockCluster, topic: str) -> None:
    config = {"bootstrap.servers": cluster.bootstrap_servers, "transactional.id": topic, **QUIET}
    first = confluent_kafka.Producer(config)
    first.init_transactions(10)
    first.begin_transaction()
    first.produce(topic, b"lost", partition=1)
    assert first.flush(10) == 0
    assert consume_with_confluent(cluster.bootstrap_servers, topic, "read_committed") == []
    second = confluent_kafka.Producer(config)
    second.init_transactions(10)
    with pytest.raises(confluent_kafka.KafkaException) as caught:
        first.commit_transaction(10)
    assert caught.value.args[0].code() == confluent_kafka.KafkaError._FENCED
    second.begin_transaction()
    second.produce(topic, b"kept", partition=1)
    second.commit_transaction(10)
    read = consume_with_confluent(cluster.bootstrap_servers, topic, "read_committed")
    assert [m[2] for m in read] == [b"kept"]


def test_offsets_in_a_transaction(cluster: MockCluster, topic: str) -> None:
    producer = kafka.KafkaProducer(bootstrap_servers=cluster.bootstrap_servers, transactional_id=topic)
    producer.init_transactions()
    offsets = {kafka.TopicPartition(topic, 0): kafka.structs.OffsetAndMetadata(5, "note", -1)}
    for commit in (False, True):
        producer.begin_transaction()
        producer.send(topic, b"x", partition=0)
        producer.send_offsets_to_transaction(offsets, f"group of {topic}")
        assert cluster.committed_offsets(f"group of {topic}") == {}
        if commit:
            producer.commit_transaction()
        else:
            producer.abort_transaction()
    assert cluster.committed_offsets(f"group of {topic}") == {(topic, 0): 5}
    producer.close()


def test_consumer_group(cluster: MockCluster, topic: str) -> None:
    produce_with_confluent(cluster.bootstrap_servers, topic, messages(), "none", False)
    for position in (0, 1):
        consumer = confluent_kafka.Consumer(
            {
                "bootstrap.servers": cluster.bootstrap_servers,
                "group.id": topic,
                "auto.offset.reset": "earliest",
                "enable.auto.commit": False,
                "enable.partition.eof": True,
                **QUIET,
            }
        )
        consumer.subscribe([topic])
        read = 0
        at_end: set[int] = set()
        while len(at_end) < 3:
            message = consumer.poll(10)
            assert message is not None
            if message.error() is not None:
                at_end.add(message.partition())
            else:
                read += 1
        # The second time the group goes on where it stopped.
        assert read == (COUNT if position == 0 else 0)
        if read:
            consumer.commit(asynchronous=False)
        consumer.close()
    assert cluster.committed_offsets(topic) == {(topic, p): COUNT // 3 for p in range(3)}


def test_offsets_by_time(cluster: MockCluster, topic: str) -> None:
    produce_with_confluent(cluster.bootstrap_servers, topic, messages(), "gzip", False)
    consumer = kafka.KafkaConsumer(bootstrap_servers=cluster.bootstrap_servers)
    partition = kafka.TopicPartition(topic, 1)
    # Partition 1 has the time stamps base + 1, base + 4, base + 7, ...
    found = consumer.offsets_for_times({partition: 1_700_000_000_000 + 5})
    assert (found[partition].offset, found[partition].timestamp) == (2, 1_700_000_000_007)
    assert consumer.beginning_offsets([partition]) == {partition: 0}
    assert consumer.end_offsets([partition]) == {partition: COUNT // 3}
    consumer.close()


def test_admin_clients(cluster: MockCluster) -> None:
    from confluent_kafka.admin import AdminClient, NewPartitions, NewTopic

    admin = AdminClient({"bootstrap.servers": cluster.bootstrap_servers, **QUIET})
    admin.create_topics([NewTopic("made", 2, 1, config={"max.message.bytes": "2000"})])["made"].result(10)
    assert cluster.topics()["made"] == 2
    with pytest.raises(confluent_kafka.KafkaException, match="TOPIC_ALREADY_EXISTS"):
        admin.create_topics([NewTopic("made", 2, 1)])["made"].result(10)
    with pytest.raises(confluent_kafka.KafkaException, match="INVALID_REPLICATION_FACTOR"):
        admin.create_topics([NewTopic("other", 2, 9)])["other"].result(10)
    admin.create_partitions([NewPartitions("made", 5)])["made"].result(10)
    assert cluster.topics()["made"] == 5
    description = admin.describe_cluster().result(10)
    assert {node.id for node in description.nodes} == {1, 2, 3}
    admin.delete_topics(["made"])["made"].result(10)
    assert "made" not in cluster.topics()


def test_clients_survive_what_happens_in_a_cluster() -> None:
    """Leader moves, a stopped and restarted broker, a lost response: idempotent producers lose and repeat
    nothing.
    """
    made = messages()
    with MockCluster(3, replication_factor=2) as cluster:
        cluster.create_topic("t", 3)
        cluster.inject("Produce", close_connection="after", skip=1)
        cluster.inject("Produce", "NOT_LEADER_OR_FOLLOWER", skip=3)
        produce_with_confluent(cluster.bootstrap_servers, "t", made[:100], "none", True)
        cluster.move_leader("t", 0, 3)
        cluster.stop_broker(2)
        produce_with_confluent(cluster.bootstrap_servers, "t", made[100:200], "none", True)
        cluster.start_broker(2)
        cluster.stop_broker(1)
        produce_with_confluent(cluster.bootstrap_servers, "t", made[200:], "none", True)
        assert stored(cluster, "t") == in_partition_order(made)
