"""Threads that send at once: ``python -m bench.threads --python python3.14t``.

Records per second to the sink over the number of threads, for each way of sending, in this interpreter and in
others, for instance one without the GIL. Each must have kprod installed; confluent-kafka is measured where it
is there. Fresh processes, interleaved, several rounds. Nothing is pinned: threads, network thread and sink
share the CPUs.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.runs import environment, say
from bench.suite import RESULTS
from bench.tables import spread, table
from bench.targets import SinkTarget
from bench.thread_worker import WAYS

_PROJECT = Path(__file__).resolve().parents[1]
_PARTITIONS = 6
_POINTS = [("kprod", way) for way in WAYS] + [("confluent", "no key")]


def _run(python: str, client: str, way: str, threads: int, records: int) -> dict[str, Any]:
    with SinkTarget(_PARTITIONS) as target:
        request = {
            "client": client, "way": way, "bootstrap": target.bootstrap, "threads": threads,
            "records": records if client == "kprod" else records // 4,
        }  # fmt: skip
        said = subprocess.run(
            [python, "-m", "bench.thread_worker"],
            input=json.dumps(request), capture_output=True, text=True, check=False, cwd=_PROJECT, timeout=600,
        )  # fmt: skip
        if said.returncode:
            raise RuntimeError(f"{python}, {client}: {said.stderr.strip()[-1000:]}")
        found: dict[str, Any] = json.loads(said.stdout.splitlines()[-1])
        arrived = target.sink.stats().records
    if arrived != found.pop("sent"):
        raise RuntimeError(f"{python}, {client}: {arrived} records have arrived")
    return found


def _has(python: str, module: str) -> bool:
    return (
        subprocess.run([python, "-c", f"import {module}"], capture_output=True, check=False).returncode == 0
    )


def report(told: dict[str, Any]) -> str:
    """A row for each interpreter, client and way."""
    counts = told["threads"]
    header = ["Python", "client", "way", *(f"{n} thread{'s' * (n > 1)}: krec/s" for n in counts)]
    header += [f"ns/record, {n}" for n in (counts[0], counts[-1])]
    rows = []
    for point in told["points"]:
        by_count = [point["runs"][str(n)] for n in counts]
        name = point["python"] + ("" if point["gil"] else ", no GIL")
        rows.append(
            [name, point["client"], point["way"]]
            + [spread([run["rate"] / 1e3 for run in runs]) for runs in by_count]
            + [spread([run["cpu_ns"] for run in runs]) for runs in (by_count[0], by_count[-1])]
        )
    return table(header, rows)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print what the command line asks for."""
    parser = argparse.ArgumentParser(prog="python -m bench.threads", description=__doc__.split("\n\n")[0])
    parser.add_argument(
        "--python", action="append", default=[], help="one more interpreter that has kprod (may be repeated)"
    )
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2, 4], help="(default 1 2 4)")
    parser.add_argument(
        "--records", type=int, default=4_000_000, help="of a measurement (default %(default)s)"
    )
    parser.add_argument("--rounds", type=int, default=3, help="(default 3)")
    parser.add_argument("--quick", action="store_true", help="one round, a quarter of the records")
    parser.add_argument("--json", type=Path, default=RESULTS / "threads.json", help="(default %(default)s)")
    options = parser.parse_args(argv)
    if options.quick:
        options.rounds, options.records = 1, options.records // 4
    told: dict[str, Any] = {
        "environment": environment(
            ["python", "-m", "bench.threads", *(sys.argv[1:] if argv is None else argv)]
        ),
        "threads": options.threads,
        "points": [],
    }
    pythons = [sys.executable, *options.python]
    for python in pythons:
        for client, way in _POINTS:
            if client == "kprod" or _has(python, "confluent_kafka"):
                told["points"].append({"path": python, "client": client, "way": way, "runs": {}})
    for number in range(options.rounds):
        for point in told["points"] if number % 2 == 0 else reversed(told["points"]):
            for count in options.threads:
                found = _run(point["path"], point["client"], point["way"], count, options.records)
                point["python"], point["gil"] = found.pop("python"), found.pop("gil")
                point["runs"].setdefault(str(count), []).append(found)
                say(f"{point['python']} {point['client']}, {point['way']}, {count}: {found['rate']:,.0f}/s")
    for point in told["points"]:
        del point["path"]
    print(report(told))
    options.json.write_text(json.dumps(told, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
