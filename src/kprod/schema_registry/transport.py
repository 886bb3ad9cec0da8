"""Requests to a Schema Registry: several URLs, credentials, TLS, retries with backoff."""

from __future__ import annotations

import importlib
import random
import re
import ssl
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import unquote, urlsplit, urlunsplit

from kprod._version import __version__
from kprod.errors import KafkaConfigurationError
from kprod.schema_registry.errors import SchemaRegistryError, SchemaRegistryUnavailableError

_MEDIA_TYPE = "application/vnd.schemaregistry.v1+json"
# The same ones that Confluent's clients try again: timeouts, too many requests, and failures of the server.
_RETRIABLE_STATUS = frozenset((408, 429, 500, 502, 503, 504))


def http_library() -> Any:
    """httpx2, or its predecessor httpx, whose interface is the same.

    Raises:
        ImportError: neither is installed; says how to get it.
    """
    for name in ("httpx2", "httpx"):
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name != name:
                raise
    raise ImportError("a Schema Registry is asked with httpx2 (or httpx): pip install 'kprod[registry]'")


class RegistryTransport:
    """One registry, behind one URL or several. Safe for threads.

    The arguments are those of :class:`kprod.schema_registry.SchemaRegistryClient`, which describes them.
    """

    def __init__(
        self,
        urls: Sequence[str],
        *,
        basic_auth: tuple[str, str] | None,
        bearer_token: str | Callable[[], str] | None,
        ssl_context: ssl.SSLContext | None,
        timeout_ms: float,
        retries: int,
        retry_backoff_ms: float,
        retry_backoff_max_ms: float,
        headers: Mapping[str, str] | None,
        proxy: str | None,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        self._library = http_library()
        self.urls: list[str] = []
        for url in urls:
            clean, user_info = _without_user_info(url)
            self.urls.append(clean)
            basic_auth = basic_auth or user_info
        if basic_auth is not None and bearer_token is not None:
            raise KafkaConfigurationError(
                "basic_auth and bearer_token are both set, and a request has one Authorization header: "
                "leave out "
                "one of them"
            )
        self._token = bearer_token
        if bearer_token is not None and not callable(bearer_token):
            _checked_token(bearer_token)
        self._retries = retries
        self._backoff_ms = retry_backoff_ms
        self._backoff_max_ms = retry_backoff_max_ms
        self._sleep = sleep
        options: dict[str, Any] = {}
        if ssl_context is not None:
            options["verify"] = ssl_context
        if proxy is not None:
            options["proxy"] = proxy
        self._session = self._library.Client(
            auth=basic_auth,
            timeout=timeout_ms / 1000,
            headers={
                "User-Agent": f"kprod/{__version__}",
                "Accept": _MEDIA_TYPE,
                **_checked_headers(headers),
            },
            **options,
        )
        self._preferred = 0

    def close(self) -> None:
        """Close the connections."""
        self._session.close()

    def request(
        self,
        method: str,
        path: str,
        *,
        body: Mapping[str, Any] | None = None,
        query: Mapping[str, str] | None = None,
        subject: str | None = None,
        schema_id: int | None = None,
    ) -> Any:
        """One request, tried at each URL in turn, and that again after a backoff.

        Args:
            method: of HTTP.
            path: behind the URL of the registry, quoted, without a leading slash.
            body: sent as JSON.
            query: parameters.
            subject: named by errors.
            schema_id: named by errors.

        Returns:
            The JSON of the answer.

        Raises:
            SchemaRegistryError: the registry refused, or its answer is no JSON.
            SchemaRegistryUnavailableError: no URL gave a usable answer within the retries.
        """
        failed: SchemaRegistryUnavailableError | None = None
        for attempt in range(self._retries + 1):
            if attempt:
                # Up to half is random, so that many processes do not come back at the same moment.
                bound = min(self._backoff_max_ms, self._backoff_ms * 2 ** (attempt - 1))
                self._sleep(random.uniform(bound / 2, bound) / 1000)
            first = self._preferred
            for step in range(len(self.urls)):
                number = (first + step) % len(self.urls)
                url = f"{self.urls[number]}/{path}"
                try:
                    response = self._session.request(
                        method, url, params=query, json=body, headers=self._request_headers(body)
                    )
                except self._library.TransportError as error:
                    failed = SchemaRegistryUnavailableError(
                        f"{type(error).__name__}: {error}", url=url, subject=subject, schema_id=schema_id
                    )
                    failed.__cause__ = error
                    continue
                if response.is_success:
                    self._preferred = number
                    return _json(response, url, subject, schema_id)
                error_code, reason = _reason(response)
                about: dict[str, Any] = {
                    "url": url,
                    "subject": subject,
                    "schema_id": schema_id,
                    "http_status": response.status_code,
                    "error_code": error_code,
                }
                if response.status_code not in _RETRIABLE_STATUS:
                    raise SchemaRegistryError(reason, **about)
                failed = SchemaRegistryUnavailableError(reason, **about)
        assert failed is not None
        raise failed

    def _request_headers(self, body: object) -> dict[str, str]:
        headers = {} if body is None else {"Content-Type": _MEDIA_TYPE}
        if self._token is not None:
            token = _checked_token(self._token() if callable(self._token) else self._token)
            headers["Authorization"] = f"Bearer {token}"
        return headers


def _checked_token(token: object) -> str:
    """A token that can be sent: the library's own error about another would quote it."""
    if not isinstance(token, str) or not re.fullmatch(r"[\x21-\x7e]+", token):
        raise KafkaConfigurationError(
            "bearer_token must be, or return, a str of printable ASCII characters without white space: is "
            f"there a line feed at its end? It is of type {type(token).__name__}"
        )
    return token


def _checked_headers(headers: Mapping[str, str] | None) -> Mapping[str, str]:
    """Headers that can be sent; their values may be secrets."""
    for name, value in (headers or {}).items():
        if not isinstance(value, str) or not re.fullmatch(r"[\x20-\x7e]*", value) or value != value.strip():
            raise KafkaConfigurationError(
                f"headers: the value of {name!r} must be a str of printable ASCII characters, without white "
                "space at its ends"
            )
    return headers or {}


def _without_user_info(url: str) -> tuple[str, tuple[str, str] | None]:
    """Split ``user:password@`` off; it must never show in an error."""
    try:
        parts = urlsplit(url.strip())
    except ValueError:  # its text may quote the password
        parts = urlsplit("")
    if "@" in parts.path + parts.query + parts.fragment:
        raise KafkaConfigurationError(
            "url has an '@' after the host: in a user name or password '/', '?' and '#' are written %2F, %3F "
            "and %23; or give them as basic_auth"
        )
    if parts.scheme not in ("http", "https") or not parts.hostname:
        shown = url.rpartition("@")[2]
        raise KafkaConfigurationError(
            f"url={shown!r} is no URL of a Schema Registry: it must look like 'https://registry:8081'"
        )
    user_info = None
    if parts.username is not None:
        user_info = (unquote(parts.username), unquote(parts.password or ""))
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit((parts.scheme, host, parts.path.rstrip("/"), "", "")), user_info


def _json(response: Any, url: str, subject: str | None, schema_id: int | None) -> Any:
    try:
        return response.json()
    except ValueError as error:
        raise SchemaRegistryError(
            f"the answer is no JSON but {response.text[:80]!r}: is this the URL of a Schema Registry?",
            url=url,
            subject=subject,
            schema_id=schema_id,
            http_status=response.status_code,
        ) from error


def _reason(response: Any) -> tuple[int | None, str]:
    try:
        body = response.json()
        return body.get("error_code"), str(body.get("message") or body)
    except (ValueError, AttributeError):
        return None, response.text[:200] or response.reason_phrase
