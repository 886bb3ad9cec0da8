"""The transactional producer's side of the transaction protocol, as a state machine without input or output.

The application's calls come in as methods and give an :class:`Operation` to wait for. The engine asks
:meth:`TransactionManager.next_request` what to send, sends it, and brings back the answer; what the rest of
the producer has to do comes out of :attr:`TransactionManager.effects`. At most one transactional request is
under way at a time. Times are seconds of a monotonic clock.

How an error is treated follows the Java client's TransactionManager, with one difference: when the
coordinator says that the epoch is old, the producer id unknown or the state wrong, that may be another
producer with the same transactional id (fencing, fatal), or the coordinator's own abort after
``transaction.timeout.ms``, or an id that it has forgotten after long idleness (neither is fatal). The manager
asks by bumping the epoch (KIP-360, KIP-588): a coordinator that agrees has not fenced this producer. While a
successor is inside ``init_transactions()`` it would agree too, to the one or the other; so the manager waits
before it asks, unless the transaction is old enough for the timeout, and lets a successor go first.
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
from kprod.protocol.init_producer_id import (
    NEWEST_STABLE_INIT_PRODUCER_ID,
    TWO_PHASE_COMMIT_INIT_PRODUCER_ID,
)
from kprod.transactions.prepared import PreparedTxnState
from kprod.transactions.states import State, may_follow

# Kafka's error codes that are treated apart.
_COORDINATOR_LOST: Final = frozenset({15, 16})  # COORDINATOR_NOT_AVAILABLE, NOT_COORDINATOR
_REQUEST_TIMED_OUT: Final = 7
_UNSUPPORTED_VERSION: Final = 35
_INVALID_TXN_STATE: Final = 48
_CONCURRENT: Final = 51
_INVALID_TRANSACTION_TIMEOUT: Final = 50
_NOT_ATTEMPTED: Final = 55
_FENCED: Final = frozenset({47, 90})  # INVALID_PRODUCER_EPOCH, PRODUCER_FENCED
# And INVALID_TXN_STATE, INVALID_PRODUCER_ID_MAPPING, UNKNOWN_PRODUCER_ID.
_PERHAPS_FENCED: Final = _FENCED | {_INVALID_TXN_STATE, 49, 59}
_LEFT_GROUP: Final = frozenset({22, 25, 69, 113})
"""ILLEGAL_GENERATION, UNKNOWN_MEMBER_ID, GROUP_ID_NOT_FOUND, STALE_MEMBER_EPOCH (KIP-447)."""
_ABORTABLE: Final = 120

_ADDING: Final = frozenset({ADD_PARTITIONS_TO_TXN.key, ADD_OFFSETS_TO_TXN.key, TXN_OFFSET_COMMIT.key})
"""Requests that open the transaction at the coordinator."""

FIRST_CONCURRENT_BACKOFF_S: Final = 0.02
"""The pause after CONCURRENT_TRANSACTIONS to the first AddPartitionsToTxn: the last one is just ending."""

LOOK_AGAIN_S: Final = 1.0
"""How long a connection to a coordinator may take before another broker is asked whether it still is one."""

FIRST_VERDICT_PAUSE_S: Final = 0.75
"""The pause before a coordinator is asked whether this producer is fenced; longer than what another producer
waits before it repeats InitProducerId (Java and kprod 0.1 s, librdkafka 0.5 s). It doubles as long as no
transaction is committed in between, for successors that wait longer."""
LAST_VERDICT_PAUSE_S: Final = 3.0

_COLLECTING: Final = frozenset({State.IN_TRANSACTION, State.PREPARING, State.COMMITTING})
"""States in which records and offsets of the transaction may be on their way."""

_TWO_PHASE_COMMIT_NEEDS: Final = (
    "transaction_two_phase_commit_enable=True needs InitProducerId version 6 (KIP-939). Kafka has it from "
    "4.1 on, where brokers run with unstable.api.versions.enable=true, unstable.feature.versions.enable=true "
    "and transaction.two.phase.commit.enable=true; leave the option out for brokers without"
)

TRANSACTION_KEY: Final = 1
GROUP_KEY: Final = 0


class Kind(enum.Enum):
    """What the application waits for."""

    INIT = "init_transactions"
    OFFSETS = "send_offsets_to_transaction"
    PREPARE = "prepare_transaction"
    COMMIT = "commit_transaction"
    ABORT = "abort_transaction"


class Operation:
    """One call of the application that takes requests. Its attributes change under the engine's lock."""

    def __init__(self, kind: Kind) -> None:
        self.kind = kind
        self.done = False
        self.error: KafkaError | None = None
        self.abandoned = False
        """The application stopped waiting for it, and will get its outcome from the same call made again."""

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
        two_phase_commit: the option transaction_two_phase_commit_enable (KIP-939).
    """

    transactional_id: str
    timeout_ms: int
    backoff: Callable[[int], float]
    two_phase_commit: bool = False
    state: State = State.UNINITIALIZED
    producer_id: int = -1
    epoch: int = -1
    v2: bool = False
    """KIP-890: brokers add partitions by themselves and every transaction has an epoch of its own."""
    v2_offered: bool = False
    """The cluster's finalized feature transaction.version is 2 or newer."""
    error: KafkaError | None = None
    """Why the transaction must be aborted, or the producer has ended."""
    prepared: PreparedTxnState | None = None
    """What names the transaction that was prepared; None: none was since the last began."""
    effects: collections.deque[tuple[Effect, Any]] = field(default_factory=collections.deque)
    coordinators: dict[tuple[int, str], _Coordinator] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._key = (TRANSACTION_KEY, self.transactional_id)
        self._pending: Operation | None = None
        self._keep_prepared = False
        self._is_kept = False
        self._ready_to_end = False
        self._batches_sent = False
        self._sequence_lost = False
        self._recover = False
        self._recover_reason: KafkaError | None = None
        self._in_doubt = False
        self._records_decided = False
        self._began_at = 0.0
        self._verdict_pause = FIRST_VERDICT_PAUSE_S
        self._decided = False
        self._perhaps_added = False
        self._perhaps_ended = False
        self._left_behind = False
        self._asks_with_next_epoch = False
        self._new_partitions: dict[tuple[str, int], None] = {}
        self._partitions: set[tuple[str, int]] = set()
        self._offsets: collections.deque[GroupOffsets] = collections.deque()
        self._offsets_added = False
        self._offsets_under_way: GroupOffsets | None = None
        self._under_way: Request | None = None
        self._failures = 0
        self._not_before = 0.0
        self._no_connection_since: float | None = None

    # -------------------------------------------------------------------------------- the application's calls

    def init(self, keep_prepared: bool = False) -> Operation:
        """Begin ``init_transactions()``, or go on with one that timed out.

        Args:
            keep_prepared: leave a transaction open that a predecessor has left, as prepared (KIP-939).

        Raises:
            IllegalStateError: it was done already; or the argument needs an option that is not set, or is not
                that of the call to go on with.
            KafkaError: the producer has ended.
        """
        if keep_prepared:
            self._check_two_phase_commit("init_transactions(keep_prepared_txn=True)")
        if self.state is State.INITIALIZING and bool(keep_prepared) is not self._keep_prepared:
            raise errors.IllegalStateError(
                f"init_transactions(keep_prepared_txn={keep_prepared}) is not possible: the one that timed "
                f"out, with keep_prepared_txn={self._keep_prepared}, goes on and must be called again"
            )
        again = self._continue(Kind.INIT)
        if again is not None:
            return again
        self._check_alive("init_transactions()")
        if self.state is not State.UNINITIALIZED:
            raise self._wrong_state("init_transactions()", "it is called once, before the first transaction")
        self._go(State.INITIALIZING)
        self._keep_prepared = bool(keep_prepared)
        self.error = None
        return self._begin(Kind.INIT)

    def begin(self, now: float) -> None:
        """``begin_transaction()``.

        Args:
            now: the time; the coordinator's timeout ends later than one counted from here.

        Raises:
            IllegalStateError: not initialised, a transaction is open, or an operation timed out and must be
                repeated.
            KafkaError: the producer has ended.
        """
        self._check_alive("begin_transaction()")
        self._check_nothing_pending("begin_transaction()")
        if self.state is not State.READY:
            raise self._wrong_state("begin_transaction()", _ADVICE[self.state])
        self._go(State.IN_TRANSACTION)
        # After a downgrade of the cluster. An upgrade needs a new epoch, which comes with an end.
        self.v2 = self.v2 and self.v2_offered
        self.error = None
        self.prepared = None
        self._is_kept = False
        self._began_at = now
        self._batches_sent = False
        self._in_doubt = False
        self._records_decided = False
        self._decided = False
        self._perhaps_added = False
        self._perhaps_ended = False
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
        if self.state is State.ABORTABLE_ERROR and self.awaits_verdict:
            self._offsets.append(group)
            return group.operation
        if self.state is State.ABORTABLE_ERROR:
            raise self.abortable("send_offsets_to_transaction()")
        if self.state is not State.IN_TRANSACTION:
            raise self._wrong_state("send_offsets_to_transaction()", _ADVICE[self.state])
        if not group.offsets:
            group.operation.finish()
            return group.operation
        self._offsets.append(group)
        return group.operation

    def prepare(self) -> Operation:
        """Begin ``prepare_transaction()``, or go on with one that timed out. Follow with :meth:`end`.

        Once it is done, :attr:`prepared` names the transaction.

        Raises:
            IllegalStateError: no transaction is open, it is prepared already, or the option is not set.
            KafkaError: the transaction must be aborted, or the producer has ended.
        """
        self._check_two_phase_commit("prepare_transaction()")
        again = self._continue(Kind.PREPARE)
        if again is not None:
            return again
        self._check_alive("prepare_transaction()")
        if self.state is State.ABORTABLE_ERROR and self.awaits_verdict:
            return self._begin(Kind.PREPARE)
        if self.state is State.ABORTABLE_ERROR:
            raise self.abortable("prepare_transaction()")
        if self.state is not State.IN_TRANSACTION:
            raise self._wrong_state("prepare_transaction()", _ADVICE[self.state])
        self._go(State.PREPARING)
        self.effects.append((Effect.CLOSE, None))
        return self._begin(Kind.PREPARE)

    def complete(self, state: PreparedTxnState) -> Operation:
        """Begin ``complete_transaction()``, or go on with one that timed out. Follow with :meth:`end`.

        Args:
            state: what the application has kept: the transaction is committed if it names it, else aborted.

        Raises:
            IllegalStateError: no transaction is prepared.
            KafkaError: the transaction must be aborted, or the producer has ended.
        """
        if self.prepared is None:
            self._check_alive("complete_transaction()")
            raise self._wrong_state(
                "complete_transaction()",
                "call prepare_transaction() first, or init_transactions(keep_prepared_txn=True) for a "
                "transaction that a predecessor has prepared; if none is found, it is over or had no records",
            )
        return self.commit() if state == self.prepared else self.abort()

    def _check_two_phase_commit(self, what: str) -> None:
        if not self.two_phase_commit:
            raise errors.IllegalStateError(
                f"{what} needs the option transaction_two_phase_commit_enable=True"
            )

    def commit(self) -> Operation:
        """Begin ``commit_transaction()``, or go on with one that timed out. Follow with :meth:`end`."""
        again = self._continue(Kind.COMMIT)
        if again is not None:
            return again
        self._check_alive("commit_transaction()")
        if self.state is State.ABORTABLE_ERROR and self.awaits_verdict:
            return self._begin(Kind.COMMIT)
        if self.state is State.ABORTABLE_ERROR:
            raise self.abortable("commit_transaction()")
        if self.state not in (State.IN_TRANSACTION, State.PREPARED):
            raise self._wrong_state("commit_transaction()", _ADVICE[self.state])
        self._go(State.COMMITTING)
        self.effects.append((Effect.CLOSE, None))
        return self._begin(Kind.COMMIT)

    def abort(self) -> Operation:
        """Begin ``abort_transaction()``, or go on with one that timed out. Follow with :meth:`end`."""
        if self.state is State.ABORTABLE_ERROR and self._pending is not None:
            # One that waited for the coordinator's verdict, and timed out: it cannot succeed any more.
            self._finish(self.abortable(self._pending.kind.value + "()"))
            self._pending = None
        if self._pending is not None and self._pending.kind is Kind.PREPARE:
            # Unlike a commit, it has decided nothing.
            self._pending.finish(errors.TransactionAbortedError("the transaction was aborted"))
            self._pending = None
        again = self._continue(Kind.ABORT)
        if again is not None:
            return again
        self._check_alive("abort_transaction()")
        if self.state not in (
            State.IN_TRANSACTION,
            State.PREPARING,
            State.PREPARED,
            State.ABORTABLE_ERROR,
        ):
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
        self._records_decided = True
        self._settle_end()

    @property
    def in_doubt(self) -> bool:
        """Whether the coordinator will be asked about fencing, once :meth:`records_decided` was called."""
        return self._in_doubt and not self._records_decided

    @property
    def awaits_verdict(self) -> bool:
        """Whether it is open yet if this producer is fenced."""
        return self._in_doubt or (self._recover and self._recover_reason is not None)

    def records_decided(self) -> None:
        """Every record of the transaction has its outcome, so that a new epoch can begin."""
        self._records_decided = True

    def _is_known(self) -> bool:
        """Whether the coordinator may know of the transaction."""
        return (
            self._batches_sent
            or self._offsets_added
            or self._perhaps_added
            or self._is_kept
            or bool(self._partitions)
        )

    def _only_perhaps_added(self) -> bool:
        surely = self._batches_sent or self._offsets_added or bool(self._partitions)
        return self._perhaps_added and not surely and not self._sequence_lost

    def _settle_end(self) -> None:
        """End a transaction that is over at the coordinator already, or that it never heard of.

        Or end the preparations, when nothing of it is left to be sent.
        """
        if not self._ready_to_end or self._under_way is not None or self._recover or self._in_doubt:
            return
        if self.state is State.PREPARING:
            if not self._offsets:
                self._go(State.PREPARED)
                self.prepared = PreparedTxnState(self.producer_id, self.epoch)
                self._finish()
            return
        if self.state is State.ABORTING:
            over = self._decided or not (self._is_known() or self._sequence_lost)
        else:
            over = self.state is State.COMMITTING and (
                self._decided or not (self._is_known() or self._sequence_lost or self._offsets)
            )
        if over:
            self._ended()

    # ------------------------------------------------------------------------------------- the core's signs

    def add_partition(self, topic: str, partition: int) -> None:
        """A batch for a partition that is not part of the transaction yet is ready."""
        if self.state in _COLLECTING and (topic, partition) not in self._partitions:
            self._new_partitions[(topic, partition)] = None

    def batch_failed(self, code: int, error: KafkaError) -> None:
        """A batch of the transaction failed for good."""
        if self.state in _COLLECTING:
            if code in _FENCED:
                self._doubt(error)
            else:
                self._abortable(error)

    # ------------------------------------------------------------------------------------- requests

    def wake_at(self) -> float | None:
        """When :meth:`next_request` may have something; None: not before something happens."""
        if self._under_way is not None:
            return None
        if self._in_doubt and self._records_decided:
            return 0.0
        return None if self._wanted() is None else self._not_before

    def next_request(self, now: float) -> Request | None:
        """What to send now.

        The engine then calls :meth:`answered`, :meth:`unanswered`, :meth:`not_sent` or :meth:`unsupported`.
        """
        if self._in_doubt and self._records_decided and self._under_way is None:
            self._in_doubt = False
            self._ask(now)
        if self._under_way is not None or now < self._not_before:
            return None
        self._under_way = self._wanted()
        if self._under_way is not None and self._under_way.api in (ADD_OFFSETS_TO_TXN, TXN_OFFSET_COMMIT):
            # It may be given up, and another take its place in the queue, before the answer comes.
            self._offsets_under_way = self._offsets[0]
        return self._under_way

    def _wanted(self) -> Request | None:
        request = self._wanted_ignoring_coordinators()
        if request is None or request.to is None or request.to in self.coordinators:
            return request
        key_type, key = request.to
        return Request(FIND_COORDINATOR, {"key": key, "key_type": key_type, "coordinator_keys": [key]}, None)

    def _wanted_ignoring_coordinators(self) -> Request | None:
        ids: Body = {
            "transactional_id": self.transactional_id,
            "producer_id": self.producer_id,
            "producer_epoch": self.epoch,
        }
        if self.state is State.INITIALIZING:
            return self._init_request(-1, -1)
        if self._recover:
            return self._init_request(self.producer_id, self.epoch + self._asks_with_next_epoch)
        if self.state in _COLLECTING:
            if self._new_partitions and not self.v2:
                topics: dict[str, list[int]] = {}
                for topic, partition in self._new_partitions:
                    topics.setdefault(topic, []).append(partition)
                body = {**ids, "topics": [{"name": name, "partitions": p} for name, p in topics.items()]}
                return Request(ADD_PARTITIONS_TO_TXN, body, self._key)
            if self._offsets:
                return self._offsets_request(ids)
        if self.state in (State.COMMITTING, State.ABORTING) and self._ready_to_end and not self._in_doubt:
            if self._sequence_lost and not self._is_known():
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
        newest = NEWEST_STABLE_INIT_PRODUCER_ID
        at_least = 3 if producer_id >= 0 else None
        if self.two_phase_commit:
            body["enable2_pc"] = True
            body["keep_prepared_txn"] = self._keep_prepared and self.state is State.INITIALIZING
            newest = at_least = TWO_PHASE_COMMIT_INIT_PRODUCER_ID
        return Request(INIT_PRODUCER_ID, body, self._key, at_most=newest, at_least=at_least)

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
        request = self._under_way
        self._under_way = None
        self._not_before = now + 0.02
        if self._no_connection_since is None:
            self._no_connection_since = now
        elif now - self._no_connection_since >= LOOK_AGAIN_S and request is not None:
            self._look_again(request, now)
        self._settle_end()

    def unanswered(self, now: float) -> None:
        """The connection ended before the answer came: look the coordinator up again and repeat."""
        request = self._under_way
        self._under_way = None
        if request is not None:
            if request.api.key in _ADDING:
                self._perhaps_added = True
            elif request.api is END_TXN:
                self._perhaps_ended = True
            self._left_behind = self._left_behind or (
                not self.v2 and (request.api.key in _ADDING or request.api is END_TXN)
            )
            self._look_again(request, now)
        self._settle_end()

    def broker_lost(self, node_id: int, now: float) -> None:
        """A broker cannot be reached (any more): it may not be the coordinator much longer.

        A request under way to it gets :meth:`unanswered` besides.
        """
        lost = [key for key, found in self.coordinators.items() if found.node_id == node_id]
        for key in lost:
            del self.coordinators[key]
        if lost and self._under_way is None:
            self._no_connection_since = None
            # Until the cluster agrees on another one, the same may be found.
            self._retry(now)

    def _look_again(self, request: Request, now: float) -> None:
        if request.to is not None:
            self.coordinators.pop(request.to, None)
        self._no_connection_since = None
        self._retry(now)

    def unsupported(self, request: Request, broker: str) -> None:
        """The broker does not know the request in a version that will do."""
        self._under_way = None
        if self._recover and self._recover_reason is not None:
            # Before Kafka 2.5 there is no way to find out who ended the transaction.
            self._fatal(self._recover_reason)
            return
        if self._recover and not self._sequence_lost:
            # A precaution, which these brokers cannot take.
            self._recover = self._left_behind = False
            self._settle_end()
            return
        why = f"the broker does not support {request.api.name} as needed"
        if request.api is INIT_PRODUCER_ID and self.two_phase_commit:
            why = f"the broker does not offer two-phase commit: {_TWO_PHASE_COMMIT_NEEDS}"
        self._fatal(errors.UnsupportedVersionError(why, broker=broker))

    def _retry(self, now: float, pause: float | None = None) -> None:
        self._failures += 1
        pause = self.backoff(self._failures) if pause is None else pause
        self._not_before = max(self._not_before, now + pause)

    # ------------------------------------------------------------------------------------- answers

    def answered(self, body: Body, broker: str, now: float) -> None:
        """Take over the answer to the request under way."""
        request = self._under_way
        self._under_way = None
        self._no_connection_since = None
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
        self._not_before = 0.0
        handler(request, body, broker, now)
        if self._failures == before:
            self._failures = 0
        self._settle_end()

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
        error = errors.for_code(code)(
            row.get("error_message") or "looking up the coordinator failed", broker=broker
        )
        if key[0] == GROUP_KEY:
            self._abortable(error)
        elif self.state is State.INITIALIZING and isinstance(error, errors.AuthorizationError):
            self._not_initialized(error)
        else:
            self._fatal(error)

    def _not_initialized(self, error: KafkaError) -> None:
        """init_transactions() failed, and may be called again once the reason is gone."""
        self._name_resource(error)
        self._go(State.UNINITIALIZED)
        self._finish(error)

    def _name_resource(self, error: KafkaError) -> None:
        """Say what the principal lacks the permission for."""
        if isinstance(error, errors.TransactionalIdAuthorizationFailedError):
            error.resource = self.transactional_id
        elif isinstance(error, errors.GroupAuthorizationFailedError) and self._offsets:
            error.resource = self._offsets[0].group_id

    def _on_producer_id(self, request: Request, body: Body, broker: str, now: float) -> None:
        code = body["error_code"]
        if code == 0:
            self.producer_id, self.epoch = body["producer_id"], body["producer_epoch"]
            self._sequence_lost = False
            self._left_behind = False
            self.effects.append((Effect.PRODUCER_ID, (self.producer_id, self.epoch)))
            # Nothing is open under a new epoch, so the other protocol version can begin here.
            self.v2 = self.v2_offered
            if self.state is State.INITIALIZING:
                if self._keep_prepared and body["ongoing_txn_producer_id"] >= 0:
                    # It was written under other ids than those under which it can be ended from now on.
                    self.prepared = PreparedTxnState(
                        body["ongoing_txn_producer_id"], body["ongoing_txn_producer_epoch"]
                    )
                    self._is_kept = True
                    self._began_at = now
                    self._go(State.PREPARED)
                else:
                    self._go(State.READY)
                self._finish()
            else:
                self._recovered(now)
            return
        if self._lost_or_retriable(code, request, now):
            return
        kind = errors.for_code(code)
        if code in _FENCED:
            if self._recover and self._may_have_timed_out():
                self._asks_with_next_epoch = True
            else:
                self._fatal(self._fenced(broker))
        elif self.state is State.INITIALIZING and (
            issubclass(kind, errors.AuthorizationError)
            or code == _ABORTABLE
            or (code == _UNSUPPORTED_VERSION and self._keep_prepared)
        ):
            self._not_initialized(kind(self._why_not_initialized(code), broker=broker))
        elif code == _INVALID_TRANSACTION_TIMEOUT:
            self._fatal(
                kind(
                    f"transaction_timeout_ms ({self.timeout_ms}) is more than the broker allows "
                    "(its transaction.max.timeout.ms)",
                    broker=broker,
                )
            )
        else:
            self._fatal(kind("InitProducerId was refused", broker=broker))

    def _why_not_initialized(self, code: int) -> str:
        """What init_transactions() was refused for, as far as the code tells."""
        if code == _UNSUPPORTED_VERSION:
            return (
                "init_transactions(keep_prepared_txn=True) was refused: this release of Kafka knows the "
                "request, but cannot keep a prepared transaction yet (4.1 cannot). The transaction is still "
                "open; init_transactions() without it would abort it"
            )
        if self.two_phase_commit:
            return (
                "init_transactions() was refused: transaction_two_phase_commit_enable=True needs brokers "
                "with transaction.two.phase.commit.enable=true, and with ACLs the operations Write and "
                "TwoPhaseCommit on the transactional id (KIP-939)"
            )
        return "init_transactions() was refused"

    def _may_have_timed_out(self) -> bool:
        """Whether the coordinator may have aborted the transaction, and have forgotten this producer's epoch.

        When it aborts a transaction of version 1 that took too long, it makes one epoch more and forgets the
        last (Kafka's TransactionMetadata.prepareFenceProducerEpoch). It does so too for a producer that takes
        over, but then makes a second one for it. So where the transaction was open, and this producer did not
        end it, only the timeout leaves the coordinator with the next epoch: asking with that one cannot take
        over from anybody.
        """
        was_open = self._offsets_added or bool(self._partitions)
        was_refused = isinstance(self._recover_reason, errors.ProducerFencedError)
        return (
            was_open
            and was_refused
            and not self.v2
            and not self._decided
            and not self._perhaps_ended
            and not self._asks_with_next_epoch
        )

    def _recovered(self, now: float) -> None:
        """The epoch was bumped, so this producer is not fenced, and whatever was open is aborted."""
        was_asked = self._recover_reason is not None
        self._recover = False
        self._recover_reason = None
        self._asks_with_next_epoch = False
        if self.state in (State.COMMITTING, State.ABORTABLE_ERROR) and was_asked and not self._decided:
            why = (
                f"after transaction_timeout_ms ({self.timeout_ms})"
                if self._is_overdue(now)
                else f"before transaction_timeout_ms ({self.timeout_ms}) was over: its clock was set, or "
                "another producer with the same transactional_id began to take over"
            )
            error = errors.TransactionAbortedError(
                f"the coordinator had aborted the transaction, probably {why}", persisted="no"
            )
            if self.state is State.COMMITTING:
                self._abortable(error)
            else:
                error.__cause__, self.error = self.error, error
                self._tell_abortable()
        self._decided = True

    def _is_overdue(self, now: float) -> bool:
        """Whether the coordinator may have aborted the transaction because of its timeout."""
        # Clocks need not run at quite the same speed.
        return now - self._began_at >= self.timeout_ms / 1000 * 0.95

    def _ask(self, now: float) -> None:
        """Ask by bumping the epoch; but let a successor that takes over just now go first."""
        self._recover = True
        if not self._is_overdue(now):
            self._not_before = max(self._not_before, now + self._verdict_pause)
            self._verdict_pause = min(2 * self._verdict_pause, LAST_VERDICT_PAUSE_S)

    def _doubt(self, error: KafkaError, broker: str | None = None) -> None:
        """The transaction is lost, and perhaps this producer fenced: the coordinator is asked.

        That needs all records decided. Calls that would raise for the one or the other wait until then.
        """
        if self.state not in _COLLECTING:
            return
        self._in_doubt = True
        self._recover_reason = self._fenced(broker)
        self._sequence_lost = True
        self._abortable(error)

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
        # All or nothing: what one partition is refused for is why the others were not attempted.
        reasons = [code for code in refused if code != _NOT_ATTEMPTED] or list(refused)
        for code in sorted(reasons, key=lambda code: errors.for_code(code).retriable):
            if code == _CONCURRENT and not self._partitions:
                self._retry(now, FIRST_CONCURRENT_BACKOFF_S)
            elif not self._lost_or_retriable(code, request, now):
                where = ", ".join(f"{topic}-{partition}" for topic, partition in refused[code])
                self._refused(code, f"adding {where} to the transaction was refused", broker)
            return

    def _on_offsets_added(self, request: Request, body: Body, broker: str, now: float) -> None:
        group = self._offsets_under_way
        assert group is not None
        code = body["error_code"]
        if code == 0:
            self._offsets_added = True
            group.added = True
        elif not self._lost_or_retriable(code, request, now):
            self._refused(
                code, f"adding offsets of group {group.group_id!r} to the transaction was refused", broker
            )

    def _on_offsets_committed(self, request: Request, body: Body, broker: str, now: float) -> None:
        group = self._offsets_under_way
        assert group is not None
        if self.v2:
            self._offsets_added = True
        refused: list[int] = []
        for topic in body["topics"]:
            for row in topic["partitions"]:
                if row["error_code"]:
                    refused.append(row["error_code"])
                else:
                    group.offsets.pop((topic["name"], row["partition_index"]), None)
        if refused:
            code = min(refused, key=lambda code: errors.for_code(code).retriable)
            if code == _REQUEST_TIMED_OUT:
                self.coordinators.pop((GROUP_KEY, group.group_id), None)
            # Only what is left is sent again.
            if self._lost_or_retriable(code, request, now):
                return
            if code in _LEFT_GROUP:
                self._abortable(
                    errors.CommitFailedError(
                        f"the offsets of group {group.group_id!r} were refused with "
                        f"{errors.name_for_code(code)}: the group has given the partitions to another member"
                    )
                )
            else:
                self._refused(code, f"the offsets of group {group.group_id!r} were refused", broker)
        elif not group.offsets and group in self._offsets:
            self._offsets.remove(group)
            group.operation.finish()

    def _on_end(self, request: Request, body: Body, broker: str, now: float) -> None:
        code = body["error_code"]
        if code == 0:
            if self.v2 and body.get("producer_id", -1) >= 0:
                self.producer_id, self.epoch = body["producer_id"], body["producer_epoch"]
                self._sequence_lost = False
                self.effects.append((Effect.PRODUCER_ID, (self.producer_id, self.epoch)))
            self._decided = True  # settled in answered()
            if self.state is State.COMMITTING:
                self._verdict_pause = FIRST_VERDICT_PAUSE_S
            # KIP-360: where sequence numbers were lost they start at 0 under a new epoch. KIP-890: a new
            # epoch separates transactions of version 1 from those of version 2. And a coordinator that comes
            # late to what a lost connection left it would take that for the next transaction's.
            self._recover = self._sequence_lost or (not self.v2 and (self.v2_offered or self._left_behind))
            return
        if self._lost_or_retriable(code, request, now):
            self._perhaps_ended = self._perhaps_ended or code == _REQUEST_TIMED_OUT
            return
        if code == _INVALID_TXN_STATE and self.state is State.ABORTING and self._only_perhaps_added():
            # The epoch is right, and nothing is open: what was to open it has not arrived yet.
            self._decided = True
            self._recover = self._left_behind
            return
        if code in _PERHAPS_FENCED:
            # Fenced, or aborted by the coordinator after the timeout? Bumping the epoch tells.
            if code in _FENCED:
                self._recover_reason = self._fenced(broker)
                self._ask(now)
            else:
                self._recover_reason = errors.for_code(code)(
                    "ending the transaction was refused", broker=broker
                )
                self._recover = True
            return
        if code == _ABORTABLE and self.state is State.COMMITTING:
            self._abortable(
                errors.for_code(code)("the coordinator wants the transaction aborted", broker=broker)
            )
            return
        self._fatal(errors.for_code(code)("ending the transaction was refused", broker=broker))

    def _refused(self, code: int, text: str, broker: str) -> None:
        """A request inside the transaction was refused for good."""
        kind = errors.for_code(code)
        if code in _FENCED:
            self._doubt(kind(text, broker=broker), broker)
        elif code in _PERHAPS_FENCED:
            # To be settled at the abort, which finds out whether this producer is fenced.
            self._sequence_lost = True
            self._abortable(kind(text, broker=broker))
        elif kind is errors.TransactionalIdAuthorizationFailedError:
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
        """The operation that timed out, if the same one is called again; it may be over by now."""
        pending = self._pending
        if pending is None:
            return None
        if pending.kind is kind:
            pending.abandoned = False
            if pending.done:
                self._pending = None
            return pending
        if pending.error is not None:
            # The state it has led to says what can be done.
            self._pending = None
            return None
        raise self._timed_out_before(f"{kind.value}()", pending)

    def _timed_out_before(self, what: str, pending: Operation) -> KafkaError:
        name = f"{pending.kind.value}()"
        return errors.IllegalStateError(
            f"{what} is not possible: {name} timed out and must be called again first"
        )

    def _finish(self, error: KafkaError | None = None) -> None:
        if self._pending is not None:
            self._pending.finish(error)
            if not self._pending.abandoned:
                self._pending = None
        self._ready_to_end = False

    def _ended(self) -> None:
        self._go(State.READY)
        self._sequence_lost = False
        self._in_doubt = False
        self.error = None
        self._finish()

    def _abortable(self, error: KafkaError) -> None:
        if self.state not in _COLLECTING:
            return
        self._name_resource(error)
        self._go(State.ABORTABLE_ERROR)
        self.error = error
        self._new_partitions.clear()
        self.effects.append((Effect.CLOSE, None))
        self.effects.append((Effect.FAIL_QUEUED, None))
        if not self.awaits_verdict:
            self._tell_abortable()

    def _tell_abortable(self) -> None:
        """End the calls that can only say that the transaction must be aborted."""
        for group in self._offsets:
            group.operation.finish(self.abortable(Kind.OFFSETS.value + "()"))
        self._offsets.clear()
        self._finish(self.abortable((self._pending.kind if self._pending else Kind.COMMIT).value + "()"))

    def _fatal(self, error: KafkaError) -> None:
        if self.state is State.FATAL_ERROR:
            return
        self._name_resource(error)
        committed = self.state is State.COMMITTING and self._decided
        self._go(State.FATAL_ERROR)
        self.error = error
        for group in self._offsets:
            group.operation.finish(error)
        self._offsets.clear()
        self._recover = False
        self._recover_reason = None
        self._in_doubt = False
        self.effects.append((Effect.FATAL, error))
        # The transaction was committed before the producer ended.
        self._finish(None if committed else error)

    def fatal(self, error: KafkaError) -> None:
        """The core met an error that ends the producer."""
        self._fatal(error)

    # ------------------------------------------------------------------------------------- errors

    def _fenced(self, broker: str | None) -> KafkaError:
        return errors.ProducerFencedError(
            f"another producer with transactional_id {self.transactional_id!r} has taken over; close this",
            broker=broker,
        )

    def abortable(self, what: str) -> KafkaError:
        """The error for a call that is not possible because the transaction must be aborted."""
        cause = self.error
        # kafka-python's and Java's name for a consumer that has left the group, which they document.
        # A missing permission has its own name, too: to begin again would not help.
        own = isinstance(cause, (errors.CommitFailedError, errors.AuthorizationError))
        kind = type(cause) if own and cause is not None else errors.TransactionAbortableError
        error = kind(
            f"{what} is not possible, the transaction must be aborted: call abort_transaction(), then begin "
            f"again. Reason: {cause}"
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
        return errors.IllegalStateError(
            f"{what} is not possible, the producer is {self.state.value}: {advice}"
        )

    def _check_nothing_pending(self, what: str) -> None:
        if self._pending is not None and self._pending.error is None:
            raise self._timed_out_before(what, self._pending)

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
    State.PREPARING: "wait for prepare_transaction()",
    State.PREPARED: "call complete_transaction(), commit_transaction() or abort_transaction()",
    State.COMMITTING: "wait for commit_transaction()",
    State.ABORTING: "wait for abort_transaction()",
    State.ABORTABLE_ERROR: "call abort_transaction()",
    State.FATAL_ERROR: "close the producer",
}


def group_metadata_fields(metadata: Any) -> tuple[str, int, str, str | None]:
    """(group id, generation, member id, instance id) of what an application has as group metadata.

    Args:
        metadata: a group id; kafka-python's ConsumerGroupMetadata; any object or 4-tuple with those fields;
            what confluent-kafka's ``consumer_group_metadata()`` returns.

    Raises:
        TypeError: it is none of them.
        ValueError: the group id is empty, or there is none: the consumer has no ``group_id``.
    """
    if isinstance(metadata, bytes):
        fields = _confluent_fields(metadata)
    elif isinstance(metadata, str):
        fields = metadata, -1, "", None
    elif hasattr(metadata, "group_id"):
        fields = (
            metadata.group_id,
            getattr(metadata, "generation_id", -1),
            getattr(metadata, "member_id", None) or "",
            getattr(metadata, "group_instance_id", None),
        )
    elif isinstance(metadata, Sequence) and len(metadata) == 4:
        fields = metadata[0], metadata[1], metadata[2] or "", metadata[3]
    else:
        raise _no_group_metadata(f"got {type(metadata).__name__}")
    group_id, generation, member_id, instance_id = fields
    if not group_id and isinstance(group_id, str | None):
        raise ValueError(f"group_metadata must have a group id, got {group_id!r}")
    if not (
        isinstance(group_id, str)
        and isinstance(generation, int)
        and isinstance(member_id, str)
        and isinstance(instance_id, str | None)
    ):
        raise _no_group_metadata(f"got {type(metadata).__name__} with {fields!r}")
    return group_id, generation, member_id, instance_id


def _no_group_metadata(got: str) -> TypeError:
    return TypeError(
        "group_metadata must be a group id (str) or the consumer's group metadata (group_metadata() of "
        f"kafka-python, consumer_group_metadata() of confluent-kafka), {got}"
    )


_CONFLUENT_PREFIX: Final = b"CGMDv2:"


def _confluent_fields(raw: bytes) -> tuple[str, int, str, str | None]:
    """The fields of librdkafka's serialised group metadata.

    After the prefix: the generation as a 32-bit integer in the machine's byte order, group id and member id,
    each ended by a NUL, one byte that is 1 when there is no instance id, and the instance id with a NUL.
    """
    start = len(_CONFLUENT_PREFIX)
    try:
        if not raw.startswith(_CONFLUENT_PREFIX):
            raise ValueError("another prefix")
        generation = int.from_bytes(raw[start : start + 4], sys.byteorder, signed=True)
        group_id, member_id, rest = raw[start + 4 :].split(b"\0", 2)
        instance_id = None if rest[0] else rest[1 : rest.index(b"\0", 1)].decode()
        return group_id.decode(), generation, member_id.decode(), instance_id
    except (ValueError, IndexError):
        raise _no_group_metadata(
            f"got bytes that confluent-kafka is not known to write: {raw[:60]!r}"
        ) from None
