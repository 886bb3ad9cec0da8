"""The brokers' side of SASL: PLAIN, SCRAM and OAUTHBEARER, and when a connection may send what."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import secrets
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Final

from kprod.protocol import Body

MECHANISMS: Final = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER")

UNSUPPORTED_SASL_MECHANISM: Final = 33
ILLEGAL_SASL_STATE: Final = 34
SASL_AUTHENTICATION_FAILED: Final = 58

_ITERATIONS: Final = 4096
_BEFORE_AUTHENTICATION: Final = frozenset({"ApiVersions", "SaslHandshake", "SaslAuthenticate"})
_WHILE_AUTHENTICATING: Final = frozenset({"SaslHandshake", "SaslAuthenticate"})


class Refused(Exception):
    """The client is not who it says, or its token is malformed; the text is for the client."""


class SaslSettings:
    """Who may log in, and how. The content can be changed while clients are connected.

    Args:
        users: passwords by user name. OAUTHBEARER takes unsecured tokens whose subject is one of them.
        mechanisms: those offered.
        session_lifetime_ms: ``connections.max.reauth.ms``; 0: sessions do not end.
    """

    def __init__(self, users: Mapping[str, str], mechanisms: Iterable[str], session_lifetime_ms: int) -> None:
        self.users = dict(users)
        self.mechanisms = tuple(mechanisms)
        self.session_lifetime_ms = session_lifetime_ms
        self._salts: dict[str, bytes] = {}

    def salt(self, user: str) -> bytes:
        """The salt of a user's password: always the same, as where only hashes are stored."""
        return self._salts.setdefault(user, secrets.token_bytes(16))


class SaslSession:
    """What one connection has proved so far (Java: ``SaslServerAuthenticator``).

    Args:
        settings: who may log in; None: the listener does not ask for SASL.
    """

    def __init__(self, settings: SaslSettings | None) -> None:
        self._settings = settings
        self._mechanism: str | None = None
        self._exchange: Callable[[bytes], bytes | None] | None = None
        self._authenticated = settings is None
        self._expires_at: float | None = None
        self._token_lifetime_s: float | None = None
        self.failed = False
        """The last answer told the client that it is refused: the connection ends with it."""

    def admits(self, api: str) -> bool:
        """Whether the client may send such a request now; otherwise the connection is closed."""
        if self._settings is None:
            return True
        if self._mechanism is not None:
            return api in _WHILE_AUTHENTICATING or (not self._authenticated and api == "ApiVersions")
        if not self._authenticated:
            return api in _BEFORE_AUTHENTICATION
        expired = self._expires_at is not None and time.monotonic() >= self._expires_at
        return not expired or api == "SaslHandshake"

    def handshake(self, body: Body) -> Body:
        """Answer SaslHandshake."""
        settings = self._settings
        # Without sessions that end there is no second authentication (KafkaChannel).
        if settings is None or (self._authenticated and self._expires_at is None):
            return {"error_code": ILLEGAL_SASL_STATE, "mechanisms": []}
        mechanism = body["mechanism"]
        if mechanism not in settings.mechanisms:
            self.failed = True
            return {"error_code": UNSUPPORTED_SASL_MECHANISM, "mechanisms": list(settings.mechanisms)}
        self._mechanism = mechanism
        if mechanism == "PLAIN":
            self._exchange = self._plain
        elif mechanism == "OAUTHBEARER":
            self._exchange = self._oauthbearer
        else:
            self._exchange = self._scram_first
        return {"error_code": 0, "mechanisms": list(settings.mechanisms)}

    def authenticate(self, body: Body) -> Body:
        """Answer SaslAuthenticate."""
        if self._exchange is None or self._settings is None:
            self.failed = True
            return _refusal(ILLEGAL_SASL_STATE, "SaslAuthenticate without SaslHandshake")
        try:
            token = self._exchange(body["auth_bytes"])
        except Refused as refused:
            self.failed = True
            return _refusal(SASL_AUTHENTICATION_FAILED, str(refused))
        lifetime_ms = 0
        if self._exchange is None:
            lifetime_ms = self._begin_session()
        return {
            "error_code": 0,
            "error_message": None,
            "auth_bytes": token or b"",
            "session_lifetime_ms": lifetime_ms,
        }

    def _begin_session(self) -> int:
        assert self._settings is not None
        self._mechanism = None
        self._authenticated = True
        limits = [
            limit for limit in (self._settings.session_lifetime_ms / 1000, self._token_lifetime_s) if limit
        ]
        if not self._settings.session_lifetime_ms:
            return 0
        lifetime = min(limits)
        self._expires_at = time.monotonic() + lifetime
        return int(lifetime * 1000)

    # -- the mechanisms: each takes a token and returns the answer; the last step clears _exchange

    def _plain(self, token: bytes) -> bytes | None:
        assert self._settings is not None
        parts = token.split(b"\0")
        if len(parts) != 3:
            raise Refused("Invalid SASL/PLAIN response: expected 3 tokens")
        password = self._settings.users.get(parts[1].decode())
        if password is None or password.encode() != parts[2]:
            raise Refused("Authentication failed: Invalid username or password")
        self._exchange = None
        return None

    def _scram_first(self, token: bytes) -> bytes:
        assert self._settings is not None
        header, _, bare = token.decode().partition(",,")
        fields = dict(field.partition("=")[::2] for field in bare.split(","))
        if header != "n" or list(fields)[:2] != ["n", "r"]:
            raise Refused("Invalid SCRAM client first message")
        user = fields["n"].replace("=2C", ",").replace("=3D", "=")
        password = self._settings.users.get(user)
        if password is None:
            raise Refused(f"Authentication failed during authentication due to invalid credentials with SASL "
                          f"mechanism {self._mechanism}")  # fmt: skip
        salt = self._settings.salt(user)
        nonce = fields["r"] + secrets.token_hex(8)
        first = f"r={nonce},s={base64.b64encode(salt).decode()},i={_ITERATIONS}"
        digest = {"SCRAM-SHA-256": "sha256", "SCRAM-SHA-512": "sha512"}[self._mechanism or ""]

        def final(answer: bytes) -> bytes:
            without_proof, _, proof = answer.decode().rpartition(",p=")
            if without_proof != f"c=biws,r={nonce}":
                raise Refused("Invalid SCRAM client final message")
            message = f"{bare},{first},{without_proof}".encode()
            salted = hashlib.pbkdf2_hmac(digest, password.encode(), salt, _ITERATIONS)
            client_key = hmac.digest(salted, b"Client Key", digest)
            signature = hmac.digest(hashlib.new(digest, client_key).digest(), message, digest)
            expected = bytes(a ^ b for a, b in zip(client_key, signature, strict=True))
            if base64.b64decode(proof) != expected:
                raise Refused(f"Authentication failed during authentication due to invalid credentials with "
                              f"SASL mechanism {self._mechanism}")  # fmt: skip
            self._exchange = None
            server_key = hmac.digest(salted, b"Server Key", digest)
            return b"v=" + base64.b64encode(hmac.digest(server_key, message, digest))

        self._exchange = final
        return first.encode()

    def _oauthbearer(self, token: bytes) -> bytes | None:
        assert self._settings is not None
        fields = dict(field.partition("=")[::2] for field in token.decode().split("\x01")[1:] if field)
        try:
            kind, _, value = fields["auth"].partition(" ")
            part = value.split(".")[1]
            claims = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
            lifetime = float(claims["exp"]) - time.time()
            valid = kind == "Bearer" and claims["sub"] in self._settings.users and lifetime > 0
        except (KeyError, IndexError, ValueError):
            valid, lifetime = False, 0.0
        if not valid:
            self._exchange = self._after_invalid_token
            return b'{"status":"invalid_token"}'
        self._token_lifetime_s = lifetime
        self._exchange = None
        return None

    def _after_invalid_token(self, token: bytes) -> bytes | None:
        raise Refused('{"status":"invalid_token"}')


def _refusal(code: int, message: str) -> Body:
    return {"error_code": code, "error_message": message, "auth_bytes": b"", "session_lifetime_ms": 0}
