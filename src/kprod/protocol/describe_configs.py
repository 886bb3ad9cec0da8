"""DescribeConfigs (key 32): settings of topics and brokers. KIP-133, KIP-226, KIP-569."""

from __future__ import annotations

from kprod.protocol.schema import Api, Array, Field

DESCRIBE_CONFIGS = Api(
    key=32,
    name="DescribeConfigs",
    versions=(1, 4),
    flexible=4,
    request=[
        Field(
            "resources",
            Array(
                Field("resource_type", "int8"),
                Field("resource_name", "string"),
                Field("configuration_keys", Array("string"), nullable="0+"),
            ),
        ),
        Field("include_synonyms", "bool", default=False),
        Field("include_documentation", "bool", versions="3+", default=False),
    ],
    response=[
        Field("throttle_time_ms", "int32", default=0),
        Field(
            "results",
            Array(
                Field("error_code", "int16"),
                Field("error_message", "string", nullable="0+", default=None),
                Field("resource_type", "int8"),
                Field("resource_name", "string"),
                Field(
                    "configs",
                    Array(
                        Field("name", "string"),
                        Field("value", "string", nullable="0+"),
                        Field("read_only", "bool"),
                        Field("config_source", "int8", default=-1),
                        Field("is_sensitive", "bool"),
                        Field(
                            "synonyms",
                            Array(
                                Field("name", "string"),
                                Field("value", "string", nullable="0+"),
                                Field("source", "int8"),
                            ),
                        ),
                        Field("config_type", "int8", versions="3+", default=0),
                        Field("documentation", "string", versions="3+", nullable="3+"),
                    ),
                ),
            ),
        ),
    ],
)
