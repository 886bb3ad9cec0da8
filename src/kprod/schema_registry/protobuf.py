"""Protobuf with a Schema Registry, written by Google's library."""

from __future__ import annotations

import base64
import importlib
from collections.abc import Callable, Mapping
from typing import Any

from kprod.errors import KafkaConfigurationError
from kprod.schema_registry.client import Schema, SchemaReference, SchemaRegistryClient
from kprod.schema_registry.serializer import Encode, RegistrySerializer

# Every registry and every deserializer has these.
_KNOWN = ("google/protobuf/", "google/type/", "confluent/")


def reference_subject_name_strategy(ctx: Any, reference: SchemaReference) -> str:
    """The subject of an imported file: its path, as in Confluent's clients."""
    return reference.name


class ProtobufSerializer(RegistrySerializer):
    """Writes messages of one generated class.

    What its file imports is registered first (with ``auto_register_schemas=False``: looked up), each file
    under its own subject.

    Args:
        message_type: the generated class.
        registry: where the schema is registered.
        conf: confluent-kafka's configuration of serializers.
        skip_known_types: leave out Google's and Confluent's own files, which every registry has.
        reference_subject_name_strategy: ``f(context, reference)`` gives the subject of an imported file.
        keywords: the fields of :class:`RegistryOptions`.

    Raises:
        ImportError: protobuf is not installed: ``pip install 'kprod[protobuf]'``.
        KafkaConfigurationError: an option is not accepted, or ``message_type`` is no generated class.
    """

    schema_type = "PROTOBUF"

    def __init__(
        self,
        message_type: Any,
        registry: SchemaRegistryClient,
        conf: Mapping[str, Any] | None = None,
        *,
        skip_known_types: bool = True,
        reference_subject_name_strategy: Callable[[Any, Any], str] = reference_subject_name_strategy,
        **keywords: Any,
    ) -> None:
        conf = dict(conf or {})
        try:
            importlib.import_module("google.protobuf.message")
        except ModuleNotFoundError as error:
            raise ImportError(
                "ProtobufSerializer writes with protobuf: pip install 'kprod[protobuf]'"
            ) from error
        descriptor: Any = getattr(message_type, "DESCRIPTOR", None)
        if not isinstance(message_type, type) or not hasattr(descriptor, "nested_types"):
            raise KafkaConfigurationError(
                f"message_type={message_type!r}: must be a class that protoc generated"
            )
        self._type: Any = message_type
        self._descriptor = descriptor
        self._skip_known = bool(conf.pop("skip.known.types", skip_known_types))
        self._reference_subject = conf.pop("reference.subject.name.strategy", reference_subject_name_strategy)
        self._indexes = _message_indexes(descriptor)
        super().__init__(registry, _schema_of(self._descriptor.file, ()), conf, keywords)
        self._complete: Schema | None = None

    def _record_name(self) -> str | None:
        return str(self._descriptor.full_name)

    def _message_indexes(self) -> tuple[int, ...] | None:
        return self._indexes

    def _own_schema(self) -> Schema:
        if self._complete is None:
            references = self._register_imports(self._descriptor.file)
            self._complete = _schema_of(self._descriptor.file, references)
        return self._complete

    def _register_imports(self, file: Any) -> tuple[SchemaReference, ...]:
        ask = self.registry.register if self.options.registers else self.registry.lookup
        references = []
        for dependency in file.dependencies:
            if self._skip_known and dependency.name.startswith(_KNOWN):
                continue
            schema = _schema_of(dependency, self._register_imports(dependency))
            subject = self._reference_subject(None, SchemaReference(dependency.name, "", 0))
            found = ask(subject, schema, normalize=self.options.normalize_schemas)
            if found.version is None:  # an answer to a registration need not tell it
                found = self.registry.lookup(subject, schema, normalize=self.options.normalize_schemas)
            assert found.version is not None
            references.append(SchemaReference(dependency.name, subject, found.version))
        return tuple(references)

    def _encoder(self, schema: Schema) -> Encode:
        kind: Any = self._type

        def encode(data: Any) -> bytes:
            if not isinstance(data, kind):
                raise TypeError(
                    f"ProtobufSerializer of {kind.__name__} takes that, not {type(data).__name__}"
                )
            written: bytes = data.SerializeToString()
            return written

        return encode


def _schema_of(file: Any, references: tuple[SchemaReference, ...]) -> Schema:
    return Schema(base64.b64encode(file.serialized_pb).decode("ascii"), "PROTOBUF", references)


def _message_indexes(descriptor: Any) -> tuple[int, ...]:
    """The path to a message in its file: the index of the outermost one first."""
    path = []
    while descriptor.containing_type is not None:
        path.append([each.name for each in descriptor.containing_type.nested_types].index(descriptor.name))
        descriptor = descriptor.containing_type
    path.append(list(descriptor.file.message_types_by_name).index(descriptor.name))
    return tuple(reversed(path))
