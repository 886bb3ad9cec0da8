"""How far a command is, on stderr, while it works."""

from __future__ import annotations

import sys
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing_extensions import Self

_TERMINAL_INTERVAL_S = 0.2
# Into a file or the log of a CI job: few lines.
_LOG_INTERVAL_S = 5.0


@dataclass(frozen=True)
class Standing:
    """How far it is.

    Attributes:
        done: bytes of input read.
        total: bytes of input in all; None where nobody knows (stdin).
        figures: counts and rate, as text.
    """

    done: int
    total: int | None
    figures: str


class Display(ABC):
    """Shows the standing at intervals, from a thread of its own, while it is open as a context manager.

    Args:
        standing: asked for what to show; called on that thread.
    """

    interval_s = _TERMINAL_INTERVAL_S

    def __init__(self, standing: Callable[[], Standing]) -> None:
        self._standing = standing
        self._ended = threading.Event()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._tick, name="kprod-progress", daemon=True)

    @abstractmethod
    def message(self, text: str) -> None:
        """Write a line that stays. May be called from any thread."""

    @abstractmethod
    def show(self, standing: Standing) -> None:
        """Show how far it is."""

    def open(self) -> None:
        """Begin to show."""
        self._thread.start()

    def close(self) -> None:
        """Show the last standing, and nothing more."""
        self._ended.set()
        if self._thread.ident is not None:
            self._thread.join()
            self.show(self._standing())

    def _tick(self) -> None:
        while not self._ended.wait(self.interval_s):
            self.show(self._standing())

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


class NoDisplay(Display):
    """Messages only."""

    def open(self) -> None:
        """Nothing to show, so no thread."""

    def message(self, text: str) -> None:
        """Write a line."""
        with self._lock:
            sys.stderr.write(text + "\n")

    def show(self, standing: Standing) -> None:
        """Nothing."""


class LogDisplay(NoDisplay):
    """A line every few seconds, for logs."""

    interval_s = _LOG_INTERVAL_S

    def open(self) -> None:
        """Begin to show."""
        Display.open(self)

    def show(self, standing: Standing) -> None:
        """Write a line."""
        self.message(_line(standing))


class LineDisplay(Display):
    """One line on a terminal, written over and over."""

    def message(self, text: str) -> None:
        """Write a line above it."""
        with self._lock:
            sys.stderr.write(f"\r\x1b[K{text}\n")
            sys.stderr.flush()

    def show(self, standing: Standing) -> None:
        """Write over it."""
        with self._lock:
            sys.stderr.write(f"\r\x1b[K{_line(standing)}")
            sys.stderr.flush()

    def close(self) -> None:
        """Leave the last line."""
        super().close()
        sys.stderr.write("\n")
        sys.stderr.flush()


class BarDisplay(Display):
    """A bar on a terminal, by rich."""

    def __init__(self, standing: Callable[[], Standing]) -> None:
        super().__init__(standing)
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        self._bar = Progress(
            TextColumn("{task.fields[share]}", style="bold"),
            BarColumn(bar_width=30),
            TextColumn("{task.fields[figures]}", markup=False),
            TimeRemainingColumn(compact=True),
            console=Console(stderr=True, highlight=False),
            auto_refresh=False,
        )
        self._task = self._bar.add_task("", total=None, figures="", share="")

    def open(self) -> None:
        """Begin to show."""
        self._bar.start()
        super().open()

    def message(self, text: str) -> None:
        """Write a line above it."""
        self._bar.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def show(self, standing: Standing) -> None:
        """Draw it anew."""
        self._bar.update(
            self._task,
            completed=standing.done,
            total=standing.total,
            figures=standing.figures,
            share=_share(standing),
        )
        self._bar.refresh()

    def close(self) -> None:
        """Leave the last state."""
        super().close()
        self._bar.stop()


def choose_display(standing: Callable[[], Standing], wanted: bool | None) -> Display:
    """The display that fits where stderr goes.

    Args:
        standing: what it asks for how far it is.
        wanted: show progress or not; None: on a terminal only.
    """
    terminal = sys.stderr.isatty()
    if not (terminal if wanted is None else wanted):
        return NoDisplay(standing)
    if not terminal:
        return LogDisplay(standing)
    try:
        return BarDisplay(standing)
    except ImportError:
        return LineDisplay(standing)


def _line(standing: Standing) -> str:
    share = _share(standing)
    return f"{share}  {standing.figures}" if share else standing.figures


def _share(standing: Standing) -> str:
    """``" 42 %"``; nothing where nobody knows how much there is."""
    return f"{min(100, standing.done * 100 // standing.total):3d} %" if standing.total else ""
