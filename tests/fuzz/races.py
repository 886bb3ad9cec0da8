"""Threads against threads: everything that a producer can be asked at once, while its brokers come and go.

    python -m tests.fuzz.races [--seconds 60] [--seed 1] [--rounds 10]

`make races` runs it with threads that give way at the worst moments (preempt.c), `make tsan` under
ThreadSanitizer. Each round is one producer with options drawn from the seed: several threads send in every
way there is, others flush, purge, wait, ask for figures; another one moves leaders, breaks connections,
adds partitions, and fails topics and brokers; callbacks send again. In the middle of it all the producer is
closed. Then every record that was accepted must have been decided exactly once, and nothing of
buffer.memory may be taken any more. What goes wrong in memory ends the process: that is for whoever runs
this to see.
"""

from __future__ import annotations

import argparse
import array
import asyncio
import faulthandler
import gc
import itertools
import os
import random
import sys
import threading
import time
import traceback
from collections.abc import Callable
from functools import partial
from typing import Any

from kprod import KafkaProducer
from kprod.errors import KafkaError
from kprod.testing import MockCluster

TOPICS = ("a", "b", "c")
BROKERS = 3
ERRORS = (
    "NOT_LEADER_OR_FOLLOWER",
    "MESSAGE_TOO_LARGE",
    "NOT_ENOUGH_REPLICAS",
    "CORRUPT_MESSAGE",
    "INVALID_RECORD",
)
STUCK_S = 120
"""Seconds after which a round that has not ended shows the stacks of its threads and ends the process."""


class Round:
    """One producer, and all that is done to it.

    Args:
        cluster: what it sends to; it must have TOPICS.
        seed: decides the options and what the threads do (not when).
        seconds: until it is closed.
    """

    def __init__(self, cluster: MockCluster, seed: int, seconds: float) -> None:
        draw = random.Random(seed)
        self.cluster = cluster
        self.seed = seed
        self.seconds = seconds
        self.options = self._options(draw)
        self.producer = KafkaProducer(bootstrap_servers=cluster.bootstrap_servers, **self.options)
        self.over = threading.Event()
        self.lock = threading.Lock()
        self.accepted = 0
        """Records that were sent with a callback, and not refused."""
        self.called = 0
        """Calls of their callbacks."""
        self.futures: list[Any] = []
        """Those that a thread still looks at."""
        self.broken: list[str] = []
        self.numbers = itertools.count()

    @staticmethod
    def _options(draw: random.Random) -> dict[str, Any]:
        acks = draw.choice([0, 1, "all", "all"])
        idempotent = acks == "all" and draw.random() < 0.7
        return {
            "acks": acks,
            "enable_idempotence": idempotent,
            "max_in_flight_requests_per_connection": draw.choice([1, 2, 5]),
            "compression_type": draw.choice(["none", "none", "lz4", "gzip", "zstd", "snappy"]),
            "linger_ms": draw.choice([0, 0, 1, 5]),
            "batch_size": draw.choice([200, 1000, 16384]),
            "buffer_memory": draw.choice([20_000, 200_000, 4_000_000]),
            "gapless": idempotent and draw.random() < 0.2,
            "delivery_report_headers": draw.random() < 0.5,
            "retry_backoff_ms": 1,
            "retry_backoff_max_ms": 5,
            "reconnect_backoff_ms": 1,
            "reconnect_backoff_max_ms": 5,
            "request_timeout_ms": draw.choice([30, 300]),
            "delivery_timeout_ms": draw.choice([310, 1000]),
            "max_block_ms": draw.choice([0, 20, 200]),
            "metadata_max_age_ms": 50,
        }

    # -- what is done to it

    def _note(self, error: Any, metadata: Any) -> None:
        with self.lock:
            self.called += 1
        number = next(self.numbers)
        if number % 97 == 0:
            self._try(lambda: self.producer.send_nowait("b", b"from a callback"))
        if number % 101 == 0 and metadata is not None:
            repr(metadata)
            tuple(metadata)

    def _try(self, call: Callable[[], Any]) -> Any:
        """The call's result; None if the producer refused, as it may."""
        try:
            return call()
        except (KafkaError, ValueError, asyncio.TimeoutError):
            return None

    def _sent(self, count: int, call: Callable[[], Any]) -> Any:
        """Count what a call with a callback has sent."""
        with self.lock:
            self.accepted += count
        try:
            return call()
        except (KafkaError, ValueError) as error:
            # A bulk call that ends on the way says how far it came.
            future = getattr(error, "future", None)
            with self.lock:
                self.accepted -= count - (future.appended if future is not None else 0)
            return None

    def sender(self, draw: random.Random) -> None:
        """Sends in every way there is."""
        producer = self.producer
        while not self.over.is_set():
            topic = draw.choice(TOPICS)
            value = bytes(draw.choice([10, 100, 1000]))
            key = b"%d" % draw.randrange(50) if draw.random() < 0.5 else None
            way = draw.randrange(6)
            if way == 0:
                for _ in range(draw.randrange(1, 200)):
                    self._try(partial(producer.send_nowait, topic, value, key))
            elif way == 1:
                headers = [("h", b"v")]
                for _ in range(draw.randrange(1, 100)):
                    self._sent(1, partial(producer.send, topic, value, key, headers, on_delivery=self._note))
            elif way == 2:
                futures = [self._try(partial(producer.send, topic, value, key)) for _ in range(50)]
                self._keep(draw, [future for future in futures if future is not None])
            elif way == 3:
                values = [value] * draw.randrange(1, 600)
                keys = [b"%d" % (i % 7) for i in range(len(values))] if draw.random() < 0.5 else None
                send = partial(producer.send_many, topic, values, keys, on_delivery=self._note)
                future = self._sent(len(values), send)
                self._keep(draw, [] if future is None else [future])
            elif way == 4:
                count = draw.randrange(1, 1000)
                column = (b"0123456789" * count, array.array("i", range(0, 10 * count + 1, 10)))
                future = self._try(partial(producer.send_columns, topic, column))
                self._keep(draw, [] if future is None else [future])
            else:
                where = draw.randrange(4)
                self._sent(1, partial(producer.send, topic, value, partition=where, on_delivery=self._note))

    def _keep(self, draw: random.Random, futures: list[Any]) -> None:
        for future in futures:
            if draw.random() < 0.2:
                future.add_both(self._seen)
            if draw.random() < 0.1:
                future.add_done_callback(self._seen)
        with self.lock:
            # Some are looked at by several threads, some by none: those are dropped here.
            self.futures = (self.futures + futures[::3])[-100:]

    def _seen(self, outcome: Any) -> None:
        repr(outcome)

    def waiter(self, draw: random.Random) -> None:
        """Asks futures, which others ask as well."""
        while not self.over.is_set():
            with self.lock:
                future = draw.choice(self.futures) if self.futures else None
            if future is None:
                time.sleep(0.001)
                continue
            way = draw.randrange(5)
            if way < 3:
                self._try(partial(future.get, timeout=0.05))
            elif way == 3:
                future.done(), future.succeeded(), future.exception, repr(future)
            else:
                self._try(partial(_run, future))

    def flusher(self, draw: random.Random) -> None:
        """Flushes, and asks for figures."""
        while not self.over.is_set():
            self._try(partial(self.producer.flush, timeout=draw.choice([0, 0.01, 0.2])))
            self._try(self.producer.metrics)
            self._try(lambda: self.producer.partitions_for("a"))
            time.sleep(draw.choice([0, 0.001, 0.01]))

    def purger(self, draw: random.Random) -> None:
        """Gives up what waits, or what is in flight."""
        while not self.over.is_set():
            time.sleep(draw.choice([0.001, 0.01, 0.1]))
            way = draw.randrange(3)
            self._try(partial(self.producer.purge, in_queue=way != 1, in_flight=way != 0))

    def core(self, draw: random.Random) -> None:
        """Does what the control thread does when topics and brokers fail: it may come at any moment."""
        engine: Any = self.producer.engine
        while not self.over.is_set():
            time.sleep(draw.choice([0, 0.001, 0.02]))
            handles = list(engine._shared.handles)
            if not handles:
                continue
            topic = draw.choice(handles)
            way = draw.randrange(4)
            if way == 0:
                engine._loop.fail_topic(topic, 29)
            elif way == 1:
                engine._loop.fail_broker(draw.randrange(1, BROKERS + 1), -1018)
            elif way == 2:
                # No leader, until the next metadata; and the broker that takes its place is not there.
                engine._loop.set_leaders(
                    topic, [(i, draw.choice([-1, 1, 2, 3, 9]), 0) for i in range(topic.partition_count)], None
                )
            else:
                (
                    topic.available_partitions(),
                    topic.counters(),
                    engine._loop.load(1),
                    engine._loop.idle_since(1),
                )
            engine.accumulator.undecided_records()

    def saboteur(self, draw: random.Random) -> None:
        """Disturbs the brokers."""
        cluster = self.cluster
        while not self.over.is_set():
            time.sleep(draw.choice([0.001, 0.01, 0.05]))
            way = draw.randrange(8)
            node = draw.randrange(1, BROKERS + 1)
            if way == 0:
                cluster.disconnect_clients(node)
            elif way == 1:
                cluster.inject("Produce", draw.choice(ERRORS), times=draw.randrange(1, 4))
            elif way == 2:
                cluster.inject("Produce", close_connection=draw.choice(["before", "after", "mid_response"]))
            elif way == 3:
                cluster.inject("Produce", drop_response=True)
            elif way == 4:
                cluster.move_leader(draw.choice(TOPICS), draw.randrange(4), node)
            elif way == 5:
                cluster.inject("Metadata", close_connection="mid_response")
            elif way == 6:
                topic = draw.choice(TOPICS)
                if (total := cluster.topics()[topic]) < 40:
                    cluster.add_partitions(topic, total + 1)
            else:
                cluster.set_latency(draw.choice([0, 0, 5]), node)

    # -- one round

    def run(self) -> list[str]:
        """Run it; what was wrong afterwards."""
        draw = random.Random(self.seed + 1)
        jobs = [self.sender] * 4 + [self.waiter] * 2 + [self.flusher, self.core, self.saboteur]
        if draw.random() < 0.5:
            jobs.append(self.purger)
        threads = [
            threading.Thread(target=self._work, args=(job, random.Random(draw.random())), name=job.__name__)
            for job in jobs
        ]
        for thread in threads:
            thread.start()
        time.sleep(self.seconds)
        # In the middle of it: who sends, waits or flushes now must get an error or an outcome.
        self.producer.close(timeout=draw.choice([0, 0, 0.05, 0.5]))
        time.sleep(0.01)
        self.over.set()
        for thread in threads:
            thread.join()
        return self.broken + self._audit()

    def _work(self, job: Callable[[random.Random], None], draw: random.Random) -> None:
        try:
            job(draw)
        except BaseException as error:
            self.broken.append(f"{job.__name__}: {error!r} at {traceback.format_tb(error.__traceback__)[-1]}")
            self.over.set()

    def _audit(self) -> list[str]:
        wrong = []
        engine: Any = self.producer.engine
        undecided = sum(not future.done() for future in self.futures)
        if undecided:
            wrong.append(f"{undecided} futures are not decided after close()")
        if self.accepted != self.called:
            wrong.append(f"{self.accepted} records have callbacks, which were called {self.called} times")
        if left := engine.accumulator.incomplete_batches:
            wrong.append(f"{left} batches are not decided")
        if used := engine.accumulator.memory()["used"]:
            wrong.append(f"{used} bytes of buffer_memory are taken for good")
        return wrong


def _run(future: Any) -> None:
    """Await a future of the producer, for a moment, in a loop of this thread's own."""

    async def outcome() -> Any:
        return await future

    asyncio.run(asyncio.wait_for(outcome(), 0.02))


def main() -> int:
    """Run rounds until the time is over, or anything is wrong; the exit status."""
    parser = argparse.ArgumentParser(description="Look for races in kprod.")
    parser.add_argument("--seconds", type=float, default=60, help="begin no round after these (60)")
    parser.add_argument("--rounds", type=int, default=10**9, help="at most so many rounds")
    parser.add_argument(
        "--seed", type=int, default=1, help="of the first round; the next one has the next (1)"
    )
    parser.add_argument("--each", type=float, default=1.0, help="seconds per round (1)")
    arguments = parser.parse_args()
    # The brokers have a process of their own, which need not give way. A sanitized core loads in no
    # process without the sanitizer's library, so that it is for children as well: then they are threads
    # of this one.
    apart = "KPROD_SANITIZE" not in os.environ
    if apart:
        os.environ.pop("LD_PRELOAD", None)
    faulthandler.enable()
    ends = time.monotonic() + arguments.seconds
    records = number = 0
    while number < arguments.rounds and time.monotonic() < ends:
        seed = arguments.seed + number
        faulthandler.dump_traceback_later(STUCK_S, exit=True)
        with MockCluster(brokers=BROKERS, replication_factor=BROKERS, strict=False, process=apart) as cluster:
            for topic in TOPICS:
                cluster.create_topic(topic, partitions=4)
            one = Round(cluster, seed, arguments.each)
            wrong = one.run()
        faulthandler.cancel_dump_traceback_later()
        if wrong:
            print(f"seed {seed}, {one.options}:", *wrong, sep="\n    ", flush=True)
            return 1
        records += one.accepted
        number += 1
        del one
        gc.collect()
    print(f"{number} rounds, {records} callbacks: every record was decided once, all memory was given back")
    return 0


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    sys.exit(code)
