"""kprod and its peers on the same broker, side by side: ``python -m bench.compare``.

Every client gets the same records with the same settings (acks=all, idempotence, linger, batch size), a fresh
process and a fresh topic in every round; the clients take turns, in another order each round. A measurement
counts only if every record was reported delivered and the topic ends at exactly as many records. The figures
are medians over the rounds with the lowest and highest beside them; per record means per acknowledged record.

The broker runs on the same machine: rates are those of the pair, CPU times are the client's alone.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import json
import os
import platform
import secrets
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from bench.clients import BASELINE, CLIENTS, DESCRIPTION, JAVA_CLIENTS, SLOW
from bench.clients.java_client import measure_loop, measure_perf_tool
from bench.measure import Measurement
from bench.workload import CODECS, Workload
from tests.kafka.cluster import KafkaCluster
from tests.kafka.distribution import KafkaDistribution, ensure_distribution

_PROJECT = Path(__file__).resolve().parents[1]
_PROCESS_TIMEOUT_S = 600
_QUIET_LOAD = 0.5
_PACKAGES = ("confluent-kafka", "kafka-python", "aiokafka", "lz4", "zstandard", "cramjam")
_BROKER_WARMUP = Workload(records=200_000, warmup=1)
_PACED_SECONDS = 10


class Bench:
    """One broker and the workload of this comparison."""

    def __init__(self, bootstrap: str, workload: Workload, partitions: int, keep_topics: bool) -> None:
        self.bootstrap = bootstrap
        self.workload = workload
        self.partitions = partitions
        self._keep_topics = keep_topics
        self._admin = AdminClient({"bootstrap.servers": bootstrap, "log_level": 2})
        self._distribution: KafkaDistribution | None = None

    def run(self, name: str, workload: Workload) -> Measurement:
        """One measurement of one client.

        Raises:
            RuntimeError: the client failed, or the topic does not hold what was sent.
        """
        with self._topic(name) as topic:
            if name in JAVA_CLIENTS:
                self._distribution = self._distribution or ensure_distribution()
                measure = measure_loop if name == "java" else measure_perf_tool
                found = measure(self._distribution, self.bootstrap, topic, workload)
                runs = 1 if name == "java" else 2
            else:
                found, runs = self._run_python(name, topic, workload), 1
            warmup = workload.whole_blocks(workload.warmup) * workload.block
            expected = found.records + runs * warmup
            held = self._records_in(topic)
            if held != expected:
                raise RuntimeError(f"{name}: sent {expected} records, the topic holds {held}")
        return found

    def _run_python(self, name: str, topic: str, workload: Workload) -> Measurement:
        request = {
            "client": name,
            "bootstrap": self.bootstrap,
            "topic": topic,
            "workload": asdict(workload),
        }
        said = subprocess.run(
            [sys.executable, "-m", "bench.measure"],
            input=json.dumps(request),
            capture_output=True,
            text=True,
            check=False,
            timeout=_PROCESS_TIMEOUT_S,
            cwd=_PROJECT,
        )
        if said.returncode:
            raise RuntimeError(f"{name}: {said.stderr.strip()[-2000:]}")
        return Measurement.from_json(said.stdout.splitlines()[-1])

    @contextlib.contextmanager
    def _topic(self, name: str) -> Iterator[str]:
        topic = f"bench-{name}-{secrets.token_hex(4)}"
        self._admin.create_topics([NewTopic(topic, self.partitions, 1)])[topic].result(30)
        try:
            yield topic
        finally:
            if not self._keep_topics:
                self._admin.delete_topics([topic])[topic].result(30)

    def _records_in(self, topic: str) -> int:
        """Sum of end offsets minus start offsets, asked of the broker."""
        consumer = Consumer({"bootstrap.servers": self.bootstrap, "group.id": "bench"})
        try:
            marks = [
                consumer.get_watermark_offsets(TopicPartition(topic, p), timeout=30, cached=False)
                for p in range(self.partitions)
            ]
        finally:
            consumer.close()
        return sum(high - low for low, high in marks)


@dataclass
class Series:
    """The measurements of one client."""

    name: str
    measured: list[Measurement] = field(default_factory=list)

    def values(self, of: Callable[[Measurement], float | None]) -> list[float]:
        """One figure of every measurement that has it."""
        return [value for value in map(of, self.measured) if value is not None]


def cpu_ns(m: Measurement) -> float:
    """CPU time per record in ns."""
    return m.cpu_seconds / m.records * 1e9


def _rate(m: Measurement) -> float:
    return m.records / m.seconds / 1e3


def _spread(values: Sequence[float], digits: int = 0) -> str:
    """``median (lowest-highest)``."""
    if not values:
        return ""
    low, high = min(values), max(values)
    middle = f"{statistics.median(values):,.{digits}f}"
    return middle if len(values) == 1 else f"{middle} ({low:,.{digits}f}-{high:,.{digits}f})"


def _median(values: Sequence[float], digits: int) -> str:
    return f"{statistics.median(values):,.{digits}f}" if values else ""


def markdown(series: Sequence[Series], size: int) -> str:
    """The table of a comparison; ratios are to the baseline, of medians."""
    baseline = next((s for s in series if s.name == BASELINE and s.measured), None)
    base_cpu = statistics.median(baseline.values(cpu_ns)) if baseline else None
    base_rate = statistics.median(baseline.values(_rate)) if baseline else None
    columns = ["client", "CPU ns/record", "system", "vs. baseline", "krec/s", "vs. baseline", "MB/s"]
    columns += ["p50 ms", "p99 ms", "peak MB"]
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    for s in series:
        if not s.measured:
            continue
        cpu, rate = s.values(cpu_ns), s.values(_rate)
        system = s.values(lambda m: m.system_seconds and m.system_seconds / m.records * 1e9)
        lines.append(
            "| "
            + " | ".join(
                [
                    DESCRIPTION[s.name],
                    _spread(cpu),
                    _median(system, 0),
                    f"{statistics.median(cpu) / base_cpu:.2f}" if base_cpu else "",
                    _spread(rate),
                    f"{statistics.median(rate) / base_rate:.2f}" if base_rate else "",
                    _median([r * size / 1e3 for r in rate], 1),
                    _median(s.values(lambda m: m.p50_ms), 1),
                    _median(s.values(lambda m: m.p99_ms), 1),
                    _median([m.peak_rss / 1e6 for m in s.measured], 0),
                ]
            )
            + " |"
        )
    return "\n".join(lines)


def environment(command: Sequence[str]) -> dict[str, Any]:
    """What the figures depend on, to be published with them."""
    return {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "command": " ".join(command),
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "cpu": _cpu_model(),
        "cpus": os.cpu_count(),
        "load_before": round(os.getloadavg()[0], 2),
        "packages": {name: _version(name) for name in ("kprod", *_PACKAGES)},
    }


def _cpu_model() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.compare", description=__doc__.split("\n\n")[0])
    parser.add_argument("--clients", nargs="+", choices=CLIENTS, default=list(CLIENTS), metavar="NAME",
                        help=f"of: {', '.join(CLIENTS)} (default: all)")  # fmt: skip
    parser.add_argument("--rounds", type=int, default=3, help="measurements of each client (default 3)")
    parser.add_argument("--records", type=int, help="measured records (default 1000000; 10 s with --rate)")
    parser.add_argument("--warmup", type=int, default=200_000, help="records before those (default 200000)")
    parser.add_argument("--size", type=int, default=100, help="bytes of a value (default 100)")
    parser.add_argument("--keys", type=int, default=0, help="distinct keys (default 0: no keys)")
    parser.add_argument("--codec", choices=CODECS, default="none", help="compression type (default none)")
    parser.add_argument("--partitions", type=int, default=6, help="of the topic (default 6)")
    parser.add_argument("--linger-ms", type=int, default=5, help="(default 5)")
    parser.add_argument("--batch-size", type=int, default=65536, help="bytes (default 65536)")
    parser.add_argument("--rate", type=int, default=0, help="records per second (default 0: no limit)")
    parser.add_argument("--busy", action="store_true", help="another Python thread of the client spins")
    parser.add_argument("--full", action="store_true", help="all records for the slow clients too")
    parser.add_argument("--bootstrap", help="a running cluster (default: start one broker of Apache Kafka)")
    parser.add_argument("--json", type=Path, help="write every measurement to this file")
    parser.add_argument("--keep-topics", action="store_true", help="leave the records in the cluster")
    return parser.parse_args(argv)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def compare(bench: Bench, names: Sequence[str], rounds: int, full: bool) -> list[Series]:
    """All measurements, round by round; a client that fails is out, and says why."""
    series = {name: Series(name) for name in names}
    failed: set[str] = set()
    for round_number in range(rounds):
        turn = round_number % len(names)
        for name in (*names[turn:], *names[:turn]):
            if name in failed:
                continue
            workload = bench.workload
            if name in SLOW and not full and not workload.rate:
                workload = workload.scaled_down(SLOW[name])
            try:
                found = bench.run(name, workload)
            except Exception as error:
                failed.add(name)
                _say(f"round {round_number + 1}: {name} FAILED: {error}")
                continue
            series[name].measured.append(found)
            figures = f"{cpu_ns(found):9,.0f} ns/record {_rate(found):7,.0f} krec/s"
            _say(f"round {round_number + 1}: {name:20} {figures}")
    return list(series.values())


def main(argv: Sequence[str] | None = None) -> int:
    """Run the comparison that the command line asks for; 1 if a client failed."""
    options = _arguments(argv)
    workload = Workload(
        records=options.records or (options.rate * _PACED_SECONDS if options.rate else 1_000_000),
        warmup=options.warmup,
        size=options.size,
        keys=options.keys,
        codec=options.codec,
        linger_ms=options.linger_ms,
        batch_size=options.batch_size,
        rate=options.rate,
        busy=options.busy,
    )
    names = list(dict.fromkeys(options.clients))
    for name in set(names) & ({"java-perf"} if workload.keys and not workload.busy else set()):
        names.remove(name)
        _say(f"{name} is left out: kafka-producer-perf-test has no keys")
    for name in set(names) & (set(JAVA_CLIENTS) if workload.busy else set()):
        names.remove(name)
        _say(f"{name} is left out: it has no Python thread that could spin")
    about = environment(["python", "-m", "bench.compare", *(sys.argv[1:] if argv is None else argv)])
    if about["load_before"] > _QUIET_LOAD:
        _say(f"warning: load average is {about['load_before']}: other work on this machine blurs the figures")
    with contextlib.ExitStack() as stack:
        if options.bootstrap is None:
            cluster = stack.enter_context(KafkaCluster(1, heap_mb=768))
            bootstrap, kafka = (
                cluster.bootstrap_servers,
                f"Apache Kafka {cluster.distribution.version}, one node",
            )
        else:
            bootstrap, kafka = options.bootstrap, f"the cluster at {options.bootstrap}"
        bench = Bench(bootstrap, workload, options.partitions, options.keep_topics)
        bench.run(BASELINE, _BROKER_WARMUP)
        series = compare(bench, names, options.rounds, options.full)

    about["kafka"] = kafka
    key_text = f"{workload.keys:,} keys" if workload.keys else "no key"
    pace = f"{workload.rate:,} records/s" if workload.rate else "as fast as the client takes them"
    if workload.busy:
        pace += ", another Python thread spins"
    print(
        f"{workload.records:,} records of {workload.size} B, {key_text}, codec {workload.codec}, {pace}, "
        f"{options.partitions} partitions, acks=all, idempotent, linger {workload.linger_ms} ms, "
        f"batch {workload.batch_size} B; {options.rounds} rounds, median (lowest-highest); "
        f"baseline: {DESCRIPTION[BASELINE]}; {kafka} on the same machine "
        f"({about['cpus']} CPUs, {about['cpu']}); Python {about['python']}\n"
    )
    print(markdown(series, workload.size))
    if options.json:
        report = {
            "environment": about,
            "partitions": options.partitions,
            "workload": asdict(workload),
            "measurements": {s.name: [asdict(m) for m in s.measured] for s in series},
        }
        options.json.write_text(json.dumps(report, indent=2) + "\n")
    return 0 if all(len(s.measured) == options.rounds for s in series) else 1


if __name__ == "__main__":
    sys.exit(main())
