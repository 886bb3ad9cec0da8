"""Exceptions that are kprod's and another client's in one.

What a stand-in raises is caught by the name that the application has always caught, and by kprod's; it has
kprod's ``topic``, ``partition``, ``broker`` and ``persisted`` in either case.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from types import ModuleType
from typing import Any

from kprod import errors as own

PeerClass = Callable[[type[own.KafkaError]], type[Exception] | None]


def module_if_installed(name: str) -> ModuleType | None:
    """A module of another client; None: it is not installed."""
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


class Translator:
    """Makes the exceptions of one stand-in.

    Args:
        module: the stand-in's ``errors`` module, whose ``translator`` this is: exceptions that were pickled
            find it there.
        peer_class: gives the other client's class that means the same as one of kprod's; None: it has none.
        names: what the made classes are called, where that is not the name of kprod's class.
    """

    def __init__(
        self, module: str, peer_class: PeerClass, names: dict[type[own.KafkaError], str] | None = None
    ) -> None:
        self._module = module
        self._peer_class = peer_class
        self._names = names or {}
        self._made: dict[type[own.KafkaError], type[own.KafkaError]] = {}

    def raised_class(self, kind: type[own.KafkaError]) -> type[own.KafkaError]:
        """The class that is raised for an error of kprod: that one and the other client's in one."""
        made = self._made.get(kind)
        if made is None:
            made = self._made.setdefault(kind, self._make(kind))
        return made

    def _make(self, kind: type[own.KafkaError]) -> type[own.KafkaError]:
        peer_class = self._peer_class(kind)
        if peer_class is None or issubclass(kind, peer_class):
            return kind
        body: dict[str, Any] = {
            "__doc__": kind.__doc__,
            "__module__": self._module,
            "__reduce__": _reduce,
            "__hash__": kind.__hash__,
            "_kprod_class": kind,
            "_message": _message,
        }
        return type(self._names.get(kind, kind.__name__), (kind, peer_class), body)

    def translated(self, error: own.KafkaError) -> own.KafkaError:
        """The exception that an application of the other client knows how to catch."""
        made = self._restored(type(error), error.args, vars(error))
        made.__cause__ = error.__cause__
        return made

    def _restored(
        self, kind: type[own.KafkaError], args: tuple[object, ...], state: dict[str, Any]
    ) -> own.KafkaError:
        # What is translated already stays as it is.
        made_class = self.raised_class(getattr(kind, "_kprod_class", kind))
        made = made_class.__new__(made_class, *args)
        made.args = args
        made.__dict__.update(state)
        return made


def _message(self: Any) -> str:
    # Not by super(): the other client's __str__() would come with the name and code a second time.
    return Exception.__str__(self) or getattr(self, "description", None) or ""


def _reduce(self: Any) -> tuple[Any, ...]:
    return _unpickled, (type(self).__module__, self._kprod_class, self.args, dict(vars(self)))


def _unpickled(
    module: str, kind: type[own.KafkaError], args: tuple[object, ...], state: dict[str, Any]
) -> own.KafkaError:
    translator: Translator = importlib.import_module(module).translator
    return translator._restored(kind, args, state)
