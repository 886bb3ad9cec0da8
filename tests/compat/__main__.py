"""Run another client's producer tests against kprod: ``python -m tests.compat aiokafka CHECKOUT``.

CHECKOUT is a clone of the client's repository at the version that is installed, or the nearest tag before it.
A broker of Apache Kafka is started for the tests. ``--table`` writes the table of docs/compatibility.md. A
test that ends in another way than the client's ``*_suite.py`` says is an error, and so is one that is listed
there and does not exist.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.compat.suite import (
    BOOTSTRAP_VARIABLE,
    CERTIFICATES_VARIABLE,
    OUTCOMES_VARIABLE,
    SUITE_VARIABLE,
    TLS_VARIABLE,
    Suite,
    listed,
)

HERE = Path(__file__).resolve().parent
SUITES = {path.name.removesuffix("_suite.py"): path for path in HERE.glob("*_suite.py")}


def load(client: str) -> Suite:
    """The description of a client's suite."""
    suite: Suite = importlib.import_module(f"tests.compat.{client}_suite").SUITE
    return suite


def run(suite: Suite, checkout: Path, arguments: list[str]) -> dict[str, str]:
    """Run the tests of a checkout.

    Returns:
        ``passed``, ``failed``, ``skipped`` or ``private`` by ``file::test``.

    Raises:
        RuntimeError: pytest did not run all tests.
    """
    from tests.kafka.cluster import KafkaCluster

    with (
        KafkaCluster(1, secure=suite.secure, **suite.broker_options) as cluster,
        tempfile.TemporaryDirectory() as folder,
    ):
        if suite.secure:
            issued = cluster.client_certificate
            for source, name in (
                (cluster.certificates.file, "ca.crt"),
                (issued.certificate, "client.crt"),
                (issued.key, "client.key"),
            ):
                shutil.copy(source, Path(folder, name))
        outcomes = Path(folder, "outcomes.json")
        search = [str(HERE), *(path for path in sys.path if path and Path(path).name == "src")]
        plugins = [word for name in ("peer_plugin", *suite.plugins) for word in ("-p", name)]
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "--import-mode=prepend", "-p", "no:cacheprovider"]
            + [
                "-c",
                os.devnull,
                "--rootdir",
                str(checkout),
                *plugins,
                *suite.arguments,
                *suite.files,
                *arguments,
            ],
            cwd=checkout,
            env={
                **os.environ,
                **{
                    name: value.format(bootstrap=cluster.bootstrap_servers, folder=folder)
                    for name, value in suite.environment.items()
                },
                "PYTHONPATH": os.pathsep.join(search),
                "PYTHONSAFEPATH": "1",
                BOOTSTRAP_VARIABLE: cluster.bootstrap_servers,
                TLS_VARIABLE: cluster.servers("SSL") if suite.secure else "",
                CERTIFICATES_VARIABLE: folder,
                SUITE_VARIABLE: f"{suite.client}_suite",
                OUTCOMES_VARIABLE: str(outcomes),
            },
            check=False,
        )
        # 1: tests failed. With anything else it did not get to the end of them.
        if done.returncode not in (0, 1):
            raise RuntimeError(f"the tests of {suite.client} were not run to their end: {done.returncode}")
        found: dict[str, str] = json.loads(outcomes.read_text(encoding="utf-8"))
    return found


def table(suite: Suite, found: dict[str, str]) -> str:
    """The outcomes as Markdown."""
    public = {name: outcome for name, outcome in found.items() if outcome != "private"}
    passed = sum(outcome == "passed" for outcome in public.values())
    version = suite.release or importlib.metadata.version(suite.distribution)
    lines = [
        f"{suite.distribution} {version} (`{suite.repository}`): {len(found)} tests; {len(public)} use "
        f"public API only, of which {passed} pass ({passed / max(1, len(public)):.0%}).",
        "",
        "| test | |",
        "|---|---|",
    ]
    for name, outcome in sorted(found.items()):
        entry = listed(suite.private, name)
        different = listed(suite.differs, name)
        reason = suite.private[entry] if entry else suite.differs[different] if different else None
        said = (
            "passes" if outcome == "passed" else f"cannot apply: {reason}" if outcome == "private" else reason
        )
        lines.append(f"| `{name.replace('|', chr(92) + '|')}` | {said or outcome} |")
    return "\n".join(lines)


def unexpected(suite: Suite, found: dict[str, str]) -> list[str]:
    """What is not as the description of the suite says."""
    problems = []
    for name, outcome in sorted(found.items()):
        differs = listed(suite.differs, name)
        if outcome in ("failed", "skipped") and not differs:
            problems.append(f"{name} {outcome}")
        if outcome == "passed" and differs:
            problems.append(f"{name} passes, but is listed as one that does not")
    present = {
        entry for name in found for entry in (listed(suite.private, name), listed(suite.differs, name))
    }
    problems += [
        f"{name} is listed, but there is no such test"
        for name in (*suite.private, *suite.differs)
        if name not in present
    ]
    return problems


def main() -> int:
    """The command; 1: something is not as expected."""
    parser = argparse.ArgumentParser(prog="python -m tests.compat", description=__doc__.split("\n\n")[0])
    parser.add_argument("client", choices=sorted(SUITES))
    parser.add_argument("checkout", type=Path)
    parser.add_argument("--table", type=Path, help="write the table of docs/compatibility.md to a file")
    options, arguments = parser.parse_known_args()
    suite = load(options.client)
    found = run(suite, options.checkout.resolve(), arguments)
    if options.table:
        options.table.write_text(table(suite, found) + "\n", encoding="utf-8")
    problems = unexpected(suite, found)
    for problem in problems:
        print(problem)
    counts = {kind: list(found.values()).count(kind) for kind in sorted(set(found.values()))}
    print(f"{suite.client}: {counts}")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
