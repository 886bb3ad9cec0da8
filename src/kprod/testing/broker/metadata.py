"""ApiVersions, Metadata, DescribeCluster, and the administration of topics."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from kprod.protocol import ZERO_UUID, Body
from kprod.records import check_topic_name
from kprod.testing.broker.cluster import NO_LEADER, TopicExists
from kprod.testing.broker.partition_log import TopicConfig
from kprod.testing.broker.request import Request

if TYPE_CHECKING:
    from kprod.testing.broker.cluster import ClusterState, Topic

UNKNOWN_TOPIC_OR_PARTITION: Final = 3
LEADER_NOT_AVAILABLE: Final = 5
INVALID_TOPIC_EXCEPTION: Final = 17
UNSUPPORTED_VERSION: Final = 35
TOPIC_ALREADY_EXISTS: Final = 36
INVALID_PARTITIONS: Final = 37
INVALID_REPLICATION_FACTOR: Final = 38
INVALID_CONFIG: Final = 40
INVALID_REQUEST: Final = 42
UNKNOWN_TOPIC_ID: Final = 100

_SOFTWARE = re.compile(r"[a-zA-Z0-9](?:[a-zA-Z0-9\-.]*[a-zA-Z0-9])?")


def api_versions(cluster: ClusterState, request: Request) -> Body:
    """Handle an ApiVersions request of a version that the broker has."""
    error = request.error_for()
    if not error and request.version >= 3:
        names = (request.body["client_software_name"], request.body["client_software_version"])
        if not all(_SOFTWARE.fullmatch(name) for name in names):
            error = INVALID_REQUEST
    return api_versions_answer(cluster, error)


def api_versions_answer(cluster: ClusterState, error: int) -> Body:
    """The body of an ApiVersions response."""
    body: dict[str, Any] = {
        "error_code": error,
        "api_keys": [
            {"api_key": key, "min_version": low, "max_version": high}
            for key, (low, high) in sorted(cluster.api_versions.items())
        ],
    }
    if cluster.transaction_version >= 2:
        level = cluster.transaction_version
        body["supported_features"] = [{"name": "transaction.version", "min_version": 0, "max_version": level}]
        body["finalized_features_epoch"] = 1
        body["finalized_features"] = [
            {"name": "transaction.version", "max_version_level": level, "min_version_level": level}
        ]
    return body


def unsupported_version_answer(cluster: ClusterState) -> Body:
    """The version 0 body that answers an ApiVersions request of an unknown version (KIP-511)."""
    low, high = cluster.api_versions[18]
    return {
        "error_code": UNSUPPORTED_VERSION,
        "api_keys": [{"api_key": 18, "min_version": low, "max_version": high}],
    }


def _brokers(cluster: ClusterState) -> list[dict[str, Any]]:
    return [{"node_id": n.id, "host": n.host, "port": n.port, "rack": n.rack} for n in cluster.alive_nodes()]


def metadata(cluster: ClusterState, request: Request) -> Body:
    """Handle a Metadata request; it creates unknown topics where broker and client allow it."""
    body = request.body
    asked = body["topics"]
    if asked is None or (not asked and request.version == 0):
        topics = [_topic_answer(request, topic) for topic in cluster.topics.values()]
    else:
        topics = [_find_or_create(cluster, request, t["name"], t["topic_id"]) for t in asked]
    return {
        "brokers": _brokers(cluster),
        "cluster_id": cluster.cluster_id,
        "controller_id": cluster.controller_id(),
        "topics": topics,
        "error_code": _top_level_error(request),
    }


def _top_level_error(request: Request) -> int:
    """From version 13 a fault without a topic is an error of the whole response."""
    if request.version < 13:
        return 0
    return next((f.error for f in request.faults if f.error and f.topic is None), 0)


def _find_or_create(
    cluster: ClusterState, request: Request, name: str | None, topic_id: bytes
) -> dict[str, Any]:
    if name is None:
        topic = cluster.topics_by_id.get(topic_id)
        if topic is None:
            return _topic_error(None, topic_id, UNKNOWN_TOPIC_ID)
        return _topic_answer(request, topic)
    topic = cluster.topics.get(name)
    if topic is None:
        try:
            check_topic_name(name)
        except ValueError:
            return _topic_error(name, ZERO_UUID, INVALID_TOPIC_EXCEPTION)
        if not (cluster.auto_create_topics and request.body["allow_auto_topic_creation"]):
            code = request.error_for(name) or UNKNOWN_TOPIC_OR_PARTITION
            return _topic_error(name, ZERO_UUID, code)
        topic = cluster.create_topic(name, cluster.default_partitions)
    return _topic_answer(request, topic)


def _topic_error(name: str | None, topic_id: bytes, code: int) -> dict[str, Any]:
    return {
        "error_code": code,
        "name": name,
        "topic_id": topic_id,
        "partitions": [],
    }


def _topic_answer(request: Request, topic: Topic) -> dict[str, Any]:
    fault = request.fault_for(topic.name)
    if fault is not None and fault.partition is None:
        return _topic_error(topic.name, topic.id, fault.error)
    partitions = []
    for partition in topic.partitions:
        error = request.error_for(topic.name, partition.index)
        if not error and partition.leader == NO_LEADER:
            error = LEADER_NOT_AVAILABLE
        partitions.append(
            {
                "error_code": error,
                "partition_index": partition.index,
                "leader_id": partition.leader,
                "leader_epoch": partition.leader_epoch,
                "replica_nodes": partition.replicas,
                "isr_nodes": partition.isr,
                "offline_replicas": [n for n in partition.replicas if n not in partition.isr],
            }
        )
    return {
        "error_code": 0,
        "name": topic.name,
        "topic_id": topic.id,
        "is_internal": topic.name.startswith("__"),
        "partitions": partitions,
    }


def describe_cluster(cluster: ClusterState, request: Request) -> Body:
    """Handle a DescribeCluster request."""
    return {
        "error_code": request.error_for(),
        "error_message": None,
        "cluster_id": cluster.cluster_id,
        "controller_id": cluster.controller_id(),
        "brokers": [
            {"broker_id": n.id, "host": n.host, "port": n.port, "rack": n.rack, "is_fenced": False}
            for n in cluster.alive_nodes()
        ],
    }


def create_topics(cluster: ClusterState, request: Request) -> Body:
    """Handle a CreateTopics request."""
    topics = []
    for asked in request.body["topics"]:
        code, message = _create_topic(cluster, request, asked)
        topic = cluster.topics.get(asked["name"]) if not code else None
        topics.append(
            {
                "name": asked["name"],
                "topic_id": topic.id if topic is not None else ZERO_UUID,
                "error_code": code,
                "error_message": message,
                "num_partitions": len(topic.partitions) if topic is not None else -1,
                "replication_factor": len(topic.partitions[0].replicas) if topic is not None else -1,
                "configs": [],
            }
        )
    return {"topics": topics}


def _create_topic(cluster: ClusterState, request: Request, asked: dict[str, Any]) -> tuple[int, str | None]:
    name = asked["name"]
    fault = request.fault_for(name)
    if fault is not None:
        return fault.error, fault.error_message
    config = {c["name"]: c["value"] for c in asked["configs"] if c["value"] is not None}
    assignment = {a["partition_index"]: a["broker_ids"] for a in asked["assignments"]}
    partitions = len(assignment) or asked["num_partitions"]
    if partitions == -1:
        partitions = cluster.default_partitions
    factor = len(next(iter(assignment.values()))) if assignment else asked["replication_factor"]
    if factor == -1:
        factor = cluster.replication_factor
    try:
        check_topic_name(name)
    except ValueError as exc:
        return INVALID_TOPIC_EXCEPTION, str(exc)
    if partitions < 1:
        return INVALID_PARTITIONS, f"{partitions} partitions"
    if not 1 <= factor <= len(cluster.nodes):
        return INVALID_REPLICATION_FACTOR, f"{factor} replicas with {len(cluster.nodes)} brokers"
    try:
        if request.body["validate_only"]:
            TopicConfig.parse(config)
        else:
            cluster.create_topic(name, partitions, factor, config, assignment)
    except TopicExists as exc:
        return TOPIC_ALREADY_EXISTS, str(exc)
    except ValueError as exc:
        return INVALID_CONFIG, str(exc)
    return 0, None


def delete_topics(cluster: ClusterState, request: Request) -> Body:
    """Handle a DeleteTopics request."""
    body = request.body
    asked = [(t["name"], t["topic_id"]) for t in body["topics"]] or [
        (n, ZERO_UUID) for n in body["topic_names"]
    ]
    responses = []
    for name, topic_id in asked:
        topic = cluster.find_topic(name, topic_id)
        code = request.error_for(name)
        if not code and topic is None:
            code = UNKNOWN_TOPIC_OR_PARTITION if name else UNKNOWN_TOPIC_ID
        if not code and topic is not None:
            cluster.delete_topic(topic.name)
        responses.append({"name": name, "topic_id": topic_id, "error_code": code})
    return {"responses": responses}


def create_partitions(cluster: ClusterState, request: Request) -> Body:
    """Handle a CreatePartitions request."""
    results = []
    for asked in request.body["topics"]:
        name = asked["name"]
        code, message = request.error_for(name), None
        if not code and name not in cluster.topics:
            code = UNKNOWN_TOPIC_OR_PARTITION
        if not code:
            try:
                if not request.body["validate_only"]:
                    cluster.add_partitions(name, asked["count"])
            except ValueError as exc:
                code, message = INVALID_PARTITIONS, str(exc)
        results.append({"name": name, "error_code": code, "error_message": message})
    return {"results": results}


def describe_configs(cluster: ClusterState, request: Request) -> Body:
    """Handle a DescribeConfigs request: the settings that topics were created with."""
    results = []
    for resource in request.body["resources"]:
        topic = cluster.topics.get(resource["resource_name"]) if resource["resource_type"] == 2 else None
        known = topic is not None or resource["resource_type"] != 2
        settings = topic.config.all if topic is not None else {}
        keys = resource["configuration_keys"]
        results.append(
            {
                "error_code": request.error_for() or (0 if known else UNKNOWN_TOPIC_OR_PARTITION),
                "error_message": None,
                "resource_type": resource["resource_type"],
                "resource_name": resource["resource_name"],
                "configs": [
                    {
                        "name": name,
                        "value": value,
                        "read_only": False,
                        "config_source": 1,
                        "is_sensitive": False,
                        "synonyms": [],
                        "documentation": None,
                    }
                    for name, value in settings.items()
                    if keys is None or name in keys
                ],
            }
        )
    return {"results": results}
