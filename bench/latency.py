"""How long a record takes: ``python -m bench.latency``.

Two questions. One record at a time (linger 0, acks=1): how long until the caller has the acknowledgement,
next to a loop that only writes a request to a socket and reads the answer. And at a rate, in one burst every
millisecond: from ``send()`` to the delivery report of every record. Fresh processes, interleaved, several
rounds; quantiles are medians over the rounds.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from bench.clients import missing
from bench.compare import BROKER_WARMUP
from bench.measure import QUANTILES, quantile
from bench.round_trips import CLIENTS, DESCRIPTION
from bench.runs import Bench, compare, environment, run_worker, runnable, say
from bench.suite import RESULTS
from bench.tables import comparison_table, describe, spread, table
from bench.targets import KafkaTarget, SinkTarget, Target
from bench.workload import Workload

_SIZE = 100
_LOADED = ("kprod", "confluent", "aiokafka", "kafka-python", "librdkafka", "franz-go", "java")
# Before anything is measured under load the broker gets the small requests of linger 0 for so long: whoever
# comes first would otherwise be measured while its JIT compiles, with a p99 twice as high.
_BROKER_WARM_S = 10
_FIGURES = {"p50": 0.5, "p99": 0.99, "p99.9": 0.999}


def warmed_up(target: Target, clients: Sequence[str], count: int) -> list[str]:
    """Which of the clients can be run, after a round of ``count`` records of each that does not count.

    The broker's JIT compiles the way of large requests before it, and that of small ones in it.
    """
    Bench(target).run("confluent", BROKER_WARMUP)
    names = available_round_trips(clients)
    one_at_a_time(target, names, 1, count)
    return names


def one_at_a_time(
    target: Target,
    names: Sequence[str],
    rounds: int,
    count: int,
    *,
    busy: bool = False,
    pause_s: float = 0.0,
    seconds: float = 20.0,
) -> dict[str, list[dict[str, Any]]]:
    """Round trips of each client: quantiles of each round in us.

    Args:
        target: with topics of one partition.
        names: of :data:`bench.round_trips.CLIENTS`.
        rounds: measurements of each.
        count: records of each measurement.
        busy: another Python thread of the process spins.
        pause_s: between an acknowledgement and the next record.
        seconds: a measurement ends after these, too.
    """
    found: dict[str, list[dict[str, Any]]] = {}
    for round_number in range(rounds):
        turn = round_number % len(names)
        for name in (*names[turn:], *names[:turn]):
            with target.topic(name) as topic:
                line = run_worker(
                    "bench.round_trips", name, bootstrap=target.bootstrap, topic=topic, count=count,
                    seconds=seconds, size=_SIZE, busy=busy, pause_s=pause_s,
                    cpus=sorted(target.client_cpus or ()),
                )  # fmt: skip
            told = json.loads(line)
            ordered = sorted(told["latencies_us"])
            run = {
                **{figure: quantile(ordered, q) for figure, q in _FIGURES.items()},
                "max": ordered[-1],
                "count": len(ordered),
                "engine": told["engine_us"],
                "cpu": told["cpu_us"],
                "quantiles": [quantile(ordered, q) for q in QUANTILES],
            }
            found.setdefault(name, []).append(run)
            say(
                f"round {round_number + 1}: {name:13} p50 {run['p50']:8,.0f} us  p99 {run['p99']:8,.0f} us  "
                f"cpu {run['cpu']:6,.0f} us" + (f"  engine {run['engine']:6,.0f} us" if run["engine"] else "")
            )
    return {name: found[name] for name in names}


def round_trip_table(found: dict[str, list[dict[str, Any]]]) -> str:
    """Medians over the rounds, and the ratio to the bare socket's."""
    floor = found.get("socket")
    rows = []
    for name, runs in found.items():
        cells = [DESCRIPTION[name]]
        for figure in _FIGURES:
            values = [run[figure] for run in runs]
            cells.append(spread(values))
            if floor and figure != "p99.9":
                cells.append(
                    f"{statistics.median(values) / statistics.median(run[figure] for run in floor):.2f}"
                )
        cells.append(spread([run["cpu"] for run in runs]))
        rows.append(cells)
    header = ["client", "p50 us", "p99 us", "p99.9 us", "CPU us/record"]
    if floor:
        header = ["client", "p50 us", "to socket", "p99 us", "to socket", "p99.9 us", "CPU us/record"]
    return table(header, rows)


def available_round_trips(names: Sequence[str]) -> list[str]:
    """Those of these clients that are installed."""
    named = {"socket": "kprod"}
    wanted = [name for name in names if missing(named.get(name, name)) is None]
    if "confluent-o3" in wanted and not runnable(["confluent-o3"], Workload(1, 1)):
        wanted.remove("confluent-o3")
    return wanted


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print what the command line asks for; 1 if a client failed."""
    parser = argparse.ArgumentParser(prog="python -m bench.latency", description=__doc__.split("\n\n")[0])
    parser.add_argument("--target", choices=("kafka", "sink"), default="kafka", help="(default kafka)")
    parser.add_argument("--bootstrap", help="a running cluster (default: start one broker of Apache Kafka)")
    parser.add_argument("--clients", nargs="+", choices=CLIENTS, default=CLIENTS, metavar="NAME",
                        help=f"one at a time, of: {', '.join(CLIENTS)} (default: all)")  # fmt: skip
    parser.add_argument("--rounds", type=int, default=5, help="(default 5)")
    parser.add_argument("--count", type=int, default=3000, help="records one at a time (default 3000)")
    parser.add_argument("--rate", type=int, default=50_000, help="records/s under load, 0: no load part "
                        "(default 50000)")  # fmt: skip
    parser.add_argument("--loaded", nargs="+", default=_LOADED, metavar="NAME",
                        help=f"under load, of bench.compare's (default {' '.join(_LOADED)})")  # fmt: skip
    parser.add_argument("--linger-ms", nargs="+", type=int, default=[0, 5], help="under load (default 0 5)")
    parser.add_argument("--seconds", type=int, default=5, help="under load (default 5)")
    parser.add_argument("--quick", action="store_true", help="two rounds, fewer records: under 90 s")
    parser.add_argument("--json", type=Path, default=RESULTS / "latency.json", help="(default %(default)s)")
    options = parser.parse_args(argv)
    if options.quick:
        options.rounds, options.count, options.seconds = 2, 1000, 3
    about = environment(["python", "-m", "bench.latency", *(sys.argv[1:] if argv is None else argv)])
    ok = True

    def chosen(partitions: int) -> KafkaTarget | SinkTarget:
        if options.target == "sink":
            return SinkTarget(partitions)
        return KafkaTarget(options.bootstrap, partitions)

    report: dict[str, Any] = {"environment": about, "comparisons": []}
    with chosen(1) as target:
        names = warmed_up(target, options.clients, options.count)
        found = one_at_a_time(target, names, options.rounds, options.count)
        report["target"] = target.description
        report["one_at_a_time"] = found
        title = f"One record of {_SIZE} B at a time, linger 0, acks=1, to {target.description}"
        print(f"{title}; {options.rounds} rounds\n\n{round_trip_table(found)}\n", flush=True)
    if options.rate:
        with chosen(6) as target:
            bench = Bench(target)
            bench.run("confluent", BROKER_WARMUP)
            load = Workload(
                records=options.rate * options.seconds,
                warmup=50_000,
                size=_SIZE,
                linger_ms=0,
                rate=options.rate,
            )
            bench.run("confluent", replace(load, records=options.rate * _BROKER_WARM_S))
            for linger_ms in options.linger_ms:
                load = replace(load, linger_ms=linger_ms)
                names = runnable(options.loaded, load)
                compared = compare(bench, names, load, 6, options.rounds)
                report["comparisons"].append(compared.as_dict())
                print(f"{describe(compared)}\n\n{comparison_table(compared)}\n", flush=True)
                ok = ok and len(compared.measured) == len(names)
    options.json.write_text(json.dumps(report, indent=1) + "\n")
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main())
