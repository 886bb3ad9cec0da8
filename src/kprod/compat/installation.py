"""kprod in place of another client's producer classes, for a whole process.

A framework imports the client itself, so there is no import of its own to change. :func:`install` puts the
stand-ins into the client's modules, where the framework then finds them. Everything else of the client stays:
consumers, admin clients, errors, types.
"""

from __future__ import annotations

import importlib
import sys
from typing import Any, Final

Places = dict[str, tuple[str, tuple[str, ...]]]

_PLACES: Final[dict[str, Places]] = {
    "aiokafka": {
        "AIOKafkaProducer": (
            "kprod.compat.aiokafka",
            ("aiokafka", "aiokafka.producer", "aiokafka.producer.producer"),
        ),
    },
    "confluent_kafka": {
        "Producer": ("kprod.compat.confluent_kafka", ("confluent_kafka", "confluent_kafka.cimpl")),
        "SerializingProducer": (
            "kprod.compat.confluent_kafka",
            ("confluent_kafka", "confluent_kafka.serializing_producer"),
        ),
        "AIOProducer": (
            "kprod.compat.confluent_kafka.aio",
            ("confluent_kafka.aio", "confluent_kafka.aio.producer"),
        ),
    },
    "kafka": {
        "KafkaProducer": ("kprod.compat.kafka", ("kafka", "kafka.producer", "kafka.producer.kafka")),
    },
}
"""Client: class: where the stand-in is, and the client's modules that have the class under that name."""

_replaced: dict[tuple[str, str], Any] = {}
"""What :func:`install` took out: (module, class) to the client's own class."""


def install(*clients: str) -> None:
    """Let every later import of a client's producer classes give kprod's.

    Call it before anything imports them, at the top of the program's first module. Calling it again has no
    effect.

    Args:
        *clients: ``"aiokafka"``, ``"confluent_kafka"``, ``"kafka"`` (kafka-python).

    Raises:
        ValueError: there is no stand-in for that client.
        ImportError: the client is not installed. Consumers and types are still its own.
        RuntimeError: a module has imported one of the classes already, and would go on using it. Nothing was
            replaced.
    """
    for client in clients:
        _check(client)
    found = [place for client in clients for place in _find(client)]
    holders = sorted({holder for _, _, _, own in found for holder in _holders(own)})
    if holders:
        raise RuntimeError(
            f"kprod.compat.install({', '.join(map(repr, clients))}) comes too late: {', '.join(holders)} "
            "imported the producer class before. Call it before that import"
        )
    for module, name, stand_in, own in found:
        _replaced[module, name] = own
        setattr(sys.modules[module], name, stand_in)


def uninstall(*clients: str) -> None:
    """Give the clients their own classes back. What has imported kprod's meanwhile keeps them.

    Args:
        *clients: as for :func:`install`; one that was not installed is left alone.

    Raises:
        ValueError: there is no stand-in for that client.
    """
    for client in clients:
        _check(client)
        for name, (_, modules) in _PLACES[client].items():
            for module in modules:
                own = _replaced.pop((module, name), None)
                if own is not None:
                    setattr(sys.modules[module], name, own)


def _check(client: str) -> None:
    if client not in _PLACES:
        raise ValueError(f"kprod stands in for {', '.join(map(repr, _PLACES))}, not for {client!r}")


def _find(client: str) -> list[tuple[str, str, Any, Any]]:
    """What is still to be replaced: (module, class, the stand-in, the client's own)."""
    try:
        importlib.import_module(client)
    except ImportError as error:
        raise ImportError(
            f"kprod.compat.install({client!r}) replaces the producers of {client}, which is not installed; "
            f"without it, import kprod.compat.{client} instead",
            name=client,
        ) from error
    found = []
    for name, (replacement, modules) in _PLACES[client].items():
        for module in modules:
            if (module, name) in _replaced:
                continue
            try:
                own = getattr(importlib.import_module(module), name)
            except (ImportError, AttributeError):
                continue  # this version of the client does not have it there
            found.append((module, name, getattr(importlib.import_module(replacement), name), own))
    return found


def _holders(own: Any) -> list[str]:
    """Modules outside of the client and kprod that have the class, or subclass it."""
    inside = own.__module__.split(".")[0] if own.__module__ != "cimpl" else "confluent_kafka"
    holders = []
    for name, module in list(sys.modules.items()):
        top = name.split(".")[0]
        if top in (inside, "kprod", "cimpl") or module is None:
            continue
        # vars(), not getattr(): modules that load lazily must not be made to.
        if any(value is own for value in list(getattr(module, "__dict__", {}).values())):
            holders.append(name)
    holders += [
        f"{kind.__module__}.{kind.__qualname__}"
        for kind in own.__subclasses__()
        if kind.__module__.split(".")[0] not in (inside, "kprod", "cimpl")
    ]
    return holders
