"""Every example does what it says, on the mock cluster and on real Kafka."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import entry_points
from pathlib import Path

import pytest

from kprod.testing import MockCluster
from tests.kafka.cluster import KafkaCluster
from tests.schema_registry.server import RegistryServer

EXAMPLES = Path(__file__).parents[2] / "examples"

# What each one says and which topic it writes to, with the number of records it leaves there.
PROGRAMS = {
    "quickstart.py": ("greetings", 10, "offset 3"),
    "json_serializer.py": ("orders", 100, "not sent: Object of type object is not JSON serializable"),
    "callbacks.py": ("events", 50_001, "50000 written, 0 failed"),
    "arrow_table.py": ("readings", 20_000, "20000 readings on "),
    "asyncio_await.py": ("measurements", 1000, "50 sensors, the last reading is at offset"),
    "custom_partitioner.py": ("invoices", 1000, "1000 invoices on partitions [0, 1, "),
    "log_handler.py": ("logs", 100, "100 log records are written, 0 were dropped, 0 failed"),
    "schema_registry.py": ("orders-avro", 100, "not sent: "),
    "error_handling.py": ("payments", 1, "what to do: keep it for a human"),
}


@pytest.fixture
def mock() -> Iterator[MockCluster]:
    with MockCluster(brokers=2) as cluster:
        yield cluster


@pytest.fixture(autouse=True)
def registry(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """For the example that asks for one."""
    server = RegistryServer()
    monkeypatch.setenv("SCHEMA_REGISTRY_URL", server.url)
    yield
    server.close()


def run(name: str, bootstrap_servers: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", EXAMPLES / name],
        env={**os.environ, "KAFKA_BOOTSTRAP_SERVERS": bootstrap_servers},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


def test_all_of_them_are_run() -> None:
    # The pipeline has its own test, which kills and restarts it: tests/faults/test_exactly_once_pipeline.py.
    # Dask is run by `python -m tests.scale_out dask`, in an environment of its own.
    elsewhere = {"testing_with_mock.py", "exactly_once_pipeline.py", "dask_frame.py"}
    assert {path.name for path in EXAMPLES.glob("*.py")} == {*PROGRAMS, *elsewhere}


@pytest.mark.parametrize("name", PROGRAMS)
def test_on_the_mock_cluster(name: str, mock: MockCluster) -> None:
    topic, count, says = PROGRAMS[name]
    mock.create_topic(topic, partitions=6)
    assert says in run(name, mock.bootstrap_servers)
    assert mock.count(topic) == mock.count() == count
    assert mock.problems == []


@pytest.mark.parametrize("name", PROGRAMS)
def test_on_real_kafka(name: str, kafka: KafkaCluster) -> None:
    topic, _, says = PROGRAMS[name]
    kafka.create_topic(topic, 6)
    try:
        assert says in run(name, kafka.bootstrap_servers)
    finally:
        kafka.delete_topic(topic)


def test_large_customers_have_partitions_of_their_own(mock: MockCluster) -> None:
    mock.create_topic("invoices", partitions=6)
    run("custom_partitioner.py", mock.bootstrap_servers)
    assert {record.key for record in mock.records("invoices", 0)} == {b"customer-1"}
    assert {record.key for record in mock.records("invoices", 1)} == {b"customer-2"}


def test_the_test_suite(tmp_path: Path) -> None:
    # The package registers its plug-in where it is installed; a second registration is an error.
    installed = any(entry.name == "kprod" for entry in entry_points(group="pytest11"))
    plugin = () if installed else ("-p", "kprod.testing.plugin")
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-q", *plugin),
            *("--rootdir", str(tmp_path), "-c", os.devnull),
            str(EXAMPLES / "testing_with_mock.py"),
        ],
        env={**os.environ, "PYTEST_ADDOPTS": "-p no:cacheprovider"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "4 passed" in done.stdout
