"""The engine: the threads of a producer, and the only place where they meet sockets and state machines.

Four threads, all daemons named after the client id:

* *io* runs the network loop of the core without the GIL;
* *control* (this module) does what is rare: host names, connecting, API versions, metadata, producer ids. It learns
  of everything through the loop's events and asks the loop for everything through its methods;
* *delivery* runs callbacks;
* *compress*, when a codec is configured, compresses batches that linger.ms closed.

Everything of the control thread's is touched by that thread only, except what ``_changed`` (a condition) guards: the
topics, the cluster snapshot and the signs that application threads wait for.
"""

from __future__ import annotations

import atexit
import collections
import logging
import os
import random
import socket
import sys
import threading
import time
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from kprod import delivery, errors
from kprod._core import compression
from kprod._core.accumulator import Accumulator, Topic
from kprod._core.io import NetworkLoop
from kprod.cluster.metadata import Broker, ClusterSnapshot, Leader
from kprod.cluster.node import Address, Backoff, Node, State
from kprod.config import ProducerConfig
from kprod.delivery import DeliveryReporter
from kprod.errors import KafkaError
from kprod.protocol import (
    INIT_PRODUCER_ID,
    METADATA,
    PRODUCE,
    ZERO_UUID,
    Api,
    Body,
    Cursor,
    ProtocolError,
    decode_response,
    encode_request,
)
from kprod.records import TopicPartition, check_topic_name
from kprod.transactions.manager import (
    Effect,
    GroupOffsets,
    Kind,
    Operation,
    Request,
    TransactionManager,
    group_metadata_fields,
)
from kprod.transactions.states import State as TransactionState

logger = logging.getLogger("kprod.engine")

# Kinds of the core's events; the values are those of _core/io.pxd.
_CONNECTED: Final = 1
_CLOSED: Final = 2
_FRAME: Final = 3
_REFRESH: Final = 4
_LEADER: Final = 5
_ENDPOINTS: Final = 6
_SPLIT: Final = 7
_PRODUCER_ID: Final = 8
_FATAL: Final = 9
_WANTED: Final = 10
_ADD_PARTITION: Final = 11
_BATCH_FAILED: Final = 12

_HELLO: Final = 0
"""The token of the first request on a connection."""

REFUSALS_BEFORE_GIVING_UP: Final = 3
"""The constructor gives up when every bootstrap server refused this often in a row."""

Handler = Callable[["Node", Body | None, str], None]
"""Gets the node, the response body (None: there is none) and then the reason in words."""


@dataclass
class _TopicState:
    """A topic that is sent to, or was asked for."""

    name: str
    handle: Topic | None = None
    error: int = 0
    """The error code metadata last gave for it."""
    asked: int = 0
    """Metadata responses that covered it."""
    last_used: float = field(default_factory=time.monotonic)


@dataclass
class _Request:
    """A control request that is under way."""

    node: Node
    generation: int
    api: Api
    version: int
    handler: Handler


class Engine:
    """What a KafkaProducer runs on.

    Args:
        config: the checked options.
    """

    def __init__(self, config: ProducerConfig) -> None:
        self.config = config
        self.cluster = ClusterSnapshot()
        self.fatal_error: KafkaError | None = None
        self._changed = threading.Condition()
        self._retry = Backoff(config.retry_backoff_ms / 1000, config.retry_backoff_max_ms / 1000)
        self._transactions = (
            TransactionManager(config.transactional_id, config.transaction_timeout_ms, self._retry.pause)
            if config.transactional_id is not None
            else None
        )
        self._topics: dict[str, _TopicState] = {}
        self._handles: list[Topic] = []
        self._closing = False
        self._closed = threading.Event()
        self._close_lock = threading.Lock()
        self._pid = os.getpid()
        self._forked = False

        self._reporter = DeliveryReporter(
            self._describe_broker,
            self._describe_leader,
            lambda: self.fatal_error,
            self._no_transaction,
            buffer_memory=config.buffer_memory,
            max_block_ms=config.max_block_ms,
            delivery_timeout_ms=config.delivery_timeout_ms,
        )
        self._wake = _WakeChannel()
        self.accumulator = Accumulator(
            self._reporter,
            config.buffer_memory,
            max(config.batch_size, 512),
            self._wake.writer,
            config.delivery_report_headers,
        )
        self._loop = NetworkLoop(
            self.accumulator,
            self._wake.reader,
            client_id=config.client_id,
            transactional_id=config.transactional_id,
            max_in_flight=config.max_in_flight_requests_per_connection,
            max_request_size=config.max_request_size,
            request_timeout_ms=int(config.request_timeout_ms),
            delivery_timeout_ms=int(config.delivery_timeout_ms),
            retry_backoff_ms=config.retry_backoff_ms,
            retry_backoff_max_ms=max(config.retry_backoff_max_ms, config.retry_backoff_ms),
            availability_timeout_ms=config.partitioner_availability_timeout_ms,
            retries=config.retries,
            max_frame=config.receive_message_max_bytes,
            idempotent=config.enable_idempotence,
            gapless=config.gapless,
            error_flags=errors.error_flags(),
            seed=random.getrandbits(64),
        )

        # -- the control thread's own
        self._inbox: collections.deque[Callable[[], None]] = collections.deque()
        self._reconnect = Backoff(config.reconnect_backoff_ms / 1000, config.reconnect_backoff_max_ms / 1000)
        self._setup = Backoff(
            config.socket_connection_setup_timeout_ms / 1000, config.socket_connection_setup_timeout_max_ms / 1000
        )
        self._nodes: dict[int, Node] = {}
        self._bootstrap = [
            Node(-1 - i, host, port, self._reconnect, self._setup)
            for i, (host, port) in enumerate(config.bootstrap_servers)
        ]
        self._by_id: dict[int, Node] = {node.node_id: node for node in self._bootstrap}
        self._wanted: set[int] = {node.node_id for node in self._bootstrap}
        self._requests: dict[int, _Request] = {}
        self._last_token = _HELLO
        self._refresh_wanted = True
        self._refresh_at = 0.0
        self._refresh_failures = 0
        self._refreshing = False
        self._refreshed_at = 0.0
        self._metadata_lost_at: float | None = None
        self._producer_id_wanted = config.enable_idempotence and config.transactional_id is None
        self._producer_id_at = 0.0
        self._producer_id_failures = 0
        self._producer_id_asked = False
        self._stopping = False

        if self._transactions is not None:
            self.accumulator.set_gate(delivery.GATE_NO_TRANSACTION)
        self._threads: list[threading.Thread] = []
        codecs = {config.compression_type, *(o.compression_type for o in config.topic_options.values())}
        self._start("io", self._loop.run)
        self._start("control", self._run_control)
        self._delivery = self._start("delivery", self.accumulator.run_delivery)
        if codecs - {"none", None}:
            self._start("compress", self.accumulator.run_compressor)
        _engines.add(self)

    def _start(self, name: str, target: Callable[[], None]) -> threading.Thread:
        thread = threading.Thread(target=target, name=f"{self.config.client_id}-{name}", daemon=True)
        thread.start()
        self._threads.append(thread)
        return thread

    # ------------------------------------------------------------------------------------- application threads

    def topic_for_send(self, name: object, max_block_s: float) -> Topic:
        """The handle of a topic; waits for its metadata up to ``max_block_s`` seconds.

        Raises:
            TypeError, ValueError: it is not a topic name.
            KafkaTimeoutError: no metadata came; ``__cause__`` says what the brokers answered, if they did.
            TopicAuthorizationFailedError, InvalidTopicError: the brokers refuse the topic.
        """
        topic = check_topic_name(name)
        state = self._await_topic(topic, max_block_s)
        assert state.handle is not None
        return state.handle

    def partitions_for(self, name: str, max_block_s: float) -> set[int]:
        """Numbers of a topic's partitions; raises as :meth:`topic_for_send`."""
        state = self._await_topic(check_topic_name(name), max_block_s)
        assert state.handle is not None
        return set(range(state.handle.partition_count))

    def _await_topic(self, topic: str, max_block_s: float) -> _TopicState:
        deadline = time.monotonic() + max_block_s
        with self._changed:
            state = self._topics.get(topic)
            if state is None:
                state = self._topics[topic] = _TopicState(topic)
            state.last_used = time.monotonic()
            if state.handle is not None:
                return state
            asked = state.asked
            self.request_refresh()
            while True:
                self._check_open()
                if state.handle is not None:
                    return state
                if state.asked > asked and state.error:
                    kind = errors.for_code(state.error)
                    if not kind.retriable:
                        raise kind(f"metadata for topic {topic!r} were refused", topic=topic)
                left = deadline - time.monotonic()
                if left <= 0:
                    raise self._no_metadata(state, max_block_s)
                # In slices, so that a fork or a close is noticed whatever happens.
                self._changed.wait(min(left, 1.0))

    def _no_metadata(self, state: _TopicState, waited_s: float) -> KafkaError:
        if state.asked and state.error:
            cause = errors.for_code(state.error)(topic=state.name)
            detail = f"the brokers answer {errors.name_for_code(state.error)}"
            if state.error == 3:
                detail += " (the topic does not exist; the broker creates it only if auto.create.topics.enable is set)"
            error = errors.KafkaTimeoutError(
                f"no metadata for topic {state.name!r} within max_block_ms ({waited_s * 1000:.0f}): {detail}",
                topic=state.name,
                persisted="no",
            )
            error.__cause__ = cause
            return error
        return errors.KafkaTimeoutError(
            f"no metadata for topic {state.name!r} within max_block_ms ({waited_s * 1000:.0f}): "
            f"no broker could be asked: {self.connection_report()}",
            topic=state.name,
            persisted="no",
        )

    def _check_open(self) -> None:
        gate = self.accumulator.gate
        if gate > delivery.GATE_NO_TRANSACTION:
            raise self._reporter.gate_error(gate)

    def too_large(self, topic: str, size: int, limit: int) -> KafkaError:
        """The error for a record that no request can hold."""
        return errors.MessageSizeTooLargeError(
            f"the record takes {size} bytes with its overhead, max_request_size is {limit}", topic=topic, persisted="no"
        )

    def request_refresh(self) -> None:
        """Ask for new metadata soon."""
        self._call(self._want_refresh)

    def _call(self, function: Callable[[], None]) -> None:
        """Let the control thread call `function`."""
        self._inbox.append(function)
        self._loop.wake_control()

    def wait_bootstrapped(self, timeout_s: float) -> None:
        """Wait until a broker has answered.

        Raises:
            NoBrokersAvailable: none did within ``timeout_s`` seconds, or every one refused several times in a row.
        """
        deadline = time.monotonic() + timeout_s
        with self._changed:
            while not self._refreshed_at:
                left = deadline - time.monotonic()
                hopeless = all(node.failures >= REFUSALS_BEFORE_GIVING_UP for node in self._bootstrap)
                if hopeless or left <= 0:
                    raise errors.NoBrokersAvailable(
                        f"none of the bootstrap servers could be reached: {self.connection_report()}"
                    )
                if self.fatal_error is not None:
                    raise self.fatal_error
                self._changed.wait(min(left, 1.0))

    def bootstrap_connected(self) -> bool:
        """Whether there is a connection to a broker now."""
        return any(node.state is State.READY for node in list(self._by_id.values()))

    def connection_report(self) -> str:
        """What is known of every address, in words."""
        nodes = list(self._by_id.values())
        return "; ".join(f"{node}: {node.last_error or node.state.value}" for node in nodes) or "no addresses"

    def _describe_broker(self, node_id: int) -> str | None:
        node = self._by_id.get(node_id)
        return str(node) if node is not None else (None if node_id < 0 else str(node_id))

    def _describe_leader(self, topic: str, partition: int) -> str:
        leader = self.cluster.leader_for_partition(TopicPartition(topic, partition))
        if leader is None or leader < 0:
            return f"{topic}-{partition} has no leader"
        node = self._by_id.get(leader)
        if node is None:
            return f"the leader, broker {leader}, has no known address"
        if node.state is State.READY:
            return f"the leader, broker {node}, is connected but did not take it in time"
        return f"the leader, broker {node}, is not connected ({node.last_error or node.state.value})"

    def flush(self, timeout: float | None) -> None:
        """Wait until everything sent so far is decided and its callbacks have run.

        Raises:
            KafkaTimeoutError: the timeout ran out first.
            IllegalStateError: called inside a delivery callback.
        """
        if self.accumulator.in_delivery_thread():
            raise errors.IllegalStateError(
                "flush() inside a delivery callback would wait for itself; call it from another thread"
            )
        if self._forked:
            raise self._reporter.gate_error(delivery.GATE_FORKED)
        left = self.accumulator.flush(timeout)
        if left:
            raise errors.KafkaTimeoutError(
                f"flush() timed out after {timeout:g} s with {left} record(s) not decided; {self.connection_report()}"
            )

    def purge(self, in_queue: bool, in_flight: bool) -> None:
        """Fail what waits in the queues, and what is in flight, with PurgedError."""
        if self._forked:
            raise self._reporter.gate_error(delivery.GATE_FORKED)
        if in_queue:
            self._loop.fail_all(delivery.PURGED_QUEUE, queued=True, in_flight=False)
        if in_flight:
            self._loop.fail_all(delivery.PURGED_IN_FLIGHT, queued=False, in_flight=True)

    def close(self, timeout: float | None) -> None:
        """Refuse new records, wait up to ``timeout`` seconds for those under way, fail the rest, stop the threads.

        Inside a callback it returns at once and closes in the background.
        """
        if self._forked or self._closed.is_set():
            return
        if self.accumulator.in_delivery_thread():
            self.close_in_background(timeout)
            return
        # Another thread may be closing it: then wait for that, but not beyond our own timeout.
        if not self._close_lock.acquire(timeout=-1 if timeout is None else min(timeout, threading.TIMEOUT_MAX)):
            return
        try:
            if not self._closed.is_set():
                self._close(timeout)
                self._closed.set()
        finally:
            self._close_lock.release()
        _engines.discard(self)

    def close_in_background(self, timeout: float | None = None) -> None:
        """Close without waiting for it: a producer that was dropped, or closed by its own callback."""
        if self._forked or sys.is_finalizing():
            return
        self.accumulator.set_gate(delivery.GATE_CLOSED)
        threading.Thread(target=self.close, args=(timeout,), name=f"{self.config.client_id}-close", daemon=True).start()

    def _abort_open_transaction(self, timeout: float | None) -> None:
        """close() inside a transaction aborts it, so that readers need not wait for transaction_timeout_ms."""
        manager = self._transactions
        open_states = (TransactionState.IN_TRANSACTION, TransactionState.ABORTABLE_ERROR, TransactionState.ABORTING)
        if manager is None or timeout == 0 or manager.state not in open_states:
            return
        try:
            self._abort(manager, self.config.max_block_ms / 1000 if timeout is None else timeout)
        except KafkaError as error:
            logger.warning("%s: the open transaction was not aborted: %s", self.config.client_id, error)

    def _close(self, timeout: float | None) -> None:
        self._abort_open_transaction(timeout)
        self.accumulator.set_gate(delivery.GATE_CLOSED)
        self._closing = True
        with self._changed:
            self._changed.notify_all()
        if timeout != 0:
            self._loop.drain()
            if self.accumulator.incomplete_batches:
                self.accumulator.flush(timeout)
        undecided = self.accumulator.undecided_records()
        if undecided:
            logger.warning(
                "%s: closed with %d record(s) not acknowledged within %s s; their futures and callbacks get the error",
                self.config.client_id,
                undecided,
                timeout,
            )
        # What another thread is compressing or splitting can be failed a moment later.
        while self._loop.fail_all(delivery.CLOSED):
            time.sleep(0.001)
        self._stopping = True
        self._loop.wake_control()
        self._join("control")
        self._loop.stop()
        self._join("io")
        self.accumulator.stop_compressor()
        self.accumulator.stop_delivery()
        self._join("compress")
        self._join("delivery")
        self._wake.close()

    def _join(self, name: str) -> None:
        for thread in self._threads:
            if thread.name.endswith(f"-{name}") and thread is not threading.current_thread():
                thread.join()

    @property
    def closed(self) -> bool:
        """Whether close() was called."""
        return self._closing or self._closed.is_set()

    def after_fork_in_child(self) -> None:
        """The child of a fork has none of the threads: refuse everything, and leave the parent's sockets alone."""
        self._forked = True
        self.accumulator.set_gate(delivery.GATE_FORKED)
        # Another thread may have held it at the fork.
        self._changed = threading.Condition()

    # ------------------------------------------------------------------------------------- transactions

    def _no_transaction(self) -> KafkaError:
        assert self._transactions is not None
        return self._transactions.no_transaction()

    @property
    def transaction_state(self) -> str | None:
        """The transaction's state in words; None: not a transactional producer."""
        return self._transactions.state.value if self._transactions is not None else None

    def _transactional(self, what: str) -> TransactionManager:
        if self._forked:
            raise self._reporter.gate_error(delivery.GATE_FORKED)
        if self._closing:
            raise self._reporter.gate_error(delivery.GATE_CLOSED)
        if self._transactions is None:
            raise errors.IllegalStateError(f"{what} needs the option transactional_id")
        if self.accumulator.in_delivery_thread():
            raise errors.IllegalStateError(f"{what} inside a delivery callback would wait for itself")
        return self._transactions

    def init_transactions(self, timeout: float) -> None:
        """See KafkaProducer.init_transactions()."""
        manager = self._transactional("init_transactions()")
        with self._changed:
            operation = manager.init()
        self._await_operation(operation, timeout)

    def begin_transaction(self) -> None:
        """See KafkaProducer.begin_transaction()."""
        manager = self._transactional("begin_transaction()")
        with self._changed:
            manager.begin()
            self._apply_effects(manager)

    def send_offsets(self, offsets: Mapping[Any, Any], group_metadata: Any, timeout: float) -> None:
        """See KafkaProducer.send_offsets_to_transaction()."""
        manager = self._transactional("send_offsets_to_transaction()")
        fields = group_metadata_fields(group_metadata)
        operation = Operation(Kind.OFFSETS)
        group = GroupOffsets(operation, *fields, offsets=_plain_offsets(offsets))
        with self._changed:
            manager.send_offsets(group)
        self._await_operation(operation, timeout)

    def commit_transaction(self, timeout: float) -> None:
        """See KafkaProducer.commit_transaction()."""
        manager = self._transactional("commit_transaction()")
        with self._changed:
            operation = manager.commit()
            self._apply_effects(manager)
        self._end_transaction(manager, operation, timeout)

    def abort_transaction(self, timeout: float) -> None:
        """See KafkaProducer.abort_transaction()."""
        manager = self._transactional("abort_transaction()")
        self._abort(manager, timeout)

    def _abort(self, manager: TransactionManager, timeout: float) -> None:
        with self._changed:
            operation = manager.abort()
            self._apply_effects(manager)
        self._end_transaction(manager, operation, timeout)

    def _end_transaction(self, manager: TransactionManager, operation: Operation, timeout: float) -> None:
        """Wait until every record is decided, then for the coordinator."""
        deadline = time.monotonic() + timeout
        if self.accumulator.flush(timeout):
            raise _operation_timed_out(operation, timeout, "records are not decided yet")
        sent, sequence_lost, failed = self._loop.transaction_state()
        with self._changed:
            if failed:
                # The event of it may not have been handled yet, and a commit must not pass it.
                self._on_batch_failed(failed, -1)
            manager.end(sent, sequence_lost)
            self._apply_effects(manager)
        self._await_operation(operation, max(0.0, deadline - time.monotonic()), timeout)

    def _await_operation(self, operation: Operation, timeout: float, named: float | None = None) -> None:
        deadline = time.monotonic() + timeout
        self._loop.wake_control()
        with self._changed:
            while not operation.done:
                self._check_open()
                left = deadline - time.monotonic()
                if left <= 0:
                    raise _operation_timed_out(
                        operation, timeout if named is None else named, self.connection_report()
                    )
                self._changed.wait(min(left, 1.0))
        if operation.error is not None:
            raise operation.error

    def _apply_effects(self, manager: TransactionManager) -> None:
        """Do what the state machine decided; called with ``_changed``."""
        while manager.effects:
            effect, value = manager.effects.popleft()
            if effect is Effect.OPEN:
                self._loop.begin_transaction(value)
                self.accumulator.open_gate()
            elif effect is Effect.CLOSE:
                self.accumulator.set_gate(delivery.GATE_NO_TRANSACTION)
            elif effect is Effect.FAIL_QUEUED:
                self._loop.fail_all(delivery.TRANSACTION_ABORTED, queued=True, in_flight=False)
            elif effect is Effect.PRODUCER_ID:
                self._loop.set_producer_id(*value)
            elif effect is Effect.PARTITION_ADDED:
                state = self._topics.get(value[0])
                if state is not None and state.handle is not None:
                    self._loop.partition_added(state.handle, value[1])
            elif effect is Effect.FATAL:
                self._on_fatal(value)
        self._changed.notify_all()

    def _on_batch_failed(self, code: int, node_id: int) -> None:
        """A record of the transaction is lost, so it cannot be committed any more."""
        if self._transactions is None:
            return
        broker = self._describe_broker(node_id)
        if code >= -1:
            error: KafkaError = errors.for_code(code)(
                errors.for_code(code).description or "", broker=broker
            )
        else:
            error = errors.TransactionAbortedError(f"a record was not delivered: {delivery.reason_text(code)}")
        with self._changed:
            self._transactions.batch_failed(code, error)
            self._apply_effects(self._transactions)

    def _drive_transactions(self, now: float) -> None:
        """Send the next transactional request, if there is one and its coordinator can be reached."""
        manager = self._transactions
        if manager is None:
            return
        with self._changed:
            request = manager.next_request(now)
            if request is None:
                return
            node = self._coordinator_node(manager, request)
            if node is None or node.state is not State.READY:
                if node is not None and node.failures:
                    # Not to be reached: by now another broker may be the coordinator.
                    manager.unanswered(now)
                else:
                    manager.not_sent(now)
                return
            version = node.version_of(request.api, request.at_most)
            if version is None or version < (request.at_least or 0):
                manager.unsupported(request, str(node))
                self._apply_effects(manager)
                return
        if not self._request(request.api, request.body, self._on_transaction_answer, request.at_most, node):
            with self._changed:
                manager.not_sent(now)

    def _coordinator_node(self, manager: TransactionManager, request: Request) -> Node | None:
        if request.to is None:
            return self._usable_node()
        found = manager.coordinators[request.to]
        node = self._nodes.get(found.node_id)
        if node is None:
            node = Node(found.node_id, found.host, found.port, self._reconnect, self._setup)
            self._nodes[found.node_id] = self._by_id[found.node_id] = node
        self._wanted.add(found.node_id)
        return node

    def _on_transaction_answer(self, node: Node, body: Body | None, reason: str) -> None:
        manager = self._transactions
        assert manager is not None
        now = time.monotonic()
        with self._changed:
            if body is None:
                manager.unanswered(now)
            else:
                manager.answered(body, str(node), now)
            self._apply_effects(manager)

    # ------------------------------------------------------------------------------------- the control thread

    def _run_control(self) -> None:
        while not self._stopping:
            now = time.monotonic()
            timeout = max(0.0, min(self._next_deadline(now) - now, 60.0))
            try:
                # KIP-951's endpoints come after the leaders that they are for: take them over first.
                events = self._loop.wait_events(timeout)
                for event in sorted(events, key=lambda event: event[0] != _ENDPOINTS):
                    self._on_event(event)
                while self._inbox:
                    self._inbox.popleft()()
                self._tick(time.monotonic())
            except Exception:
                # Nothing that happens here may end the thread: records under way still need it.
                logger.exception("%s: unexpected error in the control thread", self.config.client_id)
                time.sleep(0.05)
        for event in self._loop.wait_events(0.0):
            if event[8] is not None:
                self._loop.fail_split(event[8], delivery.CLOSED)

    def _next_deadline(self, now: float) -> float:
        moments = [now + 60.0]
        if self._refresh_wanted and not self._refreshing:
            moments.append(self._refresh_at if self._usable_node() else now + 60.0)
        if not self._refreshing and self._refreshed_at:
            moments.append(self._refreshed_at + self.config.metadata_max_age_ms / 1000)
        if self._producer_id_wanted and not self._producer_id_asked and self._usable_node():
            moments.append(self._producer_id_at)
        if self._transactions is not None:
            with self._changed:
                wake_at = self._transactions.wake_at()
            if wake_at is not None:
                # Without a connection only the connection's own moments count.
                moments.append(wake_at if self._usable_node() else max(wake_at, now + 0.02))
        for node in self._by_id.values():
            if node.state in (State.RESOLVING, State.CONNECTING, State.HANDSHAKE):
                moments.append(node.deadline)
            elif node.state is State.IDLE and node.node_id in self._wanted:
                moments.append(node.next_attempt_at)
            elif node.state is State.READY:
                moments.append(now + min(self.config.connections_max_idle_ms / 4000, 30.0))
        return min(moments)

    def _tick(self, now: float) -> None:
        """Do what is due."""
        if self._refreshed_at and now - self._refreshed_at >= self.config.metadata_max_age_ms / 1000:
            self._forget_idle_topics(now)
            self._want_refresh()
        for node in list(self._by_id.values()):
            if node.state in (State.RESOLVING, State.CONNECTING, State.HANDSHAKE) and now >= node.deadline:
                self._setup_failed(node, f"no connection within {self._setup_limit(node)}", now)
            elif node.state is State.READY:
                self._close_if_idle(node, now)
        self._ensure_control_connection(now)
        for node_id in list(self._wanted):
            wanted = self._by_id.get(node_id)
            if wanted is None:
                self._wanted.discard(node_id)
            elif wanted.may_connect(now):
                self._connect(wanted, now)
        if self._refresh_wanted and not self._refreshing and now >= self._refresh_at:
            self._refresh()
        if self._producer_id_wanted and not self._producer_id_asked and now >= self._producer_id_at:
            self._ask_producer_id()
        self._drive_transactions(now)

    def _setup_limit(self, node: Node) -> str:
        return {
            State.RESOLVING: "the time for resolving the host name",
            State.CONNECTING: "socket_connection_setup_timeout_ms",
        }.get(node.state, "the time for the first answer: is this a Kafka broker, and does it speak plaintext?")

    # -- connections

    def _usable_node(self) -> Node | None:
        """The connection with the least to answer (Java: leastLoadedNode)."""
        best: Node | None = None
        least = 0
        for node in self._by_id.values():
            if node.state is not State.READY:
                continue
            load = self._loop.load(node.node_id)
            # A broker's own connection before a bootstrap one, which has no other use.
            if load >= 0 and (best is None or (node.node_id < 0, load) < (best.node_id < 0, least)):
                best, least = node, load
        return best

    def _ensure_control_connection(self, now: float) -> None:
        """See to it that there is somebody to ask, if there is something to ask."""
        transaction_waits = self._transactions is not None and self._transactions.wake_at() is not None
        if not (self._refresh_wanted or self._producer_id_wanted or transaction_waits):
            return
        if any(node.state is not State.IDLE for node in self._by_id.values()):
            if any(node.state is State.READY for node in self._by_id.values()):
                self._metadata_lost_at = None
                return
        if self._metadata_lost_at is None:
            self._metadata_lost_at = now
        brokers = list(self._nodes.values())
        self._wanted.update(node.node_id for node in brokers)
        # KIP-899: when no known broker can be reached, start again from the bootstrap servers.
        unreachable = all(node.failures > 0 for node in brokers)
        overdue = now - self._metadata_lost_at >= self.config.metadata_recovery_rebootstrap_trigger_ms / 1000
        if not brokers or (self.config.metadata_recovery_strategy == "rebootstrap" and (unreachable or overdue)):
            for node in self._bootstrap:
                self._by_id.setdefault(node.node_id, node)
                self._wanted.add(node.node_id)

    def _connect(self, node: Node, now: float) -> None:
        address = node.begin(now)
        if address is not None:
            self._open(node, address, now)
            return
        numeric = _numeric_address(node.host, node.port)
        if numeric is not None:
            self._open(node, node.resolved([numeric]), now)
            return

        attempt = node.attempts

        def look_up() -> None:
            found: list[Address] = []
            reason = ""
            try:
                found = _resolve(node.host, node.port, self.config.client_dns_lookup)
            except OSError as error:
                reason = f"host name {node.host!r} cannot be resolved: {error.strerror or error}"
            self._call(lambda: self._on_resolved(node, attempt, found, reason))

        # getaddrinfo() can hang for a long time: not on this thread.
        threading.Thread(target=look_up, name=f"{self.config.client_id}-dns", daemon=True).start()

    def _on_resolved(self, node: Node, attempt: int, addresses: list[Address], reason: str) -> None:
        if node.state is not State.RESOLVING or node.attempts != attempt:
            return
        now = time.monotonic()
        if addresses:
            self._open(node, node.resolved(addresses), now)
        else:
            self._setup_failed(node, reason or f"host name {node.host!r} has no address", now)

    def _open(self, node: Node, address: Address, now: float) -> None:
        family, target = address
        try:
            sock = socket.socket(family, socket.SOCK_STREAM)
        except OSError as error:
            self._setup_failed(node, f"no socket: {error.strerror or error}", now)
            return
        try:
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if sys.platform == "darwin":
                sock.setsockopt(socket.SOL_SOCKET, 0x1022, 1)  # SO_NOSIGPIPE
            if self.config.send_buffer_bytes >= 0:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, self.config.send_buffer_bytes)
            if self.config.receive_buffer_bytes >= 0:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self.config.receive_buffer_bytes)
            for option in self.config.socket_options:
                sock.setsockopt(*option)
            try:
                sock.connect(target)
            except BlockingIOError:
                pass
        except OSError as error:
            sock.close()
            self._setup_failed(node, f"{_show(target)}: {error.strerror or error}", now)
            return
        node.generation = self._loop.connect(node.node_id, sock.detach())

    def _setup_failed(self, node: Node, reason: str, now: float) -> None:
        generation = node.generation
        node.failed(now, reason)
        logger.info("%s: broker %s: %s", self.config.client_id, node, reason)
        if generation >= 0:
            self._loop.disconnect(node.node_id, generation)
            self._drop_requests(node, generation, reason)
        if node.node_id >= 0:
            self._want_refresh(stale=True)
        with self._changed:
            self._changed.notify_all()

    def _close_if_idle(self, node: Node, now: float) -> None:
        idle = self._loop.idle_since(node.node_id)
        # An answer can be on its way from the network loop to this thread: the connection looks idle then.
        if idle is None or any(request.node is node for request in self._requests.values()):
            return
        spare_bootstrap = node.node_id < 0 and any(
            other.state is State.READY for other in self._nodes.values()
        )
        limit = self.config.connections_max_idle_ms
        if spare_bootstrap or (limit > 0 and idle * 1000 >= limit):
            generation = node.generation
            node.closed_idle()
            self._wanted.discard(node.node_id)
            self._loop.disconnect(node.node_id, generation, True)

    def _on_event(self, event: tuple[Any, ...]) -> None:
        kind, node_id, generation, token, value1, value2, value3, data, batch = event
        if kind == _SPLIT:
            self._split(batch)
        elif kind == _REFRESH:
            self._want_refresh(stale=True)
        elif kind == _LEADER:
            self._on_new_leader(self._handles[value1].name, value2, Leader(node_id, value3))
        elif kind == _ENDPOINTS:
            self._on_endpoints(data)
        elif kind == _PRODUCER_ID:
            self._producer_id_wanted = True
        elif kind == _FATAL:
            self._on_core_fatal(self._core_error(value1, value2, node_id))
        elif kind == _ADD_PARTITION and self._transactions is not None:
            with self._changed:
                self._transactions.add_partition(self._handles[value1].name, value2)
        elif kind == _BATCH_FAILED:
            self._on_batch_failed(value1, node_id)
        elif kind == _WANTED:
            self._wanted.add(node_id)
        else:
            node = self._by_id.get(node_id)
            if node is None or node.generation != generation:
                return
            if kind == _CONNECTED:
                node.deadline = time.monotonic() + self.config.request_timeout_ms / 1000
                self._say_hello(node, node.hello(self.config.client_id), 4)
            elif kind == _FRAME and token == _HELLO:
                self._on_hello(node, value1, data)
            elif kind == _FRAME:
                self._on_frame(token, data)
            elif kind == _CLOSED:
                self._on_closed(node, value1, value2)

    def _say_hello(self, node: Node, frame: bytes, version: int) -> None:
        timeout = self.config.request_timeout_ms / 1000
        self._loop.send(node.node_id, node.generation, frame, _HELLO, version, timeout)

    def _on_hello(self, node: Node, version: int, frame: bytes) -> None:
        now = time.monotonic()
        try:
            again = node.learn_versions(version, frame)
            if again is not None:
                self._say_hello(node, node.hello(self.config.client_id, again), again)
                return
            produce_version = node.version_of(PRODUCE)
            if produce_version is None or node.version_of(METADATA) is None:
                raise ProtocolError(
                    f"the broker speaks Produce {node.versions.get(PRODUCE.key)}, this client "
                    f"{PRODUCE.versions[0]}-{PRODUCE.versions[1]}: it needs Apache Kafka 2.1 or newer"
                )
        except ProtocolError as error:
            self._setup_failed(node, f"not a usable Kafka broker: {error}", now)
            return
        node.ready(now)
        if self._transactions is not None:
            self._learn_features(self._transactions)
        logger.info("%s: connected to broker %s", self.config.client_id, node)
        if node.node_id >= 0:
            self._loop.enable(node.node_id, node.generation, produce_version)

    def _learn_features(self, manager: TransactionManager) -> None:
        """KIP-890: transactions version 2 are for clusters that have finalized the feature."""
        ready = [node for node in self._by_id.values() if node.state is State.READY]
        newest = max(ready, key=lambda node: node.features_epoch)
        with self._changed:
            manager.v2_offered = newest.features.get("transaction.version", 0) >= 2

    def _on_closed(self, node: Node, reason: int, system_error: int) -> None:
        now = time.monotonic()
        text = delivery.reason_text(reason)
        if system_error:
            text = f"{text}: {os.strerror(system_error)}"
        elif node.state is State.HANDSHAKE:
            text = f"{text} in answer to the first request: is this a plaintext Kafka listener?"
        generation = node.generation
        node.failed(now, text)
        logger.info("%s: broker %s: %s", self.config.client_id, node, text)
        self._drop_requests(node, generation, text)
        if node.node_id >= 0:
            # Its partitions may have moved; as long as it cannot be reached, they may still do so.
            self._want_refresh(stale=True)
        with self._changed:
            self._changed.notify_all()

    def _drop_requests(self, node: Node, generation: int, reason: str) -> None:
        """The requests on a connection that ended get no answer."""
        for token in [t for t, r in self._requests.items() if r.node is node and r.generation == generation]:
            request = self._requests.pop(token)
            request.handler(node, None, reason)

    # -- control requests

    def _request(
        self, api: Api, body: Body, handler: Handler, at_most: int | None = None, node: Node | None = None
    ) -> bool:
        """Ask a broker, by default the least loaded one. False: it cannot be asked now."""
        node = node or self._usable_node()
        if node is None or node.state is not State.READY:
            return False
        version = node.version_of(api, at_most)
        if version is None:
            handler(node, None, f"broker {node} does not know {api.name}")
            return True
        self._last_token += 1
        frame = encode_request(api, version, 0, self.config.client_id, body)
        timeout = self.config.request_timeout_ms / 1000
        if not self._loop.send(node.node_id, node.generation, frame, self._last_token, version, timeout):
            return False
        self._requests[self._last_token] = _Request(node, node.generation, api, version, handler)
        return True

    def _on_frame(self, token: int, frame: bytes) -> None:
        request = self._requests.pop(token, None)
        if request is None:
            return
        try:
            _, body = decode_response(request.api, request.version, frame)
        except ProtocolError as error:
            text = f"malformed {request.api.name} response: {error}"
            request.handler(request.node, None, text)
            self._setup_failed(request.node, text, time.monotonic())
            return
        request.handler(request.node, body, "")

    # -- metadata

    def _want_refresh(self, stale: bool = False) -> None:
        """Refresh metadata as soon as the back-off allows."""
        if not self._refresh_wanted:
            self._refresh_wanted = True
            now = time.monotonic()
            self._refresh_at = now
            if stale and now - self._refreshed_at < self._retry.base:
                # The last answer was stale already: give the cluster a moment to agree.
                self._refresh_at = self._refreshed_at + self._retry.base

    def _refresh(self) -> None:
        with self._changed:
            names = list(self._topics)
        body: Body = {
            "topics": [{"name": name} for name in names],
            "allow_auto_topic_creation": self.config.allow_auto_create_topics,
        }
        # Cleared before asking: what is wanted from now on needs another answer.
        self._refresh_wanted = False

        def answered(node: Node, answer: Body | None, reason: str) -> None:
            self._on_metadata(names, answer, reason)

        self._refreshing = True
        if not self._request(METADATA, body, answered):
            self._refreshing = False
            self._refresh_wanted = True

    def _on_metadata(self, asked: list[str], body: Body | None, reason: str) -> None:
        now = time.monotonic()
        self._refreshing = False
        if body is None or body["error_code"] or not body["brokers"]:
            self._refresh_failures += 1
            self._refresh_wanted = True
            self._refresh_at = now + self._retry.pause(self._refresh_failures)
            if body is not None and body["error_code"] == 129:  # REBOOTSTRAP_REQUIRED (KIP-1102)
                self._rebootstrap()
            logger.info("%s: no metadata: %s", self.config.client_id, reason or "the answer has no brokers")
            return
        cluster = self.cluster.updated(body)
        self._take_over_brokers(cluster)
        unsettled = False
        rows = {row["name"]: row for row in body["topics"]}
        with self._changed:
            self.cluster = cluster
            for name in asked:
                state = self._topics.get(name)
                row = rows.get(name)
                if state is None or row is None:
                    continue
                state.error = row["error_code"]
                state.asked += 1
                topic = cluster.topic_by_name[name]
                if topic.leaders:
                    self._take_over_topic(state)
                if state.error or any(leader.node_id < 0 for leader in topic.leaders):
                    unsettled = unsettled or errors.for_code(state.error).retriable or not state.error
            self._refreshed_at = now
            self._changed.notify_all()
        self._loop.refreshed()
        self._fail_refused_topics()
        if unsettled:
            self._refresh_failures += 1
            self._refresh_wanted = True
            self._refresh_at = now + self._retry.pause(self._refresh_failures)
        else:
            self._refresh_failures = 0

    def _take_over_brokers(self, cluster: ClusterSnapshot) -> None:
        for node_id, broker in cluster.broker_by_id.items():
            node = self._nodes.get(node_id)
            if node is None:
                node = Node(node_id, broker.host, broker.port, self._reconnect, self._setup)
                self._nodes[node_id] = self._by_id[node_id] = node
            elif node.moved_to(broker.host, broker.port) and node.state is not State.IDLE:
                self._setup_failed(node, "the broker moved to another address", time.monotonic())
            if self.config.partitioner_rack_aware:
                self._loop.set_near(node_id, broker.rack == self.config.client_rack)
        for node_id in set(self._nodes) - set(cluster.broker_by_id):
            node = self._nodes[node_id]
            if node.state is State.IDLE:
                del self._nodes[node_id], self._by_id[node_id]
                self._wanted.discard(node_id)
        # One answer is all that bootstrap addresses are for, as long as there are brokers.
        for node in self._bootstrap:
            self._wanted.discard(node.node_id)

    def _take_over_topic(self, state: _TopicState) -> None:
        """Give the core what is known of a topic's partitions, and connect to their leaders."""
        topic = self.cluster.topic_by_name[state.name]
        if state.handle is None:
            state.handle = self._make_handle(state.name)
            handle = state.handle
            handle.set_partition_count(len(topic.leaders))
            self._loop.add_topic(handle)
            self._handles.append(handle)
        else:
            state.handle.set_partition_count(len(topic.leaders))
        leaders = [(index, leader.node_id, leader.epoch) for index, leader in enumerate(topic.leaders)]
        self._loop.set_leaders(state.handle, leaders, topic.topic_id if topic.topic_id != ZERO_UUID else None)
        self._wanted.update(leader.node_id for leader in topic.leaders if leader.node_id in self._nodes)

    def _make_handle(self, name: str) -> Topic:
        config = self.config
        own = config.topic_options.get(name)
        codec = (own and own.compression_type) or config.compression_type
        level = own.compression_level if own and own.compression_level is not None else None
        if level is None:
            level = config.compression_level_of(codec)
        acks = own.acks if own and own.acks is not None else config.acks
        size = own.batch_size if own and own.batch_size is not None else config.batch_size
        found = compression.get_codec(codec)
        return Topic(
            name,
            len(self._handles),
            self._reporter,
            size,
            int(config.linger_ms * 1000),
            found.id,
            (found.default_level or 0) if level is None else level,
            acks,
            config.partitioner_adaptive_partitioning_enable,
            config.partitioner_rack_aware,
            random.getrandbits(64),
        )

    def _fail_refused_topics(self) -> None:
        """Records for a topic that the brokers refuse need not wait for delivery.timeout.ms."""
        for state in self._topics.values():
            if state.error and state.handle is not None and not errors.for_code(state.error).retriable:
                self._loop.fail_topic(state.handle, state.error)

    def _forget_idle_topics(self, now: float) -> None:
        """Topics that were asked for and never got a handle are not asked for for ever (metadata.max.idle.ms)."""
        with self._changed:
            for name, state in list(self._topics.items()):
                if state.handle is None and now - state.last_used > self.config.metadata_max_idle_ms / 1000:
                    del self._topics[name]

    def _rebootstrap(self) -> None:
        for node in self._bootstrap:
            self._by_id[node.node_id] = node
            self._wanted.add(node.node_id)

    def _on_new_leader(self, name: str, partition: int, leader: Leader) -> None:
        """KIP-951: a produce response named the new leader."""
        with self._changed:
            cluster = self.cluster.with_leader(name, partition, leader)
            state = self._topics.get(name)
            if cluster is self.cluster or state is None or state.handle is None:
                return
            self.cluster = cluster
        self._loop.set_leaders(state.handle, [(partition, leader.node_id, leader.epoch)], None)
        self._wanted.add(leader.node_id)

    def _on_endpoints(self, data: bytes) -> None:
        """KIP-951: addresses of the brokers that a produce response named."""
        brokers: dict[int, Broker] = {}
        try:
            cursor = Cursor(data)
            for _ in range(max(cursor.compact_array_length(11), 0)):
                node_id, host, port = cursor.int32(), cursor.nullable_compact_string(), cursor.int32()
                rack = cursor.nullable_compact_string()
                cursor.tagged_fields({}, {})
                brokers[node_id] = Broker(node_id, host or "", port, rack)
        except ProtocolError as error:
            logger.info("%s: node endpoints of a produce response: %s", self.config.client_id, error)
            return
        with self._changed:
            self.cluster = self.cluster.with_brokers(brokers)
        self._take_over_brokers(self.cluster)

    # -- the idempotent producer

    def _ask_producer_id(self) -> None:
        body: Body = {"transactional_id": None, "transaction_timeout_ms": 2**31 - 1}
        self._producer_id_asked = True
        if not self._request(INIT_PRODUCER_ID, body, self._on_producer_id):
            self._producer_id_asked = False

    def _on_producer_id(self, node: Node, body: Body | None, reason: str) -> None:
        self._producer_id_asked = False
        if body is not None and body["error_code"] == 0:
            self._producer_id_wanted = False
            self._producer_id_failures = 0
            self._loop.set_producer_id(body["producer_id"], body["producer_epoch"])
            return
        kind = errors.for_code(body["error_code"]) if body is not None else errors.KafkaConnectionError
        if body is not None and not kind.retriable:
            self._on_fatal(kind("InitProducerId was refused", broker=str(node)))
            return
        self._producer_id_failures += 1
        self._producer_id_at = time.monotonic() + self._retry.pause(self._producer_id_failures)
        logger.info("%s: no producer id from broker %s: %s", self.config.client_id, node, reason or kind.__name__)

    def _core_error(self, code: int, cause: int, node_id: int) -> KafkaError:
        broker = self._describe_broker(node_id)
        if code == delivery.GAP:
            return errors.KafkaError(
                f"a record was lost ({delivery.reason_text(cause)}), and with the option gapless nothing may be written "
                "behind it; make a new producer to go on",
                broker=broker,
            )
        return errors.for_code(code)(broker=broker)

    def _on_core_fatal(self, error: KafkaError) -> None:
        if self._transactions is None:
            self._on_fatal(error)
            return
        with self._changed:
            self._transactions.fatal(error)
            self._apply_effects(self._transactions)

    def _on_fatal(self, error: KafkaError) -> None:
        """The producer can send nothing more: say so everywhere, at once."""
        logger.error("%s: fatal: %s", self.config.client_id, error)
        with self._changed:
            self.fatal_error = self.fatal_error or error
            self._changed.notify_all()
        self._producer_id_wanted = False
        self.accumulator.set_gate(delivery.GATE_FATAL)
        self._loop.fail_all(delivery.FATAL)

    def _split(self, batch: Any) -> None:
        try:
            self._loop.split(batch)
        except Exception:
            logger.exception("%s: a batch that is too large for the broker could not be split", self.config.client_id)
            self._loop.fail_split(batch, 10)

    # ------------------------------------------------------------------------------------- figures

    def counters(self) -> dict[str, Any]:
        """Everything that is counted, see :mod:`kprod.metrics`."""
        return {
            "loop": self._loop.counters(),
            "brokers": self._loop.broker_counters(),
            "memory": self.accumulator.memory(),
            "topics": {handle.name: handle.counters() for handle in list(self._handles)},
            "incomplete_batches": self.accumulator.incomplete_batches,
            "metadata_age_s": time.monotonic() - self._refreshed_at if self._refreshed_at else None,
        }


# ----------------------------------------------------------------------------------------- system


class _WakeChannel:
    """What application threads write to when the network loop sleeps: an eventfd, or a pair of sockets."""

    def __init__(self) -> None:
        self._pair: tuple[socket.socket, socket.socket] | None = None
        if hasattr(os, "eventfd"):
            self.reader = self.writer = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        else:
            self._pair = socket.socketpair()
            for end in self._pair:
                end.setblocking(False)
            self.reader, self.writer = (end.fileno() for end in self._pair)

    def close(self) -> None:
        """Close it; the loop must have ended."""
        if self._pair is None:
            os.close(self.reader)
        else:
            for end in self._pair:
                end.close()


def _show(target: Any) -> str:
    host, port = target[0], target[1]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _numeric_address(host: str, port: int) -> Address | None:
    """The address of a host given by numbers; None: it is a name."""
    try:
        found = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
        )
    except OSError:
        return None
    return (int(found[0][0]), found[0][4]) if found else None


def _resolve(host: str, port: int, lookup: str) -> list[Address]:
    """All addresses of a host name, in the system's order (KIP-302)."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    if lookup == "resolve_canonical_bootstrap_servers_only":
        names = dict.fromkeys(socket.getnameinfo(target[:2], socket.NI_NUMERICSERV)[0] for *_, target in found)
        found = [row for name in names for row in socket.getaddrinfo(name, port, type=socket.SOCK_STREAM)]
    return list(dict.fromkeys((int(row[0]), row[4]) for row in found))


def _operation_timed_out(operation: Operation, timeout: float, detail: str) -> KafkaError:
    return errors.KafkaTimeoutError(
        f"{operation.kind.value}() timed out after {timeout:g} s ({detail}); it goes on: call it again to wait for it"
    )


def _plain_offsets(offsets: Mapping[Any, Any]) -> dict[tuple[str, int], tuple[int, int, str | None]]:
    """Offsets as the transaction manager takes them.

    Accepts ``{TopicPartition: OffsetAndMetadata}`` (kafka-python's, this package's, or plain tuples and ints), and
    confluent-kafka's list of TopicPartition objects that carry their offset.
    """
    plain: dict[tuple[str, int], tuple[int, int, str | None]] = {}
    if not isinstance(offsets, Mapping):
        for place in offsets:
            epoch = getattr(place, "leader_epoch", None)
            plain[(place.topic, place.partition)] = (
                place.offset,
                -1 if epoch is None else epoch,
                getattr(place, "metadata", None),
            )
    else:
        for place, value in offsets.items():
            topic, partition = (
                (place.topic, place.partition) if hasattr(place, "partition") and hasattr(place, "topic") else place
            )
            if isinstance(value, int):
                plain[(topic, partition)] = (value, -1, None)
            elif hasattr(value, "offset"):
                epoch = getattr(value, "leader_epoch", None)
                plain[(topic, partition)] = (
                    value.offset,
                    -1 if epoch is None else epoch,
                    getattr(value, "metadata", None),
                )
            else:
                plain[(topic, partition)] = (value[0], -1, value[1] if len(value) > 1 else None)
    for (topic, partition), (offset, _, _) in plain.items():
        if not isinstance(topic, str) or not isinstance(partition, int) or not isinstance(offset, int):
            raise TypeError(
                f"offsets must map TopicPartition to OffsetAndMetadata or int, got {(topic, partition)!r}: {offset!r}"
            )
        if offset < 0:
            raise ValueError(f"the offset of {topic}-{partition} must be >= 0, got {offset}")
    return plain


# ----------------------------------------------------------------------------------------- exit and fork

_engines: weakref.WeakSet[Engine] = weakref.WeakSet()

EXIT_TIMEOUT_S: Final = 30.0
"""How long the end of the interpreter waits for records that no close() was called for."""


def close_at_exit() -> None:
    """Deliver what producers that nobody closed still have, before the interpreter ends."""
    for engine in list(_engines):
        engine.close(EXIT_TIMEOUT_S)


def _after_fork_in_child() -> None:
    for engine in list(_engines):
        engine.after_fork_in_child()


atexit.register(close_at_exit)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
