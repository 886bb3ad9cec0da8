"""One producer and many threads; interpreters that end; processes that fork."""

from __future__ import annotations

import subprocess
import sys
import threading

from tests.conftest import TopicFactory
from tests.integration.conftest import MakeProducer
from tests.integration.expectations import assert_sequences
from tests.kafka.cluster import KafkaCluster
from tests.kafka.readers import read_confluent


def test_threads_share_a_producer(
    kafka: KafkaCluster, topic: TopicFactory, make_producer: MakeProducer
) -> None:
    name = topic(partitions=8)
    producer = make_producer(kafka, batch_size=4000)
    problems: list[BaseException] = []

    def work(number: int) -> None:
        try:
            futures = [producer.send(name, b"%d-%d" % (number, i), partition=number) for i in range(5000)]
            # Asked for in between, by many at once.
            producer.flush(timeout=60)
            assert [future.get(timeout=0).offset for future in futures] == list(range(5000))
        except BaseException as error:
            problems.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not problems, problems
    expected = {number: [b"%d-%d" % (number, i) for i in range(5000)] for number in range(8)}
    assert_sequences(read_confluent(kafka.bootstrap_servers, name), expected)


def _run(script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", script, *arguments], capture_output=True, text=True, timeout=120, check=False
    )


def test_records_are_delivered_when_the_interpreter_ends(kafka: KafkaCluster, topic: TopicFactory) -> None:
    name = topic()
    script = """
import sys
from kprod import KafkaProducer
producer = KafkaProducer(bootstrap_servers=sys.argv[1], linger_ms=100)
for i in range(1000):
    producer.send(sys.argv[2], b"%d" % i)
# Neither flush nor close.
"""
    done = _run(script, kafka.bootstrap_servers, name)
    assert done.returncode == 0, done.stderr
    assert_sequences(read_confluent(kafka.bootstrap_servers, name), {0: [b"%d" % i for i in range(1000)]})


def test_interpreter_ends_in_time_without_a_broker(kafka: KafkaCluster, topic: TopicFactory) -> None:
    name = topic()
    script = """
import signal, os, sys
from kprod import KafkaProducer
producer = KafkaProducer(
    bootstrap_servers=sys.argv[1], delivery_timeout_ms=3000, request_timeout_ms=1000, linger_ms=0
)
producer.send(sys.argv[2], b"0").get(timeout=30)
os.kill(int(sys.argv[3]), signal.SIGSTOP)
for i in range(100):
    producer.send(sys.argv[2], b"x", on_delivery=lambda error, metadata: print(type(error).__name__))
"""
    done = _run(script, kafka.bootstrap_servers, name, str(kafka.pid()))
    kafka.resume()
    assert done.returncode == 0, done.stderr
    # Every record had its report, also now.
    assert len(done.stdout.split()) == 100, done.stdout


def test_a_forked_child_is_told_so_and_the_parent_goes_on(kafka: KafkaCluster, topic: TopicFactory) -> None:
    name = topic()
    script = """
import os, sys
from kprod import KafkaProducer
from kprod.errors import ForkedProcessError
producer = KafkaProducer(bootstrap_servers=sys.argv[1], linger_ms=200)
before = [producer.send(sys.argv[2], b"%d" % i) for i in range(10)]
child = os.fork()
if child == 0:
    try:
        producer.send(sys.argv[2], b"from the child")
    except ForkedProcessError:
        os._exit(42)
    os._exit(1)
_, status = os.waitpid(child, 0)
assert os.waitstatus_to_exitcode(status) == 42, status
after = [producer.send(sys.argv[2], b"%d" % i) for i in range(10, 20)]
producer.close(timeout=30)
assert [future.get(timeout=0).offset for future in before + after] == list(range(20))
"""
    done = _run(script, kafka.bootstrap_servers, name)
    assert done.returncode == 0, done.stderr
    assert_sequences(read_confluent(kafka.bootstrap_servers, name), {0: [b"%d" % i for i in range(20)]})
