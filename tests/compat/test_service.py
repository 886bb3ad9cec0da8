"""A small service of FastAPI and aiokafka runs on kprod with another import only, on real Kafka."""

from __future__ import annotations

import asyncio
import importlib.util
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
