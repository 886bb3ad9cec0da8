"""Tables and pictures of docs/performance.md from the files in ``bench/results``: ``python -m bench.report``.

Each part of the page between ``<!-- figures: NAME -->`` and ``<!-- /figures -->`` is written anew from the
file it needs; a part whose file is not there stays as it is. Measuring is done by bench.suite, bench.latency,
bench.scale, bench.busy and bench.threads.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from bench import busy, scale, threads
from bench.clients import SPECS
from bench.latency import round_trip_table
from bench.measure import QUANTILES, Measurement
from bench.runs import Comparison
from bench.suite import RESULTS
from bench.tables import comparison_table, describe, median_of

_DOCS = Path(__file__).resolve().parents[1] / "docs"
_PAGE = _DOCS / "performance.md"
_PART = re.compile(r"(<!-- figures: (\w+) -->\n).*?(<!-- /figures -->)", re.DOTALL)
# Of middling lightness, so that both a white and a black page show them; text and axes are grey.
_COLOURS = {
    "kprod": "#d1495b",
    "kprod-many": "#e5a03a",
    "kprod-columns": "#8f6bd1",
    "confluent": "#3f83c5",
    "confluent-o3": "#58a6a6",
    "aiokafka": "#6aa84f",
    "librdkafka": "#5a64b8",
    "franz-go": "#c46b8f",
    "java": "#9a7b4f",
    "kafka-python": "#b06fa8",
    "socket": "#888888",
}
_GREY = "#888888"


def _load(name: str) -> dict[str, Any]:
    told: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text())
    return told


def _origin(about: dict[str, Any]) -> str:
    packages = ", ".join(f"{name} {version}" for name, version in about["packages"].items())
    return (
        f"`{about['command']}` on {about['date'][:10]}: {about['cpus']} CPUs ({about['cpu']}), load average "
        f"{about['load_before']} before, Python {about['python']}; {packages}."
    )


def _comparisons(told: dict[str, Any], target: str) -> list[Comparison]:
    return [c for c in map(Comparison.from_dict, told["comparisons"]) if c.target == target]


def _compared(target: str) -> str:
    told = _load("suite")
    parts = [f"{describe(c)}:\n\n{comparison_table(c)}" for c in _comparisons(told, target)]
    return "\n\n".join([_origin(told["environment"]), *parts])


def _latency() -> str:
    told = _load("latency")
    parts = [
        _origin(told["environment"]),
        f"One record of 100 B at a time, linger 0, acks=1, to {told['target']}; median over the rounds "
        f"(lowest-highest):\n\n{round_trip_table(told['one_at_a_time'])}",
    ]
    parts += [
        f"{describe(c)}:\n\n{comparison_table(c)}" for c in map(Comparison.from_dict, told["comparisons"])
    ]
    return "\n\n".join(parts)


def _scale() -> str:
    told = _load("scale")
    return f"{_origin(told['environment'])}\n\n{scale.report(told)}"


def _busy() -> str:
    told = _load("busy")
    return f"{_origin(told['environment'])} To {told['target']}.\n\n{busy.report(told)}"


def _threads() -> str:
    told = _load("threads")
    return f"{_origin(told['environment'])}\n\n{threads.report(told)}"


_PARTS: dict[str, Callable[[], str]] = {
    "sink": lambda: _compared("sink"),
    "kafka": lambda: _compared("kafka"),
    "latency": _latency,
    "scale": _scale,
    "busy": _busy,
    "threads": _threads,
}


def write_page() -> list[str]:
    """Write the figures into docs/performance.md; returns the names of the parts that have none."""
    missing = []

    def part(found: re.Match[str]) -> str:
        try:
            return f"{found[1]}\n{_PARTS[found[2]]()}\n\n{found[3]}"
        except FileNotFoundError:
            missing.append(found[2])
            return found[0]

    _PAGE.write_text(_PART.sub(part, _PAGE.read_text()))
    return missing


def _plot(path: Path, draw: Callable[[Any], None], size: tuple[float, float] = (7.2, 4.2)) -> None:
    """A picture without a background: that of the page shows through."""
    import matplotlib

    matplotlib.use("svg")
    import matplotlib.pyplot as plt

    style = {
        **dict.fromkeys(
            ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), _GREY
        ),
        "svg.hashsalt": "kprod",
        "svg.fonttype": "none",
        "font.family": "sans-serif",
        "font.size": 11,
    }
    with plt.rc_context(style):
        figure, axes = plt.subplots(figsize=size, layout="constrained")
        draw(axes)
        axes.grid(True, which="major", color=_GREY, alpha=0.25, linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
        # Two columns: three of such names are wider than the picture.
        figure.legend(frameon=False, fontsize=9, loc="outside lower center", ncols=2)
        figure.savefig(path, transparent=True, metadata={"Date": None})
        plt.close(figure)


def _by_size(figure: Callable[[Measurement], float], label: str) -> Callable[[Any], None]:
    plain: dict[int, Comparison] = {}
    for c in _comparisons(_load("suite"), "sink"):
        if not c.workload.keys and c.workload.codec == "none":
            plain[c.workload.size] = c
    sizes = sorted(plain)

    def draw(axes: Any) -> None:
        for name, colour in _COLOURS.items():
            at = [s for s in sizes if name in plain[s].measured]
            if len(at) > 1:
                values = [median_of(plain[s].measured[name], figure) for s in at]
                axes.plot(at, values, marker="o", markersize=4, color=colour, label=_short(name))
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xlabel("bytes per record")
        axes.set_ylabel(label)

    return draw


def _short(name: str) -> str:
    return SPECS[name].description.replace("`", "").split(" + ")[0] if name in SPECS else "bare socket"


def _latency_distribution(axes: Any) -> None:
    for name, runs in _load("latency")["one_at_a_time"].items():
        values = [
            statistics.median(column) for column in zip(*(run["quantiles"] for run in runs), strict=True)
        ]
        label = "bare socket" if name == "socket" else name
        axes.plot([1 / (1 - q) for q in QUANTILES], values, color=_COLOURS[name], label=label)
    marks = {2: "50", 10: "90", 100: "99", 1000: "99.9", 10_000: "99.99"}
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xticks(list(marks), list(marks.values()))
    axes.set_xlabel("percentile")
    axes.set_ylabel("us until the acknowledgement")


def write_pictures() -> list[str]:
    """Draw the pictures that docs/performance.md shows; returns the names of those without figures."""
    pictures: dict[str, Callable[[], Callable[[Any], None]]] = {
        "throughput": lambda: _by_size(lambda m: m.rate * 1e-3, "thousand records per second"),
        "cpu": lambda: _by_size(lambda m: m.cpu_ns, "client CPU ns per record"),
        "latency": lambda: _latency_distribution,
    }
    missing = []
    for name, made in pictures.items():
        try:
            _plot(_DOCS / f"performance-{name}.svg", made())
        except FileNotFoundError:
            missing.append(name)
    return missing


def main(argv: Sequence[str] | None = None) -> int:
    """Write the page and the pictures."""
    argparse.ArgumentParser(prog="python -m bench.report", description=__doc__.split("\n\n")[0]).parse_args(
        argv
    )
    for name in write_page():
        print(f"{_PAGE.name}: no figures for '{name}' in {RESULTS}: the part stays as it is", file=sys.stderr)
    for name in write_pictures():
        print(f"performance-{name}.svg: no figures in {RESULTS}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
