"""The measurement of ``kprod perf``: as little work per record as Python allows."""

from __future__ import annotations

import re
import threading
import time
from array import array
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import cycle, islice, pairwise
from typing import Any

from kprod.commands.exit_status import CommandError
from kprod.commands.pace import Pace, block_for
from kprod.errors import KafkaError
from kprod.producer import KafkaProducer

PERCENTILES = ("50", "95", "99", "99.9")

# Latencies that are kept, 8 bytes each. Of more records every n-th is timed.
_MOST_TIMED = 2_000_000
# Without callbacks on every record, one in so many has one all the same, to time it.
_TIMED_WITHOUT_CALLBACKS = 1000
# Records between two looks at clock and counters.
_BLOCK = 512
# What is kept for a picture: points this far apart.
_POINT_S = 0.25
# Kinds of errors that are told.
_MOST_ERRORS = 5


@dataclass(frozen=True)
class Window:
    """A part of the time.

    Attributes:
        end_s: its end, in seconds since the measurement began.
        seconds: its length.
        acked: records acknowledged in it.
        bytes: of keys and values in them, on average.
        mean_ms: mean latency of the timed ones; None of none.
        max_ms: the longest.
    """

    end_s: float
    seconds: float
    acked: int
    bytes: float
    mean_ms: float | None
    max_ms: float | None


@dataclass(frozen=True)
class Point:
    """A quarter of a second, for pictures.

    Attributes:
        end_s: its end, in seconds since the measurement began.
        seconds: its length.
        acked: records acknowledged in it.
        latency_ms: percentiles by name, empty without timed records.
        max_ms: the longest latency; None without timed records.
    """

    end_s: float
    seconds: float
    acked: int
    latency_ms: dict[str, float]
    max_ms: float | None


@dataclass(frozen=True)
class Result:
    """What came out.

    Attributes:
        acked: records acknowledged.
        failed: records that failed.
        errors: for each kind of error its first text and how often it came, most frequent first.
        bytes: of keys and values of acknowledged records, on average.
        seconds: from the first send() to the last acknowledgement.
        cpu_seconds: CPU time of this process in that time, all threads, user and system.
        timed: records whose latency was taken.
        mean_ms: their mean latency; None of none.
        max_ms: the longest.
        latency_ms: percentiles by name, empty without timed records.
        warmup_records: records sent before.
        interrupted: Ctrl-C ended it.
        points: it over time.
    """

    acked: int
    failed: int
    errors: list[tuple[str, int]]
    bytes: float
    seconds: float
    cpu_seconds: float
    timed: int
    mean_ms: float | None
    max_ms: float | None
    latency_ms: dict[str, float]
    warmup_records: int
    interrupted: bool
    points: list[Point] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """All of it, for JSON."""
        return {
            "acked": self.acked,
            "failed": self.failed,
            "errors": dict(self.errors),
            "seconds": self.seconds,
            "records_per_second": self.acked / self.seconds,
            "bytes_per_second": self.bytes / self.seconds,
            "cpu_us_per_record": self.cpu_seconds / self.acked * 1e6 if self.acked else None,
            "latency_ms": {"mean": self.mean_ms, **self.latency_ms, "max": self.max_ms},
            "timed_records": self.timed,
            "interrupted": self.interrupted,
            "over_time": [
                {
                    "end_s": point.end_s,
                    "acked": point.acked,
                    "records_per_second": point.acked / point.seconds,
                    "latency_ms": {**point.latency_ms, "max": point.max_ms},
                }
                for point in self.points
            ],
        }


def percentiles(values: list[float]) -> dict[str, float]:
    """Nearest-rank percentiles by name; empty of nothing.

    Args:
        values: in ascending order.
    """
    if not values:
        return {}
    last = len(values)
    return {name: values[max(0, -int(-last * float(name) // 100) - 1)] for name in PERCENTILES}


class Measurement:
    """Sends records with a producer and takes its times.

    The counts are the producer's own; a callback is on every record only because applications have one.
    Latency is ``RecordMetadata.latency_ms``, which the producer knows anyway.

    Args:
        producer: what is measured.
        topic: where to.
        pool: values with their keys, sent in turn.
        rate: records per second; None: as many as possible.
        every_record: whether every record has a callback.
        report_interval_s: how often ``on_window`` is called.
        on_window: called with each part of the time, on a thread of its own.

    Raises:
        CommandError: the producer keeps no metrics.
    """

    def __init__(
        self,
        producer: KafkaProducer,
        topic: str,
        pool: Sequence[tuple[bytes, bytes | None]],
        *,
        rate: float | None,
        every_record: bool,
        report_interval_s: float,
        on_window: Callable[[Window], object],
    ) -> None:
        self._producer = producer
        self._topic = topic
        self._records = cycle(pool)
        self._mean_bytes = sum(len(value) + len(key or b"") for value, key in pool) / len(pool)
        self._rate = rate
        self._every_record = every_record
        self._report_interval_s = report_interval_s
        self._on_window = on_window
        self._warmed_up = 0
        self._refused = 0
        # Errors of a kind, with the text of the first one.
        self._errors: Counter[str] = Counter()
        self._error_texts: dict[str, str] = {}
        self._latencies = array("d")
        # Elapsed seconds, acknowledged records and timed records at the end of each point.
        self._marks: list[tuple[float, int, int]] = [(0.0, 0, 0)]

    def warm_up(self, count: int) -> None:
        """Send so many records and wait for them; they are in no figure."""
        self._send(count, 1, _ignore)
        self._producer.flush()
        self._warmed_up = count
        self._refused = 0
        self._errors.clear()

    def run(self, count: int) -> Result:
        """Send so many records, wait until they are decided, and give the figures.

        Ctrl-C ends it early; what was sent until then is still waited for, unless there is a second one.
        """
        timed_every = -(-count // _MOST_TIMED)
        if not self._every_record:
            timed_every = max(timed_every, min(_TIMED_WITHOUT_CALLBACKS, -(-count // 100)))
        acked_before, failed_before = self._counts()
        interrupted = False
        ended = threading.Event()
        cpu, start = time.process_time(), time.perf_counter()
        watcher = threading.Thread(target=self._watch, args=(start, acked_before, ended), daemon=True)
        watcher.start()
        try:
            try:
                self._send(count, timed_every, self._timed)
                self._producer.flush()
            except KeyboardInterrupt:
                interrupted = True
                self._producer.flush()
        except KeyboardInterrupt:
            self._producer.purge()
            self._producer.flush()
        seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
        ended.set()
        watcher.join()
        acked, failed = self._counts()
        acked -= acked_before
        self._marks.append((seconds, acked, len(self._latencies)))
        latencies = sorted(self._latencies)
        return Result(
            acked=acked,
            failed=failed - failed_before + self._refused,
            errors=[
                (self._error_texts[kind], count) for kind, count in self._errors.most_common(_MOST_ERRORS)
            ],
            bytes=acked * self._mean_bytes,
            seconds=seconds,
            cpu_seconds=cpu,
            timed=len(latencies),
            mean_ms=sum(latencies) / len(latencies) if latencies else None,
            max_ms=latencies[-1] if latencies else None,
            latency_ms=percentiles(latencies),
            warmup_records=self._warmed_up,
            interrupted=interrupted,
            points=[self._point(*pair) for pair in pairwise(self._marks)],
        )

    def _send(self, count: int, timed_every: int, timed: Callable[[Any, Any], None]) -> None:
        """Send so many records, every n-th with the callback that takes its time."""
        rest = self._untimed if self._every_record else None
        block = _BLOCK if self._rate is None else block_for(self._rate, _BLOCK)
        pace = None if self._rate is None else Pace(self._rate)
        at = 0
        while at < count:
            end = min(at + block, count)
            if pace is not None:
                pace.wait(end - at)
            while at < end:
                if timed_every == 1:
                    self._send_block(end - at, timed)
                    at = end
                else:
                    until_timed = -at % timed_every
                    if until_timed == 0:
                        self._send_block(1, timed)
                        at += 1
                    else:
                        plain = min(until_timed, end - at)
                        self._send_block(plain, rest)
                        at += plain

    def _send_block(self, count: int, on_delivery: Callable[[Any, Any], None] | None) -> None:
        send, topic = self._producer.send, self._topic
        for value, key in islice(self._records, count):
            try:
                send(topic, value, key, None, None, None, on_delivery)
            except KafkaError as error:
                self._refused += 1
                self._count_error(error)

    def _timed(self, error: Exception | None, metadata: Any) -> None:
        if error is None:
            self._latencies.append(metadata.latency_ms)
        else:
            self._count_error(error)

    def _untimed(self, error: Exception | None, metadata: Any) -> None:
        if error is not None:
            self._count_error(error)

    def _count_error(self, error: Exception) -> None:
        # By the message without its numbers, which differ each time.
        kind = re.sub(r"\d+", "N", str(error))
        self._errors[kind] += 1
        self._error_texts.setdefault(kind, str(error))

    def _counts(self) -> tuple[int, int]:
        """Records acknowledged and failed so far."""
        counters = self._producer.metrics(raw=True)
        if counters is None:
            raise CommandError("records are counted by the producer's metrics: leave metrics_enabled on")
        return counters["loop"]["records_acked"], counters["loop"]["records_failed"]

    def _watch(self, start: float, acked_before: int, ended: threading.Event) -> None:
        window_start = self._marks[0]
        due = self._report_interval_s
        step = min(_POINT_S, self._report_interval_s)
        next_at = step
        while not ended.wait(max(0.0, start + next_at - time.perf_counter())):
            elapsed = time.perf_counter() - start
            next_at = (elapsed // step + 1) * step
            mark = (elapsed, self._counts()[0] - acked_before, len(self._latencies))
            self._marks.append(mark)
            if elapsed >= due:
                self._on_window(self._window(window_start, mark))
                window_start = mark
                due += self._report_interval_s

    def _window(self, begin: tuple[float, int, int], end: tuple[float, int, int]) -> Window:
        latencies = self._latencies[begin[2] : end[2]]
        acked = end[1] - begin[1]
        return Window(
            end_s=end[0],
            seconds=end[0] - begin[0],
            acked=acked,
            bytes=acked * self._mean_bytes,
            mean_ms=sum(latencies) / len(latencies) if latencies else None,
            max_ms=max(latencies, default=None),
        )

    def _point(self, begin: tuple[float, int, int], end: tuple[float, int, int]) -> Point:
        latencies = sorted(self._latencies[begin[2] : end[2]])
        return Point(
            end_s=end[0],
            seconds=max(end[0] - begin[0], 1e-9),
            acked=end[1] - begin[1],
            latency_ms=percentiles(latencies),
            max_ms=latencies[-1] if latencies else None,
        )


def _ignore(error: Exception | None, metadata: Any) -> None:
    pass
