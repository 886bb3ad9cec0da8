"""``bench/sink/sink.c`` as a process: a cluster that acknowledges at loopback speed and checks nothing.

    with Sink(brokers=3, partitions=100) as sink:
        producer = KafkaProducer(bootstrap_servers=sink.bootstrap_servers)

``python -m bench.sink BROKERS PARTITIONS`` runs one until Enter is pressed, and then prints its counts.
"""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from bench.native import compiled

_SOURCE = Path(__file__).with_name("sink.c")
_BOOTSTRAP_BROKERS = 3


@dataclass(frozen=True)
class SinkCounts:
    """What a sink has seen since it started or since ``reset()``.

    Attributes:
        requests: of all kinds.
        produce_requests: of those, Produce.
        metadata_requests: of those, Metadata.
        batches: record batches.
        records: the sum of the batches' record counts.
        batch_bytes: bytes of the batches, as they came.
        bytes_in: bytes that clients sent, all requests.
        bytes_out: bytes of the answers.
        connections: connections made.
        largest_request: bytes of the largest request.
        cpu_seconds: CPU time of the sink since it started.
    """

    requests: int
    produce_requests: int
    metadata_requests: int
    batches: int
    records: int
    batch_bytes: int
    bytes_in: int
    bytes_out: int
    connections: int
    largest_request: int
    cpu_seconds: float


class Sink:
    """A sink in a process of its own, ended by ``close()`` or with this process.

    Args:
        brokers: how many, each with a port of its own; partition p is led by broker p mod ``brokers``.
        partitions: of every topic; every topic exists.
        cpus: the CPUs that it may run on (Linux); None leaves that to the system.

    Raises:
        ToolchainMissing: there is no C compiler.
        RuntimeError: it did not start; says why.
    """

    def __init__(self, brokers: int = 1, partitions: int = 6, *, cpus: set[int] | None = None) -> None:
        program = compiled(_SOURCE, "-Wall", "-Wextra")
        self.brokers = brokers
        self.partitions = partitions
        self._process = subprocess.Popen(
            [str(program), str(brokers), str(partitions)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        if cpus:
            os.sched_setaffinity(self._process.pid, cpus)
        word, *ports = self._said().split()
        assert word == "ready"
        self.ports = [int(port) for port in ports]

    @property
    def bootstrap_servers(self) -> str:
        """``host:port`` of the first few brokers, comma-separated."""
        return ",".join(f"127.0.0.1:{port}" for port in self.ports[:_BOOTSTRAP_BROKERS])

    @property
    def pid(self) -> int:
        """The process."""
        return self._process.pid

    def stats(self) -> SinkCounts:
        """What it has counted."""
        self._say("stats")
        return SinkCounts(**json.loads(self._said()))

    def reset(self) -> None:
        """Set its counts to zero."""
        self._say("reset")
        self._said()

    def close(self) -> None:
        """End it."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()

    def __enter__(self) -> Sink:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _say(self, command: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(command + "\n")
        self._process.stdin.flush()

    def _said(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the sink ended with status {self._process.wait()}; it said why on stderr")
        return line
