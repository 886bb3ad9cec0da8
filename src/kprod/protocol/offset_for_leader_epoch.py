"""OffsetForLeaderEpoch (key 23): where a leader epoch ended. KIP-101, KIP-320."""

from __future__ import annotations

from kprod.protocol.schema import Api, Array, Field

OFFSET_FOR_LEADER_EPOCH = Api(
    key=23,
    name="OffsetForLeaderEpoch",
    versions=(2, 4),
    flexible=4,
    request=[
        Field("replica_id", "int32", versions="3+", default=-2),
        Field(
            "topics",
            Array(
                Field("topic", "string"),
                Field(
                    "partitions",
                    Array(
                        Field("partition", "int32"),
                        Field("current_leader_epoch", "int32", default=-1),
                        Field("leader_epoch", "int32"),
                    ),
                ),
            ),
        ),
    ],
    response=[
        Field("throttle_time_ms", "int32", default=0),
        Field(
            "topics",
            Array(
                Field("topic", "string"),
                Field(
                    "partitions",
                    Array(
                        Field("error_code", "int16"),
                        Field("partition", "int32"),
                        Field("leader_epoch", "int32", default=-1),
                        Field("end_offset", "int64", default=-1),
                    ),
                ),
            ),
        ),
    ],
)
