"""The transactional producer's side of the transaction protocol, as a state machine without input or output.

The application's calls come in as methods and give an :class:`Operation` to wait for. The engine asks
:meth:`TransactionManager.next_request` what to send, sends it, and brings back the answer; what the rest of the
producer has to do comes out of :attr:`TransactionManager.effects`. At most one transactional request is under way at
a time. Times are seconds of a monotonic clock.

How an error is treated follows the Java client's TransactionManager, with one difference: when the coordinator says,
at the end of a transaction, that the epoch is old or the state wrong, that may be another producer with the same
transactional id (fencing, fatal) or the coordinator's own abort after ``transaction.timeout.ms`` (not fatal). The
manager asks by bumping the epoch (KIP-360, KIP-588): a coordinator that agrees has not fenced this producer.
"""

from __future__ import annotations

import collections
import enum
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from kprod import errors
from kprod.errors import KafkaError
from kprod.protocol import (
    ADD_OFFSETS_TO_TXN,
    ADD_PARTITIONS_TO_TXN,
    END_TXN,
    FIND_COORDINATOR,
    INIT_PRODUCER_ID,
    TXN_OFFSET_COMMIT,
    Api,
    Body,
)
from kprod.transactions.states import State, may_follow

# Kafka's error codes that are treated apart.
_COORDINATOR_LOST: Final = frozenset({15, 16})  # COORDINATOR_NOT_AVAILABLE, NOT_COORDINATOR
_CONCURRENT: Final = 51
_INVALID_EPOCH: Final = 47
_INVALID_TXN_STATE: Final = 48
_FENCED: Final = 90
_UNKNOWN_PRODUCER_ID: Final = 59
_ABORTABLE: Final = 120

FIRST_CONCURRENT_BACKOFF_S: Final = 0.02
"""The pause after CONCURRENT_TRANSACTIONS to the first AddPartitionsToTxn: the last transaction is just ending."""

TRANSACTION_KEY: Final = 1
GROUP_KEY: Final = 0


class Kind(enum.Enum):
    """What the application waits for."""

    INIT = "init_transactions"
    OFFSETS = "send_offsets_to_transaction"
    COMMIT = "commit_transaction"
    ABORT = "abort_transaction"


class Operation:
    """One call of the application that takes requests. ``done`` and ``error`` change under the engine's lock."""

    def __init__(self, kind: Kind) -> None:
        self.kind = kind
        self.done = False
        self.error: KafkaError | None = None

    def finish(self, error: KafkaError | None = None) -> None:
        """It is over, well or with an error."""
        if not self.done:
            self.done = True
            self.error = error


@dataclass
class GroupOffsets:
    """Offsets on their way into the transaction."""

    operation: Operation
    group_id: str
    generation: int
    member_id: str
    instance_id: str | None
    offsets: dict[tuple[str, int], tuple[int, int, str | None]]
    """(topic, partition) to (offset, leader epoch, metadata)."""
    added: bool = False


@dataclass(frozen=True)
class Request:
    """What to send next."""

    api: Api
    body: Body
    to: tuple[int, str] | None
    """The coordinator to send it to, (key type, key); None: any broker."""
    at_most: int | None = None
    """The newest API version that may be used."""
    at_least: int | None = None


class Effect(enum.Enum):
    """What the rest of the producer has to do."""

    PRODUCER_ID = "new batches are under another (producer id, epoch)"
    PARTITION_ADDED = "batches of a (topic, partition) may be sent"
    OPEN = "records are accepted"
    CLOSE = "records are refused"
    FAIL_QUEUED = "records that wait to be sent fail"
    FATAL = "the producer can send nothing more"


@dataclass
class _Coordinator:
    node_id: int
    host: str
    port: int


@dataclass
class TransactionManager:
    """One transactional producer.

    Args:
        transactional_id: the option.
        timeout_ms: the option transaction_timeout_ms.
        backoff: the pause in seconds after so many failures in a row.
    """

    transactional_id: str
    timeout_ms: int
    backoff: Callable[[int], float]
    state: State = State.UNINITIALIZED
    producer_id: int = -1
    epoch: int = -1
    v2: bool = False
    """KIP-890: brokers add partitions by themselves and every transaction has an epoch of its own."""
    v2_offered: bool = False
    """The cluster's finalized feature transaction.version is 2 or newer."""
    error: KafkaError | None = None
    """Why the transaction must be aborted, or the producer has ended."""
    effects: collections.deque[tuple[Effect, Any]] = field(default_factory=collections.deque)
    coordinators: dict[tuple[int, str], _Coordinator] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._key = (TRANSACTION_KEY, self.transactional_id)
        self._pending: Operation | None = None
        self._ready_to_end = False
        self._batches_sent = False
        self._sequence_lost = False
        self._recover = False
        self._ended_by_coordinator = False
        self._new_partitions: dict[tuple[str, int], None] = {}
        self._partitions: set[tuple[str, int]] = set()
        self._offsets: collections.deque[GroupOffsets] = collections.deque()
        self._offsets_added = False
        self._under_way: Request | None = None
        self._failures = 0
        self._not_before = 0.0

    # ------------------------------------------------------------------------------------- the application's calls

    def init(self) -> Operation:
        """Begin ``init_transactions()``, or go on with one that timed out.

        Raises:
            IllegalStateError: it was done already.
            KafkaError: the producer has ended.
        """
        again = self._continue(Kind.INIT)
        if again is not None:
            return again
        self._check_alive("init_transactions()")
        if self.state is not State.UNINITIALIZED:
            raise self._wrong_state("init_transactions()", "it is called once, before the first transaction")
        self._go(State.INITIALIZING)
        self.error = None
        return self._begin(Kind.INIT)

    def begin(self) -> None:
        """``begin_transaction()``.

        Raises:
            IllegalStateError: not initialised, a transaction is open, or an operation timed out and must be repeated.
            KafkaError: the producer has ended.
        """
        self._check_alive("begin_transaction()")
        self._check_nothing_pending("begin_transaction()")
        if self.state is not State.READY:
            raise self._wrong_state("begin_transaction()", _ADVICE[self.state])
        self._go(State.IN_TRANSACTION)
        self.error = None
        self._batches_sent = False
        self._ended_by_coordinator = False
        self._partitions.clear()
        self._new_partitions.clear()
        self._offsets_added = False
        self.effects.append((Effect.OPEN, self.v2))

    def send_offsets(self, group: GroupOffsets) -> Operation:
        """``send_offsets_to_transaction()``.

        Raises:
            IllegalStateError: no transaction is open.
            KafkaError: the transaction must be aborted, or the producer has ended.
        """
        self._check_alive("send_offsets_to_transaction()")
        self._check_nothing_pending("send_offsets_to_transaction()")
        if self.state is State.ABORTABLE_ERROR:
            raise self.abortable("send_offsets_to_transaction()")
        if self.state is not State.IN_TRANSACTION:
            raise self._wrong_state("send_offsets_to_transaction()", _ADVICE[self.state])
        if not group.offsets:
            group.operation.finish()
            return group.operation
        self._offsets.append(group)
        return group.operation

    def commit(self) -> Operation:
        """Begin ``commit_transaction()``, or go on with one that timed out. Follow with :meth:`end`."""
        again = self._continue(Kind.COMMIT)
        if again is not None:
            return again
        self._check_alive("commit_transaction()")
        if self.state is State.ABORTABLE_ERROR:
            raise self.abortable("commit_transaction()")
        if self.state is not State.IN_TRANSACTION:
            raise self._wrong_state("commit_transaction()", _ADVICE[self.state])
        self._go(State.COMMITTING)
        self.effects.append((Effect.CLOSE, None))
        return self._begin(Kind.COMMIT)

    def abort(self) -> Operation:
        """Begin ``abort_transaction()``, or go on with one that timed out. Follow with :meth:`end`."""
        again = self._continue(Kind.ABORT)
        if again is not None:
            return again
        self._check_alive("abort_transaction()")
        if self.state not in (State.IN_TRANSACTION, State.ABORTABLE_ERROR):
            raise self._wrong_state("abort_transaction()", _ADVICE[self.state])
        self._go(State.ABORTING)
        for group in self._offsets:
            group.operation.finish(errors.TransactionAbortedError("the transaction was aborted"))
        self._offsets.clear()
        self._new_partitions.clear()
        self.effects.append((Effect.CLOSE, None))
        self.effects.append((Effect.FAIL_QUEUED, None))
        return self._begin(Kind.ABORT)

    def end(self, batches_sent: bool, sequence_lost: bool) -> None:
        """Every record of the transaction is decided: its end may be asked for.

        Args:
            batches_sent: a batch was sent since the transaction began.
            sequence_lost: a batch that had its sequence number was given up, so the epoch must be bumped.
        """
        if self._pending is None or self._pending.done:
            return
        self._batches_sent = batches_sent
        self._sequence_lost = self._sequence_lost or sequence_lost
        self._ready_to_end = True
        self._settle_end()

    def _settle_end(self) -> None:
        """End a transaction that the coordinator knows nothing of, or has ended itself."""
        known = self._batches_sent or self._offsets_added or bool(self._partitions) or self._recover
        if not known and not self._sequence_lost and self._under_way is None:
            self._ended()

    # ------------------------------------------------------------------------------------- the core's signs

    def add_partition(self, topic: str, partition: int) -> None:
        """A batch for a partition that is not part of the transaction yet is ready."""
        if self.state in (State.IN_TRANSACTION, State.COMMITTING) and (topic, partition) not in self._partitions:
            self._new_partitions[(topic, partition)] = None

    def batch_failed(self, code: int, error: KafkaError) -> None:
        """A batch of the transaction failed for good."""
        if self.state in (State.IN_TRANSACTION, State.COMMITTING):
            self._abortable(error)

    # ------------------------------------------------------------------------------------- requests

    def wake_at(self) -> float | None:
        """When :meth:`next_request` may have something; None: not before something happens."""
        if self._under_way is not None or self._wanted() is None:
            return None
        return self._not_before

    def next_request(self, now: float) -> Request | None:
        """What to send now. The engine then calls :meth:`answered`, :meth:`unanswered` or :meth:`not_sent`."""
        if self._under_way is not None or now < self._not_before:
            return None
        self._under_way = self._wanted()
        return self._under_way

    def _wanted(self) -> Request | None:
        request = self._wanted_ignoring_coordinators()
        if request is None or request.to is None or request.to in self.coordinators:
            return request
        key_type, key = request.to
        return Request(
            FIND_COORDINATOR, {"key": key, "key_type": key_type, "coordinator_keys": [key]}, None
        )

    def _wanted_ignoring_coordinators(self) -> Request | None:
        ids: Body = {
            "transactional_id": self.transactional_id,
            "producer_id": self.producer_id,
            "producer_epoch": self.epoch,
        }
        if self.state is State.INITIALIZING:
            return self._init_request(-1, -1)
        if self._recover:
            return self._init_request(self.producer_id, self.epoch)
        if self.state in (State.IN_TRANSACTION, State.COMMITTING):
            if self._new_partitions and not self.v2:
                topics: dict[str, list[int]] = {}
                for topic, partition in self._new_partitions:
                    topics.setdefault(topic, []).append(partition)
                body = {**ids, "topics": [{"name": name, "partitions": p} for name, p in topics.items()]}
                return Request(ADD_PARTITIONS_TO_TXN, body, self._key)
            if self._offsets:
                return self._offsets_request(ids)
        if self.state in (State.COMMITTING, State.ABORTING) and self._ready_to_end:
            if self._sequence_lost and not (self._batches_sent or self._offsets_added or self._partitions):
                return self._init_request(self.producer_id, self.epoch)
            body = {**ids, "committed": self.state is State.COMMITTING}
            return Request(END_TXN, body, self._key, at_most=None if self.v2 else 4)
        return None

    def _init_request(self, producer_id: int, epoch: int) -> Request:
        body: Body = {
            "transactional_id": self.transactional_id,
            "transaction_timeout_ms": self.timeout_ms,
            "producer_id": producer_id,
            "producer_epoch": epoch,
        }
        return Request(INIT_PRODUCER_ID, body, self._key, at_least=3 if producer_id >= 0 else None)

    def _offsets_request(self, ids: Body) -> Request:
        group = self._offsets[0]
        if not self.v2 and not group.added:
            return Request(ADD_OFFSETS_TO_TXN, {**ids, "group_id": group.group_id}, self._key)
        topics: dict[str, list[Body]] = {}
        for (topic, partition), (offset, leader_epoch, metadata) in group.offsets.items():
            topics.setdefault(topic, []).append(
                {
                    "partition_index": partition,
                    "committed_offset": offset,
                    "committed_leader_epoch": leader_epoch,
                    "committed_metadata": metadata,
                }
            )
        body = {
            **ids,
            "group_id": group.group_id,
            "generation_id": group.generation,
            "member_id": group.member_id,
            "group_instance_id": group.instance_id,
            "topics": [{"name": name, "partitions": rows} for name, rows in topics.items()],
        }
        default = group.generation < 0 and not group.member_id and group.instance_id is None
        return Request(
            TXN_OFFSET_COMMIT,
            body,
            (GROUP_KEY, group.group_id),
            at_most=None if self.v2 else 4,
            at_least=None if default else 3,
        )

    def not_sent(self, now: float) -> None:
        """There is no connection to send the request on yet."""
        self._under_way = None
        self._not_before = now + 0.02

    def unanswered(self, now: float) -> None:
        """The connection ended before the answer came: look the coordinator up again and repeat."""
        request = self._under_way
        self._under_way = None
        if request is not None and request.to is not None:
            self.coordinators.pop(request.to, None)
        self._retry(now)

    def unsupported(self, request: Request, broker: str) -> None:
        """The broker does not know the request in a version that will do."""
        self._under_way = None
        self._fatal(
            errors.UnsupportedVersionError(f"the broker does not support {request.api.name} as needed", broker=broker)
        )

    def _retry(self, now: float, pause: float | None = None) -> None:
        self._failures += 1
        self._not_before = now + (self.backoff(self._failures) if pause is None else pause)

    # ------------------------------------------------------------------------------------- answers

    def answered(self, body: Body, broker: str, now: float) -> None:
        """Take over the answer to the request under way."""
        request = self._under_way
        self._under_way = None
        if request is None or self.state is State.FATAL_ERROR:
            return
        handler: Callable[[Request, Body, str, float], None] = {
            FIND_COORDINATOR.key: self._on_coordinator,
            INIT_PRODUCER_ID.key: self._on_producer_id,
            ADD_PARTITIONS_TO_TXN.key: self._on_partitions_added,
            ADD_OFFSETS_TO_TXN.key: self._on_offsets_added,
            TXN_OFFSET_COMMIT.key: self._on_offsets_committed,
            END_TXN.key: self._on_end,
        }[request.api.key]
        before = self._failures
        handler(request, body, broker, now)
        if self._failures == before:
            self._failures = 0
            self._not_before = 0.0

    def _lost_or_retriable(self, code: int, request: Request, now: float) -> bool:
        """Whether an error only means: again (and to which coordinator)."""
        if code in _COORDINATOR_LOST:
            if request.to is not None:
                self.coordinators.pop(request.to, None)
            self._retry(now)
            return True
        if code and errors.for_code(code).retriable:
            self._retry(now)
            return True
        return False

    def _on_coordinator(self, request: Request, body: Body, broker: str, now: float) -> None:
        row = body["coordinators"][0] if body.get("coordinators") else body
        key = (request.body["key_type"], request.body["key"])
        code = row["error_code"]
        if code == 0:
            self.coordinators[key] = _Coordinator(row["node_id"], row["host"], row["port"])
            return
        if code in _COORDINATOR_LOST or errors.for_code(code).retriable:
            self._retry(now)
            return
        error = errors.for_code(code)(row.get("error_message") or "looking up the coordinator failed", broker=broker)
        if key[0] == GROUP_KEY:
            self._abortable(error)
        else:
            self._fatal(error)

    def _on_producer_id(self, request: Request, body: Body, broker: str, now: float) -> None:
        code = body["error_code"]
        if code == 0:
            self.producer_id, self.epoch = body["producer_id"], body["producer_epoch"]
            self._sequence_lost = False
            self.effects.append((Effect.PRODUCER_ID, (self.producer_id, self.epoch)))
            if self.state is State.INITIALIZING:
                # Kept for the producer's life: an upgrade of the cluster takes effect with the next producer.
                self.v2 = self.v2_offered
                self._go(State.READY)
                self._finish()
            else:
                self._recovered()
            return
        if self._lost_or_retriable(code, request, now):
            return
        kind = errors.for_code(code)
        if code in (_INVALID_EPOCH, _FENCED):
            self._fatal(self._fenced(broker))
        elif self.state is State.INITIALIZING and issubclass(kind, errors.AuthorizationError):
            # init_transactions() may be called again once the rights are there.
            self._go(State.UNINITIALIZED)
            self._finish(kind("init_transactions() was refused", broker=broker))
        else:
            self._fatal(kind("InitProducerId was refused", broker=broker))

    def _recovered(self) -> None:
        """The epoch was bumped, so this producer is not fenced, and whatever was open is aborted."""
        self._recover = False
        self._ended_by_coordinator = True
        if self.state is State.COMMITTING:
            self._abortable(
                errors.TransactionAbortedError(
                    "the coordinator had aborted the transaction, probably after transaction_timeout_ms "
                    f"({self.timeout_ms})",
                    persisted="no",
                )
            )
        elif self.state is State.ABORTING:
            self._ended()

    def _on_partitions_added(self, request: Request, body: Body, broker: str, now: float) -> None:
        refused: dict[int, list[tuple[str, int]]] = {}
        for topic in body["results_by_topic"]:
            for row in topic["results_by_partition"]:
                place = (topic["name"], row["partition_index"])
                code = row["partition_error_code"]
                if code == 0:
                    self._new_partitions.pop(place, None)
                    self._partitions.add(place)
                    self.effects.append((Effect.PARTITION_ADDED, place))
                else:
                    refused.setdefault(code, []).append(place)
        for code, places in refused.items():
            if code == _CONCURRENT and not self._partitions:
                self._retry(now, FIRST_CONCURRENT_BACKOFF_S)
                return
            if self._lost_or_retriable(code, request, now):
                return
        for code, places in refused.items():
            if code == 55 and len(refused) > 1:  # OPERATION_NOT_ATTEMPTED: because of another partition
                continue
            where = ", ".join(f"{topic}-{partition}" for topic, partition in places)
            self._refused(code, f"adding {where} to the transaction was refused", broker)
            return

    def _on_offsets_added(self, request: Request, body: Body, broker: str, now: float) -> None:
        code = body["error_code"]
        if code == 0:
            self._offsets_added = True
            self._offsets[0].added = True
        elif not self._lost_or_retriable(code, request, now):
            group = self._offsets[0]
            self._refused(code, f"adding offsets of group {group.group_id!r} to the transaction was refused", broker)

    def _on_offsets_committed(self, request: Request, body: Body, broker: str, now: float) -> None:
        group = self._offsets[0]
        if self.v2:
            self._offsets_added = True
        for topic in body["topics"]:
            for row in topic["partitions"]:
                code = row["error_code"]
                if code == 0:
                    group.offsets.pop((topic["name"], row["partition_index"]), None)
                    continue
                if self._lost_or_retriable(code, request, now):
                    # Only what is left is sent again.
                    continue
                if code in (22, 25, 69, 113):  # the consumer is not in the group any more (KIP-447)
                    self._abortable(
                        errors.CommitFailedError(
                            f"the offsets of group {group.group_id!r} were refused with "
                            f"{errors.name_for_code(code)}: the group has given the partitions to another member"
                        )
                    )
                else:
                    self._refused(code, f"the offsets of group {group.group_id!r} were refused", broker)
                return
        if not group.offsets:
            self._offsets.popleft()
            group.operation.finish()

    def _on_end(self, request: Request, body: Body, broker: str, now: float) -> None:
        code = body["error_code"]
        if code == 0:
            if self.v2 and body.get("producer_id", -1) >= 0:
                self.producer_id, self.epoch = body["producer_id"], body["producer_epoch"]
                self._sequence_lost = False
                self.effects.append((Effect.PRODUCER_ID, (self.producer_id, self.epoch)))
            if self._sequence_lost:
                # KIP-360: sequence numbers were lost on the way; a new epoch starts them at 0.
                self._recover = True
                return
            self._ended()
            return
        if self._lost_or_retriable(code, request, now):
            return
        if code in (_INVALID_EPOCH, _FENCED, _INVALID_TXN_STATE, _UNKNOWN_PRODUCER_ID):
            # Fenced, or aborted by the coordinator after the timeout? Bumping the epoch tells.
            self._recover = True
            return
        if code == _ABORTABLE and self.state is State.COMMITTING:
            self._abortable(errors.for_code(code)("the coordinator wants the transaction aborted", broker=broker))
            return
        self._fatal(errors.for_code(code)("ending the transaction was refused", broker=broker))

    def _refused(self, code: int, text: str, broker: str) -> None:
        """A request inside the transaction was refused for good."""
        kind = errors.for_code(code)
        if code in (_INVALID_EPOCH, _FENCED, _INVALID_TXN_STATE, _UNKNOWN_PRODUCER_ID):
            # To be settled at the abort, which finds out whether this producer is fenced.
            self._sequence_lost = True
            self._abortable(kind(text, broker=broker))
        elif kind in (errors.TransactionalIdAuthorizationFailedError, errors.InvalidProducerIdMappingError):
            self._fatal(kind(text, broker=broker))
        else:
            self._abortable(kind(text, broker=broker))

    # ------------------------------------------------------------------------------------- changes of state

    def _go(self, state: State) -> None:
        if not may_follow(self.state, state):
            raise AssertionError(f"no transition from {self.state} to {state}")
        self.state = state

    def _begin(self, kind: Kind) -> Operation:
        self._pending = Operation(kind)
        self._ready_to_end = False
        return self._pending

    def _continue(self, kind: Kind) -> Operation | None:
        """The operation that timed out, if the same one is called again."""
        pending = self._pending
        if pending is None or pending.done:
            return None
        if pending.kind is kind:
            return pending
        raise errors.IllegalStateError(
            f"{pending.kind.value}() timed out and must be called again before {kind.value}()"
        )

    def _finish(self, error: KafkaError | None = None) -> None:
        if self._pending is not None:
            self._pending.finish(error)
            self._pending = None
        self._ready_to_end = False

    def _ended(self) -> None:
        self._go(State.READY)
        self._sequence_lost = False
        self.error = None
        self._finish()

    def _abortable(self, error: KafkaError) -> None:
        if self.state not in (State.IN_TRANSACTION, State.COMMITTING):
            return
        self._go(State.ABORTABLE_ERROR)
        self.error = error
        for group in self._offsets:
            group.operation.finish(self.abortable(Kind.OFFSETS.value + "()"))
        self._offsets.clear()
        self._new_partitions.clear()
        self.effects.append((Effect.CLOSE, None))
        self.effects.append((Effect.FAIL_QUEUED, None))
        self._finish(self.abortable(Kind.COMMIT.value + "()"))

    def _fatal(self, error: KafkaError) -> None:
        if self.state is State.FATAL_ERROR:
            return
        self._go(State.FATAL_ERROR)
        self.error = error
        for group in self._offsets:
            group.operation.finish(error)
        self._offsets.clear()
        self._recover = False
        self.effects.append((Effect.FATAL, error))
        self._finish(error)

    def fatal(self, error: KafkaError) -> None:
        """The core met an error that ends the producer."""
        self._fatal(error)

    # ------------------------------------------------------------------------------------- errors

    def _fenced(self, broker: str) -> KafkaError:
        return errors.ProducerFencedError(
            f"another producer with transactional_id {self.transactional_id!r} has taken over; close this one",
            broker=broker,
        )

    def abortable(self, what: str) -> KafkaError:
        """The error for a call that is not possible because the transaction must be aborted."""
        cause = self.error
        kind = type(cause) if isinstance(cause, (errors.CommitFailedError, errors.TransactionAbortedError)) else None
        error = (kind or errors.TransactionAbortableError)(
            f"{what} is not possible, the transaction must be aborted: call abort_transaction(), then begin again. "
            f"Reason: {cause}"
        )
        error.__cause__ = cause
        return error

    def no_transaction(self) -> KafkaError:
        """Why ``send()`` is refused."""
        if self.state is State.ABORTABLE_ERROR:
            return self.abortable("send()")
        if self.state is State.FATAL_ERROR and self.error is not None:
            return self.error
        return self._wrong_state("send()", _ADVICE[self.state])

    def _wrong_state(self, what: str, advice: str) -> KafkaError:
        return errors.IllegalStateError(f"{what} is not possible, the producer is {self.state.value}: {advice}")

    def _check_nothing_pending(self, what: str) -> None:
        if self._pending is not None and not self._pending.done:
            raise errors.IllegalStateError(
                f"{what} is not possible: {self._pending.kind.value}() timed out and must be called again first"
            )

    def _check_alive(self, what: str) -> None:
        if self.state is State.FATAL_ERROR:
            cause = self.error
            kind = type(cause) if isinstance(cause, errors.BrokerResponseError) else KafkaError
            error = kind(f"{what} is not possible, close the producer: {cause}")
            error.__cause__ = cause
            raise error


_ADVICE: Final[Mapping[State, str]] = {
    State.UNINITIALIZED: "call init_transactions() first",
    State.INITIALIZING: "init_transactions() is under way",
    State.READY: "call begin_transaction() first",
    State.IN_TRANSACTION: "commit or abort the open transaction first",
    State.COMMITTING: "wait for commit_transaction()",
    State.ABORTING: "wait for abort_transaction()",
    State.ABORTABLE_ERROR: "call abort_transaction()",
    State.FATAL_ERROR: "close the producer",
}


def group_metadata_fields(metadata: Any) -> tuple[str, int, str, str | None]:
    """(group id, generation, member id, instance id) of what an application has as group metadata.

    Args:
        metadata: a group id; kafka-python's ConsumerGroupMetadata; any object or sequence with those fields;
            confluent-kafka's opaque ConsumerGroupMetadata.

    Raises:
        TypeError: it is none of them.
    """
    if isinstance(metadata, str):
        if not metadata:
            raise ValueError("group_metadata must not be an empty group id")
        return metadata, -1, "", None
    if hasattr(metadata, "group_id"):
        return (
            str(metadata.group_id),
            int(getattr(metadata, "generation_id", -1)),
            str(getattr(metadata, "member_id", "") or ""),
            getattr(metadata, "group_instance_id", None),
        )
    if isinstance(metadata, Sequence) and not isinstance(metadata, bytes) and len(metadata) == 4:
        group_id, generation, member_id, instance_id = metadata
        return str(group_id), int(generation), str(member_id or ""), instance_id
    if isinstance(metadata, bytes) and metadata.startswith(_CONFLUENT_PREFIX):
        return _confluent_fields(metadata)
    raise TypeError(
        "group_metadata must be a group id (str) or the consumer's group metadata (consumer_group_metadata() of "
        f"confluent-kafka, group_metadata() of kafka-python), got {type(metadata).__name__}"
    )


_CONFLUENT_PREFIX: Final = b"CGMDv2:"


def _confluent_fields(raw: bytes) -> tuple[str, int, str, str | None]:
    """The fields of librdkafka's serialised group metadata.

    After the prefix: the generation as a 32-bit integer in the machine's byte order, group id and member id, each
    ended by a NUL, one byte that is 1 when there is no instance id, and the instance id with a NUL.
    """
    start = len(_CONFLUENT_PREFIX)
    try:
        generation = int.from_bytes(raw[start : start + 4], sys.byteorder, signed=True)
        group_id, member_id, rest = raw[start + 4 :].split(b"\0", 2)
        instance_id = None if rest[0] else rest[1 : rest.index(b"\0", 1)].decode()
    except (ValueError, IndexError):
        raise TypeError("group_metadata are not in the form that this version of confluent-kafka is known by") from None
    return group_id.decode(), generation, member_id.decode(), instance_id
