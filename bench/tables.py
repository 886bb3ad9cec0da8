"""Figures as Markdown."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Sequence

from bench.clients import BASELINE, SPECS
from bench.measure import Measurement
from bench.runs import Comparison


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def spread(values: Sequence[float], digits: int = 0) -> str:
    """``median (lowest-highest)``."""
    if not values:
        return ""
    low, high = min(values), max(values)
    middle = f"{statistics.median(values):,.{digits}f}"
    return middle if len(values) == 1 else f"{middle} ({low:,.{digits}f}-{high:,.{digits}f})"


def middle(values: Sequence[float | None], digits: int = 0) -> str:
    """The median of those that are there, empty for none."""
    there = [value for value in values if value is not None]
    return f"{statistics.median(there):,.{digits}f}" if there else ""


def median_of(runs: Sequence[Measurement], figure: Callable[[Measurement], float]) -> float:
    """The median of one figure."""
    return statistics.median(figure(run) for run in runs)


def describe(c: Comparison) -> str:
    """The load and the target, in one sentence."""
    w = c.workload
    pace = f"{w.rate:,} records/s" if w.rate else "as fast as the client takes them"
    if w.busy:
        pace += ", another Python thread spins"
    return (
        f"{w.size:,} B, {f'{w.keys:,} keys' if w.keys else 'no key'}, codec {w.codec}, {pace}, "
        f"{c.partitions:,} partitions, acks=all, idempotent, linger {w.linger_ms} ms, "
        f"batch {w.batch_size:,} B; to {c.target_description}; {c.rounds} rounds, median (lowest-highest)"
    )


def comparison_table(c: Comparison) -> str:
    """All figures of a comparison; ratios of medians to confluent-kafka's ``produce()`` with callback."""
    baseline = c.measured.get(BASELINE)
    header = ["client", "CPU ns/record", "user", "system", "ratio", "krec/s", "ratio", "MB/s"]
    header += ["p50 ms", "p99 ms", "p99.9 ms", "peak MB"]
    if c.target == "sink":
        header += ["records/request", "wire B/record"]
    rows = []
    for name, runs in c.measured.items():
        cpu, rate = [m.cpu_ns for m in runs], [m.rate / 1e3 for m in runs]
        cells = [
            SPECS[name].description,
            spread(cpu),
            middle([m.user_ns for m in runs]),
            middle([m.system_ns for m in runs]),
            f"{statistics.median(cpu) / median_of(baseline, lambda m: m.cpu_ns):.3f}" if baseline else "",
            spread(rate),
            f"{statistics.median(rate) / median_of(baseline, lambda m: m.rate / 1e3):.2f}"
            if baseline
            else "",
            middle([m.rate * c.workload.size / 1e6 for m in runs], 1),
            middle([m.p50_ms for m in runs], 2),
            middle([m.p99_ms for m in runs], 2),
            middle([m.p999_ms for m in runs], 2),
            middle([m.peak_rss / 1e6 for m in runs]),
        ]
        if c.target == "sink":
            cells += [
                middle([m.all_records and m.requests and m.all_records / m.requests for m in runs]),
                middle([m.all_records and m.bytes_out and m.bytes_out / m.all_records for m in runs], 1),
            ]
        rows.append(cells)
    return table(header, rows)
