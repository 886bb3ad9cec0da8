"""Drives client telemetry (KIP-714): whom to ask, effects of answers, and application threads that wait."""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, Final

from kprod import errors
from kprod.cluster.node import Node, State
from kprod.engine.connections import Connections
from kprod.engine.nodes import Nodes
from kprod.engine.shared import Shared
from kprod.protocol import GET_TELEMETRY_SUBSCRIPTIONS, PUSH_TELEMETRY, Body
from kprod.telemetry.collector import Collector
from kprod.telemetry.reporter import TelemetryReporter
from kprod.telemetry.states import State as TelemetryState

logger = logging.getLogger("kprod.engine")

TERMINATING_PUSH_TIMEOUT_S: Final = 1.0
"""How long close() waits for the answer to the last push (librdkafka's)."""


MOST_CPU: Final = 0.02
"""The share of a core that making payloads may take: metrics of thousands of topics are pushed less often
than brokers ask for, where they ask for them every second."""


class Telemetry:
    """Client telemetry of a producer whose brokers have it. Everything else than asked below is the control
    thread's.

    Nothing that goes wrong here may harm records: what is unexpected ends telemetry.

    Args:
        shared: what the threads share.
        nodes: whom to ask.
        connections: how.
        counters: everything that is counted, for the metrics.
    """

    def __init__(
        self, shared: Shared, nodes: Nodes, connections: Connections, counters: Callable[[], dict[str, Any]]
    ) -> None:
        self._shared = shared
        self._nodes = nodes
        self._connections = connections
        config = shared.config
        # KIP-714: the broker knows the client id and adds it itself.
        labels = {"transactional_id": config.transactional_id, "client_rack": config.client_rack}
        collector = Collector(
            lambda: shared.metrics.figures(counters()),
            {name: value for name, value in labels.items() if value},
            shared.metrics.started_at_ms * 1_000_000,
        )
        self._reporter = TelemetryReporter(collector, shared.retry.pause, time.time_ns)
        self._node: Node | None = None
        """The broker that is asked and told as long as it is connected."""
        self._announced: uuid.UUID | None = None

    # -- for any thread

    @property
    def client_instance_id(self) -> uuid.UUID | None:
        """The id that a broker assigned to this producer; None: none did yet."""
        subscription = self._reporter.subscription
        return None if subscription is None else subscription.client_instance_id

    @property
    def problem(self) -> str | None:
        """Why the last request failed, in words; None: it did not."""
        return self._reporter.problem

    @property
    def terminated(self) -> bool:
        """Whether nothing more will be sent."""
        return self._reporter.state is TelemetryState.TERMINATED

    def push_last(self, timeout_s: float) -> None:
        """Push a last time, as the producer is being closed; waits for the answer, but never for long.

        Args:
            timeout_s: seconds to wait at most.
        """
        deadline = time.monotonic() + min(timeout_s, TERMINATING_PUSH_TIMEOUT_S)
        self._shared.call_in_control(self._begin_termination)
        with self._shared.changed:
            while not self.terminated and (left := deadline - time.monotonic()) > 0:
                self._shared.changed.wait(left)

    # -- for the control thread

    def deadline(self, now: float) -> float | None:
        """When there is something to send; None: not before something happens."""
        due_at = self._reporter.due_at()
        # What is due already waits for a connection.
        return due_at if due_at is None or now < due_at or self._choose_node() is not None else None

    def wants_broker(self, now: float) -> bool:
        """Whether a broker should be connected to, to be told what is due."""
        due_at = self._reporter.due_at()
        return due_at is not None and now >= due_at and self._reporter.subscription is not None

    def send_if_due(self, now: float) -> None:
        """Send what is due, if there is a broker to send it to."""
        try:
            self._send_if_due(now)
        except Exception:
            self._give_up()

    def _send_if_due(self, now: float) -> None:
        due_at = self._reporter.due_at()
        if due_at is None or now < due_at:
            return
        node = self._choose_node()
        if node is None:
            return
        began = time.thread_time()
        request = self._reporter.next_request(now)
        self._reporter.least_interval_s = (time.thread_time() - began) / MOST_CPU
        if request is None:
            self._log(node)
            return
        api, body = request
        terminating = bool(body.get("terminating"))
        handler = partial(self._on_answer, api.key, terminating)
        if not self._connections.request(api, body, handler, node=node):
            self._reporter.on_no_answer("the connection was lost", now, terminating=terminating)

    def _choose_node(self) -> Node | None:
        node = self._node
        if (
            node is None
            or node.state is not State.READY
            or node.version_of(GET_TELEMETRY_SUBSCRIPTIONS) is None
        ):
            node = self._node = self._nodes.usable(GET_TELEMETRY_SUBSCRIPTIONS)
        return node

    def _on_answer(self, api: int, terminating: bool, node: Node, body: Body | None, reason: str) -> None:
        try:
            now = time.monotonic()
            if body is None:
                self._node = None
                self._reporter.on_no_answer(reason, now, terminating=terminating)
            elif api == PUSH_TELEMETRY.key:
                self._reporter.on_push(body, now, terminating=terminating)
            else:
                self._reporter.on_subscriptions(body, now)
            self._log(node)
        except Exception:
            self._give_up()
        self._shared.notify()

    def _log(self, node: Node) -> None:
        client_id = self._shared.config.client_id
        if self.terminated and self.problem is not None:
            logger.info("%s: metrics are not pushed any more: broker %s: %s", client_id, node, self.problem)
        elif self.problem is not None:
            logger.debug("%s: client telemetry: broker %s: %s", client_id, node, self.problem)
        elif self.client_instance_id != self._announced:
            self._announced = self.client_instance_id
            logger.info(
                "%s: broker %s knows this producer by the client instance id %s (KIP-714)",
                client_id,
                node,
                self._announced,
            )

    def _begin_termination(self) -> None:
        try:
            self._reporter.begin_termination()
            self._send_if_due(time.monotonic())
            if self._reporter.state is TelemetryState.TERMINATING_PUSH_NEEDED:
                self._reporter.terminate()  # nobody is connected
        except Exception:
            self._give_up()
        self._shared.notify()

    def _give_up(self) -> None:
        logger.exception(
            "%s: unexpected error in client telemetry, which ends", self._shared.config.client_id
        )
        with suppress(Exception):
            self._reporter.terminate()


def wait_for_client_instance_id(
    shared: Shared, nodes: Nodes, find: Callable[[], Telemetry | None], timeout_s: float
) -> uuid.UUID:
    """Wait for the id that a broker assigns to this producer.

    Args:
        shared: what the threads share.
        nodes: whether they are connected.
        find: gives the telemetry, as soon as a broker has it.
        timeout_s: seconds to wait at most.

    Raises:
        UnsupportedVersionError: the brokers that are connected have no client telemetry.
        KafkaTimeoutError: no broker assigned one in time.
        IllegalStateError: a broker refused to.
    """
    deadline = time.monotonic() + timeout_s
    with shared.changed:
        while True:
            shared.check_open()
            telemetry = find()
            if telemetry is not None:
                if (assigned := telemetry.client_instance_id) is not None:
                    return assigned
                if telemetry.terminated:
                    raise errors.IllegalStateError(
                        f"there is no client instance id, and metrics are not pushed: {telemetry.problem}"
                    )
            elif shared.refreshed_at and nodes.any_ready:
                raise errors.UnsupportedVersionError(
                    "the brokers have no client telemetry (KIP-714): that takes Apache Kafka 3.7 or newer "
                    "with a reporter in the brokers' metric.reporters that implements ClientTelemetry"
                )
            left = deadline - time.monotonic()
            if left <= 0:
                why = telemetry.problem if telemetry is not None else None
                raise errors.KafkaTimeoutError(
                    f"no broker assigned a client instance id within {timeout_s:g} s "
                    f"({why or nodes.report()})"
                )
            # In slices, so that a fork or a close is noticed whatever happens.
            shared.changed.wait(min(left, 1.0))
