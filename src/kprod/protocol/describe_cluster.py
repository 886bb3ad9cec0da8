"""DescribeCluster (key 60): brokers and controller. KIP-700."""

from __future__ import annotations

from kprod.protocol.schema import Api, Array, Field

DESCRIBE_CLUSTER = Api(
    key=60,
    name="DescribeCluster",
    versions=(0, 2),
    flexible=0,
    request=[
        Field("include_cluster_authorized_operations", "bool", default=False),
        Field("endpoint_type", "int8", versions="1+", default=1),
        Field("include_fenced_brokers", "bool", versions="2+", default=False),
    ],
    response=[
        Field("throttle_time_ms", "int32", default=0),
        Field("error_code", "int16"),
        Field("error_message", "string", nullable="0+", default=None),
        Field("endpoint_type", "int8", versions="1+", default=1),
        Field("cluster_id", "string"),
        Field("controller_id", "int32", default=-1),
        Field(
            "brokers",
            Array(
                Field("broker_id", "int32"),
                Field("host", "string"),
                Field("port", "int32"),
                Field("rack", "string", nullable="0+", default=None),
                Field("is_fenced", "bool", versions="2+"),
            ),
        ),
        Field("cluster_authorized_operations", "int32", default=-2147483648),
    ],
)
