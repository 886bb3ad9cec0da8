"""Writes metrics as OpenTelemetry's ``MetricsData`` protobuf message, the payload of PushTelemetry (KIP-714).

Only the fields that are needed are known here, so that no package is. Field numbers are those of
``opentelemetry/proto/metrics/v1/metrics.proto``, version 1.x.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

_DELTA: Final = b"\x10\x01"
_CUMULATIVE: Final = b"\x10\x02"
"""Field 2 of ``Sum``, the values of ``AggregationTemporality``."""

_IS_MONOTONIC: Final = b"\x18\x01"
"""Field 3 of ``Sum``."""

_TIME_AND_VALUE: Final = struct.Struct("<BQBd")
_START: Final = struct.Struct("<BQ")
_START_TAG, _TIME_TAG, _VALUE_TAG = 0x11, 0x19, 0x21
"""Fields 2, 3 and 4 of ``NumberDataPoint``, each of 64 bits."""

_SHORT: Final = tuple(bytes([number]) for number in range(128))


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
    temporality = _DELTA if delta else _CUMULATIVE
    # Of topics and brokers each has many values: their attributes are written once.
    attributes: dict[tuple[tuple[str, str], ...], bytes] = {}
    metrics = []
    for each in series:
        points = []
        for point in each.points:
            written = attributes.get(point.attributes)
            if written is None:
                written = b"".join(_field(7, _key_value(*pair)) for pair in point.attributes)
                attributes[point.attributes] = written
            start = _START.pack(_START_TAG, point.start_ns) if point.start_ns else b""
            value = _TIME_AND_VALUE.pack(_TIME_TAG, time_ns, _VALUE_TAG, point.value)
            points.append(_field(1, start + value + written))
        name = _field(1, each.name.encode())
        if each.is_sum:
            points += temporality, _IS_MONOTONIC
        metrics.append(_field(2, name + _field(7 if each.is_sum else 5, b"".join(points))))
    if not metrics:
        return b""
    client = b"".join(_field(1, _key_value(key, value)) for key, value in resource.items())
    return _field(1, _field(1, client) + _field(2, b"".join(metrics)))


def _key_value(key: str, value: str) -> bytes:
    return _field(1, key.encode()) + _field(2, _field(1, value.encode("utf-8", "replace")))


def _field(number: int, content: bytes) -> bytes:
    """A field that has a length: text, or another message."""
    # Wire type 2; the numbers are all below 16.
    return _SHORT[number << 3 | 2] + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    if value < 0x80:
        return _SHORT[value]
    return bytes([value & 0x7F | 0x80]) + _varint(value >> 7)
