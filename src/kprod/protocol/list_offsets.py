"""ListOffsets (key 2): offsets by timestamp, and the first and last of a partition. KIP-79, KIP-734."""

from __future__ import annotations

from kprod.protocol.schema import Api, Array, Field

LIST_OFFSETS = Api(
    key=2,
    name="ListOffsets",
    versions=(1, 11),
    flexible=6,
    request=[
        Field("replica_id", "int32"),
        Field("isolation_level", "int8", versions="2+"),
        Field(
            "topics",
            Array(
                Field("name", "string"),
                Field(
                    "partitions",
                    Array(
                        Field("partition_index", "int32"),
                        Field("current_leader_epoch", "int32", versions="4+", default=-1),
                        Field("timestamp", "int64"),
                    ),
                ),
            ),
        ),
        Field("timeout_ms", "int32", versions="10+"),
    ],
    response=[
        Field("throttle_time_ms", "int32", versions="2+", default=0),
        Field(
            "topics",
            Array(
                Field("name", "string"),
                Field(
                    "partitions",
                    Array(
                        Field("partition_index", "int32"),
                        Field("error_code", "int16"),
                        Field("timestamp", "int64", default=-1),
                        Field("offset", "int64", default=-1),
                        Field("leader_epoch", "int32", versions="4+", default=-1),
                    ),
                ),
            ),
        ),
    ],
)
