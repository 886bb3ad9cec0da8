"""Numbers as people read them."""

from __future__ import annotations

_UNITS = ("B", "KB", "MB", "GB", "TB")


def count(number: int, noun: str | None = None) -> str:
    """``12,345``; with a noun ``1 record`` or ``12,345 records``."""
    text = f"{number:,}"
    if noun is None:
        return text
    return f"{text} {noun}" if number == 1 else f"{text} {noun}s"


def size(number: float) -> str:
    """Bytes in decimal units: ``999 B``, ``1.2 KB``, ``34.5 MB``."""
    for unit in _UNITS:
        if abs(number) < 999.95 or unit == _UNITS[-1]:
            break
        number /= 1000
    return f"{number:.0f} {unit}" if unit == "B" else f"{number:.1f} {unit}"


def rate(number: float, seconds: float) -> str:
    """So many in so many seconds, per second: ``123,456/s``."""
    return f"{number / seconds:,.0f}/s" if seconds > 0 else "-"


def duration(seconds: float) -> str:
    """``0.52 s``, ``12.3 s``, ``3 min 04 s``, ``2 h 05 min``."""
    if seconds < 9.995:
        return f"{seconds:.2f} s"
    if seconds < 99.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def milliseconds(number: float) -> str:
    """``0.42 ms``, ``12.3 ms``, ``1,234 ms``."""
    return f"{number:.2f} ms" if number < 10 else f"{number:.1f} ms" if number < 100 else f"{number:,.0f} ms"
