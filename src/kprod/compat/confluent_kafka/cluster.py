"""From a Metadata response to what ``list_topics()`` returns."""

from __future__ import annotations

from kprod.cluster.node import Node
from kprod.compat.confluent_kafka.error import KafkaError
from kprod.compat.confluent_kafka.message import (
    BrokerMetadata,
    ClusterMetadata,
    PartitionMetadata,
    TopicMetadata,
)
from kprod.protocol.schema import Body


def described(node: Node, body: Body) -> ClusterMetadata:
    """The cluster as a Metadata response of a node has it."""
    return ClusterMetadata(
        cluster_id=body["cluster_id"],
        controller_id=body["controller_id"],
        brokers={
            row["node_id"]: BrokerMetadata(row["node_id"], row["host"], row["port"])
            for row in body["brokers"]
        },
        topics={row["name"]: _topic(row) for row in body["topics"] if row["name"] is not None},
        orig_broker_id=node.node_id,
        orig_broker_name=str(node),
    )


def _topic(row: Body) -> TopicMetadata:
    return TopicMetadata(
        row["name"],
        {
            part["partition_index"]: PartitionMetadata(
                part["partition_index"],
                part["leader_id"],
                list(part["replica_nodes"]),
                list(part["isr_nodes"]),
                _error(part["error_code"]),
            )
            for part in row["partitions"]
        },
        _error(row["error_code"]),
    )


def _error(code: int) -> KafkaError | None:
    return KafkaError(code) if code else None
