"""MockProducer: it takes and refuses what the real producer does, and decides records when it is told to."""

from __future__ import annotations

import array
import asyncio
import inspect
import json
import threading
from typing import Any

import pytest

from kprod import (
    BulkDeliveryFuture,
    DeliveryFuture,
    DeliveryReports,
    KafkaProducer,
    RecordMetadata,
    TopicPartition,
    errors,
)
from kprod.errors import IllegalStateError, ProducerFencedError
from kprod.testing import (
    MockBulkDeliveryFuture,
    MockCluster,
    MockDeliveryFuture,
    MockDeliveryReports,
    MockProducer,
    MockRecordMetadata,
)


def public(cls: type) -> set[str]:
    return {name for name in dir(cls) if not name.startswith("_")}


def test_has_what_the_real_ones_have() -> None:
    # What a producer runs on is for the package's own modules; a stand-in has none.
    assert public(KafkaProducer) - {"engine"} <= public(MockProducer) | set(vars(MockProducer()))
    assert public(DeliveryFuture) <= public(MockDeliveryFuture)
    assert public(RecordMetadata) <= public(MockRecordMetadata)
    assert public(BulkDeliveryFuture) <= public(MockBulkDeliveryFuture)
    assert public(DeliveryReports) <= public(MockDeliveryReports)
    bulk = ("send_many", "send_columns", "send_table")
    rest = (
        "flush",
        "close",
        "purge",
        "partitions_for",
        "metrics",
        "bootstrap_connected",
        "set_sasl_credentials",
    )
    for name in (*bulk, *rest):
        real = inspect.signature(getattr(KafkaProducer, name)).parameters
        assert list(inspect.signature(getattr(MockProducer, name)).parameters) == list(real), name


def test_delivers_at_once_and_remembers() -> None:
    delivered: list[Any] = []
    producer = MockProducer(value_serializer=lambda v: json.dumps(v).encode(), partitions=3)
    with producer:
        future = producer.send(
            "t", {"a": 1}, key=b"k", headers={"h": b"x"}, on_delivery=lambda *args: delivered.append(args)
        )
        metadata = future.get(0)
        assert (metadata.topic, metadata.offset, metadata.serialized_value_size) == ("t", 0, 8)
        assert metadata.serialized_header_size == 2
        assert delivered == [(None, metadata)]
        assert producer.send("t", None, key=b"k").get().offset == 1
    (first, second) = producer.history()
    assert (first.value, first.serialized_value, first.headers) == ({"a": 1}, b'{"a": 1}', [("h", b"x")])
    assert (second.value, second.serialized_value) == (None, None)
    assert first.partition == second.partition == metadata.partition
    assert producer.metrics()["producer-metrics"]["record-send-total"] == 2
    producer.clear()
    assert producer.history() == []


def test_same_placement_as_the_real_producer() -> None:
    keys = [b"key-%d" % i for i in range(50)]
    mock = MockProducer(partitions=7)
    with MockCluster(default_partitions=7) as cluster:
        with KafkaProducer(bootstrap_servers=cluster.bootstrap_servers) as real:
            placed = {key: real.send("t", b"", key=key).get(10).partition for key in keys}
    assert {key: mock.send("t", b"", key=key).get().partition for key in keys} == placed
    assert len(set(placed.values())) > 1


def test_decides_when_told() -> None:
    producer = MockProducer(auto_complete=False)
    log: list[str] = []
    first = producer.send("t", b"1", on_delivery=lambda error, metadata: log.append(f"1 {error}"))
    second = producer.send("t", b"2")
    second.add_callback(lambda tag, metadata: log.append(tag), "never").add_errback(
        lambda tag, error, more: log.append(f"{tag} {type(error).__name__} {more}"), "2", more="x"
    )
    assert producer.pending_count == 2
    assert not first.done()
    with pytest.raises(errors.KafkaTimeoutError, match=r"not decided after 0\.01 s"):
        first.get(0.01)
    assert producer.complete_next()
    assert producer.error_next(errors.for_code(7)("too late"))
    assert not producer.complete_next()
    assert not producer.error_next(ValueError())
    assert log == ["1 None", "2 RequestTimedOutError x"]
    assert (first.succeeded(), first.failed(), first.exception) == (True, False, None)
    assert (second.succeeded(), second.failed(), second.value) == (False, True, None)
    assert second.retriable()
    with pytest.raises(errors.for_code(7), match="too late"):
        second.result()
    # Once it is decided, a callback runs at once.
    second.add_both(lambda outcome: log.append(type(outcome).__name__))
    assert log[-1] == "RequestTimedOutError"


def test_foreign_errors_are_wrapped_and_bad_callbacks_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    producer = MockProducer(auto_complete=False)
    seen: list[object] = []
    future = producer.send("t", b"x", on_delivery=lambda error, metadata: 1 / 0)
    future.add_done_callback(seen.append)
    cause = OSError("no network")
    producer.error_next(cause)
    assert isinstance(future.exception, errors.KafkaError)
    assert future.exception.__cause__ is cause
    assert seen == [future]
    assert "ZeroDivisionError" in caplog.text
    with pytest.raises(TypeError, match="a callback must be callable, got int"):
        future.add_callback(4)  # type: ignore[arg-type]


def test_flush_close_and_purge() -> None:
    producer = MockProducer(auto_complete=False)
    futures = [producer.send("t", b"x") for _ in range(3)]
    producer.flush()
    assert [f.get(0).offset for f in futures] == [0, 1, 2]
    purged = producer.send("t", b"x")
    producer.purge()
    assert isinstance(purged.exception, errors.PurgedError)
    late = producer.send("t", b"x")
    producer.close()
    assert late.succeeded()
    assert producer.closed
    with pytest.raises(errors.ProducerClosedError):
        producer.send("t", b"x")
    other = MockProducer(auto_complete=False)
    dropped = other.send("t", b"x")
    other.close(timeout=0)
    assert isinstance(dropped.exception, errors.ProducerClosedError)


def test_errors_that_can_be_asked_for() -> None:
    producer = MockProducer()
    producer.send_error = errors.BufferExhaustedError("full")
    with pytest.raises(errors.BufferExhaustedError):
        producer.send("t", b"x")
    producer.send_error = None
    producer.flush_error = errors.KafkaTimeoutError("slow")
    with pytest.raises(errors.KafkaTimeoutError):
        producer.flush()
    producer.close_error = errors.KafkaError("stuck")
    with pytest.raises(errors.KafkaError, match="stuck"):
        producer.close()
    assert producer.history() == []


BAD_RECORDS: list[tuple[dict[str, Any], type[Exception]]] = [
    ({"topic": "not a name", "value": b""}, ValueError),
    ({"topic": 4, "value": b""}, TypeError),
    ({"value": "text"}, TypeError),
    ({"value": b"", "key": 4}, TypeError),
    ({"value": b"", "headers": [("h", "text")]}, TypeError),
    ({"value": b"", "headers": [(b"h", b"")]}, TypeError),
    ({"value": b"", "partition": 2}, ValueError),
    ({"value": b"", "partition": -1}, ValueError),
    ({"value": b"", "partition": "0"}, TypeError),
    ({"value": b"", "timestamp_ms": -2}, ValueError),
    ({"value": b"", "timestamp_ms": "now"}, TypeError),
    ({"value": b"", "on_delivery": 4}, TypeError),
    ({"value": b"x" * 2_000_000}, errors.MessageSizeTooLargeError),
]


@pytest.mark.parametrize(("record", "error"), BAD_RECORDS, ids=range(len(BAD_RECORDS)))
def test_refuses_what_the_real_producer_refuses(record: dict[str, Any], error: type[Exception]) -> None:
    record = {"topic": "t", **record}
    mock = MockProducer(partitions=2)
    with pytest.raises(error) as by_mock:
        mock.send(**record)
    assert mock.history() == []
    with MockCluster(default_partitions=2) as cluster:
        with (
            KafkaProducer(bootstrap_servers=cluster.bootstrap_servers) as real,
            pytest.raises(error) as by_real,
        ):
            real.send(**record)
        assert cluster.count() == 0
    assert type(by_mock.value) is type(by_real.value)


def test_options_are_checked() -> None:
    with pytest.raises(errors.UnknownOptionError, match="linger_ms"):
        MockProducer(lingr_ms=5)
    with pytest.raises(errors.KafkaConfigurationError):
        MockProducer({"acks": "7"})
    topics = MockProducer(partitions={"known": 2})
    assert topics.partitions_for("known") == {0, 1}
    with pytest.raises(errors.KafkaTimeoutError, match="'unknown' does not exist"):
        topics.send("unknown", b"")


def test_partitioners() -> None:
    custom = MockProducer(
        partitioner=lambda key_bytes, all_partitions, available: all_partitions[-1], partitions=4
    )
    assert custom.send("t", b"", key=b"x").get().partition == 3
    turns = MockProducer(partitioner="round_robin", partitions=3)
    assert [turns.send("t", b"").get().partition for _ in range(4)] == [0, 1, 2, 0]
    assert MockProducer(partitions=3).send("t", b"").get().partition == 0


def test_await_and_threads() -> None:
    producer = MockProducer(auto_complete=False)
    future = producer.send("t", b"x")

    async def wait() -> int:
        return (await future).offset

    deciding = threading.Timer(0.01, producer.complete_next)
    deciding.start()
    assert asyncio.run(wait()) == 0
    deciding.join()
    failing = producer.send("t", b"x")
    producer.error_next(errors.KafkaError("no"))

    async def fail() -> None:
        await failing

    with pytest.raises(errors.KafkaError, match="no"):
        asyncio.run(fail())


def test_a_transaction_is_visible_once_it_is_committed() -> None:
    producer = MockProducer(transactional_id="t")
    with pytest.raises(IllegalStateError, match="uninitialized"):
        producer.send("t", b"early")
    producer.init_transactions()
    with producer.transaction():
        producer.send("t", b"a")
        producer.send_offsets_to_transaction({TopicPartition("in", 0): 7}, "group")
        assert producer.committed() == []
    with pytest.raises(KeyError), producer.transaction():
        producer.send("t", b"b")
        raise KeyError
    assert [record.value for record in producer.committed()] == [b"a"]
    assert [record.value for record in producer.history()] == [b"a", b"b"]
    assert (producer.commit_count, producer.committed_offsets) == (1, {"group": {("in", 0): 7}})


def test_a_fenced_stand_in_refuses_everything() -> None:
    producer = MockProducer(transactional_id="t")
    producer.init_transactions()
    producer.begin_transaction()
    producer.fence()
    for call in (producer.commit_transaction, producer.abort_transaction, lambda: producer.send("t", b"v")):
        with pytest.raises(ProducerFencedError):
            call()


def test_transactions_need_the_option() -> None:
    with pytest.raises(IllegalStateError, match="transactional_id"):
        MockProducer().init_transactions()


def test_takes_many_records_in_one_call() -> None:
    delivered: list[Any] = []
    producer = MockProducer(value_serializer=lambda v: json.dumps(v).encode(), partitions=3)
    future = producer.send_many(
        "t", [{"a": 1}, None, 3], [b"k", None, b"k"], [("h", b"1")], 7, [2, None, 2],
        on_delivery=lambda error, metadata: delivered.append(metadata.offset),
    )  # fmt: skip
    reports = future.get(0)
    assert [record.serialized_value for record in producer.history()] == [b'{"a": 1}', None, b"3"]
    assert [record.timestamp_ms for record in producer.history()] == [7, 7, 7]
    assert [record.headers for record in producer.history()] == [[("h", b"1")]] * 3
    assert list(reports.partitions()) == list(future.partitions()) == [2, 0, 2]
    assert list(reports.offsets()) == [0, 0, 1] == [report.offset for report in reports]
    assert delivered == [0, 0, 1]
    assert len(future) == 3 and future.succeeded() and future[2].get(0).offset == 1
    assert reports[1:][0].partition == 0 and "3 records: 3 done" in repr(future)


def test_takes_columns_and_tables_and_gives_them_no_serializer() -> None:
    producer = MockProducer(value_serializer=lambda v: json.dumps(v).encode(), partitions=3)
    data = (b"aabbb", array.array("i", [0, 2, 5]))
    producer.send_columns("t", data, (b"kk", array.array("q", [0, 1, 2])), partitions=1).get(0)
    assert [(r.key, r.value, r.partition) for r in producer.history()] == [
        (b"k", b"aa", 1),
        (b"k", b"bbb", 1),
    ]
    with pytest.raises(TypeError, match="table must have __arrow_c_stream__"):
        producer.send_table("t", {}, "v")  # type: ignore[arg-type]


def test_refuses_a_call_as_a_whole() -> None:
    producer = MockProducer(max_request_size=1000)
    for values, error in (([b"a", "b"], TypeError), ([b"a", b"x" * 2000], errors.MessageSizeTooLargeError)):
        with pytest.raises(error):
            producer.send_many("t", values)
    with pytest.raises(ValueError, match="keys must have one item for each of the 1 values, and has 2"):
        producer.send_many("t", [b"a"], [b"k", b"k"])
    assert producer.history() == []


def test_decides_many_records_one_by_one() -> None:
    producer = MockProducer(auto_complete=False, partitioner="round_robin", partitions=2)
    future = producer.send_many("t", [b"1", b"2", b"3"])
    ran: list[Any] = []
    future.add_callback(ran.append).add_errback(ran.append).add_both(ran.append)
    future.add_done_callback(ran.append)
    assert list(future.partitions()) == [0, 1, 0]
    with pytest.raises(errors.KafkaTimeoutError):
        future.get(0)
    producer.complete_next()
    producer.error_next(errors.InvalidRecordError("no"))
    assert not future.done() and future.exception is None and ran == []
    producer.complete_next()
    assert future.done() and future.failed() and not future.retriable()
    assert [(index, type(error)) for index, error in future.failures()] == [(1, errors.InvalidRecordError)]
    assert (future.acked_count, future.failed_count, list(future.offsets())) == (2, 1, [0, -1, 1])
    assert [type(one) for one in ran] == [errors.InvalidRecordError] * 2 + [MockBulkDeliveryFuture]
    with pytest.raises(errors.InvalidRecordError):
        future.get(0)

    async def main() -> None:
        with pytest.raises(errors.InvalidRecordError):
            await future
        producer.auto_complete = True
        assert len(await producer.send_many("t", [b"4"])) == 1

    asyncio.run(main())
