"""kprod.compat.install(): kprod in place of another client's producer, for a whole process."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from collections.abc import Iterator

import pytest

from kprod.compat import install, uninstall
from kprod.testing import MockCluster

SEND = {
    "aiokafka": """
        import asyncio
        import aiokafka, aiokafka.producer.producer
        async def main():
            async with aiokafka.AIOKafkaProducer(bootstrap_servers=servers) as producer:
                await producer.send_and_wait("t", b"value")
        asyncio.run(main())
        classes = [aiokafka.AIOKafkaProducer, aiokafka.producer.producer.AIOKafkaProducer]
        consumers = [aiokafka.AIOKafkaConsumer]
    """,
    "confluent_kafka": """
        import confluent_kafka, confluent_kafka.aio, confluent_kafka.cimpl
        producer = confluent_kafka.Producer({"bootstrap.servers": servers})
        producer.produce("t", b"value")
        assert producer.flush(30) == 0
        classes = [confluent_kafka.Producer, confluent_kafka.cimpl.Producer,
                   confluent_kafka.SerializingProducer, confluent_kafka.aio.AIOProducer]
        consumers = [confluent_kafka.Consumer, confluent_kafka.aio.AIOConsumer]
    """,
    "kafka": """
        import kafka, kafka.producer
        with kafka.KafkaProducer(bootstrap_servers=servers) as producer:
            producer.send("t", b"value").get(timeout=30)
        classes = [kafka.KafkaProducer, kafka.producer.KafkaProducer]
        consumers = [kafka.KafkaConsumer]
    """,
}


@pytest.fixture
def cluster() -> Iterator[MockCluster]:
    with MockCluster() as cluster:
        cluster.create_topic("t")
        yield cluster


def run(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """In a process of its own, where nothing is imported yet."""
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


@pytest.mark.mock
@pytest.mark.parametrize("client", SEND)
def test_every_name_of_the_producer_gives_kprods_and_no_other(cluster: MockCluster, client: str) -> None:
    said = run(
        f"""
        import sys, json
        import kprod.compat
        kprod.compat.install({client!r})
        kprod.compat.install({client!r})
        servers = sys.argv[1]{SEND[client]}
        modules = [[kind.__module__ for kind in kinds] for kinds in (classes, consumers)]
        peer = sys.modules[{client!r}]
        for _ in range(2):
            kprod.compat.uninstall({client!r})
        modules.append([name for name, value in vars(peer).items() if any(value is c for c in classes)])
        print(json.dumps(modules))
        """,
        cluster.bootstrap_servers,
    )
    assert said.returncode == 0, said.stderr
    classes, consumers, left = json.loads(said.stdout)
    assert all(module.startswith(f"kprod.compat.{client}") for module in classes), classes
    assert not any(module.startswith("kprod") for module in consumers)
    assert left == []
    assert [record.value for record in cluster.records("t")] == [b"value"]


def test_who_has_imported_it_before_is_named() -> None:
    said = run(
        """
        import sys, types
        import confluent_kafka
        own = confluent_kafka.Producer
        framework = sys.modules["framework"] = types.ModuleType("framework")
        framework.KafkaSender = own
        class Mine(confluent_kafka.SerializingProducer): pass
        import kprod.compat
        try:
            kprod.compat.install("aiokafka", "confluent_kafka")
        except RuntimeError as error:
            print(error)
        assert confluent_kafka.Producer is own
        import aiokafka
        assert not aiokafka.AIOKafkaProducer.__module__.startswith("kprod")
        """
    )
    assert said.returncode == 0, said.stderr
    assert said.stdout.startswith(
        "kprod.compat.install('aiokafka', 'confluent_kafka') comes too late: __main__, __main__.Mine, "
        "framework imported"
    )


@pytest.mark.parametrize("function", [install, uninstall])
def test_unknown_clients_are_refused(function: object) -> None:
    assert callable(function)
    with pytest.raises(
        ValueError, match="stands in for 'aiokafka', 'confluent_kafka', 'kafka', not for 'pykafka'"
    ):
        function("pykafka")


def test_a_client_that_is_not_there() -> None:
    said = run(
        """
        import sys
        sys.modules["kafka"] = None
        import kprod.compat
        try:
            kprod.compat.install("kafka")
        except ImportError as error:
            print(error.name, error)
        """
    )
    assert said.stdout == (
        "kafka kprod.compat.install('kafka') replaces the producers of kafka, which is not installed; "
        "without it, import kprod.compat.kafka instead\n"
    ), said.stderr
