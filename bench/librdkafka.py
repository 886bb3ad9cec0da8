"""librdkafka without Python, in the build that came with confluent-kafka: ``python -m bench.librdkafka``.

The wheel of confluent-kafka has the library but not its header, and neither has the source distribution. The
header is the one that ``--header`` or $RDKAFKA_H names, else it is fetched from librdkafka's repository, else
it is the system's; it is kept in ``build/bench``. That of an earlier release does as long as it declares what
is used, which the compiler tells: the library's ABI only grows.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import urllib.request
from pathlib import Path

from bench.native import BUILD, ToolchainMissing, compiled

_LOOP = Path(__file__).with_name("c") / "produce_loop.c"
_HEADER_URL = "https://raw.githubusercontent.com/confluentinc/librdkafka/v{version}/src/rdkafka.h"
_VERSION_MACRO = re.compile(r"^#define RD_KAFKA_VERSION .*$", re.MULTILINE)


def bundled_library() -> Path:
    """The librdkafka of the installed confluent-kafka.

    Raises:
        ToolchainMissing: there is none, or it is not where wheels for Linux have it.
    """
    spec = importlib.util.find_spec("confluent_kafka")
    if spec is None or spec.origin is None:
        raise ToolchainMissing("no package confluent_kafka")
    libs = Path(spec.origin).parent.parent / "confluent_kafka.libs"
    library = next(iter(libs.glob("librdkafka*.so*")), None)
    if library is None:
        raise ToolchainMissing(f"no librdkafka in {libs}: it takes a wheel for Linux")
    return library


def _bundled_version() -> str:
    if importlib.util.find_spec("confluent_kafka") is None:
        raise ToolchainMissing("no package confluent_kafka")
    version: str = importlib.import_module("confluent_kafka").libversion()[0]
    return version


def include_folder(given: Path | None = None) -> Path:
    """A folder with ``librdkafka/rdkafka.h``, for ``-I``.

    Args:
        given: the header; None: $RDKAFKA_H, what an earlier call has kept, the repository, the system.

    Raises:
        ToolchainMissing: none of these has one, or no confluent-kafka.
    """
    version = _bundled_version()
    folder = BUILD / f"librdkafka-{version}"
    header = folder / "librdkafka" / "rdkafka.h"
    given = given or (Path(os.environ["RDKAFKA_H"]) if os.environ.get("RDKAFKA_H") else None)
    if given is None and header.exists():
        return folder
    try:
        text = given.read_text() if given is not None else _found_header(version)
    except OSError as error:
        raise ToolchainMissing(f"no rdkafka.h: {error}") from error
    number = "0x" + "".join(f"{int(part):02x}" for part in version.split(".")[:3]) + "ff"
    text = _VERSION_MACRO.sub(f"#define RD_KAFKA_VERSION {number}", text)
    header.parent.mkdir(parents=True, exist_ok=True)
    made = header.with_suffix(f".{os.getpid()}")
    made.write_text(text)
    made.rename(header)
    return folder


def _found_header(version: str) -> str:
    url = _HEADER_URL.format(version=version)
    try:
        with urllib.request.urlopen(url, timeout=20) as answer:
            text: str = answer.read().decode()
            return text
    except OSError as error:
        system = _system_header()
        if system is not None:
            return system.read_text()
        raise ToolchainMissing(
            f"no rdkafka.h: {url}: {error}; name a copy with --header or $RDKAFKA_H"
        ) from error


def _system_header() -> Path | None:
    if shutil.which("pkg-config") is None:
        return None
    command = ["pkg-config", "--variable=includedir", "rdkafka"]
    said = subprocess.run(command, capture_output=True, text=True, check=False)
    header = Path(said.stdout.strip()) / "librdkafka" / "rdkafka.h"
    return header if said.returncode == 0 and header.is_file() else None


def compiled_loop(header: Path | None = None) -> Path:
    """``bench/c/produce_loop.c`` as a program; made when it is not there yet.

    Raises:
        ToolchainMissing: no compiler, no header, or no bundled librdkafka on this platform.
        RuntimeError: it does not compile.
    """
    library = bundled_library()
    flags = ["-O3", "-Wall", "-Wextra", f"-I{include_folder(header)}"]
    return compiled(_LOOP, *flags, libraries=[str(library), f"-Wl,-rpath,{library.parent}"])


def main() -> int:
    """Build it and print where it is."""
    parser = argparse.ArgumentParser(prog="python -m bench.librdkafka", description=__doc__.split("\n\n")[0])
    parser.add_argument(
        "--header", type=Path, help="librdkafka's rdkafka.h (default: $RDKAFKA_H, fetched, or the system's)"
    )
    try:
        print(compiled_loop(parser.parse_args().header))
    except (ToolchainMissing, RuntimeError) as error:
        print(f"librdkafka: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
