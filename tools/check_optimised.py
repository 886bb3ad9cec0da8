"""Release check: the extension modules that ship were really compiled with optimisation.

    python tools/check_optimised.py dist/*.whl           the modules in wheels
    python tools/check_optimised.py path/to/module.so    single modules
    python tools/check_optimised.py --installed          the modules this interpreter imports, and their speed

Two kinds of evidence. GCC and Clang record the compiler's command line in the module (in its debug
information, or by -frecord-gcc-switches): the last -O of every command must be -O2 or -O3. MSVC records
nothing, and a Mach-O module need not carry it; there the speed decides: murmur2, a loop of shifts and
multiplications, against the MD5 of this interpreter, which comes optimised from somebody else.

Exits with 1 and a line per module that fails.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import re
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

# Compiled as -O3, murmur2 is about five times as fast as MD5; as -O0 about twice (x86-64, GCC 12).
LEAST_RATIO = 3.0

SUFFIXES = (".so", ".pyd", ".dylib")

# A recorded command line has one of the flags that setup.py gives in every build.
_COMMAND_LINE = re.compile(rb"[\x20-\x7e]*-fvisibility=hidden[\x20-\x7e]*")
_LEVEL = re.compile(rb"(?<!\S)-O(\S*)")


def recorded_levels(module: bytes) -> list[str]:
    """The optimisation level of every compiler run that is recorded in a module: '3', '0', ...

    A run without any -O counts as '0', which is the compilers' default.
    """
    levels = []
    for command in _COMMAND_LINE.findall(module):
        given = _LEVEL.findall(command)
        levels.append((given[-1].decode() or "1") if given else "0")
    return levels


def fault_of(module: bytes) -> str | None:
    """What is wrong with a module; None if every recorded compiler run optimised, '' if none is recorded."""
    levels = recorded_levels(module)
    if not levels:
        return ""
    weak = sorted({level for level in levels if level not in ("2", "3", "fast")})
    return f"compiled with -O{', -O'.join(weak)}" if weak else None


def modules_in(path: Path) -> Iterator[tuple[str, bytes]]:
    """Name and content of the extension modules of a wheel, of a folder, or of the one that the path is."""
    if path.suffix == ".whl":
        with zipfile.ZipFile(path) as wheel:
            for name in wheel.namelist():
                if name.endswith(SUFFIXES) and name.startswith("kprod/"):
                    yield f"{path.name}: {name}", wheel.read(name)
    elif path.is_dir():
        for file in sorted(path.rglob("*")):
            if file.suffix in SUFFIXES:
                yield str(file), file.read_bytes()
    else:
        yield str(path), path.read_bytes()


def speed_ratio(hashed: Callable[[bytes], object]) -> float:
    """How many times as fast as MD5 a hash function is, on 64 KiB."""
    data = bytes(range(256)) * 256

    def fastest(function: Callable[[bytes], object]) -> float:
        best = float("inf")
        for _ in range(30):
            start = time.perf_counter()
            for _ in range(10):
                function(data)
            best = min(best, time.perf_counter() - start)
        return best

    return fastest(lambda block: hashlib.md5(block, usedforsecurity=False).digest()) / fastest(hashed)


def check(path: Path, silent_is_a_fault: bool) -> list[str]:
    """Faults of all modules in a path, one line each."""
    faults = []
    seen = 0
    for name, module in modules_in(path):
        seen += 1
        fault = fault_of(module)
        if fault == "" and not silent_is_a_fault:
            continue
        if fault is not None:
            faults.append(f"{name}: {fault or 'no compiler command line is recorded in it'}")
    if not seen:
        faults.append(f"{path}: there is no extension module in it")
    return faults


def check_installed() -> list[str]:
    """Faults of the modules that this interpreter would import."""
    found = importlib.util.find_spec("kprod._core")
    if found is None or not found.submodule_search_locations:
        return ["kprod is not installed for this interpreter"]
    # Where command lines are not recorded, the speed stands in for them.
    faults = check(Path(found.submodule_search_locations[0]), silent_is_a_fault=sys.platform == "linux")
    from kprod._core.murmur2 import murmur2

    ratio = speed_ratio(murmur2)
    print(f"murmur2 is {ratio:.1f} times as fast as MD5")
    if ratio < LEAST_RATIO:
        faults.append(f"murmur2 is {ratio:.1f} times as fast as MD5, less than {LEAST_RATIO}: not optimised")
    return faults


def main(arguments: list[str]) -> int:
    """Run the check; returns the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--installed", action="store_true", help="the modules this interpreter would import")
    parser.add_argument("paths", nargs="*", type=Path, help="wheels, modules or folders with modules")
    given = parser.parse_args(arguments)
    if not given.paths and not given.installed:
        parser.error("give --installed, or at least one path")
    faults = check_installed() if given.installed else []
    for path in given.paths:
        records_nothing = any(tag in path.name for tag in ("-macosx", "-win", ".pyd", ".dylib"))
        faults += check(path, silent_is_a_fault=not records_nothing)
    for fault in faults:
        print(f"not optimised? {fault}", file=sys.stderr)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
