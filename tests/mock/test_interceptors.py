"""Interceptors: what they see, what they may change, and that their errors lose nothing."""

from __future__ import annotations

import array
import asyncio
import logging
import sys
import types
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import pytest

from kprod import KafkaProducer, errors
from kprod.aio import AsyncKafkaProducer
from kprod.interceptors import ProducerInterceptor, ProducerRecord, RefusedRecordMetadata
from kprod.testing import MockCluster
from tests.mock.conftest import MakeCluster, MakeProducer


class Recorder(ProducerInterceptor):
    """Writes down everything; ``change`` is what on_send() does."""

    def __init__(
        self, change: Callable[[ProducerRecord], Any] = lambda record: record, log: list[Any] | None = None
    ) -> None:
        self.change = change
        self.log = [] if log is None else log
        self.seen: list[ProducerRecord] = []
        self.ended: list[tuple[Any, Any]] = []
        self.options: Mapping[str, Any] = {}
        self.closed = 0

    def configure(self, options: Mapping[str, Any]) -> None:
        self.options = options

    def on_send(self, record: ProducerRecord) -> ProducerRecord:
        self.seen.append(record)
        self.log.append(("on_send", self))
        changed: ProducerRecord = self.change(record)
        return changed

    def on_acknowledgement(self, metadata: Any, exception: Any) -> None:
        self.log.append(("on_acknowledgement", self))
        self.ended.append((metadata, exception))

    def close(self) -> None:
        self.closed += 1


class HeaderReader:
    """Has only one method, with the third argument of KIP-512."""

    def __init__(self) -> None:
        self.headers: list[Any] = []

    def on_acknowledgement(self, metadata: Any, exception: Any, headers: Any) -> None:
        self.headers.append(headers)


class ByName(ProducerInterceptor):
    """Found by its name."""

    made: ClassVar[list[ByName]] = []

    def __init__(self) -> None:
        self.made.append(self)


def mark(name: str) -> Callable[[ProducerRecord], ProducerRecord]:
    return lambda record: record._replace(headers=[*(record.headers or ()), (name, b"1")])


def test_they_see_the_arguments_of_send_and_may_change_all(
    make_producer: MakeProducer, cluster: MockCluster
) -> None:
    cluster.create_topic("other", partitions=3)
    changed = ProducerRecord("other", "new value", "new key", [("h", b"1")], 2, 1_700_000_000_000)
    recorder = Recorder(lambda record: changed)
    producer = make_producer(
        interceptors=[recorder], value_serializer=str.encode, key_serializer=str.encode, client_id="me"
    )
    metadata = producer.send("t", "value", "key", [("a", b"b")], 0, 5).get(10)
    assert recorder.seen == [ProducerRecord("t", "value", "key", [("a", b"b")], 0, 5)]
    assert recorder.options["client_id"] == "me"
    assert (metadata.topic, metadata.partition, metadata.timestamp) == ("other", 2, 1_700_000_000_000)
    [record] = cluster.records("other")
    assert (record.key, record.value, list(record.headers)) == (b"new key", b"new value", [("h", b"1")])
    producer.flush()
    [(seen, error)] = recorder.ended
    assert (seen.topic, seen.partition, seen.offset, error) == ("other", 2, 0, None)


def test_the_order_is_javas(make_producer: MakeProducer, cluster: MockCluster) -> None:
    log: list[Any] = []
    first, second = Recorder(mark("first"), log), Recorder(mark("second"), log)
    producer = make_producer(interceptors=[first, second])
    producer.send("t", b"v", on_delivery=lambda error, metadata: log.append("on_delivery"))
    producer.flush()
    assert log == [
        ("on_send", first), ("on_send", second),
        ("on_acknowledgement", first), ("on_acknowledgement", second), "on_delivery",
    ]  # fmt: skip
    assert [name for name, _ in second.seen[0].headers or ()] == ["first"], "each sees what came before it"
    [record] = cluster.records("t")
    assert [name for name, _ in record.headers] == ["first", "second"]
    assert (first.closed, second.closed) == (0, 0)
    producer.close()
    producer.close()
    assert (first.closed, second.closed) == (1, 1)


def test_errors_are_logged_and_lose_no_record(
    make_producer: MakeProducer, cluster: MockCluster, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken(ProducerInterceptor):
        def on_send(self, record: ProducerRecord) -> ProducerRecord:
            raise RuntimeError("on_send is broken")

        def on_acknowledgement(self, metadata: Any, exception: Any) -> None:
            raise RuntimeError("on_acknowledgement is broken")

        def close(self) -> None:
            raise RuntimeError("close is broken")

    last = Recorder(mark("last"))
    producer = make_producer(interceptors=[Recorder(mark("good")), Broken, Recorder(lambda r: None), last])
    with caplog.at_level(logging.ERROR, "kprod.interceptors"):
        producer.send("t", b"v").get(10)
        producer.close()
    [record] = cluster.records("t")
    assert [name for name, _ in record.headers] == ["good", "last"]
    assert len(last.ended) == 1 and last.closed == 1
    text = caplog.text
    for what in (
        "on_send is broken",
        "on_acknowledgement is broken",
        "close is broken",
        "not NoneType: None",
    ):
        assert what in text


def test_what_send_refuses_is_told_as_in_java(make_producer: MakeProducer) -> None:
    recorder = Recorder(mark("h"))
    producer = make_producer(interceptors=[recorder], max_request_size=1000)
    with pytest.raises(errors.MessageSizeTooLargeError):
        producer.send("t", b"x" * 2000)
    with pytest.raises(TypeError, match="must be bytes"):
        producer.send("t", 3, partition=0)
    with pytest.raises(TypeError, match="on_delivery must be callable"):
        producer.send("t", b"v", on_delivery=3)  # type: ignore[arg-type]
    assert len(recorder.seen) == 2, "a wrong callback is found before"
    (first, too_large), (second, wrong) = recorder.ended
    assert isinstance(first, RefusedRecordMetadata) and isinstance(too_large, errors.MessageSizeTooLargeError)
    assert (first.topic, first.partition, first.offset) == ("t", -1, -1)
    assert (second.partition, type(wrong)) == (0, TypeError)
    producer.close()
    with pytest.raises(errors.ProducerClosedError):
        producer.send("t", b"v")
    assert isinstance(recorder.ended[2][1], errors.ProducerClosedError)


def test_a_failed_record_and_send_nowait(
    make_producer: MakeProducer, cluster: MockCluster, caplog: pytest.LogCaptureFixture
) -> None:
    recorder, reader = Recorder(mark("h")), HeaderReader()
    producer = make_producer(interceptors=[recorder, reader])
    producer.send_nowait("t", b"good")
    producer.flush()
    cluster.inject("Produce", error="TOPIC_AUTHORIZATION_FAILED", times=1)
    with caplog.at_level(logging.ERROR, "kprod"):
        producer.send_nowait("t", b"bad")
        producer.flush()
    assert [type(error) for _, error in recorder.ended] == [type(None), errors.TopicAuthorizationFailedError]
    assert "sent with send_nowait() failed" in caplog.text
    assert reader.headers == [[("h", b"1")]] * 2


def test_send_many_and_columns(make_producer: MakeProducer, cluster: MockCluster) -> None:
    cluster.create_topic("p", partitions=2)
    recorder, reader = Recorder(mark("h")), HeaderReader()
    producer = make_producer(interceptors=[recorder, reader], value_serializer=str.encode)
    delivered: list[Any] = []
    producer.send_many(
        "p", ["a", "b", "c"], keys=[b"1", None, b"3"], partitions=[0, 1, 0], timestamps=[1, None, 3],
        headers={"all": b"x"}, on_delivery=lambda error, metadata: delivered.append(metadata.offset),
    ).get(10)  # fmt: skip
    # Columns hold bytes: no serializer.
    producer.send_columns("p", (b"dee", array.array("i", [0, 1, 3])), partitions=1).get(10)
    producer.flush()
    assert [(r.value, r.key, r.partition, r.timestamp_ms) for r in recorder.seen] == [
        ("a", b"1", 0, 1), ("b", None, 1, None), ("c", b"3", 0, 3), (b"d", None, 1, None), (b"ee",
        None, 1, None),
    ]  # fmt: skip
    assert sorted(record.value or b"" for record in cluster.records("p")) == [b"a", b"b", b"c", b"d", b"ee"]
    assert len(recorder.ended) == 5 and len(delivered) == 3
    assert sorted(len(headers) for headers in reader.headers) == [1, 1, 2, 2, 2]


def test_send_many_that_is_refused(make_producer: MakeProducer, cluster: MockCluster) -> None:
    recorder = Recorder()
    producer = make_producer(interceptors=[recorder])
    with pytest.raises(TypeError, match=r"values\[1\]"):
        producer.send_many("t", [b"a", 2])
    assert [type(error) for _, error in recorder.ended] == [TypeError, TypeError]
    assert cluster.count("t") == 0


def test_a_record_of_send_many_keeps_its_topic(
    make_producer: MakeProducer, cluster: MockCluster, caplog: pytest.LogCaptureFixture
) -> None:
    producer = make_producer(interceptors=[Recorder(lambda record: record._replace(topic="other"))])
    producer.send_many("t", [b"a"]).get(10)
    assert cluster.count("t") == 1
    assert "changed the topic of a record of send_many()" in caplog.text


def test_in_transactions(make_producer: MakeProducer, cluster: MockCluster) -> None:
    recorder = Recorder()
    producer = make_producer(interceptors=[recorder], transactional_id="tx")
    producer.init_transactions()
    with producer.transaction():
        producer.send("t", b"v")
    assert [error for _, error in recorder.ended] == [None]
    with pytest.raises(errors.IllegalStateError):
        producer.send("t", b"outside")
    assert isinstance(recorder.ended[1][1], errors.IllegalStateError)


def test_asyncio_calls_them_once_however_long_a_record_waits(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(default_partitions=1)
    recorder, reader = Recorder(mark("h")), HeaderReader()

    async def run() -> None:
        async with AsyncKafkaProducer(
            bootstrap_servers=cluster.bootstrap_servers,
            interceptors=[recorder, reader],
            buffer_memory=40_000,
            batch_size=16_000,
        ) as producer:
            # The first waits for metadata, others for memory.
            futures = [await producer.send("new", b"x" * 9000) for _ in range(20)]
            await asyncio.gather(*futures)
            with pytest.raises(TypeError):
                await producer.send("new", 3)
            await (await producer.send_many("new", [b"m1", b"m2"]))
            with pytest.raises(TypeError):
                await producer.send_many("new", [b"m3", 4])
            await producer.flush()

    asyncio.run(run())
    assert len(recorder.seen) == 25
    assert [type(error) for _, error in recorder.ended].count(type(None)) == 22
    assert len(recorder.ended) == 25 and len(reader.headers) == 25
    assert cluster.count("new") == 22
    assert recorder.closed == 1


def test_classes_and_names(make_producer: MakeProducer, monkeypatch: pytest.MonkeyPatch) -> None:
    ByName.made.clear()
    monkeypatch.setitem(sys.modules, "audit", types.SimpleNamespace(ByName=ByName))
    make_producer(interceptors=[ByName])
    make_producer(interceptor_classes=" audit.ByName,audit.ByName")
    assert len(ByName.made) == 3


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ([3], "3 is neither"),
        ("Audit", "'Audit' is neither"),
        (3, "a list of objects or classes"),
        (["no.such.Class"], "could not be made and configured: ModuleNotFoundError"),
        ([Recorder(), type("Bad", (Recorder,), {"configure": lambda self, o: 1 / 0})], "ZeroDivisionError"),
    ],
)
def test_what_is_no_interceptor_is_refused(given: object, text: str) -> None:
    with pytest.raises(errors.KafkaConfigurationError, match=text):
        KafkaProducer(bootstrap_servers="127.0.0.1:1", bootstrap_timeout_ms=0, interceptors=given)
