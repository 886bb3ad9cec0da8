"""Delivery reports and events wait here until the application polls, as with confluent-kafka."""

from __future__ import annotations

import collections
import math
import threading
import time
from collections.abc import Callable

_SIGNALS_S = 0.2
"""How long the main thread waits at a time, in seconds: the system may give the signal of Ctrl-C to another
thread, and a wait that nothing ends would not see it."""


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
        chunk = _SIGNALS_S if threading.current_thread() is threading.main_thread() else math.inf
        with self._arrived:
            self._waiting += 1
            try:
                while not self._calls:
                    left = math.inf if deadline is None else deadline - time.monotonic()
                    if left <= 0:
                        return False
                    pause = min(left, chunk)
                    if self._arrived.wait(None if pause == math.inf else pause):
                        break
                return True
            finally:
                self._waiting -= 1
