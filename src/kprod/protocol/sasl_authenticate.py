"""SaslAuthenticate (key 36): one step of the SASL exchange. KIP-152, KIP-368 (session lifetime)."""

from __future__ import annotations

from kprod.protocol.schema import Api, Field

SASL_AUTHENTICATE = Api(
    key=36,
    name="SaslAuthenticate",
    versions=(0, 2),
    flexible=2,
    request=[
        Field("auth_bytes", "bytes"),
    ],
    response=[
        Field("error_code", "int16"),
        Field("error_message", "string", nullable="0+", default=None),
        Field("auth_bytes", "bytes"),
        Field("session_lifetime_ms", "int64", versions="1+", default=0),
    ],
)
