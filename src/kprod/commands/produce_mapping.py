"""From a record of the input to a record for Kafka: which field becomes key, value, header and timestamp."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta, timezone
from typing import Any, NamedTuple

from kprod.commands.produce_input import InputRecord, JsonNumber, field_names

TIMESTAMP_FORMATS = ("auto", "s", "ms", "us", "ns", "iso")

# Seconds stay below this for three thousand years; milliseconds have been above it since 1973.
_SECONDS_BELOW = 1e11
# Milliseconds stay below it for three thousand years; microseconds have been above it since 1973.
_MILLISECONDS_BELOW = 1e14
_PER_MILLISECOND = {"us": 1_000, "ns": 1_000_000}
_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
_MILLISECOND = timedelta(milliseconds=1)
_ISO = re.compile(
    r"(?P<date>\d{4}-\d\d-\d\d)"
    r"(?:[Tt ](?P<time>\d\d:\d\d(?::\d\d)?)(?:[.,](?P<fraction>\d+))?"
    r" ?(?P<zone>[Zz]|[+-]\d\d(?::?\d\d)?)?)?"
)


class FieldError(Exception):
    """A record lacks a field, or the field cannot be used. The message is for the user."""


class Mapped(NamedTuple):
    """What is sent."""

    value: bytes | None
    key: bytes | None
    headers: list[tuple[str, bytes | None]] | None
    timestamp_ms: int | None


Getter = Callable[[Any], Any]


class FieldPath:
    """Names a field: ``user.id`` is the member ``id`` of ``user``, ``items.0`` the first of a list.

    Args:
        text: the path; a backslash before a dot makes it part of the name.
        nested: whether dots have that meaning; names of CSV columns are taken as they are.
    """

    def __init__(self, text: str, nested: bool) -> None:
        self.text = text
        parts = [part.replace("\\.", ".") for part in re.split(r"(?<!\\)\.", text)] if nested else [text]
        self._parts = tuple(parts)

    def get(self, fields: Any) -> Any:
        """The field's value.

        Raises:
            FieldError: there is none.
        """
        found = fields
        for part in self._parts:
            try:
                found = found[int(part)] if isinstance(found, list) else found[part]
            except (KeyError, IndexError, TypeError, ValueError):
                raise FieldError(f"there is no field {self.text!r}; {field_names(fields)}") from None
        return found


def to_bytes(value: Any) -> bytes | None:
    """A field as key, value or header: texts as UTF-8, numbers as they are written, null as null, lists and
    objects as JSON without spaces.

    Raises:
        FieldError: a text has characters that UTF-8 has not (lone surrogates).
    """
    if value is None or isinstance(value, bytes):
        return value
    try:
        return (value if isinstance(value, str) else _json(value)).encode()
    except UnicodeEncodeError:
        raise FieldError("the text is not valid UTF-8") from None


def _json(value: Any) -> str:
    # json.dumps would round numbers to doubles.
    if isinstance(value, JsonNumber):
        return value.text
    if isinstance(value, dict):
        return "{" + ",".join(f"{_json(name)}:{_json(item)}" for name, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(_json, value)) + "]"
    return json.dumps(value, ensure_ascii=False)


def timestamp_ms(value: Any, format: str) -> int:
    """A field as ms since 1970.

    Args:
        value: a number, or a text with a number or an ISO 8601 date and time; UTC where no zone is given.
        format: one of TIMESTAMP_FORMATS; auto: by the kind and size of the value.

    Raises:
        FieldError: it is none of that, or lies before 1970.
    """
    if isinstance(value, bytes):
        value = value.decode(errors="replace")
    number: int | float | None = None
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        number = value
    elif isinstance(value, str) and format != "iso":
        number = _number(value.strip())
    if number is None:
        if isinstance(value, str) and format in ("auto", "iso"):
            found = _iso_ms(value.strip())
        else:
            raise FieldError(f"{value!r} is not a timestamp ({_accepts(format)})")
    elif format == "iso":
        raise FieldError(f"{value!r} is not a timestamp ({_accepts(format)})")
    else:
        found = _scaled(number, format)
    if found < 0:
        raise FieldError(f"the timestamp {value!r} lies before 1970")
    return found


def _accepts(format: str) -> str:
    return {
        "auto": "seconds or milliseconds since 1970, or ISO 8601",
        "iso": "ISO 8601",
    }.get(format, f"{format} since 1970")


def _number(text: str) -> int | float | None:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    return None


def _scaled(number: int | float, format: str) -> int:
    size = abs(number)
    if size != size or size == float("inf"):
        raise FieldError(f"{number} is not a timestamp")
    if format == "auto":
        if size >= _MILLISECONDS_BELOW:
            raise FieldError(
                f"the timestamp {number} looks like micro- or nanoseconds: "
                "say so with --timestamp-format us or ns"
            )
        format = "s" if size < _SECONDS_BELOW else "ms"
    if format == "s":
        return number * 1000 if isinstance(number, int) else round(number * 1000)
    return int(number) // _PER_MILLISECOND.get(format, 1)


def _iso_ms(text: str) -> int:
    match = _ISO.fullmatch(text)
    try:
        if match is None:
            raise ValueError
        moment = datetime.fromisoformat(f"{match['date']}T{match['time'] or '00:00'}").replace(
            tzinfo=timezone.utc
        )
        zone = match["zone"] or "Z"
        if zone not in "Zz":
            digits = zone[1:].replace(":", "").ljust(4, "0")
            offset = timedelta(hours=int(digits[:2]), minutes=int(digits[2:]))
            moment -= offset if zone[0] == "+" else -offset
    except (ValueError, OverflowError):
        raise FieldError(f"{text!r} is not a timestamp (ISO 8601, or a number)") from None
    # Not with float seconds: their milliseconds would be off by one now and then.
    return (moment - _EPOCH) // _MILLISECOND + int((match["fraction"] or "0").ljust(3, "0")[:3])


class RecordMapping:
    """Makes records for Kafka from those of one source.

    Args:
        key: where the key is; None: no key.
        value: where the value is; None: the whole record.
        headers: names with the field or the constant that is their value.
        timestamp: where the timestamp is; None: the time of sending.
        timestamp_format: one of TIMESTAMP_FORMATS.
        key_regex: finds the key in the whole record: group ``key``, else the first group, else the match.
    """

    def __init__(
        self,
        *,
        key: FieldPath | None = None,
        value: FieldPath | None = None,
        headers: Iterable[tuple[str, FieldPath | bytes]] = (),
        timestamp: FieldPath | None = None,
        timestamp_format: str = "auto",
        key_regex: re.Pattern[bytes] | None = None,
    ) -> None:
        self._key = key
        self._value = value
        self._headers = list(headers)
        self._timestamp = timestamp
        self._timestamp_format = timestamp_format
        self._key_regex = key_regex
        self._key_group: int | str = 0
        if key_regex is not None:
            self._key_group = "key" if "key" in key_regex.groupindex else min(1, key_regex.groups)

    def __call__(self, record: InputRecord) -> Mapped:
        """What to send.

        Raises:
            FieldError: a field is missing or cannot be used.
        """
        _, raw, fields = record
        key = to_bytes(self._key.get(fields)) if self._key is not None else None
        if self._key_regex is not None:
            key = self._search_key(raw or b"")
        if self._value is not None:
            value = to_bytes(self._value.get(fields))
        elif raw is not None:
            value = raw
        else:
            value = to_bytes(fields)
        headers = None
        if self._headers:
            headers = [
                (name, source if isinstance(source, bytes) else to_bytes(source.get(fields)))
                for name, source in self._headers
            ]
        at = None
        if self._timestamp is not None:
            at = timestamp_ms(self._timestamp.get(fields), self._timestamp_format)
        return Mapped(value, key, headers, at)

    def _search_key(self, raw: bytes) -> bytes | None:
        assert self._key_regex is not None
        match = self._key_regex.search(raw)
        if match is None:
            raise FieldError(f"no key: {self._key_regex.pattern.decode(errors='replace')!r} does not match")
        found: bytes | None = match[self._key_group]
        return found
