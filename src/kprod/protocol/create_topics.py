"""CreateTopics (key 19). KIP-4, KIP-525 (effective configs in the answer)."""

from __future__ import annotations

from kprod.protocol.schema import Api, Array, Field

CREATE_TOPICS = Api(
    key=19,
    name="CreateTopics",
    versions=(2, 7),
    flexible=5,
    request=[
        Field(
            "topics",
            Array(
                Field("name", "string"),
                Field("num_partitions", "int32"),
                Field("replication_factor", "int16"),
                Field(
                    "assignments",
                    Array(
                        Field("partition_index", "int32"),
                        Field("broker_ids", Array("int32")),
                    ),
                ),
                Field(
                    "configs",
                    Array(
                        Field("name", "string"),
                        Field("value", "string", nullable="0+"),
                    ),
                ),
            ),
        ),
        Field("timeout_ms", "int32", default=60000),
        Field("validate_only", "bool", default=False),
    ],
    response=[
        Field("throttle_time_ms", "int32", default=0),
        Field(
            "topics",
            Array(
                Field("name", "string"),
                Field("topic_id", "uuid", versions="7+"),
                Field("error_code", "int16"),
                Field("error_message", "string", nullable="0+", default=None),
                Field("topic_config_error_code", "int16", versions="5+", tag=0),
                Field("num_partitions", "int32", versions="5+", default=-1),
                Field("replication_factor", "int16", versions="5+", default=-1),
                Field(
                    "configs",
                    Array(
                        Field("name", "string"),
                        Field("value", "string", nullable="0+"),
                        Field("read_only", "bool"),
                        Field("config_source", "int8", default=-1),
                        Field("is_sensitive", "bool"),
                    ),
                    versions="5+",
                    nullable="5+",
                ),
            ),
        ),
    ],
)
