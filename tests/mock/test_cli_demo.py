"""`kprod demo` on its embedded cluster."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from kprod.cli import main
from kprod.commands import demo, demo_faults, demo_reading
from kprod.commands.demo_reading import ReadRecord
from kprod.commands.exit_status import ExitStatus
from kprod.testing import MockCluster

CONSUMERS = {"confluent_kafka": "confluent-kafka", "kafka": "kafka-python"}


def leave_only(monkeypatch: pytest.MonkeyPatch, consumer: str | None) -> None:
    for name in CONSUMERS:
        if name != consumer:
            monkeypatch.setitem(sys.modules, name, None)


@pytest.mark.parametrize("consumer", [None, *CONSUMERS])
def test_passes(
    consumer: str | None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if consumer is not None and importlib.util.find_spec(consumer) is None:
        pytest.skip(f"{consumer} is not installed")
    leave_only(monkeypatch, consumer)
    if consumer is not None and demo_reading.find_reader({"lz4", "zstd"}) is None:
        pytest.skip(f"{consumer} cannot read lz4 and zstd here: a package that it needs is not installed")
    assert main(["demo", "--records", "12000", "--json"]) == ExitStatus.OK
    report: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert report["passed"] is True
    assert len(report["checks"]) == 7
    assert report["read_back"]["with"] == CONSUMERS.get(consumer or "", "the embedded cluster itself")
    assert sum(topic["records"] for topic in report["topics"].values()) == 12_000
    assert {name: topic["codec"] for name, topic in report["topics"].items()} == {
        "clickstream": "zstd",
        "orders": "lz4",
        "sensors": "lz4",
    }
    assert report["undisturbed"]["records"] + report["disturbed"]["records"] == 12_000
    assert report["undisturbed"]["compression_ratio"] > 2
    assert report["disturbed"]["records_retried"] > 0
    assert len(report["disturbed"]["troubles"]) == 5


@pytest.mark.parametrize("codec", ["none", "gzip", "snappy"])
def test_other_codecs_and_seeds(
    codec: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    leave_only(monkeypatch, None)
    arguments = ["demo", "--records", "3000", "--seed", "7", "--codec", codec]
    assert main(arguments) == ExitStatus.OK
    out = capsys.readouterr().out
    assert "seed 7" in out
    assert f"12 partitions, {codec}" in out
    assert "Everything is as it should be." in out


def test_cluster_given_by_address(
    make_cluster: Callable[..., MockCluster],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    pytest.importorskip("kafka")
    leave_only(monkeypatch, "kafka")
    if demo_reading.find_reader({"lz4", "zstd"}) is None:
        pytest.skip("kafka-python cannot read lz4 and zstd here: a package that it needs is not installed")
    cluster = make_cluster(default_partitions=4)
    arguments = ["demo", "--records", "3000", "--json", "--bootstrap", cluster.bootstrap_servers]
    assert main(arguments) == ExitStatus.OK
    assert main(arguments) == ExitStatus.OK
    # Each run has topics of its own, as it cannot know what is in others.
    assert len(cluster.topics()) == 6
    assert cluster.count() == 6000
    first = capsys.readouterr().out
    assert '"troubles": []' in first


def _tampered(change: Callable[[int, ReadRecord], list[ReadRecord]]) -> Callable[..., Iterator[ReadRecord]]:
    honest = demo_reading._read_cluster

    def read(cluster: MockCluster, topic: str, partitions: int) -> Iterator[ReadRecord]:
        for number, record in enumerate(honest(cluster, topic, partitions)):
            yield from change(number, record) if topic == "clickstream" else [record]

    return read


@pytest.mark.parametrize(
    ("change", "wrong"),
    [
        (lambda n, record: [] if n == 5 else [record], "every record is there once"),
        (lambda n, record: [record, record] if n == 5 else [record], "every record is there once"),
        (
            lambda n, record: [record._replace(partition=record.partition ^ 1)] if n == 5 else [record],
            "on the partition of its key's murmur2 hash",
        ),
        (
            lambda n, record: [record._replace(headers=record.headers[1:])] if n == 5 else [record],
            "with the same key, value, headers and timestamp",
        ),
    ],
)
def test_exit_status_when_something_is_wrong(
    change: Callable[[int, ReadRecord], list[ReadRecord]],
    wrong: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    leave_only(monkeypatch, None)
    monkeypatch.setattr(demo_reading, "_read_cluster", _tampered(change))
    assert main(["demo", "--records", "1000", "--json"]) == ExitStatus.FAILED
    report: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert report["passed"] is False
    assert wrong in {check["name"] for check in report["checks"] if not check["passed"]}


def test_troubles_that_do_not_happen_are_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    leave_only(monkeypatch, None)
    honest = demo_faults.plan_troubles

    def plan(cluster: MockCluster, busiest: str) -> list[demo_faults.Trouble]:
        return [
            *honest(cluster, busiest)[:1],
            demo_faults.Trouble("never", lambda: cluster.inject("EndTxn", "NOT_COORDINATOR")),
        ]

    monkeypatch.setattr(demo, "plan_troubles", plan)
    assert main(["demo", "--records", "1000", "--json"]) == ExitStatus.FAILED
    report: dict[str, Any] = json.loads(capsys.readouterr().out)
    (check,) = [check for check in report["checks"] if not check["passed"]]
    assert check["detail"] == "this did not happen: never"
