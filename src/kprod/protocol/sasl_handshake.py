"""SaslHandshake (key 17): choose the SASL mechanism. KIP-43.

After version 0 raw SASL tokens follow, after version 1 SaslAuthenticate requests (KIP-152).
"""

from __future__ import annotations

from kprod.protocol.schema import Api, Array, Field

SASL_HANDSHAKE = Api(
    key=17,
    name="SaslHandshake",
    versions=(0, 1),
    flexible=None,
    request=[
        Field("mechanism", "string"),
    ],
    response=[
        Field("error_code", "int16"),
        Field("mechanisms", Array("string")),
    ],
)
