"""What grows, and what stays as it is: ``python -m bench.scale``.

CPU time per record against the sink over the number of partitions (random keys), brokers, threads and bytes
of a record; memory after ten times as many records; an idle producer; the import. Fresh processes,
interleaved, several rounds.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import Any

from bench.clients import missing
from bench.measure import Measurement
from bench.native import BUILD
from bench.runs import Bench, environment, run_worker, say
from bench.suite import RESULTS
from bench.tables import spread, table
from bench.targets import SinkTarget
from bench.workload import Workload

_KEYS = 100_000
_LITTLE_MEMORY = 4 << 20
_MANY = 1000  # partitions from which on other clients get a tenth of the records
_IDLE_CLIENTS = ("kprod", "confluent", "kafka-python", "aiokafka")
# What starts a program, by client; for two of them also with what comes with the first producer.
_STARTS = {
    "kprod": ("import kprod", "kprod.KafkaProducer(bootstrap_timeout_ms=0).close(0)"),
    "confluent": (
        "import confluent_kafka",
        "confluent_kafka.Producer({'bootstrap.servers': 'localhost:9092'})",
    ),
    "kafka-python": ("import kafka", None),
    "aiokafka": ("import aiokafka", None),
}


@dataclass(frozen=True)
class Point:
    """One setting of one axis.

    Attributes:
        axis: what is varied.
        value: its value here.
        workload: what is sent.
        clients: who sends it.
        partitions: of the topic.
        brokers: of the sink.
    """

    axis: str
    value: int
    workload: Workload
    clients: tuple[str, ...] = ("kprod",)
    partitions: int = 6
    brokers: int = 1


def points(records: int) -> list[Point]:
    """All settings; ``records`` is how many records of 100 B a measurement has."""
    both = ("kprod", "confluent")
    keyed = Workload(records, records // 5, keys=_KEYS)
    found = [
        Point("partitions", n, keyed, both if n in (1, 1000, 10_000) else ("kprod",), partitions=n)
        for n in (1, 10, 100, 1000, 10_000)
    ]
    # With a linger time the records of a batch become fewer the more partitions there are. Here batches leave
    # only when they are full, so that all have as many: what remains is what partitions themselves cost.
    full = Workload(records, records // 5, keys=_KEYS, linger_ms=60_000, batch_size=2048)
    found += [Point("full-batches", n, full, partitions=n) for n in (1, 10, 100, 1000, 10_000)]
    found += [Point("brokers", n, keyed, partitions=100, brokers=n) for n in (1, 3, 10, 30, 100)]
    found += [
        Point("threads", n, Workload(records, records // 5, threads=n), partitions=6)
        for n in (1, 2, 4, 8, 16)
    ]
    for size in (10, 100, 1000, 10_000, 100_000, 1_000_000):
        # As many bytes as the others send, but neither too few records to count nor too many to wait for.
        count = max(400, min(records, records * 300 // size))
        found.append(Point("bytes", size, Workload(count, max(1, count // 5), size=size), both))
    # With little buffer memory the queue has been as deep as it can be in all of them: more would be leaks.
    found += [
        Point(
            "records",
            n,
            Workload(n, records // 5, buffer_memory=_LITTLE_MEMORY),
            ("kprod", "kprod-dropped", "confluent"),
        )
        for n in (records, records * 10)
    ]
    return found


def measure_points(
    chosen: Sequence[Point], rounds: int
) -> dict[str, dict[int, dict[str, list[Measurement]]]]:
    """Axis, value, client: the measurements, one of each round."""
    found: dict[str, dict[int, dict[str, list[Measurement]]]] = {}
    for round_number in range(rounds):
        for point in chosen:
            with SinkTarget(point.partitions, point.brokers) as target:
                bench = Bench(target)
                for client in point.clients:
                    workload = point.workload
                    if client != "kprod" and point.partitions >= _MANY:
                        # It would take minutes; figures are per record.
                        workload = replace(
                            workload, records=workload.records // 10, warmup=workload.warmup // 10
                        )
                    m = bench.run(client, workload, exact=True)
                    at = found.setdefault(point.axis, {}).setdefault(point.value, {})
                    at.setdefault(client, []).append(m)
                    say(
                        f"round {round_number + 1}: {point.axis:10} {point.value:9,} {client:10} "
                        f"{m.cpu_ns:11,.0f} ns/record {m.rate / 1e3:8,.1f} krec/s  "
                        f"{(m.all_records or 0) / (m.requests or 1):8,.1f} records/request"
                    )
    return found


def measure_idle(rounds: int, seconds: float) -> dict[str, list[dict[str, float]]]:
    """CPU time and wake-ups per second of each client with nothing to do."""
    found: dict[str, list[dict[str, float]]] = {}
    with SinkTarget(6) as target:
        for _ in range(rounds):
            for client in (c for c in _IDLE_CLIENTS if missing(c) is None):
                line = run_worker(
                    "bench.idle", client, bootstrap=target.bootstrap, topic="idle", seconds=seconds
                )
                found.setdefault(client, []).append(json.loads(line))
                say(f"idle: {client:13} {line}")
    return found


def measure_imports(rounds: int) -> dict[str, list[float]]:
    """Milliseconds that each import, and making a producer, take beyond the interpreter's start.

    All of them from bytecode that is there already, as it is once a package is installed or was imported.
    """
    programs: dict[str, str] = {}
    for client, (brings, makes) in _STARTS.items():
        if missing(client) is None:
            programs[client] = brings
            if makes is not None:
                programs[f"{client}, and a producer"] = f"{brings}; {makes}"
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    environ["PYTHONPYCACHEPREFIX"] = str(BUILD / "pycache")

    def started(program: str) -> float:
        start = perf_counter()
        # confluent-kafka's producer says at once that it finds no broker.
        subprocess.run([sys.executable, "-c", program], check=True, env=environ, stderr=subprocess.DEVNULL)
        return (perf_counter() - start) * 1e3

    found: dict[str, list[float]] = {name: [] for name in programs}
    for program in programs.values():
        started(program)
    for _ in range(rounds):
        bare = started("pass")
        for name, program in programs.items():
            found[name].append(started(program) - bare)
    return found


def report(told: dict[str, Any]) -> str:
    """Tables of everything."""
    texts = []
    figures: tuple[tuple[str, Callable[[Measurement], float], int], ...] = (
        ("CPU ns/record", lambda m: m.cpu_ns, 0),
        ("krec/s", lambda m: m.rate / 1e3, 0),
        ("MB/s", lambda m: m.rate * 1e-6, 1),
        ("records/request", lambda m: (m.all_records or 0) / (m.requests or 1), 0),
        ("peak MB", lambda m: m.peak_rss / 1e6, 0),
    )
    for axis, values in told["points"].items():
        rows = []
        for value, clients in values.items():
            for client, runs in clients.items():
                measured = [Measurement(**run) for run in runs]
                kept = [m.rss / 1e6 for m in measured if m.rss is not None]
                cells = [f"{int(value):,}", client]
                for name, figure, digits in figures:
                    size = int(value) if axis == "bytes" else 100
                    factor = size if name == "MB/s" else 1
                    cells.append(spread([figure(m) * factor for m in measured], digits))
                cells.append(spread(kept, 1) if kept else "")
                rows.append(cells)
        texts.append(table([axis, "client", *(name for name, _, _ in figures), "MB at the end"], rows))
    rows = [
        [client, spread([run["cpu_us"] for run in runs]), spread([run["wakeups"] for run in runs], 1)]
        for client, runs in told.get("idle", {}).items()
    ]
    if rows:
        texts.append(table(["idle", "CPU us/s", "wake-ups/s"], rows))
    rows = [[client, spread(times, 0)] for client, times in told.get("imports", {}).items()]
    if rows:
        texts.append(table(["import", "ms beyond the interpreter"], rows))
    return "\n\n".join(texts)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print what the command line asks for."""
    parser = argparse.ArgumentParser(prog="python -m bench.scale", description=__doc__.split("\n\n")[0])
    axes = ("partitions", "full-batches", "brokers", "threads", "bytes", "records", "idle", "imports")
    parser.add_argument("--only", nargs="+", choices=axes, default=axes, metavar="AXIS",
                        help=f"of: {', '.join(axes)} (default: all)")  # fmt: skip
    parser.add_argument("--rounds", type=int, default=3, help="(default 3)")
    parser.add_argument("--records", type=int, default=1_000_000, help="of 100 B (default 1000000)")
    parser.add_argument("--quick", action="store_true", help="one round, fewer records: under 2 minutes")
    parser.add_argument("--json", type=Path, default=RESULTS / "scale.json", help="(default %(default)s)")
    options = parser.parse_args(argv)
    if options.quick:
        options.rounds, options.records = 1, 300_000
    told: dict[str, Any] = {
        "environment": environment(["python", "-m", "bench.scale", *(sys.argv[1:] if argv is None else argv)])
    }
    chosen = [point for point in points(options.records) if point.axis in options.only]
    found = measure_points(chosen, options.rounds)
    told["points"] = {
        axis: {
            str(value): {client: [vars(m) for m in runs] for client, runs in clients.items()}
            for value, clients in values.items()
        }
        for axis, values in found.items()
    }
    if "idle" in options.only:
        told["idle"] = measure_idle(1, 10.0)
    if "imports" in options.only:
        told["imports"] = measure_imports(10)
        times = ", ".join(f"{c} {statistics.median(t):.0f} ms" for c, t in told["imports"].items())
        say(f"imports: {times}")
    print(report(told))
    options.json.write_text(json.dumps(told, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
