"""examples/exactly_once_pipeline.py, killed and restarted: each input has one output."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from confluent_kafka import Consumer, KafkaException, TopicPartition

from tests.conftest import TopicFactory
from tests.faults.cluster import FaultyCluster
from tests.faults.proxy import Fault
from tests.faults.stream import MakeProducer
from tests.kafka.cluster import wait_until
from tests.kafka.readers import read_confluent

EXAMPLE = Path(__file__).parents[2] / "examples" / "exactly_once_pipeline.py"
PARTITIONS = 4
INPUTS = 40_000


class Pipeline:
    """Two processes of the example, in one group."""

    def __init__(self, brokers: FaultyCluster, source: str, target: str) -> None:
        self._brokers = brokers
        self._source, self._target = source, target
        self._processes: dict[int, subprocess.Popen[bytes]] = {}

    def start(self, number: int) -> None:
        command = [
            sys.executable, str(EXAMPLE), self._brokers.faulty_servers, self._source, self._target,
            "--group", f"{self._source}-group", "--transactional-id", f"{self._source}-{number}",
        ]  # fmt: skip
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
        self._processes[number] = subprocess.Popen(command, env=environment)

    def kill(self, number: int) -> None:
        self._processes[number].kill()
        self._processes[number].wait()

    def restart_what_ended(self) -> None:
        """As a supervisor does: the example ends when it cannot know, and its successor finds out."""
        for number, process in list(self._processes.items()):
            if process.poll() is not None:
                print(f"process {number} ended with status {process.returncode}")
                self.start(number)

    def stop(self) -> None:
        for process in self._processes.values():
            process.send_signal(signal.SIGTERM)
        for process in self._processes.values():
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _processed(brokers: FaultyCluster, source: str) -> int:
    """How many inputs are behind the committed offsets."""
    options = {"bootstrap.servers": brokers.bootstrap_servers, "group.id": f"{source}-group", "log_level": 2}
    consumer = Consumer(options)
    try:
        places = [TopicPartition(source, number) for number in range(PARTITIONS)]
        return sum(max(0, place.offset) for place in consumer.committed(places, timeout=30))
    except KafkaException:
        return 0  # the coordinator is moving
    finally:
        consumer.close()


@pytest.mark.slow
def test_killed_and_restarted(
    brokers: FaultyCluster, topic: TopicFactory, make_producer: MakeProducer
) -> None:
    source, target = topic(PARTITIONS), topic(PARTITIONS)
    rng = random.Random(brokers.network.seed)
    inputs = [(b"key %d" % (n % 97), b"input %d" % n) for n in range(INPUTS)]
    producer = make_producer()
    pipeline = Pipeline(brokers, source, target)
    try:
        for number in (1, 2):
            pipeline.start(number)
        brokers.network.inject(Fault.DROP_RESPONSE, None, times=1_000_000, probability=0.02)
        share = INPUTS // 8
        for turn in range(8):
            for key, value in inputs[turn * share : (turn + 1) * share]:
                producer.send(source, value, key=key)
            producer.flush(60)
            # Killed somewhere in the work on this share.
            reached = turn * share + rng.randrange(share // 2)

            def far_enough(reached: int = reached) -> bool:
                pipeline.restart_what_ended()
                return _processed(brokers, source) >= reached

            wait_until(far_enough, f"{reached} inputs processed", 120, 0.1)
            number = rng.choice((1, 2))
            print(f"killing process {number} after {reached} inputs", flush=True)
            pipeline.kill(number)
            pipeline.start(number)
            if turn == 3:
                node = rng.choice(brokers.nodes)
                brokers.kill(node)
                brokers.start(node)
        brokers.network.heal()

        def all_done() -> bool:
            pipeline.restart_what_ended()
            return _processed(brokers, source) == INPUTS

        wait_until(all_done, "all inputs processed", 120, 0.2)
    finally:
        pipeline.stop()
    outputs = read_confluent(brokers.bootstrap_servers, target, isolation="read_committed")
    found = Counter(record.value or b"" for record in outputs)
    wanted = Counter(value.upper() for _, value in inputs)
    assert not wanted - found, f"{(wanted - found).total()} inputs without output"
    assert not found - wanted, f"{(found - wanted).total()} outputs too many: {list(found - wanted)[:5]}"
    # The records of a key come in the order of the inputs.
    order: dict[bytes | None, list[bytes]] = {}
    for record in outputs:
        order.setdefault(record.key, []).append(record.value or b"")
    for of_key, values in order.items():
        assert values == [value.upper() for k, value in inputs if k == of_key]
