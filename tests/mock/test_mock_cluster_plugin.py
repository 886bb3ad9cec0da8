"""The pytest plugin, used by test runs of its own."""

from __future__ import annotations

from pathlib import Path

import pytest

import kprod
from kprod.testing import MockCluster

pytest_plugins = ["pytester"]

USES_MOCK = """
    import socket
    from kprod.testing import MockCluster

    def test_own(kafka_mock, kafka_bootstrap_servers, kafka_topic):
        assert isinstance(kafka_mock, MockCluster)
        assert kafka_bootstrap_servers == kafka_mock.bootstrap_servers
        assert kafka_mock.topics() == {kafka_topic: 1}

    def test_session(kafka_mock_session, kafka_bootstrap_servers):
        assert kafka_bootstrap_servers == kafka_mock_session.bootstrap_servers
        kafka_mock_session.create_topic("left-over")

    def test_session_again(kafka_mock_session):
        assert kafka_mock_session.topics() == {"left-over": 1}

    def test_servers_only(kafka_bootstrap_servers):
        host, port = kafka_bootstrap_servers.split(":")
        socket.create_connection((host, int(port)), 5).close()

    def test_name_with_odd_characters(kafka_topic):
        assert set(kafka_topic) <= set("abcdefghijklmnopqrstuvwxyz_-0123456789")
"""

PRODUCES = """
    made = []

    def test_produces(kafka_mock, kafka_producer, kafka_topic):
        producer = kafka_producer(acks=1)
        made.append(producer)
        producer.send(kafka_topic, b"value")
        kafka_mock.wait_for(1, kafka_topic)
        assert kafka_mock.records(kafka_topic)[0].value == b"value"

    def test_was_closed():
        (producer,) = made
        assert producer.closed_with == 10.0
"""

# Stands in for the producer: what is tested here is what the fixture does with it.
PRODUCER = """
    import kprod

    class KafkaProducer:
        def __init__(self, bootstrap_servers, acks):
            import confluent_kafka
            self.inner = confluent_kafka.Producer({"bootstrap.servers": bootstrap_servers, "acks": acks})
            self.closed_with = None

        def send(self, topic, value):
            self.inner.produce(topic, value)

        def close(self, timeout):
            assert self.inner.flush(timeout) == 0
            self.closed_with = timeout

    kprod.KafkaProducer = KafkaProducer
"""


def run(pytester: pytest.Pytester, *args: str) -> pytest.RunResult:
    # In a process of its own, with the plugin by name: it need not be installed to be tested.
    pytester.makeini("[pytest]\naddopts = -p no:cacheprovider\nfilterwarnings = error")
    return pytester.runpytest_subprocess("-p", "kprod.testing.plugin", *args)


@pytest.fixture(autouse=True)
def no_other_kafka(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KAFKA_BOOTSTRAP_SERVERS", raising=False)
    # An installed kprod brings the plugin along; it must not be loaded twice.
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    # The processes run in another directory, where a relative path to an uninstalled kprod leads nowhere.
    monkeypatch.setenv("PYTHONPATH", str(Path(kprod.__file__).parents[1]))


def test_fixtures(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(USES_MOCK)
    run(pytester).assert_outcomes(passed=5)


def test_mock_options(pytester: pytest.Pytester) -> None:
    pytester.makeconftest(
        """
        import pytest

        @pytest.fixture(scope="session")
        def kafka_mock_options():
            return {"brokers": 3, "default_partitions": 4}
        """
    )
    pytester.makepyfile(
        """
        def test_it(kafka_mock, kafka_topic):
            assert len(kafka_mock.ports) == 3
            assert kafka_mock.topics()[kafka_topic] == 4
        """
    )
    run(pytester).assert_outcomes(passed=1)


def test_producer_fixture(pytester: pytest.Pytester) -> None:
    pytester.makeconftest(PRODUCER)
    pytester.makepyfile(PRODUCES)
    run(pytester).assert_outcomes(passed=2)


@pytest.mark.parametrize("way", ["option", "environment"])
def test_real_brokers(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    with MockCluster() as cluster:
        servers = cluster.bootstrap_servers
        pytester.makepyfile(
            f"""
            def test_external(kafka_bootstrap_servers, kafka_topic):
                assert kafka_bootstrap_servers == {servers!r}
                assert kafka_topic.startswith("test_external-")

            def test_mock_was_asked_for(kafka_mock, kafka_bootstrap_servers):
                assert kafka_bootstrap_servers == kafka_mock.bootstrap_servers != {servers!r}
            """
        )
        if way == "option":
            result = run(pytester, f"--kafka-bootstrap={servers}")
        else:
            monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", servers)
            result = run(pytester)
        result.assert_outcomes(passed=2)
