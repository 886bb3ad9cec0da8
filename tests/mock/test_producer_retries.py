"""Invariant 2: records of a partition are written once and in send order, whatever happens on the way."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest

from kprod import DeliveryFuture, KafkaProducer, errors
from kprod.testing import MockCluster
from tests.mock.conftest import Eventually, MakeCluster, MakeProducer

SMALL: dict[str, Any] = {"batch_size": 512, "linger_ms": 0, "request_timeout_ms": 250}
"""Options with which a few hundred records are many batches."""


def values(cluster: MockCluster, topic: str = "t", partition: int | None = None) -> list[int]:
    return [int(record.value or b"") for record in cluster.records(topic, partition)]


def send_numbers(producer: KafkaProducer, count: int, first: int = 0) -> list[DeliveryFuture]:
    return [producer.send("t", b"%06d" % i) for i in range(first, first + count)]


def warm(cluster: MockCluster, producer: KafkaProducer) -> None:
    """Have connection, metadata and producer id ready, and several requests under way from now on.

    The partition has not had a batch of the producer: brokers accept any sequence number as the first.
    """
    cluster.create_topic("warm")
    producer.partitions_for("t")
    producer.send("warm", b"0").get(10)
    cluster.set_latency(2)


FAULTS: dict[str, dict[str, Any]] = {
    "not enough replicas": {"error": "NOT_ENOUGH_REPLICAS"},
    "not leader": {"error": "NOT_LEADER_OR_FOLLOWER"},
    "leader not available": {"error": "LEADER_NOT_AVAILABLE"},
    "corrupt message": {"error": "CORRUPT_MESSAGE"},
    "storage error": {"error": "KAFKA_STORAGE_ERROR"},
    "timed out, not written": {"error": "REQUEST_TIMED_OUT"},
    "timed out, written": {"error": "REQUEST_TIMED_OUT", "applied": True},
    "written to too few replicas": {"error": "NOT_ENOUGH_REPLICAS_AFTER_APPEND", "applied": True},
    "connection closed before": {"close_connection": "before"},
    "connection closed after": {"close_connection": "after"},
    "connection closed in the response": {"close_connection": "mid_response"},
    "response lost": {"drop_response": True},
}


@pytest.mark.parametrize("in_flight", [1, 2, 5])
@pytest.mark.parametrize("fault", FAULTS)
def test_idempotent_records_are_there_once_and_in_order_after(
    cluster: MockCluster, make_producer: MakeProducer, fault: str, in_flight: int
) -> None:
    producer = make_producer(**SMALL, max_in_flight_requests_per_connection=in_flight)
    warm(cluster, producer)
    hits = [
        cluster.inject("Produce", skip=skip, times=times, **FAULTS[fault])
        for skip, times in ((0, 1), (3, 2), (7, 1))
    ]
    futures = send_numbers(producer, 300)
    producer.flush(30)
    assert [hit.hits for hit in hits] == [1, 2, 1]
    assert values(cluster) == list(range(300))
    # Offsets are right too, except where the broker only says that it had the batch already.
    assert {future.get().offset - i for i, future in enumerate(futures)} <= {0, *range(-300, 0)}
    known = [(i, future.get().offset) for i, future in enumerate(futures) if future.get().offset >= 0]
    assert all(i == offset for i, offset in known)
    assert max(future.get().attempts for future in futures) > 1


def test_a_lost_response_duplicates_records_without_idempotence(
    cluster: MockCluster, make_producer: MakeProducer
) -> None:
    # The tests above could not fail if this did not happen.
    producer = make_producer(**SMALL, enable_idempotence=False)
    warm(cluster, producer)
    cluster.inject("Produce", close_connection="after")
    send_numbers(producer, 20)
    producer.flush(10)
    found = values(cluster)
    assert len(found) > 20
    assert set(found) == set(range(20))


def test_several_in_flight_without_idempotence_can_change_the_order(
    cluster: MockCluster, make_producer: MakeProducer
) -> None:
    producer = make_producer(**SMALL, enable_idempotence=False, max_in_flight_requests_per_connection=5)
    warm(cluster, producer)
    cluster.set_latency(20)
    cluster.inject("Produce", "NOT_ENOUGH_REPLICAS")
    send_numbers(producer, 200)
    producer.flush(10)
    found = values(cluster)
    assert sorted(found) == list(range(200))
    assert found != list(range(200))


@pytest.mark.parametrize("fault", FAULTS)
def test_one_in_flight_keeps_the_order_without_idempotence(
    cluster: MockCluster, make_producer: MakeProducer, fault: str
) -> None:
    producer = make_producer(**SMALL, enable_idempotence=False, max_in_flight_requests_per_connection=1)
    warm(cluster, producer)
    cluster.inject("Produce", skip=1, times=2, **FAULTS[fault])
    send_numbers(producer, 200)
    producer.flush(10)
    seen: list[int] = []
    for value in values(cluster):
        if value not in seen:
            seen.append(value)
    assert seen == list(range(200))


def test_every_retry_is_one_more_attempt_and_waits_for_its_back_off(
    cluster: MockCluster, make_producer: MakeProducer
) -> None:
    producer = make_producer(retry_backoff_ms=40, retry_backoff_max_ms=80, linger_ms=0)
    producer.send("t", b"0").get(10)
    cluster.inject("Produce", "NOT_ENOUGH_REPLICAS", times=3)
    metadata = producer.send("t", b"1").get(10)
    assert metadata.attempts == 4
    # 40, 80, 80 ms, less 20 % jitter each.
    assert metadata.latency_ms >= (40 + 80 + 80) * 0.8
    sent = [request.time for request in cluster.requests_of("Produce")][-4:]
    assert sent[1] - sent[0] >= 0.040 * 0.8 - 0.005


def test_sequence_numbers_have_no_gap_and_stay_those_of_the_first_attempt(
    cluster: MockCluster, make_producer: MakeProducer
) -> None:
    producer = make_producer(**SMALL)
    warm(cluster, producer)
    cluster.inject("Produce", "NOT_ENOUGH_REPLICAS", skip=2, times=3)
    cluster.inject("Produce", close_connection="after", skip=8)
    send_numbers(producer, 200)
    producer.flush(10)
    records = cluster.records("t")
    assert [record.sequence - records[0].sequence for record in records] == list(range(200))
    assert {(record.producer_id, record.producer_epoch) for record in records} == {
        (records[0].producer_id, records[0].producer_epoch)
    }
    assert records[0].producer_id >= 0


def test_sequence_numbers_wrap_at_2_to_the_31(cluster: MockCluster, make_producer: MakeProducer) -> None:
    first = 2**31 - 60
    producer = make_producer(**SMALL)
    warm(cluster, producer)
    producer._engine_started._loop.begin_sequences_at(first)  # type: ignore[union-attr]
    send_numbers(producer, 1)
    producer.flush(10)
    faults = [
        cluster.inject("Produce", "NOT_ENOUGH_REPLICAS", skip=2, times=3),
        cluster.inject("Produce", "REQUEST_TIMED_OUT", skip=6, times=2, applied=True),
        cluster.inject("Produce", close_connection="after", skip=10),
        cluster.inject("Produce", drop_response=True, skip=14),
    ]
    # Enough batches for every fault, even when they get full while one waits.
    send_numbers(producer, 900)
    producer.flush(20)
    assert all(fault.hits for fault in faults)
    records = cluster.records("t")
    assert values(cluster) == [0, *range(900)]
    assert [record.sequence for record in records] == [(first + i) % 2**31 for i in range(901)]
    assert len({(record.producer_id, record.producer_epoch) for record in records}) == 1


@pytest.mark.parametrize("error", ["OUT_OF_ORDER_SEQUENCE_NUMBER", "UNKNOWN_PRODUCER_ID"])
def test_a_broker_that_lost_the_producers_state_gets_a_new_epoch(
    cluster: MockCluster, make_producer: MakeProducer, error: str
) -> None:
    producer = make_producer(**SMALL)
    warm(cluster, producer)
    cluster.inject("Produce", error, skip=2)
    send_numbers(producer, 200)
    producer.flush(10)
    assert values(cluster) == list(range(200))
    records = cluster.records("t")
    epochs = [record.producer_epoch for record in records]
    assert epochs == sorted(epochs)
    if error == "UNKNOWN_PRODUCER_ID":
        assert epochs[-1] > epochs[0]
        assert next(r.sequence for r in records if r.producer_epoch == epochs[-1]) == 0


def test_an_epoch_that_the_broker_refuses_is_replaced_by_a_new_producer_id(
    cluster: MockCluster, make_producer: MakeProducer
) -> None:
    producer = make_producer(**SMALL)
    warm(cluster, producer)
    cluster.inject("Produce", "INVALID_PRODUCER_EPOCH", skip=1)
    send_numbers(producer, 200)
    producer.flush(10)
    assert values(cluster) == list(range(200))
    assert len({record.producer_id for record in cluster.records("t")}) == 2


def test_a_batch_that_starts_over_waits_when_the_producer_id_is_lost_again(
    make_cluster: MakeCluster, make_producer: MakeProducer, eventually: Eventually
) -> None:
    """With no producer id at all it would be written, and nothing would recognise its repetition."""
    cluster = make_cluster()
    cluster.create_topic("t", partitions=2)
    producer = make_producer(cluster, linger_ms=0, retry_backoff_ms=400, retry_backoff_max_ms=400)
    producer.send("t", b"0", partition=0).get(10)
    producer.send("t", b"1", partition=1).get(10)
    cluster.inject("Produce", "INVALID_PRODUCER_EPOCH", partition=0)
    futures = [producer.send("t", b"2", partition=0)]
    eventually(lambda: len(cluster.requests_of("InitProducerId")) == 2)
    cluster.inject("InitProducerId", delay_ms=800)
    cluster.inject("Produce", "INVALID_PRODUCER_EPOCH", partition=1)
    futures.append(producer.send("t", b"3", partition=1))
    producer.flush(10)
    assert all(future.succeeded() for future in futures)
    assert [values(cluster, partition=0), values(cluster, partition=1)] == [[0, 2], [1, 3]]
    assert all(record.producer_id >= 0 for record in cluster.records("t"))


@pytest.mark.parametrize("skip", [7, 8])
def test_a_repetition_in_doubt_stays_among_the_batches_that_a_broker_remembers(
    cluster: MockCluster, make_producer: MakeProducer, skip: int
) -> None:
    """The first of five in flight is in doubt, the others are acknowledged; then its repetition is in doubt.

    If more were sent behind it meanwhile, the broker, which remembers five batches, would have forgotten it.
    """
    producer = make_producer(**SMALL)
    warm(cluster, producer)
    faults = [
        cluster.inject("Produce", "REQUEST_TIMED_OUT", applied=True, skip=1),
        cluster.inject("Produce", drop_response=True, skip=skip),
    ]
    futures = send_numbers(producer, 300)
    producer.flush(20)
    assert [fault.hits for fault in faults] == [1, 1]
    assert all(future.succeeded() for future in futures)
    assert values(cluster) == list(range(300))
    assert len({(record.producer_id, record.producer_epoch) for record in cluster.records("t")}) == 1


@pytest.mark.parametrize("behind_ms", [500, 650, 1000])
def test_what_a_closed_connection_left_the_broker_is_not_sent_under_another_epoch(
    cluster: MockCluster, make_producer: MakeProducer, behind_ms: int
) -> None:
    """Two batches time out unread. The first is refused for good, so its successor is out of order.

    Then the broker comes to what the closed connection left, and writes both. Had the successor got a new
    epoch by then, it would be there twice.
    """
    producer = make_producer(
        linger_ms=0, request_timeout_ms=100, retry_backoff_ms=300, retry_backoff_max_ms=600, batch_size=1
    )
    producer.send("t", b"0").get(10)
    faults = [
        cluster.inject("Produce", handle_after_ms=behind_ms),
        cluster.inject("Produce", "INVALID_RECORD", skip=1),
    ]
    refused, kept = producer.send("t", b"1"), producer.send("t", b"2")
    producer.flush(20)
    assert [fault.hits for fault in faults] == [1, 1]
    assert isinstance(refused.exception, errors.KafkaError) and refused.exception.persisted == "possibly"
    assert kept.succeeded()
    assert values(cluster) == [0, 1, 2]
    assert cluster.problems == []


@pytest.mark.parametrize(
    "lost", [{"close_connection": "after"}, {"error": "REQUEST_TIMED_OUT", "applied": True}]
)
def test_what_may_be_written_is_not_sent_again_under_another_producer_id(
    cluster: MockCluster, make_producer: MakeProducer, lost: dict[str, Any]
) -> None:
    producer = make_producer(linger_ms=0)
    producer.send("t", b"%06d" % 0).get(10)
    faults = [cluster.inject("Produce", **lost), cluster.inject("Produce", "INVALID_PRODUCER_EPOCH", skip=1)]
    with pytest.raises(errors.InvalidProducerEpochError) as caught:
        producer.send("t", b"%06d" % 1).get(10)
    assert caught.value.persisted == "possibly", "the broker did not look for it under its newer epoch"
    assert [fault.hits for fault in faults] == [1, 1]
    for i in range(2, 6):
        producer.send("t", b"%06d" % i).get(10)
    assert values(cluster) == list(range(6)), "once, where two attempts were made"
    assert len({record.producer_id for record in cluster.records("t")}) == 2


def test_what_an_expired_producer_state_hid_is_sent_again(
    cluster: MockCluster, make_producer: MakeProducer
) -> None:
    """UNKNOWN_PRODUCER_ID says that nothing of the producer is left in the log: as Java's, it starts over.

    But the broker may still come to what the lost connection left it: it is asked once more after a while.
    """
    producer = make_producer(linger_ms=0)
    producer.send("t", b"%06d" % 0).get(10)
    faults = [
        cluster.inject("Produce", close_connection="before"),
        cluster.inject("Produce", "UNKNOWN_PRODUCER_ID", skip=1, times=2),
    ]
    assert producer.send("t", b"%06d" % 1).get(10).attempts == 4
    assert [fault.hits for fault in faults] == [1, 2]
    assert values(cluster) == [0, 1]
    assert [record.sequence for record in cluster.records("t")] == [0, 0]


def test_a_topic_that_is_created_anew_gets_the_records_in_order(
    cluster: MockCluster, make_producer: MakeProducer
) -> None:
    producer = make_producer(**SMALL)
    send_numbers(producer, 50)
    producer.flush(10)
    cluster.recreate_topic("t")
    send_numbers(producer, 50, first=50)
    producer.flush(10)
    send_numbers(producer, 50, first=100)
    producer.flush(10)
    assert values(cluster) == list(range(50, 150))


def test_a_batch_that_fails_for_good_leaves_the_others_in_order(
    cluster: MockCluster, make_producer: MakeProducer
) -> None:
    producer = make_producer(**SMALL)
    warm(cluster, producer)
    cluster.inject("Produce", "INVALID_RECORD", skip=3)
    futures = send_numbers(producer, 300)
    producer.flush(10)
    failed = [i for i, future in enumerate(futures) if future.failed()]
    assert failed
    assert failed == list(range(failed[0], failed[-1] + 1)), "one batch"
    assert values(cluster) == [i for i in range(300) if i not in set(failed)]
    offsets = [future.get().offset for future in futures if future.succeeded()]
    assert offsets == list(range(300 - len(failed)))


def test_failed_batches_again_and_again_leave_the_others_in_order(
    cluster: MockCluster, make_producer: MakeProducer
) -> None:
    producer = make_producer(**SMALL)
    warm(cluster, producer)
    for skip in (1, 3, 4, 9, 12):
        cluster.inject("Produce", "INVALID_RECORD", skip=skip)
    cluster.inject("Produce", close_connection="after", skip=6)
    futures = send_numbers(producer, 500)
    producer.flush(10)
    expected = [i for i, future in enumerate(futures) if future.succeeded()]
    assert len(expected) < 500
    assert values(cluster) == expected


def test_stopping_and_starting_a_broker_loses_and_duplicates_nothing(
    cluster: MockCluster, make_producer: MakeProducer
) -> None:
    producer = make_producer(**SMALL)
    warm(cluster, producer)
    futures: list[DeliveryFuture] = []
    stop = threading.Event()

    def send() -> None:
        while not stop.is_set():
            futures.append(producer.send("t", b"%06d" % len(futures)))
            if len(futures) % 50 == 0:
                futures[-1].get(20)

    thread = threading.Thread(target=send)
    thread.start()
    for _ in range(4):
        cluster.wait_for(cluster.count("t") + 100)
        cluster.stop_broker(1)
        cluster.start_broker(1)
    stop.set()
    thread.join(20)
    producer.flush(20)
    assert all(future.succeeded() for future in futures)
    assert values(cluster) == list(range(len(futures)))


def test_disconnecting_clients_at_random_moments_loses_and_duplicates_nothing(
    cluster: MockCluster, make_producer: MakeProducer
) -> None:
    producer = make_producer(**SMALL)
    warm(cluster, producer)
    for i in range(10):
        send_numbers(producer, 100, first=100 * i)
        cluster.wait_for(i * 100 + 10)
        cluster.disconnect_clients()
    producer.flush(20)
    assert values(cluster) == list(range(1000))


def test_leaders_that_move_all_the_time_lose_and_duplicate_nothing(
    make_cluster: MakeCluster, make_producer: MakeProducer
) -> None:
    cluster = make_cluster(3, replication_factor=3)
    cluster.create_topic("t", partitions=4)
    producer = make_producer(cluster, **SMALL)
    producer.send("t", b"0", partition=0).get(10)
    cluster.clear()
    for i in range(2000):
        producer.send("t", b"%06d" % i, partition=i % 4)
        if i % 50 == 0:
            cluster.move_leader("t", i // 50 % 4, 1 + (i // 50) % 3)
    producer.flush(20)
    for partition in range(4):
        assert values(cluster, partition=partition) == list(range(partition, 2000, 4))


def test_retries_zero_fails_at_the_first_error(cluster: MockCluster, make_producer: MakeProducer) -> None:
    producer = make_producer(retries=0, enable_idempotence=False)
    cluster.inject("Produce", "NOT_ENOUGH_REPLICAS")
    future = producer.send("t", b"v")
    with pytest.raises(errors.NotEnoughReplicasError) as caught:
        future.get(10)
    assert caught.value.persisted == "no"
    assert caught.value.retriable
    assert future.retriable()
    assert producer.send("t", b"v").get(10).attempts == 1


def test_retries_zero_fails_when_the_connection_is_lost(
    cluster: MockCluster, make_producer: MakeProducer
) -> None:
    producer = make_producer(retries=0, enable_idempotence=False)
    cluster.inject("Produce", close_connection="after")
    with pytest.raises(errors.KafkaConnectionError, match="connection was lost") as caught:
        producer.send("t", b"v").get(10)
    assert caught.value.persisted == "possibly"


def test_retries_are_counted(cluster: MockCluster, make_producer: MakeProducer) -> None:
    producer = make_producer(retries=3, enable_idempotence=False)
    cluster.inject("Produce", "NOT_ENOUGH_REPLICAS", times=None)
    with pytest.raises(errors.NotEnoughReplicasError, match="allows no more attempts; sent 4 times"):
        producer.send("t", b"v").get(10)
    assert len(cluster.requests_of("Produce")) == 4


def test_a_fatal_error_ends_the_producer_at_once(cluster: MockCluster, make_producer: MakeProducer) -> None:
    cluster.inject("InitProducerId", "CLUSTER_AUTHORIZATION_FAILED", times=None)
    producer = make_producer(linger_ms=0, bootstrap_timeout_ms=0)
    try:
        future = producer.send("t", b"v")
    except errors.KafkaError as raised:
        error: BaseException = raised
    else:
        with pytest.raises(errors.KafkaError) as caught:
            future.get(10)
        error = caught.value
    assert "CLUSTER_AUTHORIZATION_FAILED" in str(error) or "ClusterAuthorizationFailed" in repr(error)
    with pytest.raises(errors.KafkaError, match="close it") as refused:
        producer.send("t", b"v")
    assert isinstance(refused.value.__cause__, errors.ClusterAuthorizationFailedError)
    producer.flush(5)
    producer.close(5)


def test_a_producer_id_is_asked_for_until_there_is_one(
    cluster: MockCluster, make_producer: MakeProducer
) -> None:
    cluster.inject("InitProducerId", "COORDINATOR_LOAD_IN_PROGRESS", times=2)
    cluster.inject("InitProducerId", close_connection="before", skip=2)
    producer = make_producer()
    assert producer.send("t", b"v").get(10).offset == 0
    assert len(cluster.requests_of("InitProducerId")) == 4


@pytest.mark.parametrize("acks", [0, 1, "all", -1])
def test_acks(cluster: MockCluster, make_producer: MakeProducer, acks: int | str) -> None:
    producer = make_producer(acks=acks, enable_idempotence=False)
    reports: list[Any] = []
    futures = [
        producer.send("t", b"%d" % i, on_delivery=lambda *args: reports.append(args)) for i in range(10)
    ]
    producer.flush(10)
    cluster.wait_for(10, "t")
    assert values(cluster) == list(range(10))
    assert [future.succeeded() for future in futures] == [True] * 10
    assert [future.get().offset for future in futures] == ([-1] * 10 if acks == 0 else list(range(10)))
    assert [error for error, metadata in reports] == [None] * 10
    [request] = {request.body["acks"] for request in cluster.requests_of("Produce")}
    assert request == (-1 if acks == "all" else acks)


def test_not_enough_replicas_is_waited_out(make_cluster: MakeCluster, make_producer: MakeProducer) -> None:
    cluster = make_cluster(2, replication_factor=2)
    cluster.create_topic("t", config={"min.insync.replicas": 2})
    other = 2 if cluster.leader("t") == 1 else 1
    producer = make_producer(cluster)
    producer.send("t", b"0").get(10)
    cluster.stop_broker(other)
    future = producer.send("t", b"1")
    with pytest.raises(errors.KafkaTimeoutError, match="NOT_ENOUGH_REPLICAS"):
        future.get(0.2)
    cluster.start_broker(other)
    assert future.get(10).offset == 1


def test_duplicate_sequence_counts_as_written(cluster: MockCluster, producer: KafkaProducer) -> None:
    cluster.inject("Produce", "DUPLICATE_SEQUENCE_NUMBER")
    metadata = producer.send("t", b"v").get(10)
    assert metadata.offset == -1
    assert metadata.persisted == "yes"


# --- delivery.timeout.ms


def expiring(make_producer: MakeProducer, **options: Any) -> KafkaProducer:
    return make_producer(delivery_timeout_ms=300, request_timeout_ms=200, linger_ms=0, **options)


def test_records_that_were_never_sent_expire_as_not_written(
    cluster: MockCluster, make_producer: MakeProducer
) -> None:
    producer = expiring(make_producer)
    producer.send("t", b"0").get(10)
    cluster.stop_broker(1)
    reports: list[Any] = []
    started = time.monotonic()
    future = producer.send("t", b"1", on_delivery=lambda *args: reports.append(args))
    with pytest.raises(errors.KafkaTimeoutError) as caught:
        future.get(10)
    assert 0.25 < time.monotonic() - started < 3
    text = str(caught.value)
    assert "1 record(s) for t-0 expired" in text
    assert "delivery_timeout_ms is 300" in text
    if "never sent" in text:
        assert "not connected" in text
        assert caught.value.persisted == "no"
    producer.flush(5)
    assert len(reports) == 1
    cluster.start_broker(1)
    assert producer.send("t", b"2").get(10).offset == 1


def test_records_that_were_sent_and_not_answered_expire_as_possibly_written(
    cluster: MockCluster, make_producer: MakeProducer
) -> None:
    producer = expiring(make_producer)
    producer.send("t", b"0").get(10)
    cluster.inject("Produce", drop_response=True, times=None)
    future = producer.send("t", b"1")
    with pytest.raises(errors.KafkaTimeoutError, match="expired") as caught:
        future.get(10)
    assert caught.value.persisted == "possibly"
    assert "sent" in str(caught.value)
    assert cluster.count("t") == 2, "this time it was"


def test_records_that_brokers_refuse_all_the_time_expire_as_not_written(
    cluster: MockCluster, make_producer: MakeProducer
) -> None:
    producer = expiring(make_producer)
    producer.send("t", b"0").get(10)
    cluster.inject("Produce", "NOT_ENOUGH_REPLICAS", times=None)
    future = producer.send("t", b"1")
    with pytest.raises(errors.KafkaTimeoutError, match="last error: NOT_ENOUGH_REPLICAS") as caught:
        future.get(10)
    assert caught.value.persisted == "no"


def test_order_and_exactly_once_hold_after_records_expired(
    cluster: MockCluster, make_producer: MakeProducer
) -> None:
    producer = make_producer(delivery_timeout_ms=300, request_timeout_ms=200, linger_ms=0, batch_size=512)
    warm(cluster, producer)
    for round_ in range(3):
        fault = cluster.inject("Produce", drop_response=True, skip=1, times=3)
        futures = send_numbers(producer, 100, first=1000 * round_)
        producer.flush(20)
        assert all(future.done() for future in futures)
        assert fault.hits > 0
        fault.remove()
        later = send_numbers(producer, 100, first=1000 * round_ + 500)
        producer.flush(20)
        assert all(future.succeeded() for future in later)
    found = values(cluster)
    assert found == sorted(found)
    assert len(found) == len(set(found))
    for round_ in range(3):
        assert set(range(1000 * round_ + 500, 1000 * round_ + 600)) <= set(found)


def test_a_partition_that_is_blocked_does_not_block_the_others(
    make_cluster: MakeCluster, make_producer: MakeProducer
) -> None:
    cluster = make_cluster(2)
    cluster.create_topic("t", partitions=2)
    producer = make_producer(cluster, linger_ms=0)
    for partition in (0, 1):
        producer.send("t", b"0", partition=partition).get(10)
    cluster.inject("Produce", "NOT_ENOUGH_REPLICAS", partition=0, times=None)
    blocked = producer.send("t", b"1", partition=0)
    futures = [producer.send("t", b"1", partition=1) for _ in range(50)]
    assert [future.get(10).offset for future in futures] == list(range(1, 51))
    assert not blocked.done()
    cluster.clear()
    assert blocked.get(10).offset == 0


def test_a_refusal_does_not_hide_that_an_earlier_attempt_may_have_been_written(
    cluster: MockCluster, make_producer: MakeProducer
) -> None:
    producer = expiring(make_producer)
    producer.send("t", b"0").get(10)
    # Brokers look for replicas before they look for duplicates.
    cluster.inject("Produce", close_connection="after")
    cluster.inject("Produce", "NOT_ENOUGH_REPLICAS", skip=1, times=None)
    future = producer.send("t", b"1")
    with pytest.raises(errors.KafkaTimeoutError, match="last error: NOT_ENOUGH_REPLICAS") as caught:
        future.get(10)
    assert caught.value.persisted == "possibly"
    assert cluster.count("t") == 2, "this time it was"


# --- hostile brokers


def test_a_response_cut_off_anywhere_is_survived(cluster: MockCluster, make_producer: MakeProducer) -> None:
    producer = make_producer(**SMALL)
    cluster.set_slow_writes(0.2, size=3)
    for api in ("ApiVersions", "Metadata", "InitProducerId", "Produce"):
        cluster.inject(api, close_connection="mid_response", times=2)
    cluster.disconnect_clients()
    send_numbers(producer, 50)
    producer.flush(20)
    assert values(cluster) == list(range(50))
