"""flush(), close(), purge(), and what comes after."""

from __future__ import annotations

import logging
import threading
import time
from typing import Any

import pytest

from kprod import DeliveryFuture, KafkaError, KafkaProducer, RecordMetadata, errors
from kprod.testing import MockCluster
from tests.mock.conftest import Eventually, MakeProducer


def threads_of(producer: KafkaProducer) -> list[str]:
    prefix = f"{producer.config['client_id']}-"
    return [thread.name for thread in threading.enumerate() if thread.name.startswith(prefix)]


# --- flush


def test_flush_returns_when_every_callback_has_run(cluster: MockCluster, producer: KafkaProducer) -> None:
    calls: list[int] = []
    for _ in range(1000):
        producer.send("t", b"v", on_delivery=lambda error, metadata: calls.append(metadata.offset))
    producer.flush()
    assert calls == list(range(1000))
    assert cluster.count("t") == 1000


def test_flush_does_not_wait_for_linger(make_producer: MakeProducer) -> None:
    producer = make_producer(linger_ms=60_000)
    started = time.monotonic()
    future = producer.send("t", b"v")
    producer.flush()
    assert future.succeeded()
    assert time.monotonic() - started < 10


def test_flush_of_an_idle_producer_returns_at_once(producer: KafkaProducer) -> None:
    producer.flush(timeout=0)
    producer.flush()


def test_flush_that_times_out_says_how_many_records_are_left_and_loses_none(
    cluster: MockCluster, producer: KafkaProducer
) -> None:
    cluster.inject("Produce", delay_ms=300)
    futures = [producer.send("t", b"v") for _ in range(3)]
    with pytest.raises(errors.KafkaTimeoutError, match=r"3 record\(s\)"):
        producer.flush(timeout=0.05)
    assert [future.get(10).offset for future in futures] == [0, 1, 2]


def test_flush_raises_nothing_for_failed_records(cluster: MockCluster, producer: KafkaProducer) -> None:
    cluster.inject("Produce", "INVALID_RECORD")
    future = producer.send("t", b"v")
    producer.flush()
    assert future.failed()


def test_flush_inside_a_callback_is_refused(producer: KafkaProducer) -> None:
    caught: list[BaseException] = []

    def flush(error: KafkaError | None, metadata: RecordMetadata) -> None:
        try:
            producer.flush()
        except errors.IllegalStateError as raised:
            caught.append(raised)

    producer.send("t", b"v", on_delivery=flush)
    producer.flush()
    assert len(caught) == 1
    assert "callback" in str(caught[0])


@pytest.mark.parametrize("timeout", [-1, -0.001, float("nan")])
def test_a_negative_timeout_is_refused(producer: KafkaProducer, timeout: float) -> None:
    for method in (producer.flush, producer.close):
        with pytest.raises(ValueError, match="timeout must be >= 0"):
            method(timeout)
    assert producer.send("t", b"v").get(10).offset == 0


@pytest.mark.parametrize("timeout", ["1", True])
def test_a_timeout_that_is_no_number_is_refused(producer: KafkaProducer, timeout: Any) -> None:
    for method in (producer.flush, producer.close):
        with pytest.raises(TypeError, match="timeout must be seconds"):
            method(timeout)


def test_an_endless_timeout_is_none(producer: KafkaProducer) -> None:
    future = producer.send("t", b"v")
    producer.flush(float("inf"))
    assert future.done()
    producer.close(float("inf"))


# --- close


def test_close_delivers_what_was_accepted_and_ends_all_threads(
    cluster: MockCluster, make_producer: MakeProducer
) -> None:
    producer = make_producer(linger_ms=60_000, compression_type="gzip")
    calls: list[int] = []
    for _ in range(500):
        producer.send("t", b"v", on_delivery=lambda error, metadata: calls.append(metadata.offset))
    assert len(threads_of(producer)) == 4
    producer.close()
    assert calls == list(range(500))
    assert cluster.count("t") == 500
    assert threads_of(producer) == []


def test_close_closes_the_connections(
    cluster: MockCluster, make_producer: MakeProducer, eventually: Eventually
) -> None:
    producer = make_producer()
    producer.send("t", b"v").get(10)
    assert cluster.connection_count() > 0
    producer.close()
    eventually(lambda: cluster.connection_count() == 0)


def test_a_second_close_does_nothing(producer: KafkaProducer) -> None:
    producer.close()
    producer.close()
    producer.close(timeout=0)


def test_the_context_manager_closes(cluster: MockCluster) -> None:
    with KafkaProducer(bootstrap_servers=cluster.bootstrap_servers) as producer:
        future = producer.send("t", b"v")
    assert future.succeeded()
    with pytest.raises(errors.ProducerClosedError):
        producer.send("t", b"v")


def test_the_context_manager_delivers_when_its_block_raises(cluster: MockCluster) -> None:
    with pytest.raises(ZeroDivisionError):
        with KafkaProducer(bootstrap_servers=cluster.bootstrap_servers) as producer:
            future = producer.send("t", b"v")
            raise ZeroDivisionError
    assert future.succeeded()


def test_use_after_close_is_refused(producer: KafkaProducer) -> None:
    future = producer.send("t", b"v")
    producer.close()
    with pytest.raises(errors.ProducerClosedError, match="closed"):
        producer.send("t", b"v")
    with pytest.raises(errors.ProducerClosedError, match="closed"):
        producer.send("topic-not-seen-before", b"v")
    with pytest.raises(errors.ProducerClosedError, match="closed"):
        producer.partitions_for("t")
    # These have nothing left to do.
    producer.flush()
    producer.purge()
    assert not producer.bootstrap_connected()
    assert "closed" in repr(producer)
    # What was delivered stays readable.
    assert future.get().offset == 0
    metrics = producer.metrics()
    assert metrics is not None
    assert metrics["producer-metrics"]["record-send-total"] == 1


def test_close_with_a_timeout_returns_in_time_and_fails_what_is_left(
    cluster: MockCluster, producer: KafkaProducer, caplog: pytest.LogCaptureFixture
) -> None:
    producer.send("t", b"warm").get(10)
    cluster.set_unreachable(1)
    reports: list[Any] = []
    futures = [producer.send("t", b"v", on_delivery=lambda *args: reports.append(args)) for _ in range(5)]
    started = time.monotonic()
    with caplog.at_level(logging.WARNING, logger="kprod"):
        producer.close(timeout=0.2)
    took = time.monotonic() - started
    assert 0.15 < took < 2
    for future in futures:
        with pytest.raises(errors.ProducerClosedError) as caught:
            future.get(timeout=0)
        assert caught.value.persisted == "possibly", "they were written to a socket"
    assert [type(error) for error, metadata in reports] == [errors.ProducerClosedError] * 5
    assert "5 record(s) not acknowledged" in caplog.text
    assert threads_of(producer) == []


def test_close_with_timeout_zero_does_not_wait(cluster: MockCluster, make_producer: MakeProducer) -> None:
    producer = make_producer(linger_ms=60_000)
    producer.send("t", b"warm")
    producer.flush()
    reports: list[Any] = []
    future = producer.send("t", b"v", on_delivery=lambda *args: reports.append(args))
    started = time.monotonic()
    producer.close(timeout=0)
    assert time.monotonic() - started < 2
    with pytest.raises(errors.ProducerClosedError) as caught:
        future.get(timeout=0)
    assert caught.value.persisted == "no", "it was never sent"
    assert len(reports) == 1
    assert cluster.count("t") == 1


def test_close_fails_records_of_a_broker_that_is_gone(cluster: MockCluster, producer: KafkaProducer) -> None:
    producer.send("t", b"warm").get(10)
    cluster.stop_broker(1)
    future = producer.send("t", b"v")
    producer.close(timeout=0.1)
    with pytest.raises(errors.ProducerClosedError):
        future.get(timeout=0)


def test_close_inside_a_callback_returns_and_delivers_the_rest(
    cluster: MockCluster, make_producer: MakeProducer, eventually: Eventually
) -> None:
    producer = make_producer(batch_size=100, linger_ms=0)
    refused: list[BaseException] = []

    def close(error: KafkaError | None, metadata: RecordMetadata) -> None:
        producer.close()
        try:
            producer.send("t", b"too late")
        except errors.ProducerClosedError as raised:
            refused.append(raised)

    cluster.inject("Produce", delay_ms=100)
    futures: list[DeliveryFuture] = [producer.send("t", b"0", on_delivery=close)]
    futures += [producer.send("t", b"%d" % i) for i in range(1, 50)]
    assert [future.get(10).offset for future in futures] == list(range(50))
    eventually(lambda: threads_of(producer) == [])
    assert len(refused) == 1
    assert cluster.count("t") == 50


def test_close_in_two_threads_waits_in_both(cluster: MockCluster, make_producer: MakeProducer) -> None:
    producer = make_producer()
    cluster.inject("Produce", delay_ms=100)
    future = producer.send("t", b"v")
    seen: list[bool] = []

    def close() -> None:
        producer.close()
        seen.append(future.done())

    threads = [threading.Thread(target=close) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert seen == [True, True]


def test_close_wakes_threads_that_wait_for_metadata_or_memory(
    cluster: MockCluster, make_producer: MakeProducer, eventually: Eventually
) -> None:
    producer = make_producer(buffer_memory=40_000, linger_ms=0, allow_auto_create_topics=False)
    producer.send("t", b"warm").get(10)
    cluster.set_unreachable(1)
    caught: list[str] = []

    def send(topic: str) -> None:
        try:
            while True:
                producer.send(topic, bytes(5000))
        except errors.ProducerClosedError:
            caught.append(topic)

    threads = [threading.Thread(target=send, args=(topic,)) for topic in ("t", "unknown")]
    for thread in threads:
        thread.start()
    eventually(lambda: producer._engine_started.accumulator.memory()["waiting"])  # type: ignore[union-attr]
    started = time.monotonic()
    producer.close(timeout=0)
    for thread in threads:
        thread.join(10)
    assert sorted(caught) == ["t", "unknown"]
    assert time.monotonic() - started < 3


def test_close_closes_serializers_and_partitioner(make_producer: MakeProducer) -> None:
    closed: list[str] = []

    class Serializer:
        def serialize(self, topic: str, data: bytes) -> bytes:
            return data

        def close(self) -> None:
            closed.append("serializer")

    class Partitioner:
        def partition(self, topic: str, serialized_key: bytes, cluster: Any) -> int:
            return 0

        def close(self) -> None:
            closed.append("partitioner")

    producer = make_producer(value_serializer=Serializer(), partitioner=Partitioner())
    producer.send("t", b"v").get(10)
    producer.close()
    assert sorted(closed) == ["partitioner", "serializer"]


def test_memory_is_given_back_when_everything_is_decided(
    cluster: MockCluster, producer: KafkaProducer, eventually: Eventually
) -> None:
    for _ in range(3000):
        producer.send("t", bytes(100), on_delivery=lambda *args: None)
    producer.flush()
    eventually(lambda: producer.metrics(raw=True)["memory"]["used"] == 0)  # type: ignore[index]


# --- purge


def test_purge_drops_what_waits_and_what_is_in_flight(
    cluster: MockCluster, make_producer: MakeProducer
) -> None:
    producer = make_producer(linger_ms=60_000, batch_size=1000)
    producer.send("t", b"warm")
    producer.flush()
    cluster.inject("Produce", drop_response=True)
    in_flight = producer.send("t", bytes(2000))
    while producer.metrics(raw=True)["brokers"][1]["in_flight"] == 0:  # type: ignore[index]
        pass
    waiting = producer.send("t", b"v")
    producer.purge()
    with pytest.raises(errors.PurgedError, match="queue") as caught:
        waiting.get(timeout=0)
    assert caught.value.persisted == "no"
    with pytest.raises(errors.PurgedError, match="in flight") as caught:
        in_flight.get(timeout=0)
    assert caught.value.persisted == "possibly"


@pytest.mark.parametrize("queue", [True, False])
def test_purge_can_spare_one_or_the_other(
    cluster: MockCluster, make_producer: MakeProducer, queue: bool
) -> None:
    producer = make_producer(linger_ms=60_000, batch_size=1000, request_timeout_ms=500)
    producer.send("t", b"warm")
    producer.flush()
    cluster.inject("Produce", drop_response=True)
    in_flight = producer.send("t", bytes(2000))
    while producer.metrics(raw=True)["brokers"][1]["in_flight"] == 0:  # type: ignore[index]
        pass
    waiting = producer.send("t", b"v")
    producer.purge(in_queue=queue, in_flight=not queue)
    assert waiting.failed() is queue
    assert in_flight.failed() is not queue
    producer.flush(10)
    assert (in_flight if queue else waiting).succeeded()


def test_sending_goes_on_after_purge_in_order_and_once(
    cluster: MockCluster, make_producer: MakeProducer
) -> None:
    producer = make_producer(linger_ms=0, batch_size=200, request_timeout_ms=300)
    producer.send("t", b"warm").get(10)
    for round_ in range(5):
        cluster.inject("Produce", close_connection="after")
        for i in range(20):
            producer.send("t", b"purged %d %d" % (round_, i))
        producer.purge()
        kept = [producer.send("t", b"kept %d %d" % (round_, i)) for i in range(20)]
        producer.flush(10)
        assert [future.succeeded() for future in kept] == [True] * 20
    values = [record.value or b"" for record in cluster.records("t")]
    assert len(values) == len(set(values)), "nothing may be there twice"
    assert [value for value in values if value.startswith(b"kept")] == [
        b"kept %d %d" % (round_, i) for round_ in range(5) for i in range(20)
    ]


# --- neither closed nor initialised


def test_a_dropped_producer_delivers_and_warns(cluster: MockCluster, eventually: Eventually) -> None:
    producer = KafkaProducer(bootstrap_servers=cluster.bootstrap_servers, linger_ms=60_000)
    name = repr(producer)
    future = producer.send("t", b"v")
    client_id = producer.config["client_id"]
    with pytest.warns(ResourceWarning, match="unclosed") as warned:
        del producer
    assert name.split()[1] in str(warned[0].message)
    assert future.get(10).offset == 0
    eventually(lambda: not [t for t in threading.enumerate() if t.name.startswith(f"{client_id}-")])


def test_a_producer_that_was_never_initialised_says_so() -> None:
    producer = KafkaProducer.__new__(KafkaProducer)
    with pytest.raises(RuntimeError, match=r"__init__\(\) has not been called"):
        producer.send("t", b"v")
    with pytest.raises(RuntimeError, match=r"__init__\(\) has not been called"):
        producer.partitions_for("t")
    producer.flush()
    producer.purge()
    producer.close()
    assert producer.metrics() is None
    assert not producer.bootstrap_connected()
    assert "not initialised" in repr(producer)


def test_a_constructor_that_fails_leaves_no_threads() -> None:
    before = threading.active_count()
    with pytest.raises(errors.KafkaConfigurationError):
        KafkaProducer(linger_ms=-1)
    with pytest.raises(errors.KafkaConfigurationError):
        KafkaProducer(value_serializer=3)
    with pytest.raises(errors.NoBrokersAvailable):
        KafkaProducer(bootstrap_servers="127.0.0.1:1", bootstrap_timeout_ms=50)
    assert threading.active_count() == before
