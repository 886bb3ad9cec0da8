"""A bounded cache for threads, in which a missing value is fetched once however many ask for it."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

V = TypeVar("V")


class FetchingCache(Generic[V]):
    """Keeps what was used last.

    Args:
        capacity: how many values at most, at least 1.
        ttl_s: how many seconds a value is good for; None: as long as there is room.
        clock: seconds that only grow.
    """

    def __init__(
        self, capacity: int, ttl_s: float | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._capacity = capacity
        self._ttl_s = ttl_s
        self._clock = clock
        self._lock = threading.Lock()  # guards the two dictionaries
        self._values: OrderedDict[Hashable, tuple[V, float]] = OrderedDict()
        self._fetching: dict[Hashable, threading.Lock] = {}

    def __len__(self) -> int:
        return len(self._values)

    def peek(self, key: Hashable) -> V | None:
        """The value if it is there and fresh."""
        with self._lock:
            found = self._values.get(key)
            if found is None:
                return None
            value, at = found
            if self._ttl_s is not None and self._clock() - at >= self._ttl_s:
                del self._values[key]
                return None
            self._values.move_to_end(key)
            return value

    def put(self, key: Hashable, value: V) -> None:
        """Remember a value; the one that was not used for longest goes if there is no room."""
        with self._lock:
            self._values[key] = (value, self._clock())
            self._values.move_to_end(key)
            while len(self._values) > self._capacity:
                self._values.popitem(last=False)

    def get(self, key: Hashable, fetch: Callable[[], V]) -> V:
        """The value, from ``fetch()`` if it is not there; what that raises is raised and not remembered."""
        value = self.peek(key)
        if value is not None:
            return value
        with self._lock:
            turn = self._fetching.setdefault(key, threading.Lock())
        with turn:
            try:
                value = self.peek(key)  # another thread may have been first
                if value is None:
                    value = fetch()
                    self.put(key, value)
                return value
            finally:
                with self._lock:
                    self._fetching.pop(key, None)

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._values.clear()
