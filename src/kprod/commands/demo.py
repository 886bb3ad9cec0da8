"""``kprod demo``: the main job, start to end, on an embedded cluster or a real one."""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import secrets
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from kprod._version import __version__
from kprod.commands import arguments, figures, producer_options
from kprod.commands.demo_checks import Check, Tally, TopicAudit, compare
from kprod.commands.demo_events import STREAMS, Event, generate_events
from kprod.commands.demo_faults import Began, Trouble, plan_troubles
from kprod.commands.demo_reading import Reader, find_reader, make_reader
from kprod.commands.demo_report import Section, make_console, show_report, show_step
from kprod.commands.exit_status import CommandError, ExitStatus
from kprod.config import COMPRESSION_TYPES
from kprod.errors import KafkaError
from kprod.testing import MockCluster

SUMMARY = "see it work: send a data set, read it back, check everything"
DESCRIPTION = """\
Builds the events of a day of a web shop (clicks, orders, sensor readings; JSON with keys, headers and
timestamps), sends them compressed and idempotent to an embedded cluster of three brokers, makes brokers
misbehave for the last part, reads everything back with another client if one is installed, and checks count,
partitions, order and contents. With --bootstrap it uses real brokers, and does not disturb them."""

_RECORDS = 300_000
_BROKERS = 3
# The part that is sent while brokers misbehave.
_TROUBLED_SHARE = 0.2
# Events are built and sent in turn, so that memory does not grow with their number.
_CHUNK = 50_000
# Long enough for any broker on loopback; a lost answer costs so much.
_REQUEST_TIMEOUT_MS = 1500
_OPTIONS = {"linger_ms": 20, "batch_size": 65536}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument(
        "--records",
        type=arguments.positive,
        default=_RECORDS,
        metavar="N",
        help=f"events to send (default: {_RECORDS})",
    )
    parser.add_argument(
        "--seed", type=arguments.whole, default=1, metavar="N", help="of the data (default: 1)"
    )
    codecs = ", ".join(f"{stream.codec} for {stream.name}" for stream in STREAMS)
    parser.add_argument("--codec", choices=COMPRESSION_TYPES, help=f"compression (default: {codecs})")
    parser.add_argument(
        "-b",
        "--bootstrap",
        metavar="HOST:PORT,...",
        help="use these brokers instead of the embedded cluster; they must create topics automatically",
    )
    parser.add_argument("--json", action="store_true", help="the report as JSON")


def run(args: argparse.Namespace) -> ExitStatus:
    """Do it all.

    Raises:
        CommandError: the cluster cannot be reached, or nothing can read it.
    """
    console = None if args.json else make_console()

    def step(text: str) -> None:
        if not args.json:
            show_step(console, text)

    codecs = {stream.name: args.codec or stream.codec for stream in STREAMS}
    reader_module = find_reader(set(codecs.values()))
    if args.bootstrap and reader_module is None:
        raise CommandError(
            "--bootstrap: reading back from real brokers needs a consumer: pip install kafka-python"
        )
    with _embedded(args) as cluster:
        servers = cluster.bootstrap_servers if cluster is not None else args.bootstrap
        if cluster is not None:
            step(f"{_BROKERS} brokers are up, embedded: {servers}")
        job = _Job(args, servers, cluster, codecs)
        troubled = int(args.records * _TROUBLED_SHARE) if cluster is not None else 0
        try:
            job.send(args.records - troubled, troubled, step)
            reader = make_reader(reader_module, servers, cluster)
            job.read_back(reader, step)
        finally:
            job.close()
        checks = job.checks()
    if args.json:
        json.dump(job.as_dict(checks), sys.stdout, indent=2)
        sys.stdout.write("\n")
    else:
        show_report(console, job.sections(), checks)
    return ExitStatus.OK if all(check.passed for check in checks) else ExitStatus.FAILED


@contextlib.contextmanager
def _embedded(args: argparse.Namespace) -> Iterator[MockCluster | None]:
    if args.bootstrap:
        yield None
        return
    # In a process of its own, so that the figures are the producer's alone.
    with MockCluster(_BROKERS, process=True, replication_factor=_BROKERS, strict=False) as cluster:
        for stream in STREAMS:
            cluster.create_topic(stream.name, stream.partitions)
        yield cluster


@dataclass
class _Phase:
    """What sending a part of the events took. Building them is not in it."""

    records: int = 0
    bytes: int = 0
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    counters: Counter[str] = field(default_factory=Counter)

    @property
    def records_per_second(self) -> float:
        """Acknowledged records per second."""
        return self.records / self.seconds if self.seconds else 0.0

    @property
    def cpu_us_per_record(self) -> float:
        """CPU time of this process per record, all threads, in microseconds."""
        return self.cpu_seconds / self.records * 1e6 if self.records else 0.0

    @property
    def compression(self) -> float:
        """Bytes before compression per byte after."""
        return self.counters["raw_bytes"] / max(1, self.counters["batch_bytes"])


class _Job:
    """Sends the events, reads them back, and keeps the books."""

    def __init__(
        self,
        args: argparse.Namespace,
        servers: str,
        cluster: MockCluster | None,
        codecs: dict[str, str],
    ) -> None:
        self._args = args
        self._cluster = cluster
        # Real brokers keep the topics of earlier runs.
        suffix = "" if cluster is not None else f"-{int(time.time())}-{secrets.token_hex(3)}"
        prefix = "" if cluster is not None else "kprod-demo-"
        self._topics = {stream.name: f"{prefix}{stream.name}{suffix}" for stream in STREAMS}
        self._codecs = codecs
        options: dict[str, Any] = {
            "bootstrap_servers": servers,
            **_OPTIONS,
            "topic_options": {
                self._topics[name]: {"compression_type": codec} for name, codec in codecs.items()
            },
        }
        if cluster is not None:
            options["request_timeout_ms"] = _REQUEST_TIMEOUT_MS
        self._producer, _ = producer_options.connect(options)
        self._events = generate_events(args.records, args.seed)
        self._sent = {topic: Tally() for topic in self._topics.values()}
        self._acked = 0
        self._errors: Counter[str] = Counter()
        self._partitions: dict[str, int] = {}
        self._calm = _Phase()
        self._troubled = _Phase()
        self._began: list[Began] = []
        self._audits: list[TopicAudit] = []
        self._reader_name = ""
        self._read_seconds = 0.0
        self._read_problem: str | None = None
        self._problems: list[str] = []

    def close(self) -> None:
        """Close the producer."""
        self._producer.close()

    def send(self, calm: int, troubled: int, step: Callable[[str], None]) -> None:
        """Send the events: first undisturbed, then with troubles in between."""
        try:
            for topic in self._topics.values():
                self._partitions[topic] = len(self._producer.partitions_for(topic))
        except KafkaError as error:
            raise CommandError(f"the topics of the demo cannot be had: {error}") from None
        step(f"building and sending {figures.count(calm)} events ...")
        for size in _chunks(calm, _CHUNK):
            self._send_chunk(self._calm, size)
        if troubled and self._cluster is not None:
            troubles = plan_troubles(self._cluster, self._topics["clickstream"])
            step(f"and {figures.count(troubled)} more while brokers misbehave ...")
            # The last part is sent after everything is over.
            for i, size in enumerate(_shares(troubled, len(troubles) + 1)):
                self._send_chunk(self._troubled, size, troubles[i] if i < len(troubles) else None)

    def _send_chunk(self, phase: _Phase, size: int, trouble: Trouble | None = None) -> None:
        chunk = list(itertools.islice(self._events, size))
        for event in chunk:
            self._sent[self._topics[event.stream]].add_event(event)
        half = len(chunk) // 2 if trouble is not None else 0
        before = self._counters()
        cpu, start = time.process_time(), time.perf_counter()
        if trouble is not None:
            self._send_events(chunk[:half])
            # Amid the stream, while requests are under way.
            self._began.append(Began(trouble.text, trouble.begin()))
        self._send_events(chunk[half:])
        self._producer.flush()
        phase.seconds += time.perf_counter() - start
        phase.cpu_seconds += time.process_time() - cpu
        after = self._counters()
        after.subtract(before)
        phase.counters.update(after)
        phase.records += len(chunk)
        phase.bytes += sum(len(event.key) + len(event.value) for event in chunk)

    def _send_events(self, events: list[Event]) -> None:
        send, topics, delivered = self._producer.send, self._topics, self._delivered
        for stream, key, value, headers, timestamp_ms in events:
            send(topics[stream], value, key, headers, None, timestamp_ms, delivered)

    def _delivered(self, error: Exception | None, metadata: object) -> None:
        if error is None:
            self._acked += 1
        else:
            self._errors[str(error)] += 1

    def _counters(self) -> Counter[str]:
        counters = self._producer.metrics(raw=True) or {}
        requests = sum(broker["requests_sent"] for broker in counters["brokers"].values())
        return Counter({**counters["loop"], "requests": requests})

    def read_back(self, reader: Reader, step: Callable[[str], None]) -> None:
        """Read all topics and look at each record."""
        step(f"reading back with {reader.name} ...")
        self._reader_name = reader.name
        start = time.perf_counter()
        for topic in self._topics.values():
            audit = TopicAudit(topic, self._partitions[topic])
            self._audits.append(audit)
            try:
                for record in reader.read(topic, self._partitions[topic]):
                    audit.add(record)
            except TimeoutError as error:
                self._read_problem = str(error)
        self._read_seconds = time.perf_counter() - start
        if self._cluster is not None:
            self._problems = self._cluster.problems

    def checks(self) -> list[Check]:
        """What must be true; asks the cluster, so it has to be there still."""
        records = self._args.records
        found = [
            Check(
                "every record was acknowledged",
                self._acked == records and not self._errors,
                f"{figures.count(self._acked)} of {figures.count(records)}"
                + "".join(f"; {figures.count(n)} x {text}" for text, n in self._errors.most_common(3)),
            ),
            *compare(self._sent, self._audits),
        ]
        if self._read_problem is not None:
            found.append(Check("reading came to the end", False, self._read_problem))
        if self._cluster is not None:
            missed = [trouble.text for trouble in self._began if not trouble.happened]
            retried = self._troubled.counters["records_retried"]
            if self._began:
                found.append(
                    Check(
                        "although brokers misbehaved",
                        not missed and retried > 0,
                        f"{figures.count(retried)} records were sent again"
                        if not missed
                        else f"this did not happen: {'; '.join(missed)}",
                    )
                )
            found.append(
                Check(
                    "the brokers found nothing wrong with any request",
                    not self._problems,
                    "; ".join(self._problems[:3]) or "no complaints",
                )
            )
        return found

    def sections(self) -> list[Section]:
        """What the report tells."""
        data = [
            (
                f"{stream.name}",
                f"{figures.count(self._sent[topic].records)} events, keyed by {stream.key}, "
                f"{self._partitions[topic]} partitions, {self._codecs[stream.name]}"
                + ("" if topic == stream.name else f", topic {topic}"),
            )
            for stream, topic in zip(STREAMS, self._topics.values(), strict=True)
        ]
        sections = [
            Section(f"A day of a web shop (seed {self._args.seed})", data),
            Section("Sent", _phase_lines(self._calm)),
        ]
        if self._began:
            lines = [(f"trouble {i}", trouble.text) for i, trouble in enumerate(self._began, 1)]
            counters = self._troubled.counters
            lines += [
                (
                    "records",
                    f"{figures.count(self._troubled.records)} acknowledged in "
                    f"{figures.duration(self._troubled.seconds)}",
                ),
                (
                    "sent again",
                    f"{figures.count(counters['records_retried'])} records, over "
                    f"{figures.count(counters['connections_made'])} new connections",
                ),
            ]
            sections.append(Section("Sent while brokers misbehaved", lines))
        read = sum(audit.tally.records for audit in self._audits)
        sections.append(
            Section(
                "Read back",
                [
                    ("with", self._reader_name),
                    (
                        "records",
                        f"{figures.count(read)} in {figures.duration(self._read_seconds)}, each one checked",
                    ),
                ],
            )
        )
        return sections

    def as_dict(self, checks: list[Check]) -> dict[str, Any]:
        """The report for programs."""
        return {
            "kprod": __version__,
            "passed": all(check.passed for check in checks),
            "checks": [check._asdict() for check in checks],
            "records": self._args.records,
            "seed": self._args.seed,
            "topics": {
                topic: {
                    "records": self._sent[topic].records,
                    "partitions": self._partitions[topic],
                    "codec": self._codecs[stream.name],
                    "checksum": f"{self._sent[topic].checksum:016x}",
                }
                for stream, topic in zip(STREAMS, self._topics.values(), strict=True)
            },
            "undisturbed": _phase_dict(self._calm),
            "disturbed": {
                **_phase_dict(self._troubled),
                "troubles": [trouble.text for trouble in self._began],
            },
            "read_back": {"with": self._reader_name, "seconds": self._read_seconds},
        }


def _phase_lines(phase: _Phase) -> list[tuple[str, str]]:
    counters = phase.counters
    batches = max(1, counters["batches_sent"])
    return [
        (
            "records",
            f"{figures.count(phase.records)} ({figures.size(phase.bytes)} of keys and values) "
            f"acknowledged in {figures.duration(phase.seconds)}",
        ),
        (
            "throughput",
            f"{phase.records_per_second:,.0f} records/s, "
            f"{figures.size(phase.bytes / max(phase.seconds, 1e-9))}/s, with a callback for each record",
        ),
        ("CPU", f"{phase.cpu_us_per_record:.2f} us per record, all threads of this process"),
        (
            "batches",
            f"{figures.count(counters['batches_sent'])} of {phase.records / batches:,.0f} records and "
            f"{figures.size(counters['batch_bytes'] / batches)} on average, in "
            f"{figures.count(counters['requests'])} requests",
        ),
        (
            "compression",
            f"{phase.compression:.1f} : 1, {figures.size(counters['raw_bytes'])} became "
            f"{figures.size(counters['batch_bytes'])}",
        ),
        ("retries", f"{figures.count(counters['records_retried'])} records"),
    ]


def _phase_dict(phase: _Phase) -> dict[str, Any]:
    return {
        "records": phase.records,
        "bytes": phase.bytes,
        "seconds": phase.seconds,
        "records_per_second": phase.records_per_second,
        "cpu_us_per_record": phase.cpu_us_per_record,
        "batches": phase.counters["batches_sent"],
        "requests": phase.counters["requests"],
        "compression_ratio": phase.compression,
        "records_retried": phase.counters["records_retried"],
    }


def _chunks(total: int, size: int) -> Iterator[int]:
    for at in range(0, total, size):
        yield min(size, total - at)


def _shares(total: int, parts: int) -> list[int]:
    """A total in so many nearly equal parts."""
    return [total * (i + 1) // parts - total * i // parts for i in range(parts)]
