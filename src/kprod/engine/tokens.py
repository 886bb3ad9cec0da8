"""Tokens of the requests that belong to a connection itself; those of other control requests are positive."""

from __future__ import annotations

from typing import Final

HELLO: Final = 0
"""The first request on a connection."""

SASL_TOKEN: Final = -1
"""SASL requests."""
