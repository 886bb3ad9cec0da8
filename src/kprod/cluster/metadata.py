"""The picture of the cluster that metadata responses give: brokers, topics, leaders."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from kprod.protocol import ZERO_UUID
from kprod.records import TopicPartition
from kprod.values import Value

NO_LEADER = -1


class Broker(Value):
    """A broker as metadata describe it; the field names are kafka-python's."""

    node_id: int
    host: str
    port: int
    rack: str | None = None

    # kafka-python's newer name of the same thing.
    @property
    def nodeId(self) -> int:
        """The node id."""
        return self.node_id


class Leader(Value):
    """Who leads a partition, since which leader epoch (-1: the broker did not say)."""

    node_id: int = NO_LEADER
    epoch: int = -1


class TopicMetadata(Value):
    """One topic: its id, its error code if it has one, and the leaders by partition number."""

    name: str
    topic_id: bytes = ZERO_UUID
    error: int = 0
    leaders: tuple[Leader, ...] = ()
    internal: bool = False


class ClusterSnapshot(Value):
    """An immutable picture of the cluster. Partitioners get it as their ``cluster`` argument."""

    cluster_id: str | None = None
    controller_id: int = -1
    broker_by_id: Mapping[int, Broker] = MappingProxyType({})
    topic_by_name: Mapping[str, TopicMetadata] = MappingProxyType({})

    # -- what partitioners use (kafka-python's names)

    def topics(self) -> set[str]:
        """Names of the topics whose partitions are known."""
        return {name for name, topic in self.topic_by_name.items() if topic.leaders}

    def partitions_for_topic(self, topic: str) -> set[int] | None:
        """Numbers of a topic's partitions; None: the topic is not known."""
        known = self.topic_by_name.get(topic)
        return set(range(len(known.leaders))) if known is not None and known.leaders else None

    def available_partitions_for_topic(self, topic: str) -> set[int] | None:
        """Numbers of the partitions that have a leader; None: the topic is not known."""
        known = self.topic_by_name.get(topic)
        if known is None or not known.leaders:
            return None
        return {index for index, leader in enumerate(known.leaders) if leader.node_id >= 0}

    def leader_for_partition(self, partition: TopicPartition) -> int | None:
        """Node id of a partition's leader; -1: it has none; None: the partition is not known."""
        known = self.topic_by_name.get(partition[0])
        if known is None or not 0 <= partition[1] < len(known.leaders):
            return None
        return known.leaders[partition[1]].node_id

    def brokers(self) -> set[Broker]:
        """All brokers."""
        return set(self.broker_by_id.values())

    def broker_metadata(self, broker_id: int) -> Broker | None:
        """The broker with a node id, or None."""
        return self.broker_by_id.get(broker_id)

    # -- changes, each a new snapshot

    def updated(self, body: Mapping[str, Any]) -> ClusterSnapshot:
        """This picture with a metadata response taken over.

        Brokers are replaced. Of topics only those in the response change. A leader epoch older than the
        known one is a stale answer and keeps the known leader, unless the topic was created anew (KIP-320,
        KIP-516).
        """
        brokers = {
            row["node_id"]: Broker(row["node_id"], row["host"], row["port"], row["rack"])
            for row in body["brokers"]
        }
        topics = dict(self.topic_by_name)
        for row in body["topics"]:
            if row["name"] is not None:
                topics[row["name"]] = self._updated_topic(row)
        return ClusterSnapshot(body["cluster_id"], body["controller_id"], brokers, topics)

    def _updated_topic(self, row: Mapping[str, Any]) -> TopicMetadata:
        known = self.topic_by_name.get(row["name"])
        if row["error_code"] and not row["partitions"]:
            # Partitions that were known stay: the error may pass, and records may be waiting for them.
            return (known or TopicMetadata(row["name"])).replaced(error=row["error_code"])
        topic_id = row["topic_id"] or ZERO_UUID
        recreated = (
            known is not None and ZERO_UUID not in (topic_id, known.topic_id) and topic_id != known.topic_id
        )
        leaders: dict[int, Leader] = {}
        if known is not None and not recreated:
            leaders.update(enumerate(known.leaders))
        for partition in row["partitions"]:
            index = partition["partition_index"]
            leader = Leader(partition["leader_id"], partition["leader_epoch"])
            before = leaders.get(index)
            if before is None or leader.epoch < 0 or leader.epoch >= before.epoch:
                leaders[index] = leader
        count = max(leaders, default=-1) + 1
        nobody = Leader()
        return TopicMetadata(
            row["name"],
            topic_id,
            row["error_code"],
            tuple(leaders.get(i, nobody) for i in range(count)),
            row["is_internal"],
        )

    def with_leader(self, topic: str, partition: int, leader: Leader) -> ClusterSnapshot:
        """This picture with a newer leader of one partition (KIP-951); the same one if it is not newer."""
        known = self.topic_by_name.get(topic)
        if (
            known is None
            or not 0 <= partition < len(known.leaders)
            or leader.epoch <= known.leaders[partition].epoch
            or leader.node_id not in self.broker_by_id
        ):
            return self
        leaders = known.leaders[:partition] + (leader,) + known.leaders[partition + 1 :]
        return self.replaced(topic_by_name={**self.topic_by_name, topic: known.replaced(leaders=leaders)})

    def with_brokers(self, brokers: Mapping[int, Broker]) -> ClusterSnapshot:
        """This picture with some brokers added or moved (KIP-951)."""
        return self.replaced(broker_by_id={**self.broker_by_id, **brokers})

    def without_topics(self, names: set[str]) -> ClusterSnapshot:
        """This picture without some topics."""
        return self.replaced(
            topic_by_name={name: topic for name, topic in self.topic_by_name.items() if name not in names},
        )
