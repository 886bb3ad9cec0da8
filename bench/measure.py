"""One measurement of one Python client, in a process of its own: ``python -m bench.measure``.

Reads a JSON line (client, bootstrap, topic, workload, cpus), prints a JSON line (a :class:`Measurement`).
"""

from __future__ import annotations

import json
import math
import os
import re
import resource
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter, thread_time
from typing import Any

from bench.clients import SPECS, BenchClient, make_client
from bench.workload import Workload

# Of the time from send() to report, for pictures.
QUANTILES = (0.01, 0.05, *(q / 100 for q in range(10, 100, 5)), 0.97, 0.98, 0.99, 0.995, 0.999, 0.9999)
RSS_UNIT = 1 if sys.platform == "darwin" else 1024  # bytes on macOS, KiB elsewhere


@dataclass(frozen=True)
class Measurement:
    """What one client took for the measured records, warm-up left out.

    Attributes:
        records: how many were measured.
        seconds: from the first ``send()`` to the last acknowledgement.
        cpu_seconds: CPU time of the client's process in that time, user and system, all threads.
        system_seconds: the part of it in the kernel; None where the client cannot tell.
        peak_rss: the process's largest resident set so far, in bytes.
        p50_ms: median of the time from ``send()`` to the delivery report; None without reports.
        p99_ms: 99th percentile of the same.
        p999_ms: 99.9th percentile of the same.
        quantiles_ms: the same at each of :data:`QUANTILES`.
        requests: Produce requests, warm-up included; None where the target cannot tell.
        bytes_out: bytes that the client sent, all requests, warm-up included; None likewise.
        all_records: the records that these two belong to.
        rss: the resident set once all is acknowledged, in bytes; None where the client cannot tell.
    """

    records: int
    seconds: float
    cpu_seconds: float
    system_seconds: float | None
    peak_rss: int
    p50_ms: float | None
    p99_ms: float | None
    p999_ms: float | None = None
    quantiles_ms: list[float] | None = None
    requests: int | None = None
    bytes_out: int | None = None
    all_records: int | None = None
    rss: int | None = None

    @property
    def cpu_ns(self) -> float:
        """CPU time per record in ns."""
        return self.cpu_seconds / self.records * 1e9

    @property
    def system_ns(self) -> float | None:
        """The part of :attr:`cpu_ns` in the kernel."""
        return None if self.system_seconds is None else self.system_seconds / self.records * 1e9

    @property
    def user_ns(self) -> float | None:
        """The rest of it."""
        return None if self.system_ns is None else self.cpu_ns - self.system_ns

    @property
    def rate(self) -> float:
        """Records per second."""
        return self.records / self.seconds

    def to_json(self) -> str:
        """All of it, for another process."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Measurement:
        """What :meth:`to_json` gave."""
        return cls(**json.loads(text))


def quantile(ordered: Sequence[float], fraction: float) -> float:
    """The nearest-rank quantile of values in ascending order."""
    return ordered[max(0, math.ceil(len(ordered) * fraction) - 1)]


class Spinner:
    """A thread of Python code that never waits, and what it takes of the process's CPU time."""

    def __init__(self) -> None:
        self.cpu_seconds = 0.0
        self._stopped = False
        self._thread = threading.Thread(target=self._spin, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End it."""
        self._stopped = True
        self._thread.join()

    def _spin(self) -> None:
        while not self._stopped:
            for _ in range(10_000):
                pass
            self.cpu_seconds = thread_time()


def _cpu(spinner: Spinner | None) -> tuple[float, float]:
    """CPU seconds of this process so far without the spinner's, and the part of them in the kernel."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    spun = spinner.cpu_seconds if spinner else 0.0
    return usage.ru_utime + usage.ru_stime - spun, usage.ru_stime


def _send_paced(client: BenchClient, workload: Workload, first: int, count: int) -> None:
    """Send blocks at the workload's rate, in bursts; late ones follow at once."""
    start = perf_counter()
    for sent in range(0, count, workload.burst):
        blocks = min(workload.burst, count - sent)
        client.send(workload.blocks(first + sent, blocks))
        ahead = start + (sent + blocks) * workload.block / workload.rate - perf_counter()
        if ahead > 0:
            client.idle(ahead)


def _send_from_threads(client: BenchClient, workload: Workload, first: int, count: int) -> None:
    """Send ``count`` blocks, from as many threads as the workload has."""
    shares = [count // workload.threads] * workload.threads
    shares[0] += count - sum(shares)
    threads = []
    for share in shares:
        threads.append(threading.Thread(target=client.send, args=(workload.blocks(first, share),)))
        first += share
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def measure(name: str, bootstrap: str, topic: str, workload: Workload) -> Measurement:
    """Send the warm-up and then the measured records with one client.

    Raises:
        RuntimeError: a record failed, or the delivery reports do not add up.
    """
    warmup = workload.whole_blocks(workload.warmup)
    measured = workload.whole_blocks(workload.records)
    next(workload.blocks(0, 1))  # the records are made before the clock starts
    client = make_client(name, bootstrap, topic, workload)
    client.send(workload.blocks(0, warmup))
    client.drain()
    client.latencies.clear()
    spinner = Spinner() if workload.busy else None

    before, start = _cpu(spinner), perf_counter()
    if workload.rate:
        _send_paced(client, workload, warmup, measured)
    elif workload.threads > 1:
        _send_from_threads(client, workload, warmup, measured)
    else:
        client.send(workload.blocks(warmup, measured))
    client.drain()
    end, after = perf_counter(), _cpu(spinner)
    rss = _resident("VmRSS")

    expected = (warmup + measured) * workload.block if SPECS[name].reports else 0
    if client.failed or client.acked != expected:
        raise RuntimeError(
            f"{name}: {client.acked} of {expected} records acknowledged, {len(client.failed)} failed: "
            f"{sorted(set(client.failed))[:3]}"
        )
    client.close()
    return Measurement(
        records=measured * workload.block,
        seconds=end - start,
        cpu_seconds=after[0] - before[0],
        system_seconds=after[1] - before[1],
        # Linux counts what the parent had when it started this process into ru_maxrss, but not into VmHWM.
        peak_rss=_resident("VmHWM") or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * RSS_UNIT,
        rss=rss,
        **latency_figures(sorted(client.latencies)),
    )


def _resident(field: str) -> int | None:
    """Bytes that Linux shows for this process under a name of ``/proc/self/status``."""
    with suppress(OSError):
        found = re.search(rf"^{field}:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
        if found is not None:
            return int(found[1]) * 1024
    return None


def latency_figures(ordered: list[float]) -> dict[str, Any]:
    """What a :class:`Measurement` has of latencies, in seconds in ascending order."""
    if not ordered:
        return {"p50_ms": None, "p99_ms": None}
    return {
        "p50_ms": quantile(ordered, 0.5) * 1e3,
        "p99_ms": quantile(ordered, 0.99) * 1e3,
        "p999_ms": quantile(ordered, 0.999) * 1e3,
        "quantiles_ms": [round(quantile(ordered, q) * 1e3, 4) for q in QUANTILES],
    }


if __name__ == "__main__":
    asked = json.loads(sys.stdin.readline())
    if asked["cpus"]:
        os.sched_setaffinity(0, asked["cpus"])
    found = measure(asked["client"], asked["bootstrap"], asked["topic"], Workload(**asked["workload"]))
    print(found.to_json())
