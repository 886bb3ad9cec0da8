"""What linger_ms, batch_size, compression_type and acks do: the curves of docs/tuning.md.

    python -m bench.tuning                     # starts a real Kafka node; results, pictures and tables
    python -m bench.tuning --repeats 3
    python -m bench.tuning --draw              # pictures and tables of the figures that are there

One option is changed at a time, the others stay as :data:`USUAL`. Each setting is measured in a process of
its own, with ``send()`` and a callback for each record: at full speed (records per second, CPU per record),
and at a rate that leaves the client mostly idle (time from ``send()`` to the callback, CPU per record without
what the pacing itself takes). Settings take turns, so that what else the machine does hits all of them.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import cycle, islice
from pathlib import Path
from typing import Any

from bench.measure import quantile
from bench.report import _COLOURS, _GREY
from bench.runs import environment, say
from bench.suite import RESULTS
from bench.tables import table
from bench.targets import KafkaTarget
from bench.workload import Workload

PARTITIONS = 4
USUAL: dict[str, Any] = {"linger_ms": 5, "batch_size": 16384, "compression_type": "none", "acks": "all"}
SWEEPS: dict[str, list[Any]] = {
    "linger_ms": [0, 1, 2, 5, 10, 20, 50, 100],
    "batch_size": [1024, 4096, 16384, 65536, 262144],
    "compression_type": ["none", "gzip", "snappy", "lz4", "zstd"],
    "acks": [0, 1, "all"],
}
_DOCS = Path(__file__).resolve().parents[1] / "docs"
_RESULT = RESULTS / "tuning.json"


def measure(asked: dict[str, Any]) -> dict[str, Any]:
    """One setting, in this process: first at full speed, then paced."""
    from kprod import KafkaProducer

    options = {name: asked[name] for name in USUAL}
    if options["acks"] != "all":
        options["enable_idempotence"] = False
    values = [v for block in Workload(records=1, warmup=1, size=asked["size"]).values for v in block]
    topic, latencies, failed = asked["topic"], [], []
    producer = KafkaProducer(bootstrap_servers=asked["bootstrap"], **options)

    def delivered(since: float, error: Exception | None, metadata: object) -> None:
        latencies.append(time.perf_counter() - since)
        if error is not None:
            failed.append(str(error))

    def report(error: Exception | None, metadata: object) -> None:
        if error is not None:
            failed.append(str(error))

    for value in islice(cycle(values), asked["records"] // 5):
        producer.send(topic, value, on_delivery=report)
    producer.flush()
    cpu, began = time.process_time(), time.perf_counter()
    for value in islice(cycle(values), asked["records"]):
        producer.send(topic, value, on_delivery=report)
    producer.flush()
    elapsed, cpu = time.perf_counter() - began, time.process_time() - cpu

    rate, paced = asked["rate"], asked["rate"] * asked["paced_seconds"]
    pacing_cpu = time.process_time()
    for _ in _paced(values, rate, paced):
        pass
    pacing_cpu = time.process_time() - pacing_cpu
    paced_cpu = time.process_time()
    for value in _paced(values, rate, paced):
        producer.send(topic, value, on_delivery=partial(delivered, time.perf_counter()))
    producer.flush()
    paced_cpu = time.process_time() - paced_cpu - pacing_cpu
    producer.close()
    if failed:
        raise SystemExit(f"{len(failed)} records failed: {failed[0]}")
    latencies.sort()
    return {
        "rate": asked["records"] / elapsed,
        "cpu_ns": cpu / asked["records"] * 1e9,
        "paced_cpu_ns": paced_cpu / paced * 1e9,
        "p50_ms": quantile(latencies, 0.5) * 1e3,
        "p99_ms": quantile(latencies, 0.99) * 1e3,
        "sent": asked["records"] + asked["records"] // 5 + paced,
    }


def _paced(values: list[bytes], rate: int, count: int) -> Iterator[bytes]:
    """So many values at a rate, in a burst for each millisecond."""
    burst = max(1, rate // 1000)
    began = time.perf_counter()
    for number, value in enumerate(islice(cycle(values), count)):
        if number % burst == 0:
            wait = began + number / rate - time.perf_counter()
            if wait > 0:
                time.sleep(wait)
        yield value


def run_all(options: argparse.Namespace) -> dict[str, Any]:
    """Measure every setting so many times, in turn."""
    about = environment(["python", "-m", "bench.tuning", *sys.argv[1:]])
    found: dict[str, dict[str, list[dict[str, Any]]]] = {o: {} for o in SWEEPS}
    with KafkaTarget(options.bootstrap, PARTITIONS) as target:
        for number in range(options.repeats):
            for option, settings in SWEEPS.items():
                for setting in settings:
                    say(f"{number + 1}/{options.repeats} {option}={setting}")
                    with target.topic("tuning") as topic:
                        asked = {
                            **USUAL,
                            option: setting,
                            "bootstrap": target.bootstrap,
                            "topic": topic,
                            "records": options.records,
                            "rate": options.rate,
                            "paced_seconds": options.paced_seconds,
                            "size": options.size,
                        }
                        said = subprocess.run(
                            [sys.executable, "-m", "bench.tuning", "--one", json.dumps(asked)],
                            stdout=subprocess.PIPE,
                            check=True,
                            text=True,
                        )
                        measured = json.loads(said.stdout.splitlines()[-1])
                        held = target.records_in(topic)
                        if held != measured["sent"] and asked["acks"] != 0:
                            raise SystemExit(f"sent {measured['sent']} records, {held} have arrived")
                    found[option].setdefault(str(setting), []).append(measured)
        description = target.description
    return {
        "environment": about,
        "target": description,
        "usual": USUAL,
        "partitions": PARTITIONS,
        "records": options.records,
        "rate": options.rate,
        "size": options.size,
        "repeats": options.repeats,
        "measured": found,
    }


def _middle(runs: list[dict[str, Any]], figure: str) -> float:
    return statistics.median(run[figure] for run in runs)


def draw(told: dict[str, Any]) -> None:
    """One picture for each option, of the median over the repeats, without a background."""
    import matplotlib

    matplotlib.use("svg")
    import matplotlib.pyplot as plt

    grey = ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color")
    style = {**dict.fromkeys(grey, _GREY), "svg.hashsalt": "kprod", "svg.fonttype": "none", "font.size": 11}
    panels: list[tuple[str, float, list[tuple[str, str, str]]]] = [
        ("thousand records/s, full speed", 1e-3, [("rate", "", "kprod")]),
        ("CPU us/record", 1e-3, [("cpu_ns", "full speed", "kprod"), ("paced_cpu_ns", "paced", "confluent")]),
        ("ms to the callback, paced", 1, [("p50_ms", "median", "kprod"), ("p99_ms", "99 %", "confluent")]),
    ]
    for option, by_setting in told["measured"].items():
        with plt.rc_context({**style, "font.family": "sans-serif"}):
            figure, axes = plt.subplots(1, 3, figsize=(10.5, 3.1), layout="constrained")
            for axis, (title, scale, lines) in zip(axes, panels, strict=True):
                for name, label, colour in lines:
                    heights = [_middle(runs, name) * scale for runs in by_setting.values()]
                    axis.plot(range(len(heights)), heights, "o-", ms=4, color=_COLOURS[colour], label=label)
                axis.set_title(title, fontsize=11)
                axis.set_xticks(range(len(by_setting)), list(by_setting), fontsize=9)
                axis.set_xlabel(option)
                axis.set_ylim(bottom=0)
                axis.grid(True, color=_GREY, alpha=0.25, linewidth=0.6)
                axis.spines[["top", "right"]].set_visible(False)
                if len(lines) > 1:
                    axis.legend(frameon=False, fontsize=9)
            figure.savefig(_DOCS / f"tuning-{option}.svg", transparent=True, metadata={"Date": None})
            plt.close(figure)


def tables(told: dict[str, Any]) -> dict[str, str]:
    """The figures of each option as a table, and where they come from."""
    about = told["environment"]
    load = about["load_before"]
    made = {
        "origin": (
            f"`{about['command']}` on {about['date'][:10]}: {about['cpus']} CPUs ({about['cpu']}), shared by "
            f"the client and {told['target']}; Python {about['python']}; {told['records']:,} records of "
            f"{told['size']} B at full speed, then {told['rate']:,} a second; {told['partitions']} "
            f"partitions, no keys; {told['repeats']} run(s) of each setting; load average {load} before"
            + (
                "."
                if load <= 0.5
                else ": **other programs used the CPUs too, which hides most differences.**"
            )
        )
    }
    for option, by_setting in told["measured"].items():
        rows = [
            (
                f"`{setting}`",
                f"{_middle(runs, 'rate'):,.0f}",
                f"{_middle(runs, 'cpu_ns') / 1e3:.2f}",
                f"{_middle(runs, 'paced_cpu_ns') / 1e3:.1f}",
                f"{_middle(runs, 'p50_ms'):.1f}",
                f"{_middle(runs, 'p99_ms'):.1f}",
            )
            for setting, runs in by_setting.items()
        ]
        head = ("records/s", "CPU us/record", "CPU us/record, paced", "p50 ms, paced", "p99 ms, paced")
        made[option] = table((f"`{option}`", *head), rows)
    return made


def write_page(told: dict[str, Any]) -> None:
    """Put the tables into docs/tuning.md, between its markers."""
    page = _DOCS / "tuning.md"
    text = page.read_text(encoding="utf-8")
    for name, made in tables(told).items():
        begin, end = f"<!-- figures: {name} -->", "<!-- /figures -->"
        before, _, rest = text.partition(begin)
        after = rest.partition(end)[2]
        text = f"{before}{begin}\n\n{made}\n\n{end}{after}"
    page.write_text(text, encoding="utf-8")


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, write and draw."""
    parser = argparse.ArgumentParser(prog="python -m bench.tuning", description=__doc__.split("\n\n")[0])
    parser.add_argument("--bootstrap", help="a cluster that is there; otherwise one node is started")
    parser.add_argument("--records", type=int, default=300_000, help="at full speed")
    parser.add_argument("--rate", type=int, default=2000, help="records per second when paced")
    parser.add_argument("--paced-seconds", type=int, default=4)
    parser.add_argument("--size", type=int, default=200, help="bytes of each value")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--draw", action="store_true", help="measure nothing")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if options.one:
        print(json.dumps(measure(json.loads(options.one))))
        return 0
    if not options.draw:
        told = run_all(options)
        _RESULT.write_text(json.dumps(told, indent=1) + "\n")
    told = json.loads(_RESULT.read_text())
    draw(told)
    write_page(told)
    return 0


if __name__ == "__main__":
    sys.exit(main())
