"""Delivery reports and events wait here until the application polls, as with confluent-kafka."""

from __future__ import annotations

import collections
import threading
import time
from collections.abc import Callable


class Reports:
    """Calls that ``poll()`` and ``flush()`` make on the thread of the application, in the order they came.

    Any thread adds; any thread serves. Nothing here keeps the network waiting.
    """

    def __init__(self) -> None:
        self._calls: collections.deque[Callable[[], object]] = collections.deque()
        self._arrived = threading.Condition()
        self._waiting = 0
        self.on_arrival: Callable[[], object] | None = None
        """Called by the thread that adds the first call of a group; for event loops."""
        self._announced = False

    def __len__(self) -> int:
        return len(self._calls)

    def add(self, call: Callable[[], object]) -> None:
        """Let somebody who polls make this call."""
        self._calls.append(call)
        if self.on_arrival is not None and not self._announced:
            self._announced = True
            self.on_arrival()
        if self._waiting:
            self.wake()

    def wake(self) -> None:
        """Let those who wait look again."""
        with self._arrived:
            self._arrived.notify_all()

    def serve(self) -> int:
        """Make the calls there are; returns how many. What a call raises ends it, and the rest stays."""
        served = 0
        self._announced = False
        for _ in range(len(self._calls)):
            try:
                call = self._calls.popleft()
            except IndexError:  # another thread serves as well
                break
            served += 1
            call()
        return served

    def wait(self, deadline: float | None) -> bool:
        """Wait for a call to make, or for :meth:`wake`; False: the deadline (monotonic s) is over."""
        with self._arrived:
            self._waiting += 1
            try:
                if self._calls:
                    return True
                left = None if deadline is None else deadline - time.monotonic()
                if left is not None and left <= 0:
                    return False
                self._arrived.wait(left)
                return True
            finally:
                self._waiting -= 1
