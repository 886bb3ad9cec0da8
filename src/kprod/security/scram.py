"""SCRAM-SHA-256 and SCRAM-SHA-512 (RFC 5802, RFC 7677): neither side learns the password from the other.

Names and passwords are used as they are, in UTF-8, like those of the Java client: Apache Kafka's tools and
brokers do not prepare them with SASLprep (RFC 4013), so a client that did could not log in with a password
that SASLprep changes.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import secrets
from collections.abc import Callable
from typing import Final

from kprod.errors import SaslAuthenticationFailedError
from kprod.security.credentials import Credentials
from kprod.security.mechanism import Mechanism
from kprod.security.redaction import without_secrets

MIN_ITERATIONS: Final = 4096
"""RFC 7677, and Kafka's ``ScramMechanism``: fewer would make a stolen exchange easy to try passwords on."""

MAX_ITERATIONS: Final = 1_000_000
"""Half a second or so; Kafka allows 16384. A hostile broker must not keep this side busy."""

_DIGESTS: Final = {"SCRAM-SHA-256": "sha256", "SCRAM-SHA-512": "sha512"}

_NO_CHANNEL_BINDING: Final = "n,,"


class Scram(Mechanism):
    """One SCRAM exchange.

    Args:
        name: ``SCRAM-SHA-256`` or ``SCRAM-SHA-512``.
        credentials: name and password.
        make_nonce: makes the client's nonce: printable ASCII without commas.
    """

    def __init__(
        self,
        name: str,
        credentials: Credentials,
        make_nonce: Callable[[], str] = lambda: secrets.token_hex(16),
    ) -> None:
        self.name = name
        self._digest = _DIGESTS[name]
        self._credentials = credentials
        self._nonce = make_nonce()
        self._password = ""
        self._first_bare = ""
        self._server_signature: bytes | None = None

    def initial(self) -> bytes:
        """The client-first-message."""
        username, self._password = self._credentials.get()
        escaped = username.replace("=", "=3D").replace(",", "=2C")
        self._first_bare = f"n={escaped},r={self._nonce}"
        return (_NO_CHANNEL_BINDING + self._first_bare).encode()

    def secrets(self) -> tuple[str, ...]:
        """The password."""
        return (self._password,)

    def is_slow(self, challenge: bytes) -> bool:
        """The password is hashed thousands of times, unless that was done before."""
        if self._server_signature is not None:
            return False
        _, salt, iterations = self._read_server_first(_text(challenge))
        return self._credentials.salted(self._digest, self._password, salt, iterations) is None

    def answer(self, challenge: bytes) -> bytes | None:
        """The client-final-message; then None, if the broker has proved that it knows the password, too."""
        text = _text(challenge)
        if self._server_signature is None:
            return self._final(text)
        self._check_server_final(text)
        self.complete = True
        return None

    def _final(self, server_first: str) -> bytes:
        nonce, salt, iterations = self._read_server_first(server_first)
        password, digest = self._password, self._digest
        salted = self._credentials.salted(
            digest,
            password,
            salt,
            iterations,
            lambda: hashlib.pbkdf2_hmac(digest, password.encode(), salt, iterations),
        )
        assert salted is not None
        binding = base64.b64encode(_NO_CHANNEL_BINDING.encode()).decode()
        without_proof = f"c={binding},r={nonce}"
        message = f"{self._first_bare},{server_first},{without_proof}".encode()
        client_key = self._hmac(salted, b"Client Key")
        client_signature = self._hmac(hashlib.new(digest, client_key).digest(), message)
        proof = bytes(a ^ b for a, b in zip(client_key, client_signature, strict=True))
        self._server_signature = self._hmac(self._hmac(salted, b"Server Key"), message)
        return f"{without_proof},p={base64.b64encode(proof).decode()}".encode()

    def _hmac(self, key: bytes, message: bytes) -> bytes:
        return hmac.digest(key, message, self._digest)

    def _read_server_first(self, text: str) -> tuple[str, bytes, int]:
        """Nonce, salt and iterations."""
        fields = _fields(text)
        if list(fields)[:3] != ["r", "s", "i"]:
            raise _malformed("first")
        nonce = fields["r"]
        if not nonce.startswith(self._nonce) or len(nonce) == len(self._nonce):
            raise SaslAuthenticationFailedError(
                "the broker's SCRAM nonce does not continue this client's: its answer is for somebody else"
            )
        try:
            salt = base64.b64decode(fields["s"], validate=True)
            iterations = int(fields["i"])
        except (ValueError, binascii.Error):
            raise _malformed("first") from None
        if not salt:
            raise _malformed("first")
        if not MIN_ITERATIONS <= iterations <= MAX_ITERATIONS:
            raise SaslAuthenticationFailedError(
                f"the broker wants {iterations} SCRAM iterations; {MIN_ITERATIONS} to {MAX_ITERATIONS} are "
                "accepted: store the user's credentials anew with a number in this range"
            )
        return nonce, salt, iterations

    def _check_server_final(self, text: str) -> None:
        fields = _fields(text)
        if "e" in fields:
            told = without_secrets(fields["e"][:100], self._password)
            raise SaslAuthenticationFailedError(f"the broker ended the SCRAM exchange: {told}")
        try:
            signature = base64.b64decode(fields.get("v", ""), validate=True)
        except (ValueError, binascii.Error):
            raise _malformed("final") from None
        assert self._server_signature is not None
        if not hmac.compare_digest(signature, self._server_signature):
            raise SaslAuthenticationFailedError(
                "the broker could not prove that it knows the password (its SCRAM signature is wrong): "
                "it may not be the broker that it claims to be"
            )


def _text(message: bytes) -> str:
    try:
        return message.decode("ascii")
    except UnicodeDecodeError:
        raise SaslAuthenticationFailedError("the broker's SCRAM message is not ASCII text") from None


def _fields(text: str) -> dict[str, str]:
    pairs = [field.partition("=") for field in text.split(",")]
    fields = {name: value for name, _, value in pairs}
    if len(fields) != len(pairs) or any(len(name) != 1 or not value for name, _, value in pairs):
        raise _malformed("first" if "r" in fields else "final")
    if "m" in fields:
        raise SaslAuthenticationFailedError("the broker demands a SCRAM extension that is not known")
    return fields


def _malformed(which: str) -> SaslAuthenticationFailedError:
    return SaslAuthenticationFailedError(f"the broker's server-{which}-message of SCRAM is malformed")
