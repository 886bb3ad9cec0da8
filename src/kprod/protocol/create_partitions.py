"""CreatePartitions (key 37): add partitions to a topic. KIP-195."""

from __future__ import annotations

from kprod.protocol.schema import Api, Array, Field

CREATE_PARTITIONS = Api(
    key=37,
    name="CreatePartitions",
    versions=(0, 3),
    flexible=2,
    request=[
        Field(
            "topics",
            Array(
                Field("name", "string"),
                Field("count", "int32"),
                Field(
                    "assignments",
                    Array(
                        Field("broker_ids", Array("int32")),
                    ),
                    nullable="0+",
                ),
            ),
        ),
        Field("timeout_ms", "int32"),
        Field("validate_only", "bool"),
    ],
    response=[
        Field("throttle_time_ms", "int32", default=0),
        Field(
            "results",
            Array(
                Field("name", "string"),
                Field("error_code", "int16"),
                Field("error_message", "string", nullable="0+", default=None),
            ),
        ),
    ],
)
