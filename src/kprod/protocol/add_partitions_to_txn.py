"""AddPartitionsToTxn (key 24): register partitions before producing to them in a transaction. KIP-98.

Versions 4 and 5 are for brokers only (KIP-890).
"""

from __future__ import annotations

from kprod.protocol.schema import Api, Array, Field

ADD_PARTITIONS_TO_TXN = Api(
    key=24,
    name="AddPartitionsToTxn",
    versions=(0, 3),
    flexible=3,
    request=[
        Field("transactional_id", "string"),
        Field("producer_id", "int64"),
        Field("producer_epoch", "int16"),
        Field(
            "topics",
            Array(
                Field("name", "string"),
                Field("partitions", Array("int32")),
            ),
        ),
    ],
    response=[
        Field("throttle_time_ms", "int32", default=0),
        Field(
            "results_by_topic",
            Array(
                Field("name", "string"),
                Field(
                    "results_by_partition",
                    Array(
                        Field("partition_index", "int32"),
                        Field("partition_error_code", "int16"),
                    ),
                ),
            ),
        ),
    ],
)
