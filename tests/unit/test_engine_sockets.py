"""What the engine says of errors of sockets."""

from __future__ import annotations

import errno
import socket

import pytest

from kprod.engine.sockets import error_text


def test_an_error_of_this_system_has_words() -> None:
    with socket.socket() as taken, socket.socket() as sock:
        taken.bind(("127.0.0.1", 0))  # and does not listen
        code = sock.connect_ex(taken.getsockname())
    assert code
    assert "refused" in error_text(code).lower()
    assert error_text(errno.ECONNRESET) == "Connection reset by peer"


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (10054, "Connection reset by peer"),
        (10060, "Connection timed out"),
        (10061, "Connection refused"),
        (10065, "No route to host"),
    ],
)
def test_codes_of_windows_have_the_words_of_other_systems(code: int, words: str) -> None:
    assert error_text(code) == words
