"""OffsetCommit (key 8): store a group's offsets."""

from __future__ import annotations

from kprod.protocol.schema import Api, Array, Field

OFFSET_COMMIT = Api(
    key=8,
    name="OffsetCommit",
    versions=(2, 9),
    flexible=8,
    request=[
        Field("group_id", "string"),
        Field("generation_id_or_member_epoch", "int32", default=-1),
        Field("member_id", "string"),
        Field("group_instance_id", "string", versions="7+", nullable="7+", default=None),
        Field("retention_time_ms", "int64", versions="2-4", default=-1),
        Field(
            "topics",
            Array(
                Field("name", "string"),
                Field(
                    "partitions",
                    Array(
                        Field("partition_index", "int32"),
                        Field("committed_offset", "int64"),
                        Field("committed_leader_epoch", "int32", versions="6+", default=-1),
                        Field("committed_metadata", "string", nullable="0+"),
                    ),
                ),
            ),
        ),
    ],
    response=[
        Field("throttle_time_ms", "int32", versions="3+", default=0),
        Field(
            "topics",
            Array(
                Field("name", "string"),
                Field(
                    "partitions",
                    Array(
                        Field("partition_index", "int32"),
                        Field("error_code", "int16"),
                    ),
                ),
            ),
        ),
    ],
)
