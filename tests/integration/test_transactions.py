"""Transactions on real Kafka, read back by consumers that know nothing of kprod."""

from __future__ import annotations

import re
import secrets
import threading
from collections.abc import Iterator
from typing import Any

import confluent_kafka
import kafka as kafka_python
import pytest

from kprod import KafkaProducer, errors
from tests.conftest import TopicFactory
from tests.integration.conftest import MakeProducer
from tests.kafka.cluster import KafkaCluster, wait_until
from tests.kafka.readers import read_confluent


@pytest.fixture
def transactional_id() -> str:
    """One that no other test has."""
    return f"tx-{secrets.token_hex(4)}"


@pytest.fixture
def tx(kafka: KafkaCluster, make_producer: MakeProducer, transactional_id: str) -> KafkaProducer:
    """A producer that is ready for transactions on the one-node cluster."""
    producer = make_producer(kafka, transactional_id=transactional_id)
    producer.init_transactions()
    return producer


def committed(cluster: KafkaCluster, topic: str) -> list[tuple[int, bytes | None]]:
    """(partition, value) of what librdkafka's consumer of committed records sees."""
    found = read_confluent(cluster.bootstrap_servers, topic, isolation="read_committed")
    return [(record.partition, record.value) for record in found]


def committed_by_kafka_python(cluster: KafkaCluster, topic: str, count: int) -> list[tuple[int, bytes]]:
    """The same by kafka-python; ``count`` records at least, and what comes within another second."""
    consumer: Any = kafka_python.KafkaConsumer(
        bootstrap_servers=cluster.bootstrap_servers,
        isolation_level="read_committed",
        auto_offset_reset="earliest",
        group_id=None,
        fetch_max_wait_ms=20,
    )
    try:
        numbers = sorted(consumer.partitions_for_topic(topic))
        consumer.assign([kafka_python.TopicPartition(topic, number) for number in numbers])
        found: list[tuple[int, bytes]] = []
        silent = 0
        while silent < 4:
            batches = consumer.poll(timeout_ms=250)
            silent = 0 if batches or len(found) < count else silent + 1
            found += [(r.partition, r.value) for records in batches.values() for r in records]
        return sorted(found)
    finally:
        consumer.close()


def group_offsets(cluster: KafkaCluster, group: str, topic: str) -> list[int]:
    """What a group has committed for the partitions of a topic; -1 for none."""
    consumer = confluent_kafka.Consumer({"bootstrap.servers": cluster.bootstrap_servers, "group.id": group})
    try:
        places = [confluent_kafka.TopicPartition(topic, p) for p in range(cluster.topics()[topic])]
        return [max(place.offset, -1) for place in consumer.committed(places, timeout=30)]
    finally:
        consumer.close()


def test_what_consumers_of_committed_records_see(
    kafka: KafkaCluster, topic: TopicFactory, tx: KafkaProducer
) -> None:
    topics = [topic(partitions=3), topic(partitions=1)]
    expected: dict[str, list[tuple[int, bytes]]] = {name: [] for name in topics}
    for round_ in range(9):
        tx.begin_transaction()
        for name, partitions in zip(topics, (3, 1), strict=True):
            for partition in range(partitions):
                for i in range(5):
                    value = b"%d-%d-%d" % (round_, partition, i)
                    tx.send(name, value, partition=partition)
                    if round_ % 3 != 2:
                        expected[name].append((partition, value))
        if round_ % 3 == 2:
            tx.flush()
            tx.abort_transaction()
        else:
            tx.commit_transaction()
    tx.begin_transaction()
    for name in topics:
        tx.send(name, b"open", partition=0)
    tx.flush()
    for name in topics:
        wanted = sorted(expected[name])
        assert sorted(committed(kafka, name)) == wanted
        assert committed_by_kafka_python(kafka, name, len(wanted)) == wanted
        uncommitted = read_confluent(kafka.bootstrap_servers, name, isolation="read_uncommitted")
        assert len(uncommitted) == len(wanted) * 9 // 6 + 1, "the aborted and the open ones are in the log"
    tx.abort_transaction()


def test_order_within_a_partition(kafka: KafkaCluster, topic: TopicFactory, tx: KafkaProducer) -> None:
    name = topic(partitions=2)
    expected: list[tuple[int, bytes]] = []
    for round_ in range(10):
        with tx.transaction():
            for i in range(500):
                value = b"%06d" % (round_ * 500 + i)
                tx.send(name, value, partition=i % 2)
                expected.append((i % 2, value))
    assert committed(kafka, name) == sorted(expected)


def test_offsets_are_committed_with_the_records_or_not_at_all(
    kafka: KafkaCluster, topic: TopicFactory, tx: KafkaProducer
) -> None:
    source, target = topic(partitions=2), topic()
    group = f"group-{secrets.token_hex(4)}"
    consumer = confluent_kafka.Consumer(
        {"bootstrap.servers": kafka.bootstrap_servers, "group.id": group, "enable.auto.commit": False}
    )
    consumer.subscribe([source])
    wait_until(lambda: consumer.poll(0.1) or consumer.assignment(), "partitions")
    try:
        for offset, commits in ((1, True), (2, False), (3, True)):
            tx.begin_transaction()
            tx.send(target, b"%d" % offset)
            places = [confluent_kafka.TopicPartition(source, p, offset) for p in range(2)]
            tx.send_offsets_to_transaction(places, consumer.consumer_group_metadata())
            if commits:
                tx.commit_transaction()
            else:
                tx.abort_transaction()
            seen = [int(value or b"") for _, value in committed(kafka, target)]
            assert group_offsets(kafka, group, source) == [seen[-1]] * 2
        assert seen == [1, 3]
        stale = consumer.consumer_group_metadata()
    finally:
        consumer.close()
    # KIP-447: who has left the group cannot commit for it.
    tx.begin_transaction()
    tx.send(target, b"4")
    with pytest.raises(errors.CommitFailedError):
        tx.send_offsets_to_transaction({(source, 0): 4}, stale)
    tx.abort_transaction()
    assert group_offsets(kafka, group, source) == [3, 3]
    assert [value for _, value in committed(kafka, target)] == [b"1", b"3"]


def test_offsets_of_kafka_pythons_consumer(
    kafka: KafkaCluster, topic: TopicFactory, tx: KafkaProducer
) -> None:
    source = topic()
    group = f"group-{secrets.token_hex(4)}"
    consumer: Any = kafka_python.KafkaConsumer(
        source, bootstrap_servers=kafka.bootstrap_servers, group_id=group, enable_auto_commit=False
    )
    try:
        # kafka-python's consumer can take long to join the first group of a broker.
        wait_until(lambda: consumer.poll(timeout_ms=100) or consumer.assignment(), "partitions", timeout=90)
        place = kafka_python.TopicPartition(source, 0)
        with tx.transaction():
            tx.send_offsets_to_transaction(
                {place: kafka_python.OffsetAndMetadata(7, "note", -1)}, consumer.group_metadata()
            )
        # Decided is the commit once it is in the coordinator's log; the offset shows with the marker, later.
        wait_until(lambda: consumer.committed(place) is not None, "the offset", timeout=30)
        assert consumer.committed(place) == 7
    finally:
        consumer.close()


def test_fencing(
    kafka: KafkaCluster,
    topic: TopicFactory,
    tx: KafkaProducer,
    make_producer: MakeProducer,
    transactional_id: str,
) -> None:
    name = topic()
    tx.begin_transaction()
    tx.send(name, b"old").get(30)
    second = make_producer(kafka, transactional_id=transactional_id)
    second.init_transactions()
    with second.transaction():
        second.send(name, b"new")
    late = tx.send(name, b"late")
    with pytest.raises(errors.KafkaError):
        tx.commit_transaction()
    with pytest.raises(errors.KafkaError):
        late.get(0)
    with pytest.raises(errors.ProducerFencedError):
        tx.abort_transaction()
    with pytest.raises(errors.ProducerFencedError):
        tx.begin_transaction()
    with second.transaction():
        second.send(name, b"newer")
    assert committed(kafka, name) == [(0, b"new"), (0, b"newer")]


def test_a_producer_that_died_holds_nobody_up(
    kafka: KafkaCluster, topic: TopicFactory, make_producer: MakeProducer, transactional_id: str
) -> None:
    name = topic()
    first = make_producer(kafka, transactional_id=transactional_id)
    first.init_transactions()
    first.begin_transaction()
    first.send(name, b"left open").get(30)
    first.close(timeout=0)
    second = make_producer(kafka, transactional_id=transactional_id)
    second.init_transactions()
    with second.transaction():
        second.send(name, b"next")
    assert committed(kafka, name) == [(0, b"next")]


def test_several_threads_in_one_transaction(
    kafka: KafkaCluster, topic: TopicFactory, tx: KafkaProducer
) -> None:
    name = topic(partitions=4)

    def work(partition: int) -> None:
        for i in range(1000):
            tx.send(name, b"%06d" % i, partition=partition)

    with tx.transaction():
        threads = [threading.Thread(target=work, args=(partition,)) for partition in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert committed(kafka, name) == [(p, b"%06d" % i) for p in range(4) for i in range(1000)]


# -- brokers with other settings


@pytest.fixture(scope="module", params=["v1", "v2"])
def impatient(request: pytest.FixtureRequest) -> Iterator[KafkaCluster]:
    """A broker that looks for transactions that took too long every 300 ms, in both protocol versions."""
    with KafkaCluster(
        1,
        transaction_abort_timed_out_transaction_cleanup_interval_ms=300,
        transactional_id_expiration_ms=1000,
        transaction_remove_expired_transaction_cleanup_interval_ms=300,
    ) as cluster:
        set_transaction_version(cluster, 1 if request.param == "v1" else 2)
        yield cluster


def set_transaction_version(cluster: KafkaCluster, level: int) -> None:
    """Set the finalized feature transaction.version (KIP-890); a new cluster has 2."""
    if level < 2:
        cluster._run_tool(
            "org.apache.kafka.tools.FeatureCommand",
            "--bootstrap-server", cluster.bootstrap_servers,
            "downgrade", "--feature", f"transaction.version={level}",
        )  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("then", ["commit", "send", "abort"])
def test_the_same_producer_goes_on_after_a_transaction_that_took_too_long(
    impatient: KafkaCluster, make_producer: MakeProducer, transactional_id: str, then: str
) -> None:
    name = impatient.create_topic(f"too-long-{secrets.token_hex(4)}")
    tx = make_producer(impatient, transactional_id=transactional_id, transaction_timeout_ms=500)
    tx.init_transactions()
    tx.begin_transaction()
    tx.send(name, b"slow").get(30)

    def aborted() -> bool:
        # The abort marker takes an offset.
        return end_offset(impatient, name) == 2

    wait_until(aborted, "the coordinator's abort")
    if then == "send":
        late = tx.send(name, b"late")
        with pytest.raises(errors.KafkaError):
            late.get(30)
    if then != "abort":
        with pytest.raises(errors.TransactionAbortableError):
            tx.commit_transaction()
    tx.abort_transaction()
    for value in (b"1", b"2"):
        with tx.transaction():
            tx.send(name, value)
    assert committed(impatient, name) == [(0, b"1"), (0, b"2")]


@pytest.mark.slow
def test_the_same_producer_goes_on_after_its_id_was_forgotten(
    impatient: KafkaCluster, make_producer: MakeProducer, transactional_id: str
) -> None:
    """transactional.id.expiration.ms, seven days by default."""
    name = impatient.create_topic(f"idle-{secrets.token_hex(4)}")
    tx = make_producer(impatient, transactional_id=transactional_id)
    tx.init_transactions()
    with tx.transaction():
        tx.send(name, b"1")
    wait_until(lambda: transactional_id not in known_ids(impatient), "the coordinator to forget it", 60)
    tx.begin_transaction()
    tx.send(name, b"refused")
    with pytest.raises(errors.TransactionAbortableError):
        tx.commit_transaction()
    tx.abort_transaction()
    with tx.transaction():
        tx.send(name, b"2")
    assert committed(impatient, name) == [(0, b"1"), (0, b"2")]


def known_ids(cluster: KafkaCluster) -> str:
    """What Kafka's own tool says of the transactional ids that the coordinator knows."""
    return cluster._run_tool(
        "org.apache.kafka.tools.TransactionsCommand", "--bootstrap-server", cluster.bootstrap_servers, "list"
    )


def end_offset(cluster: KafkaCluster, topic: str) -> int:
    consumer = confluent_kafka.Consumer({"bootstrap.servers": cluster.bootstrap_servers, "group.id": "ends"})
    try:
        place = confluent_kafka.TopicPartition(topic, 0)
        return int(consumer.get_watermark_offsets(place, timeout=30, cached=False)[1])
    finally:
        consumer.close()


def test_both_versions_of_the_protocol_are_spoken(
    impatient: KafkaCluster,
    make_producer: MakeProducer,
    transactional_id: str,
    request: pytest.FixtureRequest,
) -> None:
    name = impatient.create_topic(f"versions-{secrets.token_hex(4)}")
    tx = make_producer(impatient, transactional_id=transactional_id)
    tx.init_transactions()
    for value in (b"1", b"2", b"3"):
        with tx.transaction():
            tx.send(name, value)
    # Records are at 0, 2 and 4, markers behind each. Version 2 has an epoch for each transaction.
    epochs = [batch.producer_epoch for batch in impatient.log_batches(name) if batch.base_offset % 2 == 0]
    assert epochs == ([0, 0, 0] if "v1" in request.node.callspec.id else [0, 1, 2])
    assert [value for _, value in committed(impatient, name)] == [b"1", b"2", b"3"]


# -- three nodes


@pytest.mark.slow
@pytest.mark.parametrize("victim", ["coordinator", "leader"])
def test_a_broker_is_killed_while_transactions_go_on(
    kafka3: KafkaCluster,
    topic3: TopicFactory,
    make_producer: MakeProducer,
    transactional_id: str,
    victim: str,
) -> None:
    name = topic3(partitions=3)
    tx = make_producer(kafka3, transactional_id=transactional_id, request_timeout_ms=5000)
    tx.init_transactions()
    node = coordinator_of(kafka3, transactional_id) if victim == "coordinator" else kafka3.leader(name)
    kept: list[bytes] = []

    def transaction(number: int) -> None:
        tx.begin_transaction()
        for partition in range(3):
            for i in range(20):
                tx.send(name, b"%04d-%02d" % (number, i), partition=partition)
        if number % 5 == 4:
            tx.abort_transaction()
            return
        tx.commit_transaction()
        kept.extend(b"%04d-%02d" % (number, i) for i in range(20))

    for number in range(10):
        transaction(number)
    killer = threading.Thread(target=kafka3.kill, args=(node,))
    number = 10
    while killer.ident is None or killer.is_alive() or number < 40:
        if number == 12:
            killer.start()
        transaction(number)
        number += 1
    killer.join()
    kafka3.start(node)
    for last in range(number, number + 5):
        transaction(last)
    assert committed(kafka3, name) == [(p, value) for p in range(3) for value in kept]


def coordinator_of(cluster: KafkaCluster, transactional_id: str) -> int:
    """The broker that coordinates the transactions of an id, by Kafka's own tool."""
    said = cluster._run_tool(
        "org.apache.kafka.tools.TransactionsCommand",
        "--bootstrap-server", cluster.bootstrap_servers, "describe", "--transactional-id", transactional_id,
    )  # fmt: skip
    found = re.search(rf"^(\d+)\s+{transactional_id}\s", said, re.MULTILINE)
    assert found is not None, said
    return int(found[1])
