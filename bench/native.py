"""Programs of the benchmarks in C and Go, compiled when they are first needed and kept in ``build/bench``."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

BUILD = Path(__file__).resolve().parents[1] / "build" / "bench"


class ToolchainMissing(Exception):
    """Something that a benchmark is built with is not there; the text says what, and what to install."""


def find_tool(*names: str) -> str:
    """The path of the first of these programs that is on PATH.

    Raises:
        ToolchainMissing: none is.
    """
    for name in names:
        found = shutil.which(name)
        if found is not None:
            return found
    raise ToolchainMissing(f"no {' or '.join(names)} on PATH: install one, or leave out what needs it")


def compiled(source: Path, *flags: str, libraries: Sequence[str] = ()) -> Path:
    """The program made of one C file with ``-O2``; made anew when the source or the flags have changed.

    Raises:
        ToolchainMissing: there is no C compiler.
        RuntimeError: it does not compile; the compiler's words are in the message.
    """
    compiler = find_tool(*([os.environ["CC"]] if os.environ.get("CC") else []), "cc", "gcc", "clang")
    command = [compiler, "-O2", *flags, str(source), *libraries]
    stamp = hashlib.sha256(source.read_bytes() + repr(command).encode()).hexdigest()[:12]
    program = BUILD / f"{source.stem}-{stamp}"
    if not program.exists():
        BUILD.mkdir(parents=True, exist_ok=True)
        # Under another name first: a second benchmark may want the same program at the same time.
        made = program.with_suffix(f".{os.getpid()}")
        said = subprocess.run([*command, "-o", str(made)], capture_output=True, text=True, check=False)
        if said.returncode:
            raise RuntimeError(f"{' '.join(command)}:\n{said.stderr.strip()[-4000:]}")
        made.rename(program)
    return program


def compiled_go(folder: Path) -> Path:
    """The program made of a folder with a Go module; made anew when a file or the compiler has changed.

    The modules it needs come through Go's module proxy, in the versions of ``go.sum``.

    Raises:
        ToolchainMissing: there is no Go.
        RuntimeError: it does not compile, or the modules cannot be had; Go's words are in the message.
    """
    go = find_tool("go")
    # Without the state of the repository in it, which is not always one.
    command = [go, "build", "-buildvcs=false", "-trimpath"]
    stamped = hashlib.sha256(repr(command).encode())
    stamped.update(subprocess.run([go, "version"], capture_output=True, check=False).stdout)
    for source in sorted(folder.iterdir()):
        stamped.update(source.read_bytes())
    program = BUILD / f"{folder.name}-{stamped.hexdigest()[:12]}"
    if not program.exists():
        BUILD.mkdir(parents=True, exist_ok=True)
        made = program.with_suffix(f".{os.getpid()}")
        said = subprocess.run(
            [*command, "-o", str(made), "."], cwd=folder, capture_output=True, text=True, check=False
        )
        if said.returncode:
            raise RuntimeError(f"{' '.join(command)} in {folder}:\n{said.stderr.strip()[-4000:]}")
        made.rename(program)
    return program
