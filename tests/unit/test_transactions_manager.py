"""The transaction manager, driven by hand: what it sends, and what each answer makes of it.

The table of errors is that of the Java client's TransactionManager (4.4), except where an error need not mean
fencing: there the manager asks the coordinator before it gives up (KIP-360, KIP-588).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from kprod import errors
from kprod.protocol import Body
from kprod.transactions.manager import (
    FIRST_CONCURRENT_BACKOFF_S,
    FIRST_VERDICT_PAUSE_S,
    LAST_VERDICT_PAUSE_S,
    LOOK_AGAIN_S,
    Effect,
    GroupOffsets,
    Kind,
    Operation,
    Request,
    TransactionManager,
)
from kprod.transactions.states import TRANSITIONS, State, may_follow

PAUSE = 0.125
CODES = {entry.name: code for code, entry in errors.BROKER_ERRORS.items()}
TXN = (1, "tx")
GROUP = (0, "readers")


def pause(failures: int) -> float:
    return PAUSE * failures


def answer_to(request: Request, code: int = 0, **more: Any) -> Body:
    """The answer a broker gives to a request, with the same code everywhere."""
    name = request.api.name
    if name == "FindCoordinator":
        row = {"node_id": 1, "host": "h", "port": 9092, "error_code": code, "error_message": None}
        return {"coordinators": [{"key": request.body["key"], **row}]}
    if name == "AddPartitionsToTxn":
        return {
            "results_by_topic": [
                {
                    "name": topic["name"],
                    "results_by_partition": [
                        {"partition_index": p, "partition_error_code": code} for p in topic["partitions"]
                    ],
                }
                for topic in request.body["topics"]
            ]
        }
    if name == "TxnOffsetCommit":
        return {
            "topics": [
                {
                    "name": topic["name"],
                    "partitions": [
                        {"partition_index": p["partition_index"], "error_code": code}
                        for p in topic["partitions"]
                    ],
                }
                for topic in request.body["topics"]
            ]
        }
    if name == "InitProducerId":
        return {"error_code": code, "producer_id": 7, "producer_epoch": 0, **more}
    return {"error_code": code, "producer_id": -1, "producer_epoch": -1, **more}


class Driver:
    """A manager with its clock, and an epoch that grows as the coordinator's does."""

    def __init__(self, v2: bool = False) -> None:
        self.manager = TransactionManager("tx", 60_000, pause)
        self.manager.v2_offered = v2
        self.now = 1000.0
        self.epoch = 0

    def state(self) -> State:
        return self.manager.state

    def request(self, name: str) -> Request:
        """What is sent next, which must be this."""
        request = self.manager.next_request(self.now)
        assert request is not None, f"nothing is sent, {name} was expected"
        assert request.api.name == name
        assert self.manager.next_request(self.now + 1000) is None, "two requests under way"
        return request

    def idle(self) -> bool:
        """Whether nothing is to be sent, now or later."""
        return self.manager.wake_at() is None and self.manager.next_request(self.now + 1000) is None

    def reply(self, request: Request, code: int | str = 0, **more: Any) -> None:
        number = CODES[code] if isinstance(code, str) else code
        if request.api.name == "InitProducerId" and not number and "producer_epoch" not in more:
            more["producer_epoch"] = self.epoch
            self.epoch += 1
        if request.api.name == "EndTxn" and not number and self.manager.v2 and "producer_epoch" not in more:
            more.update(producer_id=7, producer_epoch=self.epoch)
            self.epoch += 1
        self.manager.answered(answer_to(request, number, **more), "1 at h:9092", self.now)

    def step(self, name: str, code: int | str = 0, **more: Any) -> Request:
        """The next request must be `name` and gets an answer with this code."""
        request = self.request(name)
        self.reply(request, code, **more)
        return request

    def sleep(self) -> float:
        """Let time pass until something can be sent; how long that was."""
        at = self.manager.wake_at()
        assert at is not None
        waited = max(0.0, at - self.now)
        self.now += waited
        return waited

    def ready(self) -> Driver:
        operation = self.manager.init()
        self.step("FindCoordinator")
        self.step("InitProducerId")
        assert operation.done and operation.error is None
        assert self.state() is State.READY
        self.manager.effects.clear()
        return self

    def begun(self) -> Driver:
        """In a transaction that has lasted so long that the coordinator may have aborted it."""
        self.ready().manager.begin(self.now)
        self.now += 60.0
        return self

    def with_partition(self, topic: str = "t", partition: int = 0) -> Driver:
        """In a transaction that the coordinator knows of."""
        self.begun()
        if not self.manager.v2:
            self.manager.add_partition(topic, partition)
            self.step("AddPartitionsToTxn")
        return self

    def offsets(self, *places: tuple[str, int], group: str = "readers", **fields: Any) -> Operation:
        rows: dict[tuple[str, int], tuple[int, int, str | None]] = dict.fromkeys(
            places or (("in", 0),), (10, -1, None)
        )
        named: dict[str, Any] = {"generation": -1, "member_id": "", "instance_id": None, **fields}
        return self.manager.send_offsets(GroupOffsets(Operation(Kind.OFFSETS), group, offsets=rows, **named))

    def take_effects(self) -> list[Effect]:
        found = [effect for effect, _ in self.manager.effects]
        self.manager.effects.clear()
        return found

    def commit(self, batches_sent: bool = True, sequence_lost: bool = False) -> Operation:
        operation = self.manager.commit()
        self.manager.end(batches_sent, sequence_lost)
        return operation

    def abort(self, batches_sent: bool = True, sequence_lost: bool = False) -> Operation:
        operation = self.manager.abort()
        self.manager.end(batches_sent, sequence_lost)
        return operation


both = pytest.mark.parametrize("v2", [False, True], ids=["v1", "v2"])


# ---------------------------------------------------------------------------------------- the table of states


def test_every_state_can_be_reached_and_left_except_the_last() -> None:
    reachable = {State.UNINITIALIZED}
    while True:
        more = {following for state in reachable for following in TRANSITIONS[state]} - reachable
        if not more:
            break
        reachable |= more
    assert reachable == set(State) == set(TRANSITIONS)
    assert [state for state in State if not TRANSITIONS[state]] == [State.FATAL_ERROR]
    assert all(may_follow(state, State.FATAL_ERROR) for state in State if state is not State.FATAL_ERROR)
    assert not may_follow(State.READY, State.COMMITTING)


def test_a_transition_that_the_table_does_not_have_is_a_bug_and_changes_nothing() -> None:
    driver = Driver().ready()
    with pytest.raises(AssertionError, match="no transition"):
        driver.manager._go(State.COMMITTING)
    assert driver.state() is State.READY


# ---------------------------------------------------------------------------------------- the table of errors


def at_find_transaction_coordinator(v2: bool) -> Driver:
    driver = Driver(v2).with_partition()
    driver.manager.coordinators.clear()
    driver.commit()
    return driver


def at_find_coordinator_for_init(v2: bool) -> Driver:
    driver = Driver(v2)
    driver.manager.init()
    return driver


def at_find_group_coordinator(v2: bool) -> Driver:
    driver = Driver(v2).with_partition()
    driver.offsets()
    if not v2:
        driver.step("AddOffsetsToTxn")
    return driver


def at_init(v2: bool) -> Driver:
    driver = at_find_coordinator_for_init(v2)
    driver.step("FindCoordinator")
    return driver


def at_add_partitions(v2: bool) -> Driver:
    driver = Driver(v2).begun()
    driver.manager.add_partition("t", 0)
    return driver


def at_add_offsets(v2: bool) -> Driver:
    driver = Driver(v2).begun()
    driver.offsets()
    return driver


def at_offset_commit(v2: bool) -> Driver:
    driver = at_find_group_coordinator(v2)
    driver.step("FindCoordinator")
    return driver


def at_commit(v2: bool) -> Driver:
    driver = Driver(v2).with_partition()
    driver.commit()
    return driver


def at_abort(v2: bool) -> Driver:
    driver = Driver(v2).with_partition()
    driver.abort()
    return driver


Start = Callable[[bool], Driver]
AGAIN, LOOK_UP, ABORTABLE, FATAL, UNINITIALIZED, ASK, DOUBT = (
    "again",
    "look up",
    "abort",
    "fatal",
    "init again",
    "ask",
    "ask when the records are decided",
)
"""What is done: the request is repeated; its coordinator is looked up first; the transaction must be aborted;
the producer has ended; init_transactions() may be called again; the coordinator is asked if this is fencing.
"""

STARTS: dict[str, tuple[str, Start, tuple[int, str] | None]] = {
    "FindCoordinator": ("FindCoordinator", at_find_transaction_coordinator, None),
    "FindCoordinator for init": ("FindCoordinator", at_find_coordinator_for_init, None),
    "FindCoordinator of a group": ("FindCoordinator", at_find_group_coordinator, None),
    "InitProducerId": ("InitProducerId", at_init, TXN),
    "AddPartitionsToTxn": ("AddPartitionsToTxn", at_add_partitions, TXN),
    "AddOffsetsToTxn": ("AddOffsetsToTxn", at_add_offsets, TXN),
    "TxnOffsetCommit": ("TxnOffsetCommit", at_offset_commit, GROUP),
    "EndTxn commit": ("EndTxn", at_commit, TXN),
    "EndTxn abort": ("EndTxn", at_abort, TXN),
}
ONLY_V1 = {"AddPartitionsToTxn", "AddOffsetsToTxn"}

ANYWHERE = {
    "COORDINATOR_LOAD_IN_PROGRESS": AGAIN,
    "CONCURRENT_TRANSACTIONS": AGAIN,
    "UNKNOWN_TOPIC_OR_PARTITION": AGAIN,
    "NOT_ENOUGH_REPLICAS": AGAIN,
}
FENCED = ("INVALID_PRODUCER_EPOCH", "PRODUCER_FENCED")
PERHAPS_FENCED = (
    *FENCED,
    "INVALID_TXN_STATE",
    "INVALID_PRODUCER_ID_MAPPING",
    "UNKNOWN_PRODUCER_ID",
)
LOST = {"COORDINATOR_NOT_AVAILABLE": LOOK_UP, "NOT_COORDINATOR": LOOK_UP}
TABLE: dict[str, dict[str, str]] = {
    "FindCoordinator": {
        **ANYWHERE,
        "COORDINATOR_NOT_AVAILABLE": AGAIN,
        "REQUEST_TIMED_OUT": AGAIN,
        "TRANSACTIONAL_ID_AUTHORIZATION_FAILED": FATAL,
        "INVALID_REQUEST": FATAL,
    },
    "FindCoordinator for init": {
        **ANYWHERE,
        "COORDINATOR_NOT_AVAILABLE": AGAIN,
        "TRANSACTIONAL_ID_AUTHORIZATION_FAILED": UNINITIALIZED,
        "CLUSTER_AUTHORIZATION_FAILED": UNINITIALIZED,
        "INVALID_REQUEST": FATAL,
    },
    "FindCoordinator of a group": {
        **ANYWHERE,
        "COORDINATOR_NOT_AVAILABLE": AGAIN,
        "GROUP_AUTHORIZATION_FAILED": ABORTABLE,
        "TRANSACTION_ABORTABLE": ABORTABLE,
        "INVALID_GROUP_ID": ABORTABLE,
    },
    "InitProducerId": {
        **ANYWHERE,
        **LOST,
        "REQUEST_TIMED_OUT": AGAIN,
        "INVALID_PRODUCER_EPOCH": FATAL,
        "PRODUCER_FENCED": FATAL,
        "TRANSACTIONAL_ID_AUTHORIZATION_FAILED": UNINITIALIZED,
        "CLUSTER_AUTHORIZATION_FAILED": UNINITIALIZED,
        "TRANSACTION_ABORTABLE": UNINITIALIZED,
        "INVALID_TRANSACTION_TIMEOUT": FATAL,
        "INVALID_TXN_STATE": FATAL,
        "INVALID_PRODUCER_ID_MAPPING": FATAL,
        "UNKNOWN_PRODUCER_ID": FATAL,
        "UNSUPPORTED_VERSION": FATAL,
        "UNKNOWN_SERVER_ERROR": FATAL,
    },
    "AddPartitionsToTxn": {
        **ANYWHERE,
        **LOST,
        "REQUEST_TIMED_OUT": AGAIN,
        **dict.fromkeys(PERHAPS_FENCED, ABORTABLE),
        **dict.fromkeys(FENCED, DOUBT),
        "TRANSACTIONAL_ID_AUTHORIZATION_FAILED": FATAL,
        "TOPIC_AUTHORIZATION_FAILED": ABORTABLE,
        "OPERATION_NOT_ATTEMPTED": ABORTABLE,
        "TRANSACTION_ABORTABLE": ABORTABLE,
        "UNKNOWN_SERVER_ERROR": ABORTABLE,
    },
    "AddOffsetsToTxn": {
        **ANYWHERE,
        **LOST,
        "REQUEST_TIMED_OUT": AGAIN,
        **dict.fromkeys(PERHAPS_FENCED, ABORTABLE),
        **dict.fromkeys(FENCED, DOUBT),
        "TRANSACTIONAL_ID_AUTHORIZATION_FAILED": FATAL,
        "GROUP_AUTHORIZATION_FAILED": ABORTABLE,
        "TRANSACTION_ABORTABLE": ABORTABLE,
    },
    "TxnOffsetCommit": {
        **ANYWHERE,
        **LOST,
        "REQUEST_TIMED_OUT": LOOK_UP,
        **dict.fromkeys(PERHAPS_FENCED, ABORTABLE),
        **dict.fromkeys(FENCED, DOUBT),
        "TRANSACTIONAL_ID_AUTHORIZATION_FAILED": FATAL,
        "GROUP_AUTHORIZATION_FAILED": ABORTABLE,
        "TOPIC_AUTHORIZATION_FAILED": ABORTABLE,
        "FENCED_INSTANCE_ID": ABORTABLE,
        "UNKNOWN_MEMBER_ID": ABORTABLE,
        "ILLEGAL_GENERATION": ABORTABLE,
        "GROUP_ID_NOT_FOUND": ABORTABLE,
        "STALE_MEMBER_EPOCH": ABORTABLE,
        "UNSUPPORTED_FOR_MESSAGE_FORMAT": ABORTABLE,
        "OFFSET_METADATA_TOO_LARGE": ABORTABLE,
        "TRANSACTION_ABORTABLE": ABORTABLE,
    },
    "EndTxn commit": {
        **ANYWHERE,
        **LOST,
        "REQUEST_TIMED_OUT": AGAIN,
        **dict.fromkeys(PERHAPS_FENCED, ASK),
        "TRANSACTIONAL_ID_AUTHORIZATION_FAILED": FATAL,
        "TRANSACTION_ABORTABLE": ABORTABLE,
        "UNKNOWN_SERVER_ERROR": FATAL,
    },
    "EndTxn abort": {
        **ANYWHERE,
        **LOST,
        "REQUEST_TIMED_OUT": AGAIN,
        **dict.fromkeys(PERHAPS_FENCED, ASK),
        "TRANSACTIONAL_ID_AUTHORIZATION_FAILED": FATAL,
        "TRANSACTION_ABORTABLE": FATAL,
        "UNKNOWN_SERVER_ERROR": FATAL,
    },
}
# Where the coordinator is was the question.
TABLE["FindCoordinator"]["NOT_COORDINATOR"] = AGAIN


def cases() -> list[Any]:
    return [
        pytest.param(where, error, outcome, v2, id=f"{where}-{error}-v{1 + v2}")
        for where, rows in TABLE.items()
        for error, outcome in rows.items()
        for v2 in (False, True)
        if not (v2 and where in ONLY_V1)
    ]


@pytest.mark.parametrize(("where", "error", "outcome", "v2"), cases())
def test_the_table_of_errors(where: str, error: str, outcome: str, v2: bool) -> None:
    name, start, coordinator = STARTS[where]
    driver = start(v2)
    before = driver.state()
    driver.take_effects()
    request = driver.step(name, error)
    assert request.to == coordinator
    effects = driver.take_effects()
    if outcome in (AGAIN, LOOK_UP):
        assert driver.state() is before
        assert effects == []
        assert driver.manager.next_request(driver.now) is None, "no pause"
        first_concurrent = name == "AddPartitionsToTxn" and error == "CONCURRENT_TRANSACTIONS"
        assert driver.sleep() == pytest.approx(FIRST_CONCURRENT_BACKOFF_S if first_concurrent else PAUSE)
        if outcome is LOOK_UP:
            looked_up = driver.step("FindCoordinator")
            assert coordinator is not None
            assert (looked_up.body["key_type"], looked_up.body["key"]) == coordinator
        assert driver.request(name).body == request.body
    elif outcome is ABORTABLE:
        assert driver.state() is State.ABORTABLE_ERROR
        assert type(driver.manager.error) is errors.for_code(CODES[error]) or isinstance(
            driver.manager.error, errors.CommitFailedError
        )
        assert effects == [Effect.CLOSE, Effect.FAIL_QUEUED]
        assert driver.idle()
        with pytest.raises(errors.KafkaError, match="abort_transaction"):
            driver.manager.commit()
        assert not driver.abort().done
    elif outcome is FATAL:
        assert driver.state() is State.FATAL_ERROR
        assert effects == [Effect.FATAL]
        assert driver.idle()
    elif outcome is UNINITIALIZED:
        assert driver.state() is State.UNINITIALIZED
        assert effects == []
        assert driver.idle()
        assert not driver.manager.init().done
        assert driver.state() is State.INITIALIZING
    elif outcome is DOUBT:
        assert driver.state() is State.ABORTABLE_ERROR
        assert effects == [Effect.CLOSE, Effect.FAIL_QUEUED]
        assert driver.idle(), "records are not decided yet"
        operation = driver.manager.commit()
        driver.manager.records_decided()
        asked = driver.step("InitProducerId", "PRODUCER_FENCED")
        assert asked.body["producer_id"] == 7
        if not operation.done:
            driver.step("InitProducerId", "PRODUCER_FENCED")
        assert isinstance(operation.error, errors.ProducerFencedError)
    else:
        assert outcome is ASK
        assert driver.state() is before
        asked = driver.request("InitProducerId")
        assert (asked.body["producer_id"], asked.body["producer_epoch"]) == (7, 0)
        assert asked.at_least == 3, "before version 3 the request cannot tell who asks"


everywhere = pytest.mark.parametrize(
    ("where", "v2"),
    [
        pytest.param(where, v2, id=f"{where}-v{1 + v2}")
        for where in STARTS
        for v2 in (False, True)
        if not (v2 and where in ONLY_V1)
    ],
)


@everywhere
def test_no_error_code_of_kafka_leaves_the_manager_stuck(where: str, v2: bool) -> None:
    name, start, _ = STARTS[where]
    for code in sorted(errors.BROKER_ERRORS):
        if code == 0:
            continue
        driver = start(v2)
        before = driver.state()
        driver.step(name, code)
        if driver.state() is before:
            # It goes on by itself: the same request again, or a question that settles it.
            driver.sleep()
            following = driver.manager.next_request(driver.now)
            assert following is not None, code
            assert following.api.name in {name, "FindCoordinator", "InitProducerId"}, code
            if following.api.name == name:
                assert errors.for_code(code).retriable, code
        else:
            assert driver.state() in (State.ABORTABLE_ERROR, State.FATAL_ERROR, State.UNINITIALIZED), code
            assert driver.idle(), code


@both
def test_an_unknown_error_code_is_not_retried_for_ever(v2: bool) -> None:
    driver = at_commit(v2)
    driver.step("EndTxn", 9999)
    assert driver.state() is State.FATAL_ERROR


@both
def test_after_a_fatal_error_everything_refuses_and_names_the_reason(v2: bool) -> None:
    driver = at_commit(v2)
    driver.step("EndTxn", "PRODUCER_FENCED")
    driver.step("InitProducerId", "PRODUCER_FENCED")
    if not v2:
        driver.step("InitProducerId", "PRODUCER_FENCED")
    assert driver.state() is State.FATAL_ERROR
    manager = driver.manager
    for call in (
        manager.init,
        lambda: manager.begin(driver.now),
        manager.commit,
        manager.abort,
        driver.offsets,
    ):
        with pytest.raises(errors.ProducerFencedError, match="close the producer") as caught:
            call()
        assert isinstance(caught.value.__cause__, errors.ProducerFencedError)
    assert isinstance(manager.no_transaction(), errors.ProducerFencedError)
    # What comes late changes nothing.
    manager.batch_failed(6, errors.NotLeaderOrFollowerError())
    manager.add_partition("t", 1)
    manager.end(True, True)
    manager.fatal(errors.KafkaError("another"))
    manager.unanswered(driver.now)
    assert driver.idle()
    assert isinstance(manager.error, errors.ProducerFencedError)


def test_a_fatal_error_of_the_core_finishes_what_is_under_way() -> None:
    driver = Driver().with_partition()
    offsets = driver.offsets()
    request = driver.request("AddOffsetsToTxn")
    reason = errors.ClusterAuthorizationFailedError("no")
    driver.manager.fatal(reason)
    assert offsets.error is reason
    driver.reply(request)
    assert driver.idle()


def test_the_error_of_a_timeout_that_is_too_long_names_both_options() -> None:
    driver = at_init(False)
    driver.step("InitProducerId", "INVALID_TRANSACTION_TIMEOUT")
    error = driver.manager.error
    assert isinstance(error, errors.InvalidTransactionTimeoutError)
    assert "transaction_timeout_ms (60000)" in str(error) and "transaction.max.timeout.ms" in str(error)


# ---------------------------------------------------------------------------------------- what is sent


def test_init_asks_for_a_producer_id_without_one() -> None:
    driver = Driver()
    operation = driver.manager.init()
    found = driver.step("FindCoordinator")
    assert found.to is None
    assert (found.body["key"], found.body["key_type"], found.body["coordinator_keys"]) == ("tx", 1, ["tx"])
    asked = driver.step("InitProducerId", producer_id=42, producer_epoch=3)
    assert asked.to == TXN
    assert asked.body == {
        "transactional_id": "tx",
        "transaction_timeout_ms": 60_000,
        "producer_id": -1,
        "producer_epoch": -1,
    }
    assert operation.done and operation.error is None
    assert list(driver.manager.effects) == [(Effect.PRODUCER_ID, (42, 3))]
    assert driver.idle()


def test_a_coordinator_answer_of_old_versions_has_no_list() -> None:
    driver = Driver()
    driver.manager.init()
    driver.request("FindCoordinator")
    driver.manager.answered({"error_code": 0, "node_id": 2, "host": "h", "port": 1}, "b", driver.now)
    assert driver.manager.coordinators[TXN].node_id == 2


def test_version_1_adds_partitions_before_their_batches_and_each_only_once() -> None:
    driver = Driver().begun()
    manager = driver.manager
    assert list(manager.effects) == [(Effect.OPEN, False)]
    for place in (("a", 0), ("a", 1), ("b", 0), ("a", 0)):
        manager.add_partition(*place)
    request = driver.step("AddPartitionsToTxn")
    assert request.body["topics"] == [
        {"name": "a", "partitions": [0, 1]},
        {"name": "b", "partitions": [0]},
    ]
    assert (request.body["producer_id"], request.body["producer_epoch"]) == (7, 0)
    added = [value for effect, value in manager.effects if effect is Effect.PARTITION_ADDED]
    assert added == [("a", 0), ("a", 1), ("b", 0)]
    manager.add_partition("a", 0)
    assert driver.idle()
    manager.add_partition("c", 0)
    driver.step("AddPartitionsToTxn")
    driver.commit()
    end = driver.step("EndTxn")
    assert end.body["committed"] is True
    assert end.at_most == 4, "from version 5 on the broker takes it for version 2 of the protocol"
    assert driver.state() is State.READY
    # The next transaction begins with no partitions.
    manager.begin(driver.now)
    manager.add_partition("a", 0)
    driver.step("AddPartitionsToTxn")


def test_version_2_adds_nothing() -> None:
    driver = Driver(v2=True).begun()
    assert list(driver.manager.effects) == [(Effect.OPEN, True)]
    driver.manager.add_partition("t", 0)  # the core does not ask; if it did it would not matter
    operation = driver.offsets()
    driver.step("FindCoordinator")
    committed = driver.step("TxnOffsetCommit")
    assert committed.at_most is None
    assert operation.done and operation.error is None
    driver.commit()
    assert driver.step("EndTxn", producer_id=8, producer_epoch=0).at_most is None
    assert driver.state() is State.READY
    # KIP-890: every transaction has an epoch of its own, or even another producer id when epochs are used up.
    assert (Effect.PRODUCER_ID, (8, 0)) in driver.manager.effects
    driver.manager.begin(driver.now)
    driver.abort()
    assert driver.request("EndTxn").body == {
        "transactional_id": "tx",
        "producer_id": 8,
        "producer_epoch": 0,
        "committed": False,
    }


def test_version_1_adds_the_group_and_commits_its_offsets() -> None:
    driver = Driver().begun()
    operation = driver.offsets(("in", 0), ("in", 1), ("other", 0))
    added = driver.step("AddOffsetsToTxn")
    assert added.to == TXN and added.body["group_id"] == "readers"
    found = driver.step("FindCoordinator")
    assert (found.body["key"], found.body["key_type"]) == ("readers", 0)
    committed = driver.step("TxnOffsetCommit")
    assert committed.to == GROUP
    assert committed.at_most == 4 and committed.at_least is None
    row = {"committed_offset": 10, "committed_leader_epoch": -1, "committed_metadata": None}
    assert committed.body["topics"] == [
        {"name": "in", "partitions": [{"partition_index": 0, **row}, {"partition_index": 1, **row}]},
        {"name": "other", "partitions": [{"partition_index": 0, **row}]},
    ]
    assert (committed.body["generation_id"], committed.body["member_id"]) == (-1, "")
    assert operation.done and operation.error is None
    driver.commit(batches_sent=False)
    driver.step("EndTxn")
    assert driver.state() is State.READY


@both
@pytest.mark.parametrize("fields", [{"generation": 0}, {"member_id": "m"}, {"instance_id": "i"}])
def test_metadata_of_a_member_needs_a_broker_that_can_fence_it(fields: dict[str, Any], v2: bool) -> None:
    # KIP-447: before version 3 the fields would be dropped without a word.
    driver = Driver(v2).begun()
    driver.offsets(**fields)
    if not v2:
        driver.step("AddOffsetsToTxn")
    driver.step("FindCoordinator")
    request = driver.request("TxnOffsetCommit")
    assert request.at_least == 3
    driver.manager.unsupported(request, "1 at h:9092")
    assert driver.state() is State.FATAL_ERROR
    assert isinstance(driver.manager.error, errors.UnsupportedVersionError)


@both
def test_two_groups_one_after_the_other(v2: bool) -> None:
    driver = Driver(v2).begun()
    first, second = driver.offsets(group="g1"), driver.offsets(group="g2")
    for operation, group in ((first, "g1"), (second, "g2")):
        assert not operation.done
        if not v2:
            assert driver.step("AddOffsetsToTxn").body["group_id"] == group
        assert driver.step("FindCoordinator").body["key"] == group
        assert driver.step("TxnOffsetCommit").body["group_id"] == group
        assert operation.done
    assert driver.idle()


@both
def test_only_the_offsets_that_were_refused_are_sent_again(v2: bool) -> None:
    driver = Driver(v2).begun()
    operation = driver.offsets(("in", 0), ("in", 1), ("in", 2))
    if not v2:
        driver.step("AddOffsetsToTxn")
    driver.step("FindCoordinator")
    driver.request("TxnOffsetCommit")
    rows = [{"partition_index": p, "error_code": c} for p, c in ((0, 0), (1, 14), (2, 3))]
    driver.manager.answered({"topics": [{"name": "in", "partitions": rows}]}, "b", driver.now)
    assert not operation.done
    assert driver.sleep() == pytest.approx(PAUSE), "one answer is one failure"
    again = driver.step("TxnOffsetCommit")
    assert [p["partition_index"] for p in again.body["topics"][0]["partitions"]] == [1, 2]
    assert operation.done and operation.error is None


@both
def test_an_offset_refused_for_good_counts_more_than_one_to_try_again(v2: bool) -> None:
    driver = at_offset_commit(v2)
    driver.request("TxnOffsetCommit")
    rows = [{"partition_index": 0, "error_code": 14}, {"partition_index": 1, "error_code": 29}]
    driver.manager.answered({"topics": [{"name": "in", "partitions": rows}]}, "b", driver.now)
    assert isinstance(driver.manager.error, errors.TopicAuthorizationFailedError)


def test_a_partition_refused_for_good_counts_more_than_one_to_try_again() -> None:
    driver = Driver().begun()
    for index in range(3):
        driver.manager.add_partition("t", index)
    driver.request("AddPartitionsToTxn")
    rows = [
        {"partition_index": index, "partition_error_code": code} for index, code in ((0, 55), (1, 3), (2, 29))
    ]
    driver.manager.answered(
        {"results_by_topic": [{"name": "t", "results_by_partition": rows}]}, "b", driver.now
    )
    error = driver.manager.error
    assert isinstance(error, errors.TopicAuthorizationFailedError)
    assert "t-2" in str(error) and "t-0" not in str(error)


def test_partitions_that_were_accepted_are_not_asked_for_again() -> None:
    driver = Driver().begun()
    driver.manager.add_partition("t", 0)
    driver.manager.add_partition("t", 1)
    driver.request("AddPartitionsToTxn")
    rows = [{"partition_index": index, "partition_error_code": code} for index, code in ((0, 0), (1, 51))]
    driver.manager.answered(
        {"results_by_topic": [{"name": "t", "results_by_partition": rows}]}, "b", driver.now
    )
    assert driver.sleep() == pytest.approx(PAUSE), "the short pause is for the first partitions only"
    assert driver.step("AddPartitionsToTxn").body["topics"] == [{"name": "t", "partitions": [1]}]


@both
def test_no_offsets_are_no_request(v2: bool) -> None:
    driver = Driver(v2).begun()
    operation = driver.manager.send_offsets(
        GroupOffsets(Operation(Kind.OFFSETS), "readers", -1, "", None, offsets={})
    )
    assert operation.done and operation.error is None
    assert driver.idle()


@both
@pytest.mark.parametrize("end", ["commit", "abort"])
def test_the_end_of_a_transaction_without_records_is_not_sent(v2: bool, end: str) -> None:
    driver = Driver(v2).begun()
    operation = driver.commit(batches_sent=False) if end == "commit" else driver.abort(batches_sent=False)
    assert operation.done and operation.error is None
    assert driver.state() is State.READY
    assert driver.idle()


@both
def test_the_end_waits_for_records_partitions_and_offsets(v2: bool) -> None:
    driver = Driver(v2).begun()
    driver.manager.add_partition("t", 0)
    offsets = driver.offsets()
    operation = driver.manager.commit()
    if not v2:
        driver.step("AddPartitionsToTxn")
        driver.step("AddOffsetsToTxn")
    driver.step("FindCoordinator")
    driver.step("TxnOffsetCommit")
    assert offsets.done
    assert driver.idle(), "EndTxn before every record is decided"
    driver.manager.end(True, False)
    driver.step("EndTxn")
    assert operation.done


@both
def test_offsets_that_nobody_waits_for_any_more_are_committed_with_the_transaction(v2: bool) -> None:
    # send_offsets_to_transaction() timed out before anything could be sent; "it goes on".
    driver = Driver(v2).begun()
    driver.offsets()
    operation = driver.commit(batches_sent=False)
    assert not operation.done
    if not v2:
        driver.step("AddOffsetsToTxn")
    driver.step("FindCoordinator")
    driver.step("TxnOffsetCommit")
    assert driver.step("EndTxn").body["committed"] is True
    assert operation.done and operation.error is None


# ---------------------------------------------------------------------------------------- retries


@both
def test_pauses_grow_with_failures_in_a_row_and_start_over_after_a_success(v2: bool) -> None:
    driver = at_commit(v2)
    for failures in (1, 2, 3):
        driver.step("EndTxn", "COORDINATOR_LOAD_IN_PROGRESS")
        assert driver.sleep() == pytest.approx(pause(failures))
    driver.step("EndTxn")
    driver.manager.begin(driver.now)
    if not v2:
        driver.manager.add_partition("t", 0)
        driver.step("AddPartitionsToTxn")
    driver.commit()
    driver.step("EndTxn", "CONCURRENT_TRANSACTIONS")
    assert driver.sleep() == pytest.approx(pause(1))


@everywhere
def test_a_request_without_answer_is_repeated_after_looking_the_coordinator_up(where: str, v2: bool) -> None:
    name, start, coordinator = STARTS[where]
    driver = start(v2)
    before = driver.state()
    request = driver.request(name)
    driver.manager.unanswered(driver.now)
    assert driver.state() is before
    assert driver.sleep() == pytest.approx(PAUSE)
    if coordinator is not None:
        assert driver.step("FindCoordinator").body["key"] == coordinator[1]
    assert driver.request(name).body == request.body


@both
def test_a_request_that_cannot_be_sent_yet_is_offered_again_soon(v2: bool) -> None:
    driver = at_commit(v2)
    request = driver.request("EndTxn")
    driver.manager.not_sent(driver.now)
    assert driver.manager.next_request(driver.now) is None
    assert 0 < driver.sleep() <= 0.05
    assert driver.request("EndTxn").body == request.body
    assert TXN in driver.manager.coordinators


@both
def test_a_coordinator_that_is_lost_is_looked_up_again(v2: bool) -> None:
    """However often: it is not known whether the broker comes back, or another takes over."""
    driver = at_commit(v2)
    for _ in range(3):
        driver.manager.broker_lost(2, driver.now)
        assert TXN in driver.manager.coordinators, "another broker"
        driver.manager.broker_lost(1, driver.now)
        # As after any failure: until the cluster agrees on another one, the same may be found.
        assert driver.sleep() == pytest.approx(PAUSE)
        assert driver.step("FindCoordinator").body["key"] == TXN[1]
    driver.step("EndTxn")


@both
def test_a_coordinator_that_is_lost_with_a_request_under_way(v2: bool) -> None:
    driver = at_commit(v2)
    request = driver.request("EndTxn")
    driver.manager.broker_lost(1, driver.now)
    assert driver.manager.wake_at() is None, "there is no answer yet"
    driver.manager.unanswered(driver.now)
    assert driver.sleep() == pytest.approx(PAUSE), "one pause, not two"
    driver.step("FindCoordinator")
    assert driver.request("EndTxn").body == request.body


@both
def test_a_coordinator_that_cannot_be_reached_for_long_is_looked_up_again(v2: bool) -> None:
    """A connection to a black hole takes long to fail, and another broker may have taken over by then."""
    driver = at_commit(v2)
    started = driver.now
    while TXN in driver.manager.coordinators:
        driver.request("EndTxn")
        driver.manager.not_sent(driver.now)
        driver.sleep()
    assert LOOK_AGAIN_S <= driver.now - started < LOOK_AGAIN_S + 2 * PAUSE
    driver.step("FindCoordinator")
    driver.request("EndTxn")
    driver.manager.not_sent(driver.now)
    assert TXN in driver.manager.coordinators, "the next one gets as much time"


# ---------------------------------------------------------------------------------------- lost in between


def test_answers_that_come_after_the_abort_do_not_change_it() -> None:
    """Offsets are on their way when the application aborts."""
    driver = Driver().begun()
    offsets = driver.offsets()
    driver.step("AddOffsetsToTxn")
    driver.step("FindCoordinator")
    request = driver.request("TxnOffsetCommit")
    operation = driver.abort(batches_sent=False)
    assert isinstance(offsets.error, errors.TransactionAbortedError)
    assert not operation.done, "the answer is not there yet"
    driver.reply(request)
    assert driver.step("EndTxn").body["committed"] is False
    assert operation.done and operation.error is None


@both
@pytest.mark.parametrize("answer", ["comes", "is lost", "is an error"])
def test_what_the_coordinator_may_have_heard_of_is_aborted_there(v2: bool, answer: str) -> None:
    """Otherwise offsets of the aborted transaction would be committed with the next one."""
    driver = Driver(v2).begun()
    driver.offsets()
    if v2:
        driver.step("FindCoordinator")
    request = driver.request("TxnOffsetCommit" if v2 else "AddOffsetsToTxn")
    operation = driver.abort(batches_sent=False)
    if answer == "comes":
        driver.reply(request)
    elif answer == "is lost":
        driver.manager.unanswered(driver.now)
        driver.sleep()
        if not v2:  # the coordinator of the transaction is the one that was lost
            driver.step("FindCoordinator")
    else:
        driver.reply(request, "GROUP_AUTHORIZATION_FAILED")
        if not v2:
            assert operation.done, "it was not added, so there is nothing to abort"
            return
    driver.step("EndTxn")
    if answer == "is lost" and not v2:
        assert not operation.done
        driver.step("InitProducerId")
    assert operation.done and operation.error is None


def lost(driver: Driver, name: str) -> None:
    """This request goes out, and its connection ends before an answer; the coordinator is found again."""
    driver.request(name)
    driver.manager.unanswered(driver.now)
    driver.sleep()
    driver.step("FindCoordinator")


@pytest.mark.parametrize("end", ["EndTxn", "AddPartitionsToTxn"])
@pytest.mark.parametrize("has_epochs", [True, False], ids=["a broker since 2.5", "a broker before 2.5"])
def test_what_a_lost_connection_left_is_kept_out_of_the_next_transaction(end: str, has_epochs: bool) -> None:
    """A coordinator that is late handles it though the connection is gone; a new epoch has it refused."""
    driver = Driver().begun()
    driver.manager.add_partition("t", 0)
    if end == "EndTxn":
        driver.step("AddPartitionsToTxn")
        operation = driver.commit()
    lost(driver, end)
    if end == "EndTxn":
        driver.step("EndTxn")
    else:
        operation = driver.abort(batches_sent=False)
        driver.step("EndTxn", "INVALID_TXN_STATE")
    assert not operation.done
    request = driver.request("InitProducerId")
    assert (request.body["producer_id"], request.at_least) == (7, 3)
    if has_epochs:
        driver.reply(request)
    else:
        driver.manager.unsupported(request, "1 at h:9092")
    assert operation.done and operation.error is None
    assert driver.state() is State.READY
    # Only once.
    driver.manager.begin(driver.now)
    operation = driver.commit(batches_sent=False)
    assert operation.done


def test_with_epochs_for_each_transaction_nothing_of_one_can_get_into_the_next() -> None:
    driver = Driver(v2=True).with_partition()
    operation = driver.commit()
    lost(driver, "EndTxn")
    driver.step("EndTxn")
    assert operation.done and operation.error is None
    assert driver.idle()


def test_late_answers_to_partitions_of_an_aborted_transaction() -> None:
    driver = Driver().begun()
    driver.manager.add_partition("t", 0)
    request = driver.request("AddPartitionsToTxn")
    operation = driver.abort(batches_sent=False)
    driver.reply(request)
    driver.step("EndTxn")
    assert operation.done
    # And refused ones.
    driver.manager.begin(driver.now)
    driver.manager.add_partition("t", 0)
    request = driver.request("AddPartitionsToTxn")
    operation = driver.abort(batches_sent=False)
    driver.reply(request, "TOPIC_AUTHORIZATION_FAILED")
    assert operation.done and operation.error is None
    assert driver.state() is State.READY


# ---------------------------------------------------------------------------------------- errors of records


@both
def test_a_lost_record_makes_the_transaction_abortable(v2: bool) -> None:
    driver = Driver(v2).with_partition()
    offsets = driver.offsets()
    driver.take_effects()
    reason = errors.MessageSizeTooLargeError("too large", topic="t", partition=0)
    driver.manager.batch_failed(10, reason)
    assert driver.state() is State.ABORTABLE_ERROR
    assert driver.take_effects() == [Effect.CLOSE, Effect.FAIL_QUEUED]
    assert isinstance(offsets.error, errors.TransactionAbortableError)
    for call in (driver.manager.commit, driver.offsets, lambda: _raise(driver.manager.no_transaction())):
        with pytest.raises(errors.TransactionAbortableError, match="too large") as caught:
            call()
        assert caught.value.__cause__ is reason
    with pytest.raises(errors.IllegalStateError):
        driver.manager.begin(driver.now)
    assert driver.idle()
    driver.abort()
    assert driver.step("EndTxn").body["committed"] is False
    assert driver.state() is State.READY
    assert driver.manager.error is None
    driver.manager.begin(driver.now)


def _raise(error: BaseException) -> None:
    raise error


@both
def test_a_record_lost_during_the_commit_fails_it(v2: bool) -> None:
    driver = Driver(v2).with_partition()
    operation = driver.manager.commit()
    driver.manager.batch_failed(-1, errors.KafkaTimeoutError("expired"))
    assert operation.done
    assert isinstance(operation.error, errors.TransactionAbortableError)
    driver.manager.end(True, False)  # the engine's call comes after that
    assert driver.state() is State.ABORTABLE_ERROR
    assert driver.idle()
    driver.abort()
    driver.step("EndTxn")
    assert driver.state() is State.READY


@both
@pytest.mark.parametrize("state", ["ready", "aborting"])
def test_a_record_that_fails_outside_a_transaction_is_only_that(v2: bool, state: str) -> None:
    driver = Driver(v2).with_partition()
    driver.abort()
    if state == "ready":
        driver.step("EndTxn")
    before = driver.state()
    driver.manager.batch_failed(10, errors.MessageSizeTooLargeError())
    assert driver.state() is before


def test_sequence_numbers_that_were_lost_get_a_new_epoch_after_the_abort() -> None:
    """KIP-360."""
    driver = Driver().with_partition()
    driver.manager.batch_failed(7, errors.KafkaTimeoutError("expired"))
    operation = driver.abort(sequence_lost=True)
    driver.step("EndTxn")
    assert not operation.done
    asked = driver.step("InitProducerId", producer_epoch=1)
    assert (asked.body["producer_id"], asked.body["producer_epoch"], asked.at_least) == (7, 0, 3)
    assert operation.done and operation.error is None
    assert (Effect.PRODUCER_ID, (7, 1)) in driver.manager.effects
    # Once: the next transaction ends without.
    driver.manager.begin(driver.now)
    driver.manager.add_partition("t", 0)
    driver.step("AddPartitionsToTxn")
    driver.commit()
    driver.step("EndTxn")
    assert driver.state() is State.READY


def test_version_2_gives_the_new_epoch_with_the_end() -> None:
    driver = Driver(v2=True).with_partition()
    driver.manager.batch_failed(7, errors.KafkaTimeoutError("expired"))
    operation = driver.abort(sequence_lost=True)
    driver.step("EndTxn")
    assert operation.done
    assert driver.idle()


@both
def test_sequence_numbers_lost_before_the_coordinator_heard_of_the_transaction(v2: bool) -> None:
    driver = Driver(v2).begun()
    driver.manager.batch_failed(7, errors.KafkaTimeoutError("expired"))
    operation = driver.abort(batches_sent=False, sequence_lost=True)
    driver.step("InitProducerId")
    assert operation.done and operation.error is None
    assert driver.state() is State.READY


def test_a_broker_that_cannot_give_a_new_epoch_ends_the_producer() -> None:
    # Before 2.5; as the Java client.
    driver = Driver().with_partition()
    operation = driver.abort(sequence_lost=True)
    driver.step("EndTxn")
    driver.manager.unsupported(driver.request("InitProducerId"), "1 at h:9092")
    assert isinstance(operation.error, errors.UnsupportedVersionError)


# ---------------------------------------------------------------------------------------- fencing, or not


@both
@pytest.mark.parametrize("code", PERHAPS_FENCED)
def test_a_commit_after_the_coordinators_own_abort_is_abortable(v2: bool, code: str) -> None:
    """KIP-588: transaction.timeout.ms was over; the producer itself goes on."""
    driver = at_commit(v2)
    operation = driver.manager.commit()
    driver.step("EndTxn", code)
    assert not operation.done
    driver.step("InitProducerId", producer_epoch=5)
    assert driver.state() is State.ABORTABLE_ERROR
    assert isinstance(operation.error, errors.TransactionAbortableError)
    assert isinstance(operation.error.__cause__, errors.TransactionAbortedError)
    assert "transaction_timeout_ms" in str(operation.error)
    assert (Effect.PRODUCER_ID, (7, 5)) in driver.manager.effects
    # It is over at the coordinator: nothing more is to be sent.
    aborted = driver.abort()
    assert aborted.done and aborted.error is None
    assert driver.state() is State.READY
    driver.manager.begin(driver.now)


@both
@pytest.mark.parametrize("code", PERHAPS_FENCED)
def test_an_abort_after_the_coordinators_own_abort_succeeds(v2: bool, code: str) -> None:
    driver = at_abort(v2)
    operation = driver.manager.abort()
    driver.step("EndTxn", code)
    driver.step("InitProducerId", producer_epoch=5)
    assert operation.done and operation.error is None
    assert driver.state() is State.READY


@both
@pytest.mark.parametrize("refusal", ["PRODUCER_FENCED", "INVALID_PRODUCER_EPOCH"])
@pytest.mark.parametrize("start", [at_commit, at_abort])
def test_real_fencing_is_fatal(v2: bool, refusal: str, start: Start) -> None:
    driver = start(v2)
    operation = driver.manager.commit() if start is at_commit else driver.manager.abort()
    driver.step("EndTxn", "INVALID_PRODUCER_EPOCH")
    driver.step("InitProducerId", refusal)
    if not v2:
        # Where a transaction of version 1 timed out this is the next epoch, behind a fence a later one.
        assert driver.step("InitProducerId", refusal).body["producer_epoch"] == 1
    assert isinstance(operation.error, errors.ProducerFencedError)
    assert "'tx'" in str(operation.error)
    assert driver.state() is State.FATAL_ERROR


@pytest.mark.parametrize("start", [at_commit, at_abort])
def test_version_1_finds_the_epoch_that_a_timeout_has_left(start: Start) -> None:
    """As real brokers do it: see TransactionManager._may_have_timed_out()."""
    driver = start(False)
    operation = driver.manager.commit() if start is at_commit else driver.manager.abort()
    driver.step("EndTxn", "PRODUCER_FENCED")
    assert driver.step("InitProducerId", "PRODUCER_FENCED").body["producer_epoch"] == 0
    driver.request("InitProducerId")
    driver.manager.unanswered(driver.now)
    driver.sleep()
    driver.step("FindCoordinator")
    assert driver.step("InitProducerId", producer_epoch=2).body["producer_epoch"] == 1
    assert operation.done
    if start is at_commit:
        assert isinstance(operation.error, errors.TransactionAbortableError)
        assert driver.abort().done
    assert driver.state() is State.READY
    # The next time it asks with its own epoch first.
    driver.manager.begin(driver.now)
    driver.manager.add_partition("t", 0)
    driver.step("AddPartitionsToTxn")
    driver.abort()
    driver.step("EndTxn", "PRODUCER_FENCED")
    driver.sleep()
    assert driver.request("InitProducerId").body["producer_epoch"] == 2


@pytest.mark.parametrize("trouble", ["lost", "timed out"])
def test_version_1_does_not_ask_for_another_epoch_when_the_end_may_have_been_applied(trouble: str) -> None:
    """Then another producer may have the next epoch, and asking with it would take over from that one."""
    driver = at_commit(False)
    operation = driver.manager.commit()
    request = driver.request("EndTxn")
    if trouble == "lost":
        driver.manager.unanswered(driver.now)
        driver.sleep()
        driver.step("FindCoordinator")
    else:
        driver.reply(request, "REQUEST_TIMED_OUT")
        driver.sleep()
    driver.step("EndTxn", "PRODUCER_FENCED")
    driver.step("InitProducerId", "PRODUCER_FENCED")
    assert isinstance(operation.error, errors.ProducerFencedError)


@pytest.mark.parametrize("code", ["INVALID_PRODUCER_EPOCH", "PRODUCER_FENCED"])
def test_brokers_before_2_5_cannot_say_more_than_fenced(code: str) -> None:
    driver = at_commit(False)
    operation = driver.manager.commit()
    driver.step("EndTxn", code)
    driver.manager.unsupported(driver.request("InitProducerId"), "1 at h:9092")
    assert isinstance(operation.error, errors.ProducerFencedError)


def young(v2: bool, start: Start) -> Driver:
    """A transaction that cannot have timed out yet."""
    driver = start(v2)
    driver.now -= 50.0
    return driver


@both
@pytest.mark.parametrize("start", [at_commit, at_abort])
def test_a_successor_goes_first(v2: bool, start: Start) -> None:
    """Both may ask for the next epoch, and only one of them can be right."""
    driver = young(v2, start)
    driver.step("EndTxn", "INVALID_PRODUCER_EPOCH")
    assert driver.manager.next_request(driver.now) is None
    assert driver.sleep() == pytest.approx(FIRST_VERDICT_PAUSE_S)
    driver.step("InitProducerId", "PRODUCER_FENCED")


def test_a_slower_successor_gets_more_time() -> None:
    driver = Driver(v2=True).ready()
    pauses = []
    for number in range(5):
        driver.manager.begin(driver.now)
        driver.commit()
        driver.step("EndTxn", "INVALID_PRODUCER_EPOCH")
        pauses.append(driver.sleep())
        driver.step("InitProducerId")
        assert driver.state() is State.ABORTABLE_ERROR
        assert "began to take over" in str(driver.manager.error)
        assert driver.abort().done
        if number == 3:
            driver.manager.begin(driver.now)
            driver.commit()
            driver.step("EndTxn")
    first = FIRST_VERDICT_PAUSE_S
    assert pauses == [
        pytest.approx(pause)
        for pause in (first, 2 * first, LAST_VERDICT_PAUSE_S, LAST_VERDICT_PAUSE_S, first)
    ]


@both
@pytest.mark.parametrize("fenced", [True, False])
@pytest.mark.parametrize("call", ["commit", "commit before", "offsets", "abort", "none"])
def test_a_batch_that_was_refused_as_from_an_old_epoch(v2: bool, fenced: bool, call: str) -> None:
    """Partition leaders cannot tell why: the coordinator is asked before anybody is told."""
    driver = Driver(v2).with_partition()
    operation = driver.manager.commit() if call == "commit before" else None
    driver.manager.batch_failed(47, errors.InvalidProducerEpochError())
    assert driver.state() is State.ABORTABLE_ERROR
    assert isinstance(driver.manager.no_transaction(), errors.TransactionAbortableError)
    if call in ("commit", "abort"):
        operation = getattr(driver.manager, call)()
    elif call == "offsets":
        operation = driver.offsets()
    assert operation is None or not operation.done
    assert driver.idle(), "a new epoch must wait for the records of the old one"
    if operation is None or operation.kind is Kind.OFFSETS:
        driver.manager.records_decided()
    else:
        driver.manager.end(True, True)
    if fenced:
        driver.step("InitProducerId", "PRODUCER_FENCED")
        if not v2:
            driver.step("InitProducerId", "PRODUCER_FENCED")
        assert driver.state() is State.FATAL_ERROR
        assert operation is None or isinstance(operation.error, errors.ProducerFencedError)
        assert isinstance(driver.manager.no_transaction(), errors.ProducerFencedError)
        return
    driver.step("InitProducerId")
    assert operation is None or operation.done
    if call != "abort":
        assert operation is None or isinstance(operation.error, errors.TransactionAbortableError)
        assert isinstance(driver.manager.error, errors.TransactionAbortedError)
        assert driver.abort().done
    assert driver.state() is State.READY


def test_a_commit_that_waits_for_the_verdict_can_be_given_up_for_an_abort() -> None:
    driver = Driver(v2=True).with_partition()
    driver.manager.batch_failed(47, errors.InvalidProducerEpochError())
    committing = driver.commit()
    committing.abandoned = True
    aborting = driver.abort()
    assert isinstance(committing.error, errors.TransactionAbortableError)
    driver.step("InitProducerId")
    assert aborting.done and aborting.error is None


def test_brokers_before_2_5_keep_the_name_of_other_errors() -> None:
    driver = at_commit(False)
    operation = driver.manager.commit()
    driver.step("EndTxn", "INVALID_TXN_STATE")
    driver.manager.unsupported(driver.request("InitProducerId"), "1 at h:9092")
    assert isinstance(operation.error, errors.InvalidTxnStateError)


@pytest.mark.parametrize("code", PERHAPS_FENCED)
def test_the_abort_finds_out_what_a_refusal_inside_the_transaction_meant(code: str) -> None:
    for fenced in (True, False):
        driver = at_add_partitions(False)
        driver.step("AddPartitionsToTxn", code)
        assert driver.state() is State.ABORTABLE_ERROR
        operation = driver.abort(batches_sent=False)
        asked = driver.step("InitProducerId", *(["PRODUCER_FENCED"] if fenced else []))
        assert asked.body["producer_id"] == 7
        assert operation.done
        assert driver.state() is (State.FATAL_ERROR if fenced else State.READY)
        assert isinstance(operation.error, errors.ProducerFencedError) is fenced


def test_an_epoch_bump_is_repeated_until_it_is_answered() -> None:
    driver = at_commit(False)
    driver.step("EndTxn", "INVALID_PRODUCER_EPOCH")
    for trouble in ("CONCURRENT_TRANSACTIONS", "COORDINATOR_LOAD_IN_PROGRESS"):
        driver.step("InitProducerId", trouble)
        driver.sleep()
    driver.request("InitProducerId")
    driver.manager.unanswered(driver.now)
    driver.sleep()
    driver.step("FindCoordinator")
    # With the id and epoch it had: a coordinator that has bumped it already gives the same answer (KIP-360).
    assert driver.step("InitProducerId").body["producer_epoch"] == 0
    assert driver.state() is State.ABORTABLE_ERROR


@pytest.mark.parametrize("code", sorted(errors.BROKER_ERRORS))
def test_no_answer_to_the_question_leaves_the_manager_stuck(code: int) -> None:
    driver = at_abort(False)
    driver.step("EndTxn", "INVALID_TXN_STATE")
    driver.step("InitProducerId", code)
    if driver.state() is State.ABORTING:
        assert errors.for_code(code).retriable
        driver.sleep()
        assert driver.manager.next_request(driver.now) is not None
    else:
        assert driver.state() is (State.FATAL_ERROR if code else State.READY)


# ---------------------------------------------------------------------------------------- protocol versions


def test_an_upgrade_of_the_cluster_takes_effect_with_a_new_epoch() -> None:
    driver = Driver(v2=False).with_partition()
    driver.manager.v2_offered = True
    operation = driver.commit()
    assert driver.step("EndTxn").at_most == 4
    assert not operation.done and not driver.manager.v2
    asked = driver.step("InitProducerId")
    assert asked.body["producer_id"] == 7
    assert operation.done and operation.error is None
    assert driver.manager.v2
    driver.manager.effects.clear()
    driver.manager.begin(driver.now)
    assert list(driver.manager.effects) == [(Effect.OPEN, True)]
    driver.commit()
    assert driver.step("EndTxn").at_most is None


def test_a_downgrade_of_the_cluster_takes_effect_with_the_next_transaction() -> None:
    driver = Driver(v2=True).with_partition()
    driver.manager.v2_offered = False
    operation = driver.commit()
    assert driver.step("EndTxn").at_most is None
    assert operation.done
    driver.manager.begin(driver.now)
    driver.manager.add_partition("t", 0)
    driver.step("AddPartitionsToTxn")


def test_fencing_after_the_commit_does_not_undo_it() -> None:
    driver = Driver(v2=False).with_partition()
    driver.manager.v2_offered = True
    operation = driver.commit()
    driver.step("EndTxn")
    driver.step("InitProducerId", "PRODUCER_FENCED")
    assert operation.done and operation.error is None
    assert driver.state() is State.FATAL_ERROR


# ---------------------------------------------------------------------------------------- calls out of order


@both
def test_calls_in_the_wrong_state_are_refused_and_change_nothing(v2: bool) -> None:
    def refused(driver: Driver, *names: str) -> None:
        before = driver.state()
        for name in names:
            with pytest.raises(errors.IllegalStateError):
                if name == "send_offsets":
                    driver.offsets()
                else:
                    getattr(driver.manager, name)(*([driver.now] if name == "begin" else []))
            assert driver.state() is before
        assert isinstance(driver.manager.no_transaction(), errors.IllegalStateError)

    driver = Driver(v2)
    refused(driver, "begin", "commit", "abort", "send_offsets")
    driver.manager.init()
    refused(driver, "begin", "commit", "abort", "send_offsets")
    driver.step("FindCoordinator")
    driver.step("InitProducerId")
    refused(driver, "init", "commit", "abort", "send_offsets")
    driver.manager.begin(driver.now)
    refused(driver, "init", "begin")
    driver.commit()
    refused(driver, "init", "begin", "abort", "send_offsets")
    driver.step("EndTxn")
    driver.manager.begin(driver.now)
    driver.abort()
    refused(driver, "init", "begin", "commit", "send_offsets")


# ---------------------------------------------------------------------------------------- after a timeout


@both
@pytest.mark.parametrize("kind", ["init", "commit", "abort"])
def test_an_operation_that_timed_out_goes_on_with_the_same_call(v2: bool, kind: str) -> None:
    driver = {"init": at_init, "commit": at_commit, "abort": at_abort}[kind](v2)
    request = driver.request("InitProducerId" if kind == "init" else "EndTxn")
    call = getattr(driver.manager, kind)
    operation: Operation = call()
    operation.abandoned = True
    for other in {"init", "begin", "commit", "abort"} - {kind}:
        with pytest.raises(errors.IllegalStateError, match="timed out and must be called again"):
            getattr(driver.manager, other)(*([driver.now] if other == "begin" else []))
    with pytest.raises(errors.IllegalStateError, match="timed out and must be called again"):
        driver.offsets()
    assert call() is operation
    assert not operation.abandoned
    driver.reply(request)
    assert operation.done and operation.error is None
    assert driver.idle(), "it was asked for twice"
    if kind == "init":
        driver.manager.begin(driver.now)
    else:
        with pytest.raises(errors.IllegalStateError):
            call()


@both
@pytest.mark.parametrize("kind", ["init", "commit", "abort"])
def test_the_outcome_of_an_operation_that_ended_meanwhile_is_kept(v2: bool, kind: str) -> None:
    driver = {"init": at_init, "commit": at_commit, "abort": at_abort}[kind](v2)
    call = getattr(driver.manager, kind)
    operation: Operation = call()
    operation.abandoned = True
    driver.step("InitProducerId" if kind == "init" else "EndTxn")
    assert driver.state() is State.READY
    with pytest.raises(errors.IllegalStateError, match="must be called again"):
        driver.manager.begin(driver.now)
    assert call() is operation
    assert operation.done and operation.error is None
    driver.manager.begin(driver.now)


@both
def test_the_error_of_a_commit_that_failed_meanwhile_is_kept(v2: bool) -> None:
    for repeat in (True, False):
        driver = at_commit(v2)
        operation = driver.manager.commit()
        operation.abandoned = True
        driver.step("EndTxn", "TRANSACTION_ABORTABLE")
        assert driver.state() is State.ABORTABLE_ERROR
        if repeat:
            assert driver.manager.commit() is operation
            assert isinstance(operation.error, errors.TransactionAbortableError)
            with pytest.raises(errors.TransactionAbortableError):
                driver.manager.commit()
        # Aborting is what the error would have said to do.
        driver.abort()
        driver.step("EndTxn")
        assert driver.state() is State.READY
        driver.manager.begin(driver.now)


@both
def test_a_fatal_error_is_told_to_a_commit_that_timed_out_too(v2: bool) -> None:
    driver = at_commit(v2)
    operation = driver.manager.commit()
    operation.abandoned = True
    driver.step("EndTxn", "TRANSACTIONAL_ID_AUTHORIZATION_FAILED")
    assert driver.manager.commit() is operation
    assert isinstance(operation.error, errors.TransactionalIdAuthorizationFailedError)
    with pytest.raises(errors.TransactionalIdAuthorizationFailedError):
        driver.manager.abort()


def test_nothing_wakes_the_engine_while_there_is_nothing_to_do() -> None:
    driver = Driver()
    assert driver.idle()
    driver.manager.init()
    assert driver.manager.wake_at() == 0.0
    driver.request("FindCoordinator")
    assert driver.manager.wake_at() is None
