"""AddOffsetsToTxn (key 25): register a group's offsets partition in a transaction. KIP-98."""

from __future__ import annotations

from kprod.protocol.schema import Api, Field

ADD_OFFSETS_TO_TXN = Api(
    key=25,
    name="AddOffsetsToTxn",
    versions=(0, 4),
    flexible=3,
    request=[
        Field("transactional_id", "string"),
        Field("producer_id", "int64"),
        Field("producer_epoch", "int16"),
        Field("group_id", "string"),
    ],
    response=[
        Field("throttle_time_ms", "int32", default=0),
        Field("error_code", "int16"),
    ],
)
