"""A client of Confluent's Schema Registry API, which Confluent, Apicurio, Karapace and Redpanda serve."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import quote

from kprod.errors import KafkaConfigurationError
from kprod.schema_registry.cache import FetchingCache
from kprod.schema_registry.errors import SchemaRegistryError
from kprod.schema_registry.transport import RegistryTransport

if TYPE_CHECKING:
    from typing_extensions import Self

SchemaType = Literal["AVRO", "PROTOBUF", "JSON"]

# Names of confluent-kafka's and the Java serializers' configuration.
_CONFIG_NAMES: Mapping[str, str] = {
    "url": "url",
    "schema.registry.url": "url",
    "basic.auth.user.info": "basic_auth",
    "bearer.auth.token": "bearer_token",
    "ssl.ca.location": "ssl_cafile",
    "ssl.certificate.location": "ssl_certfile",
    "ssl.key.location": "ssl_keyfile",
    "ssl.key.password": "ssl_password",
    "proxy": "proxy",
    "cache.capacity": "cache_capacity",
    "max.retries": "retries",
    "retries.wait.ms": "retry_backoff_ms",
    "retries.max.wait.ms": "retry_backoff_max_ms",
}


@dataclass(frozen=True)
class SchemaReference:
    """Another schema that a schema uses."""

    name: str
    """What the schema calls it: the full name of an Avro type, the path of a Protobuf import, a JSON "
    "``$ref``."""
    subject: str
    """Where it is registered."""
    version: int
    """Its version there."""

    def as_json(self) -> dict[str, Any]:
        """As the registry takes it."""
        return {"name": self.name, "subject": self.subject, "version": self.version}


@dataclass(frozen=True)
class Schema:
    """The text of a schema, and what it refers to."""

    text: str
    """Avro or JSON Schema as JSON; Protobuf as a .proto, or as a FileDescriptorProto in base64."""
    type: SchemaType = "AVRO"
    """What it is written in."""
    references: tuple[SchemaReference, ...] = ()
    """Schemas that are registered apart."""

    def as_json(self) -> dict[str, Any]:
        """As the registry takes it."""
        body: dict[str, Any] = {"schema": self.text}
        if self.type != "AVRO":  # the default; registries before Confluent 5.5 do not know the field
            body["schemaType"] = self.type
        if self.references:
            body["references"] = [reference.as_json() for reference in self.references]
        return body


@dataclass(frozen=True)
class RegisteredSchema:
    """A schema with the name that a registry gave it."""

    id: int
    """Number of the schema in the registry; the same in all subjects."""
    schema: Schema
    """The schema itself."""
    guid: str | None = None
    """Id of the schema's content, the same in all registries; None: the registry gives none (Confluent
    before 7.9 and 8.0)."""
    subject: str | None = None
    """The subject that was asked about; None: it was asked for by id."""
    version: int | None = None
    """The version in the subject; None: the registry did not say."""


class SchemaRegistryClient:
    """Registers and finds schemas. One client serves any number of serializers and threads.

    Nothing is asked twice: what the registry answered is kept, and of threads that want the same answer one
    asks.

    Args:
        url: of the registry, with the path of its Confluent-compatible API if it has one
            (``http://apicurio:8080/apis/ccompat/v7``). Several, as a sequence or separated by commas, are
            tried
            in turn, beginning with the one that answered last. A mapping of confluent-kafka's configuration
            is
            taken too, as by :meth:`from_config`.
        basic_auth: ``"user:password"`` or a pair; also taken from the URL.
        bearer_token: a token, or a function that returns one, called before each request.
        ssl_cafile: PEM file of the authorities to trust; None: the system's.
        ssl_certfile: PEM file of the client's certificate.
        ssl_keyfile: PEM file of its key; None: it is in ``ssl_certfile``.
        ssl_password: of the key.
        ssl_context: a context of your own, instead of the four.
        timeout_ms: how many milliseconds connecting, and each wait for data, may take.
        retries: how often all URLs are tried again after no answer, HTTP 408, 429 or 5xx.
        retry_backoff_ms: the longest wait before the first of these; it doubles each time, and is shortened
            by a random part of up to half.
        retry_backoff_max_ms: the longest wait of all.
        headers: sent with each request, for instance for a gateway.
        proxy: URL of a proxy; None: what the environment says.
        cache_capacity: how many schemas are kept, of each kind of question.
        latest_ttl_ms: how long ``latest`` versions are believed; None: as long as the client lives.

    Raises:
        ImportError: neither httpx2 nor httpx is installed.
        KafkaConfigurationError: an argument has a value that is not accepted.
        OSError: a file of certificates cannot be read.
    """

    def __init__(
        self,
        url: str | Sequence[str] | Mapping[str, Any],
        *,
        basic_auth: str | tuple[str, str] | None = None,
        bearer_token: str | Callable[[], str] | None = None,
        ssl_cafile: str | None = None,
        ssl_certfile: str | None = None,
        ssl_keyfile: str | None = None,
        ssl_password: str | None = None,
        ssl_context: ssl.SSLContext | None = None,
        timeout_ms: float = 10_000,
        retries: int = 3,
        retry_backoff_ms: float = 100,
        retry_backoff_max_ms: float = 2_000,
        headers: Mapping[str, str] | None = None,
        proxy: str | None = None,
        cache_capacity: int = 1000,
        latest_ttl_ms: float | None = None,
    ) -> None:
        if isinstance(url, Mapping):
            # `SchemaRegistryClient({"url": ...})` is what programs written for confluent-kafka say.
            self.__init__(**_options(url))  # type: ignore[misc]
            return
        urls = [each for each in (url.split(",") if isinstance(url, str) else url) if each.strip()]
        if not urls:
            raise KafkaConfigurationError(
                f"url={url!r} names no registry: give one like 'http://registry:8081'"
            )
        for name, value, least in (
            ("timeout_ms", timeout_ms, 1),
            ("retries", retries, 0),
            ("retry_backoff_ms", retry_backoff_ms, 0),
            ("retry_backoff_max_ms", retry_backoff_max_ms, 0),
            ("cache_capacity", cache_capacity, 1),
            ("latest_ttl_ms", 0 if latest_ttl_ms is None else latest_ttl_ms, 0),
        ):
            if isinstance(value, bool) or not isinstance(value, (int, float)) or value < least:
                raise KafkaConfigurationError(f"{name}={value!r}: must be a number of at least {least}")
        if ssl_context is None and (ssl_cafile or ssl_certfile):
            ssl_context = ssl.create_default_context(cafile=ssl_cafile)
            if ssl_certfile:
                ssl_context.load_cert_chain(ssl_certfile, ssl_keyfile, ssl_password)
        self._transport = RegistryTransport(
            urls,
            basic_auth=_user_and_password(basic_auth),
            bearer_token=bearer_token,
            ssl_context=ssl_context,
            timeout_ms=timeout_ms,
            retries=retries,
            retry_backoff_ms=retry_backoff_ms,
            retry_backoff_max_ms=retry_backoff_max_ms,
            headers=headers,
            proxy=proxy,
        )
        ttl_s = None if latest_ttl_ms is None else latest_ttl_ms / 1000
        self._registered: FetchingCache[RegisteredSchema] = FetchingCache(cache_capacity)
        self._by_id: FetchingCache[Schema] = FetchingCache(cache_capacity)
        self._versions: FetchingCache[RegisteredSchema] = FetchingCache(cache_capacity)
        self._latest: FetchingCache[RegisteredSchema] = FetchingCache(cache_capacity, ttl_s)

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> SchemaRegistryClient:
        """A client from confluent-kafka's configuration (``url``, ``basic.auth.user.info``, ...).

        Raises:
            KafkaConfigurationError: a name is not known, or a value not accepted.
        """
        return cls(**_options(config))

    @property
    def urls(self) -> tuple[str, ...]:
        """The registry's URLs, without credentials."""
        return tuple(self._transport.urls)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {','.join(self.urls)}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections. What is cached can still be used."""
        self._transport.close()

    def register(self, subject: str, schema: Schema, *, normalize: bool = False) -> RegisteredSchema:
        """Make a schema a version of a subject; if it is one already, nothing changes.

        Args:
            subject: where it belongs.
            schema: what to register.
            normalize: let the registry bring it into its normal form first.

        Raises:
            SchemaRegistryError: the registry refused, for instance because the schema is not compatible.
            SchemaRegistryUnavailableError: the registry did not answer.
        """
        return self._registered.get(
            ("register", subject, schema, normalize),
            lambda: self._post(f"subjects/{_quoted(subject)}/versions", subject, schema, normalize),
        )

    def lookup(self, subject: str, schema: Schema, *, normalize: bool = False) -> RegisteredSchema:
        """Find the version of a subject that is this schema.

        Args:
            subject: where to look.
            schema: what to look for.
            normalize: let the registry bring it into its normal form first.

        Raises:
            SchemaRegistryError: the subject has no such schema.
            SchemaRegistryUnavailableError: the registry did not answer.
        """
        return self._registered.get(
            ("lookup", subject, schema, normalize),
            lambda: self._post(f"subjects/{_quoted(subject)}", subject, schema, normalize),
        )

    def latest(self, subject: str) -> RegisteredSchema:
        """The newest version of a subject; believed for ``latest_ttl_ms``.

        Raises:
            SchemaRegistryError: there is no such subject.
            SchemaRegistryUnavailableError: the registry did not answer.
        """
        return self._latest.get(subject, lambda: self._version(subject, "latest"))

    def version(self, subject: str, version: int) -> RegisteredSchema:
        """One version of a subject.

        Raises:
            SchemaRegistryError: there is no such subject or version.
            SchemaRegistryUnavailableError: the registry did not answer.
        """
        return self._versions.get((subject, version), lambda: self._version(subject, str(version)))

    def schema(self, schema_id: int) -> Schema:
        """The schema of an id.

        Raises:
            SchemaRegistryError: there is none.
            SchemaRegistryUnavailableError: the registry did not answer.
        """

        def fetch() -> Schema:
            path = f"schemas/ids/{schema_id}"
            return _schema(self._transport.request("GET", path, schema_id=schema_id))

        return self._by_id.get(schema_id, fetch)

    def subjects(self) -> list[str]:
        """The names of all subjects.

        Raises:
            SchemaRegistryError: the registry refused.
            SchemaRegistryUnavailableError: the registry did not answer.
        """
        return list(self._transport.request("GET", "subjects"))

    def _post(self, path: str, subject: str, schema: Schema, normalize: bool) -> RegisteredSchema:
        query = {"normalize": "true"} if normalize else None
        answer = self._transport.request("POST", path, body=schema.as_json(), query=query, subject=subject)
        return self._registered_schema(answer, subject, schema)

    def _version(self, subject: str, version: str) -> RegisteredSchema:
        path = f"subjects/{_quoted(subject)}/versions/{version}"
        answer = self._transport.request("GET", path, subject=subject)
        return self._registered_schema(answer, subject, None)

    def _registered_schema(self, answer: Any, subject: str, schema: Schema | None) -> RegisteredSchema:
        schema_id = answer.get("id") if isinstance(answer, dict) else None
        if not isinstance(schema_id, int) or not 0 <= schema_id < 2**32:
            raise SchemaRegistryError(
                f"the answer names no schema id: {str(answer)[:200]!r}", url=self.urls[0], subject=subject
            )
        return RegisteredSchema(
            id=schema_id,
            schema=schema or _schema(answer),
            guid=answer.get("guid"),
            subject=subject,
            version=answer.get("version"),
        )


def _schema(answer: Any) -> Schema:
    references = tuple(
        SchemaReference(each["name"], each["subject"], each["version"])
        for each in answer.get("references") or ()
    )
    return Schema(answer["schema"], answer.get("schemaType") or "AVRO", references)


def _quoted(subject: str) -> str:
    return quote(subject, safe="")


def _user_and_password(given: str | tuple[str, str] | None) -> tuple[str, str] | None:
    if given is None:
        return None
    pair = given.partition(":")[::2] if isinstance(given, str) else tuple(given)
    if len(pair) != 2 or not pair[0]:
        raise KafkaConfigurationError("basic_auth must be 'user:password' or (user, password)")
    return pair[0], pair[1]


def _options(config: Mapping[str, Any]) -> dict[str, Any]:
    options: dict[str, Any] = {}
    for name, value in config.items():
        if value is None:
            continue
        if name == "timeout":  # seconds in confluent-kafka
            options["timeout_ms"] = value * 1000
        elif name == "cache.latest.ttl.sec":
            options["latest_ttl_ms"] = value * 1000
        elif name in ("basic.auth.credentials.source", "bearer.auth.credentials.source"):
            if str(value).upper() not in ("USER_INFO", "URL", "STATIC_TOKEN"):
                raise KafkaConfigurationError(
                    f"{name}={value!r} is not supported: give basic_auth, or as bearer_token a function that "
                    f"returns a token"
                )
        elif name in _CONFIG_NAMES:
            options[_CONFIG_NAMES[name]] = value
        else:
            raise KafkaConfigurationError(
                f"{name!r} is no option of a Schema Registry client; there are "
                f"{', '.join(sorted([*_CONFIG_NAMES, 'timeout', 'cache.latest.ttl.sec']))}"
            )
    return options
