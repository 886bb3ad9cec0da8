"""Under gevent: what does not work is refused, what is advised instead works."""

from __future__ import annotations

import subprocess
import sys

from kprod.testing import MockCluster


def run(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_patched_threads_are_refused_instead_of_holding_up_the_hub(cluster: MockCluster) -> None:
    code = f"""
from gevent import monkey
monkey.patch_all()
from kprod import KafkaProducer, errors
try:
    KafkaProducer(bootstrap_servers={cluster.bootstrap_servers!r})
except errors.KafkaConfigurationError as error:
    print(error)
"""
    assert "thread=False" in run(code)


def test_with_real_threads_the_hub_goes_on_while_a_greenlet_waits(cluster: MockCluster) -> None:
    cluster.inject("Produce", delay_ms=300, times=2)
    code = f"""
from gevent import monkey
monkey.patch_all(thread=False)
import gevent
from kprod import KafkaProducer

ticks = 0

def tick():
    global ticks
    while True:
        ticks += 1
        gevent.sleep(0.005)

pool = gevent.get_hub().threadpool
producer = pool.apply(KafkaProducer, (), dict(bootstrap_servers={cluster.bootstrap_servers!r}))
ticking = gevent.spawn(tick)
gevent.sleep(0)
future = producer.send("t", b"1")
before = ticks
assert pool.apply(future.get, (20,)).offset == 0
assert ticks - before >= 5, ticks
producer.send("t", b"2")
before = ticks
pool.apply(producer.flush)
assert ticks - before >= 5, ticks
pool.apply(producer.close)
ticking.kill()
print("fine")
"""
    assert run(code) == "fine\n"
    assert cluster.count("t") == 2
