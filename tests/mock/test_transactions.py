"""Transactions end to end on the mock cluster, in both versions of the protocol.

Version 1 is what brokers before 4.0 speak, version 2 (KIP-890) those after. What consumers of committed
records see is told by confluent-kafka, which knows nothing of kprod.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from kprod import DeliveryFuture, KafkaProducer, errors
from kprod.testing import MockCluster
from tests.kafka.readers import read_confluent
from tests.mock.conftest import Eventually, MakeCluster, MakeProducer

RELEASES = {"v1": "3.9", "v1-2.5": "2.5", "v2": "4.1"}


@pytest.fixture(params=RELEASES)
def cluster(make_cluster: MakeCluster, request: pytest.FixtureRequest) -> MockCluster:
    """A mock cluster with the topic ``t`` of one partition, in each version of the protocol."""
    made = make_cluster(as_version=RELEASES[request.param])
    made.create_topic("t")
    return made


@pytest.fixture
def tx(cluster: MockCluster, make_producer: MakeProducer) -> KafkaProducer:
    """A producer that is ready for transactions."""
    producer = make_producer(cluster, transactional_id="tx")
    producer.init_transactions()
    return producer


def committed(cluster: MockCluster, topic: str = "t") -> list[bytes | None]:
    """What a consumer of committed records sees."""
    return [r.value for r in read_confluent(cluster.bootstrap_servers, topic, isolation="read_committed")]


def written(cluster: MockCluster, topic: str = "t") -> list[bytes | None]:
    return [record.value for record in cluster.records(topic)]


def send(producer: KafkaProducer, *values: bytes, **options: Any) -> list[DeliveryFuture]:
    return [producer.send("t", value, **options) for value in values]


# ------------------------------------------------------------------------------- what becomes visible


def test_committed_records_are_seen_and_aborted_ones_are_not(cluster: MockCluster, tx: KafkaProducer) -> None:
    tx.begin_transaction()
    futures = send(tx, b"1", b"2")
    tx.commit_transaction()
    assert [future.get(0).offset for future in futures] == [0, 1]
    tx.begin_transaction()
    send(tx, b"3")
    tx.flush()
    tx.abort_transaction()
    tx.begin_transaction()
    send(tx, b"4")
    tx.flush()
    assert committed(cluster) == [b"1", b"2"]
    tx.commit_transaction()
    assert committed(cluster) == [b"1", b"2", b"4"]
    assert written(cluster) == [b"1", b"2", b"3", b"4"]


def test_records_are_not_seen_before_the_commit(cluster: MockCluster, tx: KafkaProducer) -> None:
    tx.begin_transaction()
    futures = send(tx, b"1")
    assert futures[0].get(10).offset == 0
    assert committed(cluster) == []
    tx.commit_transaction()
    assert committed(cluster) == [b"1"]


def test_an_abort_drops_what_was_not_sent(cluster: MockCluster, tx: KafkaProducer) -> None:
    # However late the abort comes, nothing is written before.
    refused = cluster.inject("Produce", "NOT_ENOUGH_REPLICAS", times=None)
    tx.begin_transaction()
    told: list[BaseException | None] = []
    futures = [
        tx.send("t", b"%d" % i, on_delivery=lambda error, metadata: told.append(error)) for i in range(3)
    ]
    tx.abort_transaction()
    refused.remove()
    assert len(told) == 3, "callbacks run before abort_transaction() returns"
    for future, error in zip(futures, told, strict=True):
        with pytest.raises(errors.TransactionAbortedError):
            future.get(0)
        assert isinstance(error, errors.TransactionAbortedError)
    assert committed(cluster) == []
    with tx.transaction():
        send(tx, b"next")
    assert committed(cluster) == [b"next"]


def test_an_abort_waits_for_what_was_sent(cluster: MockCluster, tx: KafkaProducer) -> None:
    tx.begin_transaction()
    cluster.inject("Produce", delay_ms=200)
    (future,) = send(tx, b"1")
    cluster.wait_for(1, "t")
    tx.abort_transaction()
    assert future.get(0).offset == 0
    assert committed(cluster) == []


@pytest.mark.parametrize(
    "answer",
    [
        {"error": "NOT_ENOUGH_REPLICAS"},
        {"error": "REQUEST_TIMED_OUT", "applied": True},
        {"error": "MESSAGE_TOO_LARGE"},
        {"close_connection": "after"},
    ],
    ids=["refused", "applied", "too large", "lost"],
)
def test_an_abort_does_not_send_again_what_was_on_its_way(
    cluster: MockCluster, tx: KafkaProducer, answer: dict[str, Any], eventually: Eventually
) -> None:
    """The answer comes after the abort was asked for, and would be the same for ever."""
    tx.begin_transaction()
    fault = cluster.inject("Produce", delay_ms=300, times=None, **answer)
    futures = send(tx, b"1", b"2")
    eventually(lambda: cluster.requests_of("Produce") != [])
    tx.abort_transaction(timeout=20)
    assert len(cluster.requests_of("Produce")) == 1
    written_already = "applied" in answer or "close_connection" in answer
    for future in futures:
        with pytest.raises(errors.TransactionAbortedError) as caught:
            future.get(0)
        assert caught.value.persisted == ("possibly" if written_already else "no")
    fault.remove()
    for value in (b"3", b"4"):
        with tx.transaction():
            send(tx, value)
    assert committed(cluster) == [b"3", b"4"]


@pytest.mark.parametrize("end", ["commit_transaction", "abort_transaction"])
def test_a_transaction_without_records_asks_the_cluster_nothing(
    cluster: MockCluster, tx: KafkaProducer, end: str
) -> None:
    for _ in range(3):
        tx.begin_transaction()
        getattr(tx, end)()
    assert cluster.requests_of("EndTxn") == []
    with tx.transaction():
        send(tx, b"1")
    assert committed(cluster) == [b"1"]


def test_many_transactions_in_a_row(cluster: MockCluster, tx: KafkaProducer) -> None:
    expected = []
    for i in range(60):
        tx.begin_transaction()
        send(tx, b"%d" % i)
        if i % 3 == 2:
            tx.abort_transaction()
        else:
            tx.commit_transaction()
            expected.append(b"%d" % i)
    assert committed(cluster) == expected


def test_many_partitions_in_one_transaction(
    cluster: MockCluster, tx: KafkaProducer, request: pytest.FixtureRequest
) -> None:
    topics = {"a": 20, "b": 10, "c": 1}
    for topic, partitions in topics.items():
        cluster.create_topic(topic, partitions)
    for topic in topics:
        tx.partitions_for(topic)
    for number in range(3):
        with tx.transaction():
            for topic, partitions in topics.items():
                for partition in range(partitions):
                    tx.send(topic, b"%d" % number, partition=partition)
    for topic, partitions in topics.items():
        seen = read_confluent(cluster.bootstrap_servers, topic, isolation="read_committed")
        assert [(r.partition, r.value) for r in seen] == [
            (partition, b"%d" % number) for partition in range(partitions) for number in range(3)
        ]
    added = cluster.requests_of("AddPartitionsToTxn")
    if "v2" in request.node.name:
        assert added == [], "KIP-890: the brokers do it"
    else:
        # Partitions are added together, not with a round trip each.
        assert 3 <= len(added) <= 3 * 8


def test_several_threads_send_in_one_transaction(cluster: MockCluster, tx: KafkaProducer) -> None:
    cluster.create_topic("wide", 4)

    def work(number: int) -> None:
        for i in range(200):
            tx.send("wide", b"%d-%d" % (number, i), partition=number)

    for _ in range(2):
        tx.begin_transaction()
        threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        tx.commit_transaction()
    seen = read_confluent(cluster.bootstrap_servers, "wide", isolation="read_committed")
    for number in range(4):
        mine = [r.value for r in seen if r.partition == number]
        assert mine == [b"%d-%d" % (number, i) for i in range(200)] * 2


@pytest.mark.parametrize("codec", ["none", "gzip"])
def test_threads_that_send_while_transactions_end(
    cluster: MockCluster, make_producer: MakeProducer, codec: str
) -> None:
    """A record that was accepted is decided when its transaction's end returns, and is in no other one."""
    tx = make_producer(cluster, transactional_id="tx", compression_type=codec, batch_size=200, linger_ms=1)
    tx.init_transactions()
    stop = threading.Event()
    accepted: list[tuple[int, DeliveryFuture]] = []
    inside = [0, 0]
    failures: list[BaseException] = []
    current = [0]

    def work(number: int) -> None:
        i = 0
        while not stop.is_set():
            inside[number] += 1
            try:
                value = b"%d-%d" % (number, i)
                future = tx.send("t", value)
                accepted.append((current[0], future))
                i += 1
            except (errors.IllegalStateError, errors.TransactionAbortableError):
                stop.wait(0.0005)
            except BaseException as error:
                failures.append(error)
                return
            finally:
                inside[number] += 1

    threads = [threading.Thread(target=work, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    outcomes: dict[DeliveryFuture, bool] = {}
    try:
        for round_ in range(30):
            current[0] = round_
            tx.begin_transaction()
            stop.wait(0.01)
            commits = round_ % 2 == 0
            if commits:
                tx.commit_transaction()
            else:
                tx.abort_transaction()
            # Calls of send() that were under way are over once each thread has begun another one.
            before = list(inside)
            while any(b % 2 and b == now for b, now in zip(before, inside, strict=True)):
                stop.wait(0.0005)
            assert all(future.is_done for _, future in accepted), "accepted, and not decided by the end"
            for _, future in accepted:
                outcomes[future] = commits and future.succeeded()
            accepted.clear()
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert failures == []
    assert all(future.succeeded() for future, commits in outcomes.items() if commits)
    offsets = sorted(future.get(0).offset for future, commits in outcomes.items() if commits)
    seen = read_confluent(cluster.bootstrap_servers, "t", isolation="read_committed")
    assert [r.offset for r in seen] == offsets
    assert offsets, "nothing was tested"


# ------------------------------------------------------------------------------- callbacks and calls


def test_callbacks_have_run_when_the_commit_returns(cluster: MockCluster, tx: KafkaProducer) -> None:
    told: list[int] = []
    tx.begin_transaction()
    for _ in range(100):
        tx.send("t", b"x").add_callback(lambda metadata: told.append(metadata.offset))
    tx.commit_transaction()
    assert told == list(range(100))


def test_a_callback_cannot_end_the_transaction(cluster: MockCluster, tx: KafkaProducer) -> None:
    caught: list[BaseException] = []

    def on_delivery(error: object, metadata: object) -> None:
        for call in (tx.commit_transaction, tx.abort_transaction, tx.begin_transaction, tx.init_transactions):
            try:
                call()
            except errors.IllegalStateError as refused:
                caught.append(refused)

    tx.begin_transaction()
    tx.send("t", b"1", on_delivery=on_delivery)
    tx.commit_transaction()
    assert len(caught) == 4
    assert "callback" in str(caught[0])


def test_send_outside_a_transaction_is_refused(cluster: MockCluster, make_producer: MakeProducer) -> None:
    tx = make_producer(cluster, transactional_id="tx")
    with pytest.raises(errors.IllegalStateError, match=r"init_transactions\(\) first"):
        tx.send("t", b"0")
    tx.init_transactions()
    with pytest.raises(errors.IllegalStateError, match=r"begin_transaction\(\) first"):
        tx.send("t", b"0")
    tx.begin_transaction()
    tx.send("t", b"1")
    tx.commit_transaction()
    with pytest.raises(errors.IllegalStateError, match=r"begin_transaction\(\) first"):
        tx.send("t", b"2")
    tx.begin_transaction()
    tx.abort_transaction()
    with pytest.raises(errors.IllegalStateError):
        tx.send("t", b"3")
    tx.flush()
    assert written(cluster) == [b"1"]


def test_init_twice_and_calls_out_of_order(cluster: MockCluster, tx: KafkaProducer) -> None:
    with pytest.raises(errors.IllegalStateError, match="called once"):
        tx.init_transactions()
    with pytest.raises(errors.IllegalStateError, match=r"begin_transaction\(\) first"):
        tx.commit_transaction()
    with pytest.raises(errors.IllegalStateError, match=r"begin_transaction\(\) first"):
        tx.abort_transaction()
    with pytest.raises(errors.IllegalStateError, match=r"begin_transaction\(\) first"):
        tx.send_offsets_to_transaction({("t", 0): 1}, "g")
    tx.begin_transaction()
    with pytest.raises(errors.IllegalStateError, match="commit or abort"):
        tx.begin_transaction()


def test_without_transactional_id_there_are_no_transactions(
    cluster: MockCluster, make_producer: MakeProducer
) -> None:
    producer = make_producer(cluster)
    calls: list[Callable[[], object]] = [
        producer.init_transactions,
        producer.begin_transaction,
        producer.commit_transaction,
        producer.abort_transaction,
        lambda: producer.send_offsets_to_transaction({}, "g"),
        lambda: producer.transaction().__enter__(),
    ]
    for call in calls:
        with pytest.raises(errors.IllegalStateError, match="transactional_id"):
            call()
    producer.send("t", b"1").get(10)


# ------------------------------------------------------------------------------- the context manager


def test_the_context_manager_commits(cluster: MockCluster, tx: KafkaProducer) -> None:
    with tx.transaction() as producer:
        assert producer is tx
        send(tx, b"1")
    assert committed(cluster) == [b"1"]


@pytest.mark.parametrize("kind", [ValueError, KeyboardInterrupt, SystemExit, GeneratorExit])
def test_the_context_manager_aborts_on_any_exception(
    cluster: MockCluster, tx: KafkaProducer, kind: type[BaseException]
) -> None:
    with pytest.raises(kind, match="mine"):
        with tx.transaction():
            send(tx, b"1")
            tx.flush()
            raise kind("mine")
    with tx.transaction():
        send(tx, b"2")
    assert committed(cluster) == [b"2"]


def test_the_context_manager_aborts_when_it_cannot_commit(cluster: MockCluster, tx: KafkaProducer) -> None:
    cluster.inject("Produce", "INVALID_RECORD")
    with pytest.raises(errors.TransactionAbortableError):
        with tx.transaction():
            send(tx, b"1")
    with tx.transaction():
        send(tx, b"2")
    assert committed(cluster) == [b"2"]


def test_an_exception_is_not_hidden_by_an_abort_that_fails(
    cluster: MockCluster, tx: KafkaProducer, make_producer: MakeProducer
) -> None:
    with pytest.raises(ValueError, match="mine"):
        with tx.transaction():
            send(tx, b"1")
            tx.flush()
            make_producer(cluster, transactional_id="tx").init_transactions()
            raise ValueError("mine")
    with pytest.raises(errors.ProducerFencedError):
        tx.begin_transaction()


# ------------------------------------------------------------------------------- lost records

PERMANENT = ("INVALID_RECORD", "MESSAGE_TOO_LARGE", "TOPIC_AUTHORIZATION_FAILED", "TRANSACTION_ABORTABLE")


def abortable_kind(error: str) -> type[errors.KafkaError]:
    """A missing permission has its own name: to begin again would not help."""
    if error == "TOPIC_AUTHORIZATION_FAILED":
        return errors.TopicAuthorizationFailedError
    return errors.TransactionAbortableError


@pytest.mark.parametrize(
    "error", [*PERMANENT, "INVALID_TXN_STATE", "UNKNOWN_SERVER_ERROR", "INVALID_TIMESTAMP"]
)
def test_a_commit_never_passes_a_lost_record(cluster: MockCluster, tx: KafkaProducer, error: str) -> None:
    """The answer with the error is the last thing that happens before the end."""
    cluster.create_topic("other")
    tx.begin_transaction()
    tx.send("other", b"kept").get(10)
    cluster.inject("Produce", error, topic="t")
    (lost,) = send(tx, b"1")
    with pytest.raises(abortable_kind(error)) as caught:
        tx.commit_transaction()
    assert "abort_transaction()" in str(caught.value)
    with pytest.raises(errors.KafkaError):
        lost.get(0)
    # It stays so until it is aborted.
    for call in (tx.commit_transaction, lambda: tx.send("t", b"2"), tx.begin_transaction):
        with pytest.raises(errors.KafkaError):
            call()
    tx.abort_transaction()
    with tx.transaction():
        send(tx, b"3")
    assert committed(cluster) == [b"3"]
    assert committed(cluster, "other") == []


@pytest.mark.parametrize("error", PERMANENT)
def test_a_lost_record_stops_the_transaction_at_once(
    cluster: MockCluster, tx: KafkaProducer, error: str, eventually: Eventually
) -> None:
    tx.begin_transaction()
    cluster.inject("Produce", error)
    (lost,) = send(tx, b"1")
    with pytest.raises(errors.KafkaError):
        lost.get(10)

    def refused() -> bool:
        try:
            tx.send("t", b"2")
        except abortable_kind(error):
            return True
        return False

    eventually(refused)
    tx.abort_transaction()
    assert committed(cluster) == []


def test_an_expired_record_makes_the_transaction_abortable(
    cluster: MockCluster, make_producer: MakeProducer
) -> None:
    tx = make_producer(cluster, transactional_id="tx", delivery_timeout_ms=300, request_timeout_ms=200)
    tx.init_transactions()
    tx.begin_transaction()
    fault = cluster.inject("Produce", "NOT_ENOUGH_REPLICAS", times=None)
    send(tx, b"1")
    with pytest.raises(errors.TransactionAbortableError):
        tx.commit_transaction()
    fault.remove()
    tx.abort_transaction()
    for value in (b"2", b"3"):
        with tx.transaction():
            send(tx, value)
    assert committed(cluster) == [b"2", b"3"]


def test_purge_inside_a_transaction_makes_it_abortable(cluster: MockCluster, tx: KafkaProducer) -> None:
    tx.begin_transaction()
    cluster.inject("Produce", "NOT_ENOUGH_REPLICAS", times=3)
    (purged,) = send(tx, b"1")
    tx.purge()
    with pytest.raises(errors.PurgedError):
        purged.get(10)
    with pytest.raises(errors.TransactionAbortableError):
        tx.commit_transaction()
    tx.abort_transaction()
    with tx.transaction():
        send(tx, b"2")
    assert committed(cluster) == [b"2"]


def test_a_record_that_was_too_large_to_accept_is_no_part_of_the_transaction(
    cluster: MockCluster, make_producer: MakeProducer
) -> None:
    tx = make_producer(cluster, transactional_id="tx", max_request_size=1000)
    tx.init_transactions()
    with tx.transaction():
        send(tx, b"1")
        with pytest.raises(errors.MessageSizeTooLargeError):
            tx.send("t", b"x" * 2000)
    assert committed(cluster) == [b"1"]


# ------------------------------------------------------------------------------- close()


def test_close_inside_a_transaction_aborts_it(cluster: MockCluster, tx: KafkaProducer) -> None:
    tx.begin_transaction()
    send(tx, b"1")
    tx.flush()
    tx.close()
    ended = cluster.requests_of("EndTxn")
    assert [request.body["committed"] for request in ended] == [False]
    assert committed(cluster) == []


def test_close_without_a_transaction_asks_nothing(cluster: MockCluster, tx: KafkaProducer) -> None:
    with tx.transaction():
        send(tx, b"1")
    ended = len(cluster.requests_of("EndTxn"))
    tx.close()
    assert len(cluster.requests_of("EndTxn")) == ended
    for call in (tx.begin_transaction, tx.commit_transaction, tx.init_transactions):
        with pytest.raises(errors.ProducerClosedError):
            call()


def test_close_at_once_leaves_the_transaction_to_its_timeout(cluster: MockCluster, tx: KafkaProducer) -> None:
    tx.begin_transaction()
    send(tx, b"1")
    tx.flush()
    tx.close(timeout=0)
    assert cluster.requests_of("EndTxn") == []
    assert committed(cluster) == []


# ------------------------------------------------------------------------------- fencing


def test_a_second_producer_fences_the_first(
    cluster: MockCluster, tx: KafkaProducer, make_producer: MakeProducer
) -> None:
    tx.begin_transaction()
    send(tx, b"old")
    tx.flush()
    second = make_producer(cluster, transactional_id="tx")
    second.init_transactions()
    with second.transaction():
        second.send("t", b"new")
    with pytest.raises(errors.ProducerFencedError, match="'tx'"):
        tx.commit_transaction()
    for call in (tx.begin_transaction, tx.commit_transaction, tx.abort_transaction):
        with pytest.raises(errors.ProducerFencedError):
            call()
    with pytest.raises(errors.ProducerFencedError):
        send(tx, b"late")
    tx.close()
    with second.transaction():
        second.send("t", b"newer")
    assert committed(cluster) == [b"new", b"newer"]


def test_what_a_fenced_producer_sends_later_is_never_seen(
    cluster: MockCluster, tx: KafkaProducer, make_producer: MakeProducer
) -> None:
    make_producer(cluster, transactional_id="tx").init_transactions()
    tx.begin_transaction()
    send(tx, b"late")
    with pytest.raises(errors.ProducerFencedError):
        tx.commit_transaction()
    for call in (tx.begin_transaction, tx.abort_transaction, lambda: tx.send("t", b"later")):
        with pytest.raises(errors.ProducerFencedError):
            call()
    assert committed(cluster) == []


def test_a_new_producer_aborts_what_the_last_one_left_open(
    cluster: MockCluster, tx: KafkaProducer, make_producer: MakeProducer
) -> None:
    tx.begin_transaction()
    send(tx, b"left")
    tx.flush()
    tx.close(timeout=0)
    second = make_producer(cluster, transactional_id="tx")
    second.init_transactions()
    with second.transaction():
        second.send("t", b"next")
    assert committed(cluster) == [b"next"]


def test_producers_with_ids_of_their_own_do_not_meet(
    cluster: MockCluster, tx: KafkaProducer, make_producer: MakeProducer
) -> None:
    other = make_producer(cluster, transactional_id="another")
    other.init_transactions()
    tx.begin_transaction()
    other.begin_transaction()
    send(tx, b"1")
    other.send("t", b"2").get(10)
    tx.abort_transaction()
    other.commit_transaction()
    assert committed(cluster) == [b"2"]


# ------------------------------------------------------------------------------- the coordinator's own abort


@pytest.mark.parametrize("then", ["commit", "send", "nothing"])
def test_a_producer_goes_on_after_the_coordinator_has_aborted_its_transaction(
    cluster: MockCluster, make_producer: MakeProducer, then: str, eventually: Eventually
) -> None:
    """transaction_timeout_ms (KIP-588)."""
    tx = make_producer(cluster, transactional_id="tx", transaction_timeout_ms=100)
    tx.init_transactions()
    tx.begin_transaction()
    send(tx, b"slow")
    tx.flush()
    before = len(cluster.batches("t"))
    eventually(lambda: len(cluster.batches("t")) > before)  # the abort marker
    if then == "send":
        send(tx, b"late")
    if then != "nothing":
        with pytest.raises(errors.TransactionAbortableError):
            tx.commit_transaction()
    tx.abort_transaction()
    for value in (b"1", b"2"):
        with tx.transaction():
            send(tx, value)
    assert committed(cluster) == [b"1", b"2"]
