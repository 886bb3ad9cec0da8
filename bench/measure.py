"""One measurement of one Python client, in a process of its own: ``python -m bench.measure``.

Reads a JSON line (client, bootstrap, topic, workload), prints a JSON line (a :class:`Measurement`).
"""

from __future__ import annotations

import json
import resource
import sys
import threading
from dataclasses import asdict, dataclass
from time import perf_counter, thread_time

from bench.clients import BenchClient, counts_reports, make_client
from bench.workload import Workload

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
    """

    records: int
    seconds: float
    cpu_seconds: float
    system_seconds: float | None
    peak_rss: int
    p50_ms: float | None
    p99_ms: float | None

    def to_json(self) -> str:
        """All of it, for another process."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Measurement:
        """What :meth:`to_json` gave."""
        return cls(**json.loads(text))


def percentile_ms(seconds: list[float], percent: int) -> float | None:
    """The nearest-rank percentile in ms, None of nothing."""
    if not seconds:
        return None
    return sorted(seconds)[max(0, -(-len(seconds) * percent // 100) - 1)] * 1e3


class _Spinner:
    """A thread of Python code that never waits, and what it takes of the process's CPU time."""

    def __init__(self) -> None:
        self.cpu_seconds = 0.0
        threading.Thread(target=self._spin, daemon=True).start()

    def _spin(self) -> None:
        while True:
            for _ in range(10_000):
                pass
            self.cpu_seconds = thread_time()


def _cpu(spinner: _Spinner | None) -> tuple[float, float]:
    """CPU seconds of this process so far without the spinner's, and the part of them in the kernel."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    spun = spinner.cpu_seconds if spinner else 0.0
    return usage.ru_utime + usage.ru_stime - spun, usage.ru_stime


def _send_paced(client: BenchClient, workload: Workload, first: int, count: int) -> None:
    """Send blocks at the workload's rate; late ones follow at once."""
    start = perf_counter()
    for i in range(count):
        client.send(workload.blocks(first + i, 1))
        ahead = start + (i + 1) * workload.block / workload.rate - perf_counter()
        if ahead > 0:
            client.idle(ahead)


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
    spinner = _Spinner() if workload.busy else None

    before, start = _cpu(spinner), perf_counter()
    if workload.rate:
        _send_paced(client, workload, warmup, measured)
    else:
        client.send(workload.blocks(warmup, measured))
    client.drain()
    end, after = perf_counter(), _cpu(spinner)

    expected = (warmup + measured) * workload.block if counts_reports(name) else 0
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
        peak_rss=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * RSS_UNIT,
        p50_ms=percentile_ms(client.latencies, 50),
        p99_ms=percentile_ms(client.latencies, 99),
    )


if __name__ == "__main__":
    asked = json.loads(sys.stdin.readline())
    found = measure(asked["client"], asked["bootstrap"], asked["topic"], Workload(**asked["workload"]))
    print(found.to_json())
