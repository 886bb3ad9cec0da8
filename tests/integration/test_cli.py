"""The kprod command against real Kafka, read back by clients that know nothing of kprod."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import TopicFactory
from tests.kafka.cluster import KafkaCluster
from tests.kafka.readers import read_confluent, read_java, read_kafka_python


def kprod(kafka: KafkaCluster, *arguments: object, stdin: bytes = b"") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "kprod", *map(str, arguments), "--bootstrap", kafka.bootstrap_servers],
        input=stdin.decode(),
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.mark.parametrize("codec", ["none", "gzip", "snappy", "lz4", "zstd"])
def test_produce_ndjson(codec: str, kafka: KafkaCluster, topic: TopicFactory, tmp_path: Path) -> None:
    name = topic(partitions=3)
    lines = [
        json.dumps(
            {"id": n, "user": {"name": f"user-{n % 50}"}, "at": 1_700_000_000_000 + n, "text": "ä" * 20}
        )
        for n in range(5000)
    ]
    path = tmp_path / "events.ndjson.gz"
    path.write_bytes(gzip.compress("\n".join(lines).encode()))
    arguments = ["--key", "user.name", "--header", "id=id", "--timestamp", "at", "--compression", codec]
    done = kprod(kafka, "produce", name, path, *arguments)
    assert done.returncode == 0, done.stderr
    assert "5,000 records acknowledged" in done.stderr

    found = read_confluent(kafka.bootstrap_servers, name, expect=5000)
    assert found == read_kafka_python(kafka.bootstrap_servers, name)
    by_line = {record.value: record for record in found}
    assert len(found) == len(by_line) == 5000
    last: dict[bytes | None, int] = {}
    for record in found:
        document = json.loads(record.value or b"")
        assert record.key == document["user"]["name"].encode()
        assert record.headers == (("id", str(document["id"]).encode()),)
        assert record.timestamp == document["at"]
        # One partition per key, in the order of the file.
        assert last.get(record.key, -1) < document["id"]
        last[record.key] = document["id"]
    assert set(by_line) == {line.encode() for line in lines}


def test_produce_csv_from_stdin_for_the_java_consumer(kafka: KafkaCluster, topic: TopicFactory) -> None:
    name = topic(partitions=1)
    rows = b"id,city\n" + b"".join(b"%d,city %d\n" % (n, n % 7) for n in range(500))
    done = kprod(kafka, "produce", name, "--format", "csv", "--key", "id", "--value", "city", stdin=rows)
    assert done.returncode == 0, done.stderr
    found = read_java(kafka.distribution, kafka.bootstrap_servers, name, 500)
    assert [(record.key, record.value) for record in found] == [
        (b"%d" % n, b"city %d" % (n % 7)) for n in range(500)
    ]


def test_produce_names_what_the_broker_refuses(
    kafka: KafkaCluster, topic: TopicFactory, tmp_path: Path
) -> None:
    name = topic(partitions=1, config={"max.message.bytes": 2000})
    path = tmp_path / "lines.txt"
    path.write_bytes(b"small\n" + b"".join(b"%d" % (n % 10) for n in range(5000)) + b"\nsmall too\n")
    done = kprod(kafka, "produce", name, path, "-c", "batch.size=0")
    assert done.returncode == 1
    assert f"{path}:2: [Error 10] MessageSizeTooLargeError" in done.stderr
    assert "2 records acknowledged" in done.stderr
    assert "1 failed" in done.stderr
    found = read_confluent(kafka.bootstrap_servers, name, expect=2)
    assert [record.value for record in found] == [b"small", b"small too"]


def test_perf(kafka: KafkaCluster, topic: TopicFactory) -> None:
    name = topic(partitions=6)
    arguments = ["--topic", name, "--num-records", 50_000, "--record-size", 100, "--warmup-records", 5000]
    done = kprod(kafka, "perf", *arguments, "--keys", 1000, "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["acked"] == 45_000
    assert result["failed"] == 0
    latency = result["latency_ms"]
    assert 0 < latency["50"] <= latency["95"] <= latency["99"] <= latency["99.9"] <= latency["max"]
    found = read_confluent(kafka.bootstrap_servers, name, expect=50_000)
    assert len(found) == 50_000
    assert all(len(record.value or b"") == 100 for record in found)
    assert len({record.key for record in found}) > 900


def test_demo(kafka: KafkaCluster) -> None:
    done = kprod(kafka, "demo", "--records", 20_000, "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads(done.stdout)
    assert report["passed"] is True
    assert report["read_back"]["with"] == "confluent-kafka"
    for name in report["topics"]:
        kafka.delete_topic(name)
