"""SASL sessions that end, and what their renewal does to latency: ``python -m bench.sessions``.

A real Kafka node ends sessions (KIP-368) while one producer sends at a rate, in one burst every millisecond.
Every record is timed from ``send()`` to its delivery report, and read back: none may be missing, come twice,
or be out of order. A renewal holds new requests of its connection back. The latency of the records that were
on their way at that time is set against that of all others, and against that of as long a stretch a second
before, which tells what the machine does by itself.
"""

from __future__ import annotations

import argparse
import json
import logging
import statistics
import sys
import time
from array import array
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench.measure import Spinner, quantile
from bench.runs import environment, say
from bench.suite import RESULTS
from bench.tables import table
from kprod import KafkaProducer
from tests.integration.secure import MECHANISMS, SASL_LISTENERS, sasl_options
from tests.kafka.cluster import KafkaCluster
from tests.kafka.readers import stream_confluent

_SIZE = 100
_BURST_S = 0.001
_WARM_UP_S = 3.0
_BEFORE_S = 1.0
"""How long before a renewal the stretch is that it is set against."""


@dataclass(frozen=True)
class Found:
    """What one run showed; times in ms.

    Attributes:
        listener, mechanism: how the client authenticated.
        busy: another Python thread of the process was spinning.
        seconds, records: how long it sent, and how many records.
        held: how long requests were held back, for each renewal.
        during: the largest latency of the records on their way during a renewal, for each.
        before: the same for as long a stretch a second before each.
        p50, p99, largest: latency of all records that were on their way during no renewal.
        connections: TCP connections that were made, all in all.
    """

    listener: str
    mechanism: str
    busy: bool
    seconds: float
    records: int
    held: list[float]
    during: list[float]
    before: list[float]
    p50: float
    p99: float
    largest: float
    connections: int


class Renewals(logging.Handler):
    """When connections were authenticated again: (beginning, end), in seconds of perf_counter()."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.seen: list[tuple[float, float]] = []
        self._logger = logging.getLogger("kprod.engine")

    def emit(self, record: logging.LogRecord) -> None:
        if "authenticated again in" in record.msg and isinstance(record.args, tuple):
            now = time.perf_counter()
            self.seen.append((now - float(str(record.args[-1])) / 1e3, now))

    def __enter__(self) -> Renewals:
        self._level = self._logger.level
        self._logger.setLevel(logging.DEBUG)
        self._logger.propagate = False
        self._logger.addHandler(self)
        return self

    def __exit__(self, *_: object) -> None:
        self._logger.removeHandler(self)
        self._logger.propagate = True
        self._logger.setLevel(self._level)


class Partition:
    """The records of one partition: when each was sent, and when its report came. Reports come in order."""

    def __init__(self) -> None:
        self.sent = array("d")
        self.acknowledged = array("d")
        self.failed: list[object] = []

    def report(self, error: object, _: object) -> None:
        """The delivery callback of each of its records."""
        self.acknowledged.append(time.perf_counter())
        if error is not None:
            self.failed.append(error)

    def largest(self, begins: float, ends: float) -> float:
        """The largest latency, in seconds, of the records that were on their way in this time."""
        # In order: those that were acknowledged after it began, as far as they were sent before it ended.
        first = bisect_left(self.acknowledged, begins)
        last = bisect_left(self.sent, ends)
        return max((self.acknowledged[n] - self.sent[n] for n in range(first, last)), default=0.0)

    def outside(self, stretches: Sequence[tuple[float, float]]) -> list[float]:
        """The latencies of the records that were on their way in none of these."""
        within = set()
        for begins, ends in stretches:
            within.update(range(bisect_left(self.acknowledged, begins), bisect_left(self.sent, ends)))
        return [self.acknowledged[n] - self.sent[n] for n in range(len(self.sent)) if n not in within]


def send_at(
    producer: KafkaProducer, topic: str, partitions: Sequence[Partition], rate: int, seconds: float
) -> None:
    """Send at a rate, in one burst every millisecond, to each partition in turn; wait for all reports."""
    rest = bytes(_SIZE - 8)
    began = time.perf_counter()
    sent = 0
    while (now := time.perf_counter()) < began + seconds:
        for total in range(sent, int((now - began) * rate)):
            number, at = divmod(total, len(partitions))
            partitions[at].sent.append(time.perf_counter())
            value = number.to_bytes(8, "big") + rest
            producer.send(topic, value, partition=at, on_delivery=partitions[at].report)
            sent += 1
        time.sleep(_BURST_S)
    producer.flush()


def check(cluster: KafkaCluster, topic: str, partitions: Sequence[Partition]) -> None:
    """Read the topic back.

    Raises:
        RuntimeError: a record failed, is missing, is there twice, or is out of order.
    """
    for partition in partitions:
        if partition.failed or len(partition.acknowledged) != len(partition.sent):
            raise RuntimeError(
                f"{len(partition.sent)} records sent, {len(partition.acknowledged)} reports, "
                f"{len(partition.failed)} errors, the first: {partition.failed[:1]}"
            )
    expected = [0] * len(partitions)
    for messages in stream_confluent(cluster.bootstrap_servers, topic):
        for message in messages:
            number = int.from_bytes(message.value()[:8], "big")
            at = message.partition()
            if number != expected[at]:
                raise RuntimeError(f"partition {at} has record {number} in the place of {expected[at]}")
            expected[at] += 1
    if expected != [len(partition.sent) for partition in partitions]:
        raise RuntimeError(f"records are missing: there are {expected}")


def run(
    cluster: KafkaCluster,
    listener: str,
    mechanism: str,
    rate: int,
    seconds: float,
    linger_ms: int,
    busy: bool,
) -> Found:
    """One run: warm up, send, read back."""
    topic = f"sessions-{listener}-{mechanism}-{busy}".lower().replace("_", "-")
    cluster.create_topic(topic, 3)
    cluster.create_topic(f"{topic}-warm-up", 3)
    partitions = [Partition() for _ in range(3)]
    options = sasl_options(cluster, listener, mechanism)
    with KafkaProducer(**options, linger_ms=linger_ms) as producer:
        send_at(producer, f"{topic}-warm-up", [Partition() for _ in range(3)], rate, _WARM_UP_S)
        spinner = Spinner() if busy else None
        with Renewals() as renewals:
            send_at(producer, topic, partitions, rate, seconds)
        if spinner is not None:
            spinner.stop()
        figures = producer.metrics()
    assert figures is not None
    check(cluster, topic, partitions)
    cluster.delete_topic(topic)
    cluster.delete_topic(f"{topic}-warm-up")
    seen = renewals.seen
    others = sorted(latency for partition in partitions for latency in partition.outside(seen))
    return Found(
        listener=listener,
        mechanism=mechanism,
        busy=busy,
        seconds=seconds,
        records=sum(len(partition.sent) for partition in partitions),
        held=[(ends - begins) * 1e3 for begins, ends in seen],
        during=[max(p.largest(begins, ends) for p in partitions) * 1e3 for begins, ends in seen],
        before=[
            max(p.largest(begins - _BEFORE_S, ends - _BEFORE_S) for p in partitions) * 1e3
            for begins, ends in seen
        ],
        p50=quantile(others, 0.5) * 1e3,
        p99=quantile(others, 0.99) * 1e3,
        largest=others[-1] * 1e3,
        connections=int(figures["producer-metrics"]["connection-creation-total"]),
    )


def report(found: Sequence[Found]) -> str:
    """The figures as Markdown."""

    def cell(values: Sequence[float]) -> str:
        return f"{statistics.median(values):.1f} / {max(values):.1f}" if values else ""

    rows = [
        [
            f"{one.mechanism}, {one.listener}" + (", busy" if one.busy else ""),
            str(len(one.held)),
            cell(one.held),
            cell(one.during),
            cell(one.before),
            f"{one.p50:.1f} / {one.p99:.1f} / {one.largest:.1f}",
            f"{one.records:,}",
        ]
        for one in found
    ]
    header = [
        "session",
        "renewals",
        "held back ms",
        "latency then ms",
        "a second before",
        "all others",
        "records",
    ]
    return table(header, rows)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print what the command line asks for."""
    parser = argparse.ArgumentParser(prog="python -m bench.sessions", description=__doc__.split("\n\n")[0])
    parser.add_argument("--seconds", type=float, default=60, help="of each run (default 60)")
    parser.add_argument(
        "--reauth-ms", type=int, default=5000, help="connections.max.reauth.ms (default 5000)"
    )
    parser.add_argument("--rate", type=int, default=10_000, help="records/s (default 10000)")
    parser.add_argument("--linger-ms", type=int, default=5, help="(default 5)")
    parser.add_argument("--listeners", nargs="+", choices=SASL_LISTENERS, default=SASL_LISTENERS,
                        metavar="NAME", help=f"of: {', '.join(SASL_LISTENERS)} (default: all)")  # fmt: skip
    parser.add_argument("--mechanisms", nargs="+", choices=MECHANISMS, default=MECHANISMS, metavar="NAME",
                        help=f"of: {', '.join(MECHANISMS)} (default: all)")  # fmt: skip
    parser.add_argument("--busy", action="store_true", help="another Python thread spins")
    parser.add_argument("--json", type=Path, default=RESULTS / "sessions.json", help="(default %(default)s)")
    options = parser.parse_args(argv)
    about = environment(["python", "-m", "bench.sessions", *(sys.argv[1:] if argv is None else argv)])
    found = []
    sessions: dict[str, Any] = {"connections.max.reauth.ms": options.reauth_ms}
    for listener in SASL_LISTENERS:
        # The cluster's own, for one mechanism, would win.
        sessions[f"listener.name.{listener.lower()}.scram-sha-256.connections.max.reauth.ms"] = (
            options.reauth_ms
        )
    with KafkaCluster(1, heap_mb=768, long_running=True, secure=True, **sessions) as cluster:
        for listener in options.listeners:
            for mechanism in options.mechanisms:
                found.append(
                    run(
                        cluster,
                        listener,
                        mechanism,
                        options.rate,
                        options.seconds,
                        options.linger_ms,
                        options.busy,
                    )
                )
                say(report(found[-1:]).splitlines()[-1])
    print(
        f"Kafka {cluster.distribution.version}, connections.max.reauth.ms={options.reauth_ms}, "
        f"{options.rate:,} records/s for {options.seconds:g} s, linger {options.linger_ms} ms. "
        f"Median / largest; all others: p50 / p99 / largest\n\n{report(found)}"
    )
    told = {"environment": about, "found": [asdict(one) for one in found]}
    options.json.write_text(json.dumps(told, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
