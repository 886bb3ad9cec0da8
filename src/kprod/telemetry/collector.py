"""From the producer's figures to payloads: which metrics, under which names, as totals or as differences."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from typing import Final, NamedTuple

from kprod._core import compression
from kprod.metric_names import NODE, PRODUCER, TOPIC, telemetry_name
from kprod.metrics import Figure
from kprod.telemetry.otlp import Point, Series, metrics_data

_Labels = tuple[tuple[str, str], ...]
_Key = tuple[str, _Labels]

_name = functools.cache(telemetry_name)

_GROUPS_THAT_MAY_FIT: Final = (
    frozenset({PRODUCER, NODE, TOPIC}),
    frozenset({PRODUCER, NODE}),
    frozenset({PRODUCER}),
)
"""What is tried in turn when everything is more than the broker takes: of topics there can be thousands."""


class Payload(NamedTuple):
    """What a PushTelemetry request has."""

    compression_type: int
    """Kafka's number of the codec."""
    data: bytes


class Collector:
    """Makes payloads, and remembers which totals the brokers have.

    Args:
        figures: gives the metrics of now.
        resource: attributes of the client.
        started_ns: since when totals count, ns since 1970.
    """

    def __init__(
        self, figures: Callable[[], Iterable[Figure]], resource: Mapping[str, str], started_ns: int
    ) -> None:
        self._figures = figures
        self._resource = resource
        self._started_ns = started_ns
        self._told: dict[_Key, tuple[float, int]] = {}
        """Of each total that was sent as a difference: its value then, and when."""
        self._under_way: dict[_Key, tuple[float, int]] = {}

    def collect(
        self,
        requested: Iterable[str],
        *,
        delta: bool,
        accepted_compression_types: Iterable[int],
        max_bytes: int,
        now_ns: int,
    ) -> Payload | None:
        """The payload of now; then call :meth:`accepted` or :meth:`refused`.

        Args:
            requested: prefixes of the names of metrics; ``*`` alone asks for all.
            delta: totals since the last payload that was accepted, not since the start.
            accepted_compression_types: Kafka's numbers of codecs, the one to be preferred first.
            max_bytes: of the payload. Metrics of topics, then of brokers, are left out where all are more.
            now_ns: the time, ns since 1970.

        Returns:
            None: not even the metrics of the producer alone are that small.
        """
        prefixes = tuple(requested)
        wanted = ("",) if prefixes == ("*",) else prefixes
        codec = preferred_codec(accepted_compression_types)
        # Once for each name, not for each topic: there may be many prefixes.
        is_wanted: dict[str, bool] = {}
        # Once for all attempts: a total must not grow between them.
        figures: list[tuple[Figure, str]] = []
        for figure in self._figures():
            name = _name(figure.group, figure.name)
            if name not in is_wanted:
                is_wanted[name] = name.startswith(wanted)
            if is_wanted[name]:
                figures.append((figure, name))
        for groups in _GROUPS_THAT_MAY_FIT:
            self._under_way = {}
            series = self._series(figures, groups, delta, now_ns)
            data = metrics_data(series, self._resource, now_ns, delta=delta)
            if codec and data:
                level = compression.get_codec(codec).default_level
                data = compression.compress(codec, level or 0, data)
            if len(data) <= max_bytes:
                return Payload(codec if data else 0, data)
        self._under_way = {}
        return None

    def _series(
        self, figures: Iterable[tuple[Figure, str]], groups: frozenset[str], delta: bool, now_ns: int
    ) -> Iterable[Series]:
        series: dict[str, Series] = {}
        attributes_of: dict[_Labels, _Labels] = {}
        for figure, name in figures:
            if figure.group not in groups:
                continue
            attributes = attributes_of.get(figure.labels)
            if attributes is None:
                # KIP-714: the names of attributes are in snake_case.
                attributes = tuple((label.replace("-", "_"), value) for label, value in figure.labels)
                attributes_of[figure.labels] = attributes
            value, start_ns = figure.value, 0
            if figure.counts:
                start_ns = self._started_ns
                if delta:
                    told, start_ns = self._told.get((name, attributes), (0.0, start_ns))
                    self._under_way[name, attributes] = (figure.value, now_ns)
                    # A broker that was forgotten and came back is counted from 0 again.
                    value -= told if told <= value else 0.0
            if name not in series:
                series[name] = Series(name, [], figure.counts)
            series[name].points.append(Point(float(value), attributes, start_ns))
        return series.values()

    def accepted(self) -> None:
        """The brokers have the last payload, or may have it: its differences are not sent again."""
        self._told.update(self._under_way)
        self._under_way = {}

    def refused(self) -> None:
        """The brokers do not have the last payload: the next one covers its time too."""
        self._under_way = {}

    def reset(self) -> None:
        """Send totals from the start again: the brokers want differences now, or did."""
        self._told = {}
        self._under_way = {}


def preferred_codec(accepted_compression_types: Iterable[int]) -> int:
    """The first of these codecs that there is here, by Kafka's number; 0: none, or none is preferred."""
    codecs = {codec.id: codec for codec in compression.CODECS}
    for number in accepted_compression_types:
        if number == 0 or (number in codecs and codecs[number].implementation is not None):
            return number
    return 0
