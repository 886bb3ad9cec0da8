"""What ``kprod produce --dry-run`` shows."""

from __future__ import annotations

import sys
from datetime import datetime, timedelta, timezone

from kprod.commands import figures
from kprod.commands.produce_mapping import Mapped
from kprod.config import ProducerConfig

# The most that is shown of a key, value or header.
_SHOWN_CHARACTERS = 200
# Bytes besides key, value and headers: the batch's header; lengths, timestamp and offset as varints.
_RECORD_OVERHEAD = 61 + 21
_HEADER_OVERHEAD = 10


class DryRun:
    """Prints the first records to stdout and counts all of them.

    Args:
        topic: where they would go.
        show: how many to print.
        config: the producer's options.
    """

    def __init__(self, topic: str, show: int, config: ProducerConfig) -> None:
        self._topic = topic
        self._show = show
        self._max_size = config.max_request_size
        self._servers = ",".join(f"{host}:{port}" for host, port in config.bootstrap_servers)
        self._codec = config.compression_type
        self._records = self._without_key = self._tombstones = self._bytes = 0
        self._first: int | None = None
        self._last: int | None = None

    def add(self, source: str, line: int, record: Mapped) -> str | None:
        """Take one record; returns what is wrong with it."""
        value, key, headers, timestamp_ms = record
        size = (len(value) if value else 0) + (len(key) if key else 0)
        headers_size = sum(
            len(name.encode()) + (len(data) if data else 0) + _HEADER_OVERHEAD for name, data in headers or ()
        )
        if size + headers_size + _RECORD_OVERHEAD > self._max_size:
            return f"the record has {size + headers_size:,} bytes, max.request.size is {self._max_size:,}"
        self._records += 1
        self._without_key += key is None
        self._tombstones += value is None
        self._bytes += size
        if timestamp_ms is not None:
            self._first = timestamp_ms if self._first is None else min(self._first, timestamp_ms)
            self._last = timestamp_ms if self._last is None else max(self._last, timestamp_ms)
        if self._records <= self._show:
            self._print(f"{source}:{line}" if line else source, record)
        return None

    def finish(self, failed: int) -> None:
        """Print the counts.

        Args:
            failed: how many records were wrong.
        """
        lines = [
            f"{figures.count(self._records, 'record')} ({figures.size(self._bytes)}) would be sent to topic "
            f"{self._topic} by way of {self._servers}, compression {self._codec}",
            f"{figures.count(self._records - self._without_key)} with a key, "
            f"{figures.count(self._without_key)} without, "
            f"{figures.count(self._tombstones)} with a null value, {figures.count(failed)} wrong",
        ]
        if self._first is not None and self._last is not None:
            lines.append(f"timestamps {_moment(self._first)} to {_moment(self._last)}")
        sys.stdout.write("\n".join(lines) + "\n")

    def _print(self, place: str, record: Mapped) -> None:
        value, key, headers, timestamp_ms = record
        lines = [f"record {self._records}, {place}", f"  key        {_shown(key)}"]
        lines += [f"  header     {name} = {_shown(data)}" for name, data in headers or ()]
        if timestamp_ms is not None:
            lines.append(f"  timestamp  {_moment(timestamp_ms)} ({timestamp_ms})")
        lines.append(f"  value      {_shown(value)}")
        sys.stdout.write("\n".join(lines) + "\n\n")


def _shown(data: bytes | None) -> str:
    if data is None:
        return "null"
    try:
        text = data.decode()
    except UnicodeDecodeError:
        text = repr(data)
    if not text.isprintable():
        text = repr(text)
    cut = text if len(text) <= _SHOWN_CHARACTERS else text[: _SHOWN_CHARACTERS - 3] + "..."
    return f"{cut} ({figures.count(len(data), 'byte')})"


def _moment(timestamp_ms: int) -> str:
    try:
        moment = datetime(1970, 1, 1, tzinfo=timezone.utc) + timedelta(milliseconds=timestamp_ms)
    except OverflowError:
        return "after the year 9999"
    return moment.isoformat(sep=" ", timespec="milliseconds").replace("+00:00", " UTC")
