"""PLAIN: name and password as they are (RFC 4616). Only TLS keeps them secret on the way."""

from __future__ import annotations

from kprod.errors import SaslAuthenticationFailedError
from kprod.security.credentials import Credentials
from kprod.security.mechanism import Mechanism


class Plain(Mechanism):
    """SASL PLAIN.

    Args:
        credentials: name and password.
    """

    name = "PLAIN"

    def __init__(self, credentials: Credentials) -> None:
        self._credentials = credentials
        self._password = ""

    def initial(self) -> bytes:
        """An empty authorization id, the name and the password, with NULs between them."""
        username, self._password = self._credentials.get()
        password = self._password
        if "\0" in username or "\0" in password:
            raise SaslAuthenticationFailedError("PLAIN cannot carry a user name or password with a NUL in it")
        return b"\0".join((b"", username.encode(), password.encode()))

    def secrets(self) -> tuple[str, ...]:
        """The password."""
        return (self._password,)

    def answer(self, challenge: bytes) -> bytes | None:
        """Nothing more: the broker's answer ends the exchange."""
        self.complete = True
        return None
