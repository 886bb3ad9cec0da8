"""send_many() and its future: many records in one call."""

from __future__ import annotations

import array
import asyncio
import gc
import json
import random
import sys
import threading
import time
import tracemalloc
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import pytest

from kprod import BulkDeliveryFuture, DeliveryFuture, KafkaProducer, RecordMetadata, errors
from kprod.partitioner import Partitioner, PartitionRequest
from kprod.testing import MockCluster
from tests.mock.conftest import Eventually, MakeCluster, MakeProducer


def values_of(cluster: MockCluster, topic: str = "t", partition: int | None = None) -> list[bytes | None]:
    return [record.value for record in cluster.records(topic, partition)]


def numbered(count: int, size: int = 10) -> list[bytes]:
    return [b"%0*d" % (size, i) for i in range(count)]


@pytest.fixture
def wide(make_cluster: MakeCluster) -> MockCluster:
    """A mock cluster of two brokers with the topic ``t`` of eight partitions."""
    made = make_cluster(brokers=2)
    made.create_topic("t", partitions=8)
    return made


# --- what is sent


def test_records_arrive_in_order_with_everything_they_have(
    cluster: MockCluster, producer: KafkaProducer
) -> None:
    values: list[Any] = [b"a", bytearray(b"bb"), memoryview(b"ccc"), b"", None]
    keys = [b"k1", None, b"", memoryview(b"k4"), bytearray(b"k5")]
    headers: list[Any] = [[("h", b"1")], None, {"m": b"2"}, [], (("x", None), ("y", b""))]
    timestamps = [1000, 2000, 5, 4000, 0]
    future = producer.send_many("t", values, keys, headers, timestamps)
    reports = future.get(10)
    found = cluster.records("t")
    assert [r.value for r in found] == [b"a", b"bb", b"ccc", b"", None]
    assert [r.key for r in found] == [b"k1", None, b"", b"k4", b"k5"]
    assert [list(r.headers) for r in found] == [
        [("h", b"1")], [], [("m", b"2")], [], [("x", None), ("y", b"")]
    ]  # fmt: skip
    assert [r.timestamp for r in found] == timestamps
    assert [report.offset for report in reports] == [0, 1, 2, 3, 4]
    assert [report.timestamp for report in reports] == timestamps
    assert [report.serialized_key_size for report in reports] == [2, -1, 0, 2, 2]
    assert [report.serialized_value_size for report in reports] == [1, 2, 3, 0, -1]
    assert [report.serialized_header_size for report in reports] == [2, -1, 2, -1, 2]


def test_one_header_list_and_one_timestamp_are_for_all(cluster: MockCluster, producer: KafkaProducer) -> None:
    producer.send_many("t", [b"1", b"2"], headers=[("a", b"x"), ("b", None)], timestamps=77).get(10)
    producer.send_many("t", [b"3"], headers={"c": b"y"}).get(10)
    found = cluster.records("t")
    assert [list(r.headers) for r in found] == [[("a", b"x"), ("b", None)]] * 2 + [[("c", b"y")]]
    assert [r.timestamp for r in found[:2]] == [77, 77]
    assert abs(found[2].timestamp - time.time() * 1000) < 60_000


def test_no_records_are_no_request_and_a_future_that_is_done(
    cluster: MockCluster, producer: KafkaProducer
) -> None:
    future = producer.send_many("t", [])
    assert len(future) == 0 and future.done() and future.succeeded() and list(future.get(0)) == []
    assert list(future.failures()) == [] and len(future.offsets()) == 0
    ran: list[Any] = []
    future.add_callback(ran.append)
    assert len(ran) == 1
    assert cluster.requests_of("Produce") == []


def test_any_iterable_is_taken(cluster: MockCluster, producer: KafkaProducer) -> None:
    producer.send_many("t", (b"%d" % i for i in range(3)), keys=iter([b"a", b"b", b"c"])).get(10)
    assert [(r.key, r.value) for r in cluster.records("t")] == [(b"a", b"0"), (b"b", b"1"), (b"c", b"2")]


@pytest.mark.parametrize(
    "partitions",
    [
        [3, 0, 7, 3],
        (3, 0, 7, 3),
        array.array("i", [3, 0, 7, 3]),
        array.array("q", [3, 0, 7, 3]),
        array.array("B", [3, 0, 7, 3]),
        array.array("H", [3, 0, 7, 3]),
        array.array("h", [3, 0, 7, 3]),
        array.array("L", [3, 0, 7, 3]),
    ],
)
def test_partitions_may_be_a_sequence_or_a_buffer(
    wide: MockCluster, make_producer: MakeProducer, partitions: Any
) -> None:
    future = make_producer(wide).send_many("t", numbered(4), partitions=partitions)
    reports = future.get(10)
    assert list(future.partitions()) == list(reports.partitions()) == [3, 0, 7, 3]
    assert [r.partition for r in reports] == [3, 0, 7, 3]
    assert list(future.offsets()) == [0, 0, 0, 1]
    assert values_of(wide, partition=3) == [b"%010d" % 0, b"%010d" % 3]


def test_one_partition_for_all_and_none_for_some(wide: MockCluster, make_producer: MakeProducer) -> None:
    producer = make_producer(wide)
    assert set(producer.send_many("t", numbered(10), partitions=5).get(10).partitions()) == {5}
    mixed = producer.send_many("t", numbered(3), keys=[b"key"] * 3, partitions=[1, None, 2])
    by_key = producer.send("t", b"", key=b"key").get(10).partition
    assert list(mixed.get(10).partitions()) == [1, by_key, 2]


def test_keys_are_placed_as_send_places_them(wide: MockCluster, make_producer: MakeProducer) -> None:
    producer = make_producer(wide)
    keys = [b"key-%d" % (i % 50) for i in range(3000)]
    many = producer.send_many("t", numbered(3000), keys)
    single = [producer.send("t", b"x", key=key) for key in keys[:50]]
    assert list(many.get(10).partitions()[:50]) == [one.get(10).partition for one in single]
    for partition in range(8):
        mine = [r.value for r in wide.records("t", partition) if r.value != b"x"]
        assert mine == sorted(mine, key=lambda value: value or b"")


def test_few_records_over_many_partitions_keep_their_order(
    make_cluster: MakeCluster, make_producer: MakeProducer
) -> None:
    cluster = make_cluster()
    cluster.create_topic("t", partitions=300)
    keys = [b"%d" % (i % 7) for i in range(60)]
    future = make_producer(cluster).send_many("t", numbered(60), keys)
    places = future.get(10).partitions()
    assert len(set(places)) > 1
    for partition in set(places):
        expected = [value for value, place in zip(numbered(60), places, strict=True) if place == partition]
        assert values_of(cluster, partition=partition) == expected


def test_records_without_a_key_move_on_with_each_full_batch(
    wide: MockCluster, make_producer: MakeProducer
) -> None:
    future = make_producer(wide, batch_size=1000, linger_ms=1).send_many("t", numbered(5000))
    places = list(future.get(20).partitions())
    changes = [i for i in range(1, 5000) if places[i] != places[i - 1]]
    assert len(set(places)) == 8
    assert min(b - a for a, b in pairwise(changes)) >= 30, "batches are full"
    assert max(len(batch.data) for batch in wide.batches("t")) <= 1000


def test_round_robin_takes_the_partitions_in_turn(wide: MockCluster, make_producer: MakeProducer) -> None:
    producer = make_producer(wide, partitioner="round_robin")
    places = list(producer.send_many("t", numbered(800), keys=[b"same"] * 800).get(10).partitions())
    assert all(places.count(partition) == 100 for partition in range(8))
    assert [(b - a) % 8 for a, b in pairwise(places)] == [1] * 799


class ByValue(Partitioner):
    """Places records by their value, leaves odd ones to the producer, and remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[Any, ...]] = []

    def partition(self, record: PartitionRequest) -> int | None:
        self.asked.append(record[:5])
        return int(record.value) % 8 if int(record.value) % 2 == 0 else None


def test_a_partitioner_of_the_application_is_asked_for_each_record(
    wide: MockCluster, make_producer: MakeProducer
) -> None:
    partitioner = ByValue()
    producer = make_producer(wide, partitioner=partitioner, value_serializer=lambda v: b"%d" % v)
    future = producer.send_many("t", range(20), keys=[b"k"] * 20, partitions=[None] * 19 + [7])
    places = list(future.get(10).partitions())
    assert [place for i, place in enumerate(places) if i % 2 == 0] == [0, 2, 4, 6, 0, 2, 4, 6, 0, 2]
    assert places[19] == 7
    assert len({place for i, place in enumerate(places[:19]) if i % 2}) == 1, "sticky, whatever the key"
    assert len(partitioner.asked) == 19
    assert partitioner.asked[3] == ("t", b"k", 3, b"k", b"3")


def test_serializers_are_applied_to_every_record(cluster: MockCluster, make_producer: MakeProducer) -> None:
    producer = make_producer(value_serializer=lambda v: json.dumps(v).encode(), key_serializer=str.encode)
    producer.send_many("t", [{"a": 1}, None, 2], keys=["x", None, "z"]).get(10)
    assert [(r.key, r.value) for r in cluster.records("t")] == [
        (b"x", b'{"a": 1}'), (None, None), (b"z", b"2")
    ]  # fmt: skip


@pytest.mark.parametrize("codec", ["gzip", "snappy", "lz4", "zstd"])
def test_batches_are_compressed(cluster: MockCluster, make_producer: MakeProducer, codec: str) -> None:
    values = [b"compressible " * 5 + b"%d" % i for i in range(5000)]
    make_producer(compression_type=codec).send_many("t", values).get(20)
    assert {batch.compression for batch in cluster.batches("t")} == {codec}
    assert values_of(cluster) == values


def test_batches_are_filled_and_no_larger_than_batch_size(
    cluster: MockCluster, make_producer: MakeProducer
) -> None:
    make_producer(batch_size=4000, linger_ms=60_000).send_many("t", numbered(2000, 100))
    cluster.wait_for(1900, "t")
    sizes = [len(batch.data) for batch in cluster.batches("t")]
    assert max(sizes) <= 4000
    assert min(sizes) > 3700


def test_a_record_larger_than_batch_size_has_a_batch_of_its_own(
    cluster: MockCluster, make_producer: MakeProducer
) -> None:
    values = [b"s", b"L" * 5000, b"s", b"L" * 9000, b"L" * 2000, b"s"]
    make_producer(batch_size=1000).send_many("t", values).get(10)
    assert values_of(cluster) == values


def test_timestamps_too_far_apart_for_a_batch_begin_another(
    cluster: MockCluster, producer: KafkaProducer
) -> None:
    times = [0, 1 << 40, 5, (1 << 40) + 1]
    producer.send_many("t", numbered(4), timestamps=times).get(10)
    assert [r.timestamp for r in cluster.records("t")] == times


def test_many_threads_share_a_producer(wide: MockCluster, make_producer: MakeProducer) -> None:
    producer = make_producer(wide, batch_size=2000)
    futures: dict[int, list[BulkDeliveryFuture]] = {n: [] for n in range(6)}

    def send(n: int) -> None:
        for round_ in range(20):
            values = [b"%d-%d-%d" % (n, round_, i) for i in range(300)]
            futures[n].append(producer.send_many("t", values, keys=[b"%d" % n] * 300))
            producer.send("t", b"single", key=b"%d" % n)

    threads = [threading.Thread(target=send, args=(n,)) for n in futures]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    producer.flush(30)
    written: dict[int, list[bytes]] = {n: [] for n in futures}
    for record in wide.records("t"):
        if record.value != b"single":
            written[int((record.value or b"").split(b"-")[0])].append(record.value or b"")
    for n in futures:
        assert written[n] == [b"%d-%d-%d" % (n, r, i) for r in range(20) for i in range(300)]
        assert all(future.succeeded() for future in futures[n])


# --- refused: nothing is sent


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"values": b"abc"}, TypeError, "values must be a sequence.*got bytes"),
        ({"values": "abc"}, TypeError, "values must be a sequence.*got str"),
        ({"values": 3}, TypeError, "values must be a sequence.*got int"),
        ({"values": {"a": 1}}, TypeError, "values must be a sequence.*got dict"),
        ({"values": [b"a", b"b", "c"]},
         TypeError, r"values\[2\] must be bytes or None, got str.*value_serializer"),
        ({"values": [b"a", 5]}, TypeError, r"values\[1\] must be bytes.*got int"),
        ({"values": [b"a", memoryview(b"abcd")[::2]]}, TypeError, r"values\[1\] must be bytes, a contiguous"),
        ({"values": [b"a"], "keys": ["k"]}, TypeError, r"keys\[0\] must be bytes.*key_serializer"),
        ({"values": [b"a"], "keys": b"k"}, TypeError, "keys must be a sequence"),
        ({"values": [b"a"], "keys": []},
         ValueError, "keys must have one item for each of the 1 values, and has 0"),
        ({"values": [b"a"], "headers": "h"}, TypeError, "headers must be a list"),
        ({"values": [b"a"], "headers": 7}, TypeError, "headers must be a list"),
        ({"values": [b"a"], "headers": [("h", "v")]}, TypeError, "value of header 'h'"),
        ({"values": [b"a"], "headers": [None, None]},
         ValueError, "headers must have one item for each of the 1"),
        ({"values": [b"a"], "timestamps": -1},
         ValueError, r"timestamps must be in \[0, 2\^63 - 1\] \(ms since"),
        ({"values": [b"a"], "timestamps": [-1]}, ValueError, r"timestamps\[0\] must be in"),
        ({"values": [b"a"], "timestamps": [1 << 63]}, ValueError, r"timestamps\[0\] must be in"),
        ({"values": [b"a"], "timestamps": ["now"]}, TypeError, r"timestamps\[0\] must be int"),
        ({"values": [b"a"], "timestamps": [True]}, TypeError, r"timestamps\[0\] must be int"),
        ({"values": [b"a"], "timestamps": True}, TypeError, "timestamps must be int"),
        ({"values": [b"a"], "timestamps": array.array("d", [1.0])},
         TypeError, "timestamps must be a buffer of int"),
        ({"values": [b"a"], "timestamps": array.array("q", [-5])},
         ValueError, r"timestamps\[0\] must be.*got -5"),
        ({"values": [b"a"], "timestamps": array.array("Q", [1 << 63])},
         ValueError, "got 9223372036854775808"),
        ({"values": [b"a"], "timestamps": b"12345678"}, TypeError, "timestamps must be an int, a sequence"),
        ({"values": [b"a"], "timestamps": 1.5}, TypeError, "timestamps must be an int, a sequence"),
        ({"values": [b"a"], "timestamps": [1, 2]},
         ValueError, "timestamps must have one item for each of the 1"),
        ({"values": [b"a"], "partitions": 1}, ValueError, "partition 1 of topic 't' does not exist"),
        ({"values": [b"a"], "partitions": -1}, ValueError, "partitions must be in"),
        ({"values": [b"a", b"b"], "partitions": [0, 9]},
         ValueError, r"partitions\[1\] is 9, which topic 't'.*0 to 0"),
        ({"values": [b"a", b"b"], "partitions": array.array("i", [0])},
         ValueError, "partitions must have one item"),
        ({"values": [b"a"], "on_delivery": 1}, TypeError, "on_delivery must be callable"),
        ({"values": [b"a"], "topic": "not a topic"}, ValueError, "topic"),
    ],
)  # fmt: skip
def test_a_wrong_argument_is_named_and_nothing_is_sent(
    cluster: MockCluster,
    producer: KafkaProducer,
    arguments: dict[str, Any],
    error: type[Exception],
    text: str,
) -> None:
    with pytest.raises(error, match=text):
        producer.send_many(**{"topic": "t", **arguments})
    producer.send("t", b"after").get(10)
    assert values_of(cluster) == [b"after"]


def test_one_record_too_large_is_named_and_nothing_is_sent(
    cluster: MockCluster, make_producer: MakeProducer
) -> None:
    producer = make_producer(max_request_size=2000)
    values = numbered(5000)
    values[4321] = b"x" * 2500
    with pytest.raises(
        errors.MessageSizeTooLargeError, match=r"record 4321 of 5000.*max_request_size is 2000.*none"
    ) as raised:
        producer.send_many("t", values)
    assert raised.value.topic == "t" and raised.value.persisted == "no" and raised.value.appended is None
    producer.send("t", b"after").get(10)
    assert values_of(cluster) == [b"after"]


def test_what_a_serializer_raises_reaches_the_caller_and_nothing_is_sent(
    cluster: MockCluster, make_producer: MakeProducer
) -> None:
    producer = make_producer(value_serializer=lambda v: b"%d" % v)
    with pytest.raises(TypeError, match="%d format"):
        producer.send_many("t", [1, 2, "three"])
    producer.send("t", 4).get(10)
    assert values_of(cluster) == [b"4"]


def test_a_closed_producer_takes_nothing(producer: KafkaProducer) -> None:
    producer.close()
    with pytest.raises(errors.ProducerClosedError):
        producer.send_many("t", [b"a"])


# --- the future


def test_the_future_is_a_sequence_of_delivery_futures(cluster: MockCluster, producer: KafkaProducer) -> None:
    future = producer.send_many("t", numbered(100))
    assert len(future) == 100 and future
    assert isinstance(future[0], DeliveryFuture)
    assert future[7].get(10).offset == 7 and future[-1].get(10).offset == 99
    assert [one.get(10).offset for one in future] == list(range(100))
    for index in (100, -101):
        with pytest.raises(IndexError, match=f"record {index} of 100"):
            future[index]
    reports = future.get(10)
    assert len(reports) == 100 and isinstance(reports, Sequence)
    assert isinstance(reports[3], RecordMetadata) and reports[-1].offset == 99
    assert [r.offset for r in reports[2:5]] == [2, 3, 4]
    assert future.value is not None and future.exception is None and future.is_done
    assert not future.cancel() and not future.cancelled() and not future.retriable()
    assert "100 acknowledged, 0 failed, 0 pending" in repr(future)
    assert "100 records of t" in repr(reports)
    for kind in (BulkDeliveryFuture, type(reports)):
        with pytest.raises(TypeError):
            kind()


def test_it_is_done_when_the_last_record_is(wide: MockCluster, make_producer: MakeProducer) -> None:
    producer = make_producer(wide, linger_ms=60_000)
    future = producer.send_many("t", numbered(80), partitions=[i % 8 for i in range(80)])
    assert not future.done() and not future.succeeded() and not future.failed()
    assert future.value is None and future.exception is None
    assert set(future.offsets()) == {-1} and future.acked_count == 0
    with pytest.raises(errors.KafkaTimeoutError, match=r"80 of 80 records are not decided yet.*partition 0"):
        future.get(0.01)
    ran: list[Any] = []
    future.add_callback(ran.append).add_errback(ran.append).add_both(ran.append)
    future.add_done_callback(ran.append)
    producer.flush(10)
    assert future.done() and future.succeeded() and future.acked_count == 80
    assert [type(one).__name__ for one in ran] == ["DeliveryReports", "DeliveryReports", "BulkDeliveryFuture"]
    future.add_callback(lambda extra, reports, *, more: ran.append((extra, len(reports), more)), 1, more=2)
    assert ran[-1] == (1, 80, 2)
    with pytest.raises(TypeError, match="callable"):
        future.add_callback(None)  # type: ignore[call-overload]


def test_a_callback_runs_once_after_the_last_of_many_batches(
    wide: MockCluster, make_producer: MakeProducer
) -> None:
    producer = make_producer(wide, batch_size=500, linger_ms=1)
    seen: list[tuple[bool, int]] = []
    for _ in range(20):
        future = producer.send_many("t", numbered(2000), keys=[b"%d" % i for i in range(2000)])
        future.add_done_callback(lambda done: seen.append((done.done(), done.acked_count)))
    producer.flush(30)
    assert seen == [(True, 2000)] * 20


def test_a_callback_that_raises_is_logged(
    cluster: MockCluster, producer: KafkaProducer, caplog: pytest.LogCaptureFixture
) -> None:
    future = producer.send_many("t", numbered(3))
    future.add_callback(lambda reports: 1 / 0)
    producer.flush(10)
    assert "failed for 3 records of t" in caplog.text and "ZeroDivisionError" in caplog.text
    assert producer.send("t", b"on").get(10).offset == 3


def test_it_can_be_awaited(cluster: MockCluster, producer: KafkaProducer) -> None:
    async def main() -> None:
        reports = await producer.send_many("t", numbered(5000))
        assert reports[4999].offset == 4999
        done = producer.send_many("t", [b"x"])
        done.get(10)
        assert (await done)[0].offset == 5000
        cluster.inject("Produce", "INVALID_RECORD")
        with pytest.raises(errors.InvalidRecordError):
            await producer.send_many("t", [b"y"])

    asyncio.run(main())


def test_each_record_has_its_delivery_callback(wide: MockCluster, make_producer: MakeProducer) -> None:
    producer = make_producer(wide, batch_size=1000, delivery_report_headers=True)
    reports: list[tuple[Any, Any]] = []
    headers: list[Any] = [[("i", b"%d" % i)] if i % 3 else None for i in range(900)]

    def delivered(error: Any, metadata: RecordMetadata) -> None:
        reports.append((error, (metadata.partition, metadata.offset, metadata.headers)))

    future = producer.send_many(
        "t", numbered(900), keys=[b"%d" % i for i in range(900)], headers=headers, on_delivery=delivered
    )
    producer.flush(20)
    expected = [
        (None, (report.partition, report.offset, headers[i])) for i, report in enumerate(future.get(0))
    ]
    assert sorted(reports, key=lambda r: r[1][:2]) == sorted(expected, key=lambda r: r[1][:2])
    for partition in range(8):
        offsets = [offset for _, (place, offset, _) in reports if place == partition]
        assert offsets == sorted(offsets)


def test_the_default_callback_is_called_as_well(cluster: MockCluster, make_producer: MakeProducer) -> None:
    reports: list[int] = []
    producer = make_producer(on_delivery=lambda error, metadata: reports.append(metadata.offset))
    producer.send_many("t", numbered(500))
    producer.flush(10)
    assert reports == list(range(500))


# --- failures


def test_failed_records_are_named_by_their_index(wide: MockCluster, make_producer: MakeProducer) -> None:
    producer = make_producer(wide, linger_ms=60_000)
    wide.inject("Produce", "INVALID_RECORD", topic="t", partition=3)
    places = [i % 8 for i in range(80)]
    future = producer.send_many("t", numbered(80), partitions=places)
    errs: list[Any] = []
    future.add_callback(errs.append).add_errback(errs.append)
    producer.flush(10)
    failed = dict(future.failures())
    assert sorted(failed) == list(failed) == [i for i in range(80) if i % 8 == 3]
    assert all(isinstance(error, errors.InvalidRecordError) for error in failed.values())
    assert {(error.topic, error.partition, error.persisted) for error in failed.values()} == {("t", 3, "no")}
    assert future.failed() and not future.succeeded() and future.done()
    assert (future.acked_count, future.failed_count) == (70, 10)
    assert [offset < 0 for offset in future.offsets()] == [place == 3 for place in places]
    assert isinstance(future.exception, errors.InvalidRecordError) and not future.retriable()
    with pytest.raises(errors.InvalidRecordError):
        future.get(0)
    with pytest.raises(errors.InvalidRecordError):
        future[11].get(0)
    assert future[12].get(0).partition == 4
    assert [type(error) for error in errs] == [errors.InvalidRecordError]


def test_only_records_that_the_broker_names_were_refused_for_themselves(
    cluster: MockCluster, producer: KafkaProducer
) -> None:
    cluster.inject("Produce", "INVALID_RECORD", record_errors=[(2, "no good")])
    future = producer.send_many("t", numbered(5))
    producer.flush(10)
    kinds = {index: type(error) for index, error in future.failures()}
    other = errors.InvalidDifferentRecordError
    assert kinds == {0: other, 1: other, 2: errors.InvalidRecordError, 3: other, 4: other}
    assert "no good" in str(dict(future.failures())[2])


@pytest.mark.parametrize("codec", ["none", "lz4"])
def test_batches_that_are_split_keep_their_records(
    cluster: MockCluster, make_producer: MakeProducer, codec: str
) -> None:
    cluster.create_topic("small", config={"max.message.bytes": 3000})
    producer = make_producer(batch_size=30_000, linger_ms=60_000, compression_type=codec)
    values = [b"%06d" % i + random.Random(i).randbytes(194) for i in range(400)]
    delivered: list[int] = []
    future = producer.send_many(
        "small", values, on_delivery=lambda error, metadata: delivered.append(metadata.offset)
    )
    done: list[Any] = []
    future.add_callback(done.append)
    producer.flush(30)
    assert values_of(cluster, "small") == values
    assert list(future.offsets()) == list(range(400)) == delivered
    assert [report.offset for report in future.get(0)] == list(range(400))
    assert future[399].get(0).offset == 399 and future.succeeded() and len(done) == 1


def test_one_record_too_large_for_the_broker_fails_alone(
    cluster: MockCluster, make_producer: MakeProducer
) -> None:
    cluster.create_topic("small", config={"max.message.bytes": 1000})
    producer = make_producer(batch_size=30_000, linger_ms=60_000)
    values = numbered(50)
    values[20] = b"x" * 1500
    future = producer.send_many("small", values)
    producer.flush(20)
    assert [index for index, _ in future.failures()] == [20]
    assert values_of(cluster, "small") == values[:20] + values[21:]
    assert list(future.offsets()) == [*range(20), -1, *range(20, 49)]


def test_retries_keep_order_and_lose_nothing(wide: MockCluster, make_producer: MakeProducer) -> None:
    producer = make_producer(wide, batch_size=500, linger_ms=0)
    wide.inject("Produce", "NOT_ENOUGH_REPLICAS", skip=3, times=5)
    wide.inject("Produce", skip=6, close_connection="after", times=2)
    keys = [b"%d" % (i % 30) for i in range(4000)]
    future = producer.send_many("t", numbered(4000), keys)
    places = future.get(30).partitions()
    for partition in range(8):
        expected = [value for value, place in zip(numbered(4000), places, strict=True) if place == partition]
        assert values_of(wide, partition=partition) == expected


def test_purge_fails_what_waits(cluster: MockCluster, make_producer: MakeProducer) -> None:
    producer = make_producer(linger_ms=60_000)
    future = producer.send_many("t", numbered(100))
    producer.purge()
    assert future.failed() and future.failed_count == 100
    assert all(isinstance(error, errors.PurgedError) for _, error in future.failures())


def test_close_decides_everything(cluster: MockCluster, make_producer: MakeProducer) -> None:
    producer = make_producer(linger_ms=60_000)
    sent = producer.send_many("t", numbered(100))
    producer.close()
    assert sent.succeeded()
    cluster.inject("Produce", delay_ms=30_000)
    second = make_producer(linger_ms=0)
    lost = second.send_many("t", numbered(100))
    second.close(0)
    assert lost.failed() and lost.failed_count == 100


# --- memory


def test_more_than_the_buffer_holds_goes_out_bit_by_bit(
    wide: MockCluster, make_producer: MakeProducer
) -> None:
    producer = make_producer(wide, buffer_memory=100_000, batch_size=4000)
    values = numbered(10_000, 100)
    by_key = producer.send_many("t", values, keys=[b"%d" % (i % 99) for i in range(10_000)])
    assert by_key.get(30).offsets() is not None
    assert sorted(value or b"" for value in values_of(wide)) == values
    assert producer.send_many("t", values).get(30)


def test_an_exhausted_buffer_says_how_many_records_were_appended(
    cluster: MockCluster, make_producer: MakeProducer, eventually: Eventually
) -> None:
    producer = make_producer(
        buffer_memory=50_000, batch_size=2000, max_block_ms=100, linger_ms=0, delivery_report_headers=True
    )
    producer.send("t", b"warm").get(10)
    fault = cluster.inject("Produce", delay_ms=700, times=None)
    delivered: list[Any] = []
    headers: list[Any] = [[("h", b"%d" % i)] for i in range(2000)]
    counts = [sys.getrefcount(one) for one in headers]
    with pytest.raises(errors.BufferExhaustedError, match=r"stayed full.*; \d+ of 2000 records") as raised:
        producer.send_many(
            "t",
            numbered(2000, 100),
            headers=headers,
            on_delivery=lambda error, metadata: delivered.append(metadata),
        )
    future = raised.value.future
    appended = raised.value.appended
    assert future is not None and appended is not None
    assert 100 < appended < 600 and future.appended == appended and len(future) == 2000
    assert [index for index, _ in future.failures()] == list(range(appended, 2000))
    assert next(future.failures())[1] is raised.value
    assert future.failed_count == 2000 - appended and not future.done()
    assert list(future.partitions()) == [0] * appended + [-1] * (2000 - appended)
    with pytest.raises(errors.BufferExhaustedError):
        future[appended]
    fault.remove()
    assert future[appended - 1].get(20).offset == appended
    assert future.failed() and not future.succeeded()
    producer.flush(10)
    assert len(delivered) == appended and values_of(cluster)[1:] == numbered(2000, 100)[:appended]
    delivered.clear()
    eventually(lambda: [sys.getrefcount(one) for one in headers] == counts)


def test_nothing_appended_is_said_as_well(cluster: MockCluster, make_producer: MakeProducer) -> None:
    producer = make_producer(buffer_memory=20_000, batch_size=2000, max_block_ms=50, linger_ms=0)
    producer.send("t", b"warm").get(10)
    cluster.inject("Produce", delay_ms=30_000, times=None)
    with pytest.raises(errors.BufferExhaustedError, match="of 2000 records were appended, see the attribute"):
        producer.send_many("t", numbered(2000, 100), keys=[b"k"] * 2000)
    with pytest.raises(errors.BufferExhaustedError, match="; 0 of 3 records were appended") as raised:
        producer.send_many("t", [b"x" * 1900] * 3)
    assert raised.value.appended == 0
    producer.purge()


def test_a_wait_for_memory_ends_when_the_producer_is_closed(
    cluster: MockCluster, make_producer: MakeProducer, eventually: Eventually
) -> None:
    producer = make_producer(buffer_memory=20_000, batch_size=2000, linger_ms=0)
    producer.send("t", b"warm").get(10)
    cluster.inject("Produce", delay_ms=30_000, times=None)
    caught: list[errors.KafkaError] = []

    def send() -> None:
        try:
            producer.send_many("t", numbered(2000, 100))
        except errors.KafkaError as error:
            caught.append(error)

    thread = threading.Thread(target=send)
    thread.start()
    eventually(lambda: producer._engine_started.accumulator.memory()["waiting"])  # type: ignore[union-attr]
    producer.close(0)
    thread.join(20)
    assert [type(error) for error in caught] == [errors.ProducerClosedError]
    assert caught[0].future is not None and caught[0].appended
    assert caught[0].future.done() and caught[0].future.failed_count == 2000


def test_nothing_is_left_behind(wide: MockCluster, make_producer: MakeProducer) -> None:
    producer = make_producer(wide, batch_size=2000)
    values, keys = numbered(2000), [b"%d" % i for i in range(2000)]
    headers: list[Any] = [("h", b"v")]

    def delivered(error: Any, metadata: Any) -> None:
        pass

    def cycle() -> None:
        future = producer.send_many("t", values, keys, headers, on_delivery=delivered)
        future.add_callback(delivered, None)
        future.get(20)
        producer.send_many("t", values)
        with pytest.raises(TypeError):
            producer.send_many("t", [*values, "x"])
        producer.flush(20)
        wide.clear()

    def held() -> list[int]:
        # Batches are released by the next one who comes by.
        producer.send_many("t", [])
        producer.flush(5)
        gc.collect()
        return [sys.getrefcount(one) for one in (values, values[7], keys[7], headers, delivered)]

    cycle()
    before = held()
    tracemalloc.start()
    try:
        cycle()
        gc.collect()
        first = tracemalloc.get_traced_memory()[0]
        for _ in range(5):
            cycle()
        gc.collect()
        grown = tracemalloc.get_traced_memory()[0] - first
    finally:
        tracemalloc.stop()
    assert held() == before
    assert grown < 100_000
    assert producer._engine_started.accumulator.memory()["used"] == 0  # type: ignore[union-attr]
