"""EndTxn (key 26): commit or abort a transaction. KIP-98.

From version 5 the answer has the producer id and epoch for the next transaction (KIP-890).
"""

from __future__ import annotations

from kprod.protocol.schema import Api, Field

END_TXN = Api(
    key=26,
    name="EndTxn",
    versions=(0, 5),
    flexible=3,
    request=[
        Field("transactional_id", "string"),
        Field("producer_id", "int64"),
        Field("producer_epoch", "int16"),
        Field("committed", "bool"),
    ],
    response=[
        Field("throttle_time_ms", "int32", default=0),
        Field("error_code", "int16"),
        Field("producer_id", "int64", versions="5+", default=-1),
        Field("producer_epoch", "int16", versions="5+", default=-1),
    ],
)
