"""The control thread: gives the core's events to the parts that they concern; lets each do what is due."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from kprod import delivery, errors
from kprod.cluster.metadata import Leader
from kprod.engine.connections import Connections
from kprod.engine.metadata import Metadata
from kprod.engine.nodes import Nodes
from kprod.engine.producer_id import ProducerId
from kprod.engine.shared import Shared
from kprod.errors import KafkaError
from kprod.protocol import GET_TELEMETRY_SUBSCRIPTIONS

if TYPE_CHECKING:
    from kprod.engine.telemetry import Telemetry
    from kprod.engine.transactions import Transactions

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


class Control:
    """The parts that the control thread drives, and its loop.

    Args:
        shared: what the threads share.
        counters: everything that is counted, for metrics.
    """

    def __init__(self, shared: Shared, counters: Callable[[], dict[str, Any]]) -> None:
        self._shared = shared
        self._counters = counters
        self._stopping = False
        self.nodes = Nodes(shared)
        self.connections = Connections(
            shared, self.nodes, on_lost=self._on_broker_lost, on_ready=self._on_broker_ready
        )
        self.metadata = Metadata(shared, self.nodes, self.connections)
        self.producer_id = ProducerId(shared, self.nodes, self.connections)
        self.transactions: Transactions | None = None
        transactional_id = shared.config.transactional_id
        if transactional_id is not None:
            from kprod.engine.transactions import Transactions  # here: most producers do without it

            self.transactions = Transactions(shared, self.nodes, self.connections, transactional_id)
        self.telemetry: Telemetry | None = None
        """There is none before a broker is connected that has it, and ``enable_metrics_push``."""
        self._without_telemetry_said = False

    def run(self) -> None:
        """The thread's function; ends after :meth:`stop`."""
        loop = self._shared.loop
        while not self._stopping:
            now = time.monotonic()
            timeout = max(0.0, min(self._deadline(now) - now, 60.0))
            try:
                # KIP-951's endpoints come after the leaders that they are for: take them over first.
                events = loop.wait_events(timeout)
                for event in sorted(events, key=lambda event: event[0] != _ENDPOINTS):
                    self._on_event(event)
                self._shared.run_calls()
                self._tick(time.monotonic())
            except Exception:
                # Nothing that happens here may end the thread: records under way still need it.
                logger.exception("%s: unexpected error in the control thread", self._shared.config.client_id)
                time.sleep(0.05)
        for event in loop.wait_events(0.0):
            if event[8] is not None:
                loop.fail_split(event[8], delivery.CLOSED)

    def describe_leader(self, topic: str, partition: int) -> str:
        """Why a partition's records do not leave, in words; for any thread."""
        text = self.nodes.describe_leader(topic, partition)
        problem = self.producer_id.problem
        return text if problem is None else f"{text}; there is no producer id: {problem}"

    def stop(self) -> None:
        """Let :meth:`run` return; for any thread."""
        self._stopping = True
        self._shared.loop.wake_control()

    # -- what is due

    def _deadline(self, now: float) -> float:
        moments = [self.metadata.deadline(now), self.connections.deadline(now)]
        if self._shared.config.metrics_enabled:
            moments.append(self._shared.metrics.next_sample_at)
        if (moment := self.producer_id.deadline()) is not None:
            moments.append(moment)
        if self.transactions is not None and (moment := self.transactions.deadline(now)) is not None:
            moments.append(moment)
        if self.telemetry is not None and (moment := self.telemetry.deadline(now)) is not None:
            moments.append(moment)
        return min(moments)

    def _tick(self, now: float) -> None:
        """Do what is due."""
        if self._shared.config.metrics_enabled and now >= self._shared.metrics.next_sample_at:
            self._shared.metrics.sample(self._counters(), now)
        self.metadata.check_age(now)
        self.connections.check(now)
        if self._has_questions(now):
            self.connections.ensure_usable(now)
        self.connections.connect_wanted(now)
        self.metadata.refresh_if_due(now)
        self.producer_id.ask_if_due(now)
        if self.transactions is not None:
            self.transactions.send_next(now)
        if self.telemetry is not None:
            self.telemetry.send_if_due(now)

    def _has_questions(self, now: float) -> bool:
        """Whether a broker is needed for anything but records."""
        return (
            self.metadata.refresh_wanted
            or self.producer_id.wanted
            or (self.transactions is not None and self.transactions.wake_at() is not None)
            or (self.telemetry is not None and self.telemetry.wants_broker(now))
        )

    # -- what happens

    def _on_event(self, event: tuple[Any, ...]) -> None:
        kind, node_id, generation, token, value1, value2, value3, data, batch = event
        if kind == _SPLIT:
            self._split(batch)
        elif kind == _REFRESH:
            self.metadata.want_refresh(stale=True)
        elif kind == _LEADER:
            self.metadata.on_new_leader(self._shared.handles[value1].name, value2, Leader(node_id, value3))
        elif kind == _ENDPOINTS:
            self.metadata.on_endpoints(data)
        elif kind == _PRODUCER_ID:
            self.producer_id.want()
        elif kind == _FATAL:
            self._on_core_fatal(self._core_error(value1, value2, node_id))
        elif kind == _ADD_PARTITION and self.transactions is not None:
            self.transactions.add_partition(self._shared.handles[value1].name, value2)
        elif kind == _BATCH_FAILED:
            if self.transactions is not None:
                self.transactions.check_batches(node_id)
        elif kind == _WANTED:
            self.nodes.wanted.add(node_id)
            if (leader := self.nodes.by_id.get(node_id)) is not None:
                leader.demanded = True
        else:
            node = self.nodes.current(node_id, generation)
            if node is None:
                return
            if kind == _CONNECTED:
                self.connections.on_connected(node)
            elif kind == _FRAME:
                self.connections.on_frame(node, token, value1, data)
            elif kind == _CLOSED:
                self.connections.on_closed(node, value1, value2, bool(value3), data)

    def _on_broker_lost(self, node_id: int) -> None:
        self.metadata.want_refresh(stale=True)
        if self.transactions is not None:
            self.transactions.on_broker_lost(node_id)

    def _on_broker_ready(self) -> None:
        if self.telemetry is None:
            self._find_telemetry()
        self._shared.notify()
        if self.transactions is not None:
            self.transactions.learn_features()

    def _find_telemetry(self) -> None:
        """Brokers without a receiver for clients' metrics do not offer the API, and cost nothing."""
        config = self._shared.config
        if not config.pushes_metrics:
            return
        if self.nodes.usable(GET_TELEMETRY_SUBSCRIPTIONS) is not None:
            try:
                from kprod.engine.telemetry import Telemetry  # here: few clusters have it

                self.telemetry = Telemetry(self._shared, self.nodes, self.connections, self._counters)
            except Exception:
                # The connection is needed for records, whatever becomes of metrics.
                logger.exception("%s: no client telemetry", config.client_id)
        elif not self._without_telemetry_said:
            self._without_telemetry_said = True
            logger.debug(
                "%s: the brokers have no client telemetry (KIP-714): no metrics are pushed", config.client_id
            )

    def _core_error(self, code: int, cause: int, node_id: int) -> KafkaError:
        broker = self.nodes.describe_broker(node_id)
        if code == delivery.GAP:
            return errors.KafkaError(
                f"a record was lost ({delivery.reason_text(cause)}), and with the option gapless nothing may "
                "be written behind it; make a new producer to go on",
                broker=broker,
            )
        return errors.for_code(code)(broker=broker)

    def _on_core_fatal(self, error: KafkaError) -> None:
        if self.transactions is not None:
            self.transactions.on_fatal(error)
            return
        self._shared.fail(error)
        self.producer_id.give_up()

    def _split(self, batch: Any) -> None:
        try:
            self._shared.loop.split(batch)
        except Exception:
            logger.exception(
                "%s: a batch that is too large for the broker could not be split",
                self._shared.config.client_id,
            )
            self._shared.loop.fail_split(batch, 10)
