"""Faults that a test asks for, and which requests they hit."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from kprod.errors import BROKER_ERRORS
from kprod.protocol import APIS, Api

CLOSE_MODES: Final = ("before", "after", "mid_response")
"""When a fault closes the connection: before the request has an effect, after it, or amid the response."""

_API_BY_NAME = {api.name.lower(): api for api in APIS.values()}
_CODE_BY_NAME = {error.name: code for code, error in BROKER_ERRORS.items()}


def find_api(api: str | int | Api) -> Api:
    """The API with this name (any case, with or without underscores) or key.

    Raises:
        ValueError: there is none.
    """
    if isinstance(api, Api):
        return api
    found = APIS.get(api) if isinstance(api, int) else _API_BY_NAME.get(api.lower().replace("_", ""))
    if found is None:
        raise ValueError(f"no API {api!r}; known are {', '.join(sorted(a.name for a in APIS.values()))}")
    return found


def error_code(error: str | int | None) -> int:
    """The code of an error by Kafka's name of it, by its code, or 0 for ``None``.

    Raises:
        ValueError: no broker error has this name.
    """
    if error is None:
        return 0
    if isinstance(error, int):
        return error
    code = _CODE_BY_NAME.get(error.upper())
    if code is None:
        raise ValueError(
            f"no broker error is named {error!r}; names are Kafka's, like NOT_LEADER_OR_FOLLOWER"
        )
    return code


@dataclass
class Fault:
    """What is to go wrong; see :meth:`kprod.testing.MockCluster.inject` for the meaning of each field."""

    id: int
    api: int
    error: int = 0
    error_message: str | None = None
    topic: str | None = None
    partition: int | None = None
    node: int | None = None
    times: int | None = 1
    skip: int = 0
    applied: bool = False
    delay_ms: float = 0
    handle_after_ms: float = 0
    drop_response: bool = False
    close_connection: str | None = None
    throttle_ms: int = 0
    record_errors: list[tuple[int, str | None]] = field(default_factory=list)
    hits: int = 0

    def covers(self, topic: str | None, partition: int | None) -> bool:
        """Whether the fault is for this topic and partition; ``None`` on either side matches all."""
        return (self.topic is None or topic is None or self.topic == topic) and (
            self.partition is None or partition is None or self.partition == partition
        )


class FaultRegistry:
    """All faults that are waiting for a request."""

    def __init__(self) -> None:
        self._faults: dict[int, Fault] = {}
        self._by_id: dict[int, Fault] = {}
        self._next_id = 0

    def add(self, **fields: object) -> int:
        """Register a fault and return its number."""
        self._next_id += 1
        fault = Fault(self._next_id, **fields)  # type: ignore[arg-type]
        self._faults[fault.id] = self._by_id[fault.id] = fault
        return fault.id

    def remove(self, fault_id: int) -> None:
        """Take a fault out, if it is still there."""
        self._faults.pop(fault_id, None)

    def clear(self) -> None:
        """Take out all faults."""
        self._faults.clear()

    def hits(self, fault_id: int) -> int:
        """How many requests a fault has hit, also when it is spent."""
        return self._by_id[fault_id].hits

    def __bool__(self) -> bool:
        return bool(self._faults)

    def match(self, api: int, node: int, touched: Iterable[tuple[str | None, int | None]]) -> list[Fault]:
        """The faults that a request hits; counts the hit and drops spent faults."""
        pairs = list(touched)
        found = []
        for fault in list(self._faults.values()):
            if fault.api != api or (fault.node is not None and fault.node != node):
                continue
            needs_pair = fault.topic is not None or fault.partition is not None
            if needs_pair and not any(fault.covers(topic, partition) for topic, partition in pairs):
                continue
            if fault.skip:
                fault.skip -= 1
                continue
            fault.hits += 1
            if fault.times is not None:
                fault.times -= 1
                if fault.times <= 0:
                    del self._faults[fault.id]
            found.append(fault)
        return found
