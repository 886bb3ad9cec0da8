"""kafka-python's exceptions.

Every name of ``kafka.errors`` can be imported from here: it is kafka-python's own class where that is
installed, else kprod's of that meaning. What the producer raises is kprod's error and kafka-python's in
one: ``except`` clauses catch it by either name, and it has kprod's ``topic``, ``partition``, ``broker`` and
``persisted``.
"""

from __future__ import annotations

import functools
import importlib
from types import ModuleType
from typing import Any

from kprod import errors as own

try:
    peer: ModuleType | None = importlib.import_module("kafka.errors")
except ImportError:
    peer = None

_NAMES = {
    own.BufferExhaustedError: "KafkaTimeoutError",
    own.NoBrokersAvailable: "NoBrokersAvailable"
    if hasattr(peer, "NoBrokersAvailable")
    else "KafkaTimeoutError",
    own.ProducerClosedError: "IllegalStateError",
    own.ForkedProcessError: "IllegalStateError",
}
"""Where kafka-python's name for it is not kprod's."""


def __getattr__(name: str) -> Any:
    if hasattr(peer, name):
        return getattr(peer, name)
    if hasattr(own, name):
        return getattr(own, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def _peer_class(kind: type[own.KafkaError]) -> type[Exception] | None:
    """kafka-python's exception that means the same."""
    if peer is None:
        return None
    errno = getattr(kind, "errno", None)
    found: Any = getattr(peer, _NAMES.get(kind, kind.__name__), None)
    if found is None and errno is not None:
        found = peer.for_code(errno)
    for base in kind.__mro__:
        found = found or getattr(peer, base.__name__, None)
    chosen: type[Exception] = found
    return chosen


@functools.cache
def raised_class(kind: type[own.KafkaError]) -> type[own.KafkaError]:
    """The class that the producer raises for an error of kprod: that one and kafka-python's in one."""
    peer_class = _peer_class(kind)
    if peer_class is None or issubclass(kind, peer_class):
        return kind
    body = {
        "__doc__": kind.__doc__,
        "__module__": __name__,
        "__reduce__": _reduce,
        "__hash__": kind.__hash__,
        "_kprod_class": kind,
        "_message": _message,
    }
    return type(kind.__name__, (kind, peer_class), body)


def _message(self: Any) -> str:
    # Not by super(): kafka-python's own __str__() would come with the name and code a second time.
    return Exception.__str__(self) or getattr(self, "description", None) or ""


def translated(error: own.KafkaError) -> own.KafkaError:
    """The exception that an application of kafka-python knows how to catch."""
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
