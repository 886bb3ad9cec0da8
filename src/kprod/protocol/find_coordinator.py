"""FindCoordinator (key 10): the broker that coordinates a group or a transactional id.

Up to version 3 for one key, from version 4 for several (KIP-699).
"""

from __future__ import annotations

from kprod.protocol.schema import Api, Array, Field

FIND_COORDINATOR = Api(
    key=10,
    name="FindCoordinator",
    versions=(0, 6),
    flexible=3,
    request=[
        Field("key", "string", versions="0-3"),
        Field("key_type", "int8", versions="1+", default=0),
        Field("coordinator_keys", Array("string"), versions="4+"),
    ],
    response=[
        Field("throttle_time_ms", "int32", versions="1+", default=0),
        Field("error_code", "int16", versions="0-3"),
        Field("error_message", "string", versions="1-3", nullable="1-3", default=None),
        Field("node_id", "int32", versions="0-3"),
        Field("host", "string", versions="0-3"),
        Field("port", "int32", versions="0-3"),
        Field(
            "coordinators",
            Array(
                Field("key", "string"),
                Field("node_id", "int32"),
                Field("host", "string"),
                Field("port", "int32"),
                Field("error_code", "int16"),
                Field("error_message", "string", nullable="0+", default=None),
            ),
            versions="4+",
        ),
    ],
)
