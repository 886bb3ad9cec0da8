"""PushTelemetry (key 72): send client metrics to the brokers. KIP-714."""

from __future__ import annotations

from kprod.protocol.schema import Api, Field

PUSH_TELEMETRY = Api(
    key=72,
    name="PushTelemetry",
    versions=(0, 0),
    flexible=0,
    request=[
        Field("client_instance_id", "uuid"),
        Field("subscription_id", "int32"),
        Field("terminating", "bool"),
        Field("compression_type", "int8"),
        Field("metrics", "bytes"),
    ],
    response=[
        Field("throttle_time_ms", "int32", default=0),
        Field("error_code", "int16"),
    ],
)
