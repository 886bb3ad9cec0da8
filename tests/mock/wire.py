"""The network between a TLS client and its brokers: delivers in small pieces, cuts, and remembers."""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import Any

import pytest

from kprod.engine import tls_setup


class Wire:
    """Stands between a producer and the brokers that it connects to with TLS.

    Args:
        piece: bytes of what a broker sends that are handed on at once.
        cut_after: the second connection, which is for records, ends when that many bytes of a broker were
            handed on. None: it does not.
    """

    def __init__(self, piece: int = 65536, cut_after: int | None = None) -> None:
        self.piece = piece
        self.cut_after = cut_after
        self.sent_by_client: list[bytearray] = []
        """What came from the client, by connection."""
        self.connections = 0
        self.cuts = 0
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []
        self._sockets: list[socket.socket] = []

    def install(self, monkeypatch: pytest.MonkeyPatch) -> Wire:
        """Let all connections with TLS come by here."""
        real = tls_setup.Attempt.__init__

        def redirect(attempt: Any, config: Any, settings: Any, address: Any, *rest: Any) -> None:
            real(attempt, config, settings, (int(socket.AF_INET), self._route(address)), *rest)

        monkeypatch.setattr(tls_setup.Attempt, "__init__", redirect)
        return self

    def close(self) -> None:
        """End everything."""
        for sock in self._sockets:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()
        for thread in self._threads:
            thread.join()

    def _route(self, address: Any) -> tuple[str, int]:
        listener = socket.create_server(("127.0.0.1", 0))
        self._sockets.append(listener)
        self._start(self._serve, listener, address)
        where: tuple[str, int] = listener.getsockname()
        return where

    def _start(self, function: Any, *arguments: Any) -> None:
        thread = threading.Thread(target=function, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _serve(self, listener: socket.socket, address: Any) -> None:
        with contextlib.suppress(OSError):
            client, _ = listener.accept()
            family, target = address
            broker = socket.socket(family, socket.SOCK_STREAM)
            broker.connect(target)
            for sock in (client, broker):
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._lock:
                number = self.connections
                self.connections += 1
                sent = bytearray()
                self.sent_by_client.append(sent)
                self._sockets += [client, broker]
            self._start(self._to_broker, client, broker, sent)
            self._to_client(broker, client, number)

    def _to_broker(self, client: socket.socket, broker: socket.socket, sent: bytearray) -> None:
        with contextlib.suppress(OSError):
            while data := client.recv(65536):
                sent += data
                broker.sendall(data)
            broker.shutdown(socket.SHUT_WR)

    def _to_client(self, broker: socket.socket, client: socket.socket, number: int) -> None:
        handed_on = 0
        while data := broker.recv(65536):
            for start in range(0, len(data), self.piece):
                client.sendall(data[start : start + self.piece])
                handed_on += len(data[start : start + self.piece])
                if number == 1 and self.cut_after is not None and handed_on >= self.cut_after:
                    self.cuts += 1
                    client.shutdown(socket.SHUT_RDWR)
                    broker.shutdown(socket.SHUT_RDWR)
                    return
        client.shutdown(socket.SHUT_WR)


def record_types(data: bytes) -> list[int]:
    """Content types of the TLS records in a stream: 21 alert, 22 handshake, 23 data (RFC 8446, 5.1)."""
    types = []
    position = 0
    while position + 5 <= len(data):
        types.append(data[position])
        position += 5 + int.from_bytes(data[position + 3 : position + 5], "big")
    assert position == len(data), "the stream ends within a record"
    return types
