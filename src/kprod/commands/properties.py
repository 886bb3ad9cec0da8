"""Java property files, as ``--config-file`` takes them."""

from __future__ import annotations

import re
from pathlib import Path

from kprod.commands.exit_status import CommandError

_ESCAPES = {"t": "\t", "n": "\n", "r": "\r", "f": "\f"}
_UNICODE = re.compile(r"[0-9A-Fa-f]{4}")


def parse_properties(text: str) -> dict[str, str]:
    r"""The properties in a text, by the rules of ``java.util.Properties.load``.

    Comments start with '#' or '!'; a line that ends in an odd number of backslashes goes on in the next one;
    '=', ':' or white space end the name; ``\t``, ``\n``, ``\r``, ``\f`` and ``\uXXXX`` are escapes. Of a name
    given twice the last value counts.

    Raises:
        ValueError: a ``\u`` is not followed by four hexadecimal digits.
    """
    found: dict[str, str] = {}
    for line in _logical_lines(text):
        match = _find_separator(line)
        name, value = (line, "") if match is None else (line[: match[0]], line[match[1] :])
        found[_unescape(name)] = _unescape(value)
    return found


def read_properties(path: str) -> dict[str, str]:
    """The properties in a file, which is UTF-8.

    Raises:
        CommandError: it cannot be read or is not valid.
    """
    try:
        return parse_properties(Path(path).read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise CommandError(f"the properties file {path} cannot be read: {error.strerror or error}") from None
    except ValueError as error:  # UnicodeDecodeError is one
        raise CommandError(f"the properties file {path} is not valid: {error}") from None


def _logical_lines(text: str) -> list[str]:
    lines: list[str] = []
    pending: str | None = None
    for raw in re.split(r"\r\n|\n|\r", text):
        part = raw.lstrip(" \t\f")
        if pending is None and (not part or part[0] in "#!"):
            continue
        line = (pending or "") + part
        if (len(line) - len(line.rstrip("\\"))) % 2:
            pending = line[:-1]
        else:
            pending = None
            lines.append(line)
    if pending:
        lines.append(pending)
    return lines


def _find_separator(line: str) -> tuple[int, int] | None:
    """Where the name ends and where the value starts."""
    end = 0
    while end < len(line) and line[end] not in "=: \t\f":
        end += 2 if line[end] == "\\" else 1
    if end >= len(line):
        return None
    start = end
    while start < len(line) and line[start] in " \t\f":
        start += 1
    if start < len(line) and line[start] in "=:":
        start += 1
        while start < len(line) and line[start] in " \t\f":
            start += 1
    return end, start


def _unescape(text: str) -> str:
    if "\\" not in text:
        return text
    parts: list[str] = []
    at = 0
    while at < len(text):
        char = text[at]
        at += 1
        if char != "\\" or at == len(text):
            parts.append(char)
            continue
        char = text[at]
        at += 1
        if char == "u":
            digits = _UNICODE.match(text, at)
            if digits is None:
                # Not what is there instead: it may be a part of a password.
                raise ValueError(r"\u must be followed by four hexadecimal digits; a backslash is written \\")
            parts.append(chr(int(digits[0], 16)))
            at += 4
        else:
            parts.append(_ESCAPES.get(char, char))
    return "".join(parts)
