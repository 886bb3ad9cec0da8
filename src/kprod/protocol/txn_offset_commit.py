"""TxnOffsetCommit (key 28): commit a group's offsets in a transaction. KIP-98, KIP-447 (group metadata)."""

from __future__ import annotations

from kprod.protocol.schema import Api, Array, Field

TXN_OFFSET_COMMIT = Api(
    key=28,
    name="TxnOffsetCommit",
    versions=(0, 5),
    flexible=3,
    request=[
        Field("transactional_id", "string"),
        Field("group_id", "string"),
        Field("producer_id", "int64"),
        Field("producer_epoch", "int16"),
        Field("generation_id", "int32", versions="3+", default=-1),
        Field("member_id", "string", versions="3+", default=""),
        Field("group_instance_id", "string", versions="3+", nullable="3+", default=None),
        Field(
            "topics",
            Array(
                Field("name", "string"),
                Field(
                    "partitions",
                    Array(
                        Field("partition_index", "int32"),
                        Field("committed_offset", "int64"),
                        Field("committed_leader_epoch", "int32", versions="2+", default=-1),
                        Field("committed_metadata", "string", nullable="0+"),
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
