"""Says what this machine lacks to build kprod, or to run its tests, before a build fails with something obscure.

    python tools/check_environment.py build    an interpreter with venv and headers, and a C compiler
    python tools/check_environment.py kafka    Java and Maven, which the tests against real Kafka need

Run by the Makefile with whatever interpreter it was given, so this file keeps to syntax that old ones can read.
Exits with 1 and one line per missing thing.
"""

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
    "apt-get": {"cc": "build-essential", "headers": "python3-dev", "venv": "python3-venv",
                "java": "openjdk-17-jre-headless", "mvn": "maven"},
    "dnf": {"cc": "gcc", "headers": "python3-devel", "venv": "python3-libs",
            "java": "java-17-openjdk-headless", "mvn": "maven"},
    "apk": {"cc": "build-base", "headers": "python3-dev", "venv": "python3",
            "java": "openjdk17-jre-headless", "mvn": "maven"},
    "brew": {"cc": "gcc", "headers": "python", "venv": "python", "java": "openjdk@17", "mvn": "maven"},
}  # fmt: skip


def how_to_install(*things):
    # type: (str) -> str
    for manager, names in PACKAGES.items():
        if shutil.which(manager):
            return "try: {} install {}".format(manager, " ".join(names[thing] for thing in things))
    return "install it with this system's package manager"


def check_build():
    # type: () -> list[str]
    if sys.version_info < MINIMUM_PYTHON:
        return [
            "{} is Python {}.{}, kprod needs {}.{} or newer; choose another with: make PYTHON=python3.12 ...".format(
                sys.executable, sys.version_info[0], sys.version_info[1], *MINIMUM_PYTHON
            )
        ]
    missing = []
    try:
        import ensurepip  # noqa: F401
        import venv  # noqa: F401
    except ImportError as error:
        missing.append("{} has no module {}; {}".format(sys.executable, error.name, how_to_install("venv")))
    compiler = shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc")
    if not shutil.which(compiler[0]):
        missing.append("no C compiler ({}); {}".format(compiler[0], how_to_install("cc")))
        return missing
    said = try_compiler(compiler)
    if "Python.h" in said:
        missing.append("no headers of {} (Python.h); {}".format(sys.executable, how_to_install("headers")))
    elif said:
        missing.append(
            "the C compiler cannot build an extension; {}\n{}".format(how_to_install("cc", "headers"), said)
        )
    return missing


def try_compiler(compiler):
    # type: (list[str]) -> str
    """What the compiler says about a file that includes Python.h and a libc header; nothing when it can build it."""
    with tempfile.TemporaryDirectory() as folder:
        source = os.path.join(folder, "probe.c")
        with open(source, "w") as file:
            file.write("#include <Python.h>\n#include <sys/socket.h>\nint probe(void) { return 0; }\n")
        include = sysconfig.get_paths()["include"]
        command = compiler + ["-fPIC", "-I", include, "-c", source, "-o", os.path.join(folder, "probe.o")]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, universal_newlines=True)
        return done.stdout if done.returncode else ""


def check_kafka():
    # type: () -> list[str]
    missing = []
    home = os.environ.get("JAVA_HOME")
    java = shutil.which("java", path=os.path.join(home, "bin")) if home else shutil.which("java")
    if java is None:
        where = "in JAVA_HOME={}".format(home) if home else "on PATH"
        missing.append("no java {}; {}".format(where, how_to_install("java")))
    else:
        done = subprocess.run(
            [java, "-version"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, universal_newlines=True
        )
        version = re.search(r'version "(?:1\.)?(\d+)', done.stdout)
        if done.returncode or version is None:
            missing.append("`{} -version` fails; {}\n{}".format(java, how_to_install("java"), done.stdout))
        elif int(version.group(1)) < MINIMUM_JAVA:
            missing.append(
                "{} is Java {}, Apache Kafka needs {} or newer; {}".format(
                    java, version.group(1), MINIMUM_JAVA, how_to_install("java")
                )
            )
    if not shutil.which("mvn"):
        missing.append("no mvn on PATH, it fetches Apache Kafka; {}".format(how_to_install("mvn")))
    return missing


CHECKS = {"build": check_build, "kafka": check_kafka}

if __name__ == "__main__":
    if len(sys.argv) != 2 or sys.argv[1] not in CHECKS:
        sys.exit("usage: check_environment.py {}".format("|".join(CHECKS)))
    problems = CHECKS[sys.argv[1]]()
    for problem in problems:
        sys.stderr.write("missing for {}: {}\n".format(sys.argv[1], problem))
    sys.exit(1 if problems else 0)
