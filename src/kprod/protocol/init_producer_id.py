"""InitProducerId (key 22): get or bump a producer id and epoch. KIP-98, KIP-360, KIP-939.

Version 6 (two-phase commit) is not stable yet: brokers offer it with ``unstable.api.versions.enable=true``
only, and Kafka may change it. It is used for nothing but two-phase commit.
"""

from __future__ import annotations

from typing import Final

from kprod.protocol.schema import Api, Field

NEWEST_STABLE_INIT_PRODUCER_ID: Final = 5
"""What is used without the option transaction_two_phase_commit_enable."""
TWO_PHASE_COMMIT_INIT_PRODUCER_ID: Final = 6
"""The version that two-phase commit needs."""

INIT_PRODUCER_ID = Api(
    key=22,
    name="InitProducerId",
    versions=(0, 6),
    flexible=2,
    request=[
        Field("transactional_id", "string", nullable="0+"),
        Field("transaction_timeout_ms", "int32"),
        Field("producer_id", "int64", versions="3+", default=-1),
        Field("producer_epoch", "int16", versions="3+", default=-1),
        Field("enable2_pc", "bool", versions="6+", default=False),
        Field("keep_prepared_txn", "bool", versions="6+", default=False),
    ],
    response=[
        Field("throttle_time_ms", "int32", default=0),
        Field("error_code", "int16"),
        Field("producer_id", "int64", default=-1),
        Field("producer_epoch", "int16"),
        Field("ongoing_txn_producer_id", "int64", versions="6+", default=-1),
        Field("ongoing_txn_producer_epoch", "int16", versions="6+", default=-1),
    ],
)
