"""aiokafka's exceptions.

Every name of ``aiokafka.errors`` can be imported from here: it is aiokafka's own class where aiokafka is
installed, else kprod's of that meaning. What the producer raises is kprod's error *and* aiokafka's: it is
caught by either name, and has kprod's ``topic``, ``partition``, ``broker`` and ``persisted``.
"""

from __future__ import annotations

import functools
import importlib
from types import ModuleType
from typing import Any

from kprod import errors as own

try:
    peer: ModuleType | None = importlib.import_module("aiokafka.errors")
except ImportError:
    peer = None

if peer is not None:
    ConsumerStoppedError: type[Exception] = peer.ConsumerStoppedError
    IllegalOperation: type[Exception] = peer.IllegalOperation
else:

    class ConsumerStoppedError(Exception):  # type: ignore[no-redef]
        """Only a consumer raises it."""

    class IllegalOperation(Exception):  # type: ignore[no-redef]
        """The operation is not possible with this configuration or in the present state."""


# Where aiokafka's name for it is not kprod's. Broker errors go by their code.
_NAMES = {
    own.BufferExhaustedError: "KafkaTimeoutError",
    own.NoBrokersAvailable: "KafkaConnectionError",
    own.ProducerClosedError: "ProducerClosed",
    own.IllegalStateError: "IllegalOperation",
    own.ForkedProcessError: "IllegalOperation",
    own.ProducerFencedError: "ProducerFenced",
}


def __getattr__(name: str) -> Any:
    if peer is not None and hasattr(peer, name):
        return getattr(peer, name)
    for candidate in (name, f"{name}Error", name.replace("Exception", "Error")):
        if hasattr(own, candidate):
            return getattr(own, candidate)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def _peer_class(kind: type[own.KafkaError]) -> type[Exception] | None:
    """aiokafka's exception that means the same."""
    name = _NAMES.get(kind)
    if name == "IllegalOperation":
        return IllegalOperation
    if peer is None:
        return None
    errno = getattr(kind, "errno", None)
    found: Any = getattr(peer, name or kind.__name__, None)
    if found is None and errno is not None:
        found = peer.for_code(errno)
        if found.errno != errno:
            found = peer.BrokerResponseError
    chosen: type[Exception] = found if found is not None else peer.KafkaError
    return chosen


@functools.cache
def raised_class(kind: type[own.KafkaError]) -> type[own.KafkaError]:
    """The class that the producer raises for an error of kprod: that one and aiokafka's in one."""
    peer_class = _peer_class(kind)
    if peer_class is None or issubclass(kind, peer_class):
        return kind
    body: dict[str, Any] = {
        "__doc__": kind.__doc__,
        "__module__": __name__,
        "__reduce__": _reduce,
        "_kprod_class": kind,
    }
    body["_message"] = _message
    return type(_NAMES.get(kind) or kind.__name__, (kind, peer_class), body)


def _message(self: Any) -> str:
    # Not by super(): aiokafka's own __str__() would come with the name and code a second time.
    return Exception.__str__(self) or getattr(self, "description", None) or ""


def translated(error: own.KafkaError) -> own.KafkaError:
    """The exception that an application of aiokafka knows how to catch."""
    made = _restore(type(error), error.args, vars(error))
    made.__cause__ = error.__cause__
    return made


def _restore(kind: type[own.KafkaError], args: tuple[object, ...], state: dict[str, Any]) -> own.KafkaError:
    made_class = raised_class(kind)  # type: ignore[arg-type]  # a class is hashable
    made = made_class.__new__(made_class, *args)
    made.args = args
    made.__dict__.update(state)
    return made


def _reduce(self: Any) -> tuple[Any, ...]:
    return _restore, (self._kprod_class, self.args, dict(vars(self)))
