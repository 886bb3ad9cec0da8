"""Transactions while coordinators move, brokers stop, and answers are lost.

Those whose commit succeeded are there once and wholly, and no others.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from kprod import KafkaProducer, errors
from kprod.testing import MockCluster
from tests.kafka.readers import read_confluent
from tests.mock.conftest import Eventually, MakeCluster, MakeProducer

RELEASES = {"v1": "3.9", "v2": "4.1"}


@pytest.fixture(params=RELEASES)
def cluster(make_cluster: MakeCluster, request: pytest.FixtureRequest) -> MockCluster:
    """Three brokers with the topic ``t`` of two partitions, in both versions of the protocol."""
    made = make_cluster(3, replication_factor=3, as_version=RELEASES[request.param])
    made.create_topic("t", 2)
    made.create_topic("in", 2)
    return made


@pytest.fixture
def tx(cluster: MockCluster, make_producer: MakeProducer) -> KafkaProducer:
    """A producer that is ready for transactions, and has done one."""
    producer = make_producer(cluster, transactional_id="tx", request_timeout_ms=300)
    producer.init_transactions()
    run(producer, b"first")
    return producer


def run(producer: KafkaProducer, value: bytes) -> None:
    """A transaction with a record in each partition, and offsets."""
    with producer.transaction():
        for partition in range(2):
            producer.send("t", value, partition=partition)
        producer.send_offsets_to_transaction({("in", 0): len(value)}, "readers")


def committed(cluster: MockCluster) -> list[bytes | None]:
    seen = read_confluent(cluster.bootstrap_servers, "t", isolation="read_committed")
    halves = [[r.value for r in seen if r.partition == partition] for partition in range(2)]
    assert halves[0] == halves[1], "half a transaction"
    return halves[0]


def coordinator(cluster: MockCluster) -> int:
    """The broker that the transactional requests go to."""
    return cluster.requests_of("EndTxn")[-1].node


REQUESTS = (
    "FindCoordinator",
    "InitProducerId",
    "AddPartitionsToTxn",
    "AddOffsetsToTxn",
    "TxnOffsetCommit",
    "EndTxn",
)
ONLY_V1 = ("AddPartitionsToTxn", "AddOffsetsToTxn")
TROUBLE: dict[str, dict[str, Any]] = {
    "COORDINATOR_LOAD_IN_PROGRESS": {"error": "COORDINATOR_LOAD_IN_PROGRESS"},
    "COORDINATOR_NOT_AVAILABLE": {"error": "COORDINATOR_NOT_AVAILABLE"},
    "NOT_COORDINATOR": {"error": "NOT_COORDINATOR"},
    "CONCURRENT_TRANSACTIONS": {"error": "CONCURRENT_TRANSACTIONS"},
    "connection closed before": {"close_connection": "before"},
    "connection closed after": {"close_connection": "after"},
    "connection closed in the response": {"close_connection": "mid_response"},
    "response dropped": {"drop_response": True},
    "slow": {"delay_ms": 100},
}


@pytest.mark.parametrize("trouble", TROUBLE)
def test_trouble_with_any_request_of_a_transaction_is_handled_inside(
    cluster: MockCluster, make_producer: MakeProducer, trouble: str, request: pytest.FixtureRequest
) -> None:
    times = 1 if trouble == "slow" else 2  # a request that is only slow is not repeated
    faults = {name: cluster.inject(name, times=times, **TROUBLE[trouble]) for name in REQUESTS}
    tx = make_producer(cluster, transactional_id="tx", request_timeout_ms=300)
    tx.init_transactions()
    for value in (b"1", b"22", b"333"):
        run(tx, value)
    is_v2 = "v2" in request.node.callspec.id
    expected = {name: 0 if is_v2 and name in ONLY_V1 else times for name in REQUESTS}
    assert {name: fault.hits for name, fault in faults.items()} == expected
    assert committed(cluster) == [b"1", b"22", b"333"]
    assert cluster.committed_offsets("readers") == {("in", 0): 3}


@pytest.mark.parametrize("applied", [False, True], ids=["refused", "applied"])
def test_a_commit_that_times_out_at_the_coordinator_is_repeated(
    cluster: MockCluster, tx: KafkaProducer, applied: bool
) -> None:
    fault = cluster.inject("EndTxn", "REQUEST_TIMED_OUT", applied=applied, times=2)
    run(tx, b"second")
    assert fault.hits == 2
    assert committed(cluster) == [b"first", b"second"]


@pytest.mark.parametrize("lost", ["EndTxn", "TxnOffsetCommit", "Produce"])
def test_an_abort_with_lost_answers(cluster: MockCluster, tx: KafkaProducer, lost: str) -> None:
    for fault in (
        {"close_connection": "after"},
        {"drop_response": True},
        {"close_connection": "mid_response"},
    ):
        cluster.inject(lost, **fault)
        tx.begin_transaction()
        for partition in range(2):
            tx.send("t", b"aborted", partition=partition)
        tx.send_offsets_to_transaction({("in", 0): 99}, "readers")
        tx.flush()
        tx.abort_transaction()
    run(tx, b"last")
    assert committed(cluster) == [b"first", b"last"]
    assert cluster.committed_offsets("readers") == {("in", 0): 4}


def test_offsets_whose_answer_was_lost_are_not_committed_with_the_next_transaction(
    cluster: MockCluster, tx: KafkaProducer
) -> None:
    """The transaction has nothing else, so only its end makes the coordinator drop them."""
    fault = cluster.inject("TxnOffsetCommit", drop_response=True, times=None)
    tx.begin_transaction()
    with pytest.raises(errors.KafkaTimeoutError):
        tx.send_offsets_to_transaction({("in", 1): 99}, "readers", timeout=0.2)
    assert fault.hits
    fault.remove()
    tx.abort_transaction()
    run(tx, b"next")
    assert cluster.committed_offsets("readers") == {("in", 0): 4}


@pytest.fixture(params=["init", "begin", "send", "flush", "offsets", "commit", "abort"])
def phase(request: pytest.FixtureRequest) -> str:
    """Before which call of a transaction something happens."""
    return str(request.param)


def steps(tx: KafkaProducer, value: bytes, end: str) -> Iterator[tuple[str, Callable[[], object]]]:
    yield "begin", tx.begin_transaction
    yield "send", lambda: [tx.send("t", value, partition=partition) for partition in range(2)]
    yield "flush", tx.flush
    yield "offsets", lambda: tx.send_offsets_to_transaction({("in", 0): len(value)}, "readers")
    yield end, getattr(tx, f"{end}_transaction")


@pytest.mark.parametrize("restart", [True, False], ids=["restarted", "stays away"])
def test_the_coordinator_is_stopped_in_each_phase(
    cluster: MockCluster, make_producer: MakeProducer, phase: str, restart: bool
) -> None:
    tx = make_producer(cluster, transactional_id="tx", request_timeout_ms=300)
    probe = make_producer(cluster, transactional_id="tx")
    probe.init_transactions()
    node = cluster.requests_of("InitProducerId")[-1].node
    probe.close()

    def stop() -> None:
        cluster.stop_broker(node)
        if restart:
            timer = threading.Timer(0.1, cluster.start_broker, [node])
            timer.start()

    if phase == "init":
        stop()
    tx.init_transactions()
    end = "abort" if phase == "abort" else "commit"
    for name, step in steps(tx, b"second", end):
        if name == phase:
            stop()
        step()
    run(tx, b"third")
    if not restart:
        cluster.start_broker(node)
    assert committed(cluster) == ([b"third"] if end == "abort" else [b"second", b"third"])


def test_the_coordinator_is_stopped_again_and_again(cluster: MockCluster, tx: KafkaProducer) -> None:
    expected = [b"first"]
    for number in range(6):
        node = coordinator(cluster)
        cluster.stop_broker(node)
        run(tx, b"%d" % number)
        cluster.start_broker(node)
        expected.append(b"%d" % number)
    assert committed(cluster) == expected


def test_metadata_drop_a_stopped_coordinator_before_its_request_has_its_turn(
    cluster: MockCluster, make_producer: MakeProducer
) -> None:
    """Then it looks like a broker that was never tried, and was waited for as long as the call lasted."""
    tx = make_producer(cluster, transactional_id="tx", metadata_max_age_ms=1, max_block_ms=10_000)
    tx.init_transactions()
    run(tx, b"first")
    tx.begin_transaction()
    for partition in range(2):
        tx.send("t", b"second", partition=partition)
    tx.flush()
    node = coordinator(cluster)
    cluster.stop_broker(node)
    tx.commit_transaction()
    cluster.start_broker(node)
    assert committed(cluster) == [b"first", b"second"]


def test_a_black_hole_in_place_of_the_coordinator(cluster: MockCluster, tx: KafkaProducer) -> None:
    tx.begin_transaction()
    for partition in range(2):
        tx.send("t", b"second", partition=partition)
    tx.flush()
    node = coordinator(cluster)
    cluster.set_unreachable(node)
    timer = threading.Timer(0.6, cluster.set_unreachable, [node, False])
    timer.start()
    tx.commit_transaction()
    timer.join()
    assert committed(cluster) == [b"first", b"second"]


def test_leaders_move_inside_a_transaction(cluster: MockCluster, tx: KafkaProducer) -> None:
    with tx.transaction():
        for partition in range(2):
            tx.send("t", b"second", partition=partition)
        tx.flush()
        for partition in range(2):
            cluster.move_leader("t", partition, cluster.leader("t", partition) % 3 + 1)
        for partition in range(2):
            tx.send("t", b"third", partition=partition)
    assert committed(cluster) == [b"first", b"second", b"third"]


@pytest.mark.parametrize("fault", ["NOT_ENOUGH_REPLICAS", "NOT_LEADER_OR_FOLLOWER", "REQUEST_TIMED_OUT"])
def test_retried_batches_are_in_the_transaction_once(
    cluster: MockCluster, tx: KafkaProducer, fault: str
) -> None:
    cluster.inject("Produce", fault, times=4, applied=fault == "REQUEST_TIMED_OUT")
    for number in range(3):
        run(tx, b"%d" % number)
    assert committed(cluster) == [b"first", b"0", b"1", b"2"]


@pytest.mark.parametrize("request_name", ["AddPartitionsToTxn", "AddOffsetsToTxn", "TxnOffsetCommit"])
@pytest.mark.parametrize(
    "error", ["TRANSACTION_ABORTABLE", "GROUP_AUTHORIZATION_FAILED", "INVALID_TXN_STATE"]
)
def test_a_refusal_inside_makes_the_transaction_abortable(
    make_cluster: MakeCluster, make_producer: MakeProducer, request_name: str, error: str
) -> None:
    cluster = make_cluster(3, replication_factor=3, as_version="3.9")
    cluster.create_topic("t", 2)
    cluster.create_topic("in", 2)
    tx = make_producer(cluster, transactional_id="tx")
    tx.init_transactions()
    cluster.inject(request_name, error)
    # A missing permission has its own name: to begin again would not help.
    denied = error == "GROUP_AUTHORIZATION_FAILED"
    kind = errors.GroupAuthorizationFailedError if denied else errors.TransactionAbortableError
    with pytest.raises(kind, match=r"call abort_transaction\(\)"):
        run(tx, b"lost")
    run(tx, b"1")
    assert committed(cluster) == [b"1"]
    assert cluster.committed_offsets("readers") == {("in", 0): 1}


def test_the_abort_asked_for_by_the_coordinator(cluster: MockCluster, tx: KafkaProducer) -> None:
    cluster.inject("EndTxn", "TRANSACTION_ABORTABLE")
    with pytest.raises(errors.TransactionAbortableError):
        run(tx, b"lost")
    run(tx, b"second")
    assert committed(cluster) == [b"first", b"second"]


def test_a_record_refused_as_of_another_producer_id_makes_the_transaction_abortable(
    cluster: MockCluster, tx: KafkaProducer
) -> None:
    """INVALID_PRODUCER_ID_MAPPING of a leader, which has asked the coordinator (KIP-890)."""
    cluster.inject("Produce", "INVALID_PRODUCER_ID_MAPPING")
    tx.begin_transaction()
    refused = tx.send("t", b"lost", partition=0)
    with pytest.raises(errors.InvalidProducerIdMappingError) as of_record:
        refused.get(10)
    assert of_record.value.persisted == "no"
    with pytest.raises(errors.TransactionAbortableError, match=r"call abort_transaction\(\)") as of_commit:
        tx.commit_transaction()
    assert isinstance(of_commit.value.__cause__, errors.InvalidProducerIdMappingError)
    tx.abort_transaction()
    run(tx, b"second")
    assert committed(cluster) == [b"first", b"second"]


def test_a_record_refused_as_of_another_producer_id_where_there_is_another_producer(
    cluster: MockCluster, tx: KafkaProducer, make_producer: MakeProducer
) -> None:
    tx.begin_transaction()
    for partition in range(2):
        tx.send("t", b"lost", partition=partition).get(10)
    successor = make_producer(cluster, transactional_id="tx")
    successor.init_transactions()
    cluster.inject("Produce", "INVALID_PRODUCER_ID_MAPPING")
    with pytest.raises(errors.InvalidProducerIdMappingError):
        tx.send("t", b"late", partition=0).get(10)
    with pytest.raises(errors.TransactionAbortableError):
        tx.commit_transaction()
    with pytest.raises(errors.ProducerFencedError):
        tx.abort_transaction()
    run(successor, b"second")
    assert committed(cluster) == [b"first", b"second"]


def test_init_may_be_called_again_when_it_was_not_allowed(
    cluster: MockCluster, make_producer: MakeProducer
) -> None:
    tx = make_producer(cluster, transactional_id="tx")
    for name in ("FindCoordinator", "InitProducerId"):
        cluster.inject(name, "TRANSACTIONAL_ID_AUTHORIZATION_FAILED")
        with pytest.raises(errors.TransactionalIdAuthorizationFailedError):
            tx.init_transactions()
    tx.init_transactions()
    run(tx, b"1")
    assert committed(cluster) == [b"1"]


def test_a_fatal_error_refuses_everything(cluster: MockCluster, tx: KafkaProducer) -> None:
    cluster.inject("EndTxn", "TRANSACTIONAL_ID_AUTHORIZATION_FAILED")
    with pytest.raises(errors.TransactionalIdAuthorizationFailedError):
        run(tx, b"lost")
    for call in (tx.begin_transaction, tx.commit_transaction, tx.abort_transaction):
        with pytest.raises(errors.TransactionalIdAuthorizationFailedError, match="close the producer"):
            call()
    tx.close()
    assert committed(cluster) == [b"first"]


def test_a_transaction_timeout_that_the_broker_does_not_allow(
    cluster: MockCluster, make_producer: MakeProducer
) -> None:
    tx = make_producer(cluster, transactional_id="tx", transaction_timeout_ms=1_000_000)
    with pytest.raises(errors.InvalidTransactionTimeoutError, match="transaction_timeout_ms"):
        tx.init_transactions()


# -- timeouts


@pytest.mark.parametrize("end", ["commit", "abort"])
def test_an_end_that_times_out_goes_on_with_the_same_call(
    cluster: MockCluster, tx: KafkaProducer, end: str
) -> None:
    fault = cluster.inject("EndTxn", "COORDINATOR_LOAD_IN_PROGRESS", times=None)
    tx.begin_transaction()
    for partition in range(2):
        tx.send("t", b"second", partition=partition)
    tx.flush()
    call = getattr(tx, f"{end}_transaction")
    for _ in range(2):
        with pytest.raises(errors.KafkaTimeoutError, match="call it again"):
            call(timeout=0.05)
    other = tx.abort_transaction if end == "commit" else tx.commit_transaction
    for refused in (tx.begin_transaction, other):
        with pytest.raises(errors.IllegalStateError, match="timed out and must be called again"):
            refused()
    fault.remove()
    call()
    run(tx, b"third")
    assert committed(cluster) == [b"first", *([b"second"] if end == "commit" else []), b"third"]


@pytest.mark.parametrize("end", ["commit", "abort"])
def test_the_outcome_of_an_end_that_came_after_its_timeout(
    cluster: MockCluster, tx: KafkaProducer, end: str, eventually: Eventually
) -> None:
    cluster.inject("EndTxn", delay_ms=150)
    tx.begin_transaction()
    for partition in range(2):
        tx.send("t", b"second", partition=partition)
    tx.flush()
    call = getattr(tx, f"{end}_transaction")
    with pytest.raises(errors.KafkaTimeoutError):
        call(timeout=0.05)

    def refused() -> str:
        with pytest.raises(errors.IllegalStateError) as caught:
            tx.send("t", b"refused")
        return str(caught.value)

    eventually(lambda: "begin_transaction() first" in refused())  # it has ended
    with pytest.raises(errors.IllegalStateError, match="must be called again"):
        tx.begin_transaction()
    call(timeout=0)
    run(tx, b"third")
    assert committed(cluster) == [b"first", *([b"second"] if end == "commit" else []), b"third"]


def test_init_that_times_out_and_succeeds_later(
    cluster: MockCluster, make_producer: MakeProducer, eventually: Eventually
) -> None:
    cluster.inject("InitProducerId", delay_ms=200)
    tx = make_producer(cluster, transactional_id="tx")
    with pytest.raises(errors.KafkaTimeoutError, match="init_transactions"):
        tx.init_transactions(timeout=0.05)
    with pytest.raises(errors.IllegalStateError):
        tx.begin_transaction()
    tx.init_transactions()
    run(tx, b"1")
    assert committed(cluster) == [b"1"]
    # And when nobody was waiting.
    late = make_producer(cluster, transactional_id="late")
    cluster.inject("InitProducerId", delay_ms=100)
    with pytest.raises(errors.KafkaTimeoutError):
        late.init_transactions(timeout=0.02)

    def told() -> bool:
        with pytest.raises(errors.IllegalStateError) as caught:
            late.send("t", b"refused")
        return "begin_transaction() first" in str(caught.value)

    eventually(told)
    late.init_transactions(timeout=0)
    run(late, b"2")


def test_a_commit_that_waits_for_records_times_out_too(cluster: MockCluster, tx: KafkaProducer) -> None:
    fault = cluster.inject("Produce", "NOT_ENOUGH_REPLICAS", times=None)
    tx.begin_transaction()
    for partition in range(2):
        tx.send("t", b"second", partition=partition)
    with pytest.raises(errors.KafkaTimeoutError, match="records are not decided"):
        tx.commit_transaction(timeout=0.1)
    assert len(cluster.requests_of("EndTxn")) == 1
    fault.remove()
    tx.commit_transaction()
    assert committed(cluster) == [b"first", b"second"]


def test_the_context_manager_leaves_a_commit_that_timed_out_alone(
    cluster: MockCluster, make_producer: MakeProducer
) -> None:
    tx = make_producer(cluster, transactional_id="tx", max_block_ms=300)
    tx.init_transactions()
    fault = cluster.inject("EndTxn", "COORDINATOR_LOAD_IN_PROGRESS", times=None)
    with pytest.raises(errors.KafkaTimeoutError):
        with tx.transaction():
            for partition in range(2):
                tx.send("t", b"1", partition=partition)
    fault.remove()
    tx.commit_transaction()
    assert committed(cluster) == [b"1"]


def test_close_goes_on_with_a_commit_that_timed_out(cluster: MockCluster, tx: KafkaProducer) -> None:
    fault = cluster.inject("EndTxn", "COORDINATOR_LOAD_IN_PROGRESS", times=None)
    tx.begin_transaction()
    for partition in range(2):
        tx.send("t", b"second", partition=partition)
    with pytest.raises(errors.KafkaTimeoutError):
        tx.commit_transaction(timeout=0.1)
    fault.remove()
    tx.close()
    assert committed(cluster) == [b"first", b"second"]


# -- protocol versions


def test_upgrade_and_downgrade_under_a_running_producer(
    make_cluster: MakeCluster, make_producer: MakeProducer
) -> None:
    cluster = make_cluster(3, replication_factor=3, as_version="3.9")
    cluster.create_topic("t", 2)
    cluster.create_topic("in", 2)
    tx = make_producer(cluster, transactional_id="tx")
    tx.init_transactions()
    expected: list[bytes] = []

    def some() -> None:
        for _ in range(3):
            value = b"%d" % len(expected)
            run(tx, value)
            expected.append(value)

    some()
    assert len(cluster.requests_of("AddPartitionsToTxn")) >= 3
    for release in ("4.1", "3.9", "4.1"):
        before = len(cluster.requests_of("AddPartitionsToTxn"))
        cluster.set_version(release)
        cluster.disconnect_clients()
        if release == "3.9":
            # The transaction in which a downgrade is noticed may have to be aborted.
            with contextlib.suppress(errors.TransactionAbortableError):
                run(tx, b"noticed")
                expected.append(b"noticed")
        some()
        added = len(cluster.requests_of("AddPartitionsToTxn")) - before
        # The transaction in which the change is noticed is the last one in the old version.
        assert added <= 1 if release == "4.1" else added >= 2
    assert committed(cluster) == expected
