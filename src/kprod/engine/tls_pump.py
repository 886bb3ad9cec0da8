"""TLS by Python's ssl module for the network loop, through a pair of sockets: slow, but works anywhere."""

from __future__ import annotations

import logging
import select
import socket
import ssl
from typing import Final

from kprod import threads

logger = logging.getLogger("kprod.engine")

# Large pieces: every call of Python's takes the GIL, whatever the number of bytes.
_PIECE: Final = 262_144


class TlsPump:
    """Carries bytes between a TLS connection and one end of a pair of sockets, whose other end is the loop's.

    It is used where the loop cannot take over the connection (:func:`kprod._core.tls.why_not`): the loop sees
    a plain connection.

    Args:
        connection: the established connection, non-blocking.
        name: of its thread.
    """

    def __init__(self, connection: ssl.SSLSocket, name: str) -> None:
        self._connection = connection
        self._near, self._far = socket.socketpair()
        for sock in (self._near, self._far):
            sock.setblocking(False)
            for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
                sock.setsockopt(socket.SOL_SOCKET, option, 4 * _PIECE)
        self._thread = threads.thread(name, self._run)
        self.error: ssl.SSLError | None = None
        """What ended it, if TLS did."""

    def detach(self) -> int:
        """The loop's end; whoever gets it owns it."""
        return self._far.detach()

    def start(self) -> None:
        """Begin. It ends with either connection."""
        self._thread.start()

    def join(self, timeout: float) -> None:
        """Wait until it has ended, for tests."""
        self._thread.join(timeout)

    def _run(self) -> None:
        try:
            self._carry()
        except ssl.SSLError as error:
            self.error = error
        except OSError as error:
            logger.debug("%s ends: %s", self._thread.name, error)
        finally:
            # Both at once: the loop must not learn of the end before `error` is set.
            self._near.close()
            self._connection.close()

    def _carry(self) -> None:
        connection, near = self._connection, self._near
        outgoing, received = memoryview(bytearray(_PIECE)), memoryview(bytearray(_PIECE))
        to_send = to_give = outgoing[:0]
        reading_waits = False
        while True:
            readers: list[socket.socket] = []
            writers: list[socket.socket] = []
            if not to_send:
                readers.append(near)
            if to_give:
                writers.append(near)
            else:
                readers.append(connection)
            if to_send or reading_waits:
                writers.append(connection)
            # What TLS has already taken from the socket does not make it readable again.
            if connection.pending() and not to_give:
                readable: set[socket.socket] = {connection}
            else:
                readable = _wait(readers, writers)
            if near in readable:
                count = near.recv_into(outgoing)
                if count == 0:
                    self._say_goodbye()
                    return
                to_send = outgoing[:count]
            try:
                while to_send:
                    to_send = to_send[connection.send(to_send) :]
            except (ssl.SSLWantWriteError, ssl.SSLWantReadError):
                pass
            if connection in readable or reading_waits:
                reading_waits = False
                try:
                    count = connection.recv_into(received)
                except ssl.SSLWantReadError:
                    pass
                except ssl.SSLWantWriteError:
                    reading_waits = True
                else:
                    if count == 0:
                        return
                    to_give = received[:count]
            if to_give:
                try:
                    to_give = to_give[near.send(to_give) :]
                except BlockingIOError:
                    pass

    def _say_goodbye(self) -> None:
        try:
            # The broker need not answer: what counts is that it is told.
            self._connection.unwrap()
        except (OSError, ValueError):
            pass


def _wait(readers: list[socket.socket], writers: list[socket.socket]) -> set[socket.socket]:
    """Wait until one of them can go on; returns those that can be read from."""
    if not hasattr(select, "poll"):
        return set(select.select(readers, writers, [])[0])
    # Not select() where it takes no descriptors above 1023.
    poll = select.poll()
    events = {sock.fileno(): select.POLLIN for sock in readers}
    for sock in writers:
        events[sock.fileno()] = events.get(sock.fileno(), 0) | select.POLLOUT
    for descriptor, event in events.items():
        poll.register(descriptor, event)
    ready = {descriptor for descriptor, event in poll.poll() if event & ~select.POLLOUT}
    return {sock for sock in readers if sock.fileno() in ready}
