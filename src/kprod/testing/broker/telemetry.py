"""GetTelemetrySubscriptions and PushTelemetry (KIP-714), with the checks of Kafka's ClientMetricsManager."""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NamedTuple

from kprod._core.crc32c import crc32c
from kprod.protocol import GET_TELEMETRY_SUBSCRIPTIONS, PUSH_TELEMETRY, ZERO_UUID, Api, Body
from kprod.testing.broker.record_batch import CODECS, InvalidBatch, decompress
from kprod.testing.broker.request import Request

if TYPE_CHECKING:
    from kprod.testing.broker.cluster import ClusterState

INVALID_REQUEST: Final = 42
UNSUPPORTED_COMPRESSION_TYPE: Final = 76
INVALID_RECORD: Final = 87
THROTTLING_QUOTA_EXCEEDED: Final = 89
UNKNOWN_SUBSCRIPTION_ID: Final = 117
TELEMETRY_TOO_LARGE: Final = 118

APIS_OF_TELEMETRY: Final[tuple[Api, ...]] = (GET_TELEMETRY_SUBSCRIPTIONS, PUSH_TELEMETRY)
"""Offered by brokers that have a receiver for clients' metrics."""

ACCEPTED_COMPRESSION: Final = ("zstd", "lz4", "gzip", "snappy")
"""Those of Apache Kafka, in its order."""


class MockTelemetryPush(NamedTuple):
    """Metrics that a client pushed and a broker accepted.

    Attributes:
        node: the broker.
        client_id: of the client.
        client_instance_id: the id that the brokers assigned to it.
        subscription_id: of the subscription that the client knows.
        terminating: the client says it is its last push.
        compression: none, gzip, snappy, lz4 or zstd.
        metrics: decompressed: OpenTelemetry's protobuf message ``MetricsData``.
    """

    node: int
    client_id: str | None
    client_instance_id: uuid.UUID
    subscription_id: int
    terminating: bool
    compression: str
    metrics: bytes


@dataclass(frozen=True)
class Subscription:
    """What the brokers ask all clients for."""

    metrics: Sequence[str]
    push_interval_ms: int
    compression: Sequence[str] = ACCEPTED_COMPRESSION
    delta_temporality: bool = True
    max_bytes: int = 1 << 20

    def id_for(self, client_instance_id: bytes) -> int:
        """The subscription id of a client: a checksum, as in Kafka, so that every broker knows it."""
        checksum = crc32c(f"{list(self.metrics)}{self.push_interval_ms}".encode() + client_instance_id)
        return checksum - (1 << 32) if checksum >= 1 << 31 else checksum


@dataclass
class _Instance:
    """A client as one broker knows it, for as long as its connection lasts."""

    subscription: Subscription
    asked_at: float = float("-inf")
    pushed_at: float = float("-inf")
    terminating: bool = False
    may_ask_again: bool = False
    """Its last push was refused for what it can only learn by asking."""


@dataclass
class ClientMetrics:
    """The subscription, and what clients have pushed."""

    subscription: Subscription | None = None
    pushes: list[MockTelemetryPush] = field(default_factory=list)
    _instances: dict[tuple[int, str, bytes], _Instance] = field(default_factory=dict)

    def instance(self, request: Request, client_instance_id: bytes) -> _Instance:
        """The client that a request comes from; it begins anew when the subscription has changed."""
        assert self.subscription is not None
        key = (request.node, request.client_address, client_instance_id)
        instance = self._instances.get(key)
        if instance is None or instance.subscription is not self.subscription:
            instance = self._instances[key] = _Instance(self.subscription)
        return instance


def get_telemetry_subscriptions(cluster: ClusterState, request: Request) -> Body:
    """Handle a GetTelemetrySubscriptions request."""
    clients = cluster.client_metrics
    assigned = bytes(request.body["client_instance_id"])
    if assigned == ZERO_UUID:
        assigned = uuid.uuid4().bytes
    instance = clients.instance(request, assigned)
    subscription = instance.subscription
    error = request.error_for()
    now = time.monotonic()
    if not error:
        since = max(instance.asked_at, instance.pushed_at)
        if (now - since) * 1000 < subscription.push_interval_ms and not instance.may_ask_again:
            error = THROTTLING_QUOTA_EXCEEDED
        else:
            instance.asked_at, instance.may_ask_again = now, False
    if error:
        return {
            "error_code": error,
            "client_instance_id": ZERO_UUID,
            "subscription_id": 0,
            "accepted_compression_types": [],
            "push_interval_ms": 0,
            "telemetry_max_bytes": 0,
            "delta_temporality": False,
            "requested_metrics": [],
        }
    return {
        "error_code": 0,
        "client_instance_id": assigned,
        "subscription_id": subscription.id_for(assigned),
        "accepted_compression_types": [CODECS.index(name) for name in subscription.compression],
        "push_interval_ms": subscription.push_interval_ms,
        "telemetry_max_bytes": subscription.max_bytes,
        "delta_temporality": subscription.delta_temporality,
        "requested_metrics": list(subscription.metrics),
    }


def push_telemetry(cluster: ClusterState, request: Request) -> Body:
    """Handle a PushTelemetry request."""
    clients = cluster.client_metrics
    client_instance_id = bytes(request.body["client_instance_id"])
    if client_instance_id == ZERO_UUID:
        return {"error_code": INVALID_REQUEST}
    instance = clients.instance(request, client_instance_id)
    error = request.error_for() or _push(clients, instance, request, client_instance_id)
    instance.may_ask_again = error in (UNKNOWN_SUBSCRIPTION_ID, UNSUPPORTED_COMPRESSION_TYPE)
    return {"error_code": error}


def _push(clients: ClientMetrics, instance: _Instance, request: Request, client_instance_id: bytes) -> int:
    body, subscription = request.body, instance.subscription
    was_terminating, instance.terminating = instance.terminating, body["terminating"]
    if was_terminating:
        return INVALID_REQUEST
    now = time.monotonic()
    # The first push after the subscription was asked for may come before the interval is over.
    if instance.asked_at > instance.pushed_at or (
        (now - instance.pushed_at) * 1000 >= subscription.push_interval_ms
    ):
        instance.pushed_at = now
    elif not body["terminating"]:
        return THROTTLING_QUOTA_EXCEEDED
    if body["subscription_id"] != subscription.id_for(client_instance_id):
        return UNKNOWN_SUBSCRIPTION_ID
    codec, data = body["compression_type"], bytes(body["metrics"])
    if codec and (not 0 <= codec < len(CODECS) or CODECS[codec] not in subscription.compression):
        return UNSUPPORTED_COMPRESSION_TYPE
    if len(data) > subscription.max_bytes:
        return TELEMETRY_TOO_LARGE
    try:
        metrics = decompress(codec, data) if codec else data
    except InvalidBatch:
        return INVALID_RECORD
    clients.pushes.append(
        MockTelemetryPush(
            request.node,
            request.header.client_id,
            uuid.UUID(bytes=client_instance_id),
            body["subscription_id"],
            body["terminating"],
            CODECS[codec],
            metrics,
        )
    )
    return 0
