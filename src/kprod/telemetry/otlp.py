"""Writes metrics as OpenTelemetry's ``MetricsData`` protobuf message, the payload of PushTelemetry (KIP-714).

Only the fields that are needed are known here, so that no package is. Field numbers are those of
``opentelemetry/proto/metrics/v1/metrics.proto``, version 1.x.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

_VARINT: Final = 0
_FIXED64: Final = 1
_BYTES: Final = 2

_DELTA: Final = 1
_CUMULATIVE: Final = 2
"""Values of ``AggregationTemporality``."""


class Point(NamedTuple):
    """One value of a metric."""

    value: float
    attributes: tuple[tuple[str, str], ...]
    start_ns: int = 0
    """Of sums: since when it was counted, ns since 1970."""


class Series(NamedTuple):
    """A metric with all its values."""

    name: str
    points: list[Point]
    is_sum: bool
    """It is counted and only ever grows; otherwise it is a gauge."""


def metrics_data(
    series: Iterable[Series], resource: Mapping[str, str], time_ns: int, *, delta: bool
) -> bytes:
    """The message ``MetricsData``; empty if there are no metrics.

    Args:
        series: the metrics.
        resource: attributes of the client, such as its transactional id.
        time_ns: when the values were taken, ns since 1970.
        delta: sums are since the last message, not since the start.
    """
    metrics = b"".join(_field(2, _metric(each, time_ns, delta)) for each in series)
    if not metrics:
        return b""
    attributes = b"".join(_field(1, _key_value(key, value)) for key, value in resource.items())
    return _field(1, _field(1, attributes) + _field(2, metrics))


def _metric(series: Series, time_ns: int, delta: bool) -> bytes:
    points = b"".join(_field(1, _point(point, time_ns)) for point in series.points)
    name = _field(1, series.name.encode())
    if not series.is_sum:
        return name + _field(5, points)
    temporality = _key(2, _VARINT) + _varint(_DELTA if delta else _CUMULATIVE)
    is_monotonic = _key(3, _VARINT) + _varint(1)
    return name + _field(7, points + temporality + is_monotonic)


def _point(point: Point, time_ns: int) -> bytes:
    start = _key(2, _FIXED64) + struct.pack("<Q", point.start_ns) if point.start_ns else b""
    time = _key(3, _FIXED64) + struct.pack("<Q", time_ns)
    value = _key(4, _FIXED64) + struct.pack("<d", point.value)
    return start + time + value + b"".join(_field(7, _key_value(*pair)) for pair in point.attributes)


def _key_value(key: str, value: str) -> bytes:
    return _field(1, key.encode()) + _field(2, _field(1, value.encode("utf-8", "replace")))


def _field(number: int, content: bytes) -> bytes:
    """A field that has a length: text, or another message."""
    return _key(number, _BYTES) + _varint(len(content)) + content


def _key(number: int, wire_type: int) -> bytes:
    return _varint(number << 3 | wire_type)


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
