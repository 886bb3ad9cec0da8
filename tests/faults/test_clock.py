"""Somebody sets the wall clock: timeouts and retries go on as if nothing had happened."""

from __future__ import annotations

import mmap
import os
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import TopicFactory
from tests.faults.cluster import FaultyCluster
from tests.kafka.cluster import wait_until
from tests.kafka.readers import read_confluent

SOURCE = Path(__file__).with_name("wall_clock.c")
HOUR_MS = 3_600_000

# Sends in the rhythm of lines on its standard input, and says what came of it.
SENDER = """
import sys, time
from kprod import KafkaProducer
servers, topic = sys.argv[1:]
# Much shorter than the jumps: a producer that looked at the wall clock would expire or hang.
producer = KafkaProducer(bootstrap_servers=servers, delivery_timeout_ms=20_000, request_timeout_ms=5000,
                         metadata_max_age_ms=500, linger_ms=50)
number = 0
for _ in sys.stdin:
    futures = [producer.send(topic, b"%d" % (number + i)) for i in range(500)]
    number += 500
    took = -time.monotonic()
    for future in futures:
        future.get(timeout=15)
    took += time.monotonic()
    print(int(time.time() * 1000), futures[-1].get().timestamp, took, flush=True)
producer.close()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the clock is moved by a library that Linux preloads")
def test_wall_clock_set_forward_and_back(brokers: FaultyCluster, topic: TopicFactory, tmp_path: Path) -> None:
    compiler = shutil.which("cc")
    assert compiler, "a C compiler, which building kprod needs too"
    library = tmp_path / "wall_clock.so"
    subprocess.run([compiler, "-O1", "-shared", "-fPIC", "-o", library, SOURCE], check=True)
    offset_file = tmp_path / "offset"
    offset_file.write_bytes(bytes(mmap.PAGESIZE))
    name = topic()
    environment = {
        **os.environ,
        "LD_PRELOAD": str(library),
        "KPROD_CLOCK_OFFSET": str(offset_file),
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
    }
    sender = subprocess.Popen(
        [sys.executable, "-c", SENDER, brokers.faulty_servers, name],
        env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert sender.stdin is not None and sender.stdout is not None
    clocks = []
    try:
        with open(offset_file, "r+b") as file, mmap.mmap(file.fileno(), 8) as offset:
            # Brokers refuse what is more than an hour ahead of them (log.message.timestamp.after.max.ms).
            for jump_ms in (0, 0.9 * HOUR_MS, -24 * HOUR_MS, 0.9 * HOUR_MS, 0):
                offset[:8] = struct.pack("=q", int(jump_ms * 1_000_000))
                brokers.network.note(f"wall clock of the producer off by {jump_ms / HOUR_MS:g} h")
                # And a request in doubt each time, whose retry has a pause before it.
                brokers.network.reset()
                sender.stdin.write("send\n")
                sender.stdin.flush()
                clock, timestamp, took = sender.stdout.readline().split()
                clocks.append(int(clock))
                assert float(took) < 10, f"{took} s, with the clock off by {jump_ms / HOUR_MS:g} h"
                assert abs(int(timestamp) - int(clock)) < 15_000
        sender.stdin.close()
        wait_until(lambda: sender.poll() is not None, "the producer's end", 30)
    finally:
        sender.kill()
        sender.wait()
    # The clock did jump.
    assert clocks[1] - clocks[0] > 0.8 * HOUR_MS
    assert clocks[2] - clocks[1] < -24 * HOUR_MS
    values = [int(record.value or b"") for record in read_confluent(brokers.bootstrap_servers, name)]
    assert values == list(range(2500))
