"""`kprod produce` from files and stdin into the mock cluster."""

from __future__ import annotations

import gzip
import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from kprod.cli import main
from kprod.commands import produce
from kprod.commands.exit_status import ExitStatus
from kprod.testing import MockCluster
from tests.mock.conftest import Eventually, needs_signals


@pytest.fixture
def run(cluster: MockCluster, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """`run("t", "file", ...)`: the exit status of kprod produce."""
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", cluster.bootstrap_servers)
    return lambda *arguments: main(["produce", *map(str, arguments)])


def test_ndjson_with_everything(
    run: Callable[..., int], cluster: MockCluster, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "orders.ndjson"
    path.write_text(
        '{"id":1,"user":{"id":"ada"},"at":"2024-05-17T10:00:00Z","trace":"x1"}\n'
        '{"id":2,"user":{"id":null},"at":"2024-05-17T10:00:01Z","trace":"x2"}\n'
    )
    arguments = ["--key", "user.id", "--header", "trace=trace", "--constant-header", "source=file"]
    assert run("t", path, *arguments, "--timestamp", "at", "--compression", "zstd", "--acks", "all") == 0
    first, second = cluster.records("t")
    assert (first.key, first.value) == (b"ada", path.read_bytes().splitlines()[0])
    assert first.headers == [("trace", b"x1"), ("source", b"file")]
    assert first.timestamp == 1_715_940_000_000
    assert second.key is None
    captured = capsys.readouterr()
    assert "2 records acknowledged in topic t, 0 failed" in captured.err
    assert captured.out == ""


def test_csv_lines_and_files(run: Callable[..., int], cluster: MockCluster, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"id,name\n1,one\n2,NULL\n")
    assert run("t", tmp_path / "a.csv", "--key", "id", "--value", "name", "--null", "NULL") == 0
    (tmp_path / "a.log").write_bytes(b"ada:first\nbob:second:third\n")
    assert run("t", tmp_path / "a.log", "--key-separator", ":", "--partition", "0") == 0
    assert run("t", tmp_path / "a.log", "--key-regex", r"^\w+", "--limit", "1") == 0
    pattern = r"(?P<who>\w+):(?P<what>.*)"
    assert run("t", tmp_path / "a.log", "--pattern", pattern, "--key", "what", "--value", "who") == 0
    assert run("t", tmp_path / "a.csv", tmp_path / "a.log", "--format", "file", "--key", "name") == 0
    assert [(record.key, record.value) for record in cluster.records("t")] == [
        (b"1", b"one"),
        (b"2", None),
        (b"ada", b"first"),
        (b"bob", b"second:third"),
        (b"ada", b"ada:first"),
        (b"first", b"ada"),
        (b"second:third", b"bob"),
        (b"a.csv", b"id,name\n1,one\n2,NULL\n"),
        (b"a.log", b"ada:first\nbob:second:third\n"),
    ]


def test_gzip_on_stdin(
    run: Callable[..., int], cluster: MockCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = gzip.compress(b"".join(b'{"n":%d}\n' % n for n in range(5000)))
    stdin = io.TextIOWrapper(io.BufferedReader(io.BytesIO(data)))
    monkeypatch.setattr(sys, "stdin", stdin)
    assert run("t", "--format", "ndjson", "--key", "n") == 0
    assert [record.key for record in cluster.records("t")] == [b"%d" % n for n in range(5000)]


def test_options_from_a_properties_file(
    run: Callable[..., int], cluster: MockCluster, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "client.properties").write_text(
        "compression.type=gzip\nacks=1\nbatch.size=1000\n"
        "key.serializer=org.apache.kafka.common.serialization.StringSerializer\n"
    )
    (tmp_path / "a.txt").write_text("x" * 500 + "\n")
    arguments = ["--config-file", tmp_path / "client.properties", "-c", "compression.type=lz4"]
    assert run("t", tmp_path / "a.txt", *arguments) == 0
    assert run("t", tmp_path / "a.txt", *arguments, "--compression", "zstd") == 0
    assert run("t", tmp_path / "a.txt", *arguments[:2]) == 0
    assert [record.compression for record in cluster.records("t")] == ["lz4", "zstd", "gzip"]
    # acks=1 of the file has switched idempotence off.
    assert {record.producer_id for record in cluster.records("t")} == {-1}


def test_bad_records_are_named_and_the_others_sent(
    run: Callable[..., int], cluster: MockCluster, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "a.ndjson"
    path.write_text('{"k":"1"}\n{"k":\n{"x":1}\n{"k":"2","at":-1}\n{"k":"3"}\n')
    assert run("t", path, "--key", "k") == ExitStatus.FAILED
    assert [record.key for record in cluster.records("t")] == [b"1", b"2", b"3"]
    err = capsys.readouterr().err
    assert f"{path}:2: not valid JSON" in err
    assert f"{path}:3: there is no field 'k'; it has x" in err
    assert "3 records acknowledged in topic t, 2 failed" in err


@pytest.mark.parametrize(("tolerated", "sent"), [(0, 1), (1, 2), (-1, 3)])
def test_max_errors(
    tolerated: int,
    sent: int,
    run: Callable[..., int],
    cluster: MockCluster,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = tmp_path / "a.ndjson"
    path.write_text("1\n{\n2\n{\n3\n" + "{\n" * 300)
    assert run("t", path, "--max-errors", tolerated) == ExitStatus.FAILED
    assert cluster.count("t") == sent
    err = capsys.readouterr().err
    assert ("stopped: " in err) == (tolerated >= 0)
    if tolerated < 0:
        assert err.count("not valid JSON") == produce.MAX_PRINTED_ERRORS
        assert "further errors are only counted" in err
        assert "302 failed" in err


def test_records_that_the_producer_or_a_broker_refuses(
    run: Callable[..., int], cluster: MockCluster, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "a.txt"
    path.write_text("one\n" + "x" * 2_000_000 + "\nthree\n")
    assert run("t", path) == ExitStatus.FAILED
    assert [record.value for record in cluster.records("t")] == [b"one", b"three"]
    assert f"{path}:2: [Error 10] MessageSizeTooLargeError" in capsys.readouterr().err

    cluster.inject("Produce", "TOPIC_AUTHORIZATION_FAILED", times=None)
    assert run("t", path, "--limit", 1) == ExitStatus.FAILED
    err = capsys.readouterr().err
    assert f"{path}:1: [Error 29] TopicAuthorizationFailedError" in err
    assert "0 records acknowledged in topic t, 1 failed" in err


def test_connection_and_topic_errors(
    run: Callable[..., int],
    tmp_path: Path,
    make_cluster: Callable[..., MockCluster],
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = tmp_path / "a.txt"
    path.write_text("one\n")
    assert run("t", path, "-b", "127.0.0.1:1", "-c", "bootstrap_timeout_ms=200") == ExitStatus.UNUSABLE
    assert "none of the bootstrap servers could be reached" in capsys.readouterr().err
    assert run("t", path, "--partition", "7") == ExitStatus.UNUSABLE
    assert "--partition 7: topic t has the partitions 0 to 0" in capsys.readouterr().err
    closed = make_cluster(auto_create_topics=False)
    arguments = ["-b", closed.bootstrap_servers, "-c", "max.block.ms=300"]
    assert run("nothing", path, *arguments) == ExitStatus.UNUSABLE
    assert "topic nothing" in capsys.readouterr().err


def test_dry_run_connects_to_nothing(
    run: Callable[..., int], cluster: MockCluster, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "a.ndjson"
    big = '"' + "y" * 1_048_576 + '"'
    lines = ['{"k":"ä","at":1700000000}', '{"k":null,"at":1700000001}', "{", '{"k":"c","at":1700000002}', big]
    path.write_bytes("".join(f"{line}\n" for line in lines).encode())
    arguments = ["--key", "k", "--timestamp", "at", "--header", "h=k", "--dry-run", "--show", "2"]
    assert run("t", path, *arguments) == ExitStatus.FAILED
    captured = capsys.readouterr()
    assert captured.out == (
        f"record 1, {path}:1\n"
        "  key        ä (2 bytes)\n"
        "  header     h = ä (2 bytes)\n"
        "  timestamp  2023-11-14 22:13:20.000 UTC (1700000000000)\n"
        '  value      {"k":"ä","at":1700000000} (26 bytes)\n'
        "\n"
        f"record 2, {path}:2\n"
        "  key        null\n"
        "  header     h = null\n"
        "  timestamp  2023-11-14 22:13:21.000 UTC (1700000001000)\n"
        '  value      {"k":null,"at":1700000001} (26 bytes)\n'
        "\n"
        "3 records (80 B) would be sent to topic t by way of "
        f"{cluster.bootstrap_servers}, compression none\n"
        "2 with a key, 1 without, 0 with a null value, 2 wrong\n"
        "timestamps 2023-11-14 22:13:20.000 UTC to 2023-11-14 22:13:22.000 UTC\n"
    )
    assert f"{path}:3: not valid JSON" in captured.err
    assert cluster.requests == []
    path.write_text('"' + "y" * 1_048_570 + '"')
    assert run("t", path, "--dry-run") == ExitStatus.FAILED
    assert (
        f"{path}:1: the record has 1,048,572 bytes, max.request.size is 1,048,576" in capsys.readouterr().err
    )


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("rich", [False, True])
def test_on_a_terminal(
    rich: bool,
    run: Callable[..., int],
    cluster: MockCluster,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if rich:
        pytest.importorskip("rich")
    else:
        for name in [name for name in sys.modules if name.partition(".")[0] == "rich"] or ["rich"]:
            monkeypatch.setitem(sys.modules, name, None)
    path = tmp_path / "a.ndjson"
    path.write_text("1\n{\n3\n")
    shown = Terminal()
    monkeypatch.setattr(sys, "stderr", shown)
    monkeypatch.setenv("TERM", "xterm")
    assert run("t", path) == ExitStatus.FAILED
    assert f"{path}:2: not valid JSON" in shown.getvalue().replace("\n", "")
    assert "100 %" in shown.getvalue()
    assert "2 acknowledged  1 failed" in shown.getvalue()
    assert "2 records acknowledged in topic t, 1 failed" in shown.getvalue().splitlines()[-1]
    # From a pipe: nobody knows how much will come.
    stdin = io.TextIOWrapper(io.BufferedReader(io.BytesIO(b"one\n")))
    monkeypatch.setattr(sys, "stdin", stdin)
    shown.truncate(0)
    assert run("t") == ExitStatus.OK
    assert "%" not in shown.getvalue()
    assert "1 acknowledged" in shown.getvalue()


def test_rate(run: Callable[..., int], cluster: MockCluster, tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("x\n" * 60)
    start = time.monotonic()
    assert run("t", path, "--rate", "100") == 0
    # The first record leaves at once, the last one 59 hundredths of a second later.
    assert time.monotonic() - start >= 0.58
    assert cluster.count("t") == 60


@needs_signals
def test_interrupted_reading_still_sends_what_was_read(cluster: MockCluster, eventually: Eventually) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "kprod", "produce", "t", "--bootstrap", cluster.bootstrap_servers],
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=dict(os.environ),
    )
    assert process.stdin is not None
    with process:
        try:
            process.stdin.write(b"one\ntwo\n")
            process.stdin.flush()
            eventually(lambda: cluster.count("t") == 2)
            # Held back, so that they are under way when the signal comes.
            cluster.set_latency(300)
            process.stdin.write(b"three\nfour\n")
            process.stdin.flush()
            eventually(lambda: len(cluster.requests_of("Produce")) >= 2)
            process.send_signal(signal.SIGINT)
            assert process.stderr is not None
            err = process.stderr.read().decode()
            assert process.wait(30) == ExitStatus.INTERRUPTED
        finally:
            process.kill()
    assert "4 records acknowledged in topic t, 0 failed" in err
    assert [record.value for record in cluster.records("t")] == [b"one", b"two", b"three", b"four"]


@needs_signals
def test_second_interrupt_gives_up(cluster: MockCluster, eventually: Eventually) -> None:
    process = subprocess.Popen(
        [sys.executable, "-u", "-m", "kprod", "produce", "t", "--bootstrap", cluster.bootstrap_servers],
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=dict(os.environ),
    )
    assert process.stdin is not None
    assert process.stderr is not None
    with process:
        try:
            process.stdin.write(b"one\n")
            process.stdin.flush()
            eventually(lambda: cluster.count("t") == 1)
            cluster.inject("Produce", drop_response=True, times=None)
            process.stdin.write(b"two\n")
            process.stdin.flush()
            # It is under way, and will not be answered.
            eventually(lambda: len(cluster.requests_of("Produce")) == 2)
            process.terminate()
            line = process.stderr.readline().decode()
            assert "interrupted: what was read is still sent" in line
            process.terminate()
            err = process.stderr.read().decode()
            assert process.wait(30) == ExitStatus.INTERRUPTED
        finally:
            process.kill()
    assert "1 record acknowledged in topic t" in err
    assert "Traceback" not in err
