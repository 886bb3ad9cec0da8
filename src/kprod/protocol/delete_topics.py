"""DeleteTopics (key 20), by name and from version 6 also by id. KIP-4, KIP-516."""

from __future__ import annotations

from kprod.protocol.schema import Api, Array, Field

DELETE_TOPICS = Api(
    key=20,
    name="DeleteTopics",
    versions=(1, 6),
    flexible=4,
    request=[
        Field(
            "topics",
            Array(
                Field("name", "string", nullable="0+", default=None),
                Field("topic_id", "uuid"),
            ),
            versions="6+",
        ),
        Field("topic_names", Array("string"), versions="1-5"),
        Field("timeout_ms", "int32"),
    ],
    response=[
        Field("throttle_time_ms", "int32", default=0),
        Field(
            "responses",
            Array(
                Field("name", "string", nullable="6+"),
                Field("topic_id", "uuid", versions="6+"),
                Field("error_code", "int16"),
                Field("error_message", "string", versions="5+", nullable="5+", default=None),
            ),
        ),
    ],
)
