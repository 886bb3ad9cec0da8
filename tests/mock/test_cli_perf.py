"""`kprod perf` on the mock cluster."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kprod.cli import main
from kprod.commands import perf_measurement
from kprod.commands.exit_status import ExitStatus
from kprod.testing import MockCluster


def run(cluster: MockCluster, *arguments: object) -> int:
    return main(["perf", "--topic", "t", "--bootstrap", cluster.bootstrap_servers, *map(str, arguments)])


def test_counts_and_percentiles(cluster: MockCluster, capsys: pytest.CaptureFixture[str]) -> None:
    cluster.set_latency(30)
    assert run(cluster, "--num-records", 3000, "--record-size", 50, "--warmup-records", 500) == 0
    records = cluster.records("t")
    assert len(records) == 3000
    assert all(record.key is None and re.fullmatch(rb"[A-Z]{50}", record.value or b"") for record in records)
    assert len({record.value for record in records}) > 2500
    out = capsys.readouterr().out
    assert "warm-up      500 records" in out
    assert "acknowledged 2,500 records" in out
    found = re.search(
        r"p50 ([\d.]+) ms, p95 ([\d.]+) ms, p99 ([\d.]+) ms, p99.9 ([\d.]+) ms, max ([\d.]+) ms", out
    )
    assert found is not None
    values = [float(text) for text in found.groups()]
    assert values == sorted(values)
    assert 30 <= values[0] < 10_000
    assert "us per record" in out


def test_options_of_javas_tool(
    cluster: MockCluster, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "payloads").write_text("first;second;;third;")
    (tmp_path / "producer.properties").write_text("acks=1\nlinger.ms=1")
    status = run(
        cluster,
        *("--num-records", 300, "--payload-file", tmp_path / "payloads", "--payload-delimiter", ";"),
        *("--producer.config", tmp_path / "producer.properties", "--producer-props", "compression.type=gzip"),
        *("batch.size=2000", "--keys", 5, "--throughput", 100000, "--print-metrics"),
    )
    assert status == 0
    records = cluster.records("t")
    assert {record.value for record in records} == {b"first", b"second", b"third"}
    assert {record.key for record in records} == {b"key-%d" % n for n in range(5)}
    assert {record.producer_id for record in records} == {-1}
    out = capsys.readouterr().out
    assert "compression gzip, batch 2000 B" in out
    assert re.search(r"^producer-metrics:record-send-total +300$", out, re.M)


@pytest.mark.parametrize("callback", [True, False])
def test_json(callback: bool, cluster: MockCluster, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--num-records", 5000, "--record-size", 10, "--throughput", 10_000, "--json"]
    assert run(cluster, *arguments, "--callback" if callback else "--no-callback") == 0
    result: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert result["acked"] == 5000
    assert result["failed"] == 0
    # Half a second, and the last record is sent at its end.
    assert result["seconds"] >= 0.49
    assert result["timed_records"] == (5000 if callback else 100)
    latency = result["latency_ms"]
    assert 0 < latency["50"] <= latency["95"] <= latency["99"] <= latency["99.9"] <= latency["max"]
    assert sum(point["acked"] for point in result["over_time"]) == 5000
    assert len(result["over_time"]) >= 2
    assert result["setup"]["callback"] is callback


def test_few_of_many_are_timed(
    cluster: MockCluster, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(perf_measurement, "_MOST_TIMED", 100)
    assert run(cluster, "--num-records", 1050, "--record-size", 10) == 0
    assert "(of 96 timed records)" in capsys.readouterr().out
    assert cluster.count("t") == 1050


def test_reports_meanwhile(cluster: MockCluster, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--num-records", 1000, "--record-size", 10, "--throughput", 2000]
    assert run(cluster, *arguments, "--reporting-interval", 100) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if " acked " in line]
    times = [float(line.split()[0]) for line in lines]
    # Half a second, or longer on a slow machine, where a line may also come late; never two in one interval.
    assert times == sorted(times)
    assert 2 <= len(lines) <= times[-1] / 0.1 + 1
    assert re.fullmatch(
        r" +\d+\.\d s +[\d,]+ acked +[\d,]+/s +[\d.]+ [KM]?B/s  latency [\d.,]+ ms mean, [\d.,]+ ms max",
        lines[0],
    )


@pytest.mark.parametrize("suffix", ["png", "svg"])
def test_picture(suffix: str, cluster: MockCluster, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    path = tmp_path / f"picture.{suffix}"
    arguments = ["--num-records", 2000, "--record-size", 10, "--throughput", 2000, "--plot", path]
    assert run(cluster, *arguments) == 0
    data = path.read_bytes()
    assert data.startswith(b"\x89PNG" if suffix == "png" else b"<?xml")
    assert len(data) > 10_000


def test_picture_that_cannot_be_written(cluster: MockCluster, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    for path, problem in (("picture.doc", "must end in one of"), ("nowhere/picture.png", "no folder")):
        assert run(cluster, "--num-records", 1, "--record-size", 1, "--plot", path) == ExitStatus.UNUSABLE
        assert problem in capsys.readouterr().err
    assert cluster.requests == []


def test_failures_are_counted_and_explained(
    cluster: MockCluster, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cluster.inject("Produce", "TOPIC_AUTHORIZATION_FAILED", times=None)
    assert run(cluster, "--num-records", 50, "--record-size", 10) == ExitStatus.FAILED
    out = capsys.readouterr().out
    assert "acknowledged 0 records" in out
    assert "failed       50 records" in out
    assert "50 x [Error 29] TopicAuthorizationFailedError" in out

    (tmp_path / "payloads").write_text("x" * 2_000_000 + "\nsmall")
    cluster.clear()
    assert run(cluster, "--num-records", 10, "--payload-file", tmp_path / "payloads") == ExitStatus.FAILED
    out = capsys.readouterr().out
    assert "failed       5 records" in out
    assert "5 x [Error 10] MessageSizeTooLargeError: the record takes 2000" in out
    assert cluster.count("t") == 5


def test_own_cluster(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["perf", "--topic", "x", "--num-records", "2000", "--record-size", "100", "--mock"]) == 0
    out = capsys.readouterr().out
    assert "to x (embedded cluster)" in out
    assert "acknowledged 2,000 records" in out


def test_unreachable(capsys: pytest.CaptureFixture[str], make_cluster: Callable[..., MockCluster]) -> None:
    arguments = ["perf", "--topic", "t", "--num-records", "1", "--record-size", "1"]
    props = ["--producer-props", "bootstrap.servers=127.0.0.1:1", "bootstrap_timeout_ms=200"]
    assert main([*arguments, *props]) == ExitStatus.UNUSABLE
    assert "none of the bootstrap servers could be reached" in capsys.readouterr().err
    closed = make_cluster(auto_create_topics=False)
    props = ["--producer-props", "max.block.ms=300"]
    status = main([*arguments, "--bootstrap", closed.bootstrap_servers, *props])
    assert status == ExitStatus.UNUSABLE
    assert "topic t: " in capsys.readouterr().err
