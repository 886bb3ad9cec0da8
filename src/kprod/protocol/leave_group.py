"""LeaveGroup (key 13): leave a consumer group. KIP-345 (several members)."""

from __future__ import annotations

from kprod.protocol.schema import Api, Array, Field

LEAVE_GROUP = Api(
    key=13,
    name="LeaveGroup",
    versions=(0, 5),
    flexible=4,
    request=[
        Field("group_id", "string"),
        Field("member_id", "string", versions="0-2"),
        Field(
            "members",
            Array(
                Field("member_id", "string"),
                Field("group_instance_id", "string", nullable="0+", default=None),
                Field("reason", "string", versions="5+", nullable="5+", default=None),
            ),
            versions="3+",
        ),
    ],
    response=[
        Field("throttle_time_ms", "int32", versions="1+", default=0),
        Field("error_code", "int16"),
        Field(
            "members",
            Array(
                Field("member_id", "string"),
                Field("group_instance_id", "string", nullable="0+"),
                Field("error_code", "int16"),
            ),
            versions="3+",
        ),
    ],
)
