"""Metadata: when to ask for it; what changes by the answers, and by hints in produce responses (KIP-951)."""

from __future__ import annotations

import logging
import random
import time
from typing import Final

from kprod import errors
from kprod._core import compression
from kprod._core.accumulator import Topic
from kprod.cluster.metadata import Broker, Leader
from kprod.cluster.node import Backoff, Node
from kprod.engine.connections import Connections
from kprod.engine.nodes import Nodes
from kprod.engine.shared import Shared, TopicState
from kprod.protocol import METADATA, ZERO_UUID, Body, Cursor, ProtocolError
from kprod.protocol.checks import MAX_BROKERS, check_brokers

logger = logging.getLogger("kprod.engine")

LEADER_AWAY_PAUSE_S: Final = 0.2
"""The longest pause between two questions who leads a partition whose leader is away."""
LEADER_AWAY_SOON_S: Final = 30.0
"""For so long; a leader that stays away for longer is asked for with the back-off of all retries."""


def pause_before_refresh(retry: Backoff, failures: int, away_for_s: float | None) -> float:
    """The pause in seconds before metadata are asked for again.

    An election takes seconds, the detection of the dead broker included. The back-off would have grown to
    retry_backoff_max_ms by then, and so late would records go on.

    Args:
        retry: the back-off of the options.
        failures: answers in a row that settled nothing.
        away_for_s: how long a leader has been away; None: that is not the reason.
    """
    pause = retry.pause(failures)
    if away_for_s is not None and away_for_s < LEADER_AWAY_SOON_S:
        pause = min(pause, max(retry.base, LEADER_AWAY_PAUSE_S))
    return pause


class Metadata:
    """Keeps :attr:`Shared.cluster` and :attr:`Shared.topics` true, and the core informed of them.

    The control thread's, except :meth:`request_refresh`.

    Args:
        shared: what the threads share.
        nodes: where the brokers go.
        connections: how to ask.
    """

    def __init__(self, shared: Shared, nodes: Nodes, connections: Connections) -> None:
        self._shared = shared
        self._config = shared.config
        self._loop = shared.loop
        self._nodes = nodes
        self._connections = connections
        self.refresh_wanted = True
        """Whether there is something to ask that was not asked yet."""
        self._refresh_at = 0.0
        self._failures = 0
        self._refreshing = False
        self._leader_away_since: float | None = None

    # -- when to refresh

    def request_refresh(self) -> None:
        """Ask for new metadata soon; for any thread."""
        self._shared.call_in_control(self.want_refresh)

    def want_refresh(self, stale: bool = False) -> None:
        """Refresh metadata as soon as the back-off allows.

        Args:
            stale: what there is was found to be wrong.
        """
        if not self.refresh_wanted:
            self.refresh_wanted = True
            now = time.monotonic()
            self._refresh_at = now
            if stale and now - self._shared.refreshed_at < self._shared.retry.base:
                # The last answer was stale already: give the cluster a moment to agree.
                self._refresh_at = self._shared.refreshed_at + self._shared.retry.base

    def deadline(self, now: float) -> float:
        """When :meth:`check_age`, or :meth:`refresh_if_due`, has something to do."""
        moments = [now + 60.0]
        if self.refresh_wanted and not self._refreshing and self._nodes.usable():
            moments.append(self._refresh_at)
        if not self._refreshing and self._shared.refreshed_at:
            moments.append(self._shared.refreshed_at + self._config.metadata_max_age_ms / 1000)
        return min(moments)

    def check_age(self, now: float) -> None:
        """Metadata do not get older than metadata.max.age.ms."""
        refreshed_at = self._shared.refreshed_at
        if refreshed_at and now - refreshed_at >= self._config.metadata_max_age_ms / 1000:
            self._forget_idle_topics(now)
            self.want_refresh()

    def _forget_idle_topics(self, now: float) -> None:
        """Topics that never got a handle are not asked for for ever (metadata.max.idle.ms)."""
        with self._shared.changed:
            for name, state in list(self._shared.topics.items()):
                if state.handle is None and now - state.last_used > self._config.metadata_max_idle_ms / 1000:
                    del self._shared.topics[name]

    # -- asking

    def refresh_if_due(self, now: float) -> None:
        """Ask, if that is wanted and the back-off allows."""
        if not self.refresh_wanted or self._refreshing or now < self._refresh_at:
            return
        with self._shared.changed:
            names = list(self._shared.topics)
        body: Body = {
            "topics": [{"name": name} for name in names],
            "allow_auto_topic_creation": self._config.allow_auto_create_topics,
        }
        # Cleared before asking: what is wanted from now on needs another answer.
        self.refresh_wanted = False

        def answered(node: Node, answer: Body | None, reason: str) -> None:
            self._on_answer(names, answer, reason)

        self._refreshing = True
        if not self._connections.request(METADATA, body, answered):
            self._refreshing = False
            self.refresh_wanted = True

    def _again(self, now: float) -> None:
        self._failures += 1
        self.refresh_wanted = True
        since = self._leader_away_since
        self._refresh_at = now + pause_before_refresh(
            self._shared.retry, self._failures, None if since is None else now - since
        )

    # -- taking over

    def _on_answer(self, asked: list[str], body: Body | None, reason: str) -> None:
        shared = self._shared
        now = time.monotonic()
        self._refreshing = False
        if body is None or body["error_code"] or not body["brokers"]:
            self._again(now)
            if body is not None and body["error_code"] == 129:  # REBOOTSTRAP_REQUIRED (KIP-1102)
                self._nodes.rebootstrap()
            logger.info("%s: no metadata: %s", self._config.client_id, reason or "the answer has no brokers")
            return
        # What was not asked for is not remembered: answers must not make the picture grow.
        wanted = set(asked)
        body = {**body, "topics": [row for row in body["topics"] if row["name"] in wanted]}
        cluster = shared.cluster.updated(body)
        self._connections.take_over_brokers(cluster)
        unsettled = leader_away = False
        rows = {row["name"]: row for row in body["topics"]}
        with shared.changed:
            shared.cluster = cluster
            for name in asked:
                state = shared.topics.get(name)
                row = rows.get(name)
                if state is None or row is None:
                    continue
                state.error = row["error_code"]
                state.asked += 1
                topic = cluster.topic_by_name[name]
                if topic.leaders:
                    self._take_over_topic(state)
                if state.error:
                    unsettled = unsettled or errors.for_code(state.error).retriable
                leader_away = leader_away or any(self._is_away(leader.node_id) for leader in topic.leaders)
            shared.refreshed_at = now
            shared.changed.notify_all()
        self._loop.refreshed()
        self._fail_refused_topics()
        if not leader_away:
            self._leader_away_since = None
        elif self._leader_away_since is None:
            self._leader_away_since = now
        if unsettled or leader_away:
            self._again(now)
        else:
            self._failures = 0

    def _is_away(self, node_id: int) -> bool:
        """Whether a partition has no leader, or one that could not be reached: another will be elected."""
        node = self._nodes.brokers.get(node_id)
        return node_id < 0 or (node is not None and node.failures > 0 and not node.given_up)

    def _take_over_topic(self, state: TopicState) -> None:
        """Give the core what is known of a topic's partitions, and connect to their leaders."""
        topic = self._shared.cluster.topic_by_name[state.name]
        if state.handle is None:
            state.handle = self._make_handle(state.name)
            handle = state.handle
            handle.set_partition_count(len(topic.leaders))
            self._loop.add_topic(handle)
            self._shared.handles.append(handle)
        else:
            state.handle.set_partition_count(len(topic.leaders))
        leaders = [(index, leader.node_id, leader.epoch) for index, leader in enumerate(topic.leaders)]
        self._loop.set_leaders(state.handle, leaders, topic.topic_id if topic.topic_id != ZERO_UUID else None)
        self._nodes.want_brokers(leader.node_id for leader in topic.leaders)

    def _make_handle(self, name: str) -> Topic:
        config = self._config
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
            len(self._shared.handles),
            self._shared.reporter,
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
        for state in self._shared.topics.values():
            if state.error and state.handle is not None and not errors.for_code(state.error).retriable:
                self._loop.fail_topic(state.handle, state.error)

    # -- hints in produce responses (KIP-951)

    def on_new_leader(self, name: str, partition: int, leader: Leader) -> None:
        """A produce response named the new leader."""
        shared = self._shared
        with shared.changed:
            cluster = shared.cluster.with_leader(name, partition, leader)
            state = shared.topics.get(name)
            if cluster is shared.cluster or state is None or state.handle is None:
                return
            shared.cluster = cluster
        self._loop.set_leaders(state.handle, [(partition, leader.node_id, leader.epoch)], None)
        self._nodes.wanted.add(leader.node_id)

    def on_endpoints(self, data: bytes) -> None:
        """Addresses of the brokers that a produce response named."""
        brokers: dict[int, Broker] = {}
        try:
            cursor = Cursor(data)
            for _ in range(max(cursor.compact_array_length(11), 0)):
                node_id, host, port = cursor.int32(), cursor.nullable_compact_string(), cursor.int32()
                rack = cursor.nullable_compact_string()
                cursor.tagged_fields({}, {})
                brokers[node_id] = Broker(node_id, host or "", port, rack)
            check_brokers((row.node_id, row.host, row.port) for row in brokers.values())
        except ProtocolError as error:
            logger.info("%s: node endpoints of a produce response: %s", self._config.client_id, error)
            return
        known = self._shared.cluster
        if len(brokers.keys() | known.broker_by_id.keys()) > MAX_BROKERS:
            logger.info("%s: more brokers than a cluster has, not taken over", self._config.client_id)
            return
        with self._shared.changed:
            self._shared.cluster = known.with_brokers(brokers)
        self._connections.take_over_brokers(self._shared.cluster)
