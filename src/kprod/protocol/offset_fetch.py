"""OffsetFetch (key 9): a group's stored offsets. KIP-447 (`require_stable`), KIP-709 (several groups)."""

from __future__ import annotations

from kprod.protocol.schema import Api, Array, Field

OFFSET_FETCH = Api(
    key=9,
    name="OffsetFetch",
    versions=(1, 9),
    flexible=6,
    request=[
        Field("group_id", "string", versions="1-7"),
        Field(
            "topics",
            Array(
                Field("name", "string"),
                Field("partition_indexes", Array("int32")),
            ),
            versions="1-7",
            nullable="2+",
        ),
        Field(
            "groups",
            Array(
                Field("group_id", "string"),
                Field("member_id", "string", versions="9+", nullable="9+", default=None),
                Field("member_epoch", "int32", versions="9+", default=-1),
                Field(
                    "topics",
                    Array(
                        Field("name", "string"),
                        Field("partition_indexes", Array("int32")),
                    ),
                    nullable="0+",
                ),
            ),
            versions="8+",
        ),
        Field("require_stable", "bool", versions="7+", default=False),
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
                        Field("committed_offset", "int64"),
                        Field("committed_leader_epoch", "int32", versions="5+", default=-1),
                        Field("metadata", "string", nullable="0+", default=None),
                        Field("error_code", "int16"),
                    ),
                ),
            ),
            versions="1-7",
        ),
        Field("error_code", "int16", versions="2-7", default=0),
        Field(
            "groups",
            Array(
                Field("group_id", "string"),
                Field(
                    "topics",
                    Array(
                        Field("name", "string"),
                        Field(
                            "partitions",
                            Array(
                                Field("partition_index", "int32"),
                                Field("committed_offset", "int64"),
                                Field("committed_leader_epoch", "int32", default=-1),
                                Field("metadata", "string", nullable="0+", default=None),
                                Field("error_code", "int16"),
                            ),
                        ),
                    ),
                ),
                Field("error_code", "int16", default=0),
            ),
            versions="8+",
        ),
    ],
)
