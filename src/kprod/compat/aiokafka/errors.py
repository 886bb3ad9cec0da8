"""aiokafka's exceptions.

Every name of ``aiokafka.errors`` can be imported from here: it is aiokafka's own class where aiokafka is
installed, else kprod's of that meaning. What the producer raises is kprod's error and aiokafka's in one,
see :mod:`kprod.compat.exceptions`.
"""

from __future__ import annotations

from typing import Any

from kprod import errors as own
from kprod.compat.exceptions import Translator, module_if_installed

peer = module_if_installed("aiokafka.errors")

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


translator = Translator(__name__, _peer_class, _NAMES)
raised_class = translator.raised_class
translated = translator.translated
