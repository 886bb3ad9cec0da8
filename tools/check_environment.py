"""Says what this machine lacks to build kprod or to run its tests, before a build fails in some obscure way.

    python tools/check_environment.py build    an interpreter with venv and headers, and a C compiler
    python tools/check_environment.py kafka    Java and Maven, which the tests against real Kafka need

Run by the Makefile with whatever interpreter it was given, so this file keeps to what Python 3.7 can read.
Exits with 1 and a line per missing thing.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile

MINIMUM_PYTHON = (3, 10)
# Kafka 4 brokers are compiled for Java 17 (KIP-1013).
MINIMUM_JAVA = 17

# What the package managers of the usual systems call the things that may be missing.
PACKAGES = {
    "apt-get install": {"cc": "build-essential", "headers": "python3-dev", "venv": "python3-venv",
                "java": "openjdk-17-jdk-headless", "mvn": "maven"},
    "dnf install": {"cc": "gcc", "headers": "python3-devel", "venv": "python3-libs",
            "java": "java-17-openjdk-devel", "mvn": "maven"},
    "apk add": {"cc": "build-base", "headers": "python3-dev", "venv": "python3",
            "java": "openjdk17-jdk", "mvn": "maven"},
    "brew install": {"cc": "gcc", "headers": "python", "venv": "python", "java": "openjdk", "mvn": "maven"},
}  # fmt: skip


def how_to_install(*things: str) -> str:
    """The command that installs ``things``, keys of :data:`PACKAGES`, on this kind of system."""
    for command, names in PACKAGES.items():
        if shutil.which(command.split()[0]):
            return f"try: {command} {' '.join(names[thing] for thing in things)}"
    return "install it with this system's package manager"


def check_build() -> list[str]:
    """What is missing to make an environment and build the extensions in it."""
    if sys.version_info < MINIMUM_PYTHON:
        found, needed = (".".join(map(str, version[:2])) for version in (sys.version_info, MINIMUM_PYTHON))
        hint = "choose another with: make PYTHON=python3.12 ..."
        return [f"{sys.executable} is Python {found}, kprod needs {needed} or newer; {hint}"]
    missing = []
    try:
        import ensurepip  # noqa: F401
        import venv  # noqa: F401
    except ImportError as error:
        missing.append(f"{sys.executable} has no module {error.name}; {how_to_install('venv')}")
    compiler = shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc")
    if not shutil.which(compiler[0]):
        missing.append(f"no C compiler ({compiler[0]}); {how_to_install('cc')}")
        return missing
    said = try_compiler(compiler)
    if "Python.h" in said:
        missing.append(f"no headers of {sys.executable} (Python.h); {how_to_install('headers')}")
    elif said:
        missing.append(f"the C compiler cannot build an extension; {how_to_install('cc', 'headers')}\n{said}")
    return missing


def try_compiler(compiler: list[str]) -> str:
    """What the compiler says about a file that includes Python.h; empty when all is well."""
    with tempfile.TemporaryDirectory() as folder:
        source = os.path.join(folder, "probe.c")
        with open(source, "w") as file:
            file.write("#include <Python.h>\n#include <sys/socket.h>\nint probe(void) { return 0; }\n")
        include = sysconfig.get_paths()["include"]
        command = compiler + ["-fPIC", "-I", include, "-c", source, "-o", os.path.join(folder, "probe.o")]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        return done.stdout if done.returncode else ""


def check_kafka() -> list[str]:
    """What is missing to fetch and run Apache Kafka."""
    missing = []
    home = os.environ.get("JAVA_HOME")
    java = shutil.which("java", path=os.path.join(home, "bin")) if home else shutil.which("java")
    if java is None:
        where = f"in JAVA_HOME={home}" if home else "on PATH"
        missing.append(f"no java {where}; {how_to_install('java')}")
    else:
        done = subprocess.run([java, "-version"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        version = re.search(r'version "(?:1\.)?(\d+)', done.stdout)
        if done.returncode or version is None:
            missing.append(f"`{java} -version` fails; {how_to_install('java')}\n{done.stdout}")
        elif int(version.group(1)) < MINIMUM_JAVA:
            needs = f"Apache Kafka needs {MINIMUM_JAVA} or newer"
            missing.append(f"{java} is Java {version.group(1)}, {needs}; {how_to_install('java')}")
    if not shutil.which("mvn"):
        missing.append(f"no mvn on PATH, it fetches Apache Kafka; {how_to_install('mvn')}")
    return missing


CHECKS = {"build": check_build, "kafka": check_kafka}

if __name__ == "__main__":
    if len(sys.argv) != 2 or sys.argv[1] not in CHECKS:
        sys.exit(f"usage: check_environment.py {'|'.join(CHECKS)}")
    problems = CHECKS[sys.argv[1]]()
    for problem in problems:
        sys.stderr.write(f"missing for {sys.argv[1]}: {problem}\n")
    sys.exit(1 if problems else 0)
