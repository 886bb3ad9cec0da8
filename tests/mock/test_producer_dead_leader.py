"""A leader that is away does not take the buffer memory of the others."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest

from kprod import KafkaProducer
from kprod.errors import BufferExhaustedError, TopicAuthorizationFailedError
from tests.mock.conftest import Eventually, MakeCluster, MakeProducer


def is_connected(producer: KafkaProducer, node_id: int) -> bool:
    counters: Any = producer.metrics(raw=True)
    return bool(counters["brokers"][node_id]["connected"])


def test_records_for_a_dead_leader_leave_memory_to_the_others(
    make_cluster: MakeCluster, make_producer: MakeProducer, eventually: Eventually
) -> None:
    cluster = make_cluster(brokers=2)
    cluster.create_topic("t", partitions=2)
    cluster.move_leader("t", 0, 1)
    cluster.move_leader("t", 1, 2)
    memory = 1_000_000
    producer = make_producer(
        cluster,
        buffer_memory=memory,
        max_request_size=memory,
        batch_size=16384,
        linger_ms=0,
        max_block_ms=500,
    )
    for partition in (0, 1):
        producer.send("t", b"connects", partition=partition).get(timeout=10)
    cluster.stop_broker(2)
    eventually(lambda: not is_connected(producer, 2))
    refused = threading.Event()
    stuck = []

    def fill() -> None:
        try:
            while True:
                stuck.append(producer.send("t", b"x" * 1000, partition=1))
        except BufferExhaustedError:
            refused.set()

    filler = threading.Thread(target=fill)
    filler.start()
    assert refused.wait(20), "the records for the dead leader never met a limit"
    filler.join()
    held = len(stuck) * 1000
    assert memory * 0.3 < held < memory * 0.6, f"{held} bytes wait for the dead leader"
    healthy = [producer.send("t", b"y" * 1000, partition=0) for _ in range(2000)]
    for future in healthy:
        future.get(timeout=10)
    assert not any(future.done() for future in stuck)
    cluster.start_broker(2)
    for future in stuck:
        future.get(timeout=20)
    assert cluster.count("t", 1) == len(stuck) + 1


def test_a_leader_that_takes_nothing_counts_as_away(
    make_cluster: MakeCluster, make_producer: MakeProducer
) -> None:
    cluster = make_cluster(brokers=2)
    cluster.create_topic("t", partitions=2)
    cluster.move_leader("t", 0, 1)
    cluster.move_leader("t", 1, 2)
    producer = make_producer(
        cluster, buffer_memory=1_000_000, max_request_size=1_000_000, linger_ms=0, max_block_ms=60
    )
    for partition in (0, 1):
        producer.send("t", b"connects", partition=partition).get(timeout=10)
    cluster.set_unreachable(2)
    stuck = [producer.send("t", b"x" * 1000, partition=1) for _ in range(300)]
    # By the time a broker counts as stalled, what is sent to it meets the limit.
    raised = 0
    while raised < 3:
        try:
            stuck.append(producer.send("t", b"x" * 1000, partition=1))
        except BufferExhaustedError:
            raised += 1
            producer.send("t", b"y" * 1000, partition=0).get(timeout=10)
        time.sleep(0.003)
    assert len(stuck) * 1000 < 700_000


def test_records_without_a_key_avoid_a_dead_leader(
    make_cluster: MakeCluster, make_producer: MakeProducer, eventually: Eventually
) -> None:
    cluster = make_cluster(brokers=2)
    cluster.create_topic("t", partitions=2)
    cluster.move_leader("t", 0, 1)
    cluster.move_leader("t", 1, 2)
    producer = make_producer(cluster, batch_size=1000, linger_ms=0)
    for partition in (0, 1):
        producer.send("t", b"connects", partition=partition).get(timeout=10)
    cluster.stop_broker(2)
    eventually(lambda: not is_connected(producer, 2))
    futures = [producer.send("t", b"z" * 100) for _ in range(500)]
    assert {future.get(timeout=10).partition for future in futures[50:]} == {0}


def test_nobody_waits_for_a_dead_leader_once_its_topic_is_refused(
    make_cluster: MakeCluster, make_producer: MakeProducer, eventually: Eventually
) -> None:
    cluster = make_cluster(brokers=2)
    cluster.create_topic("t")
    cluster.move_leader("t", 0, 2)
    producer = make_producer(cluster, linger_ms=0)
    producer.send("t", b"connects").get(timeout=10)
    # Metadata would tell that there is no leader any more, and then nothing would wait for this one.
    no_metadata = cluster.inject("Metadata", close_connection="before", times=None)
    cluster.stop_broker(2)
    eventually(lambda: not is_connected(producer, 2))
    future = producer.send("t", b"stuck")
    eventually(lambda: ready_partitions(producer, 2) == 1)
    cluster.inject("Metadata", "TOPIC_AUTHORIZATION_FAILED", topic="t", times=None)
    no_metadata.remove()
    with pytest.raises(TopicAuthorizationFailedError):
        future.get(timeout=20)
    assert ready_partitions(producer, 2) == 0


def ready_partitions(producer: KafkaProducer, node_id: int) -> int:
    counters: Any = producer.metrics(raw=True)
    return int(counters["brokers"][node_id]["ready_partitions"])
