"""OAUTHBEARER: a token that somebody else has issued (RFC 7628, KIP-255, KIP-768)."""

from __future__ import annotations

import base64
import inspect
import json
import re
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, NamedTuple

from kprod.errors import SaslAuthenticationFailedError, TokenUnavailableError
from kprod.security.mechanism import Mechanism
from kprod.security.redaction import without_secrets

_SEPARATOR: Final = "\x01"
_TOKEN: Final = re.compile(r"[A-Za-z0-9\-._~+/]+=*\Z")
_EXTENSION_NAME: Final = re.compile(r"[A-Za-z]+\Z")
_EXTENSION_VALUE: Final = re.compile(r"[\x21-\x7e \t\r\n]+\Z")


class Token(NamedTuple):
    """What a provider of tokens gives."""

    value: str
    """The token itself, for instance a JWT."""
    extensions: Mapping[str, str]
    """SASL extensions that go with it (KIP-342), such as Confluent Cloud's ``logicalCluster``."""

    def __repr__(self) -> str:
        return "<Token>"


TokenProvider = Callable[[], Token]


class OAuthBearer(Mechanism):
    """SASL OAUTHBEARER.

    Args:
        provider: gives the token.
    """

    name = "OAUTHBEARER"

    def __init__(self, provider: TokenProvider) -> None:
        self._provider = provider
        self._broker_error = ""
        self._token = ""

    def initial(self) -> bytes:
        """The token and its extensions."""
        token = self._provider()
        self._token = token.value
        fields = {"auth": f"Bearer {token.value}", **token.extensions}
        lines = "".join(f"{name}={value}{_SEPARATOR}" for name, value in fields.items())
        return f"n,,{_SEPARATOR}{lines}{_SEPARATOR}".encode()

    def answer(self, challenge: bytes) -> bytes | None:
        """Nothing more; or what RFC 7628 wants in answer to the broker's reason for refusing the token."""
        if self._broker_error:
            raise SaslAuthenticationFailedError(f"the broker refused the token: {self._broker_error}")
        if not challenge:
            self.complete = True
            return None
        told = without_secrets(challenge[:10_000].decode("utf-8", "replace"), self._token)
        self._broker_error = told[:300]
        return _SEPARATOR.encode()

    def secrets(self) -> tuple[str, ...]:
        """The token."""
        return (self._token,)

    @property
    def broker_error(self) -> str:
        """Why the broker refuses the token, in its own words; '': it does not."""
        return self._broker_error


# -- where tokens come from


def token_provider(given: Any, extensions: Mapping[str, str]) -> TokenProvider:
    """What the option ``sasl_oauth_token_provider`` gives, in one form.

    Args:
        given: a callable that returns the token (or an awaitable, as aiokafka's; or a tuple that begins with
            it, as confluent-kafka's); or an object with ``token()`` and, if it likes, ``extensions()``, as
            kafka-python's. It is asked at each authentication, in a thread of the producer.
        extensions: those of the options; the provider's come on top.
    """

    def provide() -> Token:
        try:
            value = given.token() if callable(getattr(given, "token", None)) else given()
            if inspect.isawaitable(value):
                import asyncio  # here: it takes long, and few need it

                value = asyncio.run(_awaited(value))
            own = given.extensions() if callable(getattr(given, "extensions", None)) else {}
        except Exception as error:
            # Its text may have the token in it; the cause shows in a traceback.
            raise TokenUnavailableError(
                f"the sasl_oauth_token_provider raised {type(error).__name__}"
            ) from error
        if isinstance(value, tuple) and value:
            value = value[0]
        return checked(value, {**extensions, **(own or {})}, "the sasl_oauth_token_provider")

    return provide


def checked(value: object, extensions: Mapping[str, str], source: str) -> Token:
    """A token that can be sent.

    Raises:
        SaslAuthenticationFailedError: it, or an extension, would not arrive as it is; says whose fault it is,
            without the token.
    """
    if isinstance(value, bytes):
        value = value.decode("ascii", "replace")
    if not isinstance(value, str):
        raise SaslAuthenticationFailedError(f"{source} gave a {type(value).__name__}, a token is a str")
    if not _TOKEN.match(value):
        raise SaslAuthenticationFailedError(
            f"{source} gave {'an empty str' if not value else 'text with characters'} that no token "
            f"{'is' if not value else 'has'} (RFC 6750)"
        )
    for name, text in extensions.items():
        if not isinstance(name, str) or not _EXTENSION_NAME.match(name) or name == "auth":
            raise SaslAuthenticationFailedError(
                f"{source} gave the SASL extension {name!r}: names are letters"
            )
        if not isinstance(text, str) or not _EXTENSION_VALUE.match(text):
            raise SaslAuthenticationFailedError(f"the value of the SASL extension {name!r} is not printable")
    return Token(value, dict(extensions))


async def _awaited(value: Awaitable[object]) -> object:
    return await value


def expiry(token: str) -> float | None:
    """When a JWT expires, in seconds since 1970; None: it is none, or does not say."""
    parts = token.split(".")
    if len(parts) != 3:
        return None
    try:
        claims = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
        return float(claims["exp"])
    except (ValueError, KeyError, TypeError):
        return None


class UnsecuredTokens:
    """Makes tokens that nobody has signed (JWS with ``alg: none``), for tests.

    Only a broker that is set up for development takes them: Java's ``OAuthBearerLoginModule`` with
    ``unsecuredLoginStringClaim_sub``. It can be given as ``sasl_oauth_token_provider``.

    Args:
        subject: who this client is.
        lifetime_s: seconds that a token is valid for.
        claims: further claims.
    """

    def __init__(
        self, subject: str, lifetime_s: float = 3600.0, claims: Mapping[str, object] | None = None
    ) -> None:
        self._subject = subject
        self._lifetime_s = lifetime_s
        self._claims = dict(claims or {})

    def token(self) -> str:
        """A new token, valid from now on."""
        now = time.time()
        claims = {"sub": self._subject, "iat": now, "exp": now + self._lifetime_s, **self._claims}
        return f"{_base64url({'alg': 'none'})}.{_base64url(claims)}."

    def extensions(self) -> dict[str, str]:
        """None."""
        return {}


def _base64url(value: Mapping[str, object]) -> str:
    encoded = base64.urlsafe_b64encode(json.dumps(value).encode())
    return encoded.rstrip(b"=").decode()
