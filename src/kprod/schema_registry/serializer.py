"""What the serializers of all formats share: which schema, under which subject, and how it is named."""

from __future__ import annotations

import threading
from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from kprod.errors import KafkaConfigurationError, KafkaError
from kprod.records import Bytes
from kprod.schema_registry.client import RegisteredSchema, Schema, SchemaReference, SchemaRegistryClient
from kprod.schema_registry.errors import SerializationError
from kprod.schema_registry.framing import Framing, SchemaId, framing
from kprod.schema_registry.subjects import SubjectNameStrategy, subject_name_strategy
from kprod.serializers import SerializationContext, Serializer

Encode = Callable[[Any], bytes]

# Of confluent-kafka's configuration: those that mean the same here.
_CONF_NAMES: Mapping[str, str] = {
    "auto.register.schemas": "auto_register_schemas",
    "normalize.schemas": "normalize_schemas",
    "use.latest.version": "use_latest_version",
    "use.schema.id": "use_schema_id",
    "subject.name.strategy": "subject_name_strategy",
    "subject.name.strategy.type": "subject_name_strategy",
    "schema.id.serializer": "framing",
    "validate": "validate",
    "skip.known.types": "skip_known_types",
    "reference.subject.name.strategy": "reference_subject_name_strategy",
}


@dataclass(frozen=True)
class RegistryOptions:
    """How a serializer uses its registry; the keyword arguments that all of them take."""

    auto_register_schemas: bool | None = None
    """Register the schema if it is not. None: unless ``use_latest_version`` or ``use_schema_id`` is set."""
    use_latest_version: bool = False
    """Write with the newest schema of the subject instead of the serializer's own."""
    use_schema_id: int | None = None
    """Write with the schema of this id."""
    normalize_schemas: bool = False
    """Let the registry bring the schema into its normal form before it compares."""
    subject_name_strategy: str | SubjectNameStrategy = "topic"
    """``topic``, ``record``, ``topic_record``, or a function of (context, record name)."""
    framing: str | Framing = "prefix"
    """``prefix``, ``header``, or a function of (payload, context, schema id)."""
    is_key: bool = False
    """What :meth:`RegistrySerializer.serialize` is for; a producer knows by itself."""

    @property
    def registers(self) -> bool:
        """Whether schemas are registered."""
        if self.auto_register_schemas is None:
            return not self.use_latest_version and self.use_schema_id is None
        return self.auto_register_schemas

    def check(self) -> None:
        """Raise KafkaConfigurationError if a value is not accepted, or options contradict each other."""
        for name in ("auto_register_schemas", "use_latest_version", "normalize_schemas", "is_key"):
            value = getattr(self, name)
            if not isinstance(value, bool) and not (name == "auto_register_schemas" and value is None):
                raise KafkaConfigurationError(f"{name}={value!r}: must be True or False")
        if self.use_schema_id is not None and (
            isinstance(self.use_schema_id, bool) or not isinstance(self.use_schema_id, int)
        ):
            raise KafkaConfigurationError(f"use_schema_id={self.use_schema_id!r}: must be an int or None")
        ways = [
            name
            for name, on in (
                ("auto_register_schemas=True", self.auto_register_schemas),
                ("use_latest_version=True", self.use_latest_version),
                ("use_schema_id", self.use_schema_id is not None),
            )
            if on
        ]
        if len(ways) > 1:
            raise KafkaConfigurationError(f"{' and '.join(ways)} contradict each other: set one of them")


def options_of(conf: Mapping[str, Any] | None, keywords: Mapping[str, Any]) -> dict[str, Any]:
    """The keyword arguments that confluent-kafka's ``conf`` and the keywords amount to.

    Raises:
        KafkaConfigurationError: a name in ``conf`` is not known, and is not set to what it means not to set
        it.
    """
    options: dict[str, Any] = {}
    for name, value in (conf or {}).items():
        if name in _CONF_NAMES:
            if value is not None:
                options[_CONF_NAMES[name]] = value
        elif value not in (None, False):
            raise KafkaConfigurationError(
                f"{name}={value!r} is not supported by kprod's serializers; there are "
                f"{', '.join(_CONF_NAMES)}"
            )
    return {**options, **keywords}


class RegistrySerializer(Serializer):
    """Base of the serializers with a registry. Safe for threads.

    A producer calls it as ``serializer(data, ctx)``, so that it knows topic, headers, and whether it is for
    keys or values; confluent-kafka's ``SerializingProducer`` does the same.

    The first record of a subject waits for the registry: at most the client's retries and timeouts. Where
    that
    must not be, in an event loop for instance, :meth:`prepare` does it ahead.

    Args:
        registry: whom to ask. It is not closed by the serializer.
        schema: the serializer's own; None: only with ``use_latest_version`` or ``use_schema_id``.
        conf: confluent-kafka's configuration of serializers.
        keywords: the fields of :class:`RegistryOptions`.

    Raises:
        KafkaConfigurationError: an option is not known or not accepted, or there is no schema.
    """

    schema_type: str
    """What the registry calls the format."""

    def __init__(
        self,
        registry: SchemaRegistryClient,
        schema: Schema | None,
        conf: Mapping[str, Any] | None,
        keywords: Mapping[str, Any],
    ) -> None:
        if not isinstance(registry, SchemaRegistryClient):
            raise KafkaConfigurationError(
                f"{type(self).__name__} needs a kprod.schema_registry.SchemaRegistryClient, not "
                f"{type(registry).__name__}"
            )
        try:
            self.options = RegistryOptions(**options_of(conf, keywords))
        except TypeError as error:
            known = ", ".join(RegistryOptions.__dataclass_fields__)
            raise KafkaConfigurationError(f"{error}; {type(self).__name__} takes {known}") from None
        self.options.check()
        if schema is None and self.options.use_schema_id is None and not self.options.use_latest_version:
            raise KafkaConfigurationError(
                f"{type(self).__name__} has no schema: give one, or set use_latest_version or use_schema_id"
            )
        self.registry = registry
        self.schema = schema
        self._subject_of = subject_name_strategy(self.options.subject_name_strategy)
        self._frame = framing(self.options.framing)
        self._lock = threading.Lock()  # guards the insertion into the two
        self._known: dict[str, tuple[SchemaId, Encode]] = {}
        self._encoders: dict[Schema, Encode] = {}

    def serialize(self, topic: str, headers: Any, data: Any) -> Bytes | None:
        """For callers that only know kprod's :class:`Serializer`; ``is_key`` says what it is for."""
        return self(data, SerializationContext(topic, "key" if self.options.is_key else "value", headers))

    def __call__(self, obj: Any, ctx: Any = None) -> bytes | None:
        """Make bytes.

        Args:
            obj: what to write; None gives None, a null value.
            ctx: with ``topic``, ``field`` (key or value) and ``headers``.

        Raises:
            SerializationError: the object does not fit the schema, or there is no subject for it.
            SchemaRegistryError: the registry refused the schema.
            SchemaRegistryUnavailableError: the registry did not answer.
        """
        if obj is None:
            return None
        if ctx is None:
            raise SerializationError(
                f"{type(self).__name__} must know the topic: call it with (obj, SerializationContext)"
            )
        subject = self._subject(ctx, obj)
        schema_id, encode = self._known.get(subject) or self._prepare(subject)
        data = self._to_data(obj, ctx)
        try:
            payload = encode(data)
        except KafkaError:
            raise
        except Exception as error:
            raise SerializationError(
                f"{type(obj).__name__} does not fit schema {schema_id.id} of subject {subject} "
                f"({self.registry.urls[0]}): {type(error).__name__}: {error}"
            ) from error
        return self._frame(payload, ctx, schema_id)

    def prepare(self, topic: str, field: str = "value", headers: Any = None) -> RegisteredSchema:
        """Register or fetch the schema now, so that the first record need not wait for the registry.

        Args:
            topic: the topic it will be used for.
            field: ``'key'`` or ``'value'``.
            headers: for a strategy that looks at them.

        Raises:
            SerializationError, SchemaRegistryError, SchemaRegistryUnavailableError: as for a record.
        """
        subject = self._subject(SerializationContext(topic, field, headers), None)
        self._prepare(subject)
        return self._registered(subject)

    # -- what a format adds

    @abstractmethod
    def _record_name(self) -> str | None:
        """The full name of the type that is written."""

    @abstractmethod
    def _encoder(self, schema: Schema) -> Encode:
        """A function that writes with a schema."""

    def _to_data(self, obj: Any, ctx: Any) -> Any:
        return obj

    def _own_schema(self) -> Schema:
        """The serializer's schema, with what it refers to registered."""
        assert self.schema is not None
        return self.schema

    def _message_indexes(self) -> tuple[int, ...] | None:
        return None

    # --

    def _subject(self, ctx: Any, obj: Any) -> str:
        subject = self._subject_of(ctx, self._record_name())
        if not subject or not isinstance(subject, str):
            raise SerializationError(
                f"subject_name_strategy={self.options.subject_name_strategy!r} gives {subject!r} for "
                f"record name "
                f"{self._record_name()!r} and topic {ctx.topic}: name the type in the schema (Avro: a named "
                f"type, JSON Schema: title), or use another strategy"
            )
        return subject

    def _registered(self, subject: str) -> RegisteredSchema:
        options = self.options
        if options.use_schema_id is not None:
            return RegisteredSchema(options.use_schema_id, self.registry.schema(options.use_schema_id))
        if options.use_latest_version:
            return self.registry.latest(subject)
        ask = self.registry.register if options.registers else self.registry.lookup
        return ask(subject, self._own_schema(), normalize=options.normalize_schemas)

    def _prepare(self, subject: str) -> tuple[SchemaId, Encode]:
        registered = self._registered(subject)
        schema = registered.schema
        if schema.type != self.schema_type:
            raise SerializationError(
                f"schema {registered.id} of subject {subject} at {self.registry.urls[0]} is "
                f"{schema.type}, and "
                f"{type(self).__name__} writes {self.schema_type}: use another subject or serializer"
            )
        encode = self._encoders.get(schema)
        if encode is None:
            encode = self._encoder(schema)
        schema_id = SchemaId(self.schema_type, registered.id, registered.guid, self._message_indexes())
        with self._lock:
            # Bounded, should a strategy make up ever new subjects: what is dropped comes from the client's
            # cache.
            for kept in (self._known, self._encoders):
                if len(kept) >= 1000:
                    kept.clear()
            self._encoders[schema] = encode
            if (
                not self.options.use_latest_version
            ):  # asked each time: the client knows for how long it is good
                self._known[subject] = (schema_id, encode)
        return schema_id, encode


def with_references(schema: Schema | str | None, kind: Any, references: Any) -> Schema | None:
    """A schema given as text or as :class:`Schema`, with references.

    Raises:
        KafkaConfigurationError: it is neither, or of another format.
    """
    if schema is None:
        return None
    if isinstance(schema, str):
        return Schema(schema, kind, tuple(references))
    # confluent-kafka's Schema has other names for the same.
    text = getattr(schema, "schema_str", None)
    if text is not None:
        given = getattr(schema, "references", None) or ()
        found = tuple(SchemaReference(each.name, each.subject, each.version) for each in given)
        return Schema(text, getattr(schema, "schema_type", None) or kind, found + tuple(references))
    if not isinstance(schema, Schema) or schema.type != kind:
        raise KafkaConfigurationError(
            f"schema={schema!r}: must be the text of a schema or a Schema of type {kind}"
        )
    return replace(schema, references=schema.references + tuple(references))
