"""JSON with a JSON Schema in a Schema Registry, validated by jsonschema."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from kprod.schema_registry.client import Schema, SchemaReference, SchemaRegistryClient
from kprod.schema_registry.errors import SerializationError
from kprod.schema_registry.serializer import Encode, RegistrySerializer, with_references
from kprod.serializers import JsonSerializer


class JSONSerializer(RegistrySerializer):
    """Writes objects as JSON that a JSON Schema describes.

    Args:
        schema: its text, or a :class:`Schema`; None with ``use_latest_version`` or ``use_schema_id``.
        registry: where the schema is registered.
        to_dict: makes of an object what JSON takes: ``f(obj, ctx)``.
        conf: confluent-kafka's configuration of serializers.
        references: other registered schemas, under the names that ``$ref`` uses.
        validate: check each object against the schema before it is written.
        json_encode: makes text or bytes of an object; None: what
            :class:`kprod.serializers.JsonSerializer` does.
        keywords: the fields of :class:`RegistryOptions`.

    Raises:
        ImportError: jsonschema is not installed, and ``validate`` is set: ``pip install 'kprod[json]'``.
        KafkaConfigurationError: an option is not accepted.
        SerializationError: the schema is no JSON.
    """

    schema_type = "JSON"

    def __init__(
        self,
        schema: str | Schema | None,
        registry: SchemaRegistryClient,
        to_dict: Callable[[Any, Any], Any] | None = None,
        conf: Mapping[str, Any] | None = None,
        json_encode: Callable[[Any], str | bytes] | None = None,
        *,
        references: Iterable[SchemaReference] = (),
        validate: bool = True,
        **keywords: Any,
    ) -> None:
        conf = dict(conf or {})
        self._validates = bool(conf.pop("validate", validate))
        if self._validates:
            _library("jsonschema")
        super().__init__(registry, with_references(schema, "JSON", references), conf, keywords)
        self._convert = to_dict
        self._write = JsonSerializer() if json_encode is None else None
        self._json_encode = json_encode
        parsed = None if self.schema is None else _parsed_json(self.schema)
        self._name = parsed.get("title") if isinstance(parsed, dict) else None

    def _record_name(self) -> str | None:
        return self._name

    def _to_data(self, obj: Any, ctx: Any) -> Any:
        return obj if self._convert is None else self._convert(obj, ctx)

    def _encoder(self, schema: Schema) -> Encode:
        check = self._checker(schema) if self._validates else None

        def encode(data: Any) -> bytes:
            if check is not None:
                check(data)
            if self._write is not None:
                return bytes(self._write.serialize("", None, data) or b"")
            assert self._json_encode is not None
            made = self._json_encode(data)
            return made.encode("utf-8") if isinstance(made, str) else made

        return encode

    def _checker(self, schema: Schema) -> Callable[[Any], None]:
        validators, referencing = _library("jsonschema.validators"), _library("referencing")
        draft7 = _library("referencing.jsonschema").DRAFT7
        resources: dict[str, Any] = {}
        self._load_references(schema, resources)
        registry = referencing.Registry().with_resources(
            (name, referencing.Resource.from_contents(contents, default_specification=draft7))
            for name, contents in resources.items()
        )
        parsed = _parsed_json(schema)
        # Registries take a schema without $schema for draft 7.
        kind = validators.validator_for(parsed, default=validators.Draft7Validator)
        try:
            kind.check_schema(parsed)
        except _library("jsonschema").SchemaError as error:
            raise SerializationError(
                f"jsonschema cannot use the schema {schema.text[:200]}: {error.message}"
            ) from error
        validator = kind(parsed, registry=registry)

        def check(data: Any) -> None:
            error = next(iter(validator.iter_errors(data)), None)
            if error is not None:
                raise ValueError(f"{error.json_path}: {error.message}")

        return check

    def _load_references(self, schema: Schema, resources: dict[str, Any]) -> None:
        for reference in schema.references:
            if reference.name not in resources:
                found = self.registry.version(reference.subject, reference.version).schema
                resources[reference.name] = _parsed_json(found)
                self._load_references(found, resources)


def _library(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise ImportError(
            "JSONSerializer validates with jsonschema: pip install 'kprod[json]', or set validate=False"
        ) from error


def _parsed_json(schema: Schema) -> Any:
    try:
        return json.loads(schema.text)
    except ValueError as error:
        raise SerializationError(f"the JSON Schema is no JSON: {error}: {schema.text[:200]}") from error
