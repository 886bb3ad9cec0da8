"""What `import kprod` brings along: nothing that a producer may do without, so that programs start fast."""

from __future__ import annotations

import subprocess
import sys

import pytest

from kprod import protocol

NOT_NEEDED_AT_FIRST = [
    "asyncio",
    "dataclasses",
    "difflib",
    "inspect",
    "json",
    "kprod.aio",
    "kprod.engine",
    "kprod.interceptors",
    "kprod.protocol",
    "kprod.security",
    "kprod.testing",
    "kprod.transactions.manager",
    "logging",
    "random",
    "socket",
    "ssl",
    "tempfile",
    "uuid",
]


def test_import_leaves_out_what_few_need() -> None:
    # Without what the interpreter itself brings, which may be more in other versions of Python.
    program = "import sys; had = {*sys.modules}; import kprod; print(*sorted({*sys.modules} - had))"
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    brought = said.stdout.split()
    assert "kprod.producer" in brought
    assert not set(NOT_NEEDED_AT_FIRST) & set(brought)


@pytest.mark.parametrize("name", protocol.__all__)
def test_every_name_of_the_protocol_is_there(name: str) -> None:
    assert getattr(protocol, name) is not None


def test_a_name_that_the_protocol_has_not() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'NO_SUCH_API'"):
        _ = protocol.NO_SUCH_API


def test_what_is_said_before_any_producer_stays_in_kprods_loggers() -> None:
    """logging comes with the first message, and the NullHandler of kprod's loggers before it."""
    program = (
        "from kprod.config import ProducerConfig\n"
        "raised = ProducerConfig.from_options(None, {'request_timeout_ms': 200_000})\n"
        "assert raised.delivery_timeout_ms >= 200_000"
    )
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert said.stderr == ""
