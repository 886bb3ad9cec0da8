"""Metadata (key 3): brokers, topics, partition leaders. KIP-516 (topic ids), KIP-1102 (top-level error).

`topics` null asks for all topics, empty for none (version 1 on; in version 0 empty means all).
"""

from __future__ import annotations

from kprod.protocol.schema import ZERO_UUID, Api, Array, Field

METADATA = Api(
    key=3,
    name="Metadata",
    versions=(0, 13),
    flexible=9,
    request=[
        Field(
            "topics",
            Array(
                Field("topic_id", "uuid", versions="10+", default=ZERO_UUID),
                Field("name", "string", nullable="10+", default=None),
            ),
            nullable="1+",
        ),
        Field("allow_auto_topic_creation", "bool", versions="4+", default=True),
        Field("include_cluster_authorized_operations", "bool", versions="8-10", default=False),
        Field("include_topic_authorized_operations", "bool", versions="8+", default=False),
    ],
    response=[
        Field("throttle_time_ms", "int32", versions="3+", default=0),
        Field(
            "brokers",
            Array(
                Field("node_id", "int32"),
                Field("host", "string"),
                Field("port", "int32"),
                Field("rack", "string", versions="1+", nullable="1+", default=None),
            ),
        ),
        Field("cluster_id", "string", versions="2+", nullable="2+", default=None),
        Field("controller_id", "int32", versions="1+", default=-1),
        Field(
            "topics",
            Array(
                Field("error_code", "int16"),
                Field("name", "string", nullable="12+"),
                Field("topic_id", "uuid", versions="10+"),
                Field("is_internal", "bool", versions="1+", default=False),
                Field(
                    "partitions",
                    Array(
                        Field("error_code", "int16"),
                        Field("partition_index", "int32"),
                        Field("leader_id", "int32"),
                        Field("leader_epoch", "int32", versions="7+", default=-1),
                        Field("replica_nodes", Array("int32")),
                        Field("isr_nodes", Array("int32")),
                        Field("offline_replicas", Array("int32"), versions="5+"),
                    ),
                ),
                Field("topic_authorized_operations", "int32", versions="8+", default=-2147483648),
            ),
        ),
        Field("cluster_authorized_operations", "int32", versions="8-10", default=-2147483648),
        Field("error_code", "int16", versions="13+"),
    ],
)
