"""The plug-in in the process that runs another client's tests: every test has an outcome."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from tests.compat import suite

SUITE = """
from suite import Suite

SUITE = Suite(
    "any", "any", "any", ("test_any.py",), {}, lambda: None, private={"test_any.py::test_parts": "why"}
)
"""
TESTS = """
import signal

def test_signal():
    signal.raise_signal(signal.SIGINT)

def test_parts():
    pass

def test_after():
    pass
"""


def test_a_signal_that_comes_late_does_not_hide_the_tests_behind(tmp_path: Path) -> None:
    (tmp_path / "any_suite.py").write_text(SUITE)
    (tmp_path / "test_any.py").write_text(TESTS)
    outcomes = tmp_path / "outcomes.json"
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-c", os.devnull, "--rootdir", str(tmp_path)]
        + ["-p", "no:cacheprovider", "-p", "peer_plugin", "test_any.py"],
        cwd=tmp_path,
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join((str(Path(suite.__file__).parent), str(tmp_path))),
            suite.SUITE_VARIABLE: "any_suite",
            suite.OUTCOMES_VARIABLE: str(outcomes),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1, done.stdout + done.stderr
    assert json.loads(outcomes.read_text()) == {
        "test_any.py::test_signal": "failed",
        "test_any.py::test_parts": "private",
        "test_any.py::test_after": "passed",
    }
