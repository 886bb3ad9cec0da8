"""SyncGroup (key 14): hand out the partition assignment of a group generation."""

from __future__ import annotations

from kprod.protocol.schema import Api, Array, Field

SYNC_GROUP = Api(
    key=14,
    name="SyncGroup",
    versions=(0, 5),
    flexible=4,
    request=[
        Field("group_id", "string"),
        Field("generation_id", "int32"),
        Field("member_id", "string"),
        Field("group_instance_id", "string", versions="3+", nullable="3+", default=None),
        Field("protocol_type", "string", versions="5+", nullable="5+", default=None),
        Field("protocol_name", "string", versions="5+", nullable="5+", default=None),
        Field(
            "assignments",
            Array(
                Field("member_id", "string"),
                Field("assignment", "bytes"),
            ),
        ),
    ],
    response=[
        Field("throttle_time_ms", "int32", versions="1+", default=0),
        Field("error_code", "int16"),
        Field("protocol_type", "string", versions="5+", nullable="5+", default=None),
        Field("protocol_name", "string", versions="5+", nullable="5+", default=None),
        Field("assignment", "bytes"),
    ],
)
