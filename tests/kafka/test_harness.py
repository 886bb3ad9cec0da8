"""The harness itself: its readers agree on what another client wrote, and it leaves nothing behind."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from confluent_kafka import Producer

from tests.conftest import TopicFactory
from tests.kafka.cluster import KafkaCluster, wait_until
from tests.kafka.readers import read_confluent, read_java, read_kafka_python

CHECKOUT = Path(__file__).resolve().parents[2]


def test_readers_agree_on_what_another_client_wrote(kafka: KafkaCluster, topic: TopicFactory) -> None:
    name = topic(partitions=3)
    producer = Producer(
        {"bootstrap.servers": kafka.bootstrap_servers, "compression.type": "zstd", "log_level": 2}
    )
    headers = [("h", b"\x00\xff\n\t:,"), ("h", None), ("empty", b"")]
    for i in range(200):
        producer.produce(name, b"\n\t\x00" * i, b"%d" % i, headers=headers, timestamp=1_700_000_000_000 + i)
    producer.produce(name, None, b"tombstone")
    producer.produce(name, b"", b"")
    producer.produce(name, b"no key")
    assert producer.flush(30) == 0

    found = read_confluent(kafka.bootstrap_servers, name)
    assert len(found) == 203
    assert {r.headers for r in found} == {tuple(headers), ()}
    assert sum(r.timestamp - 1_700_000_000_000 for r in found if r.headers) == sum(range(200))
    assert {(r.key, r.value) for r in found if not r.headers} == {
        (b"tombstone", None),
        (b"", b""),
        (None, b"no key"),
    }
    assert read_kafka_python(kafka.bootstrap_servers, name) == found
    assert read_java(kafka.distribution, kafka.bootstrap_servers, name, 203) == found


def test_no_broker_outlives_a_killed_test_run(kafka: KafkaCluster) -> None:
    script = """
import os, signal
from tests.kafka.cluster import KafkaCluster
cluster = KafkaCluster(1)
print(cluster.pid(), cluster.folder, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=CHECKOUT, check=False
    )
    assert done.returncode == -9, done.stderr
    pid, folder = done.stdout.split()
    shutil.rmtree(folder)
    wait_until(lambda: not _alive(int(pid)), "the broker to be killed", 10)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    # An orphan that was killed is a zombie until init reaps it, and containers may have no init that does.
    stat = Path(f"/proc/{pid}/stat")
    return not (stat.exists() and stat.read_text().rpartition(")")[2].split()[0] == "Z")


@pytest.mark.parametrize("required", [False, True])
def test_without_java_tests_are_skipped_unless_kafka_is_required(required: bool, tmp_path: Path) -> None:
    environment = {"PATH": str(tmp_path), "JAVA_HOME": "", "KPROD_REQUIRE_KAFKA": str(int(required))}
    test = f"{Path(__file__)}::test_readers_agree_on_what_another_client_wrote"
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", test],
        env=environment, cwd=CHECKOUT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ("1 error" if required else "1 skipped") in done.stdout, done.stdout + done.stderr
    assert "no `java` on PATH: Apache Kafka needs Java 17" in done.stdout
    assert done.returncode == (1 if required else 0)


def test_wait_until_gives_up_and_says_what_it_saw() -> None:
    started = time.monotonic()
    with pytest.raises(TimeoutError, match=r"waited 0\.2 s for rain; last seen: 0"):
        wait_until(lambda: 0, "rain", timeout=0.2)
    assert time.monotonic() - started < 5
