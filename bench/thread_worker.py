"""Several threads that send at once, in a process of its own: ``python -m bench.thread_worker``.

Reads a JSON line (client, way, bootstrap, threads, records), prints a JSON line: records per second
until all are acknowledged, the same until all are handed over, and CPU time in ns per record. Needs nothing
but the client, so that any interpreter can run it.
"""

from __future__ import annotations

import json
import sys
import sysconfig
import threading
from collections.abc import Callable
from time import perf_counter, process_time
from typing import Any

WAYS = ("no key", "a partition each", "keys", "send_many")
_BLOCK = 1024
_KEYS = 5 * _BLOCK


def _kprod(bootstrap: str, way: str) -> tuple[Callable[[int, int], None], Callable[[], None]]:
    from kprod import KafkaProducer

    producer = KafkaProducer(
        bootstrap_servers=bootstrap, linger_ms=5, batch_size=65536, buffer_memory=256 << 20
    )
    producer.send("t", b"first").get(30)

    def work(thread: int, records: int) -> None:
        # Free-threaded Python counts no references to what is in the code, names of arguments apart (3.14):
        # so none are given by name. The rest is this thread's.
        value = bytes(bytearray(100))
        send = producer.send_nowait
        if way == "no key":
            for _ in range(records):
                send("t", value)
        elif way == "a partition each":
            for _ in range(records):
                send("t", value, None, None, thread)
        elif way == "keys":
            keys = [b"key-%d-%d" % (thread, i) for i in range(_KEYS)]
            for _ in range(records // _KEYS):
                for key in keys:
                    send("t", value, key)
        else:
            values = [value] * _BLOCK
            for _ in range(records // _BLOCK):
                producer.send_many("t", values)

    return work, producer.flush


def _confluent(bootstrap: str) -> tuple[Callable[[int, int], None], Callable[[], None]]:
    from confluent_kafka import Producer

    producer = Producer(
        {
            "bootstrap.servers": bootstrap,
            "enable.idempotence": True,
            "linger.ms": 5,
            "batch.size": 65536,
            "queue.buffering.max.messages": 10_000_000,
        }
    )
    producer.produce("t", b"first")
    producer.flush()

    def work(thread: int, records: int) -> None:
        value = bytes(bytearray(100))
        produce = producer.produce
        for _ in range(records):
            produce("t", value)

    def drain() -> None:
        assert producer.flush() == 0

    return work, drain


def measure(client: str, way: str, bootstrap: str, threads: int, records: int) -> dict[str, Any]:
    """Send ``records`` twice, divided among ``threads``; the second time counts. The ways are kprod's."""
    work, drain = _kprod(bootstrap, way) if client == "kprod" else _confluent(bootstrap)
    each = records // threads // _KEYS * _KEYS
    told: dict[str, Any] = {}
    for _ in range(2):
        team = [threading.Thread(target=work, args=(i, each)) for i in range(threads)]
        began, cpu = perf_counter(), process_time()
        for thread in team:
            thread.start()
        for thread in team:
            thread.join()
        handed_over = perf_counter() - began
        drain()
        elapsed, cpu = perf_counter() - began, process_time() - cpu
        sent = threads * each
        told = {
            "sent": 1 + 2 * sent,
            "rate": sent / elapsed,
            "handed_over": sent / handed_over,
            "cpu_ns": cpu / sent * 1e9,
            "python": sys.version.split()[0] + ("t" if sysconfig.get_config_var("Py_GIL_DISABLED") else ""),
            "gil": getattr(sys, "_is_gil_enabled", lambda: True)(),
        }
    return told


if __name__ == "__main__":
    print(json.dumps(measure(**json.loads(sys.stdin.readline()))))
