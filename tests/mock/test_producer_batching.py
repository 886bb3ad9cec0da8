"""When batches leave, how large they are, and buffer.memory."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest

from kprod import DeliveryFuture, KafkaProducer, errors
from kprod.testing import MockCluster
from tests.mock.conftest import Eventually, MakeCluster, MakeProducer

CODECS = ["none", "gzip", "snappy", "lz4", "zstd"]


def batch_counts(cluster: MockCluster, topic: str = "t") -> list[int]:
    return [batch.header.record_count for batch in cluster.batches(topic)]


def raw_metrics(producer: KafkaProducer) -> Any:
    raw = producer.metrics(raw=True)
    assert raw is not None
    return raw


def memory(producer: KafkaProducer) -> dict[str, int]:
    used: dict[str, int] = raw_metrics(producer)["memory"]
    return used


# --- linger and batch size


def test_a_batch_leaves_after_linger_without_another_send(
    cluster: MockCluster, make_producer: MakeProducer
) -> None:
    producer = make_producer(linger_ms=80)
    producer.partitions_for("t")
    producer.send("t", b"warm").get(10)
    futures = [producer.send("t", b"v") for _ in range(3)]
    latencies = [future.get(10).latency_ms for future in futures]
    assert batch_counts(cluster) == [1, 3]
    assert min(latencies) >= 75


def wait_until(moment: float) -> None:
    while time.monotonic() < moment:
        threading.Event().wait(max(moment - time.monotonic(), 0))


@pytest.mark.parametrize("codec", ["none", "lz4"])
def test_batches_that_would_linger_little_longer_leave_with_the_first(
    cluster: MockCluster, make_producer: MakeProducer, codec: str
) -> None:
    cluster.create_topic("many", partitions=20)
    producer = make_producer(linger_ms=800, compression_type=codec)
    producer.partitions_for("many")
    started = time.monotonic()
    futures = []
    for partition in range(20):
        # Each would have a moment of its own to leave, and so a request of its own.
        wait_until(started + partition * 0.004)
        futures.append(producer.send("many", b"v" * 100, partition=partition))
    wait_until(started + 0.3)
    late = producer.send("t", b"later")
    latencies = [future.get(10).latency_ms for future in futures]
    assert not late.done(), "what would linger for much longer does"
    assert max(latencies) < 1200
    assert min(latencies) >= 690, "seven eighths"
    assert late.get(10).latency_ms >= 690
    assert len(cluster.requests_of("Produce")) <= 6
    assert cluster.count("many") == 20


@pytest.mark.parametrize("codec", ["none", "lz4"])
def test_linger_zero_sends_at_once(cluster: MockCluster, make_producer: MakeProducer, codec: str) -> None:
    producer = make_producer(linger_ms=0, compression_type=codec)
    producer.send("t", b"warm").get(10)
    assert producer.send("t", b"v").get(10).latency_ms < 1000
    assert cluster.count("t") == 2


def test_with_linger_zero_records_still_share_batches_while_requests_are_in_flight(
    cluster: MockCluster, make_producer: MakeProducer
) -> None:
    producer = make_producer(linger_ms=0, max_in_flight_requests_per_connection=1)
    producer.send("t", b"warm").get(10)
    cluster.set_latency(50)
    for _ in range(100):
        producer.send("t", b"v")
    producer.flush(10)
    assert len(batch_counts(cluster)) <= 4


@pytest.mark.parametrize("batch_size", [1, 200, 1000, 16384, 100_000])
def test_batches_are_no_larger_than_batch_size(
    cluster: MockCluster, make_producer: MakeProducer, batch_size: int
) -> None:
    producer = make_producer(batch_size=batch_size, linger_ms=60_000)
    for i in range(400):
        producer.send("t", bytes(50 + i % 60), key=b"%d" % i, on_delivery=lambda *args: None)
    producer.flush(20)
    sizes = [len(batch.data) for batch in cluster.batches("t")]
    counts = batch_counts(cluster)
    assert sum(counts) == 400
    if batch_size == 1:
        assert set(counts) == {1}
    else:
        assert max(sizes) <= batch_size
        assert max(sizes) > batch_size * 0.8 or len(sizes) == 1


def test_a_full_batch_does_not_wait_for_linger(cluster: MockCluster, make_producer: MakeProducer) -> None:
    producer = make_producer(batch_size=1000, linger_ms=60_000)
    futures = [producer.send("t", bytes(90)) for _ in range(20)]
    assert futures[0].get(10).offset == 0
    assert not futures[-1].done()
    producer.flush(10)
    assert futures[-1].succeeded()


@pytest.mark.parametrize("codec", CODECS)
def test_every_codec_arrives_and_makes_batches_smaller(
    cluster: MockCluster, make_producer: MakeProducer, codec: str
) -> None:
    producer = make_producer(compression_type=codec, linger_ms=60_000, batch_size=100_000)
    values = [b"the same again and again %d" % (i % 3) for i in range(1000)]
    for i, value in enumerate(values):
        producer.send("t", value, key=b"%d" % i, headers=[("n", b"%d" % i)])
    producer.flush(20)
    records = cluster.records("t")
    assert [record.value for record in records] == values
    assert [record.key for record in records] == [b"%d" % i for i in range(1000)]
    assert {record.compression for record in records} == {codec}
    metrics = producer.metrics()
    assert metrics is not None
    rate = metrics["producer-metrics"]["compression-rate-avg"]
    assert rate == 1.0 if codec == "none" else 0 < rate < 0.5


@pytest.mark.parametrize("codec", CODECS[1:])
def test_a_batch_that_compression_would_enlarge_goes_uncompressed(
    cluster: MockCluster, make_producer: MakeProducer, codec: str
) -> None:
    producer = make_producer(compression_type=codec)
    producer.send("t", b"x").get(10)
    assert [record.compression for record in cluster.records("t")] == ["none"]


@pytest.mark.parametrize("codec", ["none", "zstd"])
def test_batches_that_linger_closed_are_delivered_with_many_partitions(
    cluster: MockCluster, make_producer: MakeProducer, codec: str
) -> None:
    cluster.create_topic("many", partitions=100)
    producer = make_producer(linger_ms=3, compression_type=codec)
    futures = [producer.send("many", b"a" * 100, partition=i % 100) for i in range(1000)]
    for future in futures:
        future.get(10)
    assert [cluster.count("many", partition) for partition in range(100)] == [10] * 100


def test_many_partitions_share_a_request(cluster: MockCluster, make_producer: MakeProducer) -> None:
    cluster.create_topic("a", partitions=20)
    cluster.create_topic("b", partitions=20)
    producer = make_producer(linger_ms=60_000)
    for topic in ("a", "b"):
        for partition in range(20):
            producer.send(topic, b"v", partition=partition)
    producer.flush(10)
    assert cluster.count() == 40
    sent = cluster.requests_of("Produce")
    partitions = [sum(len(t["partition_data"]) for t in request.body["topic_data"]) for request in sent]
    assert sum(partitions) == 40
    assert len(sent) <= 5
    assert max(len(request.body["topic_data"]) for request in sent) == 2


def test_requests_are_no_larger_than_max_request_size(
    cluster: MockCluster, make_producer: MakeProducer
) -> None:
    cluster.create_topic("many", partitions=50)
    producer = make_producer(linger_ms=60_000, max_request_size=5000, batch_size=4000)
    for i in range(200):
        producer.send("many", bytes(900), partition=i % 50)
    producer.flush(10)
    assert cluster.count("many") == 200
    assert all(
        sum(data["records"] for topic in request.body["topic_data"] for data in topic["partition_data"])
        <= 5000
        for request in cluster.requests_of("Produce")
    )


@pytest.mark.parametrize("limit", [1, 3])
def test_no_more_requests_are_in_flight_than_allowed(
    cluster: MockCluster, make_producer: MakeProducer, limit: int
) -> None:
    cluster.create_topic("many", partitions=10)
    producer = make_producer(max_in_flight_requests_per_connection=limit, linger_ms=0, batch_size=300)
    producer.send("t", b"warm").get(10)
    cluster.set_latency(10)
    most = 0
    futures = [producer.send("many", bytes(250), partition=i % 10) for i in range(300)]
    while not all(future.done() for future in futures):
        most = max(most, raw_metrics(producer)["brokers"][1]["in_flight"])
    assert most == limit


def test_options_of_a_topic_go_before_those_of_the_producer(
    cluster: MockCluster, make_producer: MakeProducer
) -> None:
    cluster.create_topic("own")
    producer = make_producer(
        enable_idempotence=False, acks="all", compression_type="none", linger_ms=60_000,
        topic_options={"own": {"compression_type": "gzip", "acks": 1, "batch_size": 500}},
    )  # fmt: skip
    for topic in ("t", "own"):
        for _ in range(50):
            producer.send(topic, b"a" * 40)
    producer.flush(10)
    assert {record.compression for record in cluster.records("own")} == {"gzip"}
    assert {record.compression for record in cluster.records("t")} == {"none"}
    assert len(cluster.batches("own")) >= 4
    assert len(cluster.batches("t")) == 1
    acks = {
        topic["name"] or topic["topic_id"]: request.body["acks"]
        for request in cluster.requests_of("Produce")
        for topic in request.body["topic_data"]
    }
    assert sorted(acks.values()) == [-1, 1], "topics with other acks cannot share a request"


# --- buffer.memory


def test_a_full_buffer_blocks_for_max_block_ms_and_recovers(
    cluster: MockCluster, make_producer: MakeProducer, eventually: Eventually
) -> None:
    producer = make_producer(buffer_memory=50_000, batch_size=2000, max_block_ms=150, linger_ms=0)
    producer.send("t", b"warm").get(10)
    cluster.set_unreachable(1)
    futures: list[DeliveryFuture] = []
    started = time.monotonic()
    with pytest.raises(errors.BufferExhaustedError) as caught:
        while True:
            started = time.monotonic()
            futures.append(producer.send("t", bytes(1000), on_delivery=lambda *args: None))
    assert 0.1 < time.monotonic() - started < 3
    text = str(caught.value)
    assert "buffer_memory (50000 bytes) stayed full" in text
    assert "max_block_ms is 150" in text
    assert caught.value.persisted == "no"
    assert 10 <= len(futures) < 50
    assert memory(producer)["used"] <= 50_000
    assert memory(producer)["exhausted"] == 1
    # A second one fails too, and the buffer is whole again once the broker takes what is there.
    with pytest.raises(errors.BufferExhaustedError):
        producer.send("t", bytes(1000))
    cluster.set_unreachable(1, False)
    assert producer.send("t", b"after").get(10).offset == len(futures) + 1
    producer.flush(10)
    assert all(future.succeeded() for future in futures)
    eventually(lambda: memory(producer)["used"] == 0)


def test_a_sender_that_waits_for_memory_goes_on_when_there_is_some(
    cluster: MockCluster, make_producer: MakeProducer
) -> None:
    producer = make_producer(buffer_memory=40_000, batch_size=2000, linger_ms=0)
    cluster.set_latency(3)
    for _ in range(500):
        producer.send("t", bytes(1000), on_delivery=lambda *args: None)
        assert memory(producer)["used"] <= 40_000
    producer.flush(20)
    assert cluster.count("t") == 500
    metrics = producer.metrics()
    assert metrics is not None
    assert metrics["producer-metrics"]["bufferpool-wait-time-ns-total"] > 0


@pytest.mark.parametrize("callbacks", [False, True])
@pytest.mark.parametrize("codec", ["none", "gzip"])
def test_a_buffer_with_room_for_very_little_works(
    cluster: MockCluster, make_producer: MakeProducer, callbacks: bool, codec: str
) -> None:
    cluster.create_topic("many", partitions=10)
    options: dict[str, Any] = {"on_delivery": lambda *args: None} if callbacks else {}
    producer = make_producer(
        buffer_memory=4000, batch_size=512, compression_type=codec, delivery_report_headers=True, linger_ms=1
    )
    sizes = [i * 7 % 1500 for i in range(600)]
    for i, size in enumerate(sizes):
        producer.send("many", bytes(size), partition=i % 10, headers=[("h", b"v")], **options)
    producer.flush(20)
    assert cluster.count("many") == 600
    for partition in range(10):
        assert [len(record.value or b"") for record in cluster.records("many", partition)] == sizes[
            partition::10
        ]
    assert min(batch.header.record_count for batch in cluster.batches("many")) >= 1


def test_a_record_larger_than_the_whole_buffer_is_refused_at_once(
    cluster: MockCluster, make_producer: MakeProducer
) -> None:
    producer = make_producer(buffer_memory=10_000)
    with pytest.raises(errors.MessageSizeTooLargeError, match="max_request_size is 10000"):
        producer.send("t", bytes(20_000))
    assert producer.send("t", bytes(5000)).get(10).offset == 0


def test_a_record_that_takes_the_whole_buffer_is_sent(
    cluster: MockCluster, make_producer: MakeProducer
) -> None:
    producer = make_producer(
        buffer_memory=10_000, batch_size=1000, linger_ms=0, max_block_ms=5000, delivery_report_headers=True
    )
    for size in range(9000, 9900, 50):
        producer.send("t", bytes(size), headers=[("a", b"b")], on_delivery=lambda *args: None)
    producer.flush(10)
    assert cluster.count("t") == 18
    assert raw_metrics(producer)["loop"]["batches_sent"] == 18, (
        "no batch may be closed before its first record"
    )


def test_memory_is_taken_as_records_come_not_a_whole_batch_per_partition(
    cluster: MockCluster, make_producer: MakeProducer
) -> None:
    cluster.create_topic("many", partitions=200)
    producer = make_producer(
        buffer_memory=2_000_000, batch_size=1_000_000, linger_ms=60_000, max_block_ms=100
    )
    for partition in range(200):
        producer.send("many", b"small", partition=partition)
    assert memory(producer)["used"] < 300_000
    producer.flush(10)


def test_many_threads_that_wait_for_memory_are_all_served(
    cluster: MockCluster, make_producer: MakeProducer
) -> None:
    producer = make_producer(buffer_memory=20_000, batch_size=1000, linger_ms=0)
    cluster.set_latency(1)

    def send(number: int) -> None:
        for i in range(60):
            producer.send("t", b"%d %d " % (number, i) + bytes(100 * number))

    threads = [threading.Thread(target=send, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    producer.flush(20)
    found = [tuple((record.value or b"").split(b" ")[:2]) for record in cluster.records("t")]
    assert len(found) == 480
    for number in range(8):
        mine = [int(i) for n, i in found if int(n) == number]
        assert mine == list(range(60)), "in the order in which the thread sent them"


def test_a_dead_leader_does_not_take_the_whole_buffer(
    make_cluster: MakeCluster, make_producer: MakeProducer
) -> None:
    cluster = make_cluster(2)
    cluster.create_topic("t", partitions=2)
    producer = make_producer(cluster, buffer_memory=200_000, batch_size=2000, max_block_ms=50, linger_ms=0)
    for partition in (0, 1):
        producer.send("t", b"warm", partition=partition).get(10)
    dead = 0 if cluster.leader("t", 0) == 1 else 1
    cluster.stop_broker(cluster.leader("t", dead))
    if cluster.leader("t", dead) >= 0:
        pytest.fail("the partition must have no other replica for this test")
    for _ in range(400):
        try:
            producer.send("t", bytes(1000), partition=dead)
        except errors.BufferExhaustedError:
            break
    else:
        pytest.fail("400 kB fit into 200 kB")
    for _ in range(100):
        producer.send("t", bytes(1000), partition=1 - dead)
    assert producer.send("t", b"last", partition=1 - dead).get(10).offset == 101


# --- records without a key


def test_sticky_batches_and_spreads(cluster: MockCluster, make_producer: MakeProducer) -> None:
    cluster.create_topic("many", partitions=6)
    producer = make_producer(batch_size=2000, linger_ms=60_000)
    for _ in range(6000):
        producer.send("many", bytes(50))
    producer.flush(20)
    counts = [cluster.count("many", partition) for partition in range(6)]
    assert sum(counts) == 6000
    assert min(counts) > 300, "every partition has its share"
    # 6000 records of about 58 bytes are 175 full batches.
    assert len(cluster.batches("many")) < 210


def test_sticky_fills_one_batch_before_the_next(cluster: MockCluster, make_producer: MakeProducer) -> None:
    cluster.create_topic("many", partitions=6)
    producer = make_producer(batch_size=10_000, linger_ms=60_000)
    for _ in range(50):
        producer.send("many", bytes(50))
    producer.flush(20)
    assert len(cluster.batches("many")) == 1


def test_round_robin_goes_round(cluster: MockCluster, make_producer: MakeProducer) -> None:
    cluster.create_topic("many", partitions=6)
    producer = make_producer(partitioner="round_robin")
    futures = [producer.send("many", b"v", key=b"the same") for _ in range(18)]
    producer.flush(10)
    partitions = [future.get().partition for future in futures]
    assert partitions[:6] == partitions[6:12] == partitions[12:]
    assert sorted(partitions[:6]) == list(range(6))


def test_keys_decide_the_partition_as_everywhere_else(cluster: MockCluster, producer: KafkaProducer) -> None:
    cluster.create_topic("many", partitions=10)
    futures = {key: producer.send("many", b"v", key=key) for key in (b"%d" % i for i in range(300))}
    again = {key: producer.send("many", b"v", key=key) for key in futures}
    producer.flush(10)
    partitions = {key: future.get().partition for key, future in futures.items()}
    assert {key: future.get().partition for key, future in again.items()} == partitions
    assert set(partitions.values()) == set(range(10))
    from kprod.partitioner import partition_for_key

    assert partitions == {key: partition_for_key(key, 10) for key in futures}


def test_an_empty_key_is_a_key(cluster: MockCluster, producer: KafkaProducer) -> None:
    cluster.create_topic("many", partitions=10)
    futures = [producer.send("many", b"v", key=b"") for _ in range(20)]
    producer.flush(10)
    assert len({future.get().partition for future in futures}) == 1
    assert {record.key for record in cluster.records("many")} == {b""}


def test_keys_can_be_ignored(cluster: MockCluster, make_producer: MakeProducer) -> None:
    cluster.create_topic("many", partitions=6)
    producer = make_producer(partitioner_ignore_keys=True, batch_size=500, linger_ms=60_000)
    futures = [producer.send("many", bytes(50), key=b"same") for _ in range(600)]
    producer.flush(10)
    assert len({future.get().partition for future in futures}) == 6


# --- throttling, idling


def test_throttling_is_respected(cluster: MockCluster, make_producer: MakeProducer) -> None:
    producer = make_producer(linger_ms=0)
    producer.send("t", b"0").get(10)
    cluster.inject("Produce", throttle_ms=200)
    producer.send("t", b"1").get(10)
    started = time.monotonic()
    producer.send("t", b"2").get(10)
    assert time.monotonic() - started > 0.15
    metrics = producer.metrics()
    assert metrics is not None
    assert metrics["producer-metrics"]["produce-throttle-time-max"] == 200


def test_an_idle_producer_takes_no_cpu(cluster: MockCluster, make_producer: MakeProducer) -> None:
    producer = make_producer()
    producer.send("t", b"v").get(10)

    def wake_ups() -> int:
        metrics = producer.metrics()
        assert metrics is not None
        total: int = metrics["producer-metrics"]["select-total"]
        return total

    # Let what follows the first record (closing the bootstrap connection) come to rest.
    threading.Event().wait(0.3)
    before, cpu = wake_ups(), time.process_time()
    threading.Event().wait(0.5)
    assert wake_ups() - before <= 2
    assert time.process_time() - cpu < 0.1


def test_a_producer_that_waits_for_a_dead_broker_does_not_spin(
    cluster: MockCluster, make_producer: MakeProducer
) -> None:
    producer = make_producer(linger_ms=0)
    producer.send("t", b"v").get(10)
    cluster.stop_broker(1)
    future = producer.send("t", b"v")
    before, cpu = raw_metrics(producer)["loop"]["polls"], time.process_time()
    with pytest.raises(errors.KafkaTimeoutError):
        future.get(0.6)
    # Attempts to connect are 20 ms apart, and each takes a few turns.
    assert raw_metrics(producer)["loop"]["polls"] - before < 600
    assert time.process_time() - cpu < 0.3
    cluster.start_broker(1)
    assert future.get(10).offset == 1
