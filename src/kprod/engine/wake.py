"""The wake-up channel of the network loop."""

from __future__ import annotations

import os
import socket


class WakeChannel:
    """What application threads write to when the network loop sleeps: an eventfd, or a pair of sockets.

    ``reader`` and ``writer`` are file descriptors, and may be the same one.
    """

    def __init__(self) -> None:
        self._pair: tuple[socket.socket, socket.socket] | None = None
        if hasattr(os, "eventfd"):
            self.reader = self.writer = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        else:
            self._pair = socket.socketpair()
            for end in self._pair:
                end.setblocking(False)
            self.reader, self.writer = (end.fileno() for end in self._pair)

    def close(self) -> None:
        """Close it; the loop must have ended."""
        if self._pair is None:
            os.close(self.reader)
        else:
            for end in self._pair:
                end.close()
