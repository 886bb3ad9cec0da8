"""A busy application: ``python -m bench.busy``.

One record at a time (linger 0, acks=1) with an idle process, and while another Python thread of it spins and
gives up the GIL only when the interpreter makes it, every 5 ms. What the waiting thread sees then has a turn
of the spinning thread in it; what kprod's network thread takes from the opening of a batch to the broker's
answer must not. A record every 5 ms also finds halted CPUs and cold caches where records that follow each
other do not: how much that is, an idle process shows that pauses for as long between its records.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.latency import one_at_a_time, warmed_up
from bench.round_trips import DESCRIPTION
from bench.runs import environment
from bench.suite import RESULTS
from bench.tables import spread, table
from bench.targets import KafkaTarget, SinkTarget

STATES = ("idle", "paced", "busy")
_CLIENTS = ("kprod", "confluent", "kafka-python", "socket")


def report(told: dict[str, Any]) -> str:
    """What the caller sees idle and busy, and what the engine does."""
    rows = []
    for name, idle in told["idle"].items():
        busy = told["busy"][name]
        cells = [DESCRIPTION[name]]
        for runs in (idle, busy):
            cells += [spread([run[figure] / 1e3 for run in runs], 2) for figure in ("p50", "p99")]
        rows.append(cells)
    text = table(["client", "idle: p50 ms", "p99 ms", "busy: p50 ms", "p99 ms"], rows)
    engine = {state: [run["engine"] for run in told[state]["kprod"] if run["engine"]] for state in STATES}
    idle, paced, busy = (statistics.median(engine[state]) for state in STATES)
    return (
        f"{text}\n\nkprod's engine, from the opening of a batch to its acknowledgement, "
        + f"mean of a round in us: with a thread that spins {spread(engine['busy'])}; "
        + f"idle, a record every 5 ms like there, {spread(engine['paced'])} "
        + f"(busy: {busy / paced:.2f} times that); "
        + f"idle, one record after the other, {spread(engine['idle'])} (busy: {busy / idle:.2f} times)."
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print what the command line asks for."""
    parser = argparse.ArgumentParser(prog="python -m bench.busy", description=__doc__.split("\n\n")[0])
    parser.add_argument("--target", choices=("kafka", "sink"), default="kafka", help="(default kafka)")
    parser.add_argument("--bootstrap", help="a running cluster (default: start one broker of Apache Kafka)")
    parser.add_argument("--rounds", type=int, default=5, help="(default 5)")
    parser.add_argument("--count", type=int, default=1000, help="records of a measurement (default 1000)")
    parser.add_argument("--seconds", type=float, default=4.0, help="a measurement's limit (default 4)")
    parser.add_argument("--quick", action="store_true", help="two rounds, one second each")
    parser.add_argument("--json", type=Path, default=RESULTS / "busy.json", help="(default %(default)s)")
    options = parser.parse_args(argv)
    if options.quick:
        options.rounds, options.seconds = 2, 1.0
    told: dict[str, Any] = {
        "environment": environment(["python", "-m", "bench.busy", *(sys.argv[1:] if argv is None else argv)])
    }
    target = SinkTarget(1) if options.target == "sink" else KafkaTarget(options.bootstrap, 1)
    with target:
        names = warmed_up(target, _CLIENTS, 3 * options.count)
        told["target"] = target.description
        for state in STATES:
            told[state] = {}
        for _ in range(options.rounds):
            for state in STATES:
                clients = ["kprod"] if state == "paced" else names
                pause_s = sys.getswitchinterval() if state == "paced" else 0.0
                found = one_at_a_time(
                    target, clients, 1, options.count,
                    busy=state == "busy", pause_s=pause_s, seconds=options.seconds,
                )  # fmt: skip
                for name, runs in found.items():
                    told[state].setdefault(name, []).extend(runs)
    print(f"One record of 100 B at a time, linger 0, acks=1, to {told['target']}\n\n{report(told)}")
    options.json.write_text(json.dumps(told, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
