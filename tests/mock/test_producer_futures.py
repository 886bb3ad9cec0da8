"""What send() returns, and callbacks."""

from __future__ import annotations

import asyncio
import copy
import logging
import pickle
import threading
import time
from functools import partial
from typing import Any

import pytest

from kprod import DeliveryFuture, KafkaError, KafkaProducer, RecordMetadata, TopicPartition, errors
from kprod.testing import MockCluster
from tests.mock.conftest import Eventually, MakeProducer

INVALID_RECORD = 87


def held(cluster: MockCluster) -> Any:
    """Answers to produce requests come only once the fault is removed: with the end of the connection."""
    return cluster.inject("Produce", drop_response=True, times=None)


# --- the outcome


def test_get_returns_where_the_record_is(cluster: MockCluster, producer: KafkaProducer) -> None:
    cluster.create_topic("many", partitions=4)
    metadata = producer.send(
        "many", b"value", key=b"k", headers=[("name", b"12345")], partition=2, timestamp_ms=1_700_000_000_123
    ).get(timeout=10)
    assert isinstance(metadata, RecordMetadata)
    assert (metadata.topic, metadata.partition, metadata.offset) == ("many", 2, 0)
    assert metadata.topic_partition == TopicPartition("many", 2)
    assert (metadata.timestamp, metadata.timestamp_type) == (1_700_000_000_123, 0)
    assert metadata.checksum is None
    assert (metadata.serialized_key_size, metadata.serialized_value_size) == (1, 5)
    assert metadata.serialized_header_size == len("name") + 5
    assert metadata.attempts == 1
    assert metadata.persisted == "yes"
    assert 0 <= metadata.latency_ms < 10_000
    [record] = cluster.records("many")
    assert (record.partition, record.offset, record.timestamp) == (2, 0, 1_700_000_000_123)


def test_sizes_of_null_key_null_value_and_no_headers_are_minus_one(producer: KafkaProducer) -> None:
    null = producer.send("t").get(10)
    assert (null.serialized_key_size, null.serialized_value_size, null.serialized_header_size) == (-1, -1, -1)
    empty = producer.send("t", b"", key=b"", headers=[("", b"")]).get(10)
    assert (empty.serialized_key_size, empty.serialized_value_size, empty.serialized_header_size) == (0, 0, 0)


def test_metadata_works_like_kafka_pythons_named_tuple(producer: KafkaProducer) -> None:
    metadata = producer.send("t", b"12", timestamp_ms=7).get(10)
    expected = ("t", 0, ("t", 0), 0, 7, None, -1, 2, -1)
    assert metadata == expected
    assert tuple(metadata) == expected
    assert metadata[3] == metadata.offset
    assert metadata[-2:] == (2, -1)
    assert len(metadata) == 9
    assert hash(metadata) == hash(expected)
    assert metadata != ("t",)
    assert "offset=0" in repr(metadata)
    topic, partition, *_ = metadata
    assert (topic, partition) == ("t", 0)


def test_metadata_can_be_pickled_and_copied(producer: KafkaProducer) -> None:
    metadata = producer.send("t", b"12").get(10)
    plain = pickle.loads(pickle.dumps(metadata))
    assert plain == tuple(metadata)
    assert plain.topic_partition == TopicPartition("t", 0)
    assert tuple(copy.copy(metadata)) == tuple(metadata)


def test_log_append_time_of_the_broker_is_reported(cluster: MockCluster, producer: KafkaProducer) -> None:
    cluster.create_topic("stamped", config={"message.timestamp.type": "LogAppendTime"})
    before = int(time.time() * 1000)
    metadata = producer.send("stamped", b"v", timestamp_ms=5).get(10)
    assert before - 1 <= metadata.timestamp <= time.time() * 1000 + 1
    assert metadata.timestamp_type == 1


def test_a_fresh_future_is_pending(cluster: MockCluster, producer: KafkaProducer) -> None:
    held(cluster)
    future = producer.send("t", b"v")
    assert not future.done()
    assert not future.is_done
    assert not future.succeeded()
    assert not future.failed()
    assert future.value is None
    assert future.exception is None
    assert "t-0 pending" in repr(future)


def test_a_succeeded_future_says_so(producer: KafkaProducer) -> None:
    future = producer.send("t", b"v")
    assert future.result(timeout=10).offset == 0
    assert future.done()
    assert future.is_done
    assert future.succeeded()
    assert not future.failed()
    assert future.value == future.get()
    assert future.exception is None
    assert not future.retriable()
    assert "offset=0" in repr(future)


def test_a_failed_future_says_so(cluster: MockCluster, producer: KafkaProducer) -> None:
    cluster.inject("Produce", "INVALID_RECORD", error_message="no good")
    future = producer.send("t", b"v")
    with pytest.raises(errors.InvalidRecordError, match="no good") as caught:
        future.get(timeout=10)
    assert (caught.value.topic, caught.value.partition, caught.value.persisted) == ("t", 0, "no")
    assert "127.0.0.1" in str(caught.value.broker)
    assert future.done()
    assert future.failed()
    assert not future.succeeded()
    assert future.value is None
    assert future.exception == caught.value
    assert future.exception is not caught.value, "one exception in two threads would mix their tracebacks"
    assert not future.retriable()
    assert "no good" in repr(future)


def test_get_that_times_out_leaves_the_record_under_way(
    cluster: MockCluster, make_producer: MakeProducer
) -> None:
    producer = make_producer(request_timeout_ms=300)
    fault = held(cluster)
    future = producer.send("t", b"v")
    for timeout in (0, 0.01):
        with pytest.raises(errors.KafkaTimeoutError) as caught:
            future.get(timeout=timeout)
        assert caught.value.persisted in ("no", "possibly"), "it may have been sent by now, or not"
        assert "t" in str(caught.value)
    cluster.clear()
    del fault
    assert future.get(timeout=10).offset == 0


def test_get_in_many_threads_wakes_them_all(cluster: MockCluster, producer: KafkaProducer) -> None:
    cluster.inject("Produce", delay_ms=100)
    future = producer.send("t", b"v")
    offsets: list[int] = []
    threads = [threading.Thread(target=lambda: offsets.append(future.get(10).offset)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(15)
    assert offsets == [0] * 8


def test_a_record_that_was_accepted_cannot_be_cancelled(
    cluster: MockCluster, producer: KafkaProducer
) -> None:
    future = producer.send("t", b"v")
    assert future.cancel() is False
    assert future.cancelled() is False
    assert future.get(10).offset == 0


def test_futures_and_metadata_cannot_be_made_by_hand() -> None:
    with pytest.raises(TypeError, match="send"):
        DeliveryFuture()
    with pytest.raises(TypeError, match="callbacks"):
        RecordMetadata()


# --- callbacks of futures


def test_add_callback_gets_extra_arguments_first_and_the_metadata_last(producer: KafkaProducer) -> None:
    calls: list[Any] = []
    future = producer.send("t", b"v")
    same = future.add_callback(lambda *args, **kwargs: calls.append((args, kwargs)), 1, "two", three=3)
    assert same is future
    producer.flush()
    [((one, two, metadata), kwargs)] = calls
    assert (one, two, kwargs) == (1, "two", {"three": 3})
    assert metadata == future.get()


def test_add_errback_gets_extra_arguments_first_and_the_error_last(
    cluster: MockCluster, producer: KafkaProducer
) -> None:
    cluster.inject("Produce", "INVALID_RECORD")
    calls: list[Any] = []
    future = producer.send("t", b"v")
    assert future.add_errback(lambda *args, **kwargs: calls.append((args, kwargs)), 1, two=2) is future
    future.add_callback(calls.append)
    producer.flush()
    [((one, error), kwargs)] = calls
    assert (one, kwargs) == (1, {"two": 2})
    assert isinstance(error, errors.InvalidRecordError)


def test_add_errback_is_not_called_for_success(producer: KafkaProducer) -> None:
    calls: list[Any] = []
    producer.send("t", b"v").add_errback(calls.append)
    producer.flush()
    assert calls == []


def test_add_both_is_called_either_way(cluster: MockCluster, make_producer: MakeProducer) -> None:
    producer = make_producer(linger_ms=0)
    calls: list[Any] = []
    good = producer.send("t", b"v").add_both(calls.append)
    producer.flush()
    cluster.inject("Produce", "INVALID_RECORD")
    producer.send("t", b"v").add_both(lambda *args: calls.append(args), "extra")
    producer.flush()
    first, (extra, error) = calls
    assert first == good.get()
    assert extra == "extra"
    assert isinstance(error, KafkaError)


def test_add_done_callback_gets_the_future(producer: KafkaProducer) -> None:
    calls: list[DeliveryFuture] = []
    future = producer.send("t", b"v")
    future.add_done_callback(calls.append)
    producer.flush()
    [done] = calls
    assert done.result() == future.result()


def test_a_callback_added_after_the_outcome_runs_at_once_in_the_callers_thread(
    producer: KafkaProducer,
) -> None:
    threads: list[Any] = []
    future = producer.send("t", b"v")
    future.get(10)
    producer.flush()
    future.add_callback(lambda metadata: threads.append(threading.current_thread()))
    assert threads == [threading.current_thread()]


def test_a_callback_that_is_not_callable_is_refused(producer: KafkaProducer) -> None:
    future = producer.send("t", b"v")
    with pytest.raises(TypeError, match="callable"):
        future.add_callback(3)  # type: ignore[call-overload]
    with pytest.raises(TypeError, match="on_delivery must be callable"):
        producer.send("t", b"v", on_delivery=3)  # type: ignore[arg-type]


def test_callbacks_of_one_record_run_in_the_order_in_which_they_were_added(producer: KafkaProducer) -> None:
    calls: list[int] = []
    future = producer.send("t", b"v", on_delivery=lambda error, metadata: calls.append(0))
    for i in range(1, 20):
        future.add_callback(lambda i, metadata: calls.append(i), i)
    producer.flush()
    assert calls == list(range(20))


def test_callbacks_of_a_partition_run_in_send_order(
    cluster: MockCluster, make_producer: MakeProducer
) -> None:
    cluster.create_topic("three", partitions=3)
    producer = make_producer(batch_size=200, linger_ms=1)
    seen: dict[int, list[int]] = {0: [], 1: [], 2: []}
    for i in range(600):
        producer.send(
            "three", b"%d" % i, partition=i % 3,
            on_delivery=partial(lambda i, error, metadata: seen[metadata.partition].append(i), i),
        )  # fmt: skip
    producer.flush()
    assert seen == {p: list(range(p, 600, 3)) for p in range(3)}


def test_late_callbacks_of_a_partition_run_in_send_order(
    cluster: MockCluster, producer: KafkaProducer
) -> None:
    cluster.inject("Produce", delay_ms=50)
    seen: list[int] = []
    futures = [producer.send("t", b"%d" % i) for i in range(100)]
    for i in reversed(range(100)):
        futures[i].add_callback(lambda i, metadata: seen.append(i), i)
    producer.flush()
    assert seen == list(range(100))


def test_a_callback_that_raises_is_logged_and_delivery_goes_on(
    producer: KafkaProducer, caplog: pytest.LogCaptureFixture
) -> None:
    calls: list[int] = []

    def fail(*args: object) -> None:
        raise ZeroDivisionError("in the callback")

    def leave(*args: object) -> None:
        raise SystemExit(3)

    with caplog.at_level(logging.ERROR, logger="kprod"):
        producer.send("t", b"1", on_delivery=fail)
        producer.send("t", b"2").add_callback(fail).add_callback(leave)
        producer.send("t", b"3", on_delivery=lambda error, metadata: calls.append(metadata.offset))
        producer.flush()
    assert calls == [2]
    failures = [record for record in caplog.records if "delivery callback" in record.message]
    assert len(failures) == 3
    assert failures[0].exc_info is not None
    assert failures[0].exc_info[0] is ZeroDivisionError
    assert "t-0" in failures[0].message
    producer.send("t", b"4").get(10)


def test_on_delivery_gets_no_error_and_the_metadata(producer: KafkaProducer) -> None:
    calls: list[Any] = []
    future = producer.send("t", b"v", on_delivery=lambda *args: calls.append(args))
    producer.flush()
    [(error, metadata)] = calls
    assert error is None
    assert metadata == future.get()


def test_on_delivery_of_a_failed_record_gets_the_error_and_metadata_without_an_offset(
    cluster: MockCluster, producer: KafkaProducer
) -> None:
    cluster.inject("Produce", "INVALID_RECORD")
    calls: list[Any] = []
    producer.send("t", b"v", key=b"abc", on_delivery=lambda *args: calls.append(args))
    producer.flush()
    [(error, metadata)] = calls
    assert isinstance(error, errors.InvalidRecordError)
    assert (metadata.topic, metadata.partition, metadata.offset) == ("t", 0, -1)
    assert metadata.serialized_key_size == 3
    assert metadata.persisted == "no"


def test_on_delivery_of_the_producer_is_the_default(make_producer: MakeProducer) -> None:
    calls: list[str] = []
    producer = make_producer(on_delivery=lambda error, metadata: calls.append("default"))
    producer.send("t", b"1")
    producer.send("t", b"2", on_delivery=lambda error, metadata: calls.append("own"))
    producer.flush()
    assert calls == ["default", "own"]


def test_headers_come_with_the_report_when_they_are_asked_for(make_producer: MakeProducer) -> None:
    headers = [("a", b"1")]
    reports: list[Any] = []
    for asked in (True, False):
        producer = make_producer(delivery_report_headers=asked)
        producer.send("t", b"v", headers=headers, on_delivery=lambda error, m: reports.append(m.headers))
        producer.send("t", b"v", on_delivery=lambda error, m: reports.append(m.headers))
        producer.flush()
    assert reports[0] is headers
    assert reports[1:] == [None, None, None]


def test_callbacks_are_released_after_they_ran(producer: KafkaProducer, eventually: Eventually) -> None:
    import weakref

    class Callback:
        def __call__(self, *args: object) -> None: ...

    first, second = Callback(), Callback()
    references = [weakref.ref(first), weakref.ref(second)]
    future = producer.send("t", b"v", on_delivery=first)
    future.add_callback(second)
    del first, second
    producer.flush()
    eventually(lambda: [reference() for reference in references] == [None, None])


def test_send_inside_a_callback_works(producer: KafkaProducer) -> None:
    futures: list[DeliveryFuture] = []
    done = threading.Event()

    def again(error: KafkaError | None, metadata: RecordMetadata) -> None:
        futures.append(producer.send("t", b"second"))
        done.set()

    producer.send("t", b"first", on_delivery=again)
    assert done.wait(10)
    assert futures[0].get(10).offset == 1


# --- asyncio


def test_a_future_can_be_awaited(producer: KafkaProducer) -> None:
    async def main() -> list[int]:
        first = await producer.send("t", b"1")
        rest = await asyncio.gather(*(producer.send("t", b"%d" % i) for i in range(20)))
        return [first.offset, *(metadata.offset for metadata in rest)]

    assert asyncio.run(main()) == list(range(21))


def test_a_decided_future_can_be_awaited_again_and_again(producer: KafkaProducer) -> None:
    async def main() -> None:
        future = producer.send("t", b"1")
        await future
        assert (await future).offset == 0
        assert (await future).offset == 0

    asyncio.run(main())


def test_awaiting_a_failed_record_raises(cluster: MockCluster, producer: KafkaProducer) -> None:
    cluster.inject("Produce", "INVALID_RECORD")

    async def main() -> None:
        future = producer.send("t", b"1")
        for _ in range(2):
            with pytest.raises(errors.InvalidRecordError):
                await future

    asyncio.run(main())


def test_giving_up_awaiting_does_not_give_up_the_record(
    cluster: MockCluster, producer: KafkaProducer
) -> None:
    cluster.inject("Produce", delay_ms=150)

    async def main() -> DeliveryFuture:
        future = producer.send("t", b"1")
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(future, 0.02)
        return future

    assert asyncio.run(main()).get(10).offset == 0


def test_await_needs_a_running_loop(producer: KafkaProducer) -> None:
    future = producer.send("t", b"1")
    with pytest.raises(RuntimeError, match="running event loop"):
        future.__await__()
