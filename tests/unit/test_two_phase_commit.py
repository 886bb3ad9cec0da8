"""Two-phase commit (KIP-939): what names a prepared transaction, and the manager driven by hand."""

from __future__ import annotations

from typing import Any

import pytest

from kprod import KafkaProducer, PreparedTxnState, errors
from kprod.protocol import INIT_PRODUCER_ID, Body, ProtocolError, encode_request
from kprod.protocol.checks import check_response
from kprod.testing import MockProducer
from kprod.transactions.manager import GroupOffsets, Kind, Operation, Request, TransactionManager
from kprod.transactions.states import State

CODES = {entry.name: code for code, entry in errors.BROKER_ERRORS.items()}


# --- PreparedTxnState ------------------------------------------------


def test_the_text_of_a_prepared_transaction_is_javas() -> None:
    state = PreparedTxnState(1001, 7)
    assert str(state) == "1001:7"
    assert PreparedTxnState.parse("1001:7") == state
    assert hash(PreparedTxnState.parse("1001:7")) == hash(state)
    assert state.has_transaction
    assert PreparedTxnState(2**63 - 1, 2**15 - 1) == PreparedTxnState.parse("9223372036854775807:32767")


def test_no_transaction_is_an_empty_text() -> None:
    none = PreparedTxnState()
    assert (none.producer_id, none.epoch, str(none), none.has_transaction) == (-1, -1, "", False)
    assert PreparedTxnState.parse("") == none != PreparedTxnState(0, 0)


@pytest.mark.parametrize(
    "text", ["1", "1:", ":1", "1:2:3", "a:b", "-1:-1", "-1:0", " 1:2", "1:2\n", "1:32768"]
)
def test_what_is_not_the_text_of_a_state(text: str) -> None:
    with pytest.raises(ValueError, match="must be"):
        PreparedTxnState.parse(text)


def test_ids_that_no_transaction_has() -> None:
    for ids in ((-1, 0), (0, -1), (-2, -2), (2**63, 0), (0, 2**15)):
        with pytest.raises(ValueError, match="or both -1, not"):
            PreparedTxnState(*ids)
    with pytest.raises(TypeError, match="must be a str, not bytes"):
        PreparedTxnState.parse(b"1:2")  # type: ignore[arg-type]


# --- the wire ------------------------------------------------

REQUEST = {
    "transactional_id": "tx",
    "transaction_timeout_ms": 60_000,
    "producer_id": -1,
    "producer_epoch": -1,
}


def test_bytes_of_the_stable_version_have_nothing_of_two_phase_commit() -> None:
    stable = bytes.fromhex("0016 0005 00000009 0001 63 00  03 7478 0000ea60 ffffffffffffffff ffff 00")
    assert encode_request(INIT_PRODUCER_ID, 5, 9, "c", REQUEST)[4:] == stable
    extra = {"enable2_pc": True, "keep_prepared_txn": True}
    assert encode_request(INIT_PRODUCER_ID, 5, 9, "c", REQUEST | extra)[4:] == stable


def test_bytes_of_version_6() -> None:
    body = REQUEST | {"enable2_pc": True, "keep_prepared_txn": False}
    expected = bytes.fromhex("0016 0006 00000009 0001 63 00  03 7478 0000ea60 ffffffffffffffff ffff 01 00 00")
    assert encode_request(INIT_PRODUCER_ID, 6, 9, "c", body)[4:] == expected


def test_half_a_name_of_a_transaction_is_refused() -> None:
    body = {"error_code": 0, "producer_id": 1, "producer_epoch": 0}
    check_response(
        INIT_PRODUCER_ID, {}, {**body, "ongoing_txn_producer_id": -1, "ongoing_txn_producer_epoch": -1}
    )
    for ids in ((5, -1), (-1, 5), (-2, 0)):
        ongoing = dict(zip(("ongoing_txn_producer_id", "ongoing_txn_producer_epoch"), ids, strict=True))
        with pytest.raises(ProtocolError, match="an ongoing transaction"):
            check_response(INIT_PRODUCER_ID, {}, body | ongoing)


# --- the manager ------------------------------------------------


class Driver:
    """A manager with a coordinator that says yes."""

    def __init__(self, two_phase_commit: bool = True, v2: bool = True) -> None:
        self.manager = TransactionManager("tx", 2**31 - 1, lambda _: 0.1, two_phase_commit=two_phase_commit)
        self.manager.v2_offered = v2

    def request(self, name: str) -> Request:
        """What is sent next, which must be this; the look-ups of coordinators before it are answered."""
        request = self.manager.next_request(1.0)
        if request is not None and request.api.name == "FindCoordinator" != name:
            row = {"key": request.body["key"], "node_id": 1, "host": "h", "port": 1, "error_code": 0}
            self.answer(coordinators=[{**row, "error_message": None}])
            request = self.manager.next_request(1.0)
        assert request is not None and request.api.name == name
        return request

    def state(self) -> State:
        return self.manager.state

    def answer(self, **body: Any) -> None:
        self.manager.answered(body, "1 at h:1", 1.0)

    def has_id(self, ongoing: tuple[int, int] = (-1, -1), code: str | None = None) -> Request:
        request = self.request("InitProducerId")
        self.answer(
            error_code=CODES[code] if code else 0,
            producer_id=7,
            producer_epoch=3,
            ongoing_txn_producer_id=ongoing[0],
            ongoing_txn_producer_epoch=ongoing[1],
        )
        return request

    def in_transaction(self) -> Driver:
        self.manager.init()
        self.has_id()
        self.manager.begin(1.0)
        return self

    def prepared(self) -> Driver:
        self.in_transaction().manager.prepare()
        self.manager.end(True, False)
        assert self.state() is State.PREPARED
        return self

    def ends(self) -> Body:
        """Ask for the end, and be answered."""
        self.manager.end(True, False)
        request = self.request("EndTxn")
        self.answer(error_code=0, producer_id=7, producer_epoch=4)
        return request.body


def test_without_the_option_the_request_is_what_it_was() -> None:
    driver = Driver(two_phase_commit=False)
    driver.manager.init()
    request = driver.has_id()
    assert request.at_most == 5
    assert set(request.body) == {
        "transactional_id", "transaction_timeout_ms", "producer_id", "producer_epoch"
    }  # fmt: skip


def test_with_the_option_it_is_version_6() -> None:
    driver = Driver()
    driver.manager.init()
    request = driver.has_id()
    assert (request.at_most, request.at_least) == (6, 6)
    assert (request.body["enable2_pc"], request.body["keep_prepared_txn"]) == (True, False)
    assert request.body["transaction_timeout_ms"] == 2**31 - 1


@pytest.mark.parametrize("call", ["prepare", "init(keep_prepared)"])
def test_what_needs_the_option(call: str) -> None:
    driver = Driver(two_phase_commit=False)
    if call == "prepare":
        driver.in_transaction()
    with pytest.raises(
        errors.IllegalStateError, match="needs the option transaction_two_phase_commit_enable"
    ):
        driver.manager.prepare() if call == "prepare" else driver.manager.init(keep_prepared=True)


def test_a_broker_without_version_6_is_named_with_what_it_needs() -> None:
    driver = Driver()
    operation = driver.manager.init()
    driver.manager.unsupported(driver.request("InitProducerId"), "1 at kafka:9092")
    assert isinstance(operation.error, errors.UnsupportedVersionError)
    said = str(operation.error)
    for words in (
        "transaction_two_phase_commit_enable=True", "InitProducerId version 6", "1 at kafka:9092",
        "unstable.api.versions.enable=true", "transaction.two.phase.commit.enable=true",
    ):  # fmt: skip
        assert words in said
    assert driver.state() is State.FATAL_ERROR


def test_a_broker_that_has_it_off_or_lacks_a_permission() -> None:
    driver = Driver()
    operation = driver.manager.init()
    driver.has_id(code="TRANSACTIONAL_ID_AUTHORIZATION_FAILED")
    assert isinstance(operation.error, errors.TransactionalIdAuthorizationFailedError)
    assert "brokers with transaction.two.phase.commit.enable=true" in str(operation.error)
    assert "TwoPhaseCommit" in str(operation.error)
    assert driver.state() is State.UNINITIALIZED


def test_a_broker_that_cannot_keep_a_prepared_transaction() -> None:
    driver = Driver()
    operation = driver.manager.init(keep_prepared=True)
    assert driver.has_id(code="UNSUPPORTED_VERSION").body["keep_prepared_txn"] is True
    assert isinstance(operation.error, errors.UnsupportedVersionError)
    assert "init_transactions(keep_prepared_txn=True) was refused" in str(operation.error)
    assert driver.state() is State.UNINITIALIZED, "the application may abort it after all"
    driver.manager.init()
    assert driver.has_id().body["keep_prepared_txn"] is False
    assert driver.state() is State.READY


@pytest.mark.parametrize("v2", [False, True], ids=["v1", "v2"])
def test_the_state_that_was_returned_commits(v2: bool) -> None:
    driver = Driver(v2=v2).prepared()
    assert driver.manager.prepared == PreparedTxnState(7, 3)
    operation = driver.manager.complete(PreparedTxnState.parse("7:3"))
    assert driver.ends()["committed"] is True
    assert operation.kind is Kind.COMMIT and operation.done and operation.error is None


@pytest.mark.parametrize("text", ["", "7:2", "8:3"])
def test_another_state_aborts(text: str) -> None:
    driver = Driver().prepared()
    operation = driver.manager.complete(PreparedTxnState.parse(text))
    assert driver.ends()["committed"] is False
    assert operation.kind is Kind.ABORT and operation.done


def test_what_is_refused_while_it_is_prepared() -> None:
    manager = Driver().prepared().manager
    offsets = GroupOffsets(Operation(Kind.OFFSETS), "g", -1, "", None, {("in", 0): (1, -1, None)})
    for call in (
        lambda: manager.begin(1.0),
        manager.prepare,
        lambda: manager.send_offsets(offsets),
        manager.init,
    ):
        with pytest.raises(errors.IllegalStateError, match="the producer is in a prepared transaction"):
            call()
    refused = manager.no_transaction()
    assert isinstance(refused, errors.IllegalStateError) and "complete_transaction()" in str(refused)


def test_nothing_is_prepared_before_offsets_are_written() -> None:
    driver = Driver().in_transaction()
    offsets = GroupOffsets(Operation(Kind.OFFSETS), "g", -1, "", None, {("in", 0): (1, -1, None)})
    driver.manager.send_offsets(offsets)
    operation = driver.manager.prepare()
    driver.manager.end(False, False)
    assert not operation.done and driver.state() is State.PREPARING
    driver.request("TxnOffsetCommit")
    row = {"name": "in", "partitions": [{"partition_index": 0, "error_code": 0}]}
    driver.answer(topics=[row])
    assert operation.done and driver.state() is State.PREPARED


def test_a_transaction_that_lost_a_record_cannot_be_prepared() -> None:
    driver = Driver().in_transaction()
    operation = driver.manager.prepare()
    driver.manager.batch_failed(10, errors.MessageSizeTooLargeError("too large"))
    assert isinstance(operation.error, errors.TransactionAbortableError)
    assert "prepare_transaction() is not possible" in str(operation.error)
    with pytest.raises(errors.TransactionAbortableError, match="prepare_transaction"):
        driver.manager.prepare()
    driver.manager.abort()


@pytest.mark.parametrize("is_prepared", [False, True])
def test_preparing_that_timed_out_can_be_gone_on_with_or_aborted(is_prepared: bool) -> None:
    for then in ("prepare", "abort"):
        driver = Driver().in_transaction()
        operation = driver.manager.prepare()
        operation.abandoned = True
        if is_prepared:
            driver.manager.end(True, False)
        with pytest.raises(errors.IllegalStateError, match=r"prepare_transaction\(\) timed out and must be"):
            driver.manager.commit()
        if then == "prepare":
            assert driver.manager.prepare() is operation
            driver.manager.end(True, False)
            assert operation.done and driver.state() is State.PREPARED
        else:
            driver.manager.abort()
            assert driver.ends()["committed"] is False


def test_nothing_to_complete() -> None:
    driver = Driver().in_transaction()
    with pytest.raises(errors.IllegalStateError, match=r"call prepare_transaction\(\) first"):
        driver.manager.complete(PreparedTxnState(7, 3))
    driver = Driver().prepared()
    driver.manager.complete(PreparedTxnState())
    driver.ends()
    driver.manager.begin(1.0)
    with pytest.raises(errors.IllegalStateError, match=r"call prepare_transaction\(\) first"):
        driver.manager.complete(PreparedTxnState(7, 3))


def test_completing_that_timed_out_gives_its_outcome_to_the_same_call() -> None:
    driver = Driver().prepared()
    state = PreparedTxnState(7, 3)
    operation = driver.manager.complete(state)
    operation.abandoned = True
    with pytest.raises(errors.IllegalStateError, match="timed out and must be called again"):
        driver.manager.complete(PreparedTxnState())
    driver.ends()
    assert driver.manager.complete(state) is operation and operation.done
    assert driver.state() is State.READY


@pytest.mark.parametrize("v2", [False, True], ids=["v1", "v2"])
@pytest.mark.parametrize(("text", "committed"), [("7:2", True), ("7:3", False), ("", False)])
def test_a_successor_ends_what_it_has_kept(text: str, committed: bool, v2: bool) -> None:
    driver = Driver(v2=v2)
    driver.manager.init(keep_prepared=True)
    driver.has_id(ongoing=(7, 2))
    assert driver.state() is State.PREPARED
    assert str(driver.manager.prepared) == "7:2"
    driver.manager.complete(PreparedTxnState.parse(text))
    driver.manager.end(False, False)
    body = driver.request("EndTxn").body
    assert (body["producer_id"], body["producer_epoch"], body["committed"]) == (7, 3, committed)
    driver.answer(error_code=0, producer_id=7, producer_epoch=4)
    assert driver.state() is State.READY


def test_there_may_be_nothing_to_keep() -> None:
    driver = Driver()
    driver.manager.init(keep_prepared=True)
    driver.has_id()
    assert driver.state() is State.READY and driver.manager.prepared is None


def test_an_init_that_timed_out_is_gone_on_with_as_it_was() -> None:
    driver = Driver()
    operation = driver.manager.init(keep_prepared=True)
    operation.abandoned = True
    with pytest.raises(errors.IllegalStateError, match="the one that timed out, with keep_prepared_txn=True"):
        driver.manager.init()
    assert driver.manager.init(keep_prepared=True) is operation


# --- options, and MockProducer ------------------------------------------------


def test_the_option_and_a_timeout_contradict_each_other() -> None:
    with pytest.raises(errors.KafkaConfigurationError, match="transaction_timeout_ms contradicts"):
        KafkaProducer(
            transactional_id="t", transaction_two_phase_commit_enable=True, transaction_timeout_ms=60_000
        )


def mock_producer() -> MockProducer:
    return MockProducer(transactional_id="tx", transaction_two_phase_commit_enable=True)


def test_mock_producer_prepares_and_completes() -> None:
    producer = mock_producer()
    producer.init_transactions()
    producer.begin_transaction()
    producer.send("t", b"1")
    state = producer.prepare_transaction()
    with pytest.raises(errors.IllegalStateError, match="in a prepared transaction"):
        producer.send("t", b"2")
    producer.complete_transaction(str(state))
    producer.begin_transaction()
    producer.send("t", b"3")
    assert producer.prepare_transaction() != state
    producer.complete_transaction(state)
    assert [record.value for record in producer.committed()] == [b"1"]
    with pytest.raises(errors.IllegalStateError, match="complete_transaction"):
        producer.complete_transaction(state)


def test_mock_producer_keeps_what_was_prepared_before() -> None:
    producer = mock_producer()
    producer.prepared_before("1001:4")
    producer.init_transactions(keep_prepared_txn=True)
    producer.complete_transaction("1001:4")
    assert producer.commit_count == 1
    plain = MockProducer(transactional_id="tx")
    with pytest.raises(errors.IllegalStateError, match="needs the option"):
        plain.init_transactions(keep_prepared_txn=True)
