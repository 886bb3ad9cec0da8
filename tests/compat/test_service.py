"""Small services of the other clients run on kprod with another import only, on real Kafka.

FastAPI with aiokafka, Flask with confluent-kafka, a script with kafka-python.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.conftest import TopicFactory
from tests.kafka.cluster import KafkaCluster
from tests.kafka.readers import read_confluent

SERVICE = """
import json
import os
from contextlib import asynccontextmanager

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError, MessageSizeTooLargeError
from fastapi import FastAPI, HTTPException, Request


@asynccontextmanager
async def lifespan(app):
    app.state.producer = AIOKafkaProducer(
        bootstrap_servers=os.environ["SERVICE_BOOTSTRAP"],
        value_serializer=lambda value: json.dumps(value).encode(),
        acks="all",
        enable_idempotence=True,
    )
    await app.state.producer.start()
    try:
        yield
    finally:
        await app.state.producer.stop()


app = FastAPI(lifespan=lifespan)


@app.post("/orders/{customer}")
async def order(customer: str, request: Request):
    try:
        metadata = await request.app.state.producer.send_and_wait(
            os.environ["SERVICE_TOPIC"], await request.json(), key=customer.encode(), headers=[("v", b"1")]
        )
    except MessageSizeTooLargeError as error:
        raise HTTPException(413, str(error))
    except KafkaError as error:
        raise HTTPException(503, str(error))
    return {"partition": metadata.partition, "offset": metadata.offset, "class": type(metadata).__module__}
"""


def load(path: Path, source: str) -> Any:
    path.write_text(source, encoding="utf-8")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("package", ["aiokafka", "kprod.compat.aiokafka"])
def test_a_service_runs_unchanged_but_for_the_import(
    kafka: KafkaCluster,
    topic: TopicFactory,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    package: str,
) -> None:
    name = topic(partitions=3)
    monkeypatch.setenv("SERVICE_BOOTSTRAP", kafka.bootstrap_servers)
    monkeypatch.setenv("SERVICE_TOPIC", name)
    service = load(
        tmp_path / f"service_{package.replace('.', '_')}.py",
        SERVICE.replace("from aiokafka", f"from {package}"),
    )
    assert service.AIOKafkaProducer.__module__.startswith(package)

    async def main() -> list[dict[str, Any]]:
        transport = httpx.ASGITransport(app=service.app)
        async with (
            service.app.router.lifespan_context(service.app),
            httpx.AsyncClient(transport=transport, base_url="http://service") as client,
        ):
            answers = await asyncio.gather(
                *(client.post(f"/orders/customer-{n % 7}", json={"number": n}) for n in range(100))
            )
            too_large = await client.post("/orders/customer-0", json={"text": "x" * 1_100_000})
            assert too_large.status_code == 413, too_large.text
        assert {answer.status_code for answer in answers} == {200}
        return [answer.json() for answer in answers]

    places = asyncio.run(main())
    found = read_confluent(kafka.bootstrap_servers, name)
    assert sorted((record.partition, record.offset) for record in found) == sorted(
        (place["partition"], place["offset"]) for place in places
    )
    assert {(record.key, record.headers) for record in found} == {
        (b"customer-%d" % n, (("v", b"1"),)) for n in range(7)
    }


FLASK = """
import os
import threading

from confluent_kafka import KafkaException, Producer
from flask import Flask, jsonify, request

app = Flask(__name__)
failures = []
producer = Producer(
    {
        "bootstrap.servers": os.environ["SERVICE_BOOTSTRAP"],
        "client.id": "orders",
        "acks": "all",
        "linger.ms": 2,
        "compression.type": "lz4",
        "error_cb": failures.append,
    }
)


@app.post("/orders/<customer>")
def order(customer):
    done = threading.Event()
    report = {}

    def delivered(error, message):
        if error is not None:
            report["error"] = error.str()
        else:
            report.update(partition=message.partition(), offset=message.offset(), kind=message.timestamp()[0])
        done.set()

    try:
        producer.produce(
            os.environ["SERVICE_TOPIC"],
            key=customer,
            value=request.get_data(),
            headers={"v": b"1"},
            on_delivery=delivered,
        )
    except BufferError:
        return jsonify(error="queue full"), 503
    except KafkaException as error:
        return jsonify(error=error.args[0].name()), 413
    while not done.is_set():
        producer.poll(0.1)
    return jsonify(report), 503 if "error" in report else 201


@app.get("/health")
def health():
    brokers = producer.list_topics(os.environ["SERVICE_TOPIC"], timeout=10).brokers
    return jsonify(brokers=len(brokers), waiting=len(producer), failures=len(failures))
"""


@pytest.mark.parametrize("package", ["confluent_kafka", "kprod.compat.confluent_kafka"])
def test_a_flask_service_runs_unchanged_but_for_the_import(
    kafka: KafkaCluster,
    topic: TopicFactory,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    package: str,
) -> None:
    name = topic(partitions=3)
    monkeypatch.setenv("SERVICE_BOOTSTRAP", kafka.bootstrap_servers)
    monkeypatch.setenv("SERVICE_TOPIC", name)
    service = load(
        tmp_path / f"flask_{package.replace('.', '_')}.py",
        FLASK.replace("from confluent_kafka", f"from {package}"),
    )
    bodies = {n: f'{{"number": {n}}}'.encode() for n in range(40)}

    def post(number: int) -> tuple[int, Any]:
        with service.app.test_client() as client:
            answer = client.post(f"/orders/customer-{number % 7}", data=bodies[number])
            return answer.status_code, answer.get_json()

    # Requests come on threads of their own, as in a server: one may run the callback of another.
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(post, bodies))
    assert {status for status, _ in answers} == {201}, answers
    assert {answer["kind"] for _, answer in answers} == {1}
    with service.app.test_client() as client:
        too_large = client.post("/orders/customer-0", data=bytes(1_100_000))
        assert (too_large.status_code, too_large.get_json()) == (413, {"error": "MSG_SIZE_TOO_LARGE"})
        assert client.get("/health").get_json() == {"brokers": 1, "waiting": 0, "failures": 0}
    assert service.producer.flush(10) == 0
    if hasattr(service.producer, "close"):  # confluent-kafka has it since 2.13
        service.producer.close()
    found = read_confluent(kafka.bootstrap_servers, name)
    assert {(record.partition, record.offset): record.value for record in found} == {
        (answer["partition"], answer["offset"]): body
        for (_, answer), body in zip(answers, bodies.values(), strict=True)
    }
    assert {(record.key, record.headers) for record in found} == {
        (b"customer-%d" % n, (("v", b"1"),)) for n in range(7)
    }


SCRIPT = """
import json
import logging
import os
import sys

from kafka import KafkaProducer
from kafka.errors import KafkaError, KafkaTimeoutError, MessageSizeTooLargeError

logging.basicConfig(level=logging.ERROR)
failed = []
places = []
with KafkaProducer(
    bootstrap_servers=os.environ["SERVICE_BOOTSTRAP"].split(","),
    client_id="loader",
    key_serializer=str.encode,
    value_serializer=lambda value: json.dumps(value).encode(),
    acks="all",
    retries=5,
    linger_ms=10,
    compression_type="gzip",
    max_block_ms=10_000,
) as producer:
    topic = os.environ["SERVICE_TOPIC"]
    assert producer.partitions_for(topic) == {0, 1, 2}
    for number, line in enumerate(sys.stdin):
        future = producer.send(topic, key=f"line-{number % 5}", value=line.rstrip(), headers=[("v", b"1")])
        future.add_callback(lambda metadata: places.append([metadata.partition, metadata.offset]))
        future.add_errback(failed.append)
    producer.flush(timeout=30)
    try:
        producer.send(topic, key="large", value="x" * 1_100_000).get(timeout=10)
    except MessageSizeTooLargeError as error:
        print("refused:", type(error).__name__, error.errno, isinstance(error, KafkaError), file=sys.stderr)
    metadata = producer.send(topic, key="last", value="end", partition=2, timestamp_ms=1234).get(timeout=10)
    assert (metadata.topic, metadata.partition, metadata.timestamp) == (topic, 2, 1234), metadata
    places.append([metadata.partition, metadata.offset])
json.dump({"failed": len(failed), "places": places}, sys.stdout)
"""


@pytest.mark.parametrize("package", ["kafka", "kprod.compat.kafka"])
def test_a_script_runs_unchanged_but_for_the_import(
    kafka: KafkaCluster, topic: TopicFactory, tmp_path: Path, package: str
) -> None:
    name = topic(partitions=3)
    script = tmp_path / "load.py"
    script.write_text(SCRIPT.replace("from kafka", f"from {package}"), encoding="utf-8")
    lines = [f"text {number}" for number in range(500)]
    done = subprocess.run(
        [sys.executable, str(script)],
        input="\n".join(lines),
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "SERVICE_BOOTSTRAP": kafka.bootstrap_servers, "SERVICE_TOPIC": name},
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == "refused: MessageSizeTooLargeError 10 True\n"
    result = json.loads(done.stdout)
    assert result["failed"] == 0
    found = read_confluent(kafka.bootstrap_servers, name)
    assert sorted([record.partition, record.offset] for record in found) == sorted(result["places"])
    assert sorted(record.value or b"" for record in found) == sorted(
        [json.dumps(line).encode() for line in lines] + [b'"end"']
    )
    assert {record.headers for record in found} == {(("v", b"1"),), ()}
