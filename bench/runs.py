"""Runs of clients against a target, interleaved, and what the figures depend on."""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import confluent_kafka

from bench.clients import JAVA_CLIENTS, PROGRAM_CLIENTS, REBUILT_CLIENTS, SPECS, missing
from bench.clients.java_client import measure_loop, measure_perf_tool
from bench.clients.programs import GO_MODULE, built, measure_program
from bench.confluent_o3 import rebuilt_confluent
from bench.measure import Measurement
from bench.native import ToolchainMissing
from bench.targets import Target
from bench.workload import Workload
from tests.kafka.distribution import KafkaDistribution, ensure_distribution

_PROJECT = Path(__file__).resolve().parents[1]
_PROCESS_TIMEOUT_S = 600
_QUIET_LOAD = 0.5
_PACKAGES = ("confluent-kafka", "kafka-python", "aiokafka", "lz4", "zstandard", "cramjam")


def say(text: str) -> None:
    """Progress, on standard error."""
    print(text, file=sys.stderr, flush=True)


class Bench:
    """A target, and the runs of clients against it."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self._distribution: KafkaDistribution | None = None

    def run(self, name: str, workload: Workload, *, exact: bool = False) -> Measurement:
        """One measurement of one client, with its share of the records, or with all of them if ``exact``.

        Raises:
            RuntimeError: the client failed, or what has arrived is not what was sent.
        """
        spec, target = SPECS[name], self.target
        workload = workload.for_client(1.0 if exact or workload.rate else spec.share, spec.block)
        with target.topic(name) as topic:
            if name in JAVA_CLIENTS:
                self._distribution = self._distribution or ensure_distribution()
                measure = measure_loop if name == "java" else measure_perf_tool
                found = measure(self._distribution, target.bootstrap, topic, workload, target.client_cpus)
            elif name in PROGRAM_CLIENTS:
                found = measure_program(name, target.bootstrap, topic, workload, target.client_cpus)
            else:
                found = self._run_python(name, topic, workload)
            # The performance tool runs twice, the second time with all records: see measure_perf_tool().
            runs = 2 if name == "java-perf" else 1
            warmup = workload.whole_blocks(workload.warmup) * workload.block
            expected = found.records + runs * warmup
            held = target.records_in(topic)
            if held != expected:
                raise RuntimeError(f"{name}: sent {expected} records, {held} have arrived")
            counts = target.counts()
        if counts is None:
            return found
        return replace(
            found, requests=counts.produce_requests, bytes_out=counts.bytes_in, all_records=counts.records
        )

    def _run_python(self, name: str, topic: str, workload: Workload) -> Measurement:
        return Measurement.from_json(
            run_worker(
                "bench.measure",
                name,
                bootstrap=self.target.bootstrap,
                topic=topic,
                workload=asdict(workload),
                cpus=sorted(self.target.client_cpus or ()),
            )
        )


def run_worker(module: str, client: str, **request: object) -> str:
    """Run a module of the benchmarks with one client in a fresh process, and return the last line it prints.

    Raises:
        RuntimeError: it failed; ends with what it said.
    """
    path = os.environ.get("PYTHONPATH", "")
    if client in REBUILT_CLIENTS:
        path = os.pathsep.join(filter(None, [str(rebuilt_confluent()), path]))
    said = subprocess.run(
        [sys.executable, "-m", module],
        input=json.dumps({"client": client, **request}),
        capture_output=True,
        text=True,
        check=False,
        timeout=_PROCESS_TIMEOUT_S,
        cwd=_PROJECT,
        env={**os.environ, "PYTHONPATH": path},
    )
    if said.returncode:
        raise RuntimeError(f"{client}: {said.stderr.strip()[-2000:]}")
    return said.stdout.splitlines()[-1]


@dataclass
class Comparison:
    """The measurements of several clients under one load.

    Attributes:
        workload: the load.
        target: ``kafka`` or ``sink``.
        target_description: the same for people.
        partitions: of the topic.
        rounds: measurements of each client.
        measured: by client.
    """

    workload: Workload
    target: str
    target_description: str
    partitions: int
    rounds: int
    measured: dict[str, list[Measurement]] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, told: dict[str, Any]) -> Comparison:
        """What :meth:`as_dict` gave."""
        measured = {name: [Measurement(**m) for m in runs] for name, runs in told["measured"].items()}
        return cls(**{**told, "workload": Workload(**told["workload"]), "measured": measured})


def runnable(names: Sequence[str], workload: Workload) -> list[str]:
    """Those of the clients that can be run here under this load; says why for the others."""
    found = []
    for name in dict.fromkeys(names):
        lacks = missing(name)
        if lacks is None:
            try:
                _build(name)
            except (ToolchainMissing, RuntimeError) as error:
                lacks = str(error)
        if lacks is None and name == "java-perf" and workload.keys:
            lacks = "kafka-producer-perf-test has no keys"
        if lacks is None and name in (*JAVA_CLIENTS, *PROGRAM_CLIENTS) and workload.busy:
            lacks = "it has no Python thread that could spin"
        if lacks is None:
            found.append(name)
        else:
            say(f"{name} is left out: {lacks}")
    return found


def _build(name: str) -> None:
    if name in REBUILT_CLIENTS:
        rebuilt_confluent()
    elif name in PROGRAM_CLIENTS:
        built(name)


def compare(
    bench: Bench, names: Sequence[str], workload: Workload, partitions: int, rounds: int
) -> Comparison:
    """Measure all clients in every round, in another order each; one that fails is out, and says why."""
    target = bench.target
    result = Comparison(workload, target.name, target.description, partitions, rounds)
    failed: set[str] = set()
    for round_number in range(rounds):
        turn = round_number % len(names)
        for name in (*names[turn:], *names[:turn]):
            if name in failed:
                continue
            try:
                found = bench.run(name, workload)
            except Exception as error:
                failed.add(name)
                say(f"round {round_number + 1}: {name} FAILED: {error}")
                continue
            result.measured.setdefault(name, []).append(found)
            figures = f"{found.cpu_ns:9,.0f} ns/record {found.rate / 1e3:7,.0f} krec/s"
            say(f"round {round_number + 1}: {name:20} {figures}")
    result.measured = {name: result.measured[name] for name in names if name in result.measured}
    return result


def environment(command: Sequence[str]) -> dict[str, Any]:
    """What the figures depend on, to be published with them; warns if the machine is not quiet."""
    load = os.getloadavg()[0]
    if load > _QUIET_LOAD:
        say(f"warning: load average is {load:.2f}: other work on this machine blurs the figures")
    return {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "command": " ".join(command),
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "cpu": _cpu_model(),
        "cpus": os.cpu_count(),
        "load_before": round(load, 2),
        "packages": {name: _version(name) for name in ("kprod", *_PACKAGES)} | _native_versions(),
    }


def _cpu_model() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def _native_versions() -> dict[str, str]:
    """Of librdkafka, franz-go and Go, as far as they are there."""
    found = {"librdkafka": confluent_kafka.libversion()[0]}
    if shutil.which("go"):
        required = re.search(r"franz-go v(\S+)", (GO_MODULE / "go.mod").read_text())
        assert required is not None
        said = subprocess.run(["go", "env", "GOVERSION"], capture_output=True, text=True, check=False)
        found |= {"franz-go": required[1], "Go": said.stdout.strip().removeprefix("go")}
    return found


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"
