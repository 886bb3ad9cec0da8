"""Parts of the kprod command that need no cluster."""

from __future__ import annotations

import importlib.util
import io
import json
import random
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import pytest

from kprod._core.murmur2 import murmur2 as murmur2_of_the_core
from kprod.cli import main
from kprod.commands import figures, progress
from kprod.commands.demo_checks import Check, Tally, TopicAudit, compare, fingerprint, murmur2
from kprod.commands.demo_events import STREAMS, generate_events
from kprod.commands.demo_reading import ReadRecord, find_reader
from kprod.commands.exit_status import ExitStatus
from kprod.commands.pace import Pace, block_for
from kprod.commands.perf_measurement import percentiles
from kprod.commands.progress import Standing, choose_display
from kprod.commands.properties import parse_properties


def hide(monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    """As if it were not installed, also where it was imported before."""
    for name in [package, *(name for name in sys.modules if name.startswith(f"{package}."))]:
        monkeypatch.setitem(sys.modules, name, None)


# --- arguments ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["produce", "perf", "demo"])
def test_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit:
        main([command, "--help"])
    assert exit.value.code == 0
    out = capsys.readouterr().out
    assert f"usage: kprod {command}" in out
    assert "exit status: 0 everything acknowledged" in out


def test_version_and_no_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit:
        main(["--version"])
    assert exit.value.code == 0
    assert capsys.readouterr().out.startswith("kprod ")
    with pytest.raises(SystemExit) as exit:
        main([])
    assert exit.value.code == ExitStatus.UNUSABLE


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["a topic"], "topic may only have ASCII letters"),
        (["t", "{ndjson}", "--acks", "7"], "acks='7' is not accepted"),
        (["t", "{ndjson}", "-c", "lingerms=5"], "Did you mean 'linger_ms'?"),
        (["t", "{ndjson}", "-c", "linger.ms"], "NAME=VALUE; there is no '=' after 'linger.ms'"),
        (["t", "{ndjson}", "-c", "linger.ms=1", "-c", "linger_ms=2"], "given twice"),
        (["t", "{ndjson}", "-c", "transactional.id=x"], "transactional.id is set"),
        (["t", "{ndjson}", "--config-file", "nothing"], "nothing cannot be read"),
        (["t", "{ndjson}", "--pattern", "x"], "--pattern is for lines"),
        (["t", "{ndjson}", "--null", "x"], "--null is for CSV"),
        (["t", "{lines}", "--key", "id"], "--key names a field, but"),
        (["t", "{lines}", "--header", "a=b"], "--header names a field, but"),
        (["t", "{lines}", "--key-regex", "("], "'(' is not a regular expression"),
        (["t", "{lines}", "--key-regex", "a", "--key-separator", "b"], "both say where the key is"),
        (["t", "{lines}", "--key-separator", ""], "must not be empty"),
        (["t", "{lines}", "--key-separator", ":", "--value", "x"], "cannot be combined"),
        (["t", "{lines}", "--pattern", "(?P<a>x)", "--key", "b"], "not a named group of --pattern"),
        (["t", "{lines}", "--format", "file", "--key", "b"], "there is path, name, stem"),
        (["t", "{csv}", "--key", "user"], "no column 'user'"),
        (["t", "{csv}", "--delimiter", "ab"], "--delimiter must be one character"),
        (["t", "{csv}", "--header", "novalue"], "NAME=FIELD, not 'novalue'"),
        (["t", "{csv}", "--constant-header", "=x"], "NAME=TEXT, not '=x'"),
        (["t", "-", "-"], "only be read once"),
        (["t", "{folder}"], "cannot be read"),
    ],
)
def test_produce_refuses(
    arguments: list[str], problem: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = {"ndjson": tmp_path / "a.ndjson", "lines": tmp_path / "a.log", "csv": tmp_path / "a.csv"}
    files["ndjson"].write_text("{}\n")
    files["lines"].write_text("line\n")
    files["csv"].write_text("id\n1\n")
    status = main(["produce", *(text.format(**files, folder=tmp_path) for text in arguments)])
    assert status == ExitStatus.UNUSABLE
    captured = capsys.readouterr()
    assert problem in captured.err
    assert captured.err.startswith("kprod produce: error: ")
    assert captured.out == ""


@pytest.mark.parametrize(
    "arguments",
    [
        ["produce"],
        ["produce", "t", "--rate", "0"],
        ["produce", "t", "--limit", "0"],
        ["produce", "t", "--partition", "-1"],
        ["produce", "t", "--max-errors", "x"],
        ["produce", "t", "--form", "csv"],
        ["perf", "--topic", "t"],
        ["perf", "--topic", "t", "--num-records", "0", "--record-size", "1"],
        ["perf", "--topic", "t", "--num-records", "1", "--record-size", "1", "--throughput", "-2"],
        ["demo", "--codec", "brotli"],
    ],
)
def test_arguments_out_of_range(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit:
        main(arguments)
    assert exit.value.code == ExitStatus.UNUSABLE
    assert "usage: kprod" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--record-size", "1", "--payload-file", "x"], "either --record-size or --payload-file"),
        ([], "either --record-size or --payload-file"),
        (["--payload-file", "nothing"], "nothing cannot be read"),
        (["--record-size", "1", "--warmup-records", "10"], "leaves nothing to measure"),
        (["--record-size", "1", "--mock", "--bootstrap", "x:1"], "leave out --bootstrap"),
        (["--record-size", "1000001", "--mock", "--num-records", "2200"], "keeps all records in memory"),
        (["--record-size", "1048577", "--mock"], "max.request.size is 1048576"),
        (["--record-size", "1", "--producer-props", "lingers=1"], "There is no option 'lingers'"),
    ],
)
def test_perf_refuses(arguments: list[str], problem: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["perf", "--topic", "t", "--num-records", "10", *arguments]) == ExitStatus.UNUSABLE
    assert problem in capsys.readouterr().err


def test_plot_without_matplotlib(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    hide(monkeypatch, "matplotlib")
    monkeypatch.delitem(sys.modules, "kprod.commands.perf_plot", raising=False)
    arguments = ["perf", "--topic", "t", "--num-records", "1", "--record-size", "1", "--plot", "x.png"]
    assert main(arguments) == ExitStatus.UNUSABLE
    assert "pip install 'kprod[cli]'" in capsys.readouterr().err


def test_real_brokers_of_the_demo_need_a_consumer(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("confluent_kafka", "kafka"):
        monkeypatch.setitem(sys.modules, name, None)
    assert find_reader({"none"}) is None
    assert main(["demo", "--bootstrap", "localhost:9092"]) == ExitStatus.UNUSABLE
    assert "pip install kafka-python" in capsys.readouterr().err


# --- property files -----------------------------------------------------------------------------------------


def test_properties() -> None:
    text = (
        "# comment\n! comment\n\nbootstrap.servers = a:1,b:2\r\nlinger.ms:5\nname value with spaces \n"
        "long=one,\\\n   two\\\\\nnot\\ a\\=separator=x\n empty\nempty2=\n"
        "unicode=\\u00e4\\t\\q\ntwice=1\ntwice=2\n"
        "# not continued\\\nlast=\\"
    )
    assert parse_properties(text) == {
        "bootstrap.servers": "a:1,b:2",
        "linger.ms": "5",
        "name": "value with spaces ",
        "long": "one,two\\",
        "not a=separator": "x",
        "empty": "",
        "empty2": "",
        "unicode": "ä\tq",
        "twice": "2",
        "last": "",
    }
    with pytest.raises(ValueError, match="four hexadecimal digits"):
        parse_properties("a=\\u00")


# --- figures, pace, progress --------------------------------------------------------------------------------


def test_figures() -> None:
    assert figures.count(1, "record") == "1 record"
    assert figures.count(12345, "record") == "12,345 records"
    assert [figures.size(n) for n in (0, 999, 1000, 999_960, 12_345_678, 2e15)] == [
        "0 B",
        "999 B",
        "1.0 KB",
        "1.0 MB",
        "12.3 MB",
        "2000.0 TB",
    ]
    assert [figures.duration(s) for s in (0.5, 9.996, 99.96, 184, 7500)] == [
        "0.50 s",
        "10.0 s",
        "1 min 40 s",
        "3 min 04 s",
        "2 h 05 min",
    ]
    assert figures.rate(100, 0) == "-"


def test_pace_keeps_to_the_rate() -> None:
    start = time.perf_counter()
    pace = Pace(1000)
    for _ in range(30):
        pace.wait(10)
    # The last wait is for the end of the one before it.
    assert 0.28 < time.perf_counter() - start < 3


def test_pace_does_not_make_up_for_long_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: clock[0])
    slept: list[float] = []
    monkeypatch.setattr(time, "sleep", slept.append)
    pace = Pace(10)
    pace.wait(1)
    clock[0] = 100.0
    for _ in range(8):
        pace.wait(1)
    # Half a second's worth at once, then at the rate again.
    assert slept == pytest.approx([0.1, 0.2])


def test_blocks_are_short_bursts() -> None:
    assert [block_for(rate, 512) for rate in (0.5, 200, 20_000, 10**9)] == [1, 1, 100, 512]


@pytest.mark.parametrize("rich", [False, True])
def test_progress_on_a_terminal(rich: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if rich:
        pytest.importorskip("rich")
    else:
        hide(monkeypatch, "rich")

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    shown = Terminal()
    monkeypatch.setattr(sys, "stderr", shown)
    monkeypatch.setenv("TERM", "xterm")
    standing = Standing(30, 100, "30 acknowledged")
    with choose_display(lambda: standing, None) as display:
        assert type(display) is (progress.BarDisplay if rich else progress.LineDisplay)
        display.message("a [message] that stays")
        standing = Standing(100, 100, "100 acknowledged")
    assert "a [message] that stays\n" in shown.getvalue()
    assert "100 %" in shown.getvalue()
    assert "100 acknowledged" in shown.getvalue()
    assert threading.active_count() == len([t for t in threading.enumerate() if t.name != "kprod-progress"])


def test_progress_in_a_log(monkeypatch: pytest.MonkeyPatch) -> None:
    log = io.StringIO()
    monkeypatch.setattr(sys, "stderr", log)
    monkeypatch.setattr(progress.LogDisplay, "interval_s", 0.001)
    seen = threading.Event()

    def standing() -> Standing:
        if log.getvalue():
            seen.set()
        return Standing(1, None, "figures")

    with choose_display(standing, True):
        assert seen.wait(10)
    lines = log.getvalue().splitlines()
    assert len(lines) >= 2
    assert set(lines) == {"figures"}


def test_no_progress_where_nobody_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    log = io.StringIO()
    monkeypatch.setattr(sys, "stderr", log)
    with choose_display(lambda: Standing(1, 1, "figures"), None) as display:
        display.message("message")
    assert log.getvalue() == "message\n"


# --- perf ---------------------------------------------------------------------------------------------------


def test_percentiles_are_nearest_rank() -> None:
    assert percentiles([]) == {}
    assert percentiles([5.0]) == {"50": 5.0, "95": 5.0, "99": 5.0, "99.9": 5.0}
    assert percentiles([float(n) for n in range(1, 1001)]) == {
        "50": 500.0,
        "95": 950.0,
        "99": 990.0,
        "99.9": 999.0,
    }


# --- demo ---------------------------------------------------------------------------------------------------


def test_events_are_the_same_for_the_same_seed() -> None:
    events = list(generate_events(20_000, 1))
    assert len(events) == 20_000
    assert events == list(generate_events(20_000, 1))
    assert events != list(generate_events(20_000, 2))
    # This is what the random numbers of every Python version give.
    tally = Tally()
    for event in events:
        tally.add_event(event)
    assert f"{tally.checksum:016x}" == "a8da2889f616231d"
    assert [len(list(generate_events(n, 1))) for n in (0, 1, 7)] == [0, 1, 7]


def test_events_are_a_day_in_order() -> None:
    events = list(generate_events(20_000, 1))
    times = [event.timestamp_ms for event in events]
    assert times == sorted(times)
    assert times[-1] - times[0] < 86_400_000
    sequences: Counter[tuple[str, bytes]] = Counter()
    for event in events:
        sequences[event.stream, event.key] += 1
        assert json.loads(event.value)["seq"] == sequences[event.stream, event.key]
    assert {stream for stream, _ in sequences} == {stream.name for stream in STREAMS}


def test_murmur2_of_the_demo_is_kafkas() -> None:
    rng = random.Random(1)
    for length in [*range(40), 1000]:
        data = rng.randbytes(length)
        assert murmur2(data) == murmur2_of_the_core(data) & 0xFFFFFFFF


def _audited(records: list[ReadRecord], partitions: int = 3) -> TopicAudit:
    audit = TopicAudit("t", partitions)
    for record in records:
        audit.add(record)
    return audit


def _sent_and_read() -> tuple[Tally, list[ReadRecord]]:
    sent = Tally()
    read = []
    for event in generate_events(300, 1):
        if event.stream == "clickstream":
            sent.add_event(event)
            partition = (murmur2(event.key) & 0x7FFFFFFF) % 3
            read.append(
                ReadRecord(partition, event.key, event.value, list(event.headers), event.timestamp_ms)
            )
    return sent, read


def _failed(checks: list[Check]) -> set[str]:
    return {check.name.split()[0] for check in checks if not check.passed}


def test_demo_passes_what_is_right_and_notices_what_is_wrong() -> None:
    sent, read = _sent_and_read()
    assert _failed(compare({"t": sent}, [_audited(read)])) == set()
    # Lost, and written twice.
    assert _failed(compare({"t": sent}, [_audited(read[:-1])])) == {"every", "with"}
    assert _failed(compare({"t": sent}, [_audited([*read, read[-1]])])) == {"every", "in", "with"}
    # On another partition.
    wrong = [read[0]._replace(partition=(read[0].partition + 1) % 3), *read[1:]]
    assert _failed(compare({"t": sent}, [_audited(wrong)])) == {"on"}
    # Two records of a key the other way round.
    first, second = [i for i, record in enumerate(read) if record.key == read[0].key][:2]
    swapped = list(read)
    swapped[first], swapped[second] = swapped[second], swapped[first]
    assert _failed(compare({"t": sent}, [_audited(swapped)])) == {"in"}
    # Another header, another timestamp.
    for changed in (read[3]._replace(headers=[]), read[3]._replace(timestamp_ms=1)):
        assert _failed(compare({"t": sent}, [_audited([*read[:3], changed, *read[4:]])])) == {"with"}


def test_fingerprints_differ() -> None:
    variants: list[tuple[bytes | None, bytes | None, list[tuple[str, bytes | None]], int]] = [
        (b"k", b"v", [("h", b"x")], 1),
        (b"kv", b"", [("h", b"x")], 1),
        (None, b"v", [("h", b"x")], 1),
        (b"k", None, [("h", b"x")], 1),
        (b"k", b"v", [("h", None)], 1),
        (b"k", b"v", [], 1),
        (b"k", b"v", [("h", b"x")], 2),
    ]
    assert len({fingerprint(*variant) for variant in variants}) == len(variants)


def test_report_of_the_demo_without_rich(capsys: pytest.CaptureFixture[str]) -> None:
    from kprod.commands.demo_report import Section, show_report

    show_report(None, [Section("Sent", [("records", "5")])], [Check("all there", False, "4 of 5")])
    out = capsys.readouterr().out
    assert "  records  5\n" in out
    assert "  WRONG  all there: 4 of 5\n" in out
    assert "1 of 1 checks failed." in out


def test_report_of_the_demo_with_rich() -> None:
    console_module = pytest.importorskip("rich.console")
    from kprod.commands.demo_report import Section, show_report

    out = io.StringIO()
    console = console_module.Console(file=out, width=100, highlight=False)
    show_report(console, [Section("Sent", [("records", "[5]")])], [Check("all there", True, "5 of 5")])
    assert "records" in out.getvalue()
    assert "[5]" in out.getvalue()
    assert "Everything is as it should be." in out.getvalue()


def test_matplotlib_is_not_imported_for_nothing() -> None:
    assert importlib.util.find_spec("kprod.commands.perf_plot") is not None
    for name in ("produce", "perf", "demo"):
        module = sys.modules[f"kprod.commands.{name}"]
        assert not hasattr(module, "matplotlib")
