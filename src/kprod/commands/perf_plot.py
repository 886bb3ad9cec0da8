"""The picture of ``kprod perf --plot``. Needs matplotlib."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, StrMethodFormatter

from kprod.commands import figures
from kprod.commands.exit_status import CommandError
from kprod.commands.perf_measurement import PERCENTILES, Point, Result

# More points than this are drawn as so many: a picture has no more room.
_MOST_POINTS = 400
_COLOURS = ("#2a9d8f", "#8ab17d", "#e9a03b", "#e76f51")
_MAX_COLOUR = "#9d4edd"
_THROUGHPUT_COLOUR = "#287bb5"


def check_path(path: str) -> None:
    """See whether a picture can be written there.

    Raises:
        CommandError: its suffix is of no format of pictures, or its folder does not exist.
    """
    formats = FigureCanvasAgg.get_supported_filetypes()
    suffix = Path(path).suffix.lstrip(".").lower()
    if suffix not in formats:
        raise CommandError(f"--plot {path}: the name must end in one of .{', .'.join(sorted(formats))}")
    if not Path(path).resolve().parent.is_dir():
        raise CommandError(f"--plot {path}: there is no folder {Path(path).resolve().parent}")


def draw(path: str, result: Result, setup: str) -> None:
    """Write the picture of a result.

    Args:
        path: of the file; the suffix decides the format.
        result: what to draw.
        setup: what was measured, in a sentence; it becomes the subtitle.

    Raises:
        CommandError: the file cannot be written.
    """
    points = _thinned(result.points)
    figure = Figure(figsize=(11, 7), layout="constrained")
    latency, throughput = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
    figure.suptitle(
        f"{figures.count(result.acked)} records acknowledged, {figures.rate(result.acked, result.seconds)}",
        fontsize=14,
        fontweight="bold",
    )
    latency.set_title(setup, fontsize=8, color="#555555", wrap=True)
    _draw_latency(latency, points, result)
    _draw_throughput(throughput, points, result)
    for axes in (latency, throughput):
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    try:
        figure.savefig(path, dpi=120)
    except OSError as error:
        raise CommandError(f"--plot {path} cannot be written: {error.strerror or error}") from None


def _draw_latency(axes: Any, points: Sequence[Point], result: Result) -> None:
    timed = [point for point in points if point.latency_ms]
    times = [point.end_s - point.seconds / 2 for point in timed]
    marker = "o" if len(timed) < 60 else None
    for name, colour in zip(PERCENTILES, _COLOURS, strict=True):
        label = (
            f"p{name}: {figures.milliseconds(result.latency_ms[name])}" if result.latency_ms else f"p{name}"
        )
        values = [point.latency_ms[name] for point in timed]
        axes.plot(times, values, color=colour, linewidth=1.8, marker=marker, markersize=3, label=label)
    label = "max" if result.max_ms is None else f"max: {figures.milliseconds(result.max_ms)}"
    axes.plot(
        times, [point.max_ms for point in timed], color=_MAX_COLOUR, linewidth=0.8, linestyle=":", label=label
    )
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.yaxis.set_minor_formatter(FuncFormatter(_minor_label))
    axes.tick_params(axis="y", which="minor", labelsize=7)
    axes.set_ylabel("latency in ms")
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False, title="of all records")


def _minor_label(value: float, position: int) -> str:
    """Labels between the powers of ten where there is room for them: at 2 and 5."""
    digit = f"{value:e}"[0]
    return f"{value:g}" if digit in "25" else ""


def _draw_throughput(axes: Any, points: Sequence[Point], result: Result) -> None:
    starts = [point.end_s - point.seconds for point in points]
    heights = [point.acked / point.seconds for point in points]
    widths = [point.seconds for point in points]
    axes.bar(starts, heights, widths, align="edge", color=_THROUGHPUT_COLOUR, alpha=0.75, linewidth=0)
    mean = result.acked / result.seconds
    axes.axhline(mean, color="#333333", linewidth=1, linestyle="--", label=f"mean: {mean:,.0f}")
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    axes.set_ylabel("records per second")
    axes.set_xlabel("seconds")
    axes.set_xlim(0, result.seconds)
    axes.set_ylim(bottom=0)
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)


def _thinned(points: Sequence[Point]) -> list[Point]:
    """At most so many points. Of neighbours the worst percentiles stay: a picture must not hide a peak."""
    # The last one can be a sliver of time, whose rate would be off all bounds.
    points = _without_slivers(points)
    step = -(-len(points) // _MOST_POINTS)
    return [_merged(points[i : i + step]) for i in range(0, len(points), step)] if step > 1 else list(points)


def _without_slivers(points: Sequence[Point]) -> Sequence[Point]:
    if len(points) > 1 and points[-1].seconds < points[0].seconds / 2:
        return [*points[:-2], _merged(points[-2:])]
    return points


def _merged(points: Sequence[Point]) -> Point:
    timed = [point for point in points if point.latency_ms]
    return Point(
        end_s=points[-1].end_s,
        seconds=sum(point.seconds for point in points),
        acked=sum(point.acked for point in points),
        latency_ms={name: max(point.latency_ms[name] for point in timed) for name in PERCENTILES}
        if timed
        else {},
        max_ms=max((point.max_ms for point in timed if point.max_ms is not None), default=None),
    )
