"""Produce (key 0): append record batches.

Version 10 on tells the new leader when it moved (KIP-951), version 13 has topic ids for names (KIP-516).

Versions before 3 have no record batch v2; a broker may advertise 0 (KAFKA-18659) and still refuse them.
"""

from __future__ import annotations

from kprod.protocol.schema import Api, Array, Field, Struct

PRODUCE = Api(
    key=0,
    name="Produce",
    versions=(3, 13),
    flexible=9,
    request=[
        Field("transactional_id", "string", nullable="0+", default=None),
        Field("acks", "int16"),
        Field("timeout_ms", "int32"),
        Field(
            "topic_data",
            Array(
                Field("name", "string", versions="3-12"),
                Field("topic_id", "uuid", versions="13+"),
                Field(
                    "partition_data",
                    Array(
                        Field("index", "int32"),
                        Field("records", "records", nullable="0+"),
                    ),
                ),
            ),
        ),
    ],
    response=[
        Field(
            "responses",
            Array(
                Field("name", "string", versions="3-12"),
                Field("topic_id", "uuid", versions="13+"),
                Field(
                    "partition_responses",
                    Array(
                        Field("index", "int32"),
                        Field("error_code", "int16"),
                        Field("base_offset", "int64"),
                        Field("log_append_time_ms", "int64", default=-1),
                        Field("log_start_offset", "int64", versions="5+", default=-1),
                        Field(
                            "record_errors",
                            Array(
                                Field("batch_index", "int32"),
                                Field("batch_index_error_message", "string", nullable="0+", default=None),
                            ),
                            versions="8+",
                        ),
                        Field("error_message", "string", versions="8+", nullable="8+", default=None),
                        Field(
                            "current_leader",
                            Struct(
                                Field("leader_id", "int32", default=-1),
                                Field("leader_epoch", "int32", default=-1),
                            ),
                            versions="10+",
                            tag=0,
                        ),
                    ),
                ),
            ),
        ),
        Field("throttle_time_ms", "int32", default=0),
        Field(
            "node_endpoints",
            Array(
                Field("node_id", "int32"),
                Field("host", "string"),
                Field("port", "int32"),
                Field("rack", "string", nullable="0+", default=None),
            ),
            versions="10+",
            tag=0,
        ),
    ],
)
