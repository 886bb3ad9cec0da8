"""Two-phase commit (KIP-939) on the mock cluster, which keeps prepared transactions for successors."""

from __future__ import annotations

import asyncio

import pytest

from kprod import KafkaProducer, PreparedTxnState, errors
from kprod.aio import AsyncKafkaProducer
from kprod.testing import MockCluster
from tests.kafka.readers import read_confluent
from tests.mock.conftest import MakeCluster, MakeProducer


@pytest.fixture
def cluster(make_cluster: MakeCluster) -> MockCluster:
    """A mock cluster with two-phase commit and the topic ``t``."""
    made = make_cluster(two_phase_commit=True)
    made.create_topic("t")
    return made


def two_phase(make_producer: MakeProducer, cluster: MockCluster) -> KafkaProducer:
    return make_producer(cluster, transactional_id="tx", transaction_two_phase_commit_enable=True)


@pytest.fixture
def tx(cluster: MockCluster, make_producer: MakeProducer) -> KafkaProducer:
    """A producer that is ready for transactions of a two-phase commit."""
    producer = two_phase(make_producer, cluster)
    producer.init_transactions()
    return producer


def committed(cluster: MockCluster) -> list[bytes | None]:
    return [r.value for r in read_confluent(cluster.bootstrap_servers, "t", isolation="read_committed")]


def prepare(producer: KafkaProducer, *values: bytes) -> PreparedTxnState:
    producer.begin_transaction()
    for value in values:
        producer.send("t", value)
    return producer.prepare_transaction()


@pytest.mark.parametrize("transactional_id", [None, "tx"])
def test_without_the_option_version_6_is_not_used_where_it_is_offered(
    cluster: MockCluster, make_producer: MakeProducer, transactional_id: str | None
) -> None:
    producer = make_producer(cluster, transactional_id=transactional_id)
    if transactional_id is None:
        producer.send("t", b"1").get(30)
    else:
        producer.init_transactions()
        with producer.transaction():
            producer.send("t", b"1")
    asked = cluster.requests_of("InitProducerId")
    assert {request.version for request in asked} == {5}
    assert not any(request.body["enable2_pc"] or request.body["keep_prepared_txn"] for request in asked)


def test_what_is_asked_with_the_option(cluster: MockCluster, tx: KafkaProducer) -> None:
    (asked,) = cluster.requests_of("InitProducerId")
    assert asked.version == 6
    assert asked.body["enable2_pc"] is True and asked.body["keep_prepared_txn"] is False
    assert asked.body["transaction_timeout_ms"] == 2**31 - 1


def test_a_prepared_transaction_is_committed_or_aborted(cluster: MockCluster, tx: KafkaProducer) -> None:
    first = prepare(tx, b"1", b"2")
    assert cluster.count("t") == 2, "all is written"
    assert cluster.requests_of("EndTxn") == []
    assert committed(cluster) == []
    tx.complete_transaction(first)
    assert committed(cluster) == [b"1", b"2"]
    assert prepare(tx, b"3") != first
    tx.complete_transaction(first)
    assert committed(cluster) == [b"1", b"2"]
    prepare(tx, b"4")
    tx.commit_transaction()
    prepare(tx, b"5")
    tx.abort_transaction()
    assert committed(cluster) == [b"1", b"2", b"4"]


def test_offsets_are_prepared_with_the_records(cluster: MockCluster, tx: KafkaProducer) -> None:
    tx.begin_transaction()
    tx.send_offsets_to_transaction({("t", 0): 5}, "readers")
    prepared = tx.prepare_transaction()
    assert cluster.committed_offsets("readers") == {}
    tx.complete_transaction(str(prepared))
    assert cluster.committed_offsets("readers") == {("t", 0): 5}


def test_nothing_can_be_sent_or_begun_while_it_is_prepared(cluster: MockCluster, tx: KafkaProducer) -> None:
    prepared = prepare(tx, b"1")
    for call in (
        lambda: tx.send("t", b"2"),
        lambda: tx.send_many("t", [b"2"]),
        tx.begin_transaction,
        tx.prepare_transaction,
        lambda: tx.send_offsets_to_transaction({("t", 0): 1}, "g"),
        lambda: tx.init_transactions(keep_prepared_txn=True),
    ):
        with pytest.raises(errors.IllegalStateError, match="in a prepared transaction"):
            call()
    with pytest.raises(ValueError, match="must be 'producerId:epoch'"):
        tx.complete_transaction("nonsense")
    with pytest.raises(TypeError, match="keep what prepare_transaction"):
        tx.complete_transaction(None)  # type: ignore[arg-type]
    tx.complete_transaction(prepared)
    assert committed(cluster) == [b"1"]


def test_a_record_that_is_lost_cannot_be_prepared(cluster: MockCluster, tx: KafkaProducer) -> None:
    cluster.inject("Produce", "INVALID_RECORD")
    with pytest.raises(errors.TransactionAbortableError, match=r"prepare_transaction\(\) is not possible"):
        prepare(tx, b"1")
    tx.abort_transaction()
    tx.complete_transaction(prepare(tx, b"2"))
    assert committed(cluster) == [b"2"]


def test_preparing_goes_on_after_a_timeout(cluster: MockCluster, tx: KafkaProducer) -> None:
    refused = cluster.inject("Produce", "NOT_ENOUGH_REPLICAS", times=None)
    tx.begin_transaction()
    tx.send("t", b"1")
    with pytest.raises(errors.KafkaTimeoutError, match="call it again"):
        tx.prepare_transaction(timeout=0.05)
    with pytest.raises(errors.IllegalStateError, match="the producer is preparing"):
        tx.send("t", b"2")
    refused.remove()
    tx.complete_transaction(tx.prepare_transaction())
    assert committed(cluster) == [b"1"]


def test_preparing_that_timed_out_can_be_aborted(cluster: MockCluster, tx: KafkaProducer) -> None:
    refused = cluster.inject("Produce", "NOT_ENOUGH_REPLICAS", times=None)
    tx.begin_transaction()
    tx.send("t", b"1")
    with pytest.raises(errors.KafkaTimeoutError):
        tx.prepare_transaction(timeout=0.05)
    tx.abort_transaction()
    refused.remove()
    tx.complete_transaction(prepare(tx, b"2"))
    assert committed(cluster) == [b"2"]


@pytest.mark.parametrize(("right", "expected"), [(True, [b"1", b"next"]), (False, [b"next"])])
def test_a_successor_ends_what_was_prepared(
    cluster: MockCluster,
    tx: KafkaProducer,
    make_producer: MakeProducer,
    right: bool,
    expected: list[bytes],
) -> None:
    prepared = prepare(tx, b"1")
    tx.close()
    assert cluster.requests_of("EndTxn") == [], "close() leaves it open"
    successor = two_phase(make_producer, cluster)
    successor.init_transactions(keep_prepared_txn=True)
    with pytest.raises(errors.IllegalStateError, match="in a prepared transaction"):
        successor.begin_transaction()
    successor.complete_transaction(str(prepared) if right else "")
    with successor.transaction():
        successor.send("t", b"next")
    assert committed(cluster) == expected


def test_one_successor_after_the_other(
    cluster: MockCluster, tx: KafkaProducer, make_producer: MakeProducer
) -> None:
    prepared = prepare(tx, b"1")
    first, second = two_phase(make_producer, cluster), two_phase(make_producer, cluster)
    for successor in (first, second):
        successor.init_transactions(keep_prepared_txn=True)
    with pytest.raises(errors.ProducerFencedError):
        first.complete_transaction(prepared)
    assert committed(cluster) == []
    second.complete_transaction(prepared)
    assert committed(cluster) == [b"1"]


def test_a_successor_that_keeps_nothing_aborts(
    cluster: MockCluster, tx: KafkaProducer, make_producer: MakeProducer
) -> None:
    prepared = prepare(tx, b"1")
    successor = two_phase(make_producer, cluster)
    successor.init_transactions()
    with pytest.raises(errors.IllegalStateError, match=r"call prepare_transaction\(\) first"):
        successor.complete_transaction(prepared)
    assert committed(cluster) == []


def test_an_answer_that_was_lost(
    cluster: MockCluster, tx: KafkaProducer, make_producer: MakeProducer
) -> None:
    prepared = prepare(tx, b"1")
    cluster.inject("InitProducerId", close_connection="after")
    successor = two_phase(make_producer, cluster)
    successor.init_transactions(keep_prepared_txn=True)
    cluster.inject("EndTxn", close_connection="after")
    successor.complete_transaction(prepared)
    assert committed(cluster) == [b"1"]


def test_brokers_that_do_not_offer_it(make_cluster: MakeCluster, make_producer: MakeProducer) -> None:
    cluster = make_cluster()
    producer = two_phase(make_producer, cluster)
    with pytest.raises(errors.UnsupportedVersionError, match="needs InitProducerId version 6"):
        producer.init_transactions()
    assert cluster.requests_of("InitProducerId") == []


def test_brokers_that_have_it_off(make_cluster: MakeCluster, make_producer: MakeProducer) -> None:
    cluster = make_cluster()
    cluster.set_api_versions({"InitProducerId": (0, 6)})
    producer = two_phase(make_producer, cluster)
    with pytest.raises(errors.TransactionalIdAuthorizationFailedError, match=r"two\.phase\.commit\.enable"):
        producer.init_transactions()


def test_a_cluster_of_a_release_that_cannot_have_it() -> None:
    with pytest.raises(ValueError, match=r"two_phase_commit needs as_version '4\.1' or newer, not '4\.0'"):
        MockCluster(as_version="4.0", two_phase_commit=True)


async def _prepares(cluster: MockCluster) -> None:
    options = {"transactional_id": "tx", "transaction_two_phase_commit_enable": True}
    async with AsyncKafkaProducer(bootstrap_servers=cluster.bootstrap_servers, **options) as producer:
        await producer.init_transactions()
        await producer.begin_transaction()
        await producer.send("t", b"1")
        prepared = await producer.prepare_transaction()
    async with AsyncKafkaProducer(bootstrap_servers=cluster.bootstrap_servers, **options) as producer:
        await producer.init_transactions(keep_prepared_txn=True)
        await producer.complete_transaction(prepared)


def test_asyncio(cluster: MockCluster) -> None:
    asyncio.run(_prepares(cluster))
    assert committed(cluster) == [b"1"]
