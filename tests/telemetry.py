"""Reads pushed metrics with OpenTelemetry's own protobuf package."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from opentelemetry.proto.metrics.v1.metrics_pb2 import AggregationTemporality, MetricsData


class Pushed(NamedTuple):
    """One value that was pushed."""

    value: float
    temporality: str
    """``delta`` or ``cumulative`` of a sum; empty: a gauge."""
    start_ns: int
    time_ns: int


class Payload(NamedTuple):
    """What a payload says."""

    resource: dict[str, str]
    values: dict[tuple[str, ...], Pushed]
    """By name without ``org.apache.kafka.``, and the attributes' names and values in turn."""


def read_payload(data: bytes) -> Payload:
    """Parse a ``MetricsData`` message; there must be no name twice, and no field that the package does not
    know.
    """
    message: Any = MetricsData()
    message.ParseFromString(data)
    assert message.SerializeToString(deterministic=True) is not None
    resource: dict[str, str] = {}
    values: dict[tuple[str, ...], Pushed] = {}
    for resource_metrics in message.resource_metrics:
        resource.update((pair.key, pair.value.string_value) for pair in resource_metrics.resource.attributes)
        for metric in [metric for scope in resource_metrics.scope_metrics for metric in scope.metrics]:
            assert metric.name.startswith("org.apache.kafka.")
            kind = metric.WhichOneof("data")
            assert kind in ("sum", "gauge")
            temporality = ""
            if kind == "sum":
                assert metric.sum.is_monotonic
                name = AggregationTemporality.Name(metric.sum.aggregation_temporality)
                temporality = name.removeprefix("AGGREGATION_TEMPORALITY_").lower()
            for point in getattr(metric, kind).data_points:
                pairs = [(pair.key, pair.value.string_value) for pair in point.attributes]
                key = (
                    metric.name.removeprefix("org.apache.kafka."),
                    *(text for pair in pairs for text in pair),
                )
                assert key not in values
                # Java's client writes some gauges as integers.
                value = float(getattr(point, point.WhichOneof("value")))
                values[key] = Pushed(value, temporality, point.start_time_unix_nano, point.time_unix_nano)
    return Payload(resource, values)


def total(payloads: Iterable[bytes], *key: str) -> float:
    """A total, from the differences that were pushed one after the other."""
    found = 0.0
    for payload in map(read_payload, payloads):
        if key in payload.values:
            pushed = payload.values[key]
            assert pushed.temporality == "delta"
            found += pushed.value
    return found
