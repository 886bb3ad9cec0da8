"""What a KafkaProducer runs on: its threads, the calls of application threads, the end, exit and fork."""

from __future__ import annotations

import atexit
import logging
import math
import os
import random
import sys
import threading
import time
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from kprod import delivery, errors, greenlets, health, threads
from kprod._core.accumulator import Accumulator, Topic
from kprod._core.future import set_greenlets
from kprod._core.io import NetworkLoop
from kprod.cluster.metadata import ClusterSnapshot
from kprod.cluster.node import Node
from kprod.config import ProducerConfig
from kprod.delivery import DeliveryReporter
from kprod.engine.control import Control
from kprod.engine.description import ClusterDescription
from kprod.engine.shared import Shared
from kprod.engine.topics import Topics
from kprod.engine.wake import WakeChannel
from kprod.errors import KafkaError
from kprod.greenlets import cooperative
from kprod.health import Health
from kprod.metrics import Metrics
from kprod.protocol.schema import Body

if TYPE_CHECKING:
    import uuid

    from kprod.engine.committed import Committed
    from kprod.engine.transactions import Transactions
    from kprod.transactions.prepared import PreparedTxnState

logger = logging.getLogger("kprod.engine")

set_greenlets(greenlets)  # the core imports nothing of the package

EXIT_TIMEOUT_S: Final = 30.0
"""How long the end of the interpreter waits for records that no close() was called for."""


class Engine:
    """What a KafkaProducer runs on.

    Args:
        config: the checked options.
        keep_headers: delivery reports have the records' headers, also without delivery_report_headers.
    """

    def __init__(self, config: ProducerConfig, *, keep_headers: bool = False) -> None:
        self.config = config
        # First: wrong files and passwords are found here.
        tls = None
        if config.security_protocol in ("SSL", "SASL_SSL"):
            from kprod.security.tls import TlsSettings  # here: most producers do without it, as without ssl

            tls = TlsSettings(config)
        sasl = None
        if config.security_protocol.startswith("SASL"):
            from kprod.security.sasl import Sasl

            sasl = Sasl(config)
        reporter = DeliveryReporter(
            lambda node_id: self._control.nodes.describe_broker(node_id),
            lambda topic, partition: self._control.describe_leader(topic, partition),
            lambda topic, partition: self._control.nodes.refusal_of(topic, partition),
            lambda: self._shared.fatal_error,
            self._no_transaction,
            buffer_memory=config.buffer_memory,
            max_block_ms=config.max_block_ms,
            delivery_timeout_ms=config.delivery_timeout_ms,
        )
        self._wake = WakeChannel()
        self.accumulator = Accumulator(
            reporter,
            config.buffer_memory,
            max(config.batch_size, 512),
            self._wake.writer,
            config.delivery_report_headers or keep_headers,
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
            metrics_span_ms=config.metrics_num_samples * config.metrics_sample_window_ms,
        )
        self._shared = Shared(config, reporter, self.accumulator, self._loop, tls, sasl)
        self._control = Control(self._shared, self.counters)
        self._topics = Topics(self._shared, self._control.nodes, self._control.metadata)
        self._description = ClusterDescription(self._shared, self._control.nodes, self._control.connections)
        self._closed = False
        self._close_lock = threads.lock()
        self._threads: list[threads.ThreadLike] = []
        self._start_threads()
        _engines.add(self)

    def _start_threads(self) -> None:
        config = self.config
        self._start("io", self._loop.run)
        self._start("control", self._control.run)
        self._start("delivery", self.accumulator.run_delivery)
        codecs = {config.compression_type, *(o.compression_type for o in config.topic_options.values())}
        if codecs - {"none", None}:
            self._start("compress", self.accumulator.run_compressor)

    def _start(self, name: str, target: Callable[[], None]) -> None:
        thread = threads.thread(f"{self.config.client_id}-{name}", target)
        thread.start()
        self._threads.append(thread)

    # -- topics and brokers

    @property
    def cluster(self) -> ClusterSnapshot:
        """What is known of the cluster now."""
        return self._shared.cluster

    def topic_for_send(self, name: object, max_block_s: float) -> Topic:
        """The handle of a topic; waits for its metadata up to ``max_block_s`` seconds.

        Raises:
            TypeError, ValueError: it is not a topic name.
            KafkaTimeoutError: no metadata came; ``__cause__`` says what the brokers answered, if they did.
            TopicAuthorizationFailedError, InvalidTopicError: the brokers refuse the topic.
        """
        handle = self._topics.known(name)
        return self._new_topic(name, max_block_s) if handle is None else handle

    @cooperative
    def _new_topic(self, name: object, max_block_s: float) -> Topic:
        with self._shared.blocked.spent("metadata_wait_ns"):
            return self._topics.handle(name, max_block_s)

    def partitions_for(self, name: str, max_block_s: float) -> set[int]:
        """Numbers of a topic's partitions; raises as :meth:`topic_for_send`."""
        return set(range(self.topic_for_send(name, max_block_s).partition_count))

    def too_large(self, topic: str, size: int, limit: int) -> KafkaError:
        """The error for a record that no request can hold."""
        return errors.MessageSizeTooLargeError(
            f"the record takes {size} bytes with its overhead, max_request_size is {limit}",
            topic=topic,
            persisted="no",
        )

    def request_refresh(self) -> None:
        """Ask for new metadata soon."""
        self._control.metadata.request_refresh()

    @cooperative
    def wait_bootstrapped(self, timeout_s: float) -> None:
        """Wait until a broker has answered.

        Raises:
            NoBrokersAvailable: none did within ``timeout_s`` seconds, or every one failed several times in a
                row.
            AuthenticationFailedError, ...: what a broker refused this client with, when no other can be used.
        """
        shared = self._shared
        deadline = time.monotonic() + timeout_s
        with shared.changed:
            while not shared.refreshed_at:
                left = deadline - time.monotonic()
                if (refusal := self._control.nodes.refusal()) is not None:
                    raise refusal
                if self._control.nodes.bootstrap_failed or left <= 0:
                    raise errors.NoBrokersAvailable(
                        f"none of the bootstrap servers could be reached: {self._control.nodes.report()}"
                    )
                if shared.fatal_error is not None:
                    raise shared.fatal_error
                shared.changed.wait(min(left, 1.0))

    def bootstrap_connected(self) -> bool:
        """Whether there is a connection to a broker now."""
        return self._control.nodes.any_ready

    def connection_trouble(self) -> str | None:
        """What is known of every broker, when none can be reached; None: one is connected, or may be soon."""
        nodes = self._control.nodes
        if nodes.any_ready or not nodes.bootstrap_failed:
            return None
        return nodes.report()

    def health(self, max_record_age: float | None, max_buffer_share: float) -> Health:
        """See KafkaProducer.healthy()."""
        shared = self._shared
        connected = not self.closed and self.bootstrap_connected()
        memory = self.accumulator.memory()
        limit = self.config.delivery_timeout_ms / 2000 if max_record_age is None else max_record_age
        return health.judge(
            closed=self.closed,
            forked=shared.forked,
            fatal_error=shared.fatal_error,
            connected=connected,
            trouble=None if connected else self._control.nodes.trouble(),
            # A child of a fork may have got its parent's locks as they were held.
            oldest_record_age=0.0 if shared.forked else self.accumulator.oldest_age(),
            unacknowledged_batches=self.accumulator.incomplete_batches,
            buffer_share=memory["used"] / memory["total"],
            waiting_threads=memory["waiting"],
            brokers_away=() if shared.forked else self._brokers_away(),
            max_record_age=limit,
            max_buffer_share=max_buffer_share,
        )

    def _brokers_away(self) -> tuple[int, ...]:
        return tuple(
            sorted(
                node_id
                for node_id, broker in self._loop.broker_counters().items()
                if broker["stalled"] or broker["wanted"] or (broker["held"] and not broker["connected"])
            )
        )

    @cooperative
    def describe_cluster(self, topics: list[str] | None, timeout_s: float) -> tuple[Node, Body]:
        """Which brokers and topics there are: see :class:`ClusterDescription`."""
        return self._description.ask(topics, timeout_s)

    @cooperative
    def committed_offset(
        self, group_id: str, topic: str, partition: int, timeout_s: float
    ) -> Committed | None:
        """What a consumer group has committed for a partition: see :mod:`kprod.engine.committed`."""
        from kprod.engine.committed import CommittedOffsets  # here: few programs ask

        self._shared.check_not_forked()
        control = self._control
        asking = CommittedOffsets(self._shared, control.nodes, control.connections)
        return asking.ask(group_id, topic, partition, timeout_s)

    @cooperative
    def client_instance_id(self, timeout_s: float) -> uuid.UUID:
        """See KafkaProducer.client_instance_id()."""
        self._shared.check_not_forked()
        if not self.config.pushes_metrics:
            off = "metrics_enabled" if self.config.enable_metrics_push else "enable_metrics_push"
            raise errors.IllegalStateError(f"client_instance_id() needs {off}=True: metrics are not pushed")
        from kprod.engine.telemetry import wait_for_client_instance_id  # here: few programs ask

        control = self._control
        return wait_for_client_instance_id(self._shared, control.nodes, lambda: control.telemetry, timeout_s)

    def counters(self) -> dict[str, Any]:
        """Everything that is counted, see :mod:`kprod.metrics`."""
        refreshed_at = self._shared.refreshed_at
        authenticator = self._control.connections.authenticator
        return {
            "loop": self._loop.counters(),
            "brokers": self._loop.broker_counters(),
            "memory": self.accumulator.memory(),
            "topics": {handle.name: handle.counters() for handle in list(self._shared.handles)},
            "authentication": authenticator.counters() if authenticator is not None else {},
            "blocked": self._shared.blocked.counters(),
            "incomplete_batches": self.accumulator.incomplete_batches,
            "metadata_age_s": time.monotonic() - refreshed_at if refreshed_at else None,
        }

    @property
    def metrics(self) -> Metrics:
        """Makes metrics of :meth:`counters`."""
        return self._shared.metrics

    def set_sasl_credentials(
        self, username: str | Callable[[], str], password: str | Callable[[], str]
    ) -> None:
        """See KafkaProducer.set_sasl_credentials()."""
        authenticator = self._control.connections.authenticator
        if authenticator is None:
            raise errors.IllegalStateError(
                f"security_protocol={self.config.security_protocol!r} does not authenticate with SASL"
            )
        authenticator.set_credentials(username, password)
        # Who was refused with the old ones is asked again.
        self._control.nodes.demand()
        self._shared.loop.wake_control()

    # -- records under way

    @cooperative
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
        self._shared.check_not_forked()
        with self._shared.blocked.spent("flush_ns"):
            left = self.accumulator.flush(timeout)
        if left:
            raise errors.KafkaTimeoutError(
                f"flush() timed out after {timeout:g} s with {left} record(s) not decided; "
                f"{self._control.nodes.report()}"
            )

    def purge(self, in_queue: bool, in_flight: bool) -> None:
        """Fail what waits in the queues, and what is in flight, with PurgedError."""
        self._shared.check_not_forked()
        if in_queue:
            self._loop.fail_all(delivery.PURGED_QUEUE, queued=True, in_flight=False)
        if in_flight:
            self._loop.fail_all(delivery.PURGED_IN_FLIGHT, queued=False, in_flight=True)

    # -- transactions

    @property
    def transaction_state(self) -> str | None:
        """The transaction's state in words; None: not a transactional producer."""
        transactions = self._control.transactions
        return transactions.state if transactions is not None else None

    @cooperative
    def init_transactions(self, keep_prepared_txn: bool, timeout: float) -> None:
        """See KafkaProducer.init_transactions()."""
        with self._shared.blocked.spent("txn_init_ns"):
            self._transactional("init_transactions()").init(keep_prepared_txn, timeout)

    def begin_transaction(self) -> None:
        """See KafkaProducer.begin_transaction()."""
        with self._shared.blocked.spent("txn_begin_ns"):
            self._transactional("begin_transaction()").begin()

    @cooperative
    def send_offsets(self, offsets: Any, group_metadata: Any, timeout: float) -> None:
        """See KafkaProducer.send_offsets_to_transaction()."""
        with self._shared.blocked.spent("txn_send_offsets_ns"):
            self._transactional("send_offsets_to_transaction()").send_offsets(
                offsets, group_metadata, timeout
            )

    @cooperative
    def prepare_transaction(self, timeout: float) -> PreparedTxnState:
        """See KafkaProducer.prepare_transaction()."""
        with self._shared.blocked.spent("txn_prepare_ns"):
            return self._transactional("prepare_transaction()").prepare(timeout)

    @cooperative
    def complete_transaction(self, state: PreparedTxnState | str, timeout: float) -> None:
        """See KafkaProducer.complete_transaction()."""
        self._transactional("complete_transaction()").complete(state, timeout)

    @cooperative
    def commit_transaction(self, timeout: float) -> None:
        """See KafkaProducer.commit_transaction()."""
        with self._shared.blocked.spent("txn_commit_ns"):
            self._transactional("commit_transaction()").commit(timeout)

    @cooperative
    def abort_transaction(self, timeout: float) -> None:
        """See KafkaProducer.abort_transaction()."""
        with self._shared.blocked.spent("txn_abort_ns"):
            self._transactional("abort_transaction()").abort(timeout)

    def _transactional(self, what: str) -> Transactions:
        self._shared.check_not_forked()
        if self._shared.closing:
            raise self._shared.reporter.gate_error(delivery.GATE_CLOSED)
        if self._control.transactions is None:
            raise errors.IllegalStateError(f"{what} needs the option transactional_id")
        if self.accumulator.in_delivery_thread():
            raise errors.IllegalStateError(f"{what} inside a delivery callback would wait for itself")
        return self._control.transactions

    def _no_transaction(self) -> KafkaError:
        assert self._control.transactions is not None
        return self._control.transactions.no_transaction()

    # -- the end

    def close(self, timeout: float | None) -> None:
        """Refuse new records, decide those under way, stop the threads.

        Inside a callback it returns at once and closes in the background.

        Args:
            timeout: seconds to wait for records under way; then they fail. None: as long as it takes.
        """
        if self._shared.forked or self._closed:
            return
        if self.accumulator.in_delivery_thread():
            self.close_in_background(timeout)
            return
        self._close_and_wait(timeout)

    @cooperative
    def _close_and_wait(self, timeout: float | None) -> None:
        self.close_blocking(timeout)

    def close_blocking(self, timeout: float | None) -> None:
        """Close without letting greenlets run: at the end of the interpreter no thread can be started."""
        if self._shared.forked or self._closed:
            return
        # Another thread may be closing it: then wait for that, but not beyond our own timeout.
        if not self._close_lock.acquire(
            timeout=-1 if timeout is None else min(timeout, threading.TIMEOUT_MAX)
        ):
            return
        try:
            if not self._closed:
                self._close(timeout)
                self._closed = True
        finally:
            self._close_lock.release()
        _engines.discard(self)

    def close_in_background(self, timeout: float | None = None) -> None:
        """Close without waiting for it: a producer that was dropped, or closed by its own callback."""
        if self._shared.forked or sys.is_finalizing():
            return
        self.accumulator.set_gate(delivery.GATE_CLOSED)
        threads.thread(f"{self.config.client_id}-close", self.close, timeout).start()

    def _close(self, timeout: float | None) -> None:
        deadline = None if timeout is None else time.monotonic() + timeout
        if self._control.transactions is not None:
            self._control.transactions.abort_if_open(timeout)
        self.accumulator.set_gate(delivery.GATE_CLOSED)
        self._shared.closing = True
        self._shared.notify()
        if timeout != 0:
            self._loop.drain()
            if self.accumulator.incomplete_batches:
                self.accumulator.flush(timeout)
        undecided = self.accumulator.undecided_records()
        if undecided:
            logger.warning(
                "%s: closed with %d record(s) not acknowledged within %s s; "
                "their futures and callbacks get the error",
                self.config.client_id,
                undecided,
                timeout,
            )
        if self._control.telemetry is not None and timeout != 0:
            left = math.inf if deadline is None else deadline - time.monotonic()
            self._control.telemetry.push_last(left)
        # What another thread is compressing or splitting can be failed a moment later.
        while self._loop.fail_all(delivery.CLOSED):
            time.sleep(0.001)
        self._control.stop()
        self._join("control")
        self._control.connections.abandon_attempts()
        self._loop.stop()
        self._join("io")
        self.accumulator.stop_compressor()
        self.accumulator.stop_delivery()
        self._join("compress")
        self._join("delivery")
        # A thread in send() may be about to wake the loop: it must not write to a file that got our number.
        while self._loop.wakers():
            time.sleep(0.001)
        self._wake.close()

    def _join(self, name: str) -> None:
        for thread in self._threads:
            if thread.name.endswith(f"-{name}") and thread.ident != threads.get_ident():
                thread.join()

    @property
    def closed(self) -> bool:
        """Whether close() was called."""
        return self._shared.closing or self._closed

    def after_fork_in_child(self) -> None:
        """Refuse everything, and leave the parent's sockets alone: a child has none of the threads."""
        self._shared.after_fork_in_child()


# -- exit and fork

_engines: weakref.WeakSet[Engine] = weakref.WeakSet()
"""Those that are not closed; their threads keep them alive, through the reporter."""


def close_at_exit() -> None:
    """Deliver what producers that nobody closed still have, before the interpreter ends."""
    for engine in list(_engines):
        engine.close_blocking(EXIT_TIMEOUT_S)


def _after_fork_in_child() -> None:
    for engine in list(_engines):
        engine.after_fork_in_child()


atexit.register(close_at_exit)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
