"""GetTelemetrySubscriptions (key 71): which client metrics the brokers want. KIP-714."""

from __future__ import annotations

from kprod.protocol.schema import Api, Array, Field

GET_TELEMETRY_SUBSCRIPTIONS = Api(
    key=71,
    name="GetTelemetrySubscriptions",
    versions=(0, 0),
    flexible=0,
    request=[
        Field("client_instance_id", "uuid"),
    ],
    response=[
        Field("throttle_time_ms", "int32", default=0),
        Field("error_code", "int16"),
        Field("client_instance_id", "uuid"),
        Field("subscription_id", "int32"),
        Field("accepted_compression_types", Array("int8")),
        Field("push_interval_ms", "int32"),
        Field("telemetry_max_bytes", "int32"),
        Field("delta_temporality", "bool"),
        Field("requested_metrics", Array("string")),
    ],
)
