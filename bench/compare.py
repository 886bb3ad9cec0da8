"""kprod and its peers under one load, side by side: ``python -m bench.compare``.

Every client gets the same records with the same settings (acks=all, idempotence, linger, batch size), a fresh
process and a fresh topic in every round; the clients take turns, in another order each round. A measurement
counts only if every record was reported delivered and as many have arrived. The figures are medians over the
rounds with the lowest and highest beside them; per record means per acknowledged record.

A broker of Apache Kafka runs on the same machine: rates are those of the pair, CPU times are the client's
alone. ``--target sink`` takes the broker out, see :mod:`bench.sink`. ``python -m bench.suite`` does all the
loads whose figures are published.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from bench.clients import BASELINE, CLIENTS
from bench.runs import Bench, compare, environment, runnable
from bench.tables import comparison_table, describe
from bench.targets import KafkaTarget, SinkTarget
from bench.workload import CODECS, Workload

BROKER_WARMUP = Workload(records=200_000, warmup=1)
_PACED_SECONDS = 10


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.compare", description=__doc__.split("\n\n")[0])
    parser.add_argument("--clients", nargs="+", choices=CLIENTS, default=list(CLIENTS), metavar="NAME",
                        help=f"of: {', '.join(CLIENTS)} (default: all)")  # fmt: skip
    parser.add_argument("--rounds", type=int, default=3, help="measurements of each client (default 3)")
    parser.add_argument("--records", type=int, help="measured records, times each client's share of them "
                        "(default 1000000; 10 s with --rate)")  # fmt: skip
    parser.add_argument("--warmup", type=int, default=200_000, help="records before those (default 200000)")
    parser.add_argument("--size", type=int, default=100, help="bytes of a value (default 100)")
    parser.add_argument("--keys", type=int, default=0, help="distinct keys (default 0: no keys)")
    parser.add_argument("--codec", choices=CODECS, default="none", help="compression type (default none)")
    parser.add_argument("--partitions", type=int, default=6, help="of the topic (default 6)")
    parser.add_argument("--linger-ms", type=int, default=5, help="(default 5)")
    parser.add_argument("--batch-size", type=int, default=65536, help="bytes (default 65536)")
    parser.add_argument("--rate", type=int, default=0, help="records per second (default 0: no limit)")
    parser.add_argument("--busy", action="store_true", help="another Python thread of the client spins")
    parser.add_argument("--target", choices=("kafka", "sink"), default="kafka", help="(default kafka)")
    parser.add_argument("--brokers", type=int, default=1, help="of the sink (default 1)")
    parser.add_argument("--bootstrap", help="a running cluster (default: start one broker of Apache Kafka)")
    parser.add_argument("--json", type=Path, help="write every measurement to this file")
    parser.add_argument("--keep-topics", action="store_true", help="leave the records in the cluster")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the comparison that the command line asks for; 1 if a client failed."""
    options = _arguments(argv)
    workload = Workload(
        records=options.records or (options.rate * _PACED_SECONDS if options.rate else 1_000_000),
        warmup=options.warmup,
        size=options.size,
        keys=options.keys,
        codec=options.codec,
        linger_ms=options.linger_ms,
        batch_size=options.batch_size,
        rate=options.rate,
        busy=options.busy,
    )
    names = runnable(options.clients, workload)
    about = environment(["python", "-m", "bench.compare", *(sys.argv[1:] if argv is None else argv)])
    if options.target == "sink":
        target: KafkaTarget | SinkTarget = SinkTarget(options.partitions, options.brokers)
    else:
        target = KafkaTarget(options.bootstrap, options.partitions, options.keep_topics)
    with target:
        bench = Bench(target)
        if target.name == "kafka":
            bench.run(BASELINE, BROKER_WARMUP)
        found = compare(bench, names, workload, options.partitions, options.rounds)
    print(
        f"{describe(found)}; {about['cpus']} CPUs, {about['cpu']}; Python {about['python']}\n\n"
        + comparison_table(found)
    )
    if options.json:
        report = {"environment": about, "comparisons": [found.as_dict()]}
        options.json.write_text(json.dumps(report, indent=1) + "\n")
    return 0 if all(len(found.measured.get(name, ())) == options.rounds for name in names) else 1


if __name__ == "__main__":
    sys.exit(main())
