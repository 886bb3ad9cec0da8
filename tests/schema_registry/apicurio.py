"""Apicurio Registry from Maven Central: a real Schema Registry, with storage in memory.

``python -m tests.schema_registry.apicurio`` fetches it (140 MB) into ``.kafka`` and prints the folder.
The tests that use it run once it is there, or fetch it themselves with ``KPROD_TEST_REGISTRY=1``.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tarfile
import tempfile
import urllib.request
from pathlib import Path
from typing import IO

from tests.kafka import reaper
from tests.kafka.cluster import wait_until

VERSION = "2.6.13.Final"
_CHECKOUT = Path(__file__).resolve().parents[2]
_FOLDER = Path(os.environ.get("KPROD_KAFKA_HOME") or _CHECKOUT / ".kafka") / f"apicurio-{VERSION}"
_ARTIFACT = f"io.apicurio:apicurio-registry-app:{VERSION}:tar.gz:all"
_PLUGIN = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1"


class ApicurioUnavailable(Exception):
    """The registry cannot be run here; the text says why."""


def is_fetched() -> bool:
    """Whether it is on this machine."""
    return _FOLDER.is_dir()


def ensure() -> Path:
    """Its folder; fetched with Maven if it is not there.

    Raises:
        ApicurioUnavailable: no Java, no Maven, or Maven could not fetch it.
    """
    if shutil.which("java") is None:
        raise ApicurioUnavailable("no `java` on PATH: Apicurio Registry needs Java 17")
    if is_fetched():
        return _FOLDER
    maven = shutil.which("mvn")
    if maven is None:
        raise ApicurioUnavailable("no `mvn` on PATH: Maven fetches Apicurio Registry for the tests")
    _FOLDER.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=_FOLDER.parent, prefix="fetch-") as scratch:
        for goal in (
            [f"{_PLUGIN}:get", f"-Dartifact={_ARTIFACT}", "-Dtransitive=false"],
            [f"{_PLUGIN}:copy", f"-Dartifact={_ARTIFACT}", f"-DoutputDirectory={scratch}"],
        ):
            said = subprocess.run(
                [maven, "-q", "-B", *goal], cwd=scratch, capture_output=True, text=True, check=False
            )
            if said.returncode:
                raise ApicurioUnavailable(f"Maven could not fetch {_ARTIFACT}:\n{said.stdout[-2000:]}")
        unpacked = Path(scratch, "unpacked")
        (archive,) = Path(scratch).glob("*.tar.gz")
        with tarfile.open(archive) as tar:
            tar.extractall(unpacked, filter="data")
        try:
            unpacked.rename(_FOLDER)
        except OSError:
            if not is_fetched():
                raise
    return _FOLDER


class Apicurio:
    """A running registry on 127.0.0.1; the constructor returns when it answers."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}/apis/ccompat/v7"
        (jar,) = folder.glob("*-runner.jar")
        self._log: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115
        self._process = subprocess.Popen(
            [
                "java",
                "-Xmx256m",
                "-XX:+UseSerialGC",
                "-XX:TieredStopAtLevel=1",
                "-Dquarkus.http.host=127.0.0.1",
                f"-Dquarkus.http.port={port}",
                "-jar",
                str(jar),
            ],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        reaper.watch(self._process.pid)
        try:
            wait_until(self._answers, f"Apicurio Registry at {self.url}", timeout=90)
        except BaseException:
            self.close()
            raise

    def _answers(self) -> bool:
        if self._process.poll() is not None:
            self._log.seek(0)
            raise ApicurioUnavailable(f"it ended: {self._log.read()[-3000:].decode(errors='replace')}")
        try:
            opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
            with opener.open(f"{self.url}/subjects", timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()
        reaper.unwatch(self._process.pid)
        self._log.close()


if __name__ == "__main__":
    try:
        print(ensure())
    except ApicurioUnavailable as error:
        sys.exit(f"apicurio: {error}")
