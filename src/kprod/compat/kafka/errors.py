"""kafka-python's exceptions.

Every name of ``kafka.errors`` can be imported from here: it is kafka-python's own class where that is
installed, else kprod's of that meaning. What the producer raises is kprod's error and kafka-python's in
one, see :mod:`kprod.compat.exceptions`.
"""

from __future__ import annotations

from typing import Any

from kprod import errors as own
from kprod.compat.exceptions import Translator, module_if_installed

peer = module_if_installed("kafka.errors")

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


translator = Translator(__name__, _peer_class)
raised_class = translator.raised_class
translated = translator.translated
