"""Looks for leaks: a million records, with connects, errors, splits, expiries, then LeakSanitizer's verdict.

    make leaks [ARGS="--records 100000"]

LeakSanitizer reports memory that nothing refers to. What is referred to but grows is seen here: resident
memory after the last rounds must not be above that after the first half of them.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import os
import sys
from collections.abc import Callable
from typing import Any

from kprod import KafkaProducer
from kprod.errors import KafkaError
from kprod.testing import MockCluster
from tests.fuzz.hostile_broker import HostileBroker
from tests.fuzz.memory import resident

FOR_GOOD_WEATHER: dict[str, Any] = {
    "linger_ms": 1,
    "request_timeout_ms": 60_000,
    "delivery_timeout_ms": 120_000,
    "max_block_ms": 60_000,
}
OPTIONS: dict[str, Any] = {
    "linger_ms": 1,
    "retry_backoff_ms": 1,
    "retry_backoff_max_ms": 2,
    "reconnect_backoff_ms": 1,
    "reconnect_backoff_max_ms": 2,
    "bootstrap_timeout_ms": 300,
    "max_block_ms": 300,
    "request_timeout_ms": 200,
    "delivery_timeout_ms": 300,
}
GROWTH = 24 << 20
"""Most bytes that the second half of the rounds may add."""


def send_all(producer: KafkaProducer, records: int, topic: str = "t") -> None:
    """Send, with everything that may hang on a record, and let every outcome happen."""
    done: list[object] = []
    for i in range(records):
        try:
            future = producer.send(
                topic, b"value %d" % i, key=b"key", headers=[("h", b"v")] if i % 7 == 0 else None
            )
        except KafkaError:
            continue
        if i % 5 == 0:
            future.add_callback(done.append)
        if i % 11 == 0:
            future.add_errback(done.append)
    try:
        producer.flush(timeout=120)
    except KafkaError:
        pass


def good_weather(cluster: MockCluster, records: int) -> None:
    """Acknowledged, compressed, on a new connection."""
    for codec in ("none", "gzip", "zstd", "lz4", "snappy"):
        producer = KafkaProducer(
            bootstrap_servers=cluster.bootstrap_servers, compression_type=codec, **FOR_GOOD_WEATHER
        )
        send_all(producer, records // 5)
        producer.close()
    cluster.clear()


def answered(**row: Any) -> Callable[[Any], bytes]:
    """A broker's answer to Produce with an error."""

    def answer(question: Any) -> bytes:
        body = question.honest_body()
        for partition in body["responses"][0]["partition_responses"]:
            partition.update(row)
        return bytes(question.encode(body))

    return answer


FAULTS: dict[str, dict[str, Callable[[Any], Any]]] = {
    "refused": {"Produce": answered(error_code=87, error_message="no", record_errors=[
        {"batch_index": 0, "batch_index_error_message": "this one"}])},
    "too large": {"Produce": answered(error_code=10)},
    "again": {"Produce": answered(error_code=6)},
    "malformed": {"Produce": lambda q: q.honest()[:4] + b"\xff" * 20},
    "close": {"Produce": lambda q: None},
    "no metadata": {"Metadata": lambda q: q.honest()[:9]},
    "no producer id": {"InitProducerId": lambda q: q.honest(producer_id=-1)},
    "hello": {"ApiVersions": lambda q: b"\xff" * 100},
}  # fmt: skip


def bad_weather(records: int) -> None:
    """Refused, split, retried, expired, malformed, disconnected."""
    for answers in FAULTS.values():
        with HostileBroker(answers) as broker:
            try:
                producer = KafkaProducer(bootstrap_servers=broker.address, batch_size=2000, **OPTIONS)
            except KafkaError:
                continue
            send_all(producer, records // len(FAULTS))
            producer.close(timeout=0.2)


def leaked() -> bool:
    """LeakSanitizer's verdict.

    Numbers and texts that only a running function refers to count as leaked: it does not know where Python
    keeps its frames. Hence this is called when nothing else runs, and not at the end of the process, when
    Python lets go of its own.
    """
    check = getattr(ctypes.CDLL(None), "__lsan_do_recoverable_leak_check", None)
    if check is None:
        print("LeakSanitizer is not loaded")
        return False
    found = bool(check())
    print("LeakSanitizer: " + ("leaks" if found else "no leaks"))
    return found


def grows() -> bool:
    """Run the rounds; whether memory grows."""
    parser = argparse.ArgumentParser(description="Look for leaks in kprod.")
    parser.add_argument("--records", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=20)
    arguments = parser.parse_args()
    each = arguments.records // arguments.rounds
    sizes = []
    with MockCluster(strict=False) as cluster:
        cluster.create_topic("t")
        for number in range(arguments.rounds):
            good_weather(cluster, each * 4 // 5)
            bad_weather(each // 5)
            gc.collect()
            sizes.append(resident())
            print(f"round {number + 1}: {sizes[-1] >> 20} MB resident", flush=True)
    middle = len(sizes) // 2
    growth = sizes[-1] - sizes[middle]
    print(f"{arguments.records} records; the second half of the rounds added {growth / 1e6:.1f} MB")
    # AddressSanitizer keeps what was freed for a while, so that there growth says nothing.
    return growth > GROWTH and not hasattr(ctypes.CDLL(None), "__asan_init")


if __name__ == "__main__":
    grown = grows()
    gc.collect()
    failed = leaked() or grown
    sys.stdout.flush()
    os._exit(failed)
