"""The search itself finds what it should."""

from __future__ import annotations

import base64
import json
import logging
import sys
import warnings
from collections.abc import Callable
from urllib.parse import quote

import pytest

from tests.secrets.disclosure import Output, distinct

SECRET = distinct("planted")


def _write(text: str) -> None:
    sys.stderr.write(text)


def _raise_while_handling(text: str) -> Exception:
    try:
        try:
            raise ValueError(text)
        except ValueError:
            raise KeyError("another") from None
    except KeyError as error:
        return error


WAYS: dict[str, Callable[[Output], None]] = {
    "a message": lambda output: logging.getLogger("some.library").debug("got %s", SECRET),
    "an argument that is not shown": lambda output: logging.getLogger("kprod").debug("%.3s", SECRET),
    "standard error": lambda output: _write(SECRET),
    "a warning": lambda output: warnings.warn(SECRET, stacklevel=1),
    "an attribute": lambda output: output.show(type("Thing", (), {})(), {"password": SECRET}),
    "a suppressed cause": lambda output: output.show(_raise_while_handling(SECRET)),
    "JSON": lambda output: print(json.dumps({"x": SECRET})),
    "a URL": lambda output: print(f"http://{quote(SECRET, safe='')}@host"),
    "basic authentication": lambda output: print(base64.b64encode(f"alice:{SECRET}".encode()).decode()),
    "SASL PLAIN": lambda output: print(base64.b64encode(f"\0al\0{SECRET}".encode()).decode()),
    "a dump": lambda output: print(b"\0\x01\0".join((b"", SECRET.encode(), b"")).hex(" ").replace(" ", "")),
    "UTF-16": lambda output: print(repr(SECRET.encode("utf-16"))),
    "bytes": lambda output: print(f"alice {SECRET}".encode()),
}


@pytest.mark.parametrize("way", sorted(WAYS))
def test_a_disclosed_secret_is_found(output: Output, way: str) -> None:
    assert output.disclosed({"it": SECRET}) == []
    WAYS[way](output)
    assert output.disclosed({"it": SECRET}) != []


def test_a_line_of_a_key_is_found(output: Output) -> None:
    pem = "-----BEGIN PRIVATE KEY-----\nMIGHAgEAMBMGByqG\nSM49AgEGCCqGSM49\n-----END PRIVATE KEY-----\n"
    print("something SM49AgEGCCqGSM49 something")
    assert output.disclosed({"key": pem}) == ["key, line 2 of 2"]
