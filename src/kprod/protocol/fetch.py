"""Fetch (key 1): read record batches. KIP-227 (sessions), KIP-516 (topic ids, version 13)."""

from __future__ import annotations

from kprod.protocol.schema import Api, Array, Field, Struct

FETCH = Api(
    key=1,
    name="Fetch",
    versions=(4, 18),
    flexible=12,
    request=[
        Field("cluster_id", "string", versions="12+", nullable="12+", tag=0, default=None),
        Field("replica_id", "int32", versions="4-14", default=-1),
        Field(
            "replica_state",
            Struct(
                Field("replica_id", "int32", default=-1),
                Field("replica_epoch", "int64", default=-1),
            ),
            versions="15+",
            tag=1,
        ),
        Field("max_wait_ms", "int32"),
        Field("min_bytes", "int32"),
        Field("max_bytes", "int32", default=2147483647),
        Field("isolation_level", "int8", default=0),
        Field("session_id", "int32", versions="7+", default=0),
        Field("session_epoch", "int32", versions="7+", default=-1),
        Field(
            "topics",
            Array(
                Field("topic", "string", versions="4-12"),
                Field("topic_id", "uuid", versions="13+"),
                Field(
                    "partitions",
                    Array(
                        Field("partition", "int32"),
                        Field("current_leader_epoch", "int32", versions="9+", default=-1),
                        Field("fetch_offset", "int64"),
                        Field("last_fetched_epoch", "int32", versions="12+", default=-1),
                        Field("log_start_offset", "int64", versions="5+", default=-1),
                        Field("partition_max_bytes", "int32"),
                        Field("replica_directory_id", "uuid", versions="17+", tag=0),
                        Field("high_watermark", "int64", versions="18+", tag=1, default=9223372036854775807),
                    ),
                ),
            ),
        ),
        Field(
            "forgotten_topics_data",
            Array(
                Field("topic", "string", versions="7-12"),
                Field("topic_id", "uuid", versions="13+"),
                Field("partitions", Array("int32")),
            ),
            versions="7+",
        ),
        Field("rack_id", "string", versions="11+", default=""),
    ],
    response=[
        Field("throttle_time_ms", "int32", default=0),
        Field("error_code", "int16", versions="7+"),
        Field("session_id", "int32", versions="7+", default=0),
        Field(
            "responses",
            Array(
                Field("topic", "string", versions="4-12"),
                Field("topic_id", "uuid", versions="13+"),
                Field(
                    "partitions",
                    Array(
                        Field("partition_index", "int32"),
                        Field("error_code", "int16"),
                        Field("high_watermark", "int64"),
                        Field("last_stable_offset", "int64", default=-1),
                        Field("log_start_offset", "int64", versions="5+", default=-1),
                        Field(
                            "diverging_epoch",
                            Struct(
                                Field("epoch", "int32", default=-1),
                                Field("end_offset", "int64", default=-1),
                            ),
                            versions="12+",
                            tag=0,
                        ),
                        Field(
                            "current_leader",
                            Struct(
                                Field("leader_id", "int32", default=-1),
                                Field("leader_epoch", "int32", default=-1),
                            ),
                            versions="12+",
                            tag=1,
                        ),
                        Field(
                            "snapshot_id",
                            Struct(
                                Field("end_offset", "int64", default=-1),
                                Field("epoch", "int32", default=-1),
                            ),
                            versions="12+",
                            tag=2,
                        ),
                        Field(
                            "aborted_transactions",
                            Array(
                                Field("producer_id", "int64"),
                                Field("first_offset", "int64"),
                            ),
                            nullable="0+",
                        ),
                        Field("preferred_read_replica", "int32", versions="11+", default=-1),
                        Field("records", "records", nullable="0+"),
                    ),
                ),
            ),
        ),
        Field(
            "node_endpoints",
            Array(
                Field("node_id", "int32"),
                Field("host", "string"),
                Field("port", "int32"),
                Field("rack", "string", nullable="0+", default=None),
            ),
            versions="16+",
            tag=0,
        ),
    ],
)
