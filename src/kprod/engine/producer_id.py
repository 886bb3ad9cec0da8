"""The producer id of an idempotent producer without transactions (KIP-98)."""

from __future__ import annotations

import logging
import time

from kprod import errors
from kprod.cluster.node import Node
from kprod.engine.connections import Connections
from kprod.engine.nodes import Nodes
from kprod.engine.shared import Shared
from kprod.protocol import INIT_PRODUCER_ID, Body
from kprod.protocol.init_producer_id import NEWEST_STABLE_INIT_PRODUCER_ID

logger = logging.getLogger("kprod.engine")


class ProducerId:
    """Asks for a producer id, until there is one. Everything here is the control thread's.

    Args:
        shared: what the threads share.
        nodes: whom to ask.
        connections: how.
    """

    def __init__(self, shared: Shared, nodes: Nodes, connections: Connections) -> None:
        self._shared = shared
        self._nodes = nodes
        self._connections = connections
        self.wanted = shared.config.enable_idempotence and shared.config.transactional_id is None
        """Whether the core waits for one."""
        self.problem: str | None = None
        """Why the last attempt to get one failed, in words; None: it did not. Any thread may read it."""
        self._ask_at = 0.0
        self._failures = 0
        self._asked = False

    def want(self) -> None:
        """The core needs a new one."""
        self.wanted = True

    def give_up(self) -> None:
        """The producer has ended."""
        self.wanted = False

    def deadline(self) -> float | None:
        """When there is something to ask; None: not before something happens."""
        if self.wanted and not self._asked and self._nodes.usable():
            return self._ask_at
        return None

    def ask_if_due(self, now: float) -> None:
        """Ask, if one is wanted and the back-off allows."""
        if not self.wanted or self._asked or now < self._ask_at:
            return
        body: Body = {"transactional_id": None, "transaction_timeout_ms": 2**31 - 1}
        self._asked = True
        newest = NEWEST_STABLE_INIT_PRODUCER_ID
        if not self._connections.request(INIT_PRODUCER_ID, body, self._on_answer, newest):
            self._asked = False

    def _on_answer(self, node: Node, body: Body | None, reason: str) -> None:
        self._asked = False
        if body is not None and body["error_code"] == 0:
            self.wanted = False
            self._failures = 0
            self.problem = None
            self._shared.loop.set_producer_id(body["producer_id"], body["producer_epoch"])
            return
        kind = errors.for_code(body["error_code"]) if body is not None else errors.KafkaConnectionError
        if body is not None and not kind.retriable:
            self._shared.fail(kind(broker=str(node)))
            self.give_up()
            return
        self._failures += 1
        self.problem = reason or f"broker {node} answers {kind.__name__}"
        self._ask_at = time.monotonic() + self._shared.retry.pause(self._failures)
        logger.info(
            "%s: no producer id from broker %s: %s",
            self._shared.config.client_id,
            node,
            self.problem,
        )
