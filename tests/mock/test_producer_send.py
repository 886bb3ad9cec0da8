"""The calls send() and send_nowait(): how they take arguments, and who hears of a record that fails."""

from __future__ import annotations

import inspect
import logging
import threading
from typing import Any

import pytest

from kprod import KafkaProducer, RecordMetadata
from kprod.testing import MockCluster
from tests.mock.conftest import Eventually, MakeProducer

ARGUMENTS = ["topic", "value", "key", "headers", "partition", "timestamp_ms", "on_delivery"]


# --- arguments


def test_signatures_can_be_asked_for() -> None:
    parameters = inspect.signature(KafkaProducer.send).parameters
    assert list(parameters) == ["self", *ARGUMENTS]
    assert {p.default for name, p in parameters.items() if name not in ("self", "topic")} == {None}
    assert list(inspect.signature(KafkaProducer.send_nowait).parameters) == ["self", *ARGUMENTS[:-1]]
    assert (inspect.getdoc(KafkaProducer.send) or "").startswith("Send one record.")


@pytest.mark.parametrize(
    ("args", "kwargs", "says"),
    [
        ((), {}, r"send\(\) missing 1 required positional argument: 'topic'"),
        ((), {"value": b""}, r"send\(\) missing 1 required positional argument: 'topic'"),
        (("t",) + (None,) * 7, {}, r"send\(\) takes from 1 to 7 positional arguments but 8 were given"),
        (("t",), {"topic": "t"}, r"send\(\) got multiple values for argument 'topic'"),
        (("t", b"v"), {"value": None}, r"send\(\) got multiple values for argument 'value'"),
        (("t",), {"valeu": b""}, r"unexpected keyword argument 'valeu': it takes topic, value, key,"),
        ((None,), {}, "topic"),
    ],
)
def test_calls_that_do_not_fit(
    producer: KafkaProducer, args: tuple[Any, ...], kwargs: dict[str, Any], says: str
) -> None:
    with pytest.raises(TypeError, match=says):
        producer.send(*args, **kwargs)


def test_send_nowait_takes_no_callback(producer: KafkaProducer) -> None:
    with pytest.raises(TypeError, match=r"send_nowait\(\) got an unexpected keyword argument 'on_delivery'"):
        producer.send_nowait("t", on_delivery=print)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match=r"send_nowait\(\) takes from 1 to 6 positional arguments"):
        producer.send_nowait("t", None, None, None, None, None, None)  # type: ignore[call-arg]


def test_every_way_to_pass_the_same_arguments(cluster: MockCluster, producer: KafkaProducer) -> None:
    values: dict[str, Any] = {
        "topic": "t",
        "value": b"v",
        "key": b"k",
        "headers": [("h", b"1")],
        "partition": 0,
        "timestamp_ms": 5,
    }
    for n in range(len(values) + 1):
        given = dict(list(values.items())[n:])
        # Names that come from data are equal to the interned ones, not the same objects.
        built = {"".join(name): value for name, value in given.items()}
        positional: list[Any] = list(values.values())[:n]
        producer.send(*positional, **built)
        producer.send_nowait(*positional, **built)
    producer.send(**values, on_delivery=None).get(10)
    records = cluster.records("t")
    assert len(records) == 2 * (len(values) + 1) + 1
    assert {(r.value, r.key, tuple(r.headers), r.timestamp) for r in records} == {
        (b"v", b"k", (("h", b"1"),), 5)
    }


def test_a_class_that_overrides_send(cluster: MockCluster, make_producer: MakeProducer) -> None:
    class Counting(KafkaProducer):
        calls = 0

        def send(self, *args: Any, **kwargs: Any) -> Any:
            self.calls += 1
            return super().send(*args, **kwargs)

    producer = make_producer(kind=Counting)
    assert isinstance(producer, Counting)
    producer.send("t", b"v").get(10)
    KafkaProducer.send(producer, "t", value=b"w").get(10)
    assert producer.calls == 1
    with pytest.raises(TypeError, match="ProducerCore"):
        KafkaProducer.send(cluster, "t")  # type: ignore[arg-type]


def test_many_topics_under_names_that_are_equal_but_not_the_same(
    cluster: MockCluster, producer: KafkaProducer
) -> None:
    names = [f"topic-{i}" for i in range(40)]
    for name in names:
        cluster.create_topic(name)
    for i in range(5):
        for name in names:
            producer.send_nowait("".join(list(name)) if i % 2 else name, name.encode())
    producer.flush(10)
    for name in names:
        assert [r.value for r in cluster.records(name)] == [name.encode()] * 5


# --- outcomes


def test_metadata_that_a_callback_keeps_stays_what_it_was(
    cluster: MockCluster, make_producer: MakeProducer
) -> None:
    producer = make_producer(linger_ms=1000)
    kept: list[tuple[int, RecordMetadata]] = []
    seen: list[int] = []

    def report(error: object, metadata: RecordMetadata) -> None:
        assert error is None
        seen.append(metadata.offset)
        if metadata.offset % 3 == 0:
            kept.append((metadata.offset, metadata))

    for i in range(100):
        producer.send("t", b"%d" % i, on_delivery=report)
    producer.flush(10)
    assert seen == list(range(100))
    assert [metadata.offset for _, metadata in kept] == [offset for offset, _ in kept] == seen[::3]
    assert len({id(metadata) for _, metadata in kept}) == len(kept)


def test_send_nowait_delivers_in_order_with_the_others(cluster: MockCluster, producer: KafkaProducer) -> None:
    for i in range(300):
        if i % 2:
            producer.send("t", b"%d" % i)
        else:
            assert producer.send_nowait("t", b"%d" % i) is None  # type: ignore[func-returns-value]
    producer.flush(10)
    assert [r.value for r in cluster.records("t")] == [b"%d" % i for i in range(300)]


def said_of_deliveries(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Other loggers may be heard too, by the level that they were given for another test."""
    return [record.getMessage() for record in caplog.records if record.name == "kprod.delivery"]


def test_failures_of_send_nowait_are_counted_and_logged_once_per_batch(
    cluster: MockCluster, make_producer: MakeProducer, caplog: pytest.LogCaptureFixture
) -> None:
    producer = make_producer(linger_ms=1000)
    cluster.inject("Produce", error="INVALID_RECORD", times=1)
    with caplog.at_level(logging.ERROR, "kprod.delivery"):
        for _ in range(50):
            producer.send_nowait("t", b"v")
        producer.flush(10)
    [line] = said_of_deliveries(caplog)
    assert line.startswith("a batch of 50 record(s) sent with send_nowait() failed")
    assert "topic t" in line
    metrics = producer.metrics()
    assert metrics is not None
    assert metrics["producer-metrics"]["record-error-total"] == 50


def test_the_log_of_many_failures_is_short_and_says_what_it_left_out(
    cluster: MockCluster, make_producer: MakeProducer, caplog: pytest.LogCaptureFixture
) -> None:
    producer = make_producer(linger_ms=0, batch_size=1)
    cluster.inject("Produce", error="INVALID_RECORD", times=None)
    with caplog.at_level(logging.ERROR, "kprod.delivery"):
        for _ in range(30):
            producer.send_nowait("t", b"v")
        producer.flush(20)
        producer.close()
    lines = said_of_deliveries(caplog)
    shown = sum("a batch of 1 record(s)" in line for line in lines)
    left_out = sum(int(line.split()[0]) for line in lines if "more records" in line)
    assert shown + left_out == 30
    assert shown < 30


def test_what_the_application_dropped_itself_is_not_logged(
    cluster: MockCluster, make_producer: MakeProducer, caplog: pytest.LogCaptureFixture
) -> None:
    producer = make_producer(linger_ms=60_000)
    with caplog.at_level(logging.ERROR, "kprod.delivery"):
        producer.send_nowait("t", b"v")
        future = producer.send("t", b"w")
        producer.purge()
        assert future.exception is not None
        producer.flush(10)
        producer.close()
    assert said_of_deliveries(caplog) == []


def test_the_option_on_delivery_hears_of_send_nowait(
    cluster: MockCluster,
    make_producer: MakeProducer,
    eventually: Eventually,
    caplog: pytest.LogCaptureFixture,
) -> None:
    heard: list[Any] = []
    threads: set[str] = set()

    def report(error: Any, metadata: RecordMetadata) -> None:
        heard.append((error, metadata.serialized_value_size))
        threads.add(threading.current_thread().name)

    producer = make_producer(on_delivery=report)
    producer.send_nowait("t", b"12")
    producer.flush(10)
    cluster.inject("Produce", error="INVALID_RECORD", times=1)
    producer.send_nowait("t", b"345")
    eventually(lambda: len(heard) == 2)
    assert heard[0] == (None, 2)
    assert heard[1][0] is not None and heard[1][1] == 3
    assert all(name.endswith("-delivery") for name in threads)
    assert said_of_deliveries(caplog) == []


def test_send_nowait_raises_at_once_what_send_raises(producer: KafkaProducer) -> None:
    with pytest.raises(TypeError, match="value must be bytes"):
        producer.send_nowait("t", "text")
    with pytest.raises(ValueError, match="partition 7"):
        producer.send_nowait("t", b"v", partition=7)
    producer.close()
    with pytest.raises(Exception, match="closed"):
        producer.send_nowait("t", b"v")
