"""What one thread sees while another one has done half of its work.

`make races` and `make tsan` are the long forms.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from kprod import KafkaError, KafkaProducer
from kprod.testing import MockCluster
from tests.mock.conftest import Eventually, MakeProducer

PREEMPT = Path(__file__).parents[1] / "fuzz" / "preempt.c"

# One thread looks at every batch that is not decided, as the network loop does for expiry, while two others
# make new ones: a batch that can be found must be complete.
LOOK_AT_NEW_BATCHES = """
import faulthandler, threading, time
from kprod import KafkaProducer
from kprod._core.accumulator import Topic
from kprod.testing import MockCluster

faulthandler.enable()
with MockCluster(strict=False) as cluster:
    cluster.create_topic("t", partitions=2)
    producer = KafkaProducer(
        bootstrap_servers=cluster.bootstrap_servers, linger_ms=0, acks=0, enable_idempotence=False
    )
    producer.send("t", b"x").get(30)
    ends = time.monotonic() + 2
    sent = [0, 0]

    def send(partition):
        while time.monotonic() < ends or sent[partition] < 100:
            producer.send_nowait("t", b"x", partition=partition)
            sent[partition] += 1

    def look():
        other = Topic("other", 99, None, 1000, 0, 0, 0, 1, False, False, 1)
        while time.monotonic() < ends:
            producer.engine._loop.fail_topic(other, 1)

    threads = [threading.Thread(target=send, args=(i,)) for i in range(2)] + [threading.Thread(target=look)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    producer.flush(60)
    assert producer.metrics()["producer-metrics"]["record-error-total"] == 0
    producer.close()
"""


@pytest.mark.skipif(
    sys.platform != "linux", reason="threads are made to give way by a library that Linux preloads"
)
@pytest.mark.skipif("KPROD_SANITIZE" in os.environ, reason="a sanitizer's library has to come first")
def test_a_new_batch_is_complete_when_others_can_find_it(tmp_path: Path) -> None:
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler to build what makes threads give way")
    library = tmp_path / "preempt.so"
    subprocess.run([compiler, "-O1", "-shared", "-fPIC", "-o", library, PREEMPT, "-ldl"], check=True)
    ended = subprocess.run(
        [sys.executable, "-c", LOOK_AT_NEW_BATCHES],
        env={
            **os.environ,
            "LD_PRELOAD": str(library),
            "KPROD_PREEMPT_EVERY": "16",
            "KPROD_PREEMPT_US": "100",
            "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        },
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ended.returncode == 0, ended.stderr


def test_memory_granted_to_a_send_that_is_refused_comes_back(
    cluster: MockCluster, make_producer: MakeProducer, eventually: Eventually
) -> None:
    producer = make_producer(buffer_memory=4000, batch_size=1000, max_block_ms=30_000, linger_ms=0)
    producer.send("t", b"").get(30)
    cluster.inject("Produce", delay_ms=60_000, times=None)
    refused: list[KafkaError] = []
    threads = [threading.Thread(target=_send_until_refused, args=(producer, refused)) for _ in range(8)]
    for thread in threads:
        thread.start()
    memory = producer.engine.accumulator.memory
    eventually(lambda: memory()["waiting"] == len(threads))
    # Failing what there is gives memory to those who wait: they find that the producer takes no records.
    engine: Any = producer.engine
    engine._shared.fail(KafkaError("as after an error that ends the producer"))
    for thread in threads:
        thread.join()
    assert len(refused) == len(threads)
    # What was in flight keeps its memory until the connection ends.
    producer.close(timeout=0)
    assert memory()["used"] == 0


def _send_until_refused(producer: KafkaProducer, refused: list[KafkaError]) -> None:
    try:
        while True:
            producer.send_nowait("t", bytes(900))
    except KafkaError as error:
        refused.append(error)
