"""All loads, all clients, both targets: ``python -m bench.suite``, which is ``make bench``.

Writes ``bench/results/suite.json``; ``python -m bench.report`` makes the tables and pictures of
docs/performance.md from it and from what bench.latency, bench.scale and bench.busy write.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from bench.clients import BASELINE
from bench.compare import BROKER_WARMUP
from bench.runs import Bench, compare, environment, runnable, say
from bench.tables import comparison_table, describe
from bench.targets import KafkaTarget, SinkTarget
from bench.workload import Workload

RESULTS = Path(__file__).with_name("results")
PARTITIONS = 6
SIZES = (10, 100, 1000, 10_000, 100_000, 1_000_000)

_KPROD = ("kprod", "kprod-future", "kprod-nowait", "kprod-many", "kprod-columns")
_CONFLUENT = ("confluent", "confluent-batch", "confluent-o3", "confluent-o3-batch")
_NATIVE = ("librdkafka", "franz-go")
_OTHERS = ("kafka-python", "aiokafka", *_NATIVE, "java", "java-perf")
_ALL = (*_KPROD, *_CONFLUENT, *_OTHERS)
# By record size: those that a picture has room for.
_BY_SIZE = ("kprod", "kprod-many", "kprod-columns", "confluent", "confluent-o3", "aiokafka", *_NATIVE, "java")
# On a real broker: each way once, the broker has the second core.
_ON_KAFKA = ("kprod", "kprod-many", "confluent", "confluent-o3", "confluent-batch", *_NATIVE, "java")


def loads(records: int) -> dict[str, list[tuple[Workload, tuple[str, ...]]]]:
    """What is measured against each target, and by which clients."""
    plain = Workload(records, records // 5)
    main = (*_KPROD, *_CONFLUENT, *_NATIVE)
    sink = [
        (plain, _ALL),
        (replace(plain, codec="lz4"), main),
        (replace(plain, keys=100_000), (*main, "java")),
        (replace(plain, keys=100_000, codec="lz4"), main),
    ]
    for size in SIZES:
        if size != 100:
            count = max(400, min(records, records * 300 // size))
            sized = Workload(count, max(1, count // 5), size=size)
            sink.append((sized, tuple(dict.fromkeys((*main, *_BY_SIZE))) if size == 1000 else _BY_SIZE))
    kafka = [
        (plain, (*_ON_KAFKA, "kprod-columns", "kafka-python", "aiokafka")),
        (replace(plain, codec="lz4"), _ON_KAFKA),
        (Workload(records // 3, records // 15, size=1000), _ON_KAFKA),
    ]
    return {"sink": sink, "kafka": kafka}


def main(argv: Sequence[str] | None = None) -> int:
    """Measure everything; 1 if a client failed."""
    parser = argparse.ArgumentParser(prog="python -m bench.suite", description=__doc__.split("\n\n")[0])
    parser.add_argument("--quick", action="store_true", help="one round, fewer records: under 3 minutes")
    parser.add_argument("--rounds", type=int, help="(default 3)")
    parser.add_argument("--records", type=int, help="of 100 B (default 500000)")
    parser.add_argument("--targets", nargs="+", choices=("sink", "kafka"), default=("sink", "kafka"))
    parser.add_argument("--json", type=Path, default=RESULTS / "suite.json", help="(default %(default)s)")
    options = parser.parse_args(argv)
    rounds = options.rounds or (1 if options.quick else 3)
    records = options.records or (100_000 if options.quick else 500_000)
    about = environment(["python", "-m", "bench.suite", *(sys.argv[1:] if argv is None else argv)])
    report: dict[str, Any] = {"environment": about, "comparisons": []}
    complete = True
    for name, chosen in loads(records).items():
        if name not in options.targets:
            continue
        target = SinkTarget(PARTITIONS) if name == "sink" else KafkaTarget(None, PARTITIONS)
        with target:
            bench = Bench(target)
            if name == "kafka":
                bench.run(BASELINE, BROKER_WARMUP)
            for workload, clients in chosen:
                names = runnable(clients, workload)
                keyed = f"{workload.keys} keys" if workload.keys else "no key"
                say(f"-- {name}: {workload.size} B, {keyed}, {workload.codec}")
                found = compare(bench, names, workload, PARTITIONS, rounds)
                report["comparisons"].append(found.as_dict())
                print(f"{describe(found)}\n\n{comparison_table(found)}\n", flush=True)
                complete = complete and all(len(found.measured.get(n, ())) == rounds for n in names)
                options.json.write_text(json.dumps(report, indent=1) + "\n")
    return 0 if complete else 1


if __name__ == "__main__":
    sys.exit(main())
