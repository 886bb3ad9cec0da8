"""Runs the fuzz targets: ``make fuzz``, or

    python -m tests.fuzz.run --executions 10000000 [--seed 1] [target ...]

Each target runs in a process of its own. When one ends, by a finding or by a signal, the input that did it is
left in build/fuzz/found-<target>-<seed>; put it into tests/fuzz/corpus/<target>/ with the repair.
"""

from __future__ import annotations

import argparse
import mmap
import subprocess
import sys
import time
from pathlib import Path

from tests.fuzz.harness import ROOT, corpus, decode, load


def found(target: str, seed: int) -> Path:
    """Where the input of a finding is left; runs with other seeds may go on beside this one."""
    return ROOT / "build" / "fuzz" / f"found-{target}-{seed}"


def run_here(target: str, executions: int, seed: int) -> None:
    """Run a target in this process."""
    trace = found(target, seed)
    trace.parent.mkdir(parents=True, exist_ok=True)
    raw = trace.with_suffix(".trace")
    raw.write_bytes(bytes(4100))
    with raw.open("r+b") as file, mmap.mmap(file.fileno(), 4100) as last:
        load().run(target, corpus(target), executions, seed, memoryview(last), decode)
    raw.unlink()


def run_apart(target: str, executions: int, seed: int) -> bool:
    """Run a target in another process. Returns whether nothing was found."""
    started = time.monotonic()
    command = [
        sys.executable,
        "-m",
        "tests.fuzz.run",
        "--here",
        f"--executions={executions}",
        f"--seed={seed}",
    ]
    ended = subprocess.run([*command, target], cwd=ROOT)
    took = time.monotonic() - started
    if ended.returncode == 0:
        print(f"{target}: {executions} executions in {took:.0f} s ({executions / took:.0f}/s), nothing found")
        return True
    trace = found(target, seed)
    raw = trace.with_suffix(".trace")
    if raw.exists():
        data = raw.read_bytes()
        trace.write_bytes(data[4 : 4 + int.from_bytes(data[:4], sys.byteorder)])
    print(f"{target}: ended with {ended.returncode}; the input is in {trace.relative_to(ROOT)}")
    return False


def main() -> int:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(description="Run the fuzz targets of kprod.")
    parser.add_argument("targets", nargs="*", help="default: all")
    parser.add_argument("--executions", type=int, default=10_000_000, help="of each target")
    parser.add_argument("--seed", type=int, default=time.time_ns() % 2**32, help="same seed, same inputs")
    parser.add_argument("--here", action="store_true", help="in this process")
    arguments = parser.parse_args()
    targets = arguments.targets or list(load().TARGETS)
    if arguments.here:
        for target in targets:
            run_here(target, arguments.executions, arguments.seed)
        return 0
    print(f"seed {arguments.seed}")
    # Every one is run, whatever the others found.
    clean = [run_apart(target, arguments.executions, arguments.seed) for target in targets]
    return 0 if all(clean) else 1


if __name__ == "__main__":
    sys.exit(main())
