"""InitProducerId (key 22): get or bump a producer id and epoch. KIP-98, KIP-360.

Version 6 (two-phase commit, KIP-939) is not stable yet.
"""

from __future__ import annotations

from kprod.protocol.schema import Api, Field

INIT_PRODUCER_ID = Api(
    key=22,
    name="InitProducerId",
    versions=(0, 5),
    flexible=2,
    request=[
        Field("transactional_id", "string", nullable="0+"),
        Field("transaction_timeout_ms", "int32"),
        Field("producer_id", "int64", versions="3+", default=-1),
        Field("producer_epoch", "int16", versions="3+", default=-1),
    ],
    response=[
        Field("throttle_time_ms", "int32", default=0),
        Field("error_code", "int16"),
        Field("producer_id", "int64", default=-1),
        Field("producer_epoch", "int16"),
    ],
)
