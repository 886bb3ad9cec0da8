"""Heartbeat (key 12): stay a member of a consumer group."""

from __future__ import annotations

from kprod.protocol.schema import Api, Field

HEARTBEAT = Api(
    key=12,
    name="Heartbeat",
    versions=(0, 4),
    flexible=4,
    request=[
        Field("group_id", "string"),
        Field("generation_id", "int32"),
        Field("member_id", "string"),
        Field("group_instance_id", "string", versions="3+", nullable="3+", default=None),
    ],
    response=[
        Field("throttle_time_ms", "int32", versions="1+", default=0),
        Field("error_code", "int16"),
    ],
)
