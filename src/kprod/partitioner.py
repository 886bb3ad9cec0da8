"""Which partition a record goes to: the built-in partitioners and the forms in which users bring their own.

The option ``partitioner`` takes

* a name, see :data:`PARTITIONER_NAMES`;
* an object with a ``partition`` method: :class:`Partitioner` of this module, ``partition(record)``;
  kafka-python 3's, ``partition(topic, key, serialized_key, value, serialized_value, cluster)``; or the older
  ``partition(topic, serialized_key, cluster)``;
* a function: kafka-python 2's and aiokafka's ``f(key_bytes, all_partitions, available_partitions)``; one
  whose parameters are named after what they want, in any order, out of ``topic, key, value, serialized_key,
  serialized_value, cluster, num_partitions``; or ``f(record)``.

The form is read off the signature once, when the producer is made. It runs in the thread that calls
``send()``, and what it raises reaches the caller. It returns the number of a partition, or None to leave the
choice to the sticky partitioner. An explicit ``partition=`` of ``send()`` has precedence over all of them.
"""

from __future__ import annotations

import operator
import threading
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

from kprod._core.murmur2 import murmur2, partition_for_key
from kprod.records import Bytes, TopicPartition
from kprod.signatures import is_required, positional_parameters
from kprod.values import Value

__all__ = [
    "PARTITIONER_NAMES",
    "Cluster",
    "ConsistentPartitioner",
    "ConsistentRandomPartitioner",
    "DefaultPartitioner",
    "Fnv1aPartitioner",
    "Fnv1aRandomPartitioner",
    "Murmur2Partitioner",
    "PartitionRequest",
    "Partitioner",
    "RandomPartitioner",
    "ResolvedPartitioner",
    "RoundRobinPartitioner",
    "StickyPartitioner",
    "crc32_partition",
    "fnv1a",
    "is_partitioner",
    "murmur2",
    "partition_for_key",
    "partitioner_by_name",
    "partitions_in_rack",
    "resolve_partitioner",
]


class Cluster(Protocol):
    """What a partitioner can ask about the cluster: a snapshot of the metadata, with kafka-python's names."""

    def topics(self) -> set[str]:
        """Names of the topics that are known."""

    def partitions_for_topic(self, topic: str) -> set[int] | None:
        """All partitions of a topic; None if the topic is not known."""

    def available_partitions_for_topic(self, topic: str) -> set[int] | None:
        """The partitions of a topic that have a leader; None if the topic is not known."""

    def leader_for_partition(self, partition: TopicPartition) -> int | None:
        """Node id of the leader; -1 or None if there is none."""

    def brokers(self) -> Any:
        """The brokers: objects with ``nodeId``, ``host``, ``port`` and ``rack``."""

    def broker_metadata(self, broker_id: int) -> Any:
        """One broker by its node id; None if it is not known."""


class PartitionRequest(NamedTuple):
    """A record that needs a partition."""

    topic: str
    """The topic; its metadata are known."""
    key: Any
    """The key before serialization."""
    value: Any
    """The value before serialization."""
    serialized_key: Bytes | None
    """The key as bytes; None for a null key."""
    serialized_value: Bytes | None
    """The value as bytes; None for a tombstone."""
    cluster: Cluster
    """A snapshot of the cluster."""


Choose = Callable[[str, Any, Any, "Bytes | None", "Bytes | None", Any], "int | None"]
"""What a producer calls: ``f(topic, key, value, serialized_key, serialized_value, cluster)``."""


class Partitioner(ABC):
    """Chooses partitions."""

    native: str | None = None
    """``'default'`` or ``'round_robin'`` if the C core does the same without calling :meth:`partition`."""

    @abstractmethod
    def partition(self, record: PartitionRequest) -> int | None:
        """Choose the partition of a record.

        Returns:
            A partition of the topic, or None for the sticky choice: the partition that keyless records of the
            topic currently go to, which changes when a batch is full (KIP-794).
        """


def _all_partitions(record: PartitionRequest) -> list[int]:
    return sorted(record.cluster.partitions_for_topic(record.topic) or ())


def _available_partitions(record: PartitionRequest) -> list[int]:
    """Partitions with a leader, or all if there is none."""
    available = record.cluster.available_partitions_for_topic(record.topic)
    return sorted(available) if available else _all_partitions(record)


def _count(record: PartitionRequest) -> int:
    return len(record.cluster.partitions_for_topic(record.topic) or ())


# --- Hash functions -----------------------------------------------------------------------------------------


def crc32_partition(key: Bytes, num_partitions: int) -> int:
    """librdkafka's ``consistent``: CRC-32 of the key modulo the number of partitions."""
    return zlib.crc32(key) % num_partitions


def fnv1a(data: Bytes) -> int:
    """32-bit FNV-1a as in librdkafka and Sarama: the absolute value of the hash as a signed number."""
    hashed = 0x811C9DC5
    for byte in memoryview(data).cast("B"):
        hashed = ((hashed ^ byte) * 0x01000193) & 0xFFFFFFFF
    return 0x1_0000_0000 - hashed if hashed & 0x80000000 else hashed


# --- Built-in partitioners ----------------------------------------------------------------------------------


class DefaultPartitioner(Partitioner):
    """murmur2 of the key, as Java, kafka-python and aiokafka place it; the sticky choice for a null key.

    An empty key is a key and is hashed. This is librdkafka's ``murmur2_random``.
    """

    native: str | None = "default"

    def partition(self, record: PartitionRequest) -> int | None:
        if record.serialized_key is None:
            return None
        return partition_for_key(record.serialized_key, _count(record))


class StickyPartitioner(DefaultPartitioner):
    """kafka-python's name (KIP-480) of what :class:`DefaultPartitioner` does here anyway (KIP-794)."""


class RoundRobinPartitioner(Partitioner):
    """Partitions in turn, whatever the key, as Java's ``RoundRobinPartitioner``.

    Each topic has a turn of its own; partitions without a leader are passed over.
    """

    native: str | None = "round_robin"

    def __init__(self) -> None:
        self._next: dict[str, int] = {}
        self._lock = threading.Lock()

    def partition(self, record: PartitionRequest) -> int | None:
        partitions = _available_partitions(record)
        with self._lock:
            turn = self._next.get(record.topic, 0)
            self._next[record.topic] = turn + 1
        return partitions[turn % len(partitions)]


class RandomPartitioner(Partitioner):
    """librdkafka's ``random``: any available partition, whatever the key; a new draw for every record."""

    def __init__(self) -> None:
        import random  # few programs that import kprod want it

        self._choice = random.choice

    def partition(self, record: PartitionRequest) -> int | None:
        return self._choice(_available_partitions(record))


class ConsistentPartitioner(Partitioner):
    """librdkafka's ``consistent``: CRC-32 of the key; records without a key all go to one partition."""

    def partition(self, record: PartitionRequest) -> int | None:
        return crc32_partition(record.serialized_key or b"", _count(record))


class ConsistentRandomPartitioner(Partitioner):
    """librdkafka's default, ``consistent_random``: CRC-32 of the key; sticky for a null **or empty** key."""

    def partition(self, record: PartitionRequest) -> int | None:
        key = record.serialized_key
        return None if key is None or len(key) == 0 else crc32_partition(key, _count(record))


class Murmur2Partitioner(Partitioner):
    """librdkafka's ``murmur2``: as :class:`DefaultPartitioner`, but null keys are hashed like empty ones."""

    def partition(self, record: PartitionRequest) -> int | None:
        key = record.serialized_key
        return partition_for_key(b"" if key is None else key, _count(record))


class Fnv1aPartitioner(Partitioner):
    """librdkafka's ``fnv1a``, Sarama's default: FNV-1a of the key; null keys are hashed like empty ones."""

    def partition(self, record: PartitionRequest) -> int | None:
        key = record.serialized_key
        return fnv1a(b"" if key is None else key) % _count(record)


class Fnv1aRandomPartitioner(Partitioner):
    """librdkafka's ``fnv1a_random``: FNV-1a of the key; the sticky choice for a null key."""

    def partition(self, record: PartitionRequest) -> int | None:
        key = record.serialized_key
        return None if key is None else fnv1a(key) % _count(record)


_BY_NAME: dict[str, Callable[[], Partitioner]] = {
    "default": DefaultPartitioner,
    "sticky": StickyPartitioner,
    "round_robin": RoundRobinPartitioner,
    "random": RandomPartitioner,
    "consistent": ConsistentPartitioner,
    "consistent_random": ConsistentRandomPartitioner,
    "murmur2": Murmur2Partitioner,
    "murmur2_random": DefaultPartitioner,
    "fnv1a": Fnv1aPartitioner,
    "fnv1a_random": Fnv1aRandomPartitioner,
}

PARTITIONER_NAMES = tuple(_BY_NAME)
"""Names that the option ``partitioner`` takes; those from ``random`` on are librdkafka's."""

_JAVA_NAMES = {
    "DefaultPartitioner": "default",
    "RoundRobinPartitioner": "round_robin",
}


def partitioner_by_name(name: str) -> str:
    """The name in :data:`PARTITIONER_NAMES` that a name stands for.

    Args:
        name: one of them in any case, or the name of one of the Java client's classes.

    Raises:
        ValueError: there is none of that name.
    """
    own = name.strip().lower().replace("-", "_")
    if own in _BY_NAME:
        return own
    simple = name.rpartition(".")[2]
    if simple in _JAVA_NAMES:
        return _JAVA_NAMES[simple]
    if simple == "UniformStickyPartitioner":
        raise ValueError(f"{name!r} was removed from Kafka 4.0; use partitioner_ignore_keys=True")
    raise ValueError(f"{name!r} is none of {', '.join(PARTITIONER_NAMES)}")


def is_partitioner(value: object) -> bool:
    """Whether a value can be given as a partitioner: None, a callable, an object with ``partition()``."""
    if isinstance(value, type) and callable(getattr(value, "partition", None)):
        return False  # the class where an instance is needed
    if isinstance(value, (str, bytes, bytearray)):
        return False  # they have a partition() of their own
    return value is None or callable(value) or callable(getattr(value, "partition", None))


# --- The one form a producer calls --------------------------------------------------------------------------


class ResolvedPartitioner(Value):
    """A partitioner in the form that a producer calls."""

    native: str | None
    """``'default'`` or ``'round_robin'``: the C core chooses, :attr:`choose` need not be called."""
    choose: Choose
    """``choose(topic, key, value, serialized_key, serialized_value, cluster)`` returns a partition, or None
    for the sticky choice."""
    source: Any
    """What the user gave; its ``close()``, if it has one, is for the producer to call."""


_KNOWN_PARAMETERS: dict[str, Callable[[PartitionRequest], Any]] = {
    "topic": lambda record: record.topic,
    "key": lambda record: record.key,
    "value": lambda record: record.value,
    "serialized_key": lambda record: record.serialized_key,
    "serialized_value": lambda record: record.serialized_value,
    "key_bytes": lambda record: record.serialized_key,
    "value_bytes": lambda record: record.serialized_value,
    "cluster": lambda record: record.cluster,
    "num_partitions": _count,
    "all_partitions": _all_partitions,
    "available_partitions": lambda record: sorted(
        record.cluster.available_partitions_for_topic(record.topic) or ()
    ),
    "record": lambda record: record,
}
"""What a parameter of that name gets."""


def resolve_partitioner(partitioner: Any) -> ResolvedPartitioner:
    """Bring a partitioner into the one form that a producer calls.

    Args:
        partitioner: what the user gave: None, a name, an object or a function.

    Raises:
        ValueError: there is no partitioner of that name.
        TypeError: it is not a partitioner, or its signature fits none of the forms; the message lists them.
    """
    source = partitioner
    if partitioner is None:
        partitioner = DefaultPartitioner()
    elif isinstance(partitioner, str):
        partitioner = _BY_NAME[partitioner_by_name(partitioner)]()
    if not is_partitioner(partitioner):
        raise TypeError(
            "partitioner must be a callable, an object with a partition() method, a name or None, not "
            f"{source!r}"
        )
    method = getattr(partitioner, "partition", None)
    if callable(method):
        native = getattr(partitioner, "native", None)
        # A subclass that chooses itself must not be passed over.
        if isinstance(partitioner, Partitioner) and not _is_own(type(partitioner)):
            native = None
        if isinstance(partitioner, Partitioner):
            return ResolvedPartitioner(native, _checked(method), source)
        return ResolvedPartitioner(None, _checked(_from_method(method)), source)
    return ResolvedPartitioner(None, _checked(_from_callable(partitioner)), source)


def _is_own(cls: type[Partitioner]) -> bool:
    """Whether ``partition`` of this class is the one of a built-in partitioner."""
    return cls.partition in (DefaultPartitioner.partition, RoundRobinPartitioner.partition)


def _checked(choose: Callable[[PartitionRequest], Any]) -> Choose:
    def checked(
        topic: str,
        key: Any,
        value: Any,
        serialized_key: Bytes | None,
        serialized_value: Bytes | None,
        cluster: Any,
    ) -> int | None:
        chosen = choose(PartitionRequest(topic, key, value, serialized_key, serialized_value, cluster))
        if chosen is None or type(chosen) is int:
            return chosen
        try:
            # Accepts what counts as a whole number, for example NumPy's.
            return operator.index(chosen)
        except TypeError:
            raise TypeError(
                f"the partitioner must return an int or None, not {type(chosen).__name__}: {chosen!r}"
            ) from None

    return checked


def _from_method(method: Callable[..., Any]) -> Callable[[PartitionRequest], Any]:
    names = _parameters(method)
    if names is None or (len(names) == 6 and not set(names) <= set(_KNOWN_PARAMETERS)):
        return lambda r: method(r.topic, r.key, r.serialized_key, r.value, r.serialized_value, r.cluster)
    if names and set(names) <= set(_KNOWN_PARAMETERS):
        return _by_name(method, names)
    if len(names) == 3:
        return lambda r: method(r.topic, r.serialized_key, r.cluster)
    if len(names) == 1:
        return method
    raise TypeError(_no_form("partition() of the partitioner", names))


def _from_callable(function: Callable[..., Any]) -> Callable[[PartitionRequest], Any]:
    names = _parameters(function)
    if names and set(names) <= set(_KNOWN_PARAMETERS) and "all_partitions" not in names:
        return _by_name(function, names)
    if names is None or len(names) == 3:
        return lambda r: function(
            r.serialized_key,
            _all_partitions(r),
            sorted(r.cluster.available_partitions_for_topic(r.topic) or ()),
        )
    if len(names) == 1:
        return function
    raise TypeError(_no_form("the partitioner", names))


def _by_name(function: Callable[..., Any], names: list[str]) -> Callable[[PartitionRequest], Any]:
    getters = [_KNOWN_PARAMETERS[name] for name in names]
    return lambda record: function(*[get(record) for get in getters])


def _parameters(function: Callable[..., Any]) -> list[str] | None:
    """Names of the required positional parameters; None if not known."""
    positional = positional_parameters(function)
    return None if positional is None else [parameter.name for parameter in filter(is_required, positional)]


def _no_form(what: str, names: list[str]) -> str:
    return (
        f"{what} takes ({', '.join(names)}), which is none of the known forms: (record); "
        "(key_bytes, all_partitions, available_partitions); (topic, serialized_key, cluster); "
        "(topic, key, serialized_key, value, serialized_value, cluster); or any of the names "
        f"{', '.join(_KNOWN_PARAMETERS)}"
    )


# --- Racks --------------------------------------------------------------------------------------------------


def partitions_in_rack(cluster: Cluster, topic: str, rack: str) -> set[int]:
    """The partitions of a topic whose leader is in a rack, or all that have a leader if none is (KIP-1123).

    Args:
        cluster: a snapshot of the cluster.
        topic: a topic whose metadata are known.
        rack: what ``client_rack`` says.
    """
    available = cluster.available_partitions_for_topic(topic) or set()
    near = set()
    for partition in available:
        leader = cluster.leader_for_partition(TopicPartition(topic, partition))
        broker = None if leader is None or leader < 0 else cluster.broker_metadata(leader)
        if broker is not None and broker.rack == rack:
            near.add(partition)
    return near or set(available)
