"""Clients that are programs: librdkafka in C, franz-go, and what the loop in Java has in common with them."""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from bench.clients.confluent_client import properties
from bench.librdkafka import compiled_loop
from bench.measure import Measurement, latency_figures
from bench.native import compiled_go
from bench.workload import Workload

GO_MODULE = Path(__file__).parents[1] / "go"
_TIMEOUT_S = 600


def kept_on(cpus: set[int] | None) -> list[str]:
    """What comes before a command to keep it on these CPUs: util-linux's taskset."""
    return ["taskset", "--cpu-list", ",".join(map(str, sorted(cpus)))] if cpus else []


@contextmanager
def payload_file(lines: Iterator[bytes]) -> Iterator[str]:
    """The path of a file with these lines."""
    with tempfile.NamedTemporaryFile(suffix=".payloads") as file:
        file.writelines(line + b"\n" for line in lines)
        file.flush()
        yield file.name


def lines_file(workload: Workload) -> AbstractContextManager[str]:
    """The records of a workload for the loops: lines of key TAB value, the key empty where there is none."""
    if workload.keys:
        return payload_file(key + b"\t" + value for block in workload.pairs for value, key in block)
    return payload_file(b"\t" + value for block in workload.values for value in block)


def loop_counts(workload: Workload) -> list[str]:
    """Arguments of the loops: records, warm-up records, block (with a rate: burst), rate."""
    block = workload.block
    warmup, measured = workload.whole_blocks(workload.warmup), workload.whole_blocks(workload.records)
    pause = workload.burst if workload.rate else block
    return [str(n) for n in (measured * block, warmup * block, pause, workload.rate)]


def _librdkafka_settings(bootstrap: str, workload: Workload) -> str:
    shown = {
        name: str(value).lower() if isinstance(value, bool) else value
        for name, value in properties(bootstrap, workload).items()
    }
    return "".join(f"{name}={value}\n" for name, value in shown.items())


def _franz_go_settings(bootstrap: str, workload: Workload) -> str:
    return json.dumps(
        {
            "bootstrap": bootstrap,
            "linger_ms": workload.linger_ms,
            # A bound that a single record must keep to as well, with its overhead.
            "batch_max_bytes": max(workload.batch_size, workload.size + 4096),
            "codec": workload.codec,
        }
    )


# What makes each program, and what it is given on standard input.
_PROGRAMS: dict[str, tuple[Callable[[], Path], Callable[[str, Workload], str]]] = {
    "librdkafka": (compiled_loop, _librdkafka_settings),
    "franz-go": (lambda: compiled_go(GO_MODULE), _franz_go_settings),
}


def built(name: str) -> Path:
    """The program of a client; made when it is not there yet.

    Raises:
        ToolchainMissing: something that it is made with is not there.
        RuntimeError: it does not compile.
    """
    return _PROGRAMS[name][0]()


def measure_program(
    name: str, bootstrap: str, topic: str, workload: Workload, cpus: set[int] | None
) -> Measurement:
    """Run the loop of one client, warmed up before the clock starts.

    Raises:
        RuntimeError: it failed, a record failed, or the delivery reports do not add up.
    """
    counts = loop_counts(workload)
    with lines_file(workload) as lines:
        said = subprocess.run(
            [*kept_on(cpus), str(built(name)), topic, *counts, lines],
            input=_PROGRAMS[name][1](bootstrap, workload),
            capture_output=True,
            text=True,
            check=False,
            timeout=_TIMEOUT_S,
        )
    if said.returncode:
        raise RuntimeError(f"{name}: {said.stderr.strip()[-2000:]}")
    told = json.loads(said.stdout)
    records, warmup = int(counts[0]), int(counts[1])
    if told["failed"] or told["acked"] != warmup + records:
        raise RuntimeError(
            f"{name}: {told['acked']} of {warmup + records} records acknowledged, {told['failed']} failed: "
            f"{told['error']}"
        )
    return Measurement(
        records=records,
        seconds=told["seconds"],
        cpu_seconds=told["user_seconds"] + told["system_seconds"],
        system_seconds=told["system_seconds"],
        peak_rss=told["peak_rss"],
        rss=told["rss"],
        **latency_figures(sorted(ns / 1e9 for ns in told["latencies_ns"])),
    )
