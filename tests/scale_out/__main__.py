"""Write a data frame by two workers, some of which are killed: ``python -m tests.scale_out spark dask``.

For each engine an environment is made (in build/frameworks, and kept). Workers die with all rows of a
partition acknowledged and nothing committed, and just after a commit; a task raises an exception. An
independent consumer reads the committed records: every row must be there once. That the engine did try again,
and that rows of attempts that failed are in the topic, aborted, is checked as well; then all is written a
second time under the same job id, which must write nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import kprod
from tests.frameworks.__main__ import ENVIRONMENTS, Framework, environment_for, version_of
from tests.kafka.cluster import KafkaCluster
from tests.kafka.readers import stream_confluent
from tests.scale_out import sabotage

HERE = Path(__file__).resolve().parent
PARTITIONS = 6
ENGINES = {
    "spark": Framework(
        ["pyspark>=4", "pandas", "pyarrow"], ["pyspark", "pyarrow"], [str(HERE / "with_spark.py")], ends=True
    ),
    "dask": Framework(
        ["dask[dataframe,distributed]"],
        ["dask", "distributed", "pandas"],
        [str(HERE / "with_dask.py")],
        ends=True,
    ),
}


def run(name: str, engine: Framework, folder: Path, cluster: KafkaCluster, rows: int) -> str:
    """Run one engine; returns what was found, in words.

    Raises:
        RuntimeError: a row is missing or there twice, or nothing went wrong on the way.
    """
    python = environment_for(name, engine, folder)
    topic = cluster.create_topic(f"rows-{name}", 3)
    with tempfile.TemporaryDirectory() as scratch:
        search = (HERE.parent.parent, Path(kprod.__file__).parent.parent)
        begun = time.monotonic()
        said = subprocess.run(
            [str(python), *engine.command],
            cwd=scratch,
            env={
                **os.environ,
                "PYTHONPATH": os.pathsep.join(map(str, search)),
                "KAFKA_BOOTSTRAP_SERVERS": cluster.bootstrap_servers,
                "TOPIC": topic,
                "ROWS": str(rows),
                "PARTITIONS": str(PARTITIONS),
                "FOLDER": scratch,
                # Spark's processes find each other by the name of the machine otherwise.
                "SPARK_LOCAL_IP": "127.0.0.1",
                "PYSPARK_PYTHON": str(python),
            },
            capture_output=True,
            text=True,
            check=False,
            timeout=600,
        )
        took = time.monotonic() - begun
        if said.returncode:
            told = [line for line in said.stderr.splitlines() if not line.startswith("\tat ")]
            raise RuntimeError("\n".join([f"exit status {said.returncode}", *told[:60], "...", *told[-20:]]))
        result = json.loads(said.stdout.splitlines()[-1])
        attempts = Counter(map(int, Path(scratch, "attempts").read_text(encoding="utf-8").split()))
    committed = read(cluster, topic, "read_committed")
    every = read(cluster, topic, "read_uncommitted")
    expected = Counter({f"row {number}": 1 for number in range(rows)})
    if committed != expected:
        missing, extra = expected - committed, committed - expected
        raise RuntimeError(f"{missing.total()} rows are missing, {extra.total()} are there too often")
    each = rows // PARTITIONS
    if result["again"] != [[number, each, False] for number in range(PARTITIONS)]:
        raise RuntimeError(f"the second run under the same job id says {result['again']}")
    by_a_later_attempt = [number for number, _, wrote in result["first"] if not wrote]
    if not set(by_a_later_attempt) >= sabotage.AFTER_COMMIT:
        raise RuntimeError(f"no attempt met a partition that was committed: {result['first']}")
    aborted = every.total() - committed.total()
    least = each * len(sabotage.BEFORE_COMMIT | sabotage.FAILS)
    if aborted < least:
        raise RuntimeError(f"{aborted} rows were aborted, not {least} or more: were workers killed at all?")
    # Each partition was asked for once more by the second run.
    tried = sum(attempts.values()) - PARTITIONS
    versions = ", ".join(f"{part} {version_of(python, part)}" for part in engine.versions)
    return (
        f"{name}: {versions}: {rows} rows in {PARTITIONS} partitions, {tried} attempts, "
        f"{aborted} rows aborted, partitions {by_a_later_attempt} found committed; each row is there once; "
        f"the second run wrote nothing; {took:.1f} s in all"
    )


def read(cluster: KafkaCluster, topic: str, isolation: str) -> Counter[str]:
    """How often each row is in the topic."""
    found: Counter[str] = Counter()
    for batch in stream_confluent(cluster.bootstrap_servers, topic, isolation=isolation):
        found.update((message.value() or b"").decode() for message in batch)
    return found


def main() -> int:
    """The command; 1: an engine did not pass."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.scale_out", description=(__doc__ or "").split("\n\n")[0]
    )
    parser.add_argument("name", nargs="+", choices=[*ENGINES, "all"])
    parser.add_argument("--rows", type=int, default=600_000, help="a multiple of 6 (default: 600000)")
    parser.add_argument("--environments", type=Path, default=ENVIRONMENTS, help="where environments are made")
    arguments = parser.parse_args()
    names = list(ENGINES) if "all" in arguments.name else arguments.name
    failed = 0
    with KafkaCluster(1) as cluster:
        for name in names:
            try:
                print(run(name, ENGINES[name], arguments.environments, cluster, arguments.rows), flush=True)
            except Exception as error:
                failed = 1
                print(f"{name}: {type(error).__name__}: {error}", flush=True)
    return failed


if __name__ == "__main__":
    sys.exit(main())
