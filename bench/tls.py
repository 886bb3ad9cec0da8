"""TLS: throughput and the client's processor time per record, of kprod's two designs and of confluent-kafka.

    python -m bench.tls                    # starts a real Kafka node with a TLS listener
    python -m bench.tls --records 1000000 --repeats 3

Every run is a process of its own, which sends records of 1 KB to a topic with one partition and waits until
all are acknowledged; the runs of all clients take turns. `spinning` adds a thread that only computes, as an
application may, and so wants the GIL all the time. Processor time is that of the client's process, without
start-up and connecting, and without the thread that spins.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

SIZE = 1000
CLIENTS = ("kprod plaintext", "kprod", "kprod pump", "confluent plaintext", "confluent")
EXPLAINED = {
    "kprod plaintext": "kprod, no TLS",
    "kprod": "kprod: OpenSSL in the network loop, without the GIL",
    "kprod pump": "kprod: Python's ssl on a thread, through a pair of sockets",
    "confluent plaintext": "confluent-kafka, no TLS",
    "confluent": "confluent-kafka: OpenSSL in librdkafka",
}


def send(
    client: str, servers: str, cafile: str, topic: str, records: int, spinning: bool
) -> dict[str, float]:
    """One run, in this process."""
    encrypted = not client.endswith("plaintext")
    value = os.urandom(SIZE)
    producer: Any
    if client.startswith("kprod"):
        from kprod import KafkaProducer
        from kprod._core.tls import why_not

        if client == "kprod" and why_not():
            raise SystemExit(f"kprod cannot take connections over here: {why_not()}")
        options: dict[str, Any] = {"security_protocol": "SSL", "ssl_cafile": cafile} if encrypted else {}
        producer = KafkaProducer(
            bootstrap_servers=servers, linger_ms=5, batch_size=131072, buffer_memory=67108864, **options
        )
        producer.send(topic, value).get(30)

        def run() -> None:
            for _ in range(records):
                producer.send(topic, value)
            producer.flush()

    else:
        from confluent_kafka import Producer

        failed = 0
        options = {"security.protocol": "ssl", "ssl.ca.location": cafile} if encrypted else {}
        producer = Producer(
            {
                "bootstrap.servers": servers,
                "enable.idempotence": True,
                "linger.ms": 5,
                "batch.size": 131072,
                "queue.buffering.max.kbytes": 65536,
                **options,
            }
        )
        producer.produce(topic, value)
        assert producer.flush(30) == 0

        def run() -> None:
            nonlocal failed
            for _ in range(records):
                while True:
                    try:
                        producer.produce(topic, value)
                        break
                    except BufferError:
                        producer.poll(0.01)
            failed += producer.flush()

    spun = 0.0
    stop = threading.Event()

    def spin() -> None:
        nonlocal spun
        began = time.thread_time()
        while not stop.is_set():
            for _ in range(1000):
                pass
        spun = time.thread_time() - began

    spinner = threading.Thread(target=spin)
    if spinning:
        spinner.start()
    cpu, began = time.process_time(), time.perf_counter()
    run()
    elapsed, cpu = time.perf_counter() - began, time.process_time() - cpu
    stop.set()
    if spinning:
        spinner.join()
    if client.startswith("kprod"):
        producer.close()
    elif failed:
        raise SystemExit(f"{failed} records were not delivered")
    return {"records_per_s": records / elapsed, "cpu_us": (cpu - spun) / records * 1e6}


def run_apart(
    client: str, servers: str, cafile: str, topic: str, records: int, spinning: bool
) -> dict[str, float]:
    """One run, in a process of its own."""
    command = [
        sys.executable,
        "-m",
        "bench.tls",
        "--client",
        client,
        "--servers",
        servers,
        "--cafile",
        cafile,
    ]
    command += ["--topic", topic, "--records", str(records), *(["--spinning"] if spinning else [])]
    environment = {**os.environ, **({"KPROD_TLS_PUMP": "1"} if client == "kprod pump" else {})}
    said = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True, text=True)
    result: dict[str, float] = json.loads(said.stdout.splitlines()[-1])
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=int, default=500_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--clients", nargs="*", default=CLIENTS, choices=CLIENTS)
    parser.add_argument("--output", type=Path, help="write all figures there, as JSON")
    parser.add_argument("--client", help=argparse.SUPPRESS)
    parser.add_argument("--servers", help=argparse.SUPPRESS)
    parser.add_argument("--cafile", help=argparse.SUPPRESS)
    parser.add_argument("--topic", help=argparse.SUPPRESS)
    parser.add_argument("--spinning", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.client:
        print(
            json.dumps(
                send(
                    arguments.client,
                    arguments.servers,
                    arguments.cafile,
                    arguments.topic,
                    arguments.records,
                    arguments.spinning,
                )
            )
        )
        return
    from tests.kafka.cluster import KafkaCluster

    figures: dict[str, list[dict[str, float]]] = {}
    with KafkaCluster(1, heap_mb=768, long_running=True, secure=True) as cluster:
        cafile = str(cluster.certificates.file)
        for repeat in range(arguments.repeats):
            for spinning in (False, True):
                for client in arguments.clients:
                    plaintext = client.endswith("plaintext")
                    if spinning and plaintext:
                        continue
                    topic = cluster.create_topic(f"tls-{repeat}-{spinning}-{client.replace(' ', '-')}")
                    servers = cluster.bootstrap_servers if plaintext else cluster.servers("SSL")
                    result = run_apart(client, servers, cafile, topic, arguments.records, spinning)
                    cluster.delete_topic(topic)
                    what = f"{client}, spinning" if spinning else client
                    figures.setdefault(what, []).append(result)
                    print(
                        f"{what:30} {result['records_per_s']:10,.0f} records/s "
                        f"{result['cpu_us']:8.2f} us/record",
                        file=sys.stderr,
                    )
    if arguments.output:
        arguments.output.write_text(json.dumps(figures, indent=1) + "\n")
    print("| client | records/s | spinning | client CPU us/record | spinning |\n|---|--:|--:|--:|--:|")
    for client in arguments.clients:
        row = [EXPLAINED[client]]
        for figure, form in (("records_per_s", ",.0f"), ("cpu_us", ".2f")):
            for suffix in ("", ", spinning"):
                found = figures.get(client + suffix)
                row.append(format(statistics.median(r[figure] for r in found), form) if found else "")
        print("| " + " | ".join(row) + " |")


if __name__ == "__main__":
    main()
