"""Extension modules of kprod; everything else about the package is in pyproject.toml.

Environment switches:
    KPROD_DEBUG=1     bounds checks and assertions back on, no optimisation
    KPROD_SANITIZE=1  AddressSanitizer and UndefinedBehaviorSanitizer; KPROD_SANITIZE=thread: ThreadSanitizer
    KPROD_LATCHES=mutex  the lock of partitions is the C library's, which tests can intercept
    KPROD_WERROR=1    C warnings are errors
    KPROD_ONLY=a,b    build these modules of the core only
"""

import os
import sys
import sysconfig
import tempfile
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import CompileError

CORE = Path("src/kprod/_core")
DEBUG = os.environ.get("KPROD_DEBUG") == "1"
SANITIZERS = {"1": "address,undefined", "thread": "thread"}.get(os.environ.get("KPROD_SANITIZE", ""))
WERROR = os.environ.get("KPROD_WERROR") == "1"
ONLY = os.environ.get("KPROD_ONLY", "").split(",") if os.environ.get("KPROD_ONLY") else None
WINDOWS = sys.platform == "win32"

# Extra C sources of an extension; every .pyx under _core is an extension of its own.
C_SOURCES = {
    "crc32c": ["kp_crc32c.c"],
}

# Writes the compiler's command line into the module, where tools/check_optimised.py reads it. The name is
# GCC's; Clang takes it as well (for Mach-O not in all versions).
RECORD_SWITCHES = "-frecord-gcc-switches"


def compile_flags() -> list[str]:
    """Flags are stated here in full, so that an environment's CFLAGS cannot
    leave the shipped extension without optimisation (setuptools lets CFLAGS
    replace the interpreter's own)."""
    if WINDOWS:
        return ["/Od" if DEBUG else "/O2", "/std:c11", "/experimental:c11atomics"]
    flags = ["-std=c11", "-fvisibility=hidden", "-fno-strict-aliasing", "-pthread", "-Wall", "-Wextra"]
    # Cython's own generated code trips these.
    flags += ["-Wno-unused-parameter", "-Wno-missing-field-initializers", "-Wno-unused-function"]
    flags += ["-Wno-cast-function-type", "-Wno-sign-compare"]
    if DEBUG:
        flags += ["-O0", "-g3", "-UNDEBUG"]
    elif SANITIZERS:
        # Reports name lines that the optimiser did not move; the first finding of UBSan ends the process.
        flags += ["-O1", "-g", "-UNDEBUG"]
    else:
        flags += ["-O3", "-g1", "-DNDEBUG"]
    if SANITIZERS:
        flags += [f"-fsanitize={SANITIZERS}", "-fno-omit-frame-pointer"]
    if SANITIZERS == "address,undefined":
        flags.append("-fno-sanitize-recover=undefined")
    if WERROR:
        flags.append("-Werror")
    return flags


def link_flags() -> list[str]:
    if WINDOWS:
        return []
    return ["-pthread"] + ([f"-fsanitize={SANITIZERS}"] if SANITIZERS else [])


def macros() -> list[tuple[str, str | None]]:
    """On Windows both builds of Python have the same headers; what is built must say which one it is for."""
    names: list[tuple[str, str | None]] = []
    if WINDOWS and sysconfig.get_config_var("Py_GIL_DISABLED"):
        names.append(("Py_GIL_DISABLED", "1"))
    if SANITIZERS:
        # Objects that were released go back to the allocator at once, so that a use after that is seen.
        names.append(("CYTHON_USE_FREELISTS", "0"))
    if os.environ.get("KPROD_LATCHES") == "mutex":
        names.append(("KP_LATCH_IS_MUTEX", "1"))
    return names


def extensions() -> list[Extension]:
    depends = [str(p) for p in (*CORE.glob("*.px[di]"), *(CORE / "csrc").glob("*.[ch]"))]
    return [
        Extension(
            f"kprod._core.{pyx.stem}",
            [str(pyx), *(str(CORE / "csrc" / c) for c in C_SOURCES.get(pyx.stem, ()))],
            include_dirs=[str(CORE / "csrc")],
            depends=depends,
            define_macros=macros(),
            extra_compile_args=compile_flags(),
            extra_link_args=link_flags(),
            libraries=["ws2_32"] if WINDOWS else ["dl"] if sys.platform == "linux" else [],
        )
        for pyx in sorted(CORE.glob("*.pyx"))
        if ONLY is None or pyx.stem in ONLY
    ]


class BuildExtensions(build_ext):
    """Runs Cython when modules are built, and only then: an sdist is made without."""

    def run(self) -> None:
        translated = cythonize(
            extensions(),
            nthreads=0 if WINDOWS else os.cpu_count() or 1,
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
        )
        sources = {extension.name: extension.sources for extension in translated}
        for extension in self.extensions:
            extension.sources = sources[extension.name]
        super().run()

    def build_extensions(self) -> None:
        if self.compiler.compiler_type == "unix" and self.knows(RECORD_SWITCHES):
            for extension in self.extensions:
                extension.extra_compile_args.append(RECORD_SWITCHES)
        super().build_extensions()

    def knows(self, flag: str) -> bool:
        """Whether the compiler takes a flag."""
        with tempfile.TemporaryDirectory() as folder:
            probe = Path(folder, "probe.c")
            probe.write_text("int probe;\n", encoding="ascii")
            try:
                self.compiler.compile([str(probe)], output_dir=folder, extra_postargs=["-Werror", flag])
            except CompileError:
                return False
        return True


setup(ext_modules=extensions(), cmdclass={"build_ext": BuildExtensions})
