"""What all brokers of the mock cluster share: nodes, topics, partition leaders and coordinators."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from kprod._core.crc32c import crc32c
from kprod.protocol.init_producer_id import INIT_PRODUCER_ID, TWO_PHASE_COMMIT_INIT_PRODUCER_ID
from kprod.records import check_topic_name
from kprod.testing.broker.faults import FaultRegistry
from kprod.testing.broker.groups import GroupCoordinator
from kprod.testing.broker.partition_log import PartitionLog, TopicConfig
from kprod.testing.broker.telemetry import APIS_OF_TELEMETRY, ClientMetrics, Subscription
from kprod.testing.broker.transactions import TransactionCoordinator
from kprod.testing.broker.versions import DEFAULT_RELEASE, api_versions_of, release_number

NO_LEADER = -1


class Timer(Protocol):
    """A call that was scheduled and can be cancelled."""

    def cancel(self) -> None:
        """Do not make the call."""


Scheduler = Callable[[float, Callable[[], None]], Timer]
"""Calls a function after some seconds; an event loop's ``call_later``."""


@dataclass
class Node:
    """A broker: its address, and whether it runs."""

    id: int
    host: str
    port: int
    rack: str | None = None
    alive: bool = True


class Partition:
    """One partition: its log and who leads it."""

    def __init__(self, topic: str, index: int, log: PartitionLog, replicas: list[int]) -> None:
        self.topic = topic
        self.index = index
        self.log = log
        self.replicas = replicas
        self.isr = list(replicas)
        self.leader = replicas[0]
        self.leader_epoch = 0
        self._watchers: list[Callable[[], None]] = []

    def watch(self, callback: Callable[[], None]) -> None:
        """Have `callback` called at each change of the log until :meth:`unwatch`."""
        self._watchers.append(callback)

    def unwatch(self, callback: Callable[[], None]) -> None:
        """Undo :meth:`watch`."""
        if callback in self._watchers:
            self._watchers.remove(callback)

    def changed(self) -> None:
        """Tell the watchers that there is something new to read, or that the leader moved."""
        for callback in list(self._watchers):
            callback()


@dataclass
class Topic:
    """A topic; `id` is its UUID (KIP-516), 16 bytes."""

    name: str
    id: bytes
    partitions: list[Partition]
    config: TopicConfig


class TopicExists(ValueError):
    """A topic of this name is there already."""


class ClusterState:
    """Everything the brokers know. All methods run in one thread, that of the cluster.

    Args:
        nodes: the brokers.
        schedule: how to call something later.
        auto_create_topics: create a topic when a metadata request names an unknown one.
        default_partitions: partitions of such a topic.
        replication_factor: replicas of a partition where none is given.
        strict: check every record (see :class:`PartitionLog`).
        release: the Kafka release to pass for.
        two_phase_commit: brokers with ``transaction.two.phase.commit.enable`` and the unstable versions that
            it needs (KIP-939).
    """

    def __init__(
        self,
        nodes: list[Node],
        schedule: Scheduler,
        *,
        auto_create_topics: bool = True,
        default_partitions: int = 1,
        replication_factor: int = 1,
        strict: bool = True,
        release: str = DEFAULT_RELEASE,
        two_phase_commit: bool = False,
    ) -> None:
        self.nodes = {node.id: node for node in nodes}
        self.schedule = schedule
        self.cluster_id = uuid.uuid4().hex[:22]
        self.auto_create_topics = auto_create_topics
        self.default_partitions = default_partitions
        self.replication_factor = min(replication_factor, len(nodes))
        self.strict = strict
        self.two_phase_commit = two_phase_commit
        self.topics: dict[str, Topic] = {}
        self.topics_by_id: dict[bytes, Topic] = {}
        self.faults = FaultRegistry()
        self.transactions = TransactionCoordinator(self)
        self.groups = GroupCoordinator(schedule)
        self.client_metrics = ClientMetrics()
        self.on_append: Callable[[], None] | None = None
        self._next_leader = 0
        self.set_release(release)

    def set_release(self, release: str) -> None:
        """Pass for another Kafka release from now on."""
        self.api_versions = api_versions_of(release)
        if self.two_phase_commit:
            key = INIT_PRODUCER_ID.key
            self.api_versions[key] = (self.api_versions[key][0], TWO_PHASE_COMMIT_INIT_PRODUCER_ID)
        self._offer_telemetry()
        self.release = release
        number = release_number(release)
        self.transaction_version = 2 if number >= (4, 0) else 1
        self.rejects_unknown_producers = number < (2, 5)

    def subscribe_to_metrics(self, subscription: Subscription | None) -> None:
        """Ask clients for metrics from now on (KIP-714); None: be brokers that cannot receive any."""
        self.client_metrics.subscription = subscription
        self._offer_telemetry()

    def _offer_telemetry(self) -> None:
        for api in APIS_OF_TELEMETRY:
            self.api_versions.pop(api.key, None)
            if self.client_metrics.subscription is not None:
                self.api_versions[api.key] = api.versions

    def now_ms(self) -> int:
        """The brokers' time, ms since 1970."""
        return time.time_ns() // 1_000_000

    def alive_nodes(self) -> list[Node]:
        """Brokers that run, by id."""
        return [node for node in self.nodes.values() if node.alive]

    def controller_id(self) -> int:
        """The lowest broker that runs, -1 when none does."""
        return next((node.id for node in self.alive_nodes()), -1)

    def coordinator_for(self, key: str) -> Node | None:
        """The broker that coordinates a group or a transactional id, if any broker runs.

        A key stays with its broker; when that is down the next one takes over.
        """
        nodes = list(self.nodes.values())
        start = crc32c(key.encode()) % len(nodes)
        return next((node for node in nodes[start:] + nodes[:start] if node.alive), None)

    # --- topics -----------------------------------------------------------------------------------------

    def create_topic(
        self,
        name: str,
        partitions: int = 1,
        replication_factor: int | None = None,
        config: Mapping[str, object] | None = None,
        assignment: Mapping[int, list[int]] | None = None,
    ) -> Topic:
        """Create a topic; leaders go round the brokers.

        Raises:
            TopicExists: it exists.
            ValueError: the name, a number or a setting is not valid.
        """
        check_topic_name(name)
        if name in self.topics:
            raise TopicExists(f"topic {name!r} exists")
        if assignment:
            partitions = len(assignment)
        if partitions < 1:
            raise ValueError(f"partitions must be at least 1, not {partitions}")
        factor = self.replication_factor if replication_factor is None else replication_factor
        if not 1 <= factor <= len(self.nodes):
            raise ValueError(f"replication_factor must be 1 to {len(self.nodes)} (the brokers), not {factor}")
        topic = Topic(name, uuid.uuid4().bytes, [], TopicConfig.parse(config or {}))
        self._add_partitions(topic, partitions, factor, assignment or {})
        self.topics[name] = topic
        self.topics_by_id[topic.id] = topic
        return topic

    def _add_partitions(
        self, topic: Topic, count: int, factor: int, assignment: Mapping[int, list[int]]
    ) -> None:
        ids = list(self.nodes)
        for _ in range(count):
            index = len(topic.partitions)
            replicas = assignment.get(index)
            if replicas is None:
                replicas = [ids[(self._next_leader + i) % len(ids)] for i in range(factor)]
                self._next_leader += 1
            log = PartitionLog(
                topic.config,
                strict=self.strict,
                rejects_unknown_producers=self.rejects_unknown_producers,
            )
            partition = Partition(topic.name, index, log, list(replicas))
            topic.partitions.append(partition)
            self._elect(partition)

    def add_partitions(self, name: str, total: int) -> None:
        """Raise a topic's partitions to `total`.

        Raises:
            KeyError: there is no such topic.
            ValueError: it has as many or more.
        """
        topic = self.topics[name]
        if total <= len(topic.partitions):
            raise ValueError(f"topic {name!r} has {len(topic.partitions)} partitions, {total} are not more")
        factor = len(topic.partitions[0].replicas)
        self._add_partitions(topic, total - len(topic.partitions), factor, {})

    def delete_topic(self, name: str) -> None:
        """Delete a topic with its records.

        Raises:
            KeyError: there is no such topic.
        """
        topic = self.topics.pop(name)
        del self.topics_by_id[topic.id]
        for partition in topic.partitions:
            partition.changed()

    def clear_records(self) -> None:
        """Empty all partitions: offsets begin at 0 again and producers' sequences are forgotten."""
        for topic in self.topics.values():
            for partition in topic.partitions:
                partition.log.clear()

    def find_topic(self, name: str, topic_id: bytes) -> Topic | None:
        """A topic by name, or by id where the name is empty."""
        return self.topics.get(name) if name else self.topics_by_id.get(topic_id)

    def topic_name(self, topic_id: bytes) -> str | None:
        """The name of the topic with this id."""
        topic = self.topics_by_id.get(topic_id)
        return topic.name if topic is not None else None

    def partition(self, topic: str, index: int) -> Partition | None:
        """A partition, if it exists."""
        found = self.topics.get(topic)
        if found is None or not 0 <= index < len(found.partitions):
            return None
        return found.partitions[index]

    # --- leaders ----------------------------------------------------------------------------------------

    def move_leader(self, topic: str, index: int, node: int) -> None:
        """Make `node` the leader of a partition, with the next leader epoch.

        Raises:
            KeyError: there is no such topic or broker.
            IndexError: there is no such partition.
        """
        partition = self.topics[topic].partitions[index]
        if node not in self.nodes:
            raise KeyError(node)
        if node not in partition.replicas:
            partition.replicas = [node, *partition.replicas[1:]]
        self._lead(partition, node)
        self._update_isr(partition)

    def node_stopped(self, node: int) -> None:
        """Take a broker out: its partitions get another leader from their replicas, or none."""
        self.nodes[node].alive = False
        self._reelect()

    def node_started(self, node: int) -> None:
        """Put a broker back; it leads the partitions that have no other replica running."""
        self.nodes[node].alive = True
        self._reelect()

    def _reelect(self) -> None:
        for topic in self.topics.values():
            for partition in topic.partitions:
                self._elect(partition)

    def _elect(self, partition: Partition) -> None:
        self._update_isr(partition)
        leader = self.nodes.get(partition.leader)
        if leader is not None and leader.alive:
            return
        alive = [n for n in partition.replicas if self.nodes[n].alive]
        new = alive[0] if alive else NO_LEADER
        if new != partition.leader:
            self._lead(partition, new)

    def _lead(self, partition: Partition, node: int) -> None:
        partition.leader = node
        partition.leader_epoch += 1
        partition.changed()

    def _update_isr(self, partition: Partition) -> None:
        partition.isr = [n for n in partition.replicas if self.nodes[n].alive]

    def appended(self, partition: Partition) -> None:
        """Tell everybody who waits that a partition has something new."""
        partition.changed()
        if self.on_append is not None:
            self.on_append()
