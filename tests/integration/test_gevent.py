"""kprod under gevent on real Kafka: greenlets that wait let the others run, and what they sent is there."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.conftest import TopicFactory
from tests.kafka.cluster import KafkaCluster
from tests.kafka.readers import read_confluent

PROGRAM = """
from gevent import monkey
monkey.{patch}
import gevent
from kprod import KafkaProducer

ticks = 0

def tick():
    global ticks
    while True:
        ticks += 1
        gevent.sleep(0.001)

def work(number):
    for n in range(20):
        future = producer.send({topic!r}, b"%d" % n + bytes(2000), key=b"%d" % number)
        assert future.get(60).offset >= 0

ticking = gevent.spawn(tick)
producer = KafkaProducer(
    bootstrap_servers={servers!r}, buffer_memory=200_000, max_request_size=100_000, compression_type="zstd"
)
assert ticks > 0
greenlets = [gevent.spawn(work, number) for number in range(40)]
gevent.joinall(greenlets, raise_error=True)
before = ticks
producer.send_many({topic!r}, [b"%d" % n + bytes(2000) for n in range(400)], keys=[b"many"] * 400)
producer.flush()
assert ticks > before
producer.close()
"""


@pytest.mark.parametrize("patch", ["patch_all()", "patch_all(thread=False)"])
def test_greenlets_share_a_producer(kafka: KafkaCluster, topic: TopicFactory, patch: str) -> None:
    name = topic(partitions=3)
    program = PROGRAM.format(patch=patch, servers=kafka.bootstrap_servers, topic=name)
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    found: dict[bytes, list[int]] = {}
    for record in read_confluent(kafka.bootstrap_servers, name):
        found.setdefault(record.key or b"", []).append(int((record.value or b"").rstrip(b"\0")))
    expected = {b"%d" % number: list(range(20)) for number in range(40)}
    assert found == {**expected, b"many": list(range(400))}
