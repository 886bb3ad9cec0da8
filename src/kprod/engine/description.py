"""Asking the cluster about itself, for application threads: which brokers and topics there are."""

from __future__ import annotations

import time

from kprod import errors
from kprod.cluster.node import Node
from kprod.engine.connections import Connections
from kprod.engine.nodes import Nodes
from kprod.engine.shared import Shared
from kprod.protocol.metadata import METADATA
from kprod.protocol.schema import Body


class ClusterDescription:
    """Metadata requests on behalf of the application; what the producer knows itself is not touched by them.

    Args:
        shared: what the threads share.
        nodes: they say why there is no broker to ask.
        connections: where requests go.
    """

    def __init__(self, shared: Shared, nodes: Nodes, connections: Connections) -> None:
        self._shared = shared
        self._nodes = nodes
        self._connections = connections

    def ask(self, topics: list[str] | None, timeout_s: float) -> tuple[Node, Body]:
        """Ask any broker about topics.

        Args:
            topics: their names; None: all there are. None is created by being asked for.
            timeout_s: seconds to wait for an answer.

        Returns:
            The broker that answered, and the body of its Metadata response.

        Raises:
            KafkaTimeoutError: no answer came in time; the message says what is known of each broker.
        """
        shared = self._shared
        body: Body = {
            "topics": None if topics is None else [{"name": name} for name in topics],
            "allow_auto_topic_creation": False,
        }
        answers: list[tuple[Node, Body]] = []
        asking = False

        def answered(node: Node, answer: Body | None, reason: str) -> None:
            nonlocal asking
            with shared.changed:
                asking = False
                if answer is not None:
                    answers.append((node, answer))
                shared.changed.notify_all()

        def ask() -> None:
            nonlocal asking
            if not self._connections.request(METADATA, body, answered):
                # Asked again when a broker is connected: that is notified.
                asking = False
                self._connections.ensure_usable(time.monotonic())

        deadline = time.monotonic() + timeout_s
        with shared.changed:
            while not answers:
                shared.check_open()
                left = deadline - time.monotonic()
                if left <= 0:
                    raise errors.KafkaTimeoutError(
                        f"no broker described the cluster within {timeout_s:g} s ({self._nodes.report()})"
                    )
                if not asking:
                    asking = True
                    self._nodes.demand()
                    shared.call_in_control(ask)
                # In slices, so that a fork or a close is noticed whatever happens.
                shared.changed.wait(min(left, 1.0))
            return answers[0]
