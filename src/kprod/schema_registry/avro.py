"""Avro with a Schema Registry, written by fastavro."""

from __future__ import annotations

import importlib
import io
import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from kprod.schema_registry.client import Schema, SchemaReference, SchemaRegistryClient
from kprod.schema_registry.errors import SerializationError
from kprod.schema_registry.serializer import Encode, RegistrySerializer, with_references


class AvroSerializer(RegistrySerializer):
    """Writes objects as Avro.

    Args:
        registry: where the schema is registered.
        schema: its JSON, or a :class:`Schema`; None with ``use_latest_version`` or ``use_schema_id``.
        to_dict: makes of an object what fastavro takes: ``f(obj, ctx)``.
        conf: confluent-kafka's configuration of serializers.
        references: other registered schemas that the schema names.
        strict: refuse fields that the schema does not have, instead of leaving them out.
        keywords: the fields of :class:`RegistryOptions`.

    Raises:
        ImportError: fastavro is not installed: ``pip install 'kprod[avro]'``.
        KafkaConfigurationError: an option is not accepted.
        SerializationError: the schema is no JSON.
    """

    schema_type = "AVRO"

    def __init__(
        self,
        registry: SchemaRegistryClient,
        schema: str | Schema | None = None,
        to_dict: Callable[[Any, Any], Any] | None = None,
        conf: Mapping[str, Any] | None = None,
        *,
        references: Iterable[SchemaReference] = (),
        strict: bool = False,
        **keywords: Any,
    ) -> None:
        try:
            self._fastavro: Any = importlib.import_module("fastavro")
        except ModuleNotFoundError as error:
            raise ImportError("AvroSerializer writes with fastavro: pip install 'kprod[avro]'") from error
        super().__init__(registry, with_references(schema, "AVRO", references), conf, keywords)
        self._convert = to_dict
        self._strict = strict
        self._name = None if self.schema is None else _full_name(_parsed_json(self.schema))

    def _record_name(self) -> str | None:
        return self._name

    def _to_data(self, obj: Any, ctx: Any) -> Any:
        return obj if self._convert is None else self._convert(obj, ctx)

    def _encoder(self, schema: Schema) -> Encode:
        named: dict[str, Any] = {}
        try:
            self._load_references(schema, named, set())
            parsed = self._fastavro.parse_schema(_parsed_json(schema), named_schemas=named)
        except self._fastavro.schema.SchemaParseException as error:
            raise SerializationError(
                f"fastavro cannot read the schema {schema.text[:200]}: {error}"
            ) from error
        except self._fastavro.schema.UnknownType as error:
            raise SerializationError(
                f"the schema {schema.text[:200]} uses the type {error.name}, which it does not define: "
                f"give the "
                f"SchemaReference under which that is registered"
            ) from error
        parsed = _with_types(parsed, named)
        write, strict = self._fastavro.schemaless_writer, self._strict

        def encode(data: Any) -> bytes:
            out = io.BytesIO()
            write(out, parsed, data, strict=strict)
            return out.getvalue()

        return encode

    def _load_references(self, schema: Schema, named: dict[str, Any], seen: set[tuple[str, int]]) -> None:
        for reference in schema.references:
            at = (reference.subject, reference.version)
            if at in seen:
                continue
            seen.add(at)
            found = self.registry.version(*at).schema
            self._load_references(found, named, seen)
            self._fastavro.parse_schema(_parsed_json(found), named_schemas=named)


def _with_types(parsed: Any, named: dict[str, Any]) -> Any:
    """A parsed schema in which fastavro's writer finds the types that other schemas define."""
    if isinstance(parsed, list):
        return [_with_types(branch, named) for branch in parsed]
    if isinstance(parsed, str):
        if parsed not in named:
            return parsed
        parsed = named[parsed]
    return {**parsed, "__fastavro_parsed": True, "__named_schemas": named}


def _parsed_json(schema: Schema) -> Any:
    text = schema.text.strip()
    try:
        return json.loads(text)
    except ValueError as error:
        if text.isidentifier():  # `string` for `"string"`
            return text
        raise SerializationError(f"the Avro schema is no JSON: {error}: {text[:200]}") from error


def _full_name(parsed: Any) -> str | None:
    if isinstance(parsed, str):
        return parsed
    if not isinstance(parsed, dict):
        return None  # a union
    name = parsed.get("name")
    if name is None:
        kind = parsed.get("type")
        return kind if isinstance(kind, str) else None
    namespace = parsed.get("namespace")
    return name if not namespace or "." in name else f"{namespace}.{name}"
