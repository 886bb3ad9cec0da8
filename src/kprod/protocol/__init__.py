"""Kafka's control-plane messages: declarative schemas, encoding and decoding, no input or output.

One module per API key, named after the API; each has the schema of the request and of the response. Bodies
are plain dicts: snake_case names of Kafka's message definitions to ``int``, ``bool``, ``str``, ``bytes``,
``None``, lists and dicts. UUIDs are 16 ``bytes``.

>>> frame = encode_request(METADATA, 12, 1, 'me', {'topics': [{'name': 'events'}]})
>>> decode_request(frame[4:])[1]['topics'][0]['name']
'events'
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from kprod.protocol.api_versions import API_VERSIONS
from kprod.protocol.cursor import Cursor, ProtocolError
from kprod.protocol.frames import (
    BytesLeftOver,
    RequestHeader,
    decode_request,
    decode_request_header,
    decode_response,
    encode_request,
    encode_response,
)
from kprod.protocol.init_producer_id import INIT_PRODUCER_ID
from kprod.protocol.metadata import METADATA
from kprod.protocol.produce import PRODUCE
from kprod.protocol.schema import ZERO_UUID, Api, Body

if TYPE_CHECKING:
    from kprod.protocol.add_offsets_to_txn import ADD_OFFSETS_TO_TXN
    from kprod.protocol.add_partitions_to_txn import ADD_PARTITIONS_TO_TXN
    from kprod.protocol.create_partitions import CREATE_PARTITIONS
    from kprod.protocol.create_topics import CREATE_TOPICS
    from kprod.protocol.delete_topics import DELETE_TOPICS
    from kprod.protocol.describe_cluster import DESCRIBE_CLUSTER
    from kprod.protocol.describe_configs import DESCRIBE_CONFIGS
    from kprod.protocol.end_txn import END_TXN
    from kprod.protocol.fetch import FETCH
    from kprod.protocol.find_coordinator import FIND_COORDINATOR
    from kprod.protocol.get_telemetry_subscriptions import GET_TELEMETRY_SUBSCRIPTIONS
    from kprod.protocol.heartbeat import HEARTBEAT
    from kprod.protocol.join_group import JOIN_GROUP
    from kprod.protocol.leave_group import LEAVE_GROUP
    from kprod.protocol.list_offsets import LIST_OFFSETS
    from kprod.protocol.offset_commit import OFFSET_COMMIT
    from kprod.protocol.offset_fetch import OFFSET_FETCH
    from kprod.protocol.offset_for_leader_epoch import OFFSET_FOR_LEADER_EPOCH
    from kprod.protocol.push_telemetry import PUSH_TELEMETRY
    from kprod.protocol.registry import APIS
    from kprod.protocol.sasl_authenticate import SASL_AUTHENTICATE
    from kprod.protocol.sasl_handshake import SASL_HANDSHAKE
    from kprod.protocol.sync_group import SYNC_GROUP
    from kprod.protocol.txn_offset_commit import TXN_OFFSET_COMMIT

__all__ = [
    "ADD_OFFSETS_TO_TXN",
    "ADD_PARTITIONS_TO_TXN",
    "APIS",
    "API_VERSIONS",
    "CREATE_PARTITIONS",
    "CREATE_TOPICS",
    "DELETE_TOPICS",
    "DESCRIBE_CLUSTER",
    "DESCRIBE_CONFIGS",
    "END_TXN",
    "FETCH",
    "FIND_COORDINATOR",
    "GET_TELEMETRY_SUBSCRIPTIONS",
    "HEARTBEAT",
    "INIT_PRODUCER_ID",
    "JOIN_GROUP",
    "LEAVE_GROUP",
    "LIST_OFFSETS",
    "METADATA",
    "OFFSET_COMMIT",
    "OFFSET_FETCH",
    "OFFSET_FOR_LEADER_EPOCH",
    "PRODUCE",
    "PUSH_TELEMETRY",
    "SASL_AUTHENTICATE",
    "SASL_HANDSHAKE",
    "SYNC_GROUP",
    "TXN_OFFSET_COMMIT",
    "ZERO_UUID",
    "Api",
    "Body",
    "BytesLeftOver",
    "Cursor",
    "ProtocolError",
    "RequestHeader",
    "decode_request",
    "decode_request_header",
    "decode_response",
    "encode_request",
    "encode_response",
]


def __getattr__(name: str) -> Any:
    # The rest is imported when it is first used: by transactions and the embedded cluster.
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = importlib.import_module(f"{__name__}.{'registry' if name == 'APIS' else name.lower()}")
    value = globals()[name] = getattr(module, name)
    return value
