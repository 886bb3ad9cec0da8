"""Everything that is written and shown, and every form that a secret could have in it."""

from __future__ import annotations

import base64
import html
import json
import logging
import re
import traceback
import warnings
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import Any
from urllib.parse import quote, quote_plus

import pytest


def forms(secret: str) -> Mapping[str, str]:
    """How a text may have been written, by the name of the encoding. Of PEM text: each of its lines."""
    if "-----BEGIN" in secret:
        lines = [line for line in secret.splitlines() if line and "-----" not in line]
        return {f"line {number} of {len(lines)}": line for number, line in enumerate(lines, 1)}
    data = secret.encode()
    found = {
        "as it is": secret,
        "repr of str": repr(secret)[1:-1],
        "repr of bytes": repr(data)[2:-1],
        "JSON": json.dumps(secret)[1:-1],
        "JSON in JSON": json.dumps(json.dumps(secret)[1:-1])[1:-1],
        "URL": quote(secret, safe=""),
        "URL form": quote_plus(secret),
        "HTML": html.escape(secret),
        "backwards": secret[::-1],
        "hexadecimal": data.hex(),
        "upper-case hexadecimal": data.hex().upper(),
    }
    for codec in ("utf-16-le", "utf-16-be"):
        encoded = secret.encode(codec)
        found[codec] = encoded.decode("latin-1")
        found[f"repr of {codec}"] = repr(encoded)[2:-1]
        found[f"{codec} as hexadecimal"] = encoded.hex()
    for name, source in (("utf-8", data), ("utf-16-le", secret.encode("utf-16-le"))):
        # Base64 of it depends on what stands before it, modulo three bytes; the ends depend on neighbours.
        for before in range(3):
            encoded = base64.b64encode(bytes(before) + source)
            middle = encoded[4 if before else 0 : len(encoded) - 4].decode()
            found[f"base64 of {name} after {before} bytes"] = middle
            found[f"base64url of {name} after {before} bytes"] = middle.translate({43: "-", 47: "_"})
    return found


class Output:
    """Collects while it is entered: records of all loggers, warnings, standard output and error.

    Args:
        capture: pytest's, for what is written by any part of the process.
    """

    def __init__(self, capture: pytest.CaptureFixture[str]) -> None:
        self._capture = capture
        self._seen: list[str] = []
        self._handler = _Collector(self._seen)
        self._warnings = warnings.catch_warnings(record=True)
        self._warned: list[warnings.WarningMessage] = []
        self._levels: dict[logging.Logger, tuple[int, bool]] = {}

    def __enter__(self) -> Output:
        known = list(logging.Logger.manager.loggerDict.values())
        for logger in [logging.getLogger(), *known]:
            if isinstance(logger, logging.Logger):
                self._levels[logger] = logger.level, logger.disabled
                logger.setLevel(1)
                logger.disabled = False
        logging.getLogger().addHandler(self._handler)
        warned = self._warnings.__enter__()
        assert warned is not None
        self._warned = warned
        warnings.simplefilter("always")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._warnings.__exit__(kind, error, trace)
        logging.getLogger().removeHandler(self._handler)
        for logger, (level, disabled) in self._levels.items():
            logger.setLevel(level)
            logger.disabled = disabled

    def show(self, *things: object) -> None:
        """Look at things in all ways that a program may print them; at exceptions with what led to them."""
        for thing in things:
            self._seen += [str(thing), repr(thing), f"{thing!a}"]
            if isinstance(thing, BaseException):
                self._seen += traceback.format_exception(thing)
                for each in _chain(thing):
                    self._seen += [str(each), repr(each), repr(each.args), repr(vars(each))]
            elif isinstance(thing, Mapping):
                self._seen.append(json.dumps(dict(thing), default=repr))
            elif hasattr(thing, "__dict__"):
                self._seen.append(repr(vars(thing)))

    @property
    def text(self) -> str:
        """All of it until now."""
        written = self._capture.readouterr()
        self._seen += [written.out, written.err]
        self._seen += [f"{warning.message} {warning.source!r}" for warning in self._warned]
        return "\n".join(self._seen)

    def disclosed(self, secrets: Mapping[str, str]) -> list[str]:
        """Which secrets are in it, and as what; an empty list is the wish.

        Args:
            secrets: texts by what they are.
        """
        text = self.text
        return [
            f"{what}, {form}"
            for what, secret in secrets.items()
            for form, written in forms(secret).items()
            if written in text
        ]


class _Collector(logging.Handler):
    """Keeps records as text, as objects (for structured logging), and with tracebacks."""

    def __init__(self, seen: list[str]) -> None:
        super().__init__(1)
        self._seen = seen
        self.setFormatter(logging.Formatter("%(name)s %(levelname)s %(threadName)s %(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        fields: dict[str, Any] = dict(vars(record))
        self._seen += [self.format(record), repr(fields)]


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The exception and all that it was raised from or while handling, also where that is not printed."""
    pending, known = [error], set[int]()
    while pending:
        each = pending.pop()
        if id(each) not in known:
            known.add(id(each))
            yield each
            pending += [other for other in (each.__cause__, each.__context__) if other is not None]


def distinct(text: str) -> str:
    """A secret that nothing else looks like, with characters that encodings change, from a word."""
    return f"Zq7/{text}+&<\"é'%=ü€{re.sub(r'[^A-Za-z]', '', text)[::-1]}9xW"
