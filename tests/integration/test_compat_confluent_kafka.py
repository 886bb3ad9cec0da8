"""A service written for confluent-kafka, with kprod put in, on real Kafka."""

from __future__ import annotations

import json
from typing import Any

import confluent_kafka as peer
import pytest

from kprod.compat import confluent_kafka as compat
from tests.conftest import TopicFactory
from tests.kafka.cluster import KafkaCluster
from tests.kafka.readers import read_confluent


class Service:
    """What such a service does: an event comes in, is produced, and failures are kept for a retry.

    Args:
        library: confluent_kafka, or what stands in for it.
        conf: librdkafka's options.
        topic: where the events go.
    """

    def __init__(self, library: Any, conf: dict[str, Any], topic: str) -> None:
        self._library = library
        self._producer = library.Producer(conf)
        self._topic = topic
        self.failed: list[tuple[int, bytes]] = []
        self.delivered: dict[int, list[int]] = {}

    def handle(self, event: dict[str, Any]) -> None:
        while True:
            try:
                self._producer.produce(
                    self._topic,
                    json.dumps(event),
                    event["user"],
                    on_delivery=self._report,
                    headers={"kind": event["kind"]},
                )
                break
            except BufferError:
                self._producer.poll(0.1)
        self._producer.poll(0)

    def _report(self, error: Any, message: Any) -> None:
        if error is not None:
            self.failed.append((error.code(), message.value()))
        else:
            self.delivered.setdefault(message.partition(), []).append(message.offset())

    def stop(self) -> int:
        return int(self._producer.flush(30))


@pytest.mark.parametrize("compression", ["none", "lz4", "zstd"])
def test_a_service_does_the_same_with_either_library(
    kafka: KafkaCluster, topic: TopicFactory, compression: str
) -> None:
    seen = []
    for library in (peer, compat):
        name = topic(4)
        conf = {
            "bootstrap.servers": kafka.bootstrap_servers,
            "queue.buffering.max.messages": 500,
            "compression.type": compression,
            "acks": "all",
            "enable.idempotence": True,
        }
        service = Service(library, conf, name)
        for number in range(3000):
            service.handle({"user": f"user-{number % 97}", "kind": "click", "number": number})
        assert service.stop() == 0
        assert service.failed == []
        assert sum(len(offsets) for offsets in service.delivered.values()) == 3000
        assert all(offsets == sorted(offsets) for offsets in service.delivered.values())
        records = read_confluent(kafka.bootstrap_servers, name)
        assert len(records) == 3000
        seen.append(sorted((r.partition, r.offset, r.key, r.value, tuple(r.headers or ())) for r in records))
    assert seen[0] == seen[1]


def test_transactions_with_the_offsets_of_a_consumer(kafka: KafkaCluster, topic: TopicFactory) -> None:
    source, sink = topic(1), topic(1)
    with compat.Producer({"bootstrap.servers": kafka.bootstrap_servers}) as feeder:
        for number in range(10):
            feeder.produce(source, b"%d" % number)
    consumer = peer.Consumer(
        {
            "bootstrap.servers": kafka.bootstrap_servers,
            "group.id": f"group-{source}",
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
        }
    )
    consumer.subscribe([source])
    producer = compat.Producer(
        {"bootstrap.servers": kafka.bootstrap_servers, "transactional.id": f"tx-{sink}"}
    )
    producer.init_transactions(30)
    read = 0
    while read < 10:
        message = consumer.poll(30)
        assert message is not None
        assert message.error() is None
        read += 1
        producer.begin_transaction()
        producer.produce(sink, b"of " + (message.value() or b""))
        positions = consumer.position(consumer.assignment())
        producer.send_offsets_to_transaction(positions, consumer.consumer_group_metadata(), 30)
        if read % 2:
            producer.commit_transaction(30)
        else:
            producer.abort_transaction(30)
    producer.close()
    committed = consumer.committed([peer.TopicPartition(source, 0)], 30)[0].offset
    consumer.close()
    assert committed == 9, "the last transaction, for the tenth, was aborted"
    values = [r.value for r in read_confluent(kafka.bootstrap_servers, sink, isolation="read_committed")]
    assert values == [b"of %d" % number for number in range(0, 10, 2)]


def test_list_topics_sees_what_the_original_sees(kafka: KafkaCluster, topic: TopicFactory) -> None:
    name = topic(3)
    conf = {"bootstrap.servers": kafka.bootstrap_servers}
    theirs = peer.Producer(conf).list_topics(timeout=30)
    producer = compat.Producer(conf)
    mine = producer.list_topics(timeout=30)
    producer.close()
    assert mine.cluster_id == theirs.cluster_id
    assert set(mine.brokers) == set(theirs.brokers)
    assert name in mine.topics
    for number, partition in theirs.topics[name].partitions.items():
        described = mine.topics[name].partitions[number]
        assert (described.leader, described.replicas, described.isrs) == (
            partition.leader,
            partition.replicas,
            partition.isrs,
        )
