"""One record at a time: with linger_ms=0 the thread that waits does the network's work, while that sleeps."""

from __future__ import annotations

import os
import threading

import pytest

from kprod import KafkaProducer
from kprod.errors import KafkaError, KafkaTimeoutError
from kprod.testing import MockCluster
from tests.mock.conftest import Eventually, MakeProducer


def counters(producer: KafkaProducer) -> dict[str, int]:
    found: dict[str, int] = producer.engine._loop.counters()
    return found


def send_and_wait(producer: KafkaProducer, n: int) -> list[int]:
    return [producer.send("t", b"%d" % i).get(30).offset for i in range(n)]


@pytest.mark.parametrize("acks", [1, "all"])
def test_a_thread_that_waits_for_each_record_sends_and_reads_by_itself(
    make_producer: MakeProducer, cluster: MockCluster, acks: int | str
) -> None:
    producer = make_producer(linger_ms=0, acks=acks)
    assert send_and_wait(producer, 500) == list(range(500))
    # Two for each record where nothing comes between; on a busy machine the network thread does its part.
    assert counters(producer)["shared_turns"] > 100
    assert [record.value for record in cluster.records("t")] == [b"%d" % i for i in range(500)]


def test_records_that_nobody_waits_for_are_left_to_the_network_thread(
    make_producer: MakeProducer, cluster: MockCluster
) -> None:
    producer = make_producer(linger_ms=0)
    for i in range(500):
        producer.send("t", b"%d" % i)
    producer.flush()
    assert counters(producer)["shared_turns"] == 0
    assert len(cluster.records("t")) == 500


def test_a_linger_time_is_kept(make_producer: MakeProducer) -> None:
    producer = make_producer(linger_ms=3)
    send_and_wait(producer, 20)
    assert counters(producer)["records_sent"] == 20
    # get() comes before the batch is sent: there is nothing to wait for at the socket yet, or just so.
    assert counters(producer)["shared_turns"] <= 40


def test_several_threads_wait_at_once(make_producer: MakeProducer, cluster: MockCluster) -> None:
    producer = make_producer(linger_ms=0)
    failed: list[BaseException] = []

    def work() -> None:
        try:
            send_and_wait(producer, 200)
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not failed
    assert len(cluster.records("t")) == 800


def test_a_record_larger_than_the_socket_takes_at_once_arrives(
    make_producer: MakeProducer, cluster: MockCluster
) -> None:
    producer = make_producer(linger_ms=0, send_buffer_bytes=8192)
    send_and_wait(producer, 3)
    value = bytes(range(250)) * 4_000
    producer.send("t", value).get(60)
    assert cluster.records("t")[-1].value == value


def test_answers_slower_than_the_wait_at_the_socket(
    make_producer: MakeProducer, cluster: MockCluster
) -> None:
    producer = make_producer(linger_ms=0)
    send_and_wait(producer, 3)
    cluster.inject("Produce", delay_ms=60, times=3)
    assert send_and_wait(producer, 3) == [3, 4, 5]


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="threads cannot be kept on a CPU here")
def test_a_thread_that_takes_the_only_cpu_while_another_waits_changes_nothing(
    make_producer: MakeProducer, cluster: MockCluster
) -> None:
    # Whoever waits at the socket is often woken too late here: the network thread reads in its place.
    producer = make_producer(linger_ms=0)
    send_and_wait(producer, 3)
    cpus = os.sched_getaffinity(0)
    stopped = threading.Event()

    def spin() -> None:
        while not stopped.is_set():
            pass

    thread = threading.Thread(target=spin)
    threads = [int(task) for task in os.listdir("/proc/self/task")]
    try:
        for task in threads:
            os.sched_setaffinity(task, {min(cpus)})
        thread.start()
        assert send_and_wait(producer, 100) == list(range(3, 103))
    finally:
        stopped.set()
        for task in threads:
            os.sched_setaffinity(task, cpus)
        thread.join()
    assert [record.value for record in cluster.records("t")[3:]] == [b"%d" % i for i in range(100)]


@pytest.mark.parametrize("size", [10, 65_535, 65_536, 1_000_000])
def test_records_of_any_size_are_sent_by_who_waits(
    make_producer: MakeProducer, cluster: MockCluster, size: int
) -> None:
    producer = make_producer(linger_ms=0)
    for i in range(20):
        value = bytes([i]) * size
        assert producer.send("t", value).get(30).offset == i
        assert cluster.records("t")[-1].value == value


def test_a_connection_lost_while_a_thread_waits_is_made_again(
    make_producer: MakeProducer, cluster: MockCluster
) -> None:
    producer = make_producer(linger_ms=0)
    for i in range(10):
        assert producer.send("t", b"before").get(30).offset == 2 * i
        cluster.inject("Produce", drop_response=True, close_connection=True, times=1)
        assert producer.send("t", b"lost on the way back").get(30).offset == 2 * i + 1


def test_time_out_and_the_end_of_a_producer_reach_who_waits(
    make_producer: MakeProducer, cluster: MockCluster, eventually: Eventually
) -> None:
    producer = make_producer(linger_ms=0)
    send_and_wait(producer, 3)
    cluster.inject("Produce", delay_ms=60_000, times=None)
    future = producer.send("t", b"late")
    with pytest.raises(KafkaTimeoutError):
        future.get(0.05)
    raised: list[BaseException] = []

    def wait() -> None:
        try:
            future.get(30)
        except KafkaError as error:
            raised.append(error)

    thread = threading.Thread(target=wait)
    thread.start()
    producer.close(timeout=0)
    thread.join(10)
    assert not thread.is_alive()
    assert len(raised) == 1


def test_the_network_thread_sleeps_long_again_afterwards(
    make_producer: MakeProducer, eventually: Eventually
) -> None:
    producer = make_producer(linger_ms=0, enable_metrics_push=False)
    send_and_wait(producer, 50)
    # It looks up twice a second while threads send for it, and no more once that is over.
    loop = producer.engine._loop
    eventually(lambda: loop.sleeps_for() > 5)
