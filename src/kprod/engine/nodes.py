"""The brokers and bootstrap servers that are known, and which of them to connect to."""

from __future__ import annotations

import copy
import time
from collections.abc import Iterable, Mapping
from typing import Final

from kprod.cluster.node import Backoff, Node, State
from kprod.engine.shared import Shared
from kprod.errors import KafkaError
from kprod.protocol.schema import Api
from kprod.records import TopicPartition

FAILURES_BEFORE_GIVING_UP: Final = 3
"""The constructor gives up when every bootstrap server failed this often in a row."""

_PATIENCE_S: Final = 2.0
"""How long a broker that is being connected to may outdo the refusal of another one."""


class Nodes:
    """Every node, by its id.

    The control thread's, except for what tells about nodes in words, and :attr:`any_ready` and
    :attr:`bootstrap_refused`: these any thread may ask.

    Args:
        shared: what the threads share.
    """

    def __init__(self, shared: Shared) -> None:
        config = shared.config
        self._shared = shared
        self._reconnect = Backoff(config.reconnect_backoff_ms / 1000, config.reconnect_backoff_max_ms / 1000)
        self._setup = Backoff(
            config.socket_connection_setup_timeout_ms / 1000,
            config.socket_connection_setup_timeout_max_ms / 1000,
        )
        self.bootstrap: Final = [
            Node(-1 - i, host, port, self._reconnect, self._setup)
            for i, (host, port) in enumerate(config.bootstrap_servers)
        ]
        self.brokers: Final[dict[int, Node]] = {}
        self.by_id: Final[dict[int, Node]] = {node.node_id: node for node in self.bootstrap}
        """The brokers, and the bootstrap servers."""
        self.wanted: Final[set[int]] = {node.node_id for node in self.bootstrap}
        """Those to connect to."""

    # -- for any thread

    @property
    def any_ready(self) -> bool:
        """Whether there is a connection to a broker now."""
        return any(node.is_up for node in list(self.by_id.values()))

    @property
    def bootstrap_failed(self) -> bool:
        """Whether every bootstrap server failed so often that waiting for them is hopeless."""
        return all(node.failures >= FAILURES_BEFORE_GIVING_UP for node in self.bootstrap)

    def refusal(self) -> KafkaError | None:
        """Why no broker can be asked, if that is because one refused this client; a new exception each time.

        None: a broker is connected, or may be in a moment.
        """
        now = time.monotonic()
        found: KafkaError | None = None
        for node in list(self.by_id.values()):
            if node.is_up:
                return None
            if node.state is not State.IDLE:
                if now - node.begun_at < _PATIENCE_S:
                    return None
            elif node.refusal is not None and now < node.next_attempt_at:
                found = node.refusal
            elif node.node_id in self.wanted and node.may_connect(now):
                return None
        if found is None:
            return None
        fresh = copy.copy(found)
        fresh.__cause__ = found.__cause__
        return fresh

    def refusal_of(self, topic: str, partition: int) -> KafkaError | None:
        """Why the leader of a partition refused this client when it last did."""
        leader = self._shared.cluster.leader_for_partition(TopicPartition(topic, partition))
        node = self.by_id.get(-1 if leader is None else leader)
        return node.last_refusal if node is not None else None

    def demand(self) -> None:
        """The application needs a broker: those that were given up may be asked again."""
        for node in list(self.by_id.values()):
            node.demanded = True

    def trouble(self) -> str | None:
        """What is known of each broker, if the last attempts to connect failed; None: nobody tried, or
        is trying.
        """
        failing = [node for node in list(self.by_id.values()) if node.failures]
        return "; ".join(f"{node}: {node.condition}" for node in failing) or None

    def report(self) -> str:
        """What is known of every address, in words."""
        nodes = list(self.by_id.values())
        return "; ".join(f"{node}: {node.condition}" for node in nodes) or "no addresses"

    def describe_broker(self, node_id: int) -> str | None:
        """A broker in words; None: the number is not a broker's."""
        node = self.by_id.get(node_id)
        return str(node) if node is not None else (None if node_id < 0 else str(node_id))

    def describe_leader(self, topic: str, partition: int) -> str:
        """Why a partition's records do not leave, in words."""
        leader = self._shared.cluster.leader_for_partition(TopicPartition(topic, partition))
        if leader is None or leader < 0:
            return f"{topic}-{partition} has no leader"
        node = self.by_id.get(leader)
        if node is None:
            return f"the leader, broker {leader}, has no known address"
        if node.state is State.READY:
            return f"the leader, broker {node}, is connected but did not take it in time"
        return f"the leader, broker {node}, is not connected ({node.condition})"

    # -- for the control thread

    def current(self, node_id: int, generation: int) -> Node | None:
        """The node that an event of the core is for; None: that connection is history."""
        node = self.by_id.get(node_id)
        return node if node is not None and node.generation == generation else None

    def usable(self, speaks: Api | None = None) -> Node | None:
        """The connection with the least to answer (Java: leastLoadedNode).

        Args:
            speaks: only brokers that know this API.
        """
        best: Node | None = None
        least = 0
        for node in self.by_id.values():
            if node.state is not State.READY or (speaks is not None and node.version_of(speaks) is None):
                continue
            load = self._shared.loop.load(node.node_id)
            # A broker's own connection before a bootstrap one, which has no other use.
            if load >= 0 and (best is None or (node.node_id < 0, load) < (best.node_id < 0, least)):
                best, least = node, load
        return best

    def newest_features(self) -> Mapping[str, int]:
        """The finalized features of the cluster (KIP-584), by the connected broker that knows the latest."""
        ready = [node for node in self.by_id.values() if node.state is State.READY]
        return max(ready, key=lambda node: node.features_epoch).features

    def add(self, node_id: int, host: str, port: int) -> Node:
        """A broker that was not known."""
        node = Node(node_id, host, port, self._reconnect, self._setup)
        self.brokers[node_id] = self.by_id[node_id] = node
        return node

    def forget(self, node_id: int) -> None:
        """A broker is not in the cluster any more."""
        del self.brokers[node_id], self.by_id[node_id]
        self.wanted.discard(node_id)

    def broker_at(self, node_id: int, host: str, port: int) -> Node:
        """A broker to connect to, which metadata need not have named: a coordinator."""
        node = self.brokers.get(node_id)
        if node is None:
            node = self.add(node_id, host, port)
        self.wanted.add(node_id)
        return node

    def want_brokers(self, node_ids: Iterable[int]) -> None:
        """Connect to those of these brokers that are known."""
        self.wanted.update(node_id for node_id in node_ids if node_id in self.brokers)

    def rebootstrap(self) -> None:
        """Connect to the bootstrap servers again."""
        for node in self.bootstrap:
            self.by_id[node.node_id] = node
            self.wanted.add(node.node_id)
