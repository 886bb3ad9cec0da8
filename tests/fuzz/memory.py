"""How much memory a stretch of code takes at its peak, as the kernel or AddressSanitizer counts it."""

from __future__ import annotations

import ctypes
import sys
import threading
from pathlib import Path
from types import TracebackType

_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")
_SAMPLE_EVERY = 0.002  # seconds

# Windows has no name for the process as a whole, and no sanitizer.
_PROCESS = None if sys.platform == "win32" else ctypes.CDLL(None)
_allocated = getattr(_PROCESS, "__sanitizer_get_current_allocated_bytes", None)
if _allocated is not None:
    _allocated.restype = ctypes.c_size_t

SLOWNESS = 1 if _allocated is None else 6
"""How many times longer code may take here than elsewhere: a factor for options that are limits of time."""


class PeakMemory:
    """Measures by how much the resident memory of this process grows inside a ``with`` block, at its peak.

    On systems without Linux's /proc nothing is measured, and :attr:`added` is 0. Under AddressSanitizer,
    which keeps freed memory and shadows all of it, what is allocated is sampled instead.
    """

    def __init__(self) -> None:
        self.added = 0
        """Bytes."""
        self._before = 0
        self._peak = 0
        self._ended = threading.Event()
        self._sampler: threading.Thread | None = None

    def __enter__(self) -> PeakMemory:
        if _allocated is not None:
            self._before = self._peak = _allocated()
            self._sampler = threading.Thread(target=self._sample, name="memory-sampler", daemon=True)
            self._sampler.start()
        elif _STATUS.exists():
            _CLEAR.write_text("5")  # sets the high-water mark back
            self._before = _read("VmRSS")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._sampler is not None:
            self._ended.set()
            self._sampler.join()
            self.added = self._peak - self._before
        elif _STATUS.exists():
            self.added = _read("VmHWM") - self._before

    def _sample(self) -> None:
        assert _allocated is not None
        while True:
            self._peak = max(self._peak, _allocated())
            if self._ended.wait(_SAMPLE_EVERY):
                return


def resident() -> int:
    """Bytes of this process that are in memory now; 0 where there is no /proc."""
    return _read("VmRSS") if _STATUS.exists() else 0


def _read(name: str) -> int:
    for line in _STATUS.read_text(encoding="ascii").splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise LookupError(name)
