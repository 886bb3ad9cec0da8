"""Extension modules of kprod; everything else about the package is in pyproject.toml.

Environment switches:
    KPROD_DEBUG=1     bounds checks and assertions back on, no optimisation
    KPROD_SANITIZE=1  AddressSanitizer and UndefinedBehaviorSanitizer
    KPROD_WERROR=1    C warnings are errors
    KPROD_ONLY=a,b    build these modules of the core only
"""

import os
import sys
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup

CORE = Path("src/kprod/_core")
DEBUG = os.environ.get("KPROD_DEBUG") == "1"
SANITIZE = os.environ.get("KPROD_SANITIZE") == "1"
WERROR = os.environ.get("KPROD_WERROR") == "1"
ONLY = os.environ.get("KPROD_ONLY", "").split(",") if os.environ.get("KPROD_ONLY") else None

# Extra C sources of an extension; every .pyx under _core is an extension of its own.
C_SOURCES = {
    "crc32c": ["kp_crc32c.c"],
}


def compile_flags() -> list[str]:
    """Flags are stated here in full, so that an environment's CFLAGS cannot
    leave the shipped extension without optimisation (setuptools lets CFLAGS
    replace the interpreter's own)."""
    if sys.platform == "win32":
        return ["/Od" if DEBUG else "/O2", "/std:c11", "/experimental:c11atomics"]
    flags = ["-std=c11", "-fvisibility=hidden", "-fno-strict-aliasing", "-pthread", "-Wall", "-Wextra"]
    # Cython's own generated code trips these.
    flags += ["-Wno-unused-parameter", "-Wno-missing-field-initializers", "-Wno-unused-function",
              "-Wno-cast-function-type", "-Wno-sign-compare"]
    if DEBUG:
        flags += ["-O0", "-g3", "-UNDEBUG"]
    else:
        flags += ["-O3", "-g1", "-DNDEBUG"]
    if SANITIZE:
        flags += ["-fsanitize=address,undefined", "-fno-omit-frame-pointer", "-g3"]
    if WERROR:
        flags.append("-Werror")
    return flags


def link_flags() -> list[str]:
    if sys.platform == "win32":
        return []
    return ["-pthread"] + (["-fsanitize=address,undefined"] if SANITIZE else [])


def extensions() -> list[Extension]:
    depends = [str(p) for p in (*CORE.glob("*.p*[di]"), *(CORE / "csrc").glob("*.[ch]"))]
    return [
        Extension(
            f"kprod._core.{pyx.stem}",
            [str(pyx), *(str(CORE / "csrc" / c) for c in C_SOURCES.get(pyx.stem, ()))],
            include_dirs=[str(CORE / "csrc")],
            depends=depends,
            define_macros=[("Py_GIL_DISABLED", "1")] if sys.platform == "win32" and not getattr(sys, "_is_gil_enabled", lambda: True)() else [],
            extra_compile_args=compile_flags(),
            extra_link_args=link_flags(),
            libraries=["ws2_32"] if sys.platform == "win32" else [],
        )
        for pyx in sorted(CORE.glob("*.pyx"))
        if ONLY is None or pyx.stem in ONLY
    ]


setup(
    ext_modules=cythonize(
        extensions(),
        nthreads=0 if sys.platform == "win32" else os.cpu_count() or 1,
        include_path=["src"],
        compiler_directives={
            "language_level": "3str",
            "boundscheck": DEBUG,
            "wraparound": False,
            "cdivision": True,
            "initializedcheck": DEBUG,
            "embedsignature": True,
            "freethreading_compatible": True,
        },
    ),
)
