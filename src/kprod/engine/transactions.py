"""Drives the state machine of transactions: the application's calls, requests to coordinators, effects."""

from __future__ import annotations

import logging
import time
from typing import Any

from kprod import delivery, errors
from kprod.cluster.node import Node, State
from kprod.engine.connections import Connections
from kprod.engine.nodes import Nodes
from kprod.engine.offsets import plain_offsets
from kprod.engine.shared import Shared
from kprod.errors import KafkaError
from kprod.protocol import Body
from kprod.transactions.manager import (
    Effect,
    GroupOffsets,
    Kind,
    Operation,
    Request,
    TransactionManager,
    group_metadata_fields,
)
from kprod.transactions.prepared import PreparedTxnState, prepared_state
from kprod.transactions.states import State as TransactionState

logger = logging.getLogger("kprod.engine")


class Transactions:
    """The transactions of a producer with a ``transactional_id``.

    The state machine is touched under :attr:`Shared.changed` only, and its effects are applied before that is
    let go, by whichever thread caused them.

    Args:
        shared: what the threads share.
        nodes: where coordinators are.
        connections: how to ask them.
        transactional_id: the option.
    """

    def __init__(self, shared: Shared, nodes: Nodes, connections: Connections, transactional_id: str) -> None:
        self._shared = shared
        self._nodes = nodes
        self._connections = connections
        two_phase_commit = shared.config.transaction_two_phase_commit_enable
        # KIP-939: transactions of a two-phase commit never expire.
        timeout_ms = 2**31 - 1 if two_phase_commit else shared.config.transaction_timeout_ms
        self._manager = TransactionManager(
            transactional_id, timeout_ms, shared.retry.pause, two_phase_commit=two_phase_commit
        )
        self._queued_left = False
        self._problem: str | None = None
        """Why a request of this transaction got no answer that can be used, in words; None: all did."""
        shared.accumulator.set_gate(delivery.GATE_NO_TRANSACTION)

    # -- for any thread

    @property
    def state(self) -> str:
        """The transaction's state in words."""
        return self._manager.state.value

    def no_transaction(self) -> KafkaError:
        """Why send() takes no records now."""
        return self._manager.no_transaction()

    # -- the application's calls

    def init(self, keep_prepared_txn: bool, timeout: float) -> None:
        """See KafkaProducer.init_transactions()."""
        with self._shared.changed:
            operation = self._manager.init(keep_prepared_txn)
        self._await(operation, timeout)

    def begin(self) -> None:
        """See KafkaProducer.begin_transaction()."""
        with self._shared.changed:
            self._manager.begin(time.monotonic())
            self._problem = None
            self._apply_effects()

    def send_offsets(self, offsets: Any, group_metadata: Any, timeout: float) -> None:
        """See KafkaProducer.send_offsets_to_transaction()."""
        fields = group_metadata_fields(group_metadata)
        operation = Operation(Kind.OFFSETS)
        group = GroupOffsets(operation, *fields, offsets=plain_offsets(offsets))
        with self._shared.changed:
            self._manager.send_offsets(group)
        self._await(operation, timeout)

    def prepare(self, timeout: float) -> PreparedTxnState:
        """See KafkaProducer.prepare_transaction()."""
        with self._shared.changed:
            operation = self._manager.prepare()
            self._apply_effects()
        self._end(operation, timeout)
        prepared = self._manager.prepared
        assert prepared is not None
        return prepared

    def complete(self, state: PreparedTxnState | str, timeout: float) -> None:
        """See KafkaProducer.complete_transaction()."""
        kept = prepared_state(state)
        with self._shared.changed:
            operation = self._manager.complete(kept)
            self._apply_effects()
        self._end(operation, timeout)

    def commit(self, timeout: float) -> None:
        """See KafkaProducer.commit_transaction()."""
        with self._shared.changed:
            operation = self._manager.commit()
            self._apply_effects()
        self._end(operation, timeout)

    def abort(self, timeout: float) -> None:
        """See KafkaProducer.abort_transaction()."""
        with self._shared.changed:
            operation = self._manager.abort()
            self._apply_effects()
        self._end(operation, timeout)

    def abort_if_open(self, timeout: float | None) -> None:
        """close() in a transaction aborts it, so that readers need not wait for transaction_timeout_ms.

        A commit that timed out is gone on with. A prepared transaction is left as it is: how it ends is for
        others to say, and a successor can end it.
        """
        end = {
            TransactionState.IN_TRANSACTION: self.abort,
            TransactionState.PREPARING: self.abort,
            TransactionState.ABORTABLE_ERROR: self.abort,
            TransactionState.ABORTING: self.abort,
            TransactionState.COMMITTING: self.commit,
        }.get(self._manager.state)
        if timeout == 0 or end is None:
            return
        config = self._shared.config
        try:
            end(config.max_block_ms / 1000 if timeout is None else timeout)
        except KafkaError as error:
            logger.warning("%s: closed with a transaction that was not ended: %s", config.client_id, error)

    def _end(self, operation: Operation, timeout: float) -> None:
        """Wait until every record is decided, then for the coordinator."""
        deadline = time.monotonic() + timeout
        if self._shared.accumulator.flush(timeout):
            raise _timed_out(operation, timeout, "records are not decided yet")
        sent, sequence_lost, failed = self._shared.loop.transaction_state()
        with self._shared.changed:
            if failed:
                # The event of it may not have been handled yet, and a commit must not pass it.
                self.on_batch_failed(failed, -1)
            self._manager.end(sent, sequence_lost)
            self._apply_effects()
        self._await(operation, max(0.0, deadline - time.monotonic()), timeout)

    def _await(self, operation: Operation, timeout: float, named: float | None = None) -> None:
        """Wait up to ``timeout`` seconds; where ``named`` is given, the error of a timeout names that."""
        shared = self._shared
        deadline = time.monotonic() + timeout
        self._nodes.demand()
        shared.loop.wake_control()
        with shared.changed:
            try:
                while not operation.done:
                    shared.check_open()
                    if (refusal := self._nodes.refusal()) is not None:
                        raise refusal
                    left = deadline - time.monotonic()
                    if left <= 0:
                        raise _timed_out(operation, timeout if named is None else named, self._report())
                    shared.changed.wait(min(left, 1.0))
            finally:
                # After a timeout, or Ctrl-C: the same call made again gets the outcome.
                operation.abandoned = not operation.done
        if operation.error is not None:
            raise operation.error

    # -- what the control thread learns

    def add_partition(self, topic: str, partition: int) -> None:
        """A batch for a partition that is not part of the transaction yet is ready."""
        with self._shared.changed:
            self._manager.add_partition(topic, partition)

    def check_batches(self, node_id: int) -> None:
        """The core says that a batch failed: in this transaction, or was that the one before?"""
        with self._shared.changed:
            _, _, failed = self._shared.loop.transaction_state()
            if failed:
                self.on_batch_failed(failed, node_id)

    def on_batch_failed(self, code: int, node_id: int) -> None:
        """A record of the transaction is lost, so it cannot be committed any more.

        Args:
            code: a broker's error code or one of :mod:`kprod.delivery`.
            node_id: the broker that answered so; below 0: none.
        """
        broker = self._nodes.describe_broker(node_id)
        if code >= -1:
            kind = errors.for_code(code)
            error: KafkaError = kind(kind.description or "", broker=broker)
        else:
            error = errors.TransactionAbortedError(
                f"a record was not delivered: {delivery.reason_text(code)}; {self._report()}"
            )
        with self._shared.changed:
            self._manager.batch_failed(code, error)
            self._apply_effects()

    def on_fatal(self, error: KafkaError) -> None:
        """The core met an error that ends the producer."""
        with self._shared.changed:
            self._manager.fatal(error)
            self._apply_effects()

    def on_broker_lost(self, node_id: int) -> None:
        """A broker cannot be reached (any more): by now another one may be the coordinator."""
        with self._shared.changed:
            self._manager.broker_lost(node_id, time.monotonic())

    def learn_features(self) -> None:
        """KIP-890: transactions version 2 are for clusters that have finalized the feature."""
        features = self._nodes.newest_features()
        with self._shared.changed:
            self._manager.v2_offered = features.get("transaction.version", 0) >= 2

    # -- requests, by the control thread

    def wake_at(self) -> float | None:
        """When :meth:`send_next` may have something to send; None: not before something happens."""
        with self._shared.changed:
            return self._manager.wake_at()

    def deadline(self, now: float) -> float | None:
        """As :meth:`wake_at`; without a connection the connection's own moments count."""
        if self._queued_left:
            return now + 0.001
        if self._manager.in_doubt:
            return now + 0.02
        wake_at = self.wake_at()
        if wake_at is None or self._nodes.usable():
            return wake_at
        return max(wake_at, now + 0.02)

    def send_next(self, now: float) -> None:
        """Send the next transactional request, if there is one and its coordinator can be reached."""
        self._fail_left()
        manager = self._manager
        with self._shared.changed:
            if manager.in_doubt and not self._shared.accumulator.incomplete_batches:
                manager.records_decided()
            request = manager.next_request(now)
            if request is None:
                return
            node = self._node_for(request)
            if node is None or node.state is not State.READY:
                manager.not_sent(now)
                self._apply_effects()
                return
            version = node.version_of(request.api, request.at_most)
            if version is None or version < (request.at_least or 0):
                manager.unsupported(request, str(node))
                self._apply_effects()
                return
        if not self._connections.request(request.api, request.body, self._on_answer, request.at_most, node):
            with self._shared.changed:
                manager.not_sent(now)
                self._apply_effects()

    def _node_for(self, request: Request) -> Node | None:
        if request.to is None:
            return self._nodes.usable()
        found = self._manager.coordinators[request.to]
        return self._nodes.broker_at(found.node_id, found.host, found.port)

    def _on_answer(self, node: Node, body: Body | None, reason: str) -> None:
        now = time.monotonic()
        with self._shared.changed:
            if body is None:
                self._problem = reason
                self._manager.unanswered(now)
            else:
                self._manager.answered(body, str(node), now)
            self._apply_effects()

    def _report(self) -> str:
        """What is known of the brokers, and why a request failed, in words; for any thread."""
        problem = self._problem
        report = self._nodes.report()
        return report if problem is None else f"{report}; the last request that failed: {problem}"

    # -- effects

    def _fail_queued(self) -> None:
        """Fail what waits to be sent; what another thread compresses or splits just now, a moment later."""
        if self._shared.loop.give_up_transaction():
            self._queued_left = True
            self._shared.loop.wake_control()

    def _fail_left(self) -> None:
        with self._shared.changed:
            if not self._queued_left:
                return
            self._queued_left = False
            if self._manager.state in (TransactionState.ABORTING, TransactionState.ABORTABLE_ERROR):
                self._fail_queued()

    def _apply_effects(self) -> None:
        """Do what the state machine decided; called with :attr:`Shared.changed`."""
        shared = self._shared
        while self._manager.effects:
            effect, value = self._manager.effects.popleft()
            if effect is Effect.OPEN:
                shared.loop.begin_transaction(value)
                shared.accumulator.open_gate()
            elif effect is Effect.CLOSE:
                shared.accumulator.set_gate(delivery.GATE_NO_TRANSACTION)
            elif effect is Effect.FAIL_QUEUED:
                self._fail_queued()
            elif effect is Effect.PRODUCER_ID:
                shared.loop.set_producer_id(*value)
            elif effect is Effect.PARTITION_ADDED:
                state = shared.topics.get(value[0])
                if state is not None and state.handle is not None:
                    shared.loop.partition_added(state.handle, value[1])
            elif effect is Effect.FATAL:
                shared.fail(value)
        shared.changed.notify_all()


def _timed_out(operation: Operation, timeout: float, detail: str) -> KafkaError:
    return errors.KafkaTimeoutError(
        f"{operation.kind.value}() timed out after {timeout:g} s ({detail}); "
        "it goes on: call it again to wait for it"
    )
