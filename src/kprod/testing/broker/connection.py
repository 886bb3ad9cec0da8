"""One client connection: frames in, responses out in the order of the requests."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, cast

from kprod.testing.broker.sasl import SaslSession

if TYPE_CHECKING:
    from kprod.testing.broker.server import Broker

MAX_FRAME = 100 * 1024 * 1024
"""Largest request, as a broker's ``socket.request.max.bytes``."""

_SCRATCH = 64 * 1024

_log = logging.getLogger("kprod.testing")


class Slot:
    """The place of one response in the order of responses.

    Attributes:
        data: the frame to send; ``None`` while it is not known.
        due: loop time before which it is not sent.
        close_after: close the connection when this much of `data` is sent; ``None`` to go on.
    """

    __slots__ = ("close_after", "data", "due")

    def __init__(self, due: float) -> None:
        self.data: bytes | None = None
        self.due = due
        self.close_after: int | None = None


class Connection(asyncio.BufferedProtocol):
    """A client's connection to one broker.

    Frames are received straight into the buffer they are decoded from. Requests are handled in order; a
    response that is late (a waiting fetch, a delay that was asked for) holds back the ones after it, as
    with Kafka.
    """

    def __init__(self, broker: Broker) -> None:
        self.broker = broker
        self.address = ""
        self.sasl = SaslSession(broker.cluster.sasl)
        self.stalled = False
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._scratch = bytearray(_SCRATCH)
        self._filled = 0
        self._frame: bytearray | None = None
        self._frame_filled = 0
        self._waiting: deque[bytes | bytearray] = deque()
        self._behind = False
        self._slots: deque[Slot] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._trickle: asyncio.TimerHandle | None = None
        self._outgoing = bytearray()

    # --- transport callbacks ----------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client connected."""
        self._transport = cast(asyncio.Transport, transport)
        peer = transport.get_extra_info("peername")
        self.address = f"{peer[0]}:{peer[1]}" if peer else ""
        self.broker.connections.add(self)
        if not self.broker.accepting:
            self.abort()  # The broker stopped while the connection was being opened.
        elif self.broker.black_hole:
            self._transport.pause_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone; what was to be sent is dropped."""
        self.broker.connections.discard(self)
        for timer in (self._timer, self._trickle):
            if timer is not None:
                timer.cancel()
        self._slots.clear()
        if not self._behind:
            self._waiting.clear()
        self._transport = None

    def get_buffer(self, sizehint: int) -> memoryview:
        """Where the next bytes go: the rest of a large frame, or the scratch buffer."""
        if self._frame is not None:
            return memoryview(self._frame)[self._frame_filled :]
        return memoryview(self._scratch)[self._filled :]

    def buffer_updated(self, nbytes: int) -> None:
        """Bytes have arrived; take whole frames out and handle them."""
        if self._frame is not None:
            self._frame_filled += nbytes
            if self._frame_filled < len(self._frame):
                return
            frame = self._frame
            self._frame = None
            self._receive(frame)
            return
        self._filled += nbytes
        self._take_frames()

    def _take_frames(self) -> None:
        scratch = self._scratch
        pos = 0
        filled = self._filled
        while filled - pos >= 4:
            size = int.from_bytes(scratch[pos : pos + 4], "big")
            if size > MAX_FRAME:
                self.broker.report(self, f"request of {size} bytes, at most {MAX_FRAME} are taken")
                self.abort()
                return
            have = filled - pos - 4
            if have < size:
                if size + 4 > _SCRATCH:
                    self._frame = bytearray(size)
                    self._frame[:have] = scratch[pos + 4 : filled]
                    self._frame_filled = have
                    pos = filled
                break
            pos += 4
            self._receive(bytes(scratch[pos : pos + size]))
            pos += size
        remaining = filled - pos
        if pos and remaining:
            scratch[:remaining] = scratch[pos:filled]
        self._filled = remaining

    def _receive(self, frame: bytes | bytearray) -> None:
        if self._transport is None or self.stalled:
            return
        if self.broker.black_hole or self._behind:
            self._waiting.append(frame)
        else:
            self.broker.handle(self, frame)

    # --- control ----------------------------------------------------------------------------------------

    def stall(self) -> None:
        """Neither handle nor answer anything any more, as when a response was lost on the way."""
        self.stalled = True
        self._slots.clear()

    def postpone(self, delay: float, work: Callable[[], None]) -> None:
        """Do `work` after `delay` seconds, and only then what the client has sent behind it.

        All of that also when the client is gone by then; a broker knows only what it has read.
        """
        self._behind = True
        self._loop.call_later(delay, self._catch_up, work)

    def _catch_up(self, work: Callable[[], None]) -> None:
        self._behind = False
        work()
        self._handle_waiting()

    def _handle_waiting(self) -> None:
        while self._waiting and not self._behind and not self.broker.black_hole:
            self.broker.handle(self, self._waiting.popleft())

    def pause(self) -> None:
        """Stop reading: the broker has become unreachable."""
        if self._transport is not None:
            self._transport.pause_reading()

    def resume(self) -> None:
        """Go on after :meth:`pause`; what was received meanwhile is handled now."""
        if self._transport is None:
            return
        self._handle_waiting()
        if self._transport is not None:
            self._transport.resume_reading()
        self._flush()

    def abort(self) -> None:
        """Close at once, dropping what was not sent."""
        if self._transport is not None:
            self._transport.abort()
            self._transport = None

    # --- responses --------------------------------------------------------------------------------------

    def reserve(self, delay: float) -> Slot:
        """Reserve the next place in the order of responses, not to be sent within `delay` seconds."""
        slot = Slot(self._loop.time() + delay if delay else 0.0)
        self._slots.append(slot)
        return slot

    def fill(self, slot: Slot, data: bytes) -> None:
        """Give the response for a place; sends what can be sent."""
        slot.data = data
        self._flush()

    def _flush(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._slots and self._transport is not None and not self.broker.black_hole:
            slot = self._slots[0]
            if slot.data is None:
                return
            if slot.due:
                wait = slot.due - self._loop.time()
                if wait > 0:
                    self._timer = self._loop.call_later(wait, self._flush)
                    return
            self._slots.popleft()
            if slot.close_after is None:
                self._write(slot.data)
            else:
                self._transport.write(slot.data[: slot.close_after])
                self._transport.close()
                self._transport = None

    def _write(self, data: bytes) -> None:
        if self._transport is None:
            return
        if self.broker.slow_write_interval or self._outgoing:
            self._outgoing += data
            if self._trickle is None:
                self._send_some()
        else:
            self._transport.write(data)

    def _send_some(self) -> None:
        """Send the next few bytes of a slow response, and schedule the rest."""
        self._trickle = None
        if self._transport is None:
            return
        interval = self.broker.slow_write_interval
        size = self.broker.slow_write_bytes if interval else len(self._outgoing)
        self._transport.write(bytes(self._outgoing[:size]))
        del self._outgoing[:size]
        if self._outgoing:
            self._trickle = self._loop.call_later(interval, self._send_some)
