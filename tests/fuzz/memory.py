"""How much memory a stretch of code takes at its peak, as the kernel counts it."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType

_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")


class PeakMemory:
    """Measures by how much the resident memory of this process grows inside a ``with`` block, at its peak.

    On systems without Linux's /proc nothing is measured, and :attr:`added` is 0.
    """

    def __init__(self) -> None:
        self.added = 0
        """Bytes."""
        self._before = 0

    def __enter__(self) -> PeakMemory:
        if _STATUS.exists():
            _CLEAR.write_text("5")  # sets the high-water mark back
            self._before = _read("VmRSS")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if _STATUS.exists():
            self.added = _read("VmHWM") - self._before


def resident() -> int:
    """Bytes of this process that are in memory now; 0 where there is no /proc."""
    return _read("VmRSS") if _STATUS.exists() else 0


def _read(name: str) -> int:
    for line in _STATUS.read_text(encoding="ascii").splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise LookupError(name)
