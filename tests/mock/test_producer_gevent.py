"""Under gevent: what waits in kprod lets the other greenlets run, with threads replaced and without."""

from __future__ import annotations

import ssl
import subprocess
import sys
from pathlib import Path

import pytest

from kprod.testing import MockCluster
from tests.certificates import CertificateAuthority
from tests.mock.conftest import MakeCluster

PATCHED = pytest.mark.parametrize("patch", ["patch_all()", "patch_all(thread=False)"])

BEGIN = """
from gevent import monkey
monkey.{patch}
import threading
import gevent
from kprod import KafkaProducer, errors

ticks = 0

def tick():
    global ticks
    while True:
        ticks += 1
        gevent.sleep(0.001)

def lets_others_run(call, *arguments, **keywords):
    before = ticks
    try:
        return call(*arguments, **keywords)
    finally:
        # None if the hub stood still; how many there are otherwise depends on what else the machine does.
        assert ticks - before >= 2, (call, ticks - before)

ticking = gevent.spawn(tick)
gevent.sleep(0)
options = dict(bootstrap_servers={servers!r}, linger_ms=0, retry_backoff_ms=5, reconnect_backoff_ms=5)
"""


def run(cluster: MockCluster, patch: str, code: str) -> None:
    program = BEGIN.format(patch=patch, servers=cluster.bootstrap_servers) + code + "\nprint('fine')\n"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stderr == ""
    assert done.stdout == "fine\n"


@PATCHED
def test_what_waits_lets_others_run(cluster: MockCluster, patch: str) -> None:
    """The constructor, the first send() to a topic, get(), flush() and close()."""
    cluster.inject("ApiVersions", delay_ms=200)
    cluster.inject("Metadata", delay_ms=200, times=4)
    cluster.inject("Produce", delay_ms=200, times=4)
    run(
        cluster,
        patch,
        """
producer = lets_others_run(KafkaProducer, **options)
future = lets_others_run(producer.send, "t", b"1")
assert lets_others_run(future.get, 20).offset == 0
future = producer.send("t", b"2")
try:
    lets_others_run(future.get, 0.03)
except errors.KafkaTimeoutError:
    pass
lets_others_run(producer.flush)
assert future.done()
future = producer.send_many("t", [b"3", b"4"])
assert list(lets_others_run(future.get, 20).offsets()) == [2, 3]
called = []
producer.send("t", b"5", on_delivery=lambda error, metadata: called.append(metadata.offset))
lets_others_run(producer.close)
assert called == [4]
""",
    )
    assert [record.value for record in cluster.records("t")] == [b"1", b"2", b"3", b"4", b"5"]


@PATCHED
def test_many_greenlets_wait_at_once_and_for_memory(cluster: MockCluster, patch: str) -> None:
    """More than gevent's thread pool has threads, and more than buffer_memory holds."""
    cluster.create_topic("many", partitions=3)
    cluster.set_latency(5)
    run(
        cluster,
        patch,
        """
producer = KafkaProducer(**options, buffer_memory=120_000, max_request_size=40_000, batch_size=4000)

def work(number):
    found = []
    for n in range(10):
        found.append(producer.send("many", b"%d-%d" % (number, n) + bytes(2000), key=b"%d" % number).get(30))
    return [metadata.offset for metadata in found]

greenlets = [gevent.spawn(work, number) for number in range(60)]
lets_others_run(gevent.joinall, greenlets, raise_error=True)
assert all(greenlet.value == sorted(set(greenlet.value)) for greenlet in greenlets)

values = [b"%d" % n + bytes(2000) for n in range(300)]
assert len(lets_others_run(producer.send_many, "many", values)) == 300
lets_others_run(producer.flush)
assert producer.metrics()["producer-metrics"]["record-send-total"] == 900
producer.close()
""",
    )
    assert cluster.count("many") == 900


@PATCHED
def test_waits_end_when_the_greenlet_is_told_to(cluster: MockCluster, patch: str) -> None:
    cluster.create_topic("u")
    cluster.inject("Produce", delay_ms=500, topic="u", times=1)
    run(
        cluster,
        patch,
        """
producer = KafkaProducer(**options)
producer.send("t", b"1").get(20)
future = producer.send("u", b"2")
try:
    with gevent.Timeout(0.05):
        lets_others_run(future.get)
        raise AssertionError("the record was decided")
except gevent.Timeout:
    pass
waiting = gevent.spawn(producer.flush)
gevent.sleep(0.05)
assert not waiting.dead
waiting.kill()
assert waiting.dead
assert lets_others_run(future.get, 20).offset == 0
producer.close()
""",
    )


@PATCHED
def test_the_hub_counts_what_it_waits_for(cluster: MockCluster, patch: str) -> None:
    """With one reference lost, the hub takes a wait for the last of all (LoopExit)."""
    cluster.create_topic("many", partitions=3)
    run(
        cluster,
        patch,
        """
import time
producer = KafkaProducer(**options, batch_size=1000)
producer.partitions_for("many")
stop = time.monotonic() + 3

def sleeps():
    while time.monotonic() < stop:
        gevent.sleep(0.001)

def waits():
    while time.monotonic() < stop:
        for future in [producer.send("many", b"1" * 200) for _ in range(20)]:
            future.get(30)

ticking.kill()
gevent.sleep(0)
references = gevent.get_hub().loop.activecnt
greenlets = [gevent.spawn(sleeps) for _ in range(100)] + [gevent.spawn(waits) for _ in range(100)]
gevent.joinall(greenlets, raise_error=True)
assert gevent.get_hub().loop.activecnt == references
producer.close()
""",
    )


@PATCHED
def test_a_greenlet_that_is_alone_may_wait(cluster: MockCluster, patch: str) -> None:
    """Nothing else keeps the hub's loop alive."""
    cluster.set_latency(20)
    run(
        cluster,
        patch,
        """
ticking.kill()
producer = KafkaProducer(**options)
assert producer.send("t", b"1").get().offset == 0
assert producer.send_many("t", [b"2"]).get(20)[0].offset == 1
producer.flush()
producer.close()
""",
    )


@PATCHED
def test_transactions(cluster: MockCluster, patch: str) -> None:
    cluster.inject("InitProducerId", delay_ms=100)
    cluster.inject("EndTxn", delay_ms=100, times=2)
    run(
        cluster,
        patch,
        """
producer = KafkaProducer(**options, transactional_id="tx-gevent")
lets_others_run(producer.init_transactions)
producer.begin_transaction()
producer.send("t", b"1")
lets_others_run(producer.commit_transaction)
try:
    with producer.transaction():
        producer.send("t", b"2").get(20)
        raise KeyError
except KeyError:
    pass
producer.close()
""",
    )


def test_a_producer_that_nobody_closed_delivers_at_the_end_of_the_program(cluster: MockCluster) -> None:
    run(cluster, "patch_all()", 'KafkaProducer(**options).send("t", b"last")')
    assert [record.value for record in cluster.records("t")] == [b"last"]


@pytest.mark.parametrize("pump", ["0", "1"], ids=["network loop", "pump"])
def test_tls(make_cluster: MakeCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pump: str) -> None:
    """gevent has classes of its own in ssl, socket and select."""
    monkeypatch.setenv("KPROD_TLS_PUMP", pump)
    authority = CertificateAuthority(tmp_path)
    certificate = authority.issue("broker")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate.certificate, certificate.key)
    cluster = make_cluster(ssl_context=context)
    cluster.create_topic("secret")
    run(
        cluster,
        "patch_all()",
        f"""
producer = KafkaProducer(**options, security_protocol="SSL", ssl_cafile={str(authority.file)!r})
assert producer.send("secret", b"1").get(20).offset == 0
producer.send_many("secret", [bytes(10_000)] * 2000)
lets_others_run(producer.flush)
producer.close()
""",
    )
    assert cluster.count("secret") == 2001
