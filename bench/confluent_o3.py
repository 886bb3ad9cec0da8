"""confluent-kafka with its binding compiled at -O3: ``python -m bench.confluent_o3 [--header rdkafka.h]``.

The extension module in confluent-kafka's wheel is compiled without optimisation. This fetches the source
distribution of the installed version, compiles the binding with ``-O3`` and links it to the librdkafka that
came with the wheel, so that nothing else differs. The result is a copy of the package in ``build/bench``,
found by processes that have that folder first on PYTHONPATH; the installed one stays as it is.

librdkafka's header is in neither the wheel nor the source distribution: :mod:`bench.librdkafka` says where it
comes from.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
from pathlib import Path

from bench.librdkafka import bundled_library, include_folder
from bench.native import BUILD, ToolchainMissing, find_tool


def rebuilt_confluent(header: Path | None = None) -> Path:
    """The folder to put first on PYTHONPATH; built when it is not there yet.

    Args:
        header: librdkafka's ``rdkafka.h``; None: see :func:`bench.librdkafka.include_folder`.

    Raises:
        ToolchainMissing: no compiler, no header, or no bundled librdkafka on this platform.
        RuntimeError: it does not compile, or the result cannot be imported.
    """
    version = importlib.metadata.version("confluent-kafka")
    folder = BUILD / f"confluent-o3-{version}-{sysconfig.get_config_var('SOABI')}"
    if folder.is_dir():
        return folder
    spec = importlib.util.find_spec("confluent_kafka")
    assert spec is not None and spec.origin is not None
    package = Path(spec.origin).parent
    library = bundled_library()
    libs = library.parent
    compiler = find_tool("cc", "gcc", "clang")
    BUILD.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=BUILD, prefix="confluent-") as scratch_name:
        scratch = Path(scratch_name)
        sources = _fetch_sources(version, scratch)
        made = scratch / "made"
        shutil.copytree(package, made / "confluent_kafka", ignore=shutil.ignore_patterns("__pycache__"))
        (made / "confluent_kafka.libs").symlink_to(libs)
        extension = next((made / "confluent_kafka").glob("cimpl.*.so"))
        command = [compiler, "-O3", "-DNDEBUG", "-fPIC", "-shared", "-w"]
        command += [f"-I{include_folder(header)}", f"-I{sysconfig.get_paths()['include']}"]
        command += [*map(str, sorted(sources.glob("*.c"))), "-o", str(extension)]
        command += [str(library), f"-Wl,-rpath,{libs}"]
        said = subprocess.run(command, capture_output=True, text=True, check=False)
        if said.returncode:
            raise RuntimeError(f"confluent-kafka {version} at -O3: {said.stderr.strip()[-3000:]}")
        program = "import confluent_kafka; print(confluent_kafka.cimpl.__file__)"
        said = subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONPATH": str(made)},
            capture_output=True,
            text=True,
            check=False,
        )
        if said.stdout.strip() != str(extension):
            raise RuntimeError(f"the rebuilt confluent-kafka is not imported: {said.stdout}{said.stderr}")
        made.rename(folder)
    return folder


def _fetch_sources(version: str, scratch: Path) -> Path:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q", "download", "--no-deps"]
    command += ["--no-binary", ":all:", "--no-build-isolation", "-d", str(scratch)]
    said = subprocess.run(
        [*command, f"confluent-kafka=={version}"], capture_output=True, text=True, check=False
    )
    if said.returncode:
        raise ToolchainMissing(f"no source distribution of confluent-kafka {version}: {said.stderr[-500:]}")
    with tarfile.open(next(scratch.glob("*.tar.gz"))) as archive:
        archive.extractall(scratch, filter="data")
    return next(scratch.glob("confluent*/src/confluent_kafka/src"))


def main() -> int:
    """Build it and print where it is."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.confluent_o3", description=__doc__.split("\n\n")[0]
    )
    parser.add_argument(
        "--header", type=Path, help="librdkafka's rdkafka.h (default: $RDKAFKA_H, fetched, or the system's)"
    )
    try:
        print(rebuilt_confluent(parser.parse_args().header))
    except (ToolchainMissing, RuntimeError) as error:
        print(f"confluent_o3: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
