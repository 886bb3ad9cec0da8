"""Builds the fuzz targets in native.pyx against the core, and gives them their inputs."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import subprocess
import sys
import sysconfig
import threading
from pathlib import Path
from types import ModuleType
from typing import Any

from kprod.protocol import APIS, ProtocolError, decode_response
from kprod.protocol.checks import check_response

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
CORPUS = HERE / "corpus"
SANITIZE = os.environ.get("KPROD_SANITIZE") == "1"

_LOCK = threading.Lock()
_CASES = [
    (api, version)
    for _, api in sorted(APIS.items())
    for version in range(api.versions[0], api.versions[1] + 1)
]
"""Every response there is; an input of the target ``protocol`` begins with a number from this list."""

_BUILD = """
import sys
from Cython.Build import cythonize
from setuptools import Distribution, Extension
source, root, folder, flags = sys.argv[1:5]
flags = flags.split()
extension = Extension(
    "native", [source], include_dirs=[f"{root}/src/kprod/_core/csrc"],
    extra_compile_args=["-std=c11", "-O2", "-g1", *flags], extra_link_args=flags,
)
modules = cythonize(
    [extension], include_path=[f"{root}/src"], build_dir=folder, quiet=True,
    compiler_directives={
        "language_level": "3str", "boundscheck": False, "wraparound": False, "cdivision": True,
        "freethreading_compatible": True,
    },
)
command = Distribution({"ext_modules": modules}).get_command_obj("build_ext")
command.build_lib = command.build_temp = folder
command.ensure_finalized()
command.run()
"""


def case_number(name: str, version: int) -> int:
    """The number that stands for a response in inputs of the target ``protocol``."""
    return next(i for i, (api, v) in enumerate(_CASES) if (api.name, v) == (name, version))


def decode(data: bytes) -> None:
    """The target ``protocol``: the first two bytes say which response the rest is taken for.

    Raises whatever a decoder must not raise.
    """
    api, version = _CASES[int.from_bytes(data[:2], "big") % len(_CASES)]
    try:
        _, body = decode_response(api, version, data[2:])
        check_response(api, _REQUESTS.get(api.name, {}), body)
    except ProtocolError:
        pass


_REQUESTS: dict[str, dict[str, Any]] = {
    "Metadata": {"topics": [{"name": "t"}]},
    "FindCoordinator": {"key": "tx", "key_type": 1, "coordinator_keys": ["tx"]},
    "AddPartitionsToTxn": {"topics": [{"name": "t", "partitions": [0, 1]}]},
    "TxnOffsetCommit": {"topics": [{"name": "t", "partitions": [{"partition_index": 0}]}]},
}


def corpus(target: str) -> list[bytes]:
    """The inputs that are kept for a target, in the order of their names."""
    found = [path.read_bytes() for path in sorted((CORPUS / target).iterdir())]
    assert found, f"no inputs for {target} in {CORPUS}"
    return found


def load() -> ModuleType:
    """The module of native.pyx, built if it is not there yet."""
    import kprod._core

    source = HERE / "native.pyx"
    suffix = sysconfig.get_config_var("EXT_SUFFIX")
    digest = hashlib.sha256(source.read_bytes())
    core = Path(kprod._core.__file__).parent
    for path in sorted((*(ROOT / "src/kprod/_core").glob("*.pxd"), core / f"produce{suffix}")):
        digest.update(path.read_bytes())
    digest.update(str(SANITIZE).encode())
    folder = ROOT / "build" / "fuzz" / digest.hexdigest()[:16]
    built = folder / f"native{suffix}"
    with _LOCK:
        if not built.exists():
            folder.mkdir(parents=True, exist_ok=True)
            flags = "-fsanitize=address,undefined -fno-sanitize-recover=undefined" if SANITIZE else ""
            subprocess.run(
                [sys.executable, "-c", _BUILD, str(source), str(ROOT), str(folder), flags],
                check=True,
                env={name: value for name, value in os.environ.items() if name != "LD_PRELOAD"},
            )
    spec = importlib.util.spec_from_file_location("native", built)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
