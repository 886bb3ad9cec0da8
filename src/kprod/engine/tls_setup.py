"""Connecting with TLS: TCP connection and handshake, on a thread of their own."""

from __future__ import annotations

import logging
import os
import socket
import ssl
import time
from dataclasses import dataclass
from typing import Final

from kprod._core.tls import NotPossible, TlsStream
from kprod.cluster.node import Address
from kprod.config import ProducerConfig
from kprod.engine import sockets
from kprod.engine.tls_pump import TlsPump
from kprod.errors import TlsError
from kprod.security import tls_errors
from kprod.security.tls import TlsSettings

logger = logging.getLogger("kprod.engine")

# Whether connections are left with Python's ssl module, pumped by a thread, even where the network loop could
# take them over: for tests and measurements.
PUMP_ONLY: Final = os.environ.get("KPROD_TLS_PUMP") == "1"

# ApiVersions version 0 with correlation id 7 and a null client id: the one request that every broker answers.
_QUESTION: Final = b"\x00\x00\x00\x0a\x00\x12\x00\x00\x00\x00\x00\x07\xff\xff"
_PROBE_LIMIT_S: Final = 2.0


@dataclass
class Established:
    """A connection that is ready for the network loop."""

    fd: int
    """The socket to use; whoever gets this owns it."""
    stream: TlsStream | None
    """How to encrypt on it. None: that is done behind it, by :attr:`pump`."""
    pump: TlsPump | None
    description: str
    """TLS version and cipher suite."""


class Attempt:
    """One attempt to connect to an address with TLS; :meth:`run` is a thread's function.

    Args:
        config: the checked options.
        settings: TLS as they ask for it.
        address: where to connect to.
        host: the name that the broker's certificate must be for.
        broker: the broker in words.
        deadline: monotonic time when the attempt ends.
    """

    def __init__(
        self,
        config: ProducerConfig,
        settings: TlsSettings,
        address: Address,
        host: str,
        broker: str,
        deadline: float,
    ) -> None:
        self._config = config
        self._settings = settings
        self._address = address
        self._host = host
        self._broker = broker
        self._deadline = deadline
        self._socket: socket.socket | None = None
        self.established: Established | None = None
        """The result; None: it failed."""
        self.reason = ""
        """Why it failed, in words."""
        self.refusal: TlsError | None = None
        """Why it failed, if trying again alone will not help."""

    def run(self) -> None:
        """Connect; never raises."""
        try:
            self._run()
        except OSError as error:
            words = "it took too long" if isinstance(error, TimeoutError) else error.strerror or error
            self.reason = f"{sockets.show(self._address[1])}: {words}"
        except Exception as error:
            logger.exception("%s: unexpected error while connecting with TLS", self._config.client_id)
            self.reason = f"{type(error).__name__}: {error}"
        finally:
            if self._socket is not None:
                self._socket.close()

    def abandon(self) -> None:
        """Let :meth:`run` end soon; for the control thread."""
        sock = self._socket
        if sock is not None:
            try:
                sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def discard(self) -> None:
        """Close what was established: nobody wants it any more."""
        if self.established is not None:
            socket.close(self.established.fd)
            if self.established.pump is not None:
                self.established.pump.start()  # sees that its other end is closed

    def _left(self) -> float:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        return left

    def _connect(self) -> socket.socket:
        family, target = self._address
        sock = socket.socket(family, socket.SOCK_STREAM)
        try:
            sockets.prepare(sock, self._config)
            sock.settimeout(self._left())
            self._socket = sock
            sock.connect(target)
        except BaseException:
            sock.close()
            raise
        return sock

    def _run(self) -> None:
        context = self._settings.context()
        sock = self._connect()
        sock.settimeout(self._left())
        connection = context.wrap_socket(
            sock, server_hostname=self._host.rstrip(".") or None, do_handshake_on_connect=False
        )
        self._socket = connection
        try:
            connection.do_handshake()
        except (ssl.SSLEOFError, ssl.SSLZeroReturnError, ConnectionError) as error:
            connection.close()
            if self._speaks_plaintext():
                self.refusal = tls_errors.plaintext_listener(self._broker, self._config.security_protocol)
                self.reason = self.refusal.args[0]
            else:
                self.reason = (
                    f"the connection was closed during the TLS handshake ({error.strerror or error})"
                )
            return
        except ssl.SSLError as error:
            self.refusal = tls_errors.from_exception(
                error,
                self._broker,
                self._host,
                self._settings.has_certificate,
                connection.cipher() is not None,
                self._config.security_protocol,
            )
            self.reason = str(self.refusal.args[0])
            return
        connection.settimeout(0)
        cipher = connection.cipher()
        description = f"{connection.version()}, {cipher[0] if cipher else 'no cipher'}"
        self.established = self._hand_over(connection, description)
        self._socket = None

    def _hand_over(self, connection: ssl.SSLSocket, description: str) -> Established:
        if not PUMP_ONLY:
            try:
                stream = TlsStream(connection)
            except NotPossible as why:
                logger.info(
                    "%s: TLS needs a thread of its own for every connection: %s", self._config.client_id, why
                )
            else:
                return Established(connection.detach(), stream, None, description)
        pump = TlsPump(connection, f"{self._config.client_id}-tls")
        return Established(pump.detach(), None, pump, description)

    def _speaks_plaintext(self) -> bool:
        """Ask again, in plaintext: a listener without TLS closes the connection after a ClientHello."""
        self._deadline = min(self._deadline, time.monotonic() + _PROBE_LIMIT_S)
        answer = b""
        try:
            with self._connect() as sock:
                sock.sendall(_QUESTION)
                while len(answer) < 8:
                    sock.settimeout(self._left())
                    more = sock.recv(64)
                    if not more:
                        break
                    answer += more
        except OSError:
            return False
        return len(answer) >= 8 and answer[4:8] == _QUESTION[8:12]
