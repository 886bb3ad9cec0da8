"""Apache Kafka's jars from Maven Central, and the command lines that run them.

``python -m tests.kafka.distribution`` fetches what is missing and prints the folder of the jars.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

DEFAULT_VERSION = "4.1.1"
# Kafka 4 brokers are compiled for Java 17 (KIP-1013).
MINIMUM_JAVA = 17

_POM = Path(__file__).with_name("pom.xml")
_LOGGING = Path(__file__).with_name("log4j2.properties")
_CHECKOUT = Path(__file__).resolve().parents[2]


class KafkaUnavailable(Exception):
    """Apache Kafka cannot be run here; the text says what is missing and how to get it."""


@dataclass(frozen=True)
class KafkaDistribution:
    """One version of Apache Kafka on this machine."""

    version: str
    libs: Path
    java: str
    plugins: tuple[Path, ...] = ()
    """Folders of classes beside Kafka's own: see :meth:`with_plugin`."""

    def with_plugin(self, source: Path, folder: Path) -> KafkaDistribution:
        """The same Kafka with a Java class more on its class path, compiled into ``folder``.

        Raises:
            KafkaUnavailable: there is no `javac` here, or it refuses the class.
        """
        beside = Path(self.java).resolve().with_name("javac")
        compiler = str(beside) if beside.exists() else shutil.which("javac")
        if compiler is None:
            raise KafkaUnavailable(f"no `javac` beside {self.java} or on PATH: it takes a JDK, not a JRE")
        command = [compiler, "-J-XX:TieredStopAtLevel=1", "-proc:none", "-cp", str(self.libs / "*")]
        said = subprocess.run(
            [*command, "-d", str(folder), str(source)], capture_output=True, text=True, check=False
        )
        if said.returncode:
            raise KafkaUnavailable(f"javac refuses {source.name}:\n{said.stderr[-4000:]}")
        return replace(self, plugins=(*self.plugins, folder))

    def command(
        self, main_class: str, *arguments: str, heap_mb: int, jvm_options: Sequence[str] = ()
    ) -> list[str]:
        """The command line of one of Kafka's Java programs, with ``heap_mb`` MiB of heap at most."""
        return [
            self.java,
            f"-Xms{min(heap_mb, 64)}m",
            f"-Xmx{heap_mb}m",
            # Two cores and small heaps: the collectors with threads of their own cost more than they give.
            "-XX:+UseSerialGC",
            "-XX:-UsePerfData",
            "-Djava.awt.headless=true",
            f"-Dlog4j2.configurationFile={_LOGGING}",
            *jvm_options,
            "-cp",
            os.pathsep.join([str(self.libs / "*"), *map(str, self.plugins)]),
            main_class,
            *arguments,
        ]

    def tool(self, main_class: str, *arguments: str) -> list[str]:
        """The command line of a short-lived tool: as :meth:`command`, tuned to start fast."""
        return self.command(main_class, *arguments, heap_mb=192, jvm_options=("-XX:TieredStopAtLevel=1",))


def ensure_distribution(version: str | None = None) -> KafkaDistribution:
    """Kafka's jars, fetched with Maven if they are not there yet.

    ``version`` defaults to ``$KPROD_TEST_KAFKA_VERSION``, then to the pinned one. They are kept in a folder
    of ``$KPROD_KAFKA_HOME``, or of ``.kafka`` in the checkout, named for the version and the pom's content.

    Raises:
        KafkaUnavailable: no Java, a Java that is too old, no Maven, or Maven could not fetch the jars.
    """
    version = version or os.environ.get("KPROD_TEST_KAFKA_VERSION") or DEFAULT_VERSION
    if not re.fullmatch(r"\d+\.\d+\.\d+[\w.-]*", version):
        raise KafkaUnavailable(
            f"KPROD_TEST_KAFKA_VERSION={version!r} is not a version of Apache Kafka like {DEFAULT_VERSION}"
        )
    java = _find_java()
    wanted = hashlib.sha256(_POM.read_bytes()).hexdigest()[:8]
    libs = Path(os.environ.get("KPROD_KAFKA_HOME") or _CHECKOUT / ".kafka") / f"{version}-{wanted}" / "libs"
    if not libs.is_dir():
        _fetch(version, libs)
    return KafkaDistribution(version, libs, java)


def _find_java() -> str:
    java_home = os.environ.get("JAVA_HOME")
    java = shutil.which("java", path=os.path.join(java_home, "bin")) if java_home else shutil.which("java")
    if java is None:
        where = f"in JAVA_HOME={java_home}" if java_home else "on PATH"
        raise KafkaUnavailable(f"no `java` {where}: Apache Kafka needs Java {MINIMUM_JAVA} or newer")
    said = subprocess.run([java, "-version"], capture_output=True, text=True, check=False)
    version = re.search(r'version "(\d+)(?:\.(\d+))?', said.stderr + said.stdout)
    if said.returncode or version is None:
        raise KafkaUnavailable(f"`{java} -version` does not work: {(said.stderr or said.stdout).strip()}")
    # Java 8 called itself 1.8.
    major = int(version[2] or 0) if version[1] == "1" else int(version[1])
    if major < MINIMUM_JAVA:
        raise KafkaUnavailable(f"{java} is Java {major}: Apache Kafka needs Java {MINIMUM_JAVA} or newer")
    return java


def _fetch(version: str, libs: Path) -> None:
    maven = shutil.which("mvn")
    if maven is None:
        raise KafkaUnavailable(f"no `mvn` on PATH: Maven fetches Apache Kafka {version} for the tests")
    libs.parent.mkdir(parents=True, exist_ok=True)
    # Filled aside and renamed when complete, so that a fetch that was cut off, or a second one at the same
    # time, never leaves half a class path.
    with tempfile.TemporaryDirectory(dir=libs.parent, prefix="fetch-") as scratch:
        pom = Path(scratch, "pom.xml")
        shutil.copy(_POM, pom)
        command = [
            maven,
            "-q",
            "-B",
            "-f",
            str(pom),
            f"-Dkafka.version={version}",
            "dependency:copy-dependencies",
            f"-DoutputDirectory={Path(scratch, 'libs')}",
        ]
        said = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
        if said.returncode:
            raise KafkaUnavailable(
                f"Maven could not fetch Kafka {version}:\n{(said.stdout + said.stderr).strip()[-4000:]}"
            )
        try:
            Path(scratch, "libs").rename(libs)
        except OSError:
            if not libs.is_dir():
                raise


if __name__ == "__main__":
    try:
        print(ensure_distribution().libs)
    except KafkaUnavailable as error:
        sys.exit(f"kafka: {error}")
