"""What send() takes and refuses: keys, values, headers, serializers, partitioners, timestamps."""

from __future__ import annotations

import array
import enum
import json
import time
from collections import OrderedDict
from collections.abc import Iterator
from typing import Any

import pytest

from kprod import DeliveryFuture, KafkaProducer, errors
from kprod.partitioner import Partitioner, PartitionRequest
from kprod.serializers import Serializer
from kprod.testing import MockCluster, MockRecord
from tests.mock.conftest import MakeProducer


def only_record(cluster: MockCluster, topic: str = "t") -> MockRecord:
    [record] = cluster.records(topic)
    return record


def send(producer: KafkaProducer, which: str, data: object) -> DeliveryFuture:
    """Send `data` as the key or as the value."""
    return producer.send("t", key=data) if which == "key" else producer.send("t", data)


# --- keys and values


@pytest.mark.parametrize(
    ("given", "stored"),
    [
        (b"bytes", b"bytes"),
        (b"", b""),
        (None, None),
        (bytearray(b"array"), b"array"),
        (memoryview(b"a view")[2:], b"view"),
        (array.array("B", [1, 2, 3]), b"\x01\x02\x03"),
        (b"\0" * 1000, b"\0" * 1000),
    ],
    ids=str,
)
def test_bytes_like_objects_are_taken_as_they_are(
    cluster: MockCluster, producer: KafkaProducer, given: Any, stored: bytes | None
) -> None:
    producer.send("t", given, key=given).get(10)
    record = only_record(cluster)
    assert (record.key, record.value) == (stored, stored)


def test_a_buffer_may_be_changed_after_send(cluster: MockCluster, make_producer: MakeProducer) -> None:
    producer = make_producer(linger_ms=60_000)
    buffer = bytearray(b"first")
    producer.send("t", buffer)
    buffer[:] = b"other, and longer: no buffer may be locked"
    producer.flush()
    assert only_record(cluster).value == b"first"


@pytest.mark.parametrize("which", ["key", "value"])
def test_a_str_without_a_serializer_says_what_to_do(
    cluster: MockCluster, producer: KafkaProducer, which: str
) -> None:
    with pytest.raises(
        TypeError, match=rf"{which} must be bytes or None, got str: encode it, or set {which}_ser"
    ):
        send(producer, which, "text")
    assert producer.send("t", b"v").get(10).offset == 0


@pytest.mark.parametrize("which", ["key", "value"])
@pytest.mark.parametrize("wrong", [3, 1.5, {"a": 1}, [1], object(), memoryview(b"abcd")[::2]], ids=repr)
def test_other_objects_without_a_serializer_are_refused(
    cluster: MockCluster, producer: KafkaProducer, which: str, wrong: object
) -> None:
    with pytest.raises(TypeError, match=rf"{which} must be bytes, a contiguous .* set {which}_serializer"):
        send(producer, which, wrong)
    producer.flush()
    assert cluster.count("t") == 0


# --- headers


@pytest.mark.parametrize(
    ("given", "stored"),
    [
        (None, []),
        ([], []),
        ({}, []),
        ([("a", b"1"), ("b", None), ("a", b"")], [("a", b"1"), ("b", None), ("a", b"")]),
        ((("a", b"1"),), [("a", b"1")]),
        ({"a": b"1", "b": None}, [("a", b"1"), ("b", None)]),
        (OrderedDict(a=b"1"), [("a", b"1")]),
        ([["a", bytearray(b"1")], ("ä", memoryview(b"2"))], [("a", b"1"), ("ä", b"2")]),
        ((pair for pair in [("a", b"1")]), [("a", b"1")]),
        ([("k" * 300, b"v" * 5000)], [("k" * 300, b"v" * 5000)]),
        ([(str(i), b"%d" % i) for i in range(200)], [(str(i), b"%d" % i) for i in range(200)]),
    ],
)
def test_headers(cluster: MockCluster, producer: KafkaProducer, given: Any, stored: Any) -> None:
    producer.send("t", b"v", headers=given).get(10)
    assert only_record(cluster).headers == stored


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ([(b"a", b"1")], "header key must be str, got bytes"),
        ([("a", "1")], "value of header 'a' must be bytes or None, got str"),
        ([("a", 1)], "value of header 'a' must be bytes, a contiguous"),
        ([("a",)], "a header must be a"),
        ([("a", b"1", b"2")], "a header must be a"),
        (["ab"], "a header must be a"),
        ([3], "a header must be a"),
        ("ab", "headers must be a list"),
        (b"ab", "headers must be a list"),
        (7, "headers must be a list"),
    ],
)
def test_wrong_headers_are_refused(
    cluster: MockCluster, producer: KafkaProducer, given: Any, text: str
) -> None:
    with pytest.raises(TypeError, match=text):
        producer.send("t", b"v", headers=given)
    producer.flush()
    assert cluster.count("t") == 0
    assert producer.send("t", b"v", headers=[("a", b"1")]).get(10).offset == 0


# --- serializers


def test_json_as_in_kafka_pythons_example(cluster: MockCluster, make_producer: MakeProducer) -> None:
    producer = make_producer(value_serializer=lambda v: json.dumps(v).encode("utf-8"))
    producer.send("t", {"event": "login", "n": [1, 2]}).get(10)
    value = only_record(cluster).value
    assert value is not None
    assert json.loads(value) == {"event": "login", "n": [1, 2]}


def test_null_is_not_serialized(cluster: MockCluster, make_producer: MakeProducer) -> None:
    producer = make_producer(
        key_serializer=lambda key: key.encode(), value_serializer=lambda value: str(value).encode()
    )
    producer.send("t", None, key=None).get(10)
    record = only_record(cluster)
    assert (record.key, record.value) == (None, None)


def test_a_serializer_object_gets_topic_headers_and_data(
    cluster: MockCluster, make_producer: MakeProducer
) -> None:
    seen: list[Any] = []

    class Mine(Serializer):
        def serialize(self, topic: str, headers: Any, data: Any) -> bytes:
            seen.append((topic, headers, data))
            return b"<%d>" % data

    headers = [("h", b"1")]
    make_producer(value_serializer=Mine()).send("t", 5, headers=headers).get(10)
    assert only_record(cluster).value == b"<5>"
    assert seen == [("t", headers, 5)]
    assert seen[0][1] is headers


@pytest.mark.parametrize("which", ["key", "value"])
@pytest.mark.parametrize(
    "error", [TypeError("mine"), ValueError("mine"), KeyError("mine"), ZeroDivisionError("mine")]
)
def test_what_a_serializer_raises_reaches_the_caller(
    cluster: MockCluster, make_producer: MakeProducer, which: str, error: Exception
) -> None:
    def serialize(data: str) -> bytes:
        if data == "bad":
            raise error
        return data.encode()

    producer = make_producer(**{f"{which}_serializer": serialize})
    with pytest.raises(type(error)) as caught:
        send(producer, which, "bad")
    assert caught.value is error
    send(producer, which, "good").get(10)
    assert cluster.count("t") == 1


@pytest.mark.parametrize("returned", ["text", 3, object()])
def test_a_serializer_that_returns_no_bytes_is_named(
    cluster: MockCluster, make_producer: MakeProducer, returned: object
) -> None:
    producer = make_producer(value_serializer=lambda value: returned)
    with pytest.raises(TypeError, match="value must be bytes"):
        producer.send("t", 1)


def test_a_serializer_may_return_none(cluster: MockCluster, make_producer: MakeProducer) -> None:
    make_producer(value_serializer=lambda value: None).send("t", "x").get(10)
    assert only_record(cluster).value is None


# --- partitions and partitioners


@pytest.mark.parametrize(
    ("partition", "error", "text"),
    [
        (-1, ValueError, "partition must be >= 0, got -1"),
        (1, ValueError, r"partition 1 of topic 't' does not exist: the topic has 1 partitions \(0 to 0\)"),
        (2**40, ValueError, "does not exist"),
        ("0", TypeError, "partition must be int or None, got str"),
        (0.0, TypeError, "partition must be int or None, got float"),
        (True, TypeError, "partition must be int or None, got bool"),
    ],
)
def test_wrong_partitions_are_refused(
    producer: KafkaProducer, partition: Any, error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text):
        producer.send("t", b"v", partition=partition)


def test_an_explicit_partition_goes_before_key_and_partitioner(
    cluster: MockCluster, make_producer: MakeProducer
) -> None:
    cluster.create_topic("many", partitions=5)
    producer = make_producer(partitioner=lambda key, everything, available: 0)
    for partition in range(5):
        assert producer.send("many", b"v", key=b"k", partition=partition).get(10).partition == partition


def test_an_integer_of_another_type_is_a_partition(cluster: MockCluster, producer: KafkaProducer) -> None:
    class Number(enum.IntEnum):
        ZERO = 0

    assert producer.send("t", b"v", partition=Number.ZERO, timestamp_ms=Number.ZERO).get(10).partition == 0


def test_a_function_of_kafka_python_2_partitions(cluster: MockCluster, make_producer: MakeProducer) -> None:
    cluster.create_topic("many", partitions=5)
    seen: list[Any] = []

    def choose(key: bytes, everything: list[int], available: list[int]) -> int:
        seen.append((key, everything, available))
        return 3

    assert make_producer(partitioner=choose).send("many", b"v", key=b"k").get(10).partition == 3
    assert seen == [(b"k", [0, 1, 2, 3, 4], [0, 1, 2, 3, 4])]


def test_a_partitioner_object_gets_the_record(cluster: MockCluster, make_producer: MakeProducer) -> None:
    cluster.create_topic("many", partitions=5)
    seen: list[PartitionRequest] = []

    class Mine(Partitioner):
        def partition(self, record: PartitionRequest) -> int | None:
            seen.append(record)
            return None if record.key == "sticky" else 4

    producer = make_producer(partitioner=Mine(), key_serializer=str.encode)
    assert producer.send("many", b"v", key="k").get(10).partition == 4
    producer.send("many", b"v", key="sticky").get(10)
    assert (seen[0].topic, seen[0].key, seen[0].serialized_key, seen[0].value) == ("many", "k", b"k", b"v")
    assert seen[0].cluster.partitions_for_topic("many") == {0, 1, 2, 3, 4}
    assert {broker.nodeId for broker in seen[0].cluster.brokers()} == {1}


@pytest.mark.parametrize(
    ("chosen", "error", "text"),
    [
        (7, ValueError, "does not exist"),
        (-1, ValueError, ">= 0"),
        ("1", TypeError, "int"),
        (1.0, TypeError, "int"),
    ],
)
def test_a_partitioner_that_names_no_partition_fails_at_once(
    cluster: MockCluster, make_producer: MakeProducer, chosen: Any, error: type[Exception], text: str
) -> None:
    answers = iter([chosen, 0])
    producer = make_producer(partitioner=lambda key, everything, available: next(answers))
    with pytest.raises(error, match=text):
        producer.send("t", b"v", key=b"k")
    assert producer.send("t", b"v", key=b"k").get(10).offset == 0


def test_what_a_partitioner_raises_reaches_the_caller(
    cluster: MockCluster, make_producer: MakeProducer
) -> None:
    mine = TypeError("mine")

    def choose(key: bytes, everything: list[int], available: list[int]) -> int:
        if key == b"bad":
            raise mine
        return 0

    producer = make_producer(partitioner=choose)
    with pytest.raises(TypeError) as caught:
        producer.send("t", b"v", key=b"bad")
    assert caught.value is mine
    assert producer.send("t", b"v", key=b"good").get(10).offset == 0


@pytest.mark.parametrize("name", ["consistent_random", "murmur2_random", "fnv1a", "random", "sticky"])
def test_named_partitioners_stay_within_the_topic(
    cluster: MockCluster, make_producer: MakeProducer, name: str
) -> None:
    cluster.create_topic("many", partitions=4)
    producer = make_producer(partitioner=name)
    futures = [producer.send("many", b"v", key=b"%d" % (i % 30)) for i in range(120)]
    producer.flush(10)
    by_key: dict[int, set[int]] = {}
    for i, future in enumerate(futures):
        by_key.setdefault(i % 30, set()).add(future.get().partition)
    assert set().union(*by_key.values()) == {0, 1, 2, 3}
    if name != "random":
        assert all(len(partitions) == 1 for partitions in by_key.values())


# --- timestamps


def test_without_a_timestamp_a_record_has_the_present(cluster: MockCluster, producer: KafkaProducer) -> None:
    before = time.time() * 1000
    producer.send("t", b"v").get(10)
    assert before - 2 <= only_record(cluster).timestamp <= time.time() * 1000 + 2


def test_timestamps_in_any_order_are_kept(cluster: MockCluster, make_producer: MakeProducer) -> None:
    cluster.create_topic("any-time", config={"message.timestamp.after.max.ms": 2**63 - 1})
    producer = make_producer(linger_ms=60_000)
    stamps = [5_000_000_000_000, 0, 1, 1_700_000_000_000, 2**62, 2**63 - 1, 3, 10_000_000_000]
    futures = [producer.send("any-time", b"v", timestamp_ms=stamp) for stamp in stamps]
    producer.flush(10)
    assert [record.timestamp for record in cluster.records("any-time")] == stamps
    assert [future.get().timestamp for future in futures] == stamps


@pytest.mark.parametrize(
    ("stamp", "error"),
    [(-1, ValueError), (2**63, ValueError), (1.5, TypeError), ("1", TypeError), (True, TypeError)],
)
def test_timestamps_out_of_range_are_refused(
    producer: KafkaProducer, stamp: Any, error: type[Exception]
) -> None:
    with pytest.raises(error, match="timestamp_ms must be"):
        producer.send("t", b"v", timestamp_ms=stamp)
    assert producer.send("t", b"v").get(10).offset == 0


# --- the class


def test_send_takes_its_arguments_by_position_and_by_name(
    cluster: MockCluster, producer: KafkaProducer
) -> None:
    producer.send("t", b"v", b"k", [("h", b"1")], 0, 123).get(10)
    producer.send(
        topic="t",
        value=b"v",
        key=b"k",
        headers=[("h", b"1")],
        partition=0,
        timestamp_ms=123,
        on_delivery=None,
    ).get(10)
    first, second = cluster.records("t")
    assert first._replace(offset=0, sequence=0, batch_base_offset=0) == second._replace(
        offset=0, sequence=0, batch_base_offset=0
    )
    with pytest.raises(TypeError, match="nonsense"):
        producer.send("t", nonsense=1)  # type: ignore[call-arg]
    with pytest.raises(TypeError):
        producer.send()  # type: ignore[call-arg]


def test_the_class_can_be_subclassed(cluster: MockCluster, make_producer: MakeProducer) -> None:
    class Traced(KafkaProducer):
        def __init__(self, **options: Any) -> None:
            super().__init__(**options)
            self.sent: list[str] = []

        def send(self, topic: str, *args: Any, **kwargs: Any) -> DeliveryFuture:
            self.sent.append(topic)
            return super().send(topic, *args, **kwargs)

    producer = make_producer(kind=Traced)
    assert isinstance(producer, Traced)
    producer.send("t", b"v").get(10)
    assert producer.sent == ["t"]


def test_send_can_be_patched_on_class_and_instance(
    cluster: MockCluster, producer: KafkaProducer, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = KafkaProducer.send
    calls: list[str] = []

    def traced(self: KafkaProducer, *args: Any, **kwargs: Any) -> DeliveryFuture:
        calls.append("class")
        kwargs["headers"] = [("traceparent", b"00-1")]
        return original(self, *args, **kwargs)

    monkeypatch.setattr(KafkaProducer, "send", traced)
    producer.send("t", b"v").get(10)
    monkeypatch.undo()
    monkeypatch.setattr(producer, "send", lambda *args: calls.append("instance"), raising=True)
    producer.send("t", b"v")
    assert calls == ["class", "instance"]
    assert only_record(cluster).headers == [("traceparent", b"00-1")]


def test_headers_are_handed_to_serializers_as_the_callers_own_list(
    cluster: MockCluster, make_producer: MakeProducer
) -> None:
    # Tracing libraries append to the list.
    class Appends(Serializer):
        def serialize(self, topic: str, headers: Any, data: Any) -> bytes:
            headers.append(("added", b"1"))
            return bytes(data)

    headers: list[tuple[str, bytes]] = []
    make_producer(value_serializer=Appends()).send("t", b"v", headers=headers).get(10)
    assert headers == [("added", b"1")]
    assert only_record(cluster).headers == [("added", b"1")]


def test_options_can_have_the_java_names(cluster: MockCluster) -> None:
    options = {"bootstrap.servers": cluster.bootstrap_servers, "linger.ms": "1", "acks": "all"}
    with KafkaProducer(options) as producer:
        assert producer.send("t", b"v").get(10).offset == 0
        assert producer.config["linger_ms"] == 1


def test_an_error_in_a_generator_of_headers_reaches_the_caller(producer: KafkaProducer) -> None:
    def broken() -> Iterator[tuple[str, bytes]]:
        yield "a", b"1"
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        producer.send("t", b"v", headers=broken())


def test_metrics_have_javas_names(producer: KafkaProducer) -> None:
    producer.send("t", b"v").get(10)
    metrics = producer.metrics()
    assert metrics is not None
    assert metrics["producer-metrics"]["record-send-total"] == 1
    assert metrics["producer-topic-metrics.t"]["record-send-total"] == 1
    assert metrics["producer-node-metrics.node-1"]["request-total"] >= 1


def test_metrics_can_be_switched_off(make_producer: MakeProducer) -> None:
    producer = make_producer(metrics_enabled=False)
    assert producer.metrics() is None
    assert producer.metrics(raw=True) is None


def test_wrong_options_are_refused_with_the_nearest_name() -> None:
    with pytest.raises(errors.UnknownOptionError, match="linger_ms"):
        KafkaProducer(linger_mss=5)
    with pytest.raises(errors.KafkaConfigurationError, match="acks"):
        KafkaProducer(acks=1, enable_idempotence=True)
