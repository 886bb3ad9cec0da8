"""Streams of numbered records, and what an independent consumer must find of them."""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import pytest

from kprod import KafkaProducer
from tests.faults.cluster import FaultyCluster
from tests.kafka.cluster import wait_until
from tests.kafka.readers import ConsumedRecord, read_confluent

MakeProducer = Callable[..., KafkaProducer]
_PADDING = b"." * 80


class _Sent(NamedTuple):
    partition: int
    number: int
    future: Any


class Stream:
    """Records numbered from 0 in each partition of a topic, and what came of each.

    Args:
        producer: what sends them.
        topic: where to.
        partitions: how many partitions get records, in turn.
    """

    def __init__(self, producer: KafkaProducer, topic: str, partitions: int) -> None:
        self.producer = producer
        self.topic = topic
        self.partitions = partitions
        self.sent: list[_Sent] = []
        self._next: dict[int, int] = {}

    def send(self, count: int, partition: int | None = None) -> None:
        """Send ``count`` records, to the partitions in turn or all to one."""
        for _ in range(count):
            to = len(self.sent) % self.partitions if partition is None else partition
            number = self._next.get(to, 0)
            self._next[to] = number + 1
            value = b"%d %s" % (number, _PADDING)
            self.sent.append(_Sent(to, number, self.producer.send(self.topic, value, partition=to)))

    def send_until(self, done: Callable[[], bool], timeout: float = 240.0, rate: float = 20_000.0) -> None:
        """Keep on sending, ``rate`` records a second, until ``done()``; at most 20,000 are undecided.

        What disturbs meanwhile has time limits of its own, so the one here is only a last resort: on a busy
        machine a broker may take most of a minute to come back.

        Raises:
            TimeoutError: it was not done within ``timeout`` seconds.
        """
        began, first = time.monotonic(), len(self.sent)

        def next_due() -> bool:
            behind = self.sent[max(0, len(self.sent) - 20_000)].future.is_done
            return done() or (behind and (time.monotonic() - began) * rate > len(self.sent) - first)

        while not done():
            self.send(100)
            left = began + timeout - time.monotonic()
            wait_until(next_due, "the end of a fault", max(0.0, left), 0.002)

    def send_until_acknowledged(self, timeout: float = 60.0) -> None:
        """Send single records to each partition until one is acknowledged; what expires before has failed.

        For producers with a short ``delivery_timeout_ms``, which a busy machine may take to connect.

        Raises:
            TimeoutError: none was within ``timeout`` seconds.
        """
        for partition in range(self.partitions):
            gets_through = functools.partial(self._gets_through, partition)
            wait_until(gets_through, f"a record acknowledged in partition {partition}", timeout)

    def _gets_through(self, partition: int) -> bool:
        self.send(1, partition)
        future = self.sent[-1].future
        wait_until(lambda: future.is_done, "a record decided", 60)
        return bool(future.succeeded())

    def settle(self, timeout: float = 120.0) -> list[_Sent]:
        """Wait until each record is decided; gives those that failed.

        Fails the test when one is not decided within ``timeout`` seconds.
        """
        deadline = time.monotonic() + timeout
        failed = []
        for sent in self.sent:
            try:
                sent.future.get(timeout=max(0.001, deadline - time.monotonic()))
            except Exception:
                if not sent.future.is_done:
                    open_ = sum(not each.future.is_done for each in self.sent)
                    pytest.fail(f"{open_} of {len(self.sent)} records are not decided after {timeout:g} s")
                failed.append(sent)
        return failed

    def check(self, brokers: FaultyCluster, *, isolation: str = "read_committed") -> list[ConsumedRecord]:
        """Every record was acknowledged, and is there once, in order, at the offset that was told."""
        failed = self.settle()
        if failed:
            errors = "\n".join(f"{s.partition}/{s.number}: {s.future.exception!r}" for s in failed[:5])
            pytest.fail(f"{len(failed)} of {len(self.sent)} records failed; the first:\n{errors}")
        return self.check_acknowledged(brokers, isolation=isolation)

    def check_acknowledged(
        self, brokers: FaultyCluster, *, isolation: str = "read_committed"
    ) -> list[ConsumedRecord]:
        """What was acknowledged is there once, in order, at the offset that was told.

        Of what failed, what is said not to be written (``persisted`` 'no') is not there.
        """
        failed = {(s.partition, s.number): s.future.exception for s in self.settle()}
        told = {
            (s.partition, s.number): s.future.get(timeout=0).offset
            for s in self.sent
            if (s.partition, s.number) not in failed
        }
        records = read_confluent(brokers.bootstrap_servers, self.topic, isolation=isolation)
        problems: list[str] = []
        found: dict[tuple[int, int], int] = {}
        last: dict[int, int] = {}
        doubled = moved = 0
        for record in records:
            place = (record.partition, int((record.value or b"").split()[0]))
            if place in found:
                doubled += 1
                problems.append(f"{place} is at offsets {found[place]} and {record.offset}")
            elif place[1] < last.get(place[0], -1):
                moved += 1
                problems.append(f"{place} at offset {record.offset} comes after {last[place[0]]}")
            if place in told and place not in found and told[place] != record.offset:
                problems.append(f"{place} was acknowledged at {told[place]}, is at {record.offset}")
            if place not in told:
                error = failed.get(place)
                if error is None or getattr(error, "persisted", None) == "no":
                    problems.append(f"{place} is at offset {record.offset}, but: {error!r}")
            found.setdefault(place, record.offset)
            last[place[0]] = max(last.get(place[0], -1), place[1])
        lost = [place for place in told if place not in found]
        problems += [f"{place} was acknowledged at {told[place]} and is lost" for place in lost]
        if problems:
            pytest.fail(
                f"{len(self.sent)} sent, {len(told)} acknowledged, {len(records)} found, {len(lost)} lost, "
                f"{doubled} doubled, {moved} out of order; {len(problems)} problems, the first:\n"
                + "\n".join(problems[:8])
            )
        return records


def figures(producer: KafkaProducer) -> dict[str, Any]:
    """The group "producer-metrics" of a producer's metrics."""
    metrics = producer.metrics()
    assert metrics is not None
    return metrics["producer-metrics"]


@contextmanager
def meanwhile(disturb: Callable[[], None]) -> Iterator[Callable[[], bool]]:
    """Run ``disturb`` in a thread of its own; gives a function that tells whether it has ended.

    What it raises is raised when the block ends.
    """
    errors: list[BaseException] = []

    def run() -> None:
        try:
            disturb()
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run, name="disturb")
    thread.start()
    try:
        yield lambda: not thread.is_alive()
    finally:
        thread.join()
        if errors:
            raise errors[0]
