"""One measurement of one Python client, in a process of its own: ``python -m bench.measure``.

Reads a JSON line (client, bootstrap, topic, workload), prints a JSON line (a :class:`Measurement`).
"""

from __future__ import annotations

import json
import resource
import sys
from dataclasses import asdict, dataclass
from time import perf_counter

from bench.clients import counts_reports, make_client
from bench.workload import BLOCK, Workload

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


def measure(name: str, bootstrap: str, topic: str, workload: Workload) -> Measurement:
    """Send the warm-up and then the measured records with one client.

    Raises:
        RuntimeError: a record failed, or the delivery reports do not add up.
    """
    _ = workload.pairs if workload.keys else workload.values  # made before the clock starts
    client = make_client(name, bootstrap, topic, workload)
    client.send(workload.warmup // BLOCK)
    client.drain()
    client.latencies.clear()

    before, start = resource.getrusage(resource.RUSAGE_SELF), perf_counter()
    client.send(workload.records // BLOCK)
    client.drain()
    end, after = perf_counter(), resource.getrusage(resource.RUSAGE_SELF)

    expected = workload.warmup + workload.records if counts_reports(name) else 0
    if client.failed or client.acked != expected:
        raise RuntimeError(
            f"{name}: {client.acked} of {expected} records acknowledged, {len(client.failed)} failed: "
            f"{sorted(set(client.failed))[:3]}"
        )
    client.close()
    return Measurement(
        records=workload.records,
        seconds=end - start,
        cpu_seconds=after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime,
        system_seconds=after.ru_stime - before.ru_stime,
        peak_rss=after.ru_maxrss * RSS_UNIT,
        p50_ms=percentile_ms(client.latencies, 50),
        p99_ms=percentile_ms(client.latencies, 99),
    )


if __name__ == "__main__":
    asked = json.loads(sys.stdin.readline())
    found = measure(asked["client"], asked["bootstrap"], asked["topic"], Workload(**asked["workload"]))
    print(found.to_json())
