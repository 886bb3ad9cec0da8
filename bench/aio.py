"""asyncio producers side by side on one broker: ``python -m bench.aio``.

Two workloads, with the same code and settings for every client (acks=all, idempotent, linger, batch size):

``groups``
    ``await send()`` for a group of records, then await each delivery of the group, one after the other
    (``--await gather``: with ``asyncio.gather()``). CPU time of the client's process per acknowledged record.
``latency``
    ``await send_and_wait()``, one record after the other, without linger. Median and 99th percentile.

The clients are ``aiokafka``, ``kprod`` (``kprod.aio.AsyncKafkaProducer``) and ``compat``
(``kprod.compat.aiokafka``). Every measurement has a fresh process and a fresh topic, after a warm-up that is
not counted, and counts only if the topic ends at as many records as were sent. The clients take turns,
in another order each round.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import resource
import secrets
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from time import perf_counter
from typing import Any

CLIENTS = ("aiokafka", "kprod", "compat")
_PROJECT = Path(__file__).resolve().parents[1]


# --- one measurement, in a process of its own


def _producer(client: str, bootstrap: str, linger_ms: float, batch_size: int) -> Any:
    common = {"bootstrap_servers": bootstrap, "acks": "all", "enable_idempotence": True}
    if client == "kprod":
        from kprod.aio import AsyncKafkaProducer

        return AsyncKafkaProducer(**common, linger_ms=linger_ms, batch_size=batch_size)
    if client == "compat":
        from kprod.compat.aiokafka import AIOKafkaProducer
    else:
        from aiokafka import AIOKafkaProducer
    return AIOKafkaProducer(**common, linger_ms=int(linger_ms), max_batch_size=batch_size)


async def _send_groups(producer: Any, topic: str, values: list[bytes], group: int, gather: bool) -> None:
    for first in range(0, len(values), group):
        deliveries = [await producer.send(topic, value) for value in values[first : first + group]]
        if gather:
            await asyncio.gather(*deliveries)
        else:
            for delivery in deliveries:
                await delivery


async def _send_and_wait(producer: Any, topic: str, values: list[bytes]) -> list[float]:
    took = []
    for value in values:
        since = perf_counter()
        await producer.send_and_wait(topic, value)
        took.append(perf_counter() - since)
    return took


def _cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


async def _measure(asked: dict[str, Any]) -> dict[str, float]:
    topic, workload = asked["topic"], asked["workload"]
    producer = _producer(asked["client"], asked["bootstrap"], asked["linger_ms"], asked["batch_size"])
    pool = [random.randbytes(asked["size"]) for _ in range(1000)]

    def values(count: int) -> list[bytes]:
        return [pool[i % len(pool)] for i in range(count)]

    await producer.start()
    try:
        gather = asked["await"] == "gather"
        warmup, records = values(asked["warmup"]), values(asked["records"])
        if workload == "groups":
            await _send_groups(producer, topic, warmup, asked["group"], gather)
        else:
            await _send_and_wait(producer, topic, warmup)
        cpu, since = _cpu(), perf_counter()
        took: list[float] = []
        if workload == "groups":
            await _send_groups(producer, topic, records, asked["group"], gather)
        else:
            took = await _send_and_wait(producer, topic, records)
        seconds, cpu = perf_counter() - since, _cpu() - cpu
    finally:
        await producer.stop()
    found = {"cpu_us": cpu / len(records) * 1e6, "records_per_s": len(records) / seconds}
    if took:
        took.sort()
        found["p50_ms"] = took[len(took) // 2] * 1e3
        found["p99_ms"] = took[len(took) * 99 // 100] * 1e3
    return found


# --- all of them, in turns


def _run(asked: dict[str, Any]) -> dict[str, float]:
    done = subprocess.run(
        [sys.executable, "-m", "bench.aio", "--measure"],
        input=json.dumps(asked),
        capture_output=True,
        text=True,
        cwd=_PROJECT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
        timeout=600,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{asked['client']} failed:\n{done.stderr}")
    found: dict[str, float] = json.loads(done.stdout)
    return found


@contextlib.contextmanager
def _broker(bootstrap: str | None) -> Iterator[str]:
    from tests.kafka.cluster import KafkaCluster

    if bootstrap:
        yield bootstrap
        return
    with KafkaCluster(1, long_running=True) as cluster:
        yield cluster.bootstrap_servers


def compare(options: argparse.Namespace) -> dict[str, Any]:
    """Run all workloads, clients and rounds.

    Raises:
        RuntimeError: a client failed, or a topic does not hold what was sent.
    """
    from confluent_kafka import Consumer, TopicPartition
    from confluent_kafka.admin import AdminClient, NewTopic

    figures: dict[str, dict[str, list[dict[str, float]]]] = {
        workload: {client: [] for client in options.clients} for workload in options.workloads
    }
    with _broker(options.bootstrap) as bootstrap:
        admin = AdminClient({"bootstrap.servers": bootstrap, "log_level": 2})
        reader = Consumer({"bootstrap.servers": bootstrap, "group.id": "bench", "log_level": 2})
        for turn in range(options.rounds):
            for workload in options.workloads:
                clients = list(options.clients)
                random.Random(turn).shuffle(clients)
                for client in clients:
                    topic = f"bench-aio-{client}-{secrets.token_hex(4)}"
                    admin.create_topics([NewTopic(topic, options.partitions, 1)])[topic].result()
                    records = options.records if workload == "groups" else options.latency_records
                    if client == "aiokafka" and workload == "groups":
                        records //= options.slow_part
                    asked = {
                        "client": client, "bootstrap": bootstrap, "topic": topic, "workload": workload,
                        "records": records, "warmup": records // 5, "size": options.size,
                        "group": options.group,
                        "linger_ms": options.linger_ms if workload == "groups" else 0,
                        "batch_size": options.batch_size, "await": options.awaiting,
                    }  # fmt: skip
                    found = _run(asked)
                    held = sum(
                        reader.get_watermark_offsets(TopicPartition(topic, number))[1]
                        for number in range(options.partitions)
                    )
                    if held != asked["records"] + asked["warmup"]:
                        raise RuntimeError(f"{client}: the topic holds {held} records, not what was sent")
                    admin.delete_topics([topic])[topic].result()
                    figures[workload][client].append(found)
                    print(f"round {turn + 1} {workload:8}{client:10}{found}", file=sys.stderr)
        reader.close()
    return figures


def report(figures: dict[str, Any]) -> str:
    """The figures as Markdown: medians over the rounds, the lowest and highest beside them."""
    lines = []
    for workload, clients in figures.items():
        lines += [f"### {workload}", "", "| client | figure | median | lowest | highest | / aiokafka |"]
        lines += ["|---|---|---|---|---|---|"]
        names = list(next(iter(clients.values()))[0])
        for client, rounds in clients.items():
            for name in names:
                found = sorted(measured[name] for measured in rounds)
                middle = statistics.median(found)
                peer = [measured[name] for measured in clients.get("aiokafka", ())]
                ratio = f"{middle / statistics.median(peer):.3f}" if peer else ""
                lines.append(
                    f"| {client} | {name} | {middle:.3f} | {found[0]:.3f} | {found[-1]:.3f} | {ratio} |"
                )
        lines.append("")
    return "\n".join(lines)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m bench.aio", description=__doc__.split("\n\n")[0])
    parser.add_argument("--clients", nargs="+", choices=CLIENTS, default=CLIENTS)
    parser.add_argument(
        "--workloads", nargs="+", choices=("groups", "latency"), default=("groups", "latency")
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--records", type=int, default=200_000, help="of the groups")
    parser.add_argument("--latency-records", type=int, default=2000)
    parser.add_argument("--slow-part", type=int, default=4, help="aiokafka gets records / this in groups")
    parser.add_argument("--group", type=int, default=1000, help="records that are awaited together")
    parser.add_argument("--await", dest="awaiting", choices=("each", "gather"), default="each")
    parser.add_argument("--size", type=int, default=100, help="bytes of a value")
    parser.add_argument("--linger-ms", type=float, default=5, help="of the groups")
    parser.add_argument("--batch-size", type=int, default=65536)
    parser.add_argument("--partitions", type=int, default=4)
    parser.add_argument("--bootstrap", help="a cluster that is there already")
    parser.add_argument("--json", type=Path, help="write all figures there")
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(asyncio.run(_measure(json.load(sys.stdin)))))
        return
    figures = compare(options)
    if options.json:
        options.json.write_text(
            json.dumps({"options": vars(options), "figures": figures}, indent=1, default=str)
        )
    print(report(figures))


if __name__ == "__main__":
    main()
