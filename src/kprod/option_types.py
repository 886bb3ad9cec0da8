"""What the value of an option may be: each kind turns what a user wrote into one typed value or refuses it.

A kind does three things: :meth:`Kind.parse` makes the value, :attr:`Kind.accepts` says in words what is
accepted (for error messages and the documentation), and :meth:`Kind.show` writes a value the way a user
would. Text ("5", "true") is parsed only where the options came as a mapping, because there they often stem
from a properties file or from environment variables; a keyword argument of the wrong type is a mistake.
"""

from __future__ import annotations

import math
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Generic, TypeVar

T = TypeVar("T")

INT32_MAX = 2**31 - 1
INT64_MAX = 2**63 - 1

Endpoint = tuple[str, int]
"""Host name or address (IPv6 without brackets), and port."""


def endpoint_text(endpoint: Endpoint) -> str:
    """An endpoint as ``'host:port'``, IPv6 addresses in brackets."""
    host, port = endpoint
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


class Rejected(Exception):
    """The value is not accepted; the text, if any, says why, beyond what the kind accepts."""


class Kind(ABC, Generic[T]):
    """Base of the kinds of values."""

    @property
    @abstractmethod
    def accepts(self) -> str:
        """What is accepted, in words that complete the sentence "it takes ..."."""

    @abstractmethod
    def parse(self, value: object, text: bool) -> T:
        """Return the value in its one form.

        Args:
            value: what the user gave.
            text: whether numbers and booleans may be written as text.

        Raises:
            Rejected: the value is not accepted.
        """

    def show(self, value: T) -> str:
        """The value as a user would write it."""
        return "None" if value is None else str(value)


class Flag(Kind[bool]):
    """True or False."""

    accepts = "True or False"

    def parse(self, value: object, text: bool) -> bool:
        if isinstance(value, bool):
            return value
        if text and isinstance(value, str) and value.strip().lower() in ("true", "false"):
            return value.strip().lower() == "true"
        raise Rejected()


class Integer(Kind[int]):
    """A whole number in a range.

    Args:
        low: smallest value accepted.
        high: largest value accepted.
        infinity: ``float('inf')`` is accepted and means ``high`` (kafka-python's default of ``retries``).
    """

    def __init__(self, low: int, high: int = INT32_MAX, infinity: bool = False) -> None:
        self.low = low
        self.high = high
        self.infinity = infinity

    @property
    def accepts(self) -> str:
        if self.high in (INT32_MAX, INT64_MAX):
            return f"a whole number, {self.low} or more"
        return f"a whole number from {self.low} to {self.high}"

    def parse(self, value: object, text: bool) -> int:
        if text and isinstance(value, str):
            try:
                value = int(value.strip())
            except ValueError:
                raise Rejected() from None
        if self.infinity and isinstance(value, float) and value == math.inf:
            return self.high
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if not isinstance(value, int) or isinstance(value, bool):
            raise Rejected()
        if value < self.low:
            raise Rejected()
        if value > self.high:
            raise Rejected(f"the largest value is {self.high}")
        return value


class BufferBytes(Integer):
    """Size of a socket buffer; -1, or ``None`` as in kafka-python: the operating system's choice."""

    accepts = "bytes, or -1 for what the operating system chooses"

    def __init__(self) -> None:
        super().__init__(-1)

    def parse(self, value: object, text: bool) -> int:
        return -1 if value is None else super().parse(value, text)


class Milliseconds(Kind[float]):
    """A duration; fractions are accepted.

    Args:
        low: shortest duration accepted.
        high: longest duration accepted.
    """

    def __init__(self, low: float = 0, high: float = INT32_MAX) -> None:
        self.low = low
        self.high = high

    @property
    def accepts(self) -> str:
        if self.high in (INT32_MAX, INT64_MAX):
            return f"milliseconds, {self.low} or more"
        return f"milliseconds from {self.low} to {self.high}"

    def parse(self, value: object, text: bool) -> float:
        if text and isinstance(value, str):
            try:
                value = int(value.strip())
            except ValueError:
                try:
                    value = float(str(value).strip())
                except ValueError:
                    raise Rejected() from None
        if not isinstance(value, (int, float)) or isinstance(value, bool):
            raise Rejected()
        # The comparison is written so that NaN, which compares false with everything, is refused.
        if not value >= self.low:
            raise Rejected()
        if value > self.high:
            raise Rejected(f"the largest value is {self.high:.0f}")
        return value


class Choice(Kind[str]):
    """One of a few words, in any case; what is stored is in the case given here.

    Args:
        *values: the words.
        none: the word that ``None`` stands for, if any.
    """

    def __init__(self, *values: str, none: str | None = None) -> None:
        self.values = values
        self.none = none

    @property
    def accepts(self) -> str:
        words = [repr(value) for value in self.values]
        return "one of " + ", ".join(words)

    def parse(self, value: object, text: bool) -> str:
        if value is None and self.none is not None:
            return self.none
        if isinstance(value, str):
            for word in self.values:
                if value.strip().lower() == word.lower():
                    return word
        raise Rejected()

    def show(self, value: str) -> str:
        return repr(value)


class Acks(Kind[int]):
    """``'all'`` (or -1), 1 or 0. Stored as the number on the wire."""

    accepts = "'all' (or -1), 1 or 0"

    def parse(self, value: object, text: bool) -> int:
        if isinstance(value, str):
            word = value.strip().lower()
            if word in ("all", "-1", "1", "0"):
                return -1 if word == "all" else int(word)
        elif isinstance(value, int) and not isinstance(value, bool) and value in (-1, 0, 1):
            return value
        raise Rejected()

    def show(self, value: int) -> str:
        return "'all'" if value == -1 else str(value)


class Text(Kind[str]):
    """Any text.

    Args:
        none: the text that ``None`` stands for, if ``None`` is accepted.
    """

    def __init__(self, none: str | None = None) -> None:
        self.none = none

    @property
    def accepts(self) -> str:
        return "a str" if self.none is None else "a str or None"

    def parse(self, value: object, text: bool) -> str:
        if value is None and self.none is not None:
            return self.none
        if isinstance(value, str):
            return value
        raise Rejected()

    def show(self, value: str) -> str:
        return repr(value)


class OptionalOf(Kind["T | None"]):
    """``None``, or another kind."""

    def __init__(self, kind: Kind[T]) -> None:
        self.kind: Kind[Any] = kind

    @property
    def accepts(self) -> str:
        return f"{self.kind.accepts}, or None"

    def parse(self, value: object, text: bool) -> T | None:
        if value is None:
            return None
        parsed: T = self.kind.parse(value, text)
        return parsed

    def show(self, value: T | None) -> str:
        return "None" if value is None else self.kind.show(value)


class NonEmptyText(Text):
    """Text with at least one character."""

    accepts = "a non-empty str"

    def parse(self, value: object, text: bool) -> str:
        if isinstance(value, str) and value:
            return value
        raise Rejected()


class SecretText(Text):
    """Text that is kept secret: a password, or a key as PEM."""

    def parse(self, value: object, text: bool) -> str:
        found = super().parse(value, text)
        if not found.isascii() and any("\ud800" <= character <= "\udfff" for character in found):
            # As Python makes them of bytes in the environment that are not UTF-8. An error of encode() later
            # would have the whole text in it.
            raise Rejected()
        return found

    @property
    def accepts(self) -> str:
        return "a str that can be written as UTF-8"


class FilePath(NonEmptyText):
    """The path of a file. What a file holds is refused: that may be a private key, and paths are shown."""

    accepts = "the path of a file, as a non-empty str"

    def parse(self, value: object, text: bool) -> str:
        if isinstance(value, str) and "-----BEGIN " in value:
            raise Rejected(
                "this is the text of a PEM file: text is given as ssl_keystore_key, "
                "ssl_keystore_certificate_chain and ssl_truststore_certificates"
            )
        return super().parse(value, text)


class HttpAddress(NonEmptyText):
    """An address of HTTP without ``user:password@``: addresses are shown."""

    accepts = "an address such as 'https://host/path', without user and password"

    def parse(self, value: object, text: bool) -> str:
        if isinstance(value, str) and "@" in value:
            raise Rejected("user and password have options of their own, or '@' is written %40")
        return super().parse(value, text)


class Instance(Kind[T]):
    """An object that the user made, taken as it is.

    Args:
        fits: tells whether an object is accepted.
        accepts: what is accepted, in words.
    """

    accepts = ""

    def __init__(self, fits: Callable[[object], bool], accepts: str) -> None:
        self._fits = fits
        self.accepts = accepts

    def parse(self, value: object, text: bool) -> T:
        if not self._fits(value):
            raise Rejected()
        return value  # type: ignore[return-value]

    def show(self, value: T) -> str:
        return "None" if value is None else repr(value)


class Words(Kind["tuple[str, ...]"]):
    """A list of words, or one string with commas between them."""

    accepts = "a list of str, or a str with commas"

    def parse(self, value: object, text: bool) -> tuple[str, ...]:
        if value is None:
            return ()
        if isinstance(value, str):
            return tuple(word for word in (part.strip() for part in value.split(",")) if word)
        if isinstance(value, (list, tuple)) and all(isinstance(word, str) for word in value):
            return tuple(value)
        raise Rejected()

    def show(self, value: tuple[str, ...]) -> str:
        return repr(list(value))


class SocketOptions(Kind["tuple[tuple[int, int, int | bytes], ...]"]):
    """Arguments of ``socket.setsockopt``, one tuple per option."""

    accepts = "a list of (level, option, value) tuples as for socket.setsockopt"

    def parse(self, value: object, text: bool) -> tuple[tuple[int, int, int | bytes], ...]:
        if value is None:
            return ()
        if not isinstance(value, (list, tuple)):
            raise Rejected()
        for item in value:
            if not (
                isinstance(item, (list, tuple))
                and len(item) == 3
                and all(isinstance(number, int) for number in item[:2])
                and isinstance(item[2], (int, bytes))
            ):
                raise Rejected()
        return tuple((int(level), int(option), setting) for level, option, setting in value)

    def show(self, value: tuple[tuple[int, int, int | bytes], ...]) -> str:
        return repr(list(value))


class Endpoints(Kind["tuple[Endpoint, ...]"]):
    """Broker addresses: ``'a:9092,b:9092'``, or a list of such strings or of ``(host, port)`` pairs.

    IPv6 addresses stand in brackets; the port defaults to 9092. An address that occurs twice is kept once.
    """

    default_port = 9092
    accepts = "'host:port,host:port', or a list of 'host:port' (IPv6 as '[::1]:9092', default port 9092)"

    def parse(self, value: object, text: bool) -> tuple[Endpoint, ...]:
        entries: Iterable[object]
        if isinstance(value, str):
            entries = [part for part in (part.strip() for part in value.split(",")) if part]
        elif isinstance(value, (list, tuple, set, frozenset)):
            entries = self._flatten(value)
        else:
            raise Rejected()
        endpoints = dict.fromkeys(self._endpoint(entry) for entry in entries)
        if not endpoints:
            raise Rejected("there is no address in it")
        return tuple(endpoints)

    @staticmethod
    def _flatten(entries: Iterable[object]) -> Iterable[object]:
        for entry in entries:
            if isinstance(entry, str):
                yield from (part for part in (part.strip() for part in entry.split(",")) if part)
            else:
                yield entry

    def _endpoint(self, entry: object) -> Endpoint:
        if isinstance(entry, (tuple, list)) and len(entry) == 2:
            host, port = entry
            if isinstance(host, str) and host and isinstance(port, int) and not isinstance(port, bool):
                return host.strip("[]"), self._port(port, entry)
        if not isinstance(entry, str):
            raise Rejected(f"{entry!r} is neither a str nor a (host, port) pair")
        # An address with '@' may carry a password, so it is not repeated in the message.
        shown = "an address with '@'" if "@" in entry else repr(entry)
        if "://" in entry:
            raise Rejected(f"{shown} must be written without the protocol before '://'")
        if entry.count(":") > 1 and "[" not in entry:
            raise Rejected(f"{shown}: an IPv6 address must stand in brackets")
        match = re.fullmatch(
            r"\[(?P<v6>[0-9A-Fa-f:.%\w-]+)\](?::(?P<port6>.*))?|(?P<host>[^:\[\]\s@/]+)(?::(?P<port>.*))?",
            entry,
        )
        if match is None:
            raise Rejected(f"{shown} is not a host and port")
        port_text = match["port6"] if match["v6"] else match["port"]
        if port_text is None:
            number = self.default_port
        elif re.fullmatch(r"[0-9]+", port_text):
            number = int(port_text)
        else:
            raise Rejected(f"{shown}: the port must be a number from 1 to 65535")
        return match["v6"] or match["host"], self._port(number, entry)

    @staticmethod
    def _port(number: int, entry: object) -> int:
        if not 1 <= number <= 65535:
            raise Rejected(f"{entry!r}: the port must be a number from 1 to 65535")
        return number

    def show(self, value: tuple[Endpoint, ...]) -> str:
        return repr(",".join(map(endpoint_text, value)))


class ApiVersion(Kind["tuple[int, ...] | None"]):
    """A broker version as kafka-python takes it: ``(2, 8)``, ``'2.8'``, ``'auto'`` or ``None``."""

    accepts = "a tuple such as (2, 8), a str such as '2.8', 'auto' or None"

    def parse(self, value: object, text: bool) -> tuple[int, ...] | None:
        if value is None or value == "auto":
            return None
        if isinstance(value, str) and re.fullmatch(r"[0-9]+(\.[0-9]+){0,3}", value):
            return tuple(int(part) for part in value.split("."))
        if isinstance(value, (tuple, list)) and value:
            parts: Sequence[object] = value
            if all(isinstance(part, int) and not isinstance(part, bool) and part >= 0 for part in parts):
                return tuple(value)
        raise Rejected()


class Anything(Kind[object]):
    """Any value: for options that have no effect here."""

    accepts = "any value"

    def parse(self, value: object, text: bool) -> object:
        return value


class MappingOf(Kind[Mapping[str, T]]):
    """A mapping from names to what another function makes of the values.

    Args:
        entry: makes the value of one entry from its name and what the user gave, or raises :exc:`Rejected`.
        accepts: what is accepted, in words.
    """

    accepts = ""

    def __init__(self, entry: Callable[[str, object, bool], T], accepts: str) -> None:
        self._entry = entry
        self.accepts = accepts

    def parse(self, value: object, text: bool) -> Mapping[str, T]:
        if value is None:
            return {}
        if not isinstance(value, Mapping):
            raise Rejected()
        parsed: dict[str, T] = {}
        for name, inner in value.items():
            if not isinstance(name, str):
                raise Rejected(f"the name {name!r} is not a str")
            parsed[name] = self._entry(name, inner, text)
        return parsed

    def show(self, value: Mapping[str, T]) -> str:
        return repr(dict(value))
