"""Tokens from an OpenID provider's token endpoint: client credentials (KIP-768) and JWT bearer (KIP-1139).

HTTP and OAuth are the packages ``requests`` and ``Authlib``, signatures ``joserfc``: the extra ``oauth``.
"""

from __future__ import annotations

import importlib
import random
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote_plus

from kprod import threads
from kprod.errors import SaslAuthenticationFailedError, TokenUnavailableError
from kprod.security.oauthbearer import Token, checked, expiry
from kprod.security.redaction import without_secrets

_JWT_BEARER: Final = "urn:ietf:params:oauth:grant-type:jwt-bearer"

_REFRESH_AT: Final = 0.8
"""The share of its life after which a token is replaced (Java: sasl.login.refresh.window.factor)."""

_ATTEMPTS: Final = 3


def load() -> None:
    """See that the packages are there.

    Raises:
        ImportError: one is missing; says what to install.
    """
    for package in ("authlib.integrations.requests_client", "joserfc.jwt"):
        try:
            importlib.import_module(package)
        except ImportError as error:
            raise ImportError(
                "tokens from sasl_oauthbearer_token_endpoint_url need the packages Authlib and requests "
                f"({error}): pip install 'kprod[oauth]'"
            ) from error


@dataclass(frozen=True, repr=False)
class Assertion:
    """How to make the assertion of a JWT-bearer request; see the options ``sasl_oauthbearer_assertion_*``."""

    file: str | None
    """A file with a ready assertion; read anew for every token."""
    private_key_file: str | None
    """PEM file of the key to sign one with."""
    passphrase: str | None
    algorithm: str
    claims: Mapping[str, str]
    """``aud``, ``iss``, ``sub``."""
    expires_s: int
    not_before_s: int
    with_id: bool

    def make(self) -> str:
        """The assertion.

        Raises:
            SaslAuthenticationFailedError: a file cannot be read, or the key cannot sign.
        """
        path = self.file or self.private_key_file
        assert path is not None
        try:
            content = Path(path).read_bytes()
        except OSError as error:
            raise SaslAuthenticationFailedError(f"{path} cannot be read: {error.strerror or error}") from None
        if self.file is not None:
            return content.decode("ascii", "replace").strip()
        jwk: Any = importlib.import_module("joserfc.jwk")
        jwt: Any = importlib.import_module("joserfc.jwt")
        kind = jwk.RSAKey if self.algorithm.startswith("RS") else jwk.ECKey
        now = int(time.time())
        claims: dict[str, Any] = {
            **self.claims,
            "iat": now,
            "nbf": now - self.not_before_s,
            "exp": now + self.expires_s,
        }
        if self.with_id:
            claims["jti"] = secrets.token_hex(16)
        try:
            key = kind.import_key(content, password=self.passphrase)
            signed: str = jwt.encode({"alg": self.algorithm}, claims, key, [self.algorithm])
        except Exception as error:
            # Its text may quote the key.
            raise SaslAuthenticationFailedError(
                f"the key in {path} cannot sign with {self.algorithm} ({type(error).__name__}): check "
                "sasl_oauthbearer_assertion_private_key_passphrase and _algorithm"
            ) from None
        return signed


class TokenEndpoint:
    """Asks a token endpoint, and keeps the token for most of its life. Any thread may call it.

    Args:
        url: the endpoint.
        client_id: who asks; None: only the assertion says so.
        client_secret: its secret.
        scope: what is asked for.
        urlencode: encode id and secret in the header as RFC 6749 wants it; many providers do not.
        assertion: ask with the grant type JWT bearer; None: client credentials.
        extensions: SASL extensions to send with the tokens.
        timeouts: seconds for connecting and for an answer.
        backoff: seconds between attempts at first, and at most.
    """

    def __init__(
        self,
        url: str,
        client_id: str | None,
        client_secret: str | None,
        scope: str | None,
        *,
        urlencode: bool = False,
        assertion: Assertion | None = None,
        extensions: Mapping[str, str] | None = None,
        timeouts: tuple[float | None, float | None] = (None, None),
        backoff: tuple[float, float] = (0.1, 10.0),
        wait: Callable[[float], None] = time.sleep,
    ) -> None:
        load()
        self._url = url
        encode: Callable[[str], str] = quote_plus if urlencode else str
        self._secret = client_secret
        self._client = tuple(
            encode(part) if part is not None else None for part in (client_id, client_secret)
        )
        self._scope = scope
        self._assertion = assertion
        self._extensions = dict(extensions or {})
        self._timeouts = tuple(10.0 if seconds is None else seconds for seconds in timeouts)
        self._backoff = backoff
        self._wait = wait
        self._lock = threads.lock()
        self._token: Token | None = None
        self._refresh_at = 0.0

    def __repr__(self) -> str:
        return f"<TokenEndpoint {self._url}>"

    def __call__(self) -> Token:
        """The token, a new one if the last is old.

        Raises:
            TokenUnavailableError: the endpoint cannot be reached.
            SaslAuthenticationFailedError: it refuses this client, or what it gives is no token.
        """
        # One question for all connections that authenticate at a time.
        with self._lock:
            if self._token is None or time.time() >= self._refresh_at:
                value, expires_at = self._fetch()
                self._token = checked(value, self._extensions, self._url)
                now = time.time()
                life = (expires_at - now) if expires_at is not None else 0.0
                self._refresh_at = now + life * _REFRESH_AT
            return self._token

    def _fetch(self) -> tuple[object, float | None]:
        pause = self._backoff[0]
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                return self._ask()
            except TokenUnavailableError:
                if attempt == _ATTEMPTS:
                    raise
                self._wait(pause * random.uniform(0.8, 1.2))
                pause = min(pause * 2, self._backoff[1])
        raise AssertionError

    def _ask(self) -> tuple[object, float | None]:
        requests: Any = importlib.import_module("requests")
        client: Any = importlib.import_module("authlib.integrations.requests_client")
        oauth_error: Any = importlib.import_module("authlib.integrations.base_client").OAuthError
        fields: dict[str, str] = {"grant_type": "client_credentials"}
        if self._assertion is not None:
            fields = {"grant_type": _JWT_BEARER, "assertion": self._assertion.make()}
        if self._scope:
            fields["scope"] = self._scope
        client_id, client_secret = self._client
        method = "client_secret_basic" if client_secret is not None else "none"
        try:
            with client.OAuth2Session(client_id, client_secret, token_endpoint_auth_method=method) as session:
                answer = session.fetch_token(self._url, timeout=self._timeouts, **fields)
        except oauth_error as error:
            described = f"{error.error}{f' ({error.description})' if error.description else ''}"
            told = without_secrets(described, self._secret, client_secret, fields.get("assertion"))
            raise SaslAuthenticationFailedError(
                f"the token endpoint {self._url} refused this client: {told}; check the options "
                "sasl_oauthbearer_client_credentials_client_id, _client_secret and sasl_oauthbearer_scope"
            ) from None
        except requests.exceptions.HTTPError as error:
            raise TokenUnavailableError(
                f"the token endpoint {self._url} answered with HTTP status {error.response.status_code}"
            ) from None
        except requests.exceptions.InvalidJSONError:
            raise self._no_endpoint() from None
        except requests.exceptions.RequestException as error:
            if isinstance(error, ValueError):
                raise SaslAuthenticationFailedError(
                    f"sasl_oauthbearer_token_endpoint_url={self._url!r} is not an address: "
                    f"{type(error).__name__}"
                ) from None
            raise TokenUnavailableError(
                f"the token endpoint {self._url} cannot be reached: {_reason(error)}"
            ) from None
        except UnicodeEncodeError:
            raise SaslAuthenticationFailedError(
                "sasl_oauthbearer_client_credentials_client_id or _client_secret has characters beyond "
                "Latin-1, which a header carries only with sasl_oauthbearer_header_urlencode=True"
            ) from None
        except ValueError:
            # Authlib's word for an answer that is no JSON object.
            raise self._no_endpoint() from None
        if not isinstance(answer, Mapping) or "access_token" not in answer:
            raise SaslAuthenticationFailedError(f"the answer of {self._url} has no access_token in it")
        value = answer["access_token"]
        lifetime = answer.get("expires_in")
        if isinstance(lifetime, (int, float)):
            return value, time.time() + lifetime
        return value, expiry(value) if isinstance(value, str) else None

    def _no_endpoint(self) -> SaslAuthenticationFailedError:
        return SaslAuthenticationFailedError(
            f"{self._url} did not answer with a JSON object: is it a token endpoint?"
        )


def _reason(error: Exception) -> str:
    """The innermost reason of one of requests' exceptions, without the request."""
    reason: Any = error
    while getattr(reason, "args", None) and isinstance(reason.args[0], Exception):
        reason = reason.args[0]
    inner = getattr(reason, "reason", None) or reason
    return f"{type(inner).__name__}: {str(inner)[:200]}"
