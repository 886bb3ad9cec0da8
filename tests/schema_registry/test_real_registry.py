"""The serializers against real registries' HTTP API, read back by confluent-kafka's deserializers.

Each test runs with the registry in the process, and, where Apicurio Registry has been fetched (see
``tests/schema_registry/apicurio.py``), with that; its API has no GUIDs, which header framing needs.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from confluent_kafka.schema_registry import SchemaRegistryClient as ConfluentClient
from confluent_kafka.schema_registry.avro import AvroDeserializer
from confluent_kafka.schema_registry.json_schema import JSONDeserializer
from confluent_kafka.schema_registry.protobuf import ProtobufDeserializer
from confluent_kafka.serialization import MessageField, SerializationContext

from kprod.schema_registry import (
    AvroSerializer,
    JSONSerializer,
    ProtobufSerializer,
    Schema,
    SchemaReference,
    SchemaRegistryClient,
    SchemaRegistryError,
    SerializationError,
)
from tests.conftest import TopicFactory
from tests.integration.conftest import MakeProducer, make_producer
from tests.kafka.cluster import KafkaCluster
from tests.kafka.readers import read_confluent
from tests.schema_registry import apicurio
from tests.schema_registry.messages import Line, Order
from tests.schema_registry.server import RegistryServer

__all__ = ["make_producer"]  # a fixture

MONEY = '{"type":"record","name":"Money","namespace":"shop","fields":[{"name":"cents","type":"long"}]}'
ORDER = (
    '{"type":"record","name":"Order","namespace":"shop","fields":['
    '{"name":"id","type":"long"},{"name":"total","type":["null","shop.Money"]},'
    '{"name":"note","type":"string","default":"-"}]}'
)
JSON_ORDER = json.dumps(
    {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "Order",
        "type": "object",
        "properties": {"id": {"type": "integer"}, "note": {"type": "string"}},
        "required": ["id"],
    }
)


def _apicurio() -> Any:
    if os.environ.get("KPROD_TEST_REGISTRY") != "1" and not apicurio.is_fetched():
        pytest.skip(
            "Apicurio Registry (140 MB) is not there: python -m tests.schema_registry.apicurio fetches it"
        )
    return apicurio.Apicurio(apicurio.ensure())


@pytest.fixture(scope="module", params=[RegistryServer, _apicurio], ids=["in-process", "apicurio"])
def url(request: pytest.FixtureRequest) -> Iterator[str]:
    """The URL of a registry."""
    make: Callable[[], Any] = request.param
    server = make()
    yield server.url
    server.close()


@pytest.fixture
def registry(url: str) -> Iterator[SchemaRegistryClient]:
    with SchemaRegistryClient(url) as made:
        yield made


@pytest.fixture
def confluent(url: str) -> Iterator[Any]:
    with ConfluentClient({"url": url}) as made:
        yield made


def context(topic: str, headers: Any = None) -> SerializationContext:
    return SerializationContext(topic, MessageField.VALUE, headers)


def test_avro_with_a_reference(registry: SchemaRegistryClient, confluent: Any) -> None:
    registry.register("avro-money", Schema(MONEY))
    version = registry.lookup("avro-money", Schema(MONEY)).version
    assert version is not None
    serializer = AvroSerializer(
        registry, ORDER, references=[SchemaReference("shop.Money", "avro-money", version)]
    )
    payload = serializer({"id": 7, "total": {"cents": 250}}, context("avro"))
    read = AvroDeserializer(confluent)(payload, context("avro"))
    assert read == {"id": 7, "total": {"cents": 250}, "note": "-"}


def test_json(registry: SchemaRegistryClient, confluent: Any) -> None:
    payload = JSONSerializer(JSON_ORDER, registry)({"id": 7, "note": "schön"}, context("json"))
    read = JSONDeserializer(None, schema_registry_client=confluent)
    assert read(payload, context("json")) == {"id": 7, "note": "schön"}


@pytest.mark.parametrize("message", [Order(id=7), Line(article="x")], ids=["outer", "nested"])
def test_protobuf_with_an_import(registry: SchemaRegistryClient, confluent: Any, message: Any) -> None:
    if isinstance(message, Order):
        message.total.cents = 250
        message.at.seconds = 1_700_000_000
    payload = ProtobufSerializer(type(message), registry)(message, context("protobuf"))
    read = ProtobufDeserializer(type(message), {"use.deprecated.format": False}, confluent)
    assert read(payload, context("protobuf")) == message


def test_what_others_registered_is_found(registry: SchemaRegistryClient, confluent: Any) -> None:
    from confluent_kafka.schema_registry import Schema as ConfluentSchema

    number = confluent.register_schema("theirs-value", ConfluentSchema(JSON_ORDER, "JSON"))
    serializer = JSONSerializer(JSON_ORDER, registry, auto_register_schemas=False)
    assert (serializer({"id": 1}, context("theirs")) or b"")[1:5] == number.to_bytes(4, "big")
    latest = JSONSerializer(None, registry, use_latest_version=True)
    assert (latest({"id": 1}, context("theirs")) or b"")[1:5] == number.to_bytes(4, "big")


def test_what_is_not_registered(registry: SchemaRegistryClient) -> None:
    serializer = AvroSerializer(registry, MONEY, auto_register_schemas=False)
    with pytest.raises(SchemaRegistryError, match="set auto_register_schemas=True") as caught:
        serializer({"cents": 1}, context("missing"))
    assert (caught.value.subject, caught.value.http_status) == ("missing-value", 404)


def test_a_schema_that_the_registry_refuses(registry: SchemaRegistryClient) -> None:
    with pytest.raises(SchemaRegistryError, match="the registry cannot read the schema") as caught:
        registry.register("broken-value", Schema('{"type": "recrd"}'))
    assert caught.value.http_status == 422


def test_headers(confluent: Any, url: str, registry: SchemaRegistryClient) -> None:
    if "ccompat" in url:  # no GUIDs
        with pytest.raises(SerializationError, match="with others use framing='prefix'"):
            AvroSerializer(registry, MONEY, framing="header")({"cents": 1}, context("headers", []))
        return
    headers: list[Any] = []
    payload = AvroSerializer(registry, MONEY, framing="header")({"cents": 2**50}, context("headers", headers))
    assert payload is not None and payload[:1] != b"\x00"
    assert AvroDeserializer(confluent)(payload, context("headers", headers)) == {"cents": 2**50}
    headers = []
    payload = ProtobufSerializer(Line, registry, framing="header")(
        Line(article="a chair"), context("headers-p", headers)
    )
    read = ProtobufDeserializer(Line, {"use.deprecated.format": False}, confluent)
    assert read(payload, context("headers-p", headers)) == Line(article="a chair")


def test_through_real_kafka(
    kafka: KafkaCluster,
    topic: TopicFactory,
    make_producer: MakeProducer,
    registry: SchemaRegistryClient,
    confluent: Any,
) -> None:
    name = topic()
    producer = make_producer(
        kafka,
        key_serializer=JSONSerializer(JSON_ORDER, registry),
        value_serializer=AvroSerializer(registry, MONEY),
    )
    for number in range(20):
        producer.send(name, {"cents": number}, key={"id": number})
    producer.send(name, None, key={"id": 20})
    producer.flush(30)
    keys = JSONDeserializer(None, schema_registry_client=confluent)
    values = AvroDeserializer(confluent)
    at_key = SerializationContext(name, MessageField.KEY)
    read = [
        (keys(record.key, at_key), values(record.value, context(name)))
        for record in read_confluent(kafka.bootstrap_servers, name)
    ]
    assert read == [({"id": n}, {"cents": n}) for n in range(20)] + [({"id": 20}, None)]
