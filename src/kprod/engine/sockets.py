"""Addresses and sockets, as the operating system gives them."""

from __future__ import annotations

import os
import socket
import sys
from typing import Any

from kprod.cluster.node import Address
from kprod.config import ProducerConfig

# The C library of Windows has no words for the errors of its sockets ("Unknown error"), and the system's own
# are in the user's language. These are what other systems say.
_WINSOCK = {
    10013: "Permission denied",
    10050: "Network is down",
    10051: "Network is unreachable",
    10052: "Network dropped connection on reset",
    10053: "Software caused connection abort",
    10054: "Connection reset by peer",
    10060: "Connection timed out",
    10061: "Connection refused",
    10064: "Host is down",
    10065: "No route to host",
}


def error_text(code: int) -> str:
    """An error of a socket in words.

    Args:
        code: an errno; on Windows what WSAGetLastError() gives.
    """
    return _WINSOCK.get(code) or os.strerror(code)


def prepare(sock: socket.socket, config: ProducerConfig) -> None:
    """Set what a connection to a broker needs, and what the options ask for.

    Raises:
        OSError: the system refuses one of them.
    """
    sock.setblocking(False)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if sys.platform == "darwin":
        sock.setsockopt(socket.SOL_SOCKET, 0x1022, 1)  # SO_NOSIGPIPE
    if config.send_buffer_bytes >= 0:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, config.send_buffer_bytes)
    if config.receive_buffer_bytes >= 0:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, config.receive_buffer_bytes)
    for option in config.socket_options:
        sock.setsockopt(*option)


def show(target: Any) -> str:
    """What ``socket.connect`` takes, in words."""
    host, port = target[0], target[1]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def numeric_address(host: str, port: int) -> Address | None:
    """The address of a host given by numbers; None: it is a name."""
    try:
        found = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
        )
    except (OSError, ValueError):  # ValueError: cannot be a host name (IDNA)
        return None
    return (int(found[0][0]), found[0][4]) if found else None


def resolve(host: str, port: int, lookup: str) -> list[Address]:
    """All addresses of a host name, in the system's order (KIP-302).

    Args:
        host: the name.
        port: TCP port.
        lookup: the option ``client_dns_lookup``.

    Raises:
        OSError, ValueError: the name cannot be resolved.
    """
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    if lookup == "resolve_canonical_bootstrap_servers_only":
        names = dict.fromkeys(
            socket.getnameinfo(target[:2], socket.NI_NUMERICSERV)[0] for *_, target in found
        )
        found = [row for name in names for row in socket.getaddrinfo(name, port, type=socket.SOCK_STREAM)]
    return list(dict.fromkeys((int(row[0]), row[4]) for row in found))
