"""Avro, Protobuf and JSON Schema with a Schema Registry that speaks Confluent's API.

    registry = SchemaRegistryClient("http://registry:8081")
    producer = KafkaProducer(value_serializer=AvroSerializer(registry, schema_text))

The formats' libraries are extras: ``kprod[registry,avro]``, ``kprod[registry,protobuf]``,
``kprod[registry,json]``.
"""

from __future__ import annotations

from kprod.schema_registry.avro import AvroSerializer
from kprod.schema_registry.client import RegisteredSchema, Schema, SchemaReference, SchemaRegistryClient
from kprod.schema_registry.errors import (
    SchemaRegistryError,
    SchemaRegistryUnavailableError,
    SerializationError,
)
from kprod.schema_registry.framing import SchemaId, header_framing, prefix_framing
from kprod.schema_registry.json_schema import JSONSerializer
from kprod.schema_registry.protobuf import ProtobufSerializer, reference_subject_name_strategy
from kprod.schema_registry.serializer import RegistryOptions, RegistrySerializer
from kprod.schema_registry.subjects import (
    record_subject_name_strategy,
    topic_record_subject_name_strategy,
    topic_subject_name_strategy,
)

__all__ = [
    "SchemaRegistryClient",
    "Schema",
    "SchemaReference",
    "RegisteredSchema",
    "AvroSerializer",
    "ProtobufSerializer",
    "JSONSerializer",
    "RegistrySerializer",
    "RegistryOptions",
    "SchemaId",
    "prefix_framing",
    "header_framing",
    "topic_subject_name_strategy",
    "record_subject_name_strategy",
    "topic_record_subject_name_strategy",
    "reference_subject_name_strategy",
    "SchemaRegistryError",
    "SchemaRegistryUnavailableError",
    "SerializationError",
]
