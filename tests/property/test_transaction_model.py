"""The transaction manager against a model of the coordinator, of the partitions, and of the producer's core.

Hypothesis chooses what the application calls and when it stops waiting, which batches are lost, what becomes
of each request and each answer, and what happens at the coordinator meanwhile: it moves, aborts a transaction
that took too long, forgets an idle producer, meets another producer with the same transactional id, or is
upgraded. In a two-phase commit (KIP-939) the producer may die with a prepared transaction, and a successor
end it.

At the end everything heals, and then exactly those transactions are committed whose ``commit_transaction()``
succeeded.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from kprod import errors
from kprod.protocol import Body
from kprod.transactions.manager import Effect, GroupOffsets, Kind, Operation, Request, TransactionManager
from kprod.transactions.prepared import PreparedTxnState
from kprod.transactions.states import State, may_follow

CODES = {entry.name: code for code, entry in errors.BROKER_ERRORS.items()}
GROUPS = ("g1", "g2")
PARTITIONS = 3
ONGOING = ("ongoing_txn_producer_id", "ongoing_txn_producer_epoch")
RETRIABLE = (
    "COORDINATOR_LOAD_IN_PROGRESS",
    "NOT_COORDINATOR",
    "COORDINATOR_NOT_AVAILABLE",
    "CONCURRENT_TRANSACTIONS",
)
PERMANENT = {
    "AddPartitionsToTxn": ("TOPIC_AUTHORIZATION_FAILED", "TRANSACTION_ABORTABLE", "UNKNOWN_SERVER_ERROR"),
    "AddOffsetsToTxn": ("GROUP_AUTHORIZATION_FAILED", "TRANSACTION_ABORTABLE"),
    "TxnOffsetCommit": ("ILLEGAL_GENERATION", "FENCED_INSTANCE_ID", "GROUP_AUTHORIZATION_FAILED"),
    "InitProducerId": ("TRANSACTIONAL_ID_AUTHORIZATION_FAILED",),
    "EndTxn": ("TRANSACTION_ABORTABLE",),
    "FindCoordinator": ("GROUP_AUTHORIZATION_FAILED",),
}
LEFT_BEHIND = ("AddPartitionsToTxn", "AddOffsetsToTxn", "TxnOffsetCommit", "EndTxn")
"""What a coordinator may come to late. An InitProducerId without an epoch would fence whoever sent it."""


@dataclass
class Coordinator:
    """What Kafka's coordinators, and the leaders of the partitions, do with transactions."""

    producer_id: int = -1
    epoch: int = -1
    last_epoch: int = -1
    """The one before, if its owner may come back and ask (KIP-360, KIP-588)."""
    state: str = "Empty"
    is_v2: bool = False
    """The version of the protocol in which the open transaction was begun."""
    is_taken: bool = False
    """Another producer has been initialised with the transactional id since."""
    partitions: set[int] = field(default_factory=set)
    groups: set[str] = field(default_factory=set)
    open_records: list[int] = field(default_factory=list)
    """The transactions, by the application's count, whose records are in the log and not decided."""
    open_offsets: list[int] = field(default_factory=list)
    committed_records: list[int] = field(default_factory=list)
    committed_offsets: set[int] = field(default_factory=set)
    ids: int = 100
    written_under: tuple[int, int] | None = None
    """Whose open transaction a successor has kept."""

    def complete(self, commit: bool, bump: bool) -> None:
        if commit:
            self.committed_records += self.open_records
            self.committed_offsets |= set(self.open_offsets)
        self.open_records.clear()
        self.open_offsets.clear()
        self.partitions.clear()
        self.groups.clear()
        self.state = "CompleteCommit" if commit else "CompleteAbort"
        self.written_under = None
        if bump:
            self.last_epoch, self.epoch = self.epoch, self.epoch + 1

    def open(self, v2: bool) -> None:
        if self.state != "Ongoing":
            self.state, self.is_v2 = "Ongoing", v2

    def time_out(self) -> None:
        self.complete(commit=False, bump=True)
        if not self.is_v2:
            # TransactionMetadata.prepareFenceProducerEpoch()
            self.last_epoch = -1

    def check(self, body: Body) -> str | None:
        if body["producer_id"] != self.producer_id:
            return "INVALID_PRODUCER_ID_MAPPING"
        return None if body["producer_epoch"] == self.epoch else "PRODUCER_FENCED"

    def init(self, producer_id: int, epoch: int) -> str | None:
        if self.producer_id < 0:
            self.ids += 1
            self.producer_id, self.epoch, self.last_epoch, self.state = self.ids, 0, -1, "Empty"
            return None
        if producer_id >= 0:
            if producer_id != self.producer_id:
                return "PRODUCER_FENCED"
            if epoch == self.last_epoch and self.state != "Ongoing":
                return None
            if epoch != self.epoch:
                return "PRODUCER_FENCED"
        if self.state == "Ongoing":
            # One epoch for the abort, another for who asked.
            self.complete(commit=False, bump=True)
        self.last_epoch = epoch if producer_id >= 0 else -1
        self.epoch += 1
        self.state = "Empty"
        return None

    def end(self, body: Body, v2: bool) -> str | None:
        done = "CompleteCommit" if body["committed"] else "CompleteAbort"
        if (
            v2
            and self.state == done
            and body["producer_id"] == self.producer_id
            and body["producer_epoch"] == self.epoch - 1 == self.last_epoch
        ):
            return None
        error = self.check(body)
        if error is not None:
            return error
        if self.state == "Ongoing":
            self.complete(body["committed"], bump=v2)
        elif v2 and not body["committed"]:
            self.complete(commit=False, bump=True)
        elif self.state != done:
            return "INVALID_TXN_STATE"
        return None

    def produce(self, transaction: int, partition: int, producer_id: int, epoch: int, v2: bool) -> str | None:
        if (producer_id, epoch) != (self.producer_id, self.epoch):
            return "INVALID_PRODUCER_EPOCH"
        if self.state != "Ongoing" or partition not in self.partitions:
            if not v2:
                return "INVALID_TXN_STATE"
            self.open(v2)
            self.partitions.add(partition)
        self.open_records.append(transaction)
        return None

    def handle(self, request: Request, transaction: int) -> Body:
        name, body = request.api.name, request.body
        v2 = request.at_most is None
        if name == "FindCoordinator":
            return find_coordinator_answer(body["key"])
        if name == "InitProducerId":
            kept = body.get("keep_prepared_txn") and self.state == "Ongoing"
            if kept:
                self.written_under = self.written_under or (self.producer_id, self.epoch)
                self.epoch, self.last_epoch = self.epoch + 1, -1
                self.is_taken = False
                ongoing = dict(zip(ONGOING, self.written_under, strict=True))
                return answer(request, None, self.producer_id, self.epoch) | ongoing
            error = self.init(body["producer_id"], body["producer_epoch"])
            if error is None:
                assert body["producer_id"] < 0 or not self.is_taken, "it took over from the other producer"
                self.is_taken = False
            return answer(request, error, self.producer_id, self.epoch)
        if name == "EndTxn":
            error = self.end(body, v2)
            return answer(request, error, *((self.producer_id, self.epoch) if v2 else (-1, -1)))
        error = self.check(body)
        if name == "AddPartitionsToTxn":
            if error is None:
                self.open(False)
                self.partitions |= {p for topic in body["topics"] for p in topic["partitions"]}
        elif name == "AddOffsetsToTxn":
            if error is None:
                self.open(False)
                self.groups.add(body["group_id"])
        else:
            assert name == "TxnOffsetCommit"
            if error == "PRODUCER_FENCED":
                error = "INVALID_PRODUCER_EPOCH"
            if error is None and body["group_id"] not in self.groups:
                if v2:
                    self.open(v2)
                    self.groups.add(body["group_id"])
                else:
                    error = "INVALID_TXN_STATE"
            if error is None:
                # The offset is the number of the application's transaction that it belongs to.
                self.open_offsets += [p["committed_offset"] for t in body["topics"] for p in t["partitions"]]
        return answer(request, error)


def find_coordinator_answer(key: str, code: int = 0) -> Body:
    row = {"key": key, "node_id": 1, "host": "h", "port": 1, "error_code": code, "error_message": None}
    return {"coordinators": [row]}


def answer(request: Request, error: str | None, producer_id: int = -1, epoch: int = -1) -> Body:
    code = CODES[error] if error else 0
    name = request.api.name
    if name == "FindCoordinator":
        return find_coordinator_answer(request.body["key"], code)
    if name in ("InitProducerId", "EndTxn"):
        ids = (-1, -1) if code else (producer_id, epoch)
        none = dict.fromkeys(ONGOING, -1)
        return {"error_code": code, "producer_id": ids[0], "producer_epoch": ids[1], **none}
    if name == "AddOffsetsToTxn":
        return {"error_code": code}
    topics: list[Any] = []
    for topic in request.body["topics"]:
        if name == "AddPartitionsToTxn":
            rows = [{"partition_index": p, "partition_error_code": code} for p in topic["partitions"]]
            topics.append({"name": topic["name"], "results_by_partition": rows})
        else:
            rows = [
                {"partition_index": p["partition_index"], "error_code": code} for p in topic["partitions"]
            ]
            topics.append({"name": topic["name"], "partitions": rows})
    return {"results_by_topic": topics} if name == "AddPartitionsToTxn" else {"topics": topics}


@dataclass
class Core:
    """The part of the producer that sends batches."""

    is_open: bool = False
    v2: bool = False
    producer_id: int = -1
    epoch: int = -1
    queue: list[tuple[int, int]] = field(default_factory=list)
    """(transaction, partition) of batches that were not sent."""
    added: set[int] = field(default_factory=set)
    used: bool = False
    sequence_lost: bool = False
    failed: errors.KafkaError | None = None
    is_dead: bool = False


@dataclass
class Transaction:
    """What the application knows of a transaction."""

    number: int
    acknowledged: int = 0
    has_lost: bool = False
    offsets: list[Operation] = field(default_factory=list)
    outcome: str = "open"
    prepared: PreparedTxnState | None = None


class Transactions(RuleBasedStateMachine):
    """One transactional producer, and everything around it."""

    def __init__(self) -> None:
        super().__init__()
        self.coordinator = Coordinator()
        self.core = Core()
        self.now = 0.0
        self.request: Request | None = None
        self.response: Body | None = None
        self.left_behind: list[Request] = []
        """Requests that the coordinator has not read yet though their connection is gone."""
        self.operation: Operation | None = None
        """The init, commit or abort that somebody waits for, or has stopped waiting for."""
        self.ended = False
        self.transactions: list[Transaction] = []
        self.states = [State.UNINITIALIZED]

    @initialize(
        v2=st.booleans(), is_ready=st.sampled_from([True, True, True, False]), two_phase=st.booleans()
    )
    def start(self, v2: bool, is_ready: bool, two_phase: bool) -> None:
        self.two_phase = two_phase
        self.manager = self.new_manager()
        self.manager.v2_offered = v2
        if is_ready:
            self.init_transactions()
            self.serve(2)
            self.begin_transaction()

    def new_manager(self) -> TransactionManager:
        machine = self

        class Watched(TransactionManager):
            def _go(self, state: State) -> None:
                assert may_follow(self.state, state), f"{self.state} to {state}"
                super()._go(state)
                machine.states.append(state)

        return Watched(
            "tx", 60_000, lambda failures: 0.1 * min(failures, 10), two_phase_commit=self.two_phase
        )

    # -------------------------------------------------------------------------------- the engine and the core

    @property
    def current(self) -> Transaction:
        return self.transactions[-1]

    def take_effects(self) -> None:
        core, manager = self.core, self.manager
        while manager.effects:
            effect, value = manager.effects.popleft()
            if effect is Effect.OPEN:
                core.is_open, core.v2, core.added, core.used, core.failed = True, value, set(), False, None
            elif effect is Effect.CLOSE:
                core.is_open = False
            elif effect is Effect.FAIL_QUEUED:
                core.queue.clear()
            elif effect is Effect.PRODUCER_ID:
                core.producer_id, core.epoch = value
                core.sequence_lost = False
            elif effect is Effect.PARTITION_ADDED:
                core.added.add(value[1])
            else:
                assert effect is Effect.FATAL
                assert not core.is_dead, "fatal twice"
                core.is_dead, core.is_open = True, False
                core.queue.clear()
        self.settle()

    def settle(self) -> None:
        """As the engine: the end is asked for once every record is decided; outcomes are told."""
        if self.manager.in_doubt and not self.core.queue:
            self.manager.records_decided()
        operation = self.operation
        if operation is None:
            return
        if operation.kind is not Kind.INIT and not operation.done and not self.ended and not self.core.queue:
            self.ended = True
            if self.core.failed is not None:
                self.manager.batch_failed(_code_of(self.core.failed), self.core.failed)
            self.manager.end(self.core.used, self.core.sequence_lost)
            self.take_effects()
            return
        if operation.done and not operation.abandoned:
            self.operation = None
            if operation.kind is Kind.COMMIT:
                self.current.outcome = self.outcome_of(operation)
            elif operation.kind is Kind.ABORT and operation.error is None:
                self.current.outcome = "aborted"
            elif operation.kind is Kind.PREPARE and operation.error is None:
                self.on_prepared()

    def outcome_of(self, commit: Operation) -> str:
        if commit.error is None:
            return "committed"
        # Fenced, or refused: whether the coordinator had committed before is not known.
        return "in doubt" if self.manager.state is State.FATAL_ERROR else "must be aborted"

    def on_prepared(self) -> None:
        """Nothing of the transaction is left to be written, so that a successor can commit the whole."""
        assert self.manager.state is State.PREPARED
        transaction = self.current
        assert not transaction.has_lost and all(operation.done for operation in transaction.offsets)
        transaction.prepared = self.manager.prepared
        if not self.coordinator.is_taken:
            assert self.coordinator.open_records.count(transaction.number) == transaction.acknowledged

    def call(self, function: Any, *arguments: Any) -> Operation | None:
        """An application's call; it may be refused, and then nothing has changed."""
        before = self.manager.state
        try:
            operation: Operation | None = function(*arguments)
        except errors.KafkaError:
            assert self.manager.state is before
            return None
        self.take_effects()
        return operation

    # -------------------------------------------------------------------------------- the application

    def begin_operation(self, function: Any) -> None:
        before = self.operation
        operation = self.call(function)
        if operation is None:
            if before is not None and before.done and before.error is not None:
                # Another call tells the error that the one which timed out has ended with.
                before.abandoned = False
                self.settle()
            return
        if before is None or operation is not before:
            self.operation, self.ended = operation, False
        self.settle()

    @precondition(lambda self: self.manager.state is State.UNINITIALIZED or self.waits_for(Kind.INIT))
    @rule()
    def init_transactions(self) -> None:
        self.begin_operation(self.manager.init)

    @precondition(
        lambda self: (
            self.two_phase and (self.manager.state is State.IN_TRANSACTION or self.waits_for(Kind.PREPARE))
        )
    )
    @rule()
    def prepare_transaction(self) -> None:
        self.begin_operation(self.manager.prepare)

    @precondition(lambda self: self.manager.state is State.PREPARED)
    @rule(names_it=st.booleans())
    def complete_transaction(self, names_it: bool) -> None:
        named = self.manager.prepared if names_it else PreparedTxnState()
        assert named is not None
        self.begin_operation(lambda: self.manager.complete(named))

    @precondition(
        lambda self: self.manager.state is State.PREPARED and self.operation is None and self.request is None
    )
    @rule(patience=st.integers(0, 6), names_it=st.booleans())
    def a_successor_takes_over_what_is_prepared(self, patience: int, names_it: bool) -> None:
        before, v2 = self.current.prepared, self.manager.v2_offered
        self.core, self.manager = Core(), self.new_manager()
        self.manager.v2_offered = v2
        was_taken, was_open = self.coordinator.is_taken, self.coordinator.state == "Ongoing"
        self.begin_operation(lambda: self.manager.init(keep_prepared=True))
        self.serve(patience)
        if self.manager.state is State.PREPARED:
            assert was_open
            assert was_taken or before is None or self.manager.prepared == before
            self.complete_transaction(names_it)
        elif self.manager.state is State.READY:
            assert not was_open or self.coordinator.is_taken

    @precondition(lambda self: self.manager.state is State.READY)
    @rule()
    def begin_transaction(self) -> None:
        with contextlib.suppress(errors.IllegalStateError):  # an operation that timed out is not finished
            self.manager.begin(self.now)
            self.transactions.append(Transaction(len(self.transactions) + 1))
        self.take_effects()

    @precondition(lambda self: self.core.is_open)
    @rule(partitions=st.lists(st.integers(0, PARTITIONS - 1), min_size=1, max_size=3))
    def send(self, partitions: list[int]) -> None:
        self.core.queue += [(self.current.number, partition) for partition in partitions]

    @precondition(lambda self: self.manager.state is State.IN_TRANSACTION)
    @rule(group=st.sampled_from(GROUPS), count=st.integers(1, 3))
    def send_offsets(self, group: str, count: int) -> None:
        number = self.current.number
        offsets: dict[tuple[str, int], tuple[int, int, str | None]] = {
            ("in", partition): (number, -1, None) for partition in range(count)
        }
        operation = self.call(
            self.manager.send_offsets, GroupOffsets(Operation(Kind.OFFSETS), group, -1, "", None, offsets)
        )
        if operation is not None:
            self.current.offsets.append(operation)

    @precondition(lambda self: self.manager.state is State.IN_TRANSACTION or self.waits_for(Kind.COMMIT))
    @rule()
    def commit_transaction(self) -> None:
        self.begin_operation(self.manager.commit)

    @precondition(
        lambda self: (
            self.manager.state in (State.IN_TRANSACTION, State.ABORTABLE_ERROR) or self.waits_for(Kind.ABORT)
        )
    )
    @rule()
    def abort_transaction(self) -> None:
        self.begin_operation(self.manager.abort)

    @precondition(lambda self: self.operation is None and self.manager.state is not State.FATAL_ERROR)
    @rule(
        partitions=st.just([]) | st.lists(st.integers(0, PARTITIONS - 1), max_size=3),
        offsets=st.integers(0, 2),
        patience=st.lists(st.sampled_from([8, 3, 2, 1, 0]), min_size=4, max_size=4),
        commits=st.sampled_from([True, True, False]),
        prepares=st.booleans(),
        dies=st.booleans(),
        loses_answer=st.booleans(),
        loses_request=st.booleans(),
        reads_late=st.booleans(),
    )
    def whole_transaction(
        self,
        partitions: list[int],
        offsets: int,
        patience: list[int],
        commits: bool,
        prepares: bool,
        dies: bool,
        loses_answer: bool,
        loses_request: bool,
        reads_late: bool,
    ) -> None:
        """Or what is left of one; other things can happen at any of its points, as the other rules say."""
        state = self.manager.state
        if state is State.UNINITIALIZED:
            self.init_transactions()
            self.serve(patience[0])
        if self.manager.state is State.READY:
            self.begin_transaction()
        if partitions and self.core.is_open:
            self.send(partitions)
            self.serve(patience[1])
        if offsets and self.manager.state is State.IN_TRANSACTION:
            self.send_offsets(GROUPS[offsets - 1], offsets)
            self.serve(patience[2])
            if loses_answer:
                self.answers_are_lost(1)
        if reads_late and self.left_behind:
            self.what_a_connection_left_is_read()
        if prepares and self.two_phase and self.manager.state is State.IN_TRANSACTION:
            self.prepare_transaction()
            self.serve(patience[2])
        if self.manager.state is State.PREPARED:
            if dies and self.operation is None and self.request is None:
                self.a_successor_takes_over_what_is_prepared(patience[3], commits)
            else:
                self.complete_transaction(commits)
        elif commits and self.manager.state is State.IN_TRANSACTION:
            self.commit_transaction()
        elif self.manager.state in (State.IN_TRANSACTION, State.ABORTABLE_ERROR):
            self.abort_transaction()
        if loses_request:
            self.take_request()
            if self.request is not None:
                self.connection_breaks()
        self.serve(patience[3])

    @rule(name=st.sampled_from(["init", "prepare", "commit", "abort"]))
    def call_whatever_the_state(self, name: str) -> None:
        self.begin_operation(getattr(self.manager, name))

    def waits_for(self, kind: Kind) -> bool:
        return self.operation is not None and self.operation.kind is kind

    @precondition(lambda self: self.operation is not None and not self.operation.done)
    @rule()
    def stop_waiting(self) -> None:
        assert self.operation is not None
        self.operation.abandoned = True

    # -------------------------------------------------------------------------------- batches

    def can_send_batch(self) -> bool:
        core = self.core
        return bool(core.queue) and (core.v2 or core.queue[0][1] in core.added)

    def ask_for_partitions(self) -> None:
        for _, partition in self.core.queue:
            if not self.core.v2 and partition not in self.core.added:
                self.manager.add_partition("t", partition)

    @precondition(lambda self: self.core.queue)
    @rule(fate=st.sampled_from(["written", "written", "written", "lost", "written but lost", "expired"]))
    def batch(self, fate: str) -> None:
        self.ask_for_partitions()
        if fate == "expired" and self.core.queue:
            # Before it was sent.
            self.core.queue.pop(0)
            self.lose(errors.KafkaTimeoutError("expired"), had_sequence=False)
        elif self.can_send_batch():
            self.send_batch(fate)
        self.take_effects()

    def send_batch(self, fate: str = "written") -> None:
        core = self.core
        number, partition = core.queue.pop(0)
        core.used = True
        error = None
        if fate != "lost":
            error = self.coordinator.produce(number, partition, core.producer_id, core.epoch, core.v2)
        if fate != "written":
            self.lose(errors.KafkaTimeoutError("expired"), had_sequence=True)
        elif error is not None:
            self.lose(errors.for_code(CODES[error])(), had_sequence=True)
        else:
            self.current.acknowledged += 1

    def lose(self, error: errors.KafkaError, had_sequence: bool) -> None:
        self.current.has_lost = True
        self.core.sequence_lost = self.core.sequence_lost or had_sequence
        self.core.failed = self.core.failed or error
        self.manager.batch_failed(_code_of(error), error)

    # -------------------------------------------------------------------------------- requests

    @rule(count=st.integers(1, 6))
    def serve(self, count: int) -> None:
        """Nothing goes wrong for a while."""
        for _ in range(count):
            while self.core.queue:
                self.ask_for_partitions()
                if not self.can_send_batch():
                    break
                self.send_batch()
                self.take_effects()
            self.take_request()
            if self.request is not None:
                if self.response is None:
                    self.request_arrives()
                self.response_arrives()

    @rule(count=st.integers(1, 3))
    def answers_are_lost(self, count: int) -> None:
        for _ in range(count):
            self.take_request()
            if self.request is not None:
                if self.response is None:
                    self.request_arrives()
                self.connection_breaks()

    @rule()
    def take_request(self) -> None:
        self.ask_for_partitions()
        if self.request is None:
            wake_at = self.manager.wake_at()
            if wake_at is not None:
                self.now = max(self.now, wake_at)
            self.request = self.manager.next_request(self.now)
        if self.request is not None:
            assert self.manager.next_request(self.now + 1000) is None, "two are under way"

    @precondition(lambda self: self.request is not None and self.response is None)
    @rule()
    def request_arrives(self) -> None:
        assert self.request is not None
        number = self.current.number if self.transactions else 0
        self.response = self.coordinator.handle(self.request, number)

    @precondition(lambda self: self.request is not None)
    @rule()
    def connection_breaks(self) -> None:
        """With the request, or with the answer to it."""
        if self.request is not None and self.response is None and self.request.api.name in LEFT_BEHIND:
            self.left_behind.append(self.request)
        self.request = self.response = None
        self.manager.unanswered(self.now)
        self.take_effects()

    @precondition(lambda self: self.left_behind)
    @rule()
    def what_a_connection_left_is_read(self) -> None:
        """When a broker was behind with its work, or paused."""
        self.coordinator.handle(self.left_behind.pop(0), 0)

    @precondition(lambda self: self.request is not None and self.response is None)
    @rule()
    def is_not_connected(self) -> None:
        self.request = None
        self.manager.not_sent(self.now)
        self.take_effects()

    @precondition(lambda self: self.response is not None)
    @rule()
    def response_arrives(self) -> None:
        response = self.response
        assert response is not None
        self.request = self.response = None
        self.manager.answered(response, "1 at h:1", self.now)
        self.take_effects()

    @precondition(lambda self: self.request is not None and self.response is None)
    @rule(data=st.data())
    def request_is_refused(self, data: st.DataObject) -> None:
        assert self.request is not None
        errors_here = RETRIABLE * 2 + PERMANENT[self.request.api.name]
        if self.request.body.get("key_type") == 1:
            errors_here = RETRIABLE
        if self.request.api.name == "EndTxn" and (
            not self.request.body["committed"] or self.coordinator.state != "Ongoing"
        ):
            # What an earlier attempt has ended is not refused.
            errors_here = RETRIABLE
        self.response = answer(self.request, data.draw(st.sampled_from(errors_here)))
        self.response_arrives()

    # -------------------------------------------------------------------------------- the coordinator

    @precondition(lambda self: self.coordinator.state == "Ongoing" and not self.two_phase)
    @rule()
    def transaction_takes_too_long(self) -> None:
        self.coordinator.time_out()

    @precondition(lambda self: self.manager.state is State.READY and self.request is None)
    @rule()
    def idle_producer_is_forgotten(self) -> None:
        """transactional.id.expiration.ms."""
        self.coordinator.producer_id = -1
        self.coordinator.is_taken = False

    @precondition(lambda self: len(self.transactions) > 2 and self.coordinator.producer_id >= 0)
    @rule()
    def another_producer_takes_over(self) -> None:
        self.coordinator.init(-1, -1)
        self.coordinator.is_taken = True

    @precondition(lambda self: len(self.transactions) > 1)
    @rule()
    def feature_level_changes(self) -> None:
        self.manager.v2_offered = not self.manager.v2_offered

    # -------------------------------------------------------------------------------- what must hold

    @invariant()
    def nothing_is_accepted_outside_a_transaction(self) -> None:
        assert not self.core.is_open or self.manager.state is State.IN_TRANSACTION

    @invariant()
    def a_fatal_error_is_the_end(self) -> None:
        if not hasattr(self, "manager") or self.manager.state is not State.FATAL_ERROR:
            return
        manager = self.manager
        assert manager.wake_at() is None
        assert self.core.is_dead
        assert self.operation is None or self.operation.done
        for call in (lambda: manager.begin(self.now), lambda: manager.send_offsets(_some_offsets())):
            try:
                call()
            except errors.KafkaError:
                continue
            raise AssertionError("a fatal error was forgotten")
        assert all(operation.done for t in self.transactions for operation in t.offsets)

    @invariant()
    def what_waits_can_go_on(self) -> None:
        """An operation that is not done has a request to send or to be answered, or records to wait for."""
        operation = self.operation
        if operation is None or operation.done:
            return
        assert self.request is not None or self.manager.wake_at() is not None or self.core.queue

    @invariant()
    def only_what_was_committed_is_committed(self) -> None:
        for number in self.coordinator.committed_records:
            transaction = self.transactions[number - 1]
            assert transaction.outcome in ("committed", "in doubt") or transaction is self.current, number

    def heal(self) -> None:
        """Everything works again; the application repeats what timed out, and aborts what it has to."""
        for _ in range(200):
            operation, state = self.operation, self.manager.state
            if operation is not None and operation.abandoned:
                if operation.kind is Kind.INIT:
                    self.begin_operation(lambda: self.manager.init(self.manager._keep_prepared))
                    continue
                call = {Kind.PREPARE: "prepare", Kind.COMMIT: "commit", Kind.ABORT: "abort"}[operation.kind]
                self.begin_operation(getattr(self.manager, call))
            elif operation is None and state in (
                State.IN_TRANSACTION,
                State.PREPARED,
                State.ABORTABLE_ERROR,
            ):
                self.abort_transaction()
            elif operation is None and state not in (State.COMMITTING, State.ABORTING, State.INITIALIZING):
                return
            self.serve(1)
        raise AssertionError(f"{self.operation and self.operation.kind} does not end")

    def teardown(self) -> None:
        if not hasattr(self, "manager"):
            return
        self.heal()
        visible = self.coordinator.committed_records
        for transaction in self.transactions:
            seen = visible.count(transaction.number)
            offsets_seen = transaction.number in self.coordinator.committed_offsets
            assert all(operation.done for operation in transaction.offsets)
            if transaction.outcome == "committed":
                assert not transaction.has_lost
                assert seen == transaction.acknowledged
                assert offsets_seen == bool(transaction.offsets)
                assert all(operation.error is None for operation in transaction.offsets)
            elif transaction.outcome != "in doubt":
                assert seen == 0 and not offsets_seen


def _code_of(error: errors.KafkaError) -> int:
    return error.errno if isinstance(error, errors.BrokerResponseError) and error.errno else -1


def _some_offsets() -> GroupOffsets:
    return GroupOffsets(Operation(Kind.OFFSETS), "g", -1, "", None, {("in", 0): (1, -1, None)})


Transactions.TestCase.settings = settings(
    max_examples=200,
    stateful_step_count=50,
    deadline=None,
    suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow],
)
TestTransactions = Transactions.TestCase
