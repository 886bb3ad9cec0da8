"""The serializers with a registry in the process: subjects, framings, references, options, errors."""

from __future__ import annotations

import json
import struct
from typing import Any

import pytest

from kprod import KafkaProducer
from kprod.compat.confluent_kafka import SerializingProducer
from kprod.errors import KafkaConfigurationError
from kprod.schema_registry import (
    AvroSerializer,
    JSONSerializer,
    ProtobufSerializer,
    RegistrySerializer,
    Schema,
    SchemaReference,
    SchemaRegistryClient,
    SchemaRegistryError,
    SerializationError,
)
from kprod.schema_registry.framing import encode_message_indexes
from kprod.serializers import SerializationContext, as_callable
from kprod.testing import MockCluster
from tests.schema_registry.messages import Line, Order
from tests.schema_registry.server import RegistryServer

AVRO = json.dumps(
    {"type": "record", "name": "Order", "namespace": "shop", "fields": [{"name": "id", "type": "long"}]}
)
JSON = json.dumps({"title": "Order", "type": "object", "properties": {"id": {"type": "integer"}}})
VALUE = SerializationContext("orders", "value")


def all_three(registry: SchemaRegistryClient, **options: Any) -> list[tuple[RegistrySerializer, Any, str]]:
    """Each serializer with an object for it and the name of its type."""
    return [
        (AvroSerializer(registry, AVRO, **options), {"id": 1}, "shop.Order"),
        (JSONSerializer(JSON, registry, **options), {"id": 1}, "Order"),
        (ProtobufSerializer(Order, registry, **options), Order(id=1), "shop.Order"),
    ]


@pytest.mark.parametrize(
    ("strategy", "expected"),
    [
        ("topic", "orders-value"),
        ("record", "{name}"),
        ("topic_record", "orders-{name}"),
        ("io.confluent.kafka.serializers.subject.RecordNameStrategy", "{name}"),
        ("TOPIC_RECORD", "orders-{name}"),
        (lambda ctx, name: f"mine.{ctx.topic}.{ctx.field}.{name}", "mine.orders.value.{name}"),
    ],
)
def test_subject_name_strategies(strategy: Any, expected: str) -> None:
    for number in range(3):
        server = RegistryServer()
        with SchemaRegistryClient(server.url) as registry:
            serializer, obj, name = all_three(registry, subject_name_strategy=strategy)[number]
            assert serializer(obj, VALUE)
            assert expected.format(name=name) in server.versions
        server.close()


def test_keys_and_values_have_subjects_of_their_own(
    server: RegistryServer, registry: SchemaRegistryClient
) -> None:
    serializer = AvroSerializer(registry, AVRO)
    serializer({"id": 1}, SerializationContext("t", "key"))
    serializer({"id": 1}, SerializationContext("t", "value"))
    AvroSerializer(registry, AVRO, is_key=True).serialize("u", None, {"id": 1})
    assert sorted(server.versions) == ["t-key", "t-value", "u-key"]


def test_the_prefix_is_a_zero_byte_and_the_id(registry: SchemaRegistryClient) -> None:
    registry.register("first", Schema('"int"'))
    payload = AvroSerializer(registry, AVRO)({"id": -3}, VALUE)
    assert payload == b"\x00" + struct.pack(">I", 2) + b"\x05"


@pytest.mark.parametrize(
    ("path", "encoded"),
    [((0,), b"\x00"), ((1,), b"\x02\x02"), ((1, 1), b"\x04\x02\x02"), ((64, 300), b"\x04\x80\x01\xd8\x04")],
)
def test_message_indexes(path: tuple[int, ...], encoded: bytes) -> None:
    assert encode_message_indexes(path) == encoded


def test_the_registry_is_asked_once_for_many_records(
    server: RegistryServer, registry: SchemaRegistryClient
) -> None:
    for serializer, obj, _ in all_three(registry, subject_name_strategy=lambda c, n: f"{c.topic}-{n}")[:1]:
        for _ in range(100):
            serializer(obj, VALUE)
    assert sum(server.requests.values()) == 1


def test_none_is_null(server: RegistryServer, registry: SchemaRegistryClient) -> None:
    for serializer, _, _ in all_three(registry):
        assert serializer(None, VALUE) is None
    assert not server.requests


def test_without_registering_the_schema_must_be_there(
    server: RegistryServer, registry: SchemaRegistryClient
) -> None:
    strict = AvroSerializer(registry, AVRO, auto_register_schemas=False)
    with pytest.raises(SchemaRegistryError, match=r"subject orders-value.*set auto_register_schemas=True"):
        strict({"id": 1}, VALUE)
    AvroSerializer(registry, AVRO).prepare("orders")
    assert strict({"id": 1}, VALUE) == b"\x00\x00\x00\x00\x01\x02"
    assert server.requests["POST /subjects/orders-value/versions"] == 1


def test_use_latest_version(server: RegistryServer) -> None:
    with SchemaRegistryClient(server.url, latest_ttl_ms=0) as registry:
        registry.register("orders-value", Schema(AVRO))
        serializer = AvroSerializer(registry, use_latest_version=True)
        assert serializer({"id": 1, "note": "x"}, VALUE) == b"\x00\x00\x00\x00\x01\x02"
        wider = json.loads(AVRO)
        wider["fields"].append({"name": "note", "type": "string"})
        registry.register("orders-value", Schema(json.dumps(wider)))
        assert serializer({"id": 1, "note": "x"}, VALUE) == b"\x00\x00\x00\x00\x02\x02\x02x"


def test_use_schema_id(registry: SchemaRegistryClient) -> None:
    number = registry.register("elsewhere", Schema(AVRO)).id
    assert AvroSerializer(registry, use_schema_id=number)({"id": 1}, VALUE) == b"\x00\x00\x00\x00\x01\x02"
    with pytest.raises(SerializationError, match="is AVRO, and JSONSerializer writes JSON"):
        JSONSerializer(None, registry, use_schema_id=number)({"id": 1}, VALUE)


def test_normalize(server: RegistryServer, registry: SchemaRegistryClient) -> None:
    seen = []
    original = server._answer

    def answer(method: str, path: str, body: Any, authorization: str | None) -> tuple[int, Any]:
        seen.append(path)
        return original(method, path, body, authorization)

    server._answer = answer  # type: ignore[method-assign]
    AvroSerializer(registry, AVRO, normalize_schemas=True).prepare("orders")
    assert seen == ["/subjects/orders-value/versions?normalize=true"]


def test_avro_references(server: RegistryServer, registry: SchemaRegistryClient) -> None:
    money = '{"type":"record","name":"Money","namespace":"shop","fields":[{"name":"cents","type":"long"}]}'
    line = (
        '{"type":"record","name":"Line","namespace":"shop","fields":[{"name":"price","type":"shop.Money"}]}'
    )
    registry.register("money", Schema(money))
    reference = SchemaReference("shop.Money", "money", 1)
    registry.register("line", Schema(line, references=(reference,)))
    references = [SchemaReference("shop.Line", "line", 1), reference]
    order = (
        '{"type":"record","name":"Order","namespace":"shop","fields":['
        '{"name":"line","type":"shop.Line"},{"name":"total","type":["null","shop.Money"]}]}'
    )
    serializer = AvroSerializer(registry, order, references=references)
    data = {"line": {"price": {"cents": 1}}, "total": {"cents": 2}}
    assert serializer(data, VALUE) == b"\x00\x00\x00\x00\x03\x02\x02\x04"
    either = AvroSerializer(registry, '["shop.Line", "shop.Money"]', references=references)
    context = SerializationContext("either", "value")
    assert either({"cents": 2}, context) == b"\x00\x00\x00\x00\x04\x02\x04"
    with pytest.raises(SchemaRegistryError, match="check its text, type and references"):
        AvroSerializer(registry, order)({}, SerializationContext("other", "value"))
    server.schemas.append({"schema": order})  # by a registry that does not look into schemas
    with pytest.raises(SerializationError, match=r"uses the type shop\.\w+.*SchemaReference"):
        AvroSerializer(registry, use_schema_id=len(server.schemas))({}, VALUE)


def test_json_references(registry: SchemaRegistryClient) -> None:
    registry.register("money", Schema('{"type": "object", "required": ["cents"]}', "JSON"))
    schema = '{"title": "O", "type": "object", "properties": {"total": {"$ref": "money.json"}}}'
    serializer = JSONSerializer(schema, registry, references=[SchemaReference("money.json", "money", 1)])
    assert serializer({"total": {"cents": 1}}, VALUE)
    with pytest.raises(SerializationError, match=r"\$\.total: 'cents' is a required property"):
        serializer({"total": {}}, VALUE)


def test_protobuf_imports_are_registered_first(
    server: RegistryServer, registry: SchemaRegistryClient
) -> None:
    payload = ProtobufSerializer(Line, registry)(Line(article="x"), VALUE)
    assert payload == b"\x00\x00\x00\x00\x02" + b"\x04\x02\x02" + b"\x0a\x01x"
    assert list(server.versions) == ["shop/money.proto", "orders-value"]
    assert registry.schema(2).references == (SchemaReference("shop/money.proto", "shop/money.proto", 1),)


def test_protobuf_imports_of_google_and_where_imports_go(
    server: RegistryServer, registry: SchemaRegistryClient
) -> None:
    serializer = ProtobufSerializer(
        Order,
        registry,
        skip_known_types=False,
        reference_subject_name_strategy=lambda ctx, reference: "import." + reference.name,
    )
    serializer(Order(id=1), VALUE)
    assert list(server.versions) == [
        "import.shop/money.proto",
        "import.google/protobuf/timestamp.proto",
        "orders-value",
    ]


@pytest.mark.parametrize("number", range(3))
def test_header_framing(server: RegistryServer, registry: SchemaRegistryClient, number: int) -> None:
    serializer, obj, _ = all_three(registry, framing="header")[number]
    bare, _, _ = all_three(registry)[number]
    headers: list[Any] = [("trace", b"1")]
    for _ in range(2):  # a list that is used again does not grow
        payload = serializer(obj, SerializationContext("orders", "value", headers))
    assert payload is not None
    framed = bare(obj, SerializationContext("orders", "value"))
    assert framed is not None and framed.endswith(payload) and framed != payload
    (_, trace), (name, value) = headers
    assert (trace, name, value[0], len(value)) == (b"1", "__value_schema_id", 1, 18 + (number == 2) * 2 - 1)


def test_header_framing_needs_a_list(registry: SchemaRegistryClient) -> None:
    serializer = AvroSerializer(registry, AVRO, framing="header")
    with pytest.raises(SerializationError, match="headers=\\[\\] if there are none"):
        serializer({"id": 1}, VALUE)


def test_header_framing_needs_a_guid(server: RegistryServer, registry: SchemaRegistryClient) -> None:
    server.guids = False
    serializer = AvroSerializer(registry, AVRO, framing="header")
    with pytest.raises(SerializationError, match="with others use framing='prefix'"):
        serializer({"id": 1}, SerializationContext("orders", "value", []))


def test_objects_that_do_not_fit(server: RegistryServer, registry: SchemaRegistryClient) -> None:
    where = rf"of subject orders-\w+ \({server.url}\)"
    with pytest.raises(SerializationError, match=f"dict does not fit schema 1 {where}: .*id"):
        AvroSerializer(registry, AVRO)({"id": "x"}, VALUE)
    with pytest.raises(SerializationError, match=f"schema 1 {where}: ValueError.*note"):
        AvroSerializer(registry, AVRO, strict=True)({"id": 1, "note": 2}, VALUE)
    with pytest.raises(SerializationError, match=rf"schema 2 {where}: .*\$\.id: 'x' is not of type"):
        JSONSerializer(JSON, registry)({"id": "x"}, VALUE)
    assert JSONSerializer(JSON, registry, validate=False)({"id": "x"}, VALUE)
    with pytest.raises(SerializationError, match="ProtobufSerializer of Order takes that, not Line"):
        ProtobufSerializer(Order, registry)(Line(), VALUE)


def test_a_type_without_a_name_has_no_subject(registry: SchemaRegistryClient) -> None:
    serializer = JSONSerializer("{}", registry, subject_name_strategy="record")
    with pytest.raises(SerializationError, match="JSON Schema: title"):
        serializer({}, VALUE)


def test_to_dict_and_json_encode(registry: SchemaRegistryClient) -> None:
    def to_dict(obj: int, ctx: Any) -> dict[str, int]:
        assert ctx.topic == "orders"
        return {"id": obj}

    assert (AvroSerializer(registry, AVRO, to_dict)(4, VALUE) or b"")[5:] == b"\x08"
    serializer = JSONSerializer(JSON, registry, to_dict, None, lambda data: json.dumps(data, indent=1))
    assert (serializer(4, VALUE) or b"")[5:] == b'{\n "id": 4\n}'


def test_confluent_configuration(registry: SchemaRegistryClient) -> None:
    conf = {"auto.register.schemas": False, "use.latest.version": True, "use.deprecated.format": False}
    registry.register("shop.Order", Schema(AVRO))
    conf["subject.name.strategy"] = lambda ctx, name: name  # type: ignore[assignment]
    assert AvroSerializer(registry, AVRO, None, conf)({"id": 1}, VALUE) == b"\x00\x00\x00\x00\x01\x02"
    with pytest.raises(KafkaConfigurationError, match=r"use.latest.with.metadata=.* is not supported"):
        AvroSerializer(registry, AVRO, None, {"use.latest.with.metadata": {"a": "b"}})


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"auto_register_schemas": True, "use_latest_version": True}, "contradict each other"),
        ({"use_latest_version": True, "use_schema_id": 1}, "contradict each other"),
        ({"normalize_schemas": "yes"}, "normalize_schemas='yes'"),
        ({"subject_name_strategy": "topics"}, "subject_name_strategy='topics'"),
        ({"framing": "head"}, "framing='head'"),
        ({"frame": "head"}, "frame.*AvroSerializer takes auto_register_schemas"),
    ],
)
def test_options_that_are_not_accepted(
    registry: SchemaRegistryClient, options: dict[str, Any], what: str
) -> None:
    with pytest.raises(KafkaConfigurationError, match=what):
        AvroSerializer(registry, AVRO, **options)


def test_what_must_be_given(registry: SchemaRegistryClient) -> None:
    with pytest.raises(KafkaConfigurationError, match="has no schema"):
        AvroSerializer(registry)
    with pytest.raises(KafkaConfigurationError, match=r"needs a .*SchemaRegistryClient"):
        AvroSerializer("http://registry", AVRO)  # type: ignore[arg-type]
    with pytest.raises(KafkaConfigurationError, match="a class that protoc generated"):
        ProtobufSerializer(Order(), registry)
    with pytest.raises(SerializationError, match="is no JSON"):
        AvroSerializer(registry, "{")({}, VALUE)


def test_a_producer_knows_what_is_key_and_what_value(
    server: RegistryServer, registry: SchemaRegistryClient
) -> None:
    with MockCluster() as cluster:
        cluster.create_topic("orders")
        with KafkaProducer(
            bootstrap_servers=cluster.bootstrap_servers,
            key_serializer=JSONSerializer(JSON, registry, framing="header"),
            value_serializer=AvroSerializer(registry, AVRO, framing="header"),
        ) as producer:
            producer.send("orders", {"id": 1}, key={"id": 2}, headers=[])
        (record,) = cluster.records("orders")
    assert (record.key, record.value) == (b'{"id":2}', b"\x02")
    assert [name for name, _ in record.headers] == ["__key_schema_id", "__value_schema_id"]
    assert sorted(server.versions) == ["orders-key", "orders-value"]


def test_confluents_serializing_producer(server: RegistryServer, registry: SchemaRegistryClient) -> None:
    with MockCluster() as cluster:
        cluster.create_topic("orders")
        producer = SerializingProducer(
            {
                "bootstrap.servers": cluster.bootstrap_servers,
                "key.serializer": ProtobufSerializer(Order, registry),
                "value.serializer": AvroSerializer(registry, AVRO, framing="header"),
            }
        )
        producer.produce("orders", key=Order(id=1), value={"id": 1}, headers=[])
        assert producer.flush(10) == 0
        (record,) = cluster.records("orders")
    assert (record.key or b"")[5:] == b"\x02\x02\x08\x01"
    assert [name for name, _ in record.headers] == ["__value_schema_id"]
    assert sorted(server.versions) == ["orders-key", "orders-value", "shop/money.proto"]


def test_an_object_of_both_forms_is_called_with_the_context(registry: SchemaRegistryClient) -> None:
    function = as_callable(AvroSerializer(registry, AVRO), "key")
    assert function is not None
    function("t", None, {"id": 1})
    assert registry.subjects() == ["t-key"]
