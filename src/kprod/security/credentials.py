"""User name and password: given once, by callables at each authentication, or changed at run time."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from kprod import threads
from kprod.errors import SaslAuthenticationFailedError

Source: TypeAlias = "str | Callable[[], str]"
"""The text itself, or what gives it."""

_SALTED_KEPT = 8


class Credentials:
    """A user name and a password, for PLAIN and SCRAM. Any thread may use it.

    Args:
        username: the name, or a callable that is asked at each authentication.
        password: the password, or a callable likewise.
    """

    def __init__(self, username: Source, password: Source) -> None:
        self._lock = threads.lock()
        self._username = username
        self._password = password
        self._salted: dict[tuple[str, str, bytes, int], bytes] = {}

    def __repr__(self) -> str:
        return "<Credentials>"

    @property
    def are_asked_for(self) -> bool:
        """Whether :meth:`get` calls the application's code, which may take long."""
        return callable(self._username) or callable(self._password)

    def set(self, username: Source, password: Source) -> None:
        """Use these from the next authentication on."""
        with self._lock:
            self._username, self._password = username, password
            self._salted.clear()

    def get(self) -> tuple[str, str]:
        """Name and password, as they are now.

        Raises:
            SaslAuthenticationFailedError: a callable failed, or did not give text.
        """
        with self._lock:
            username, password = self._username, self._password
        return _text(username, "sasl_plain_username"), _text(password, "sasl_plain_password")

    def salted(
        self,
        digest: str,
        password: str,
        salt: bytes,
        iterations: int,
        make: Callable[[], bytes] | None = None,
    ) -> bytes | None:
        """The salted password of SCRAM, which takes long to make and is the same each time.

        Args:
            digest: the hash.
            password: the password.
            salt: the broker's salt for it.
            iterations: how often it is hashed.
            make: makes it; None: only look whether it is there.
        """
        key = (digest, password, salt, iterations)
        with self._lock:
            found = self._salted.get(key)
        if found is None and make is not None:
            found = make()
            with self._lock:
                while len(self._salted) >= _SALTED_KEPT:
                    del self._salted[next(iter(self._salted))]
                self._salted[key] = found
        return found


def _text(source: Source, option: str) -> str:
    if isinstance(source, str):
        return source
    try:
        value = source()
    except Exception as error:
        raise SaslAuthenticationFailedError(
            f"the callable given as {option} raised {type(error).__name__}"
        ) from error
    if not isinstance(value, str) or not value:
        raise SaslAuthenticationFailedError(
            f"the callable given as {option} must return a str that is not empty, it returned "
            f"{'an empty one' if value == '' else type(value).__name__}"
        )
    if any("\ud800" <= character <= "\udfff" for character in value):
        raise SaslAuthenticationFailedError(
            f"the callable given as {option} must return a str that can be written as UTF-8"
        )
    return value
