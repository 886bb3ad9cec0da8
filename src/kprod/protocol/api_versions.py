"""ApiVersions (key 18): which APIs and versions a broker speaks. KIP-35, KIP-511.

The response always has header v0, so that a client can read it before it knows the version the broker
speaks. A broker that does not know the version asked for answers UNSUPPORTED_VERSION in a version 0 body.
Version 5 (KIP-1242) is not described: brokers before 4.4 would refuse it and cost every connection a second
round trip.
"""

from __future__ import annotations

from kprod.protocol.schema import Api, Array, Field

API_VERSIONS = Api(
    key=18,
    name="ApiVersions",
    versions=(0, 4),
    flexible=3,
    request=[
        Field("client_software_name", "string", versions="3+"),
        Field("client_software_version", "string", versions="3+"),
    ],
    response=[
        Field("error_code", "int16"),
        Field(
            "api_keys",
            Array(
                Field("api_key", "int16"),
                Field("min_version", "int16"),
                Field("max_version", "int16"),
            ),
        ),
        Field("throttle_time_ms", "int32", versions="1+", default=0),
        Field(
            "supported_features",
            Array(
                Field("name", "string"),
                Field("min_version", "int16"),
                Field("max_version", "int16"),
            ),
            versions="3+",
            tag=0,
        ),
        Field("finalized_features_epoch", "int64", versions="3+", tag=1, default=-1),
        Field(
            "finalized_features",
            Array(
                Field("name", "string"),
                Field("max_version_level", "int16"),
                Field("min_version_level", "int16"),
            ),
            versions="3+",
            tag=2,
        ),
        Field("zk_migration_ready", "bool", versions="3+", tag=3, default=False),
    ],
)
