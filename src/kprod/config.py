"""The one table of all options of the producer.

The fields of :class:`ProducerConfig` are the table: each declares name, type, default, accepted values, other
names and documentation, and ``docs/options.md`` is generated from it. Names are kafka-python's (snake_case);
the Java client's dotted names are accepted everywhere. Options of those clients that mean nothing here are
listed in :data:`NO_EFFECT` and :data:`NOT_AVAILABLE`. Defaults and derived rules are those of the Java client
4.4 (``ProducerConfig``), except where an option says otherwise.

The only function other modules need is :meth:`ProducerConfig.from_options`.
"""

from __future__ import annotations

import re
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, TypeVar, cast

from kprod._core.compression import CODECS, check_level, get_codec
from kprod.errors import KafkaConfigurationError, UnknownOptionError
from kprod.option_types import (
    INT32_MAX,
    INT64_MAX,
    Acks,
    Anything,
    ApiVersion,
    BufferBytes,
    Choice,
    Endpoint,
    Endpoints,
    FilePath,
    Flag,
    HttpAddress,
    Instance,
    Integer,
    Kind,
    MappingOf,
    Milliseconds,
    NonEmptyText,
    OptionalOf,
    Rejected,
    SecretText,
    SocketOptions,
    Text,
    Words,
    endpoint_text,
)
from kprod.partitioner import is_partitioner, partitioner_by_name
from kprod.records import check_topic_name
from kprod.serializers import is_serializer, serializer_by_name
from kprod.values import Value

if TYPE_CHECKING:
    import logging
    import ssl

T = TypeVar("T")

Importance = Literal["high", "medium", "low"]

COMPRESSION_TYPES = tuple(codec.name for codec in CODECS)
"""Names of the codecs, from the table in the core."""

MAX_IDEMPOTENT_IN_FLIGHT = 5
"""Brokers remember the last five batches per producer and partition, to recognise a repeated one."""

TLS_VERSIONS = ("TLSv1.2", "TLSv1.3")
"""TLS versions that can be offered."""

_OLD_TLS_VERSIONS = ("SSLv2Hello", "SSLv2", "SSLv3", "TLSv1", "TLSv1.1")

HIDDEN = "<hidden>"

CONNECTIONS = "Connections"
METADATA = "Cluster metadata"
DELIVERY = "Delivery"
BATCHING = "Batching, memory and compression"
PARTITIONING = "Partitioning"
SERIALIZATION = "Serialization"
TRANSACTIONS = "Transactions"
METRICS = "Metrics"
SECURITY = "Security"


class Option(Value):
    """A line of the table."""

    name: str
    """The name in this library: the attribute of :class:`ProducerConfig`."""
    kind: Kind[Any]
    """What is accepted, and how it is parsed."""
    default: Any
    """The value when the user gives none."""
    doc: str
    """What it does."""
    group: str
    """The section of the documentation it stands in."""
    importance: Importance
    """How likely it is that an application needs to think about it."""
    aliases: tuple[str, ...]
    """Further names; the dotted form of every name is accepted as well."""
    secret: bool
    """The value must never be shown."""
    default_text: str | None
    """What the documentation says about the default, as Markdown, where the value alone would mislead."""

    @property
    def dotted_name(self) -> str:
        """The name with dots, as Java properties are written."""
        return self.name.replace("_", ".")

    def show(self, value: Any) -> str:
        """The value as text, without secrets."""
        if self.secret and value is not None:
            return repr(HIDDEN)
        return self.kind.show(value)


class _Declared(tuple[Any, ...]):
    """The fields of an :class:`Option` after its name."""

    __slots__ = ()


def _option(
    kind: Kind[T],
    default: T,
    doc: str,
    *,
    group: str,
    importance: Importance = "medium",
    aliases: tuple[str, ...] = (),
    secret: bool = False,
    default_text: str | None = None,
) -> T:
    """Declare a field of :class:`ProducerConfig` and with it a line of the table."""
    if isinstance(default, Mapping):
        default = cast(T, MappingProxyType(dict(default)))
    # It gets its name, and the default takes this one's place, once the class is there.
    text = " ".join(doc.split())
    return cast(T, _Declared((kind, default, text, group, importance, aliases, secret, default_text)))


# --- Options of one topic -----------------------------------------------------------------------------------


class TopicOptions(Value):
    """Options that differ for one topic; ``None`` means: as for the producer."""

    compression_type: str | None = None
    """Codec of this topic's batches."""
    compression_level: int | None = None
    """Level of that codec."""
    acks: int | None = None
    """-1, 0 or 1 for this topic's batches."""
    batch_size: int | None = None
    """Bytes after which this topic's batches close."""


_TOPIC_OPTION_KINDS: Mapping[str, Kind[Any]] = {
    "compression_type": Choice(*COMPRESSION_TYPES, none="none"),
    "compression_level": OptionalOf(Integer(-131072, 22)),
    "acks": Acks(),
    "batch_size": Integer(0),
}


def _topic_options(topic: str, value: object, text: bool) -> TopicOptions:
    """Parse the options of one topic."""
    try:
        check_topic_name(topic)
    except (TypeError, ValueError) as error:
        raise Rejected(str(error)) from None
    if isinstance(value, TopicOptions):
        value = {
            name: getattr(value, name) for name in _TOPIC_OPTION_KINDS if getattr(value, name) is not None
        }
    if not isinstance(value, Mapping):
        raise Rejected(f"the options of topic {topic!r} must be a mapping, not {value!r}")
    parsed: dict[str, Any] = {}
    for given, inner in value.items():
        name = str(given).replace(".", "_")
        kind = _TOPIC_OPTION_KINDS.get(name)
        if kind is None:
            raise Rejected(
                f"topic {topic!r} has {given!r}, but a topic can only have {', '.join(_TOPIC_OPTION_KINDS)}"
            )
        if name in parsed:
            raise Rejected(f"topic {topic!r} has {name} twice")
        try:
            parsed[name] = kind.parse(inner, text)
        except Rejected:
            raise Rejected(f"topic {topic!r} has {given}={inner!r}, which takes {kind.accepts}") from None
    return TopicOptions(**parsed)


class _InterceptorsKind(Kind["tuple[Any, ...]"]):
    """Interceptors, their classes, or the names of these."""

    accepts = (
        "a list of objects or classes with on_send() or on_acknowledgement(), or of names such as "
        "'package.module.Class'; or a str of such names with commas"
    )

    def parse(self, value: object, text: bool) -> tuple[Any, ...]:
        if value is None:
            return ()
        if isinstance(value, str):
            value = [name.strip() for name in value.split(",") if name.strip()]
        if not isinstance(value, (list, tuple)):
            raise Rejected()
        for entry in value:
            methods = (getattr(entry, name, None) for name in ("on_send", "on_acknowledgement"))
            if not (isinstance(entry, str) and "." in entry) and not any(map(callable, methods)):
                raise Rejected(f"{entry!r} is neither")
        return tuple(value)

    def show(self, value: tuple[Any, ...]) -> str:
        return repr(list(value))


# --- The table ----------------------------------------------------------------------------------------------

_callable: Instance[Callable[..., object] | None] = Instance(
    lambda value: value is None or callable(value), "a callable, or None"
)


class _PartitionerKind(Instance[Any]):
    """A partitioner, or the name of one."""

    def parse(self, value: object, text: bool) -> Any:
        if not isinstance(value, str):
            return super().parse(value, text)
        try:
            return partitioner_by_name(value)
        except ValueError as error:
            raise Rejected(str(error)) from None


class _SerializerKind(Instance[Any]):
    """A serializer, or the name of one of the Java client's."""

    def parse(self, value: object, text: bool) -> Any:
        if isinstance(value, type) and hasattr(value, "serialize"):
            raise Rejected(f"an instance is needed, {value.__name__}(), not the class")
        if not isinstance(value, str):
            return super().parse(value, text)
        try:
            return serializer_by_name(value)
        except ValueError as error:
            raise Rejected(str(error)) from None


_SERIALIZER = _SerializerKind(is_serializer, "a callable, an object with a serialize() method, or None")


def _is_ssl_context(value: object) -> bool:
    # Who has one has imported ssl; the others do not wait for it.
    module = sys.modules.get("ssl")
    return value is None or (module is not None and isinstance(value, module.SSLContext))


_TEXT = OptionalOf(NonEmptyText())
_FILE = OptionalOf(FilePath())
_SECRET = OptionalOf(SecretText())


def _is_text_or_callable(value: object) -> bool:
    if not isinstance(value, str):
        return value is None or callable(value)
    try:
        SecretText().parse(value, text=False)
    except Rejected:
        return False
    return value != ""


_TEXT_OR_CALLABLE = Instance[Any](
    _is_text_or_callable,
    "a non-empty str, a callable that returns one, or None; the text must be valid UTF-8",
)


class _Extensions(MappingOf[str]):
    """SASL extensions: a mapping, or ``'name=value,name=value'`` as librdkafka has it."""

    def parse(self, value: object, text: bool) -> Mapping[str, str]:
        if isinstance(value, str):
            pairs = [pair.partition("=") for pair in value.split(",") if pair.strip()]
            value = {name.strip(): inner for name, _, inner in pairs}
        return super().parse(value, text)


def _extension(name: str, value: object, text: bool) -> str:
    if not re.fullmatch(r"[A-Za-z]+", name) or name == "auth":
        raise Rejected(f"the name {name!r} is not made of letters, or is 'auth'")
    if not isinstance(value, str) or not value or not value.isprintable():
        raise Rejected(f"the value of {name!r} is not printable text")
    return value


_EXTENSIONS = _Extensions(_extension, "a mapping of str to str, or a str like 'name=value,name=value'")


class ProducerConfig(Value):
    """The options of one producer, checked, complete and immutable: one attribute per option.

    Make it with :meth:`from_options`. Values that follow from other options (idempotence that is off because
    of ``acks=1``, a client id) are filled in, so that nobody else has to know the rules.
    """

    # Connections

    bootstrap_servers: tuple[Endpoint, ...] = _option(
        Endpoints(),
        (("localhost", 9092),),
        """Brokers to ask first; the others are learnt from them. Name at least two, in case one is down.
        Stored as a tuple of (host, port).""",
        group=CONNECTIONS,
        importance="high",
        default_text="`'localhost:9092'`",
    )
    client_id: str = _option(
        Text(none=""),
        "",
        "Name of this producer in the brokers' logs, quotas and metrics.",
        group=CONNECTIONS,
        default_text="kprod-producer-N, counted in the process",
    )
    client_rack: str = _option(
        Text(none=""),
        "",
        """Where this client runs, in the words of the brokers' broker.rack; see partitioner_rack_aware
        (KIP-1123).""",
        group=CONNECTIONS,
        importance="low",
    )
    client_dns_lookup: str = _option(
        Choice("use_all_dns_ips", "resolve_canonical_bootstrap_servers_only"),
        "use_all_dns_ips",
        """use_all_dns_ips: try every address of a host name in turn (KIP-302).
        resolve_canonical_bootstrap_servers_only: replace each bootstrap address by its canonical host names
        (KIP-235).""",
        group=CONNECTIONS,
    )
    bootstrap_timeout_ms: float = _option(
        Milliseconds(),
        30000,
        "How long the constructor tries to reach one of the bootstrap servers; 0: do not wait.",
        group=CONNECTIONS,
    )
    request_timeout_ms: float = _option(
        Milliseconds(1),
        30000,
        """How long to wait for the answer to a request before the connection is given up and the request
        tried again.""",
        group=CONNECTIONS,
    )
    socket_connection_setup_timeout_ms: float = _option(
        Milliseconds(1),
        10000,
        "How long a TCP connection may take to be established at first; grows with every failure (KIP-601).",
        group=CONNECTIONS,
    )
    socket_connection_setup_timeout_max_ms: float = _option(
        Milliseconds(1), 30000, "The most it grows to.", group=CONNECTIONS
    )
    reconnect_backoff_ms: float = _option(
        Milliseconds(),
        50,
        "Pause before a broker is connected to again; doubles with every failure, with 20 % jitter.",
        group=CONNECTIONS,
        importance="low",
    )
    reconnect_backoff_max_ms: float = _option(
        Milliseconds(),
        1000,
        "The longest such pause. Raised to reconnect_backoff_ms if only that is given.",
        group=CONNECTIONS,
        importance="low",
    )
    connections_max_idle_ms: float = _option(
        Milliseconds(high=INT64_MAX),
        540000,
        "Connections without traffic for this long are closed; just below the brokers' ten minutes.",
        group=CONNECTIONS,
    )
    send_buffer_bytes: int = _option(
        BufferBytes(),
        -1,
        """Size of the socket's send buffer (SO_SNDBUF). -1: the operating system tunes it, which is faster on
        long distances than the Java client's fixed 131072.""",
        group=CONNECTIONS,
    )
    receive_buffer_bytes: int = _option(
        BufferBytes(),
        -1,
        "Size of the socket's receive buffer (SO_RCVBUF). -1: the operating system tunes it.",
        group=CONNECTIONS,
    )
    socket_options: tuple[tuple[int, int, int | bytes], ...] = _option(
        SocketOptions(),
        (),
        "Further socket options, set on every connection. TCP_NODELAY is always set.",
        group=CONNECTIONS,
        importance="low",
    )
    receive_message_max_bytes: int = _option(
        Integer(1024),
        100_000_000,
        "A response that announces more bytes than this is refused and the connection closed.",
        group=CONNECTIONS,
        importance="low",
    )

    # Cluster metadata

    allow_auto_create_topics: bool = _option(
        Flag(),
        True,
        "Ask the broker to create a topic that does not exist; it does so only if it is set up to.",
        group=METADATA,
    )
    metadata_max_age_ms: float = _option(
        Milliseconds(high=INT64_MAX),
        300000,
        "Refresh metadata at least this often, also when nothing has failed, to notice new partitions.",
        group=METADATA,
        importance="low",
    )
    metadata_max_idle_ms: float = _option(
        Milliseconds(5000, INT64_MAX),
        300000,
        "Forget a topic that nothing was sent to for this long.",
        group=METADATA,
        importance="low",
    )
    metadata_recovery_strategy: str = _option(
        Choice("rebootstrap", "none"),
        "rebootstrap",
        """What to do when no known broker can be reached: start again from bootstrap_servers (KIP-899), or
        keep trying the known ones.""",
        group=METADATA,
        importance="low",
    )
    metadata_recovery_rebootstrap_trigger_ms: float = _option(
        Milliseconds(high=INT64_MAX),
        300000,
        "Start again from bootstrap_servers when metadata could not be had for this long (KIP-1102).",
        group=METADATA,
        importance="low",
    )

    # Delivery

    acks: int = _option(
        Acks(),
        -1,
        """When a record counts as written. 'all' (stored as -1): by all in-sync replicas. 1: by the leader;
        lost if it fails before others have it. 0: the broker does not answer; offsets are unknown and errors
        go unnoticed.""",
        group=DELIVERY,
        importance="high",
    )
    enable_idempotence: bool = _option(
        Flag(),
        True,
        """The broker recognises a repeated batch: each record is written once and in order, in spite of
        retries. Needs acks='all', retries > 0 and at most 5 requests in flight. Switched off, with a log
        message, if it is not set explicitly and acks or retries do not allow it.""",
        group=DELIVERY,
        importance="high",
    )
    max_in_flight_requests_per_connection: int = _option(
        Integer(1),
        5,
        "Produce requests that may wait for their answer at each broker.",
        group=DELIVERY,
        importance="low",
        aliases=("max_in_flight",),
    )
    retries: int = _option(
        Integer(0, infinity=True),
        INT32_MAX,
        """How often a batch is sent again after an error that can pass. Better left alone:
        delivery_timeout_ms bounds the time.""",
        group=DELIVERY,
        importance="high",
    )
    retry_backoff_ms: float = _option(
        Milliseconds(),
        100,
        "Pause before a request is tried again; doubles with every attempt, with 20 % jitter (KIP-580).",
        group=DELIVERY,
        importance="low",
    )
    retry_backoff_max_ms: float = _option(
        Milliseconds(),
        1000,
        "The longest such pause. Raised to retry_backoff_ms if only that is given.",
        group=DELIVERY,
        importance="low",
    )
    delivery_timeout_ms: float = _option(
        Milliseconds(),
        120000,
        """Every record is decided (written, or failed for good) within this time after send(), whatever
        happens: waiting, retries, broker failures. At least linger_ms + request_timeout_ms; raised to that,
        with a log message, if not set explicitly (KIP-91).""",
        group=DELIVERY,
    )
    on_delivery: Callable[..., object] | None = _option(
        _callable,
        None,
        "Called as on_delivery(err, metadata) for every record whose send() names no other callback.",
        group=DELIVERY,
    )
    delivery_report_headers: bool = _option(
        Flag(),
        False,
        "Keep each record's headers until it is delivered and give them back in its metadata.",
        group=DELIVERY,
        importance="low",
    )
    gapless: bool = _option(
        Flag(),
        False,
        """A record that fails for good stops the producer, so that no later record of its partition is
        written without it. Needs idempotence.""",
        group=DELIVERY,
        importance="low",
        aliases=("enable_gapless_guarantee",),
    )

    # Batching, memory and compression

    batch_size: int = _option(
        Integer(0),
        16384,
        "A batch closes when it holds this many bytes. A larger record travels alone; 0: each record does.",
        group=BATCHING,
    )
    linger_ms: float = _option(
        Milliseconds(),
        5,
        """How long a batch that is not full waits for more records. Beside one that leaves, others leave up
        to an eighth of this earlier.""",
        group=BATCHING,
    )
    buffer_memory: int = _option(
        Integer(1, INT64_MAX),
        33554432,
        """Bytes that records which are not yet acknowledged may take in all. When they are used up, send()
        waits for max_block_ms. Raised to max_request_size if only that is given.""",
        group=BATCHING,
        importance="high",
    )
    max_block_ms: float = _option(
        Milliseconds(high=INT64_MAX),
        60000,
        "How long send() and partitions_for() may wait, for metadata and memory together.",
        group=BATCHING,
    )
    max_request_size: int = _option(
        Integer(1),
        1048576,
        """The most bytes of a record (before compression, with its overhead) and of a produce request.
        Lowered to buffer_memory if only that is given.""",
        group=BATCHING,
    )
    compression_type: str = _option(
        Choice(*COMPRESSION_TYPES, none="none"),
        "none",
        "Codec of the batches. A batch that compression would make larger is sent uncompressed.",
        group=BATCHING,
        importance="high",
    )
    compression_level: int | None = _option(
        OptionalOf(Integer(-131072, 22)),
        None,
        "Level of the codec that compression_type names: gzip 1 to 9, lz4 0 to 17, zstd -131072 to 22.",
        group=BATCHING,
        default_text="the codec's own",
    )
    compression_gzip_level: int | None = _option(
        OptionalOf(Integer(-1, 9)),
        None,
        "Level for gzip, 1 to 9; -1 is the default, 6 (KIP-390).",
        group=BATCHING,
        default_text="`-1`",
    )
    compression_lz4_level: int | None = _option(
        OptionalOf(Integer(0, 17)),
        None,
        """Level for lz4: 0 to 2 is the fast mode, 3 to 12 the high-compression mode, 13 to 17 the same as 12
        (KIP-390). The Java client's default, 9, means the fast mode there.""",
        group=BATCHING,
        default_text="`0`",
    )
    compression_zstd_level: int | None = _option(
        OptionalOf(Integer(-131072, 22)),
        None,
        "Level for zstd, -131072 to 22 (KIP-390).",
        group=BATCHING,
        default_text="`3`",
    )
    topic_options: Mapping[str, TopicOptions] = _option(
        MappingOf(
            _topic_options,
            "a mapping from topic names to mappings of compression_type, compression_level, acks, batch_size",
        ),
        MappingProxyType({}),
        """What differs for single topics, for example {'logs': {'compression_type': 'zstd', 'batch_size':
        131072}}. Possible are compression_type, compression_level, acks and batch_size.""",
        group=BATCHING,
        importance="low",
        aliases=("topic_config",),
    )

    # Partitioning

    partitioner: Any = _option(
        _PartitionerKind(is_partitioner, "a callable, an object with a partition() method, a name, or None"),
        None,
        """Who chooses the partition of a record that names none. None: the hash of the key, or for a null key
        a partition that is kept until its batch is full (KIP-794). A name ('round_robin', 'murmur2_random',
        'consistent_random', ...), a function or an object: see kprod.partitioner.""",
        group=PARTITIONING,
        aliases=("partitioner_class",),
    )
    partitioner_adaptive_partitioning_enable: bool = _option(
        Flag(),
        True,
        "Records without a key prefer partitions whose broker keeps up (KIP-794).",
        group=PARTITIONING,
        importance="low",
    )
    partitioner_availability_timeout_ms: float = _option(
        Milliseconds(high=INT64_MAX),
        0,
        """Records without a key avoid partitions whose broker has not taken a batch for this long; 0: never
        (KIP-794).""",
        group=PARTITIONING,
        importance="low",
    )
    partitioner_ignore_keys: bool = _option(
        Flag(),
        False,
        "Place records as if they had no key.",
        group=PARTITIONING,
    )
    partitioner_rack_aware: bool = _option(
        Flag(),
        False,
        "Records without a key prefer partitions whose leader is in client_rack (KIP-1123).",
        group=PARTITIONING,
        importance="low",
    )

    # Serialization

    key_serializer: Any = _option(
        _SERIALIZER,
        None,
        "Makes bytes of a key: a function f(key), or an object with serialize(topic, headers, key).",
        group=SERIALIZATION,
        importance="high",
    )
    value_serializer: Any = _option(
        _SERIALIZER,
        None,
        "Makes bytes of a value, in the same way. Neither of the two is called for None.",
        group=SERIALIZATION,
        importance="high",
    )

    interceptor_classes: tuple[Any, ...] = _option(
        _InterceptorsKind(),
        (),
        "What sees every record before it is serialized, and hears of its end; see interceptors.md (KIP-42).",
        group=SERIALIZATION,
        importance="low",
        aliases=("interceptors",),
    )

    # Transactions

    transactional_id: str | None = _option(
        OptionalOf(NonEmptyText()),
        None,
        "Name under which transactions survive a restart.",
        group=TRANSACTIONS,
        importance="low",
    )
    transaction_timeout_ms: int = _option(
        Integer(1),
        60000,
        "The coordinator aborts a transaction that is open for longer.",
        group=TRANSACTIONS,
        importance="low",
    )
    transaction_two_phase_commit_enable: bool = _option(
        Flag(),
        False,
        "Transactions take part in a two-phase commit: they can be prepared, and never expire (KIP-939). "
        "Needs brokers that have it enabled.",
        group=TRANSACTIONS,
        importance="low",
    )

    # Metrics

    metrics_enabled: bool = _option(
        Flag(), True, "If False, metrics() returns None.", group=METRICS, importance="low"
    )
    metrics_num_samples: int = _option(
        Integer(1),
        2,
        "Windows over which rates and averages are taken.",
        group=METRICS,
        importance="low",
    )
    metrics_sample_window_ms: float = _option(
        Milliseconds(1), 30000, "Length of one window.", group=METRICS, importance="low"
    )
    enable_metrics_push: bool = _option(
        Flag(),
        True,
        "Push metrics to brokers that ask for them (KIP-714). Nothing is sent where they do not, or with "
        "metrics_enabled=False.",
        group=METRICS,
        importance="low",
    )

    # Security

    security_protocol: str = _option(
        Choice("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"),
        "PLAINTEXT",
        "How to talk to brokers: SSL is encrypted with TLS, SASL_* authenticates with SASL.",
        group=SECURITY,
        importance="high",
    )
    ssl_context: ssl.SSLContext | None = _option(
        Instance(_is_ssl_context, "an ssl.SSLContext, or None"),
        None,
        """A context for TLS, made with Python's ssl module. It contradicts every other ssl_ option; whether
        host names are checked is its check_hostname.""",
        group=SECURITY,
    )
    ssl_check_hostname: bool = _option(
        Flag(), True, "The broker's certificate must be for the host connected to.", group=SECURITY
    )
    ssl_cafile: str | None = _option(
        _FILE,
        None,
        """PEM file with the certificates of the authorities that brokers' certificates may be signed by.
        None: those of the operating system. Files are read again by the next connection after they changed;
        that goes for all ssl_ options that name one.""",
        group=SECURITY,
        importance="high",
    )
    ssl_certfile: str | None = _option(
        _FILE,
        None,
        """PEM file with the client's certificate, followed by those of intermediate authorities, for brokers
        that ask for one (mTLS). It may hold the private key too.""",
        group=SECURITY,
    )
    ssl_keyfile: str | None = _option(
        _FILE, None, "PEM file with the private key of ssl_certfile, if it is not in there.", group=SECURITY
    )
    ssl_password: str | None = _option(
        _SECRET,
        None,
        "Password of the private key, in ssl_keyfile, ssl_certfile or a PEM key store.",
        group=SECURITY,
        aliases=("ssl_key_password",),
        secret=True,
    )
    ssl_crlfile: str | None = _option(
        _FILE,
        None,
        "PEM file with lists of revoked certificates (CRL); a broker's certificate must not be in them.",
        group=SECURITY,
    )
    ssl_ciphers: str | None = _option(
        _TEXT,
        None,
        "Cipher suites to offer with TLS 1.2, in OpenSSL's notation; those of TLS 1.3 are always offered.",
        group=SECURITY,
        importance="low",
    )
    ssl_cipher_suites: tuple[str, ...] = _option(
        Words(),
        (),
        """Cipher suites to offer, by their standard names. A TLS version that none is named of is not
        offered. Of TLS 1.3's, naming one offers all, before Python 3.15.""",
        group=SECURITY,
        importance="low",
    )
    ssl_enabled_protocols: tuple[str, ...] = _option(
        Words(),
        TLS_VERSIONS,
        "TLS versions to offer; none before TLS 1.2.",
        group=SECURITY,
        importance="low",
    )
    ssl_protocol: str = _option(
        Choice("TLS", "TLSv1.2", "TLSv1.3"),
        "TLSv1.3",
        "The newest TLS version to offer; TLS means the newest there is.",
        group=SECURITY,
        importance="low",
    )
    ssl_endpoint_identification_algorithm: str = _option(
        Choice("https", "", none=""),
        "https",
        "Java's form of ssl_check_hostname: '' switches the check off.",
        group=SECURITY,
        importance="low",
    )
    ssl_truststore_type: str = _option(
        Choice("PEM", "PKCS12", "JKS"),
        "JKS",
        """Format of the trust store, as the Java client's. With JKS, the default there, the file shows
        whether it is PEM or PKCS12; real JKS files are refused, with the command that converts them.""",
        group=SECURITY,
    )
    ssl_truststore_location: str | None = _option(
        _FILE,
        None,
        """File with trusted certificates, PEM or PKCS12; the latter needs the package cryptography
        (pip install 'kprod[pkcs12]').""",
        group=SECURITY,
    )
    ssl_truststore_password: str | None = _option(
        _SECRET, None, "Password of a PKCS12 trust store.", group=SECURITY, secret=True
    )
    ssl_truststore_certificates: str | None = _option(
        _SECRET, None, "Trusted certificates as PEM text.", group=SECURITY, secret=True
    )
    ssl_keystore_type: str = _option(
        Choice("PEM", "PKCS12", "JKS"), "JKS", "Format of the key store, likewise.", group=SECURITY
    )
    ssl_keystore_location: str | None = _option(
        _FILE,
        None,
        "File with the client's private key and certificates, PEM or PKCS12.",
        group=SECURITY,
    )
    ssl_keystore_password: str | None = _option(
        _SECRET, None, "Password of a PKCS12 key store.", group=SECURITY, secret=True
    )
    ssl_keystore_key: str | None = _option(
        _SECRET, None, "Private key as PEM text.", group=SECURITY, secret=True
    )
    ssl_keystore_certificate_chain: str | None = _option(
        _SECRET, None, "Certificate chain as PEM text.", group=SECURITY, secret=True
    )
    sasl_mechanism: str | None = _option(
        OptionalOf(Choice("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER", "GSSAPI", "AWS_MSK_IAM")),
        None,
        """How to authenticate with SASL. Needed with SASL_PLAINTEXT and SASL_SSL, unless sasl_jaas_config
        tells it. AWS_MSK_IAM is OAUTHBEARER with tokens that AWS's package signs.""",
        group=SECURITY,
        importance="high",
        aliases=("sasl_mechanisms",),
    )
    sasl_plain_username: Any = _option(
        _TEXT_OR_CALLABLE,
        None,
        "User name for PLAIN and SCRAM, or a callable that returns it, asked at each authentication.",
        group=SECURITY,
        importance="high",
        aliases=("sasl_username",),
    )
    sasl_plain_password: Any = _option(
        _TEXT_OR_CALLABLE,
        None,
        "Password for PLAIN and SCRAM, or a callable that returns it, asked at each authentication.",
        group=SECURITY,
        importance="high",
        aliases=("sasl_password",),
        secret=True,
    )
    sasl_jaas_config: str | None = _option(
        _SECRET,
        None,
        """Credentials in Java's form, with the PlainLoginModule, ScramLoginModule, OAuthBearerLoginModule,
        IAMLoginModule or Krb5LoginModule; options of kprod may not contradict it.""",
        group=SECURITY,
        secret=True,
    )
    sasl_oauth_token_provider: Any = _option(
        Instance(
            lambda value: value is None or callable(value) or callable(getattr(value, "token", None)),
            "a callable or an object with a token() method, or None",
        ),
        None,
        """Gives the token for OAUTHBEARER: a callable that returns it, or an object with a token() and
        perhaps an extensions() method, as for kafka-python. Asked at each authentication, in a thread of its
        own; keeping a token while it is valid is up to it.""",
        group=SECURITY,
        secret=True,
    )
    sasl_oauthbearer_token_endpoint_url: str | None = _option(
        OptionalOf(HttpAddress()),
        None,
        """Where to get tokens for OAUTHBEARER: an OpenID provider's token endpoint, asked for client
        credentials, or, with sasl_oauthbearer_assertion_*, with a JWT. Needs pip install 'kprod[oauth]'.""",
        group=SECURITY,
    )
    sasl_oauthbearer_client_credentials_client_id: str | None = _option(
        _TEXT,
        None,
        "Who this client is, for the token endpoint.",
        group=SECURITY,
        aliases=("sasl_oauthbearer_client_id",),
    )
    sasl_oauthbearer_client_credentials_client_secret: str | None = _option(
        _SECRET,
        None,
        "The client's secret for the token endpoint.",
        group=SECURITY,
        aliases=("sasl_oauthbearer_client_secret",),
        secret=True,
    )
    sasl_oauthbearer_scope: str | None = _option(
        _TEXT, None, "What to ask a token for.", group=SECURITY, importance="low"
    )
    sasl_oauthbearer_header_urlencode: bool = _option(
        Flag(),
        False,
        "Encode id and secret for the token endpoint as RFC 6749 demands; not all endpoints decode them.",
        group=SECURITY,
        importance="low",
    )
    sasl_oauthbearer_extensions: Mapping[str, str] = _option(
        _EXTENSIONS,
        {},
        """SASL extensions to send with each token (KIP-342), such as logicalCluster of Confluent Cloud, as a
        mapping or as 'name=value,name=value'.""",
        group=SECURITY,
        importance="low",
    )
    sasl_oauthbearer_unsecured_subject: str | None = _option(
        _TEXT,
        None,
        """Authenticate with unsigned tokens that name this subject, which only brokers set up for tests
        accept (Java: unsecuredLoginStringClaim_sub).""",
        group=SECURITY,
        importance="low",
    )
    sasl_oauthbearer_assertion_file: str | None = _option(
        _FILE,
        None,
        "File with a ready assertion for the token endpoint, read for each token.",
        group=SECURITY,
    )
    sasl_oauthbearer_assertion_private_key_file: str | None = _option(
        _FILE, None, "PEM file with the key to sign assertions with.", group=SECURITY
    )
    sasl_oauthbearer_assertion_private_key_passphrase: str | None = _option(
        _SECRET, None, "Its password.", group=SECURITY, secret=True
    )
    sasl_oauthbearer_assertion_algorithm: str = _option(
        Choice("RS256", "ES256"), "RS256", "How assertions are signed.", group=SECURITY, importance="low"
    )
    sasl_oauthbearer_assertion_claim_aud: str | None = _option(
        _TEXT, None, "Audience of assertions.", group=SECURITY, importance="low"
    )
    sasl_oauthbearer_assertion_claim_iss: str | None = _option(
        _TEXT, None, "Issuer of assertions.", group=SECURITY, importance="low"
    )
    sasl_oauthbearer_assertion_claim_sub: str | None = _option(
        _TEXT, None, "Subject of assertions.", group=SECURITY, importance="low"
    )
    sasl_oauthbearer_assertion_claim_exp_seconds: int = _option(
        Integer(0, 86400), 300, "Seconds that an assertion is valid for.", group=SECURITY, importance="low"
    )
    sasl_oauthbearer_assertion_claim_nbf_seconds: int = _option(
        Integer(0, 3600),
        60,
        "Seconds before now that an assertion is valid from, for clocks that differ.",
        group=SECURITY,
        importance="low",
    )
    sasl_oauthbearer_assertion_claim_jti_include: bool = _option(
        Flag(), False, "Give every assertion an id of its own.", group=SECURITY, importance="low"
    )
    sasl_login_connect_timeout_ms: float | None = _option(
        OptionalOf(Milliseconds(1)),
        None,
        "How long a connection to the token endpoint may take; None: 10 s.",
        group=SECURITY,
        importance="low",
    )
    sasl_login_read_timeout_ms: float | None = _option(
        OptionalOf(Milliseconds(1)),
        None,
        "How long an answer of the token endpoint may take; None: 10 s.",
        group=SECURITY,
        importance="low",
    )
    sasl_login_retry_backoff_ms: float = _option(
        Milliseconds(),
        100,
        "Pause before the token endpoint is asked again; it is asked three times.",
        group=SECURITY,
        importance="low",
    )
    sasl_login_retry_backoff_max_ms: float = _option(
        Milliseconds(), 10000, "The longest such pause.", group=SECURITY, importance="low"
    )
    sasl_aws_region: str | None = _option(
        _TEXT,
        None,
        "AWS region of the brokers for AWS_MSK_IAM; None: as in their host names, or AWS_REGION.",
        group=SECURITY,
        importance="low",
    )
    sasl_aws_profile: str | None = _option(
        _TEXT, None, "Profile of the AWS configuration to use.", group=SECURITY, importance="low"
    )
    sasl_aws_role_arn: str | None = _option(
        _TEXT, None, "AWS role to assume.", group=SECURITY, importance="low"
    )
    sasl_kerberos_name: Any = _option(
        Instance(lambda value: value is None or bool(value), "a str, a gssapi.Name, or None"),
        None,
        "Kerberos principal of the broker, instead of the service and the host name.",
        group=SECURITY,
        importance="low",
    )
    sasl_kerberos_service_name: str = _option(
        Text(none="kafka"), "kafka", "Kerberos service of the brokers.", group=SECURITY, importance="low"
    )
    sasl_kerberos_domain_name: str | None = _option(
        _TEXT,
        None,
        "Host name in the broker's Kerberos principal; None: the one connected to.",
        group=SECURITY,
        importance="low",
    )

    explicit: frozenset[str] = frozenset()
    """Names of the options that the user set, whatever the value."""

    without_effect: Mapping[str, object] = MappingProxyType({})
    """Options the user set that have no effect here (:data:`NO_EFFECT`), with the values given."""

    @classmethod
    def from_options(
        cls, mapping: Mapping[str, object] | None = None, kwargs: Mapping[str, object] | None = None
    ) -> ProducerConfig:
        """Check what a user gave and fill in the rest.

        Args:
            mapping: options by name, dotted or with underscores. Numbers and booleans may be text.
            kwargs: keyword arguments; numbers and booleans must be numbers and booleans.

        Raises:
            UnknownOptionError: there is no option of that name; the message gives the nearest there is.
            KafkaConfigurationError: a value is not accepted, an option is given twice under two names,
                options contradict each other, or something is not available in this version.

        Warns:
            UserWarning: an option is accepted for compatibility but has no effect.
        """
        values, without_effect = _collect(mapping, kwargs or {})
        explicit = frozenset(values)
        resolved = _resolve(values, explicit)
        for name in without_effect:
            _warn(f"{name} has no effect: {NO_EFFECT[name].reason}")
        return cls(**resolved, explicit=explicit, without_effect=MappingProxyType(without_effect))

    def compression_level_of(self, codec: str) -> int | None:
        """The level set for a codec, by ``compression_level`` or by the codec's own option.

        Args:
            codec: one of ``none, gzip, snappy, lz4, zstd``.

        Returns:
            The level, or ``None`` for the codec's default.
        """
        if codec == self.compression_type and self.compression_level is not None:
            return self.compression_level
        level: int | None = getattr(self, f"compression_{codec}_level", None)
        return None if codec == "gzip" and level == -1 else level

    @property
    def pushes_metrics(self) -> bool:
        """Whether brokers that want metrics get them (KIP-714)."""
        return self.enable_metrics_push and self.metrics_enabled

    def as_dict(self) -> dict[str, Any]:
        """All options by name, as kafka-python's ``producer.config``.

        Options without effect that were given are in it; secrets are ``'<hidden>'``. ``bootstrap_servers``
        is a list of ``'host:port'``, which is what tracing and monitoring tools expect.
        """
        shown = {
            option.name: HIDDEN
            if option.secret and getattr(self, option.name) is not None
            else getattr(self, option.name)
            for option in OPTIONS.values()
        }
        shown["bootstrap_servers"] = [endpoint_text(endpoint) for endpoint in self.bootstrap_servers]
        return {"api_version": None, **shown, **self.without_effect}

    def __repr__(self) -> str:
        given = (
            f"{option.name}={option.show(getattr(self, option.name))}"
            for option in OPTIONS.values()
            if option.name in self.explicit
        )
        return f"ProducerConfig({', '.join(given)})"


OPTIONS: Mapping[str, Option] = MappingProxyType(
    {
        name: Option(name, *declared)
        for name, declared in ProducerConfig._defaults.items()
        if isinstance(declared, _Declared)
    }
)
"""The table, by name."""

DEFAULT_CONFIG: Mapping[str, Any] = MappingProxyType(
    {name: option.default for name, option in OPTIONS.items()}
)
"""Defaults by name, as kafka-python's ``KafkaProducer.DEFAULT_CONFIG``, which monitoring tools read."""

ProducerConfig._defaults.update(DEFAULT_CONFIG)


# --- Options of other clients that have no effect, or not yet -----------------------------------------------


class NoEffect(Value):
    """An option that is accepted so that existing configurations can be used, but does nothing."""

    reason: str
    """Why, as a clause that follows "has no effect:"."""
    harmless: tuple[object, ...] = (None,)
    """Values that ask for nothing: no warning is given for them."""
    kind: Kind[Any] = Anything()
    """What is accepted all the same."""


_OWN_LOOP = "kprod has a network loop of its own"
_JVM = "it concerns the Java virtual machine"
_BROKER_SIDE = "it concerns brokers, not producers"
_EMPTY: tuple[object, ...] = (None, "", (), [])

NO_EFFECT: Mapping[str, NoEffect] = MappingProxyType(
    {
        "api_version": NoEffect(
            "versions are negotiated with every broker; the constructor only does not wait for one",
            (None, "auto"),
            ApiVersion(),
        ),
        "api_version_auto_timeout_ms": NoEffect("bootstrap_timeout_ms bounds the start"),
        "bootstrap_topics_filter": NoEffect("only topics that are sent to are asked for"),
        "sock_chunk_bytes": NoEffect(_OWN_LOOP),
        "sock_chunk_buffer_count": NoEffect(_OWN_LOOP),
        "selector": NoEffect(_OWN_LOOP),
        "net": NoEffect(_OWN_LOOP),
        "kafka_client": NoEffect(_OWN_LOOP),
        "default_api_timeout_ms": NoEffect("max_block_ms bounds every call"),
        "bootstrap_resolve_timeout_ms": NoEffect(
            "names are resolved within bootstrap_timeout_ms", (None, 0, "0")
        ),
        "buffer_memory_allocation_strategy": NoEffect("memory is always taken as records come"),
        "metadata_cluster_check_enable": NoEffect(
            "connections are not checked for their cluster id (KIP-1242)", (None, False, "false")
        ),
        "metrics_recording_level": NoEffect(
            "there is one level of metrics", (None, "INFO"), OptionalOf(Choice("INFO", "DEBUG", "TRACE"))
        ),
        "metric_reporters": NoEffect("read metrics() instead", _EMPTY),
        "auto_include_jmx_reporter": NoEffect(_JVM, (None, False, "false")),
        "config_providers": NoEffect(_JVM, _EMPTY),
        "security_providers": NoEffect(_JVM, _EMPTY),
        "ssl_engine_factory_class": NoEffect(_JVM),
        "ssl_keymanager_algorithm": NoEffect(_JVM),
        "ssl_trustmanager_algorithm": NoEffect(_JVM),
        "ssl_secure_random_implementation": NoEffect(_JVM),
        "ssl_provider": NoEffect(_JVM),
        "sasl_client_callback_handler_class": NoEffect(_JVM),
        "sasl_login_callback_handler_class": NoEffect(_JVM),
        "sasl_login_class": NoEffect(_JVM),
        "sasl_kerberos_kinit_cmd": NoEffect(_JVM),
        "sasl_kerberos_min_time_before_relogin": NoEffect(_JVM),
        "sasl_kerberos_ticket_renew_jitter": NoEffect(_JVM),
        "sasl_kerberos_ticket_renew_window_factor": NoEffect(_JVM),
        **dict.fromkeys(
            (
                "sasl_login_refresh_buffer_seconds",
                "sasl_login_refresh_min_period_seconds",
                "sasl_login_refresh_window_factor",
                "sasl_login_refresh_window_jitter",
            ),
            NoEffect(
                "a token is fetched when a connection needs one and 80 % of the last one's life is over"
            ),
        ),
        "sasl_oauthbearer_jwt_retriever_class": NoEffect(_JVM),
        "sasl_oauthbearer_jwt_validator_class": NoEffect(_JVM),
        "sasl_oauthbearer_method": NoEffect(
            "sasl_oauthbearer_token_endpoint_url says that tokens come from there", (None, "oidc", "default")
        ),
        "sasl_oauthbearer_scope_claim_name": NoEffect("tokens are sent as they are"),
        "sasl_oauthbearer_sub_claim_name": NoEffect("tokens are sent as they are"),
        **dict.fromkeys(
            (
                "sasl_oauthbearer_allow_unverified_audience",
                "sasl_oauthbearer_allow_unverified_issuer",
                "sasl_oauthbearer_clock_skew_seconds",
                "sasl_oauthbearer_expected_audience",
                "sasl_oauthbearer_expected_issuer",
                "sasl_oauthbearer_jwks_endpoint_refresh_ms",
                "sasl_oauthbearer_jwks_endpoint_retry_backoff_max_ms",
                "sasl_oauthbearer_jwks_endpoint_retry_backoff_ms",
                "sasl_oauthbearer_jwks_endpoint_url",
            ),
            NoEffect(_BROKER_SIDE),
        ),
    }
)
"""Options of the Java client and of kafka-python 2.0 to 3.1 that are accepted with a warning."""

NOT_AVAILABLE: Mapping[str, str] = MappingProxyType(
    {
        "proxy_url": "support for proxies",
        "sasl_oauthbearer_assertion_template_file": "templates for assertions: use the options for claims",
        "socks5_proxy": "support for proxies",
    }
)
"""Options that would change what happens to records or connections, so that ignoring them would be wrong."""

FOREIGN_NAMES: Mapping[str, str] = MappingProxyType(
    {
        "metadata_broker_list": "bootstrap_servers",
        "request_required_acks": "acks",
        "message_timeout_ms": "delivery_timeout_ms",
        "queue_buffering_max_ms": "linger_ms",
        "queue_buffering_max_kbytes": "buffer_memory",
        "queue_buffering_max_messages": "buffer_memory",
        "batch_num_messages": "batch_size",
        "max_batch_size": "batch_size",
        "message_max_bytes": "max_request_size",
        "message_send_max_retries": "retries",
        "compression_codec": "compression_type",
        "topic_metadata_refresh_interval_ms": "metadata_max_age_ms",
        "socket_timeout_ms": "request_timeout_ms",
        "socket_send_buffer_bytes": "send_buffer_bytes",
        "socket_receive_buffer_bytes": "receive_buffer_bytes",
        "statistics_interval_ms": "metrics_enabled",
        "dr_cb": "on_delivery",
        "dr_msg_cb": "on_delivery",
        "ssl_ca_location": "ssl_cafile",
        "ssl_ca_pem": "ssl_truststore_certificates",
        "ssl_certificate_pem": "ssl_keystore_certificate_chain",
        "ssl_key_pem": "ssl_keystore_key",
        "ssl_crl_location": "ssl_crlfile",
        "enable_ssl_certificate_verification": "ssl_context",
        "ssl_certificate_location": "ssl_certfile",
        "ssl_key_location": "ssl_keyfile",
    }
)
"""librdkafka's and aiokafka's names of options that are called otherwise here, for the hint in the error."""

_BY_KEY: Mapping[str, Option] = {
    key: option for option in OPTIONS.values() for key in (option.name, *option.aliases)
}


# --- From what the user gave to values ----------------------------------------------------------------------


def _collect(
    mapping: Mapping[str, object] | None, kwargs: Mapping[str, object]
) -> tuple[dict[str, Any], dict[str, object]]:
    """Find and parse each option given; see :meth:`ProducerConfig.from_options` for what it raises.

    Returns:
        Parsed values by name, and the options without effect that deserve a warning.
    """
    values: dict[str, Any] = {}
    given_as: dict[str, str] = {}
    without_effect: dict[str, object] = {}
    for where, given, value, text in _given(mapping, kwargs):
        key = given.replace(".", "_")
        option = _BY_KEY.get(key)
        name = option.name if option is not None else key
        if name in given_as:
            raise KafkaConfigurationError(
                f"{name} is given twice: as {given_as[name]} and as {where} {given!r}. Keep one of them."
            )
        given_as[name] = f"{where} {given!r}"
        if option is not None:
            values[name] = _parse(option.kind, given, value, text, option.secret)
        elif key in NO_EFFECT:
            accepted = NO_EFFECT[key]
            parsed = _parse(accepted.kind, given, value, text, secret=False)
            if not any(value is same or value == same for same in accepted.harmless):
                without_effect[key] = parsed
        elif key in NOT_AVAILABLE:
            if value not in _EMPTY:
                raise KafkaConfigurationError(
                    f"{given} is set, but this version of kprod has no {NOT_AVAILABLE[key]}."
                )
        else:
            raise UnknownOptionError(_unknown(given, key, where))
    return values, without_effect


def _given(
    mapping: Mapping[str, object] | None, kwargs: Mapping[str, object]
) -> Iterator[tuple[str, str, object, bool]]:
    """What the user gave, one by one: where, name, value, and whether values may be text."""
    if mapping is not None:
        if not isinstance(mapping, Mapping):
            raise KafkaConfigurationError(
                f"options must be a mapping or keyword arguments, not {type(mapping).__name__}: "
                "for example KafkaProducer({'bootstrap.servers': 'host:9092'})"
            )
        for name, value in mapping.items():
            if not isinstance(name, str):
                raise UnknownOptionError(f"the option name {name!r} in the mapping is not a str")
            yield "mapping key", name, value, True
    for name, value in kwargs.items():
        yield "keyword argument", name, value, False


def _parse(kind: Kind[Any], given: str, value: object, text: bool, secret: bool) -> Any:
    try:
        return kind.parse(value, text)
    except Rejected as rejected:
        # str(rejected) may quote the value, so it is left out for secrets.
        shown = f"a value of type {type(value).__name__}" if secret else _short(value)
        detail = "" if secret or not str(rejected) else f" ({rejected})"
        raise KafkaConfigurationError(
            f"{given}={shown} is not accepted{detail}: it takes {kind.accepts}."
        ) from None


def _short(value: object) -> str:
    """The value for a message; long ones, addresses with a password and keys are not repeated."""
    shown = repr(value)
    if "-----BEGIN " in shown:
        return f"<{type(value).__name__} with PEM>"
    if re.search(r"[^\s/@]+@", shown):
        return f"<{type(value).__name__} with '@'>"
    return shown if len(shown) <= 200 else shown[:200] + "..."


def _unknown(given: str, key: str, where: str) -> str:
    # What follows a name by mistake ('sasl.password:...') may be the value.
    name = re.match(r"[\w.-]*", given)
    shown = given if name is None or name[0] == given else f"{name[0]}..."
    message = f"There is no option {shown!r} ({where})."
    foreign = FOREIGN_NAMES.get(key)
    if foreign is not None:
        return f"{message} It is called {_spelt_like(given, foreign)!r} here."
    known = [*_BY_KEY, *NO_EFFECT, *NOT_AVAILABLE]
    import difflib  # here: most programs have no use for it

    near = difflib.get_close_matches(key.lower(), known, n=1, cutoff=0.6)
    if near:
        return f"{message} Did you mean {_spelt_like(given, near[0])!r}?"
    return f"{message} docs/options.md lists all options."


def _spelt_like(given: str, name: str) -> str:
    """The name with dots if the user wrote dots."""
    return name.replace("_", ".") if "." in given else name


def _warn(message: str) -> None:
    """Warn at the first line outside of this package, so that Python shows it once per place."""
    level = 1
    frame = sys._getframe()
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] == "kprod":
        frame = frame.f_back
        level += 1
    warnings.warn(message, UserWarning, stacklevel=level)


def _log() -> logging.Logger:
    from kprod.loggers import logger

    return logger("kprod.config")


# --- Rules that connect options -----------------------------------------------------------------------------


def _resolve(values: Mapping[str, Any], explicit: frozenset[str]) -> dict[str, Any]:
    """Fill in defaults, derive what follows from other options, and refuse contradictions."""
    resolved = {name: values.get(name, option.default) for name, option in OPTIONS.items()}
    _resolve_compression(resolved, explicit)
    _resolve_idempotence(resolved, explicit)
    _resolve_timeouts(resolved, explicit)
    _resolve_sizes(resolved, explicit)
    _check_partitioning(resolved)
    _check_security(resolved, explicit)
    _check_transactions(resolved, explicit)
    if not resolved["client_id"]:
        resolved["client_id"] = _next_client_id(resolved["transactional_id"])
    return resolved


_client_ids = 0
_client_ids_lock = threading.Lock()


def _next_client_id(transactional_id: str | None) -> str:
    if transactional_id is not None:
        return f"kprod-producer-{transactional_id}"
    global _client_ids
    with _client_ids_lock:
        _client_ids += 1
        return f"kprod-producer-{_client_ids}"


def _resolve_compression(resolved: dict[str, Any], explicit: frozenset[str]) -> None:
    codec, level = resolved["compression_type"], resolved["compression_level"]
    if level is not None:
        _check_level(codec, level, f"compression_level={level}", f"compression_type={codec!r}")
        own = f"compression_{codec}_level"
        if own in explicit and resolved[own] != level:
            raise KafkaConfigurationError(
                f"compression_level={level} and {own}={resolved[own]} contradict each other. "
                "Keep one of them."
            )
    if resolved["compression_gzip_level"] == 0:
        _check_level("gzip", 0, "compression_gzip_level=0", "compression_type='gzip'")
    for topic, options in resolved["topic_options"].items():
        if options.compression_level is not None:
            topic_codec = options.compression_type or codec
            _check_level(
                topic_codec,
                options.compression_level,
                f"compression_level={options.compression_level} of topic {topic!r}",
                f"its compression_type {topic_codec!r}",
            )


def _check_level(codec: str, level: int, what: str, why: str) -> None:
    rule = get_codec(codec).level_rule
    if rule is None:
        raise KafkaConfigurationError(f"{what} contradicts {why}, which has no levels.")
    try:
        check_level(codec, level)
    except ValueError:
        raise KafkaConfigurationError(f"{what} is not accepted: {codec} takes {rule}.") from None


def _resolve_idempotence(resolved: dict[str, Any], explicit: frozenset[str]) -> None:
    """KIP-679 and its follow-ups: on by default, off when acks or retries say so, an error when asked for."""
    transactional = resolved["transactional_id"] is not None
    if transactional and not resolved["enable_idempotence"]:
        raise KafkaConfigurationError(
            "enable_idempotence=False contradicts transactional_id: transactions need idempotence."
        )
    required = transactional or ("enable_idempotence" in explicit and resolved["enable_idempotence"])
    asked_by = "transactional_id" if transactional else "enable_idempotence=True"
    conflicts = []
    if resolved["acks"] != -1:
        conflicts.append((f"acks={resolved['acks']}", "acks='all'", "a leader may lose what it alone has"))
    if resolved["retries"] == 0:
        conflicts.append(("retries=0", "retries > 0", "a lost answer could not be cleared up"))
    if resolved["enable_idempotence"] and conflicts:
        if required:
            given, needed, reason = conflicts[0]
            raise KafkaConfigurationError(
                f"{asked_by} contradicts {given}: idempotence needs {needed}, because otherwise {reason}."
            )
        resolved["enable_idempotence"] = False
        _log().warning(
            "Idempotence is off because of %s: records may be written twice or out of order after a retry. "
            "Set enable_idempotence=False to say that this is meant.",
            " and ".join(given for given, _, _ in conflicts),
        )
    in_flight = resolved["max_in_flight_requests_per_connection"]
    if resolved["enable_idempotence"] and in_flight > MAX_IDEMPOTENT_IN_FLIGHT:
        raise KafkaConfigurationError(
            f"max_in_flight_requests_per_connection={in_flight} contradicts "
            f"{asked_by if required else 'idempotence, which is on by default'}: brokers remember the last "
            f"{MAX_IDEMPOTENT_IN_FLIGHT} batches only. Use at most {MAX_IDEMPOTENT_IN_FLIGHT}, or "
            "enable_idempotence=False."
        )
    if resolved["enable_idempotence"]:
        for topic, options in resolved["topic_options"].items():
            if options.acks not in (None, -1):
                raise KafkaConfigurationError(
                    f"acks={options.acks} of topic {topic!r} contradicts idempotence, which needs "
                    "acks='all' for every topic. Set enable_idempotence=False, or use a second producer for "
                    "this topic."
                )
    elif resolved["gapless"]:
        raise KafkaConfigurationError(
            "gapless=True contradicts a producer without idempotence: without it the order is not known "
            "after a retry."
        )


def _resolve_timeouts(resolved: dict[str, Any], explicit: frozenset[str]) -> None:
    least = resolved["linger_ms"] + resolved["request_timeout_ms"]
    if resolved["delivery_timeout_ms"] < least:
        parts = f"linger_ms + request_timeout_ms = {resolved['linger_ms']} + {resolved['request_timeout_ms']}"
        if "delivery_timeout_ms" in explicit:
            raise KafkaConfigurationError(
                f"delivery_timeout_ms={resolved['delivery_timeout_ms']} is less than {parts} = {least}: a "
                "record would be given up before its first request could be answered."
            )
        _log().warning("delivery_timeout_ms is raised to %s, because of %s.", least, parts)
        resolved["delivery_timeout_ms"] = least
    for base, most in (
        ("retry_backoff_ms", "retry_backoff_max_ms"),
        ("reconnect_backoff_ms", "reconnect_backoff_max_ms"),
        ("socket_connection_setup_timeout_ms", "socket_connection_setup_timeout_max_ms"),
    ):
        if resolved[base] <= resolved[most]:
            continue
        if base in explicit and most in explicit:
            raise KafkaConfigurationError(
                f"{base}={resolved[base]} is more than {most}={resolved[most]}: the pause grows from the "
                "first to the second."
            )
        # Only one of them is the user's; the default gives way.
        given = base if base in explicit else most
        resolved[base] = resolved[most] = resolved[given]


def _resolve_sizes(resolved: dict[str, Any], explicit: frozenset[str]) -> None:
    memory = resolved["buffer_memory"]
    largest = resolved["max_request_size"]
    if largest > memory:
        if {"buffer_memory", "max_request_size"} <= explicit:
            raise KafkaConfigurationError(
                f"max_request_size={largest} is more than buffer_memory={memory}: a record of that size "
                "could never be buffered."
            )
        if "buffer_memory" in explicit:
            resolved["max_request_size"] = memory
        else:
            resolved["buffer_memory"] = memory = largest
            _log().info("buffer_memory is raised to max_request_size, %d bytes.", largest)
    if resolved["batch_size"] > memory:
        if {"buffer_memory", "batch_size"} <= explicit:
            raise KafkaConfigurationError(
                f"batch_size={resolved['batch_size']} is more than buffer_memory={memory}: such a batch "
                "could never be filled."
            )
        if "buffer_memory" in explicit:
            resolved["batch_size"] = memory
        else:
            resolved["buffer_memory"] = resolved["batch_size"]
            _log().info("buffer_memory is raised to batch_size, %d bytes.", resolved["batch_size"])
    for topic, options in resolved["topic_options"].items():
        if options.batch_size is not None and options.batch_size > resolved["buffer_memory"]:
            raise KafkaConfigurationError(
                f"batch_size={options.batch_size} of topic {topic!r} is more than "
                f"buffer_memory={resolved['buffer_memory']}: such a batch could never be filled."
            )


def _check_partitioning(resolved: Mapping[str, Any]) -> None:
    if resolved["partitioner_rack_aware"] and not resolved["client_rack"]:
        raise KafkaConfigurationError(
            "partitioner_rack_aware=True needs client_rack: otherwise it is not known which brokers are near."
        )
    if resolved["partitioner_ignore_keys"] and resolved["partitioner"] not in (None, "default"):
        raise KafkaConfigurationError(
            "partitioner_ignore_keys=True contradicts partitioner: it is an option of the default "
            "partitioner."
        )


def _check_security(resolved: dict[str, Any], explicit: frozenset[str]) -> None:
    protocol = resolved["security_protocol"]
    if protocol.endswith("SSL"):
        _resolve_tls(resolved, explicit)
    if protocol.startswith("SASL"):
        _resolve_sasl(resolved, explicit)
    unused = sorted(
        name
        for name in explicit
        if OPTIONS[name].group == SECURITY
        and resolved[name] != OPTIONS[name].default
        and (
            (name.startswith("ssl_") and not protocol.endswith("SSL"))
            or (name.startswith("sasl_") and not protocol.startswith("SASL"))
        )
    )
    if unused:
        what = "encrypted" if unused[-1].startswith("ssl_") else "authenticated with SASL"
        if unused[0][:4] != unused[-1][:4]:
            what = "encrypted or authenticated"
        _warn(
            f"{', '.join(unused)} {'has' if len(unused) == 1 else 'have'} no effect: security_protocol is "
            f"{protocol!r}, so nothing is {what}"
        )


_ONLY_ONE_OF = (
    ("ssl_cafile", "ssl_truststore_certificates", "ssl_truststore_location"),
    ("ssl_certfile", "ssl_keystore_certificate_chain", "ssl_keystore_location"),
    ("ssl_certfile", "ssl_keystore_key", "ssl_keystore_location"),
    ("ssl_ciphers", "ssl_cipher_suites"),
)
_ONLY_TOGETHER = (
    ("ssl_keyfile", "ssl_certfile"),
    ("ssl_keystore_key", "ssl_keystore_certificate_chain"),
    ("ssl_keystore_certificate_chain", "ssl_keystore_key"),
    ("ssl_truststore_password", "ssl_truststore_location"),
    ("ssl_keystore_password", "ssl_keystore_location"),
)
_NO_PASSWORD = {
    "ssl_truststore_password": "ssl_truststore_type",
    "ssl_keystore_password": "ssl_keystore_type",
}


def _resolve_tls(resolved: dict[str, Any], explicit: frozenset[str]) -> None:
    """What the Java client's names say becomes what kafka-python's do; contradictions are refused."""
    given = {name for name in explicit if name.startswith("ssl_") and resolved[name] != OPTIONS[name].default}
    if "ssl_context" in given and len(given) > 1:
        others = ", ".join(sorted(given - {"ssl_context"}))
        raise KafkaConfigurationError(
            f"ssl_context contradicts {others}: a context has all of that in it. Keep one or the other."
        )
    for names in _ONLY_ONE_OF:
        both = [name for name in names if name in given]
        if len(both) > 1:
            raise KafkaConfigurationError(f"{both[0]} contradicts {both[1]}: keep one of them.")
    for name, other in _ONLY_TOGETHER:
        if name in given and other not in given:
            raise KafkaConfigurationError(f"{name} is set and {other} is not: it takes both.")
    for name, kind in _NO_PASSWORD.items():
        if name in given and resolved[kind] == "PEM":
            raise KafkaConfigurationError(
                f"{name} contradicts {kind}='PEM': such files have no password of their own. The password of "
                "a private key is ssl_password (Java: ssl.key.password)."
            )
    for name, kind in (
        ("ssl_truststore_certificates", "ssl_truststore_type"),
        ("ssl_keystore_key", "ssl_keystore_type"),
    ):
        if name in given and kind in explicit and resolved[kind] != "PEM":
            raise KafkaConfigurationError(f"{name} contradicts {kind}={resolved[kind]!r}: it is PEM text.")
    checked = resolved["ssl_endpoint_identification_algorithm"] == "https"
    if {"ssl_check_hostname", "ssl_endpoint_identification_algorithm"} <= explicit:
        if resolved["ssl_check_hostname"] != checked:
            raise KafkaConfigurationError(
                f"ssl_check_hostname={resolved['ssl_check_hostname']} contradicts "
                "ssl_endpoint_identification_algorithm="
                f"{resolved['ssl_endpoint_identification_algorithm']!r}. Keep one of them."
            )
    elif not checked:
        resolved["ssl_check_hostname"] = False
    _resolve_tls_versions(resolved)


def _resolve_tls_versions(resolved: dict[str, Any]) -> None:
    asked = resolved["ssl_enabled_protocols"]
    offered = [name for name in TLS_VERSIONS if name in asked]
    refused = [name for name in asked if name not in TLS_VERSIONS]
    unknown = [name for name in refused if name not in _OLD_TLS_VERSIONS]
    if unknown or not offered:
        raise KafkaConfigurationError(
            f"ssl_enabled_protocols={list(asked)} is not accepted: it takes {', '.join(TLS_VERSIONS)}"
            + (". Older versions are broken." if refused and not unknown else ".")
        )
    if refused:
        _warn(f"{', '.join(refused)} in ssl_enabled_protocols will not be offered: TLS 1.2 is the oldest")
    if resolved["ssl_protocol"] == "TLSv1.2":
        offered = [name for name in offered if name == "TLSv1.2"]
        if not offered:
            raise KafkaConfigurationError(
                f"ssl_protocol='TLSv1.2' contradicts ssl_enabled_protocols={list(asked)}: it is the newest "
                "version to offer."
            )
    resolved["ssl_enabled_protocols"] = tuple(offered)


def _resolve_sasl(resolved: dict[str, Any], explicit: frozenset[str]) -> None:
    """Take over what sasl_jaas_config says; see that the mechanism has what it needs."""
    protocol = resolved["security_protocol"]
    if resolved["sasl_jaas_config"] is not None:
        _resolve_jaas(resolved, explicit)
    mechanism = resolved["sasl_mechanism"]
    if mechanism is None:
        accepted = OPTIONS["sasl_mechanism"].kind.accepts
        raise KafkaConfigurationError(
            f"security_protocol={protocol!r} needs sasl_mechanism: it takes {accepted}."
        )
    if mechanism == "PLAIN" or mechanism.startswith("SCRAM"):
        for name in ("sasl_plain_username", "sasl_plain_password"):
            if resolved[name] is None:
                raise KafkaConfigurationError(f"sasl_mechanism={mechanism!r} needs {name}.")
    elif mechanism == "OAUTHBEARER":
        _check_oauth(resolved)
    if mechanism == "PLAIN" and protocol == "SASL_PLAINTEXT":
        _log().warning("sasl_mechanism='PLAIN' with SASL_PLAINTEXT sends the password for everybody to read.")


_TOKEN_SOURCES = (
    "sasl_oauth_token_provider",
    "sasl_oauthbearer_token_endpoint_url",
    "sasl_oauthbearer_unsecured_subject",
)


def _check_oauth(resolved: Mapping[str, Any]) -> None:
    given = [name for name in _TOKEN_SOURCES if resolved[name] is not None]
    if not given:
        raise KafkaConfigurationError(
            f"sasl_mechanism='OAUTHBEARER' needs a source of tokens: one of {', '.join(_TOKEN_SOURCES)}."
        )
    if len(given) > 1:
        raise KafkaConfigurationError(f"{given[0]} contradicts {given[1]}: keep one source of tokens.")
    if given[0] != "sasl_oauthbearer_token_endpoint_url":
        return
    asserted = [
        name
        for name in ("sasl_oauthbearer_assertion_file", "sasl_oauthbearer_assertion_private_key_file")
        if resolved[name] is not None
    ]
    if len(asserted) > 1:
        raise KafkaConfigurationError(f"{asserted[0]} contradicts {asserted[1]}. Keep one of them.")
    for name in (
        "sasl_oauthbearer_client_credentials_client_id",
        "sasl_oauthbearer_client_credentials_client_secret",
    ):
        if not asserted and resolved[name] is None:
            raise KafkaConfigurationError(f"sasl_oauthbearer_token_endpoint_url needs {name}.")


def _resolve_jaas(resolved: dict[str, Any], explicit: frozenset[str]) -> None:
    from kprod.security import jaas  # here: few need it

    try:
        entry = jaas.parse(resolved["sasl_jaas_config"])
    except jaas.JaasError as error:
        raise KafkaConfigurationError(f"sasl_jaas_config is not accepted: {error}.") from None
    mechanism = resolved["sasl_mechanism"]
    if mechanism is None:
        if len(entry.mechanisms) > 1 and entry.mechanisms[0].startswith("SCRAM"):
            raise KafkaConfigurationError(
                "sasl_jaas_config has the ScramLoginModule, so sasl_mechanism must say which SCRAM: "
                "'SCRAM-SHA-256' or 'SCRAM-SHA-512'."
            )
        resolved["sasl_mechanism"] = entry.mechanisms[0]
    elif mechanism not in entry.mechanisms:
        raise KafkaConfigurationError(
            f"sasl_mechanism={mechanism!r} contradicts the login module of sasl_jaas_config, which is for "
            f"{' and '.join(entry.mechanisms)}."
        )
    found: dict[str, Any] = dict(entry.options)
    if entry.extensions:
        found["sasl_oauthbearer_extensions"] = entry.extensions
    if entry.unsecured_subject is not None:
        found["sasl_oauthbearer_unsecured_subject"] = entry.unsecured_subject
    for name, value in found.items():
        if name in explicit and resolved[name] != value:
            raise KafkaConfigurationError(f"{name} contradicts sasl_jaas_config. Keep one of them.")
        resolved[name] = value


def _check_transactions(resolved: Mapping[str, Any], explicit: frozenset[str]) -> None:
    if resolved["transaction_two_phase_commit_enable"] and "transaction_timeout_ms" in explicit:
        raise KafkaConfigurationError(
            "transaction_timeout_ms contradicts transaction_two_phase_commit_enable=True: transactions of a "
            "two-phase commit never expire (KIP-939)."
        )
