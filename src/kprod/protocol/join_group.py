"""JoinGroup (key 11): become a member of a consumer group. KIP-345 (static members), KIP-394."""

from __future__ import annotations

from kprod.protocol.schema import Api, Array, Field

JOIN_GROUP = Api(
    key=11,
    name="JoinGroup",
    versions=(0, 9),
    flexible=6,
    request=[
        Field("group_id", "string"),
        Field("session_timeout_ms", "int32"),
        Field("rebalance_timeout_ms", "int32", versions="1+", default=-1),
        Field("member_id", "string"),
        Field("group_instance_id", "string", versions="5+", nullable="5+", default=None),
        Field("protocol_type", "string"),
        Field(
            "protocols",
            Array(
                Field("name", "string"),
                Field("metadata", "bytes"),
            ),
        ),
        Field("reason", "string", versions="8+", nullable="8+", default=None),
    ],
    response=[
        Field("throttle_time_ms", "int32", versions="2+", default=0),
        Field("error_code", "int16"),
        Field("generation_id", "int32", default=-1),
        Field("protocol_type", "string", versions="7+", nullable="7+", default=None),
        Field("protocol_name", "string", nullable="7+"),
        Field("leader", "string"),
        Field("skip_assignment", "bool", versions="9+", default=False),
        Field("member_id", "string"),
        Field(
            "members",
            Array(
                Field("member_id", "string"),
                Field("group_instance_id", "string", versions="5+", nullable="5+", default=None),
                Field("metadata", "bytes"),
            ),
        ),
    ],
)
