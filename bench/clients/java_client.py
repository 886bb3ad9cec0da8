"""The Java client: our own loop in it, and Kafka's producer performance tool."""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from pathlib import Path
from time import perf_counter

from bench.clients.programs import kept_on, lines_file, loop_counts, payload_file
from bench.measure import RSS_UNIT, Measurement
from bench.workload import Workload
from tests.kafka.distribution import KafkaDistribution

_LOOP = Path(__file__).parents[1] / "java" / "ProduceLoop.java"
_PERF_TOOL = "org.apache.kafka.tools.ProducerPerformance"
# kafka-run-class.sh's default heap for the tools.
_HEAP_MB = 512
_LAST_LINE = re.compile(
    r"^(\d+) records sent, .* ([\d.]+) ms avg latency, .* ms max latency, "
    r"(\d+) ms 50th, .* (\d+) ms 99th, (\d+) ms 99\.9th",
    re.MULTILINE,
)


def _properties(bootstrap: str, workload: Workload) -> dict[str, object]:
    return {
        "bootstrap.servers": bootstrap,
        "acks": "all",
        "enable.idempotence": "true",
        "linger.ms": workload.linger_ms,
        "batch.size": workload.batch_size,
        "compression.type": workload.codec,
    }


def measure_loop(
    distribution: KafkaDistribution, bootstrap: str, topic: str, workload: Workload, cpus: set[int] | None
) -> Measurement:
    """``KafkaProducer.send()`` with a callback, warmed up before the clock starts."""
    with lines_file(workload) as lines:
        command = distribution.command(str(_LOOP), topic, *loop_counts(workload), lines, heap_mb=_HEAP_MB)
        properties = "".join(f"{k}={v}\n" for k, v in _properties(bootstrap, workload).items())
        said = subprocess.run(
            [*kept_on(cpus), *command], input=properties, capture_output=True, text=True, check=False
        )
    if said.returncode:
        raise RuntimeError(f"java: {said.stderr[-2000:]}")
    # The client logs to standard output as well, also after the result.
    results = [line for line in said.stdout.splitlines() if line.startswith("{")]
    if len(results) != 1:
        raise RuntimeError(f"java printed {len(results)} results instead of one: {said.stdout[-2000:]}")
    return Measurement.from_json(results[0])


def measure_perf_tool(
    distribution: KafkaDistribution, bootstrap: str, topic: str, workload: Workload, cpus: set[int] | None
) -> Measurement:
    """kafka-producer-perf-test: a long run minus a run of the warm-up alone, start-up being in both.

    Raises:
        ValueError: the workload has keys or a spinning thread, which the tool has not.
    """
    if workload.keys or workload.busy:
        raise ValueError("kafka-producer-perf-test has no keys and no thread that spins")
    warmup = workload.whole_blocks(workload.warmup) * workload.block
    measured = workload.whole_blocks(workload.records) * workload.block
    with payload_file(value for block in workload.values for value in block) as payloads:
        short = _run_perf_tool(distribution, bootstrap, topic, workload, payloads, warmup, cpus)
        long = _run_perf_tool(distribution, bootstrap, topic, workload, payloads, warmup + measured, cpus)
    assert long.system_seconds is not None and short.system_seconds is not None
    return Measurement(
        records=measured,
        seconds=long.seconds - short.seconds,
        cpu_seconds=long.cpu_seconds - short.cpu_seconds,
        system_seconds=long.system_seconds - short.system_seconds,
        peak_rss=long.peak_rss,
        p50_ms=long.p50_ms,
        p99_ms=long.p99_ms,
        p999_ms=long.p999_ms,
    )


def _run_perf_tool(
    distribution: KafkaDistribution,
    bootstrap: str,
    topic: str,
    workload: Workload,
    payloads: str,
    records: int,
    cpus: set[int] | None,
) -> Measurement:
    properties = [f"{k}={v}" for k, v in _properties(bootstrap, workload).items()]
    command = distribution.command(
        _PERF_TOOL, "--topic", topic, "--num-records", str(records), "--throughput", str(workload.rate or -1),
        "--payload-file", payloads, "--producer-props", *properties, heap_mb=_HEAP_MB,
    )  # fmt: skip
    start = perf_counter()
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(
            [*kept_on(cpus), *command], stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT
        )
        _, status, usage = os.wait4(process.pid, 0)
        seconds = perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        output.seek(0)
        text = output.read()
    summary = _LAST_LINE.search(text)
    if process.returncode or summary is None or int(summary[1]) != records:
        raise RuntimeError(f"java-perf: {text[-2000:]}")
    return Measurement(
        records=records,
        seconds=seconds,
        cpu_seconds=usage.ru_utime + usage.ru_stime,
        system_seconds=usage.ru_stime,
        peak_rss=usage.ru_maxrss * RSS_UNIT,
        p50_ms=float(summary[3]),
        p99_ms=float(summary[4]),
        p999_ms=float(summary[5]),
    )
