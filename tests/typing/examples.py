"""What type checkers must make of the public API. ``tests/typing/test_typing.py`` runs them over this file.

Lines that end in ``# type: ignore[...]`` must be errors: an ignore that is not needed fails the check.
"""

from __future__ import annotations

import json
from collections.abc import Generator
from typing import Any

from typing_extensions import assert_type

from kprod import (
    BulkDeliveryFuture,
    DeliveryFuture,
    DeliveryReports,
    KafkaError,
    KafkaProducer,
    RecordMetadata,
    TopicPartition,
)
from kprod.records import Headers


def constructor() -> None:
    KafkaProducer()
    KafkaProducer(bootstrap_servers="localhost:9092", acks="all", linger_ms=5)
    KafkaProducer({"bootstrap.servers": "localhost:9092", "linger.ms": "5"})
    KafkaProducer(value_serializer=lambda v: json.dumps(v).encode("utf-8"))
    with KafkaProducer() as producer:
        assert_type(producer, KafkaProducer)


def send(producer: KafkaProducer) -> None:
    assert_type(producer.send("topic"), DeliveryFuture)
    producer.send("topic", b"value", b"key")
    producer.send("topic", value={"any": "object"}, key="text")  # what serializers take
    producer.send("topic", b"v", headers=[("a", b"1"), ("b", None)], partition=0, timestamp_ms=0)
    producer.send("topic", b"v", headers={"a": b"1", "b": None})
    producer.send(b"topic", b"v")  # type: ignore[arg-type]
    producer.send("topic", b"v", headers=[("a", "text")])  # type: ignore[list-item]
    producer.send("topic", b"v", headers={b"a": b"1"})  # type: ignore[arg-type]
    producer.send("topic", b"v", partition="0")  # type: ignore[arg-type]
    producer.send("topic", b"v", timestamp_ms=1.5)  # type: ignore[arg-type]
    producer.send("topic", b"v", nonsense=1)  # type: ignore[call-arg]


def send_many(producer: KafkaProducer) -> None:
    future = producer.send_many("topic", [b"v", None], keys=[b"k", None], timestamps=[1, None], partitions=0)
    assert_type(future, BulkDeliveryFuture)
    assert_type(future.get(timeout=1), DeliveryReports)
    assert_type(future.get()[0], RecordMetadata)
    assert_type(future.get()[0:2], list[RecordMetadata])
    assert_type(future[0], DeliveryFuture)
    for index, error in future.failures():
        assert_type(index, int)
        assert_type(error, KafkaError)
    future.add_callback(lambda reports: reports.offsets())
    producer.send_many("topic", [b"v"], headers=[("a", b"1")])
    producer.send_many("topic", [b"v", b"w"], headers=[[("a", b"1")], None])
    producer.send_columns("topic", (b"vw", memoryview(b"")), timestamps=memoryview(b""))
    producer.send_columns("topic", [b"v"])  # type: ignore[arg-type]
    producer.send_many("topic", 5)  # type: ignore[arg-type]
    producer.send_table("topic", {}, "v")  # type: ignore[arg-type]


def on_delivery(error: KafkaError | None, metadata: RecordMetadata) -> None:
    if error is not None:
        assert_type(error, KafkaError)
        assert_type(error.retriable, bool)
    assert_type(metadata.offset, int)


def takes_one(metadata: RecordMetadata) -> None: ...


def delivery_callbacks(producer: KafkaProducer) -> None:
    producer.send("topic", b"v", on_delivery=on_delivery)
    producer.send("topic", b"v", on_delivery=lambda error, metadata: print(error, metadata.offset))
    producer.send("topic", b"v", on_delivery=takes_one)  # type: ignore[arg-type]


def results(future: DeliveryFuture) -> None:
    assert_type(future.get(), RecordMetadata)
    assert_type(future.get(timeout=1.5), RecordMetadata)
    assert_type(future.result(10), RecordMetadata)
    assert_type(future.done(), bool)
    assert_type(future.is_done, bool)
    assert_type(future.succeeded(), bool)
    assert_type(future.failed(), bool)
    assert_type(future.value, RecordMetadata | None)
    assert_type(future.exception, KafkaError | None)
    future.get("1")  # type: ignore[arg-type]
    future.is_done = True  # type: ignore[misc]


def with_more_arguments(name: str, number: int, metadata: RecordMetadata) -> str:
    return f"{name} {number} {metadata.offset}"


def with_keyword(metadata: RecordMetadata, *, name: str) -> None: ...


def future_callbacks(future: DeliveryFuture) -> None:
    chained = future.add_callback(lambda metadata: print(metadata.offset)).add_errback(print)
    assert_type(chained, DeliveryFuture)
    future.add_callback(with_more_arguments, "a", 1)
    future.add_callback(with_keyword, name="a")
    future.add_errback(lambda error: print(error.retriable, error.persisted))
    future.add_both(lambda outcome: print(outcome))
    future.add_done_callback(lambda done: done.get())
    future.add_callback(42)  # type: ignore[call-overload]


def metadata_fields(metadata: RecordMetadata) -> None:
    assert_type(metadata.topic, str)
    assert_type(metadata.partition, int)
    assert_type(metadata.topic_partition, TopicPartition)
    assert_type(metadata.timestamp, int)
    assert_type(metadata.serialized_key_size, int)
    assert_type(metadata.latency_ms, float)
    assert_type(metadata.headers, Headers | None)
    topic, partition, *_ = metadata
    print(topic, partition, metadata[3], metadata[:2], len(metadata), hash(metadata))
    metadata.offset = 1  # type: ignore[misc]


async def await_future(producer: KafkaProducer) -> RecordMetadata:
    metadata = await producer.send("topic", b"v")
    assert_type(metadata, RecordMetadata)
    return metadata


def iterate_await(future: DeliveryFuture) -> Generator[Any, None, RecordMetadata]:
    return future.__await__()


def whole_producer(producer: KafkaProducer) -> None:
    producer.flush()
    producer.flush(timeout=1.5)
    producer.close(5)
    producer.purge(in_flight=False)
    assert_type(producer.partitions_for("topic"), set[int])
    assert_type(producer.bootstrap_connected(), bool)
    assert_type(producer.metrics(), dict[str, dict[str, Any]] | None)
    producer.flush("1")  # type: ignore[arg-type]


class Traced(KafkaProducer):
    """Subclasses may override send()."""

    def send(self, topic: str, *args: Any, **kwargs: Any) -> DeliveryFuture:
        return super().send(topic, *args, **kwargs)
