"""What there is to know of another client's test suite to run it against kprod."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Suite:
    """The tests of one client.

    Attributes:
        client: its name, as on the command line.
        distribution: its name on PyPI; the checkout must be of the version that is installed.
        repository: where the checkout comes from.
        files: the test files that are run, relative to the checkout.
        broker_options: of the broker that is started for them.
        swap: puts kprod's class into the client's modules; called before test modules are imported.
        secure: whether the broker also listens with TLS and SASL.
        private: tests that reach into the client's own parts, and into which: they cannot run on anything
            else. Keys here and below are ``file::test``, with ``[parameters]`` or without, or ``file::*``.
        differs: tests that use the public API only and fail all the same, and why.
        elsewhere: tests in these files that have nothing to do with the producer; they are not counted.
        release: the tag of the checkout, where there is none of the version that is installed.
        environment: variables for the tests; ``{bootstrap}`` and ``{folder}`` are filled in.
        plugins: further pytest plug-ins, with fixtures that stand in for those of the suite's conftest.
        arguments: more arguments for pytest.
    """

    client: str
    distribution: str
    repository: str
    files: tuple[str, ...]
    broker_options: dict[str, Any]
    swap: Callable[[], None]
    private: dict[str, str]
    differs: dict[str, str] = field(default_factory=dict)
    plugins: tuple[str, ...] = ()
    arguments: tuple[str, ...] = ()
    secure: bool = False
    elsewhere: frozenset[str] = frozenset()
    release: str | None = None
    environment: dict[str, str] = field(default_factory=dict)


def listed(names: Collection[str], test: str) -> str | None:
    """The entry that stands for a test: itself, itself for all parameters, or all of its file."""
    base = test.partition("[")[0]
    for name in (test, base, f"{test.partition('::')[0]}::*"):
        if name in names:
            return name
    return None


BOOTSTRAP_VARIABLE = "KPROD_COMPAT_BOOTSTRAP"
TLS_VARIABLE = "KPROD_COMPAT_TLS"
"""``host:port`` of the TLS listener."""
CERTIFICATES_VARIABLE = "KPROD_COMPAT_CERTIFICATES"
"""Folder with ``ca.crt``, ``client.crt`` and ``client.key``; the key is not encrypted."""
SUITE_VARIABLE = "KPROD_COMPAT_SUITE"
OUTCOMES_VARIABLE = "KPROD_COMPAT_OUTCOMES"


def broker_address(variable: str = BOOTSTRAP_VARIABLE) -> tuple[str, int]:
    """Host and port of a listener of the broker, inside the process that runs the tests."""
    host, _, port = os.environ[variable].rpartition(":")
    return host, int(port)
