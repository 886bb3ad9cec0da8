"""Keeping to a rate."""

from __future__ import annotations

import time

# How far a sender catches up after it was held back: by its input, or by full buffers.
_CATCH_UP_S = 0.5


class Pace:
    """Sleeps so that steps come at a rate; late ones follow at once, within limits.

    Args:
        rate: steps per second.
    """

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._due = time.perf_counter()

    def wait(self, steps: int) -> None:
        """Wait until so many steps may be taken."""
        now = time.perf_counter()
        if self._due > now:
            time.sleep(self._due - now)
        elif now - self._due > _CATCH_UP_S:
            self._due = now - _CATCH_UP_S
        self._due += steps / self._rate


def block_for(rate: float, largest: int) -> int:
    """Steps to take at once: looking at the clock for each would cost too much at high rates.

    Args:
        rate: steps per second.
        largest: the most.
    """
    return max(1, min(largest, int(rate / 200)))
