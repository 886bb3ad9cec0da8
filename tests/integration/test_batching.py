"""Records travel in batches: what the partition's log says about them."""

from __future__ import annotations

from tests.conftest import TopicFactory
from tests.integration.conftest import MakeProducer
from tests.integration.expectations import outcomes
from tests.kafka.cluster import KafkaCluster


def test_linger_fills_batches(kafka: KafkaCluster, topic: TopicFactory, make_producer: MakeProducer) -> None:
    name = topic()
    producer = make_producer(kafka, linger_ms=200, batch_size=16384)
    outcomes([producer.send(name, b"x" * 100) for _ in range(5000)])
    batches = kafka.log_batches(name)
    assert sum(batch.records for batch in batches) == 5000
    assert max(batch.size for batch in batches) <= 16384
    # All but the last are full: no room was left for another record of about 110 bytes.
    assert all(batch.size > 16384 - 120 for batch in batches[:-1]), [batch.size for batch in batches]


def test_a_record_larger_than_batch_size_has_a_batch_of_its_own(
    kafka: KafkaCluster, topic: TopicFactory, make_producer: MakeProducer
) -> None:
    name = topic()
    producer = make_producer(kafka, linger_ms=200, batch_size=1000)
    outcomes([producer.send(name, b"x" * size) for size in (10, 5000, 10, 10)])
    assert [batch.records for batch in kafka.log_batches(name)] == [1, 1, 2]


def test_no_batching_without_batch_size(
    kafka: KafkaCluster, topic: TopicFactory, make_producer: MakeProducer
) -> None:
    name = topic()
    producer = make_producer(kafka, linger_ms=50, batch_size=0)
    outcomes([producer.send(name, b"x") for _ in range(50)])
    assert [batch.records for batch in kafka.log_batches(name)] == [1] * 50


def test_idempotent_batches_have_gapless_sequences(
    kafka: KafkaCluster, topic: TopicFactory, make_producer: MakeProducer
) -> None:
    name = topic(partitions=2)
    producer = make_producer(kafka, batch_size=2000)
    outcomes([producer.send(name, b"x" * 100, partition=i % 2) for i in range(4000)])
    for partition in range(2):
        batches = kafka.log_batches(name, partition)
        assert len(batches) > 50
        assert {batch.producer_id for batch in batches} == {batches[0].producer_id}
        assert batches[0].producer_id >= 0 and batches[0].producer_epoch == 0
        next_sequence = next_offset = 0
        for batch in batches:
            assert (batch.base_sequence, batch.base_offset) == (next_sequence, next_offset), batch
            assert batch.last_sequence == batch.base_sequence + batch.records - 1, batch
            assert batch.last_offset == batch.base_offset + batch.records - 1, batch
            assert batch.is_valid and not batch.is_transactional, batch
            next_sequence, next_offset = batch.last_sequence + 1, batch.last_offset + 1
        assert next_offset == 2000


def test_without_idempotence_there_are_no_sequences(
    kafka: KafkaCluster, topic: TopicFactory, make_producer: MakeProducer
) -> None:
    name = topic()
    producer = make_producer(kafka, enable_idempotence=False)
    outcomes([producer.send(name, b"x") for _ in range(100)])
    identities = {(b.producer_id, b.producer_epoch, b.base_sequence) for b in kafka.log_batches(name)}
    assert identities == {(-1, -1, -1)}
