"""Processes and threads: fork, the end of the interpreter, Ctrl-C, many senders."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest

import kprod
from kprod import DeliveryFuture, KafkaError, KafkaProducer, RecordMetadata, errors
from kprod.testing import MockCluster
from tests.mock.conftest import MakeProducer, needs_signals

SOURCE = str(Path(kprod.__file__).parents[1])


def start(code: str, *arguments: str) -> subprocess.Popen[str]:
    """A Python process that runs `code`."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([SOURCE, os.environ.get("PYTHONPATH", "")])}
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code), *arguments],
        env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def finish(process: subprocess.Popen[str], timeout: float = 20) -> tuple[int, str, str]:
    try:
        out, err = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        out, err = process.communicate()
        pytest.fail(f"the process did not end; it said: {out}{err}")
    return process.returncode, out, err


# --- the end of the interpreter


def test_the_end_of_the_interpreter_delivers_everything(cluster: MockCluster) -> None:
    code, out, err = finish(
        start(
            """
            import sys
            from kprod import KafkaProducer
            producer = KafkaProducer(bootstrap_servers=sys.argv[1], linger_ms=60_000)
            for i in range(1000):
                producer.send("t", b"%d" % i, on_delivery=lambda error, metadata: None)
            print("end")
            """,
            cluster.bootstrap_servers,
        )
    )
    assert (code, out.strip(), err) == (0, "end", "")
    assert [record.value for record in cluster.records("t")] == [b"%d" % i for i in range(1000)]


def test_the_end_by_an_exception_delivers_everything(cluster: MockCluster) -> None:
    code, _, err = finish(
        start(
            """
            import sys
            from kprod import KafkaProducer
            producer = KafkaProducer(bootstrap_servers=sys.argv[1], linger_ms=60_000, compression_type="gzip")
            for i in range(1000):
                producer.send("t", b"%d" % i)
            raise ZeroDivisionError
            """,
            cluster.bootstrap_servers,
        )
    )
    assert code == 1
    assert "ZeroDivisionError" in err
    assert cluster.count("t") == 1000


def test_the_end_while_other_threads_send_crashes_nothing(cluster: MockCluster) -> None:
    code, out, err = finish(
        start(
            """
            import sys, threading
            from kprod import KafkaProducer, errors
            producer = KafkaProducer(bootstrap_servers=sys.argv[1], linger_ms=0)
            first = threading.Event()
            def send():
                try:
                    while True:
                        producer.send("t", b"v", on_delivery=lambda error, metadata: None)
                        first.set()
                except errors.ProducerClosedError:
                    pass
            for _ in range(4):
                threading.Thread(target=send, daemon=True).start()
            first.wait(10)
            print("end")
            """,
            cluster.bootstrap_servers,
        )
    )
    assert (code, out.strip(), err) == (0, "end", "")
    assert cluster.count("t") > 0


# --- fork


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_after_a_fork_the_child_is_refused_and_the_parent_goes_on(
    cluster: MockCluster, producer: KafkaProducer
) -> None:
    producer.send("t", b"parent").get(10)
    pending = producer.send("t", b"parent")
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        # Nothing of pytest may run here: report, and leave without cleaning up.
        said = []
        for action in (
            lambda: producer.send("t", b"child"),
            lambda: producer.send("other", b"child"),
            lambda: producer.partitions_for("other"),
            lambda: producer.flush(),
            lambda: producer.purge(),
            lambda: producer.close(),
        ):
            try:
                action()
                said.append("ok")
            except BaseException as error:
                said.append(type(error).__name__)
        os.write(writer, " ".join(said).encode())
        os._exit(0)
    os.close(writer)
    readable, _, _ = select.select([reader], [], [], 15)
    if not readable:
        os.kill(child, signal.SIGKILL)
    said = os.read(reader, 1000).decode().split() if readable else ["hangs"]
    os.waitpid(child, 0)
    os.close(reader)
    assert said == ["ForkedProcessError"] * 5 + ["ok"]
    assert pending.get(10).offset == 1
    assert producer.send("t", b"parent").get(10).offset == 2
    assert {record.value for record in cluster.records("t")} == {b"parent"}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_child_can_make_a_producer_of_its_own(cluster: MockCluster) -> None:
    code, out, err = finish(
        start(
            """
            import os, sys
            from kprod import KafkaProducer
            parent = KafkaProducer(bootstrap_servers=sys.argv[1])
            parent.send("t", b"parent").get(10)
            children = []
            for i in range(3):
                child = os.fork()
                if child == 0:
                    with KafkaProducer(bootstrap_servers=sys.argv[1]) as own:
                        own.send("t", b"child").get(10)
                    sys.exit(7)
                children.append(child)
            print([os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children])
            parent.send("t", b"parent").get(10)
            """,
            cluster.bootstrap_servers,
        )
    )
    assert (code, out.strip()) == (0, "[7, 7, 7]"), err
    assert sorted(record.value or b"" for record in cluster.records("t")) == [b"child"] * 3 + [b"parent"] * 2


# --- Ctrl-C


@needs_signals
@pytest.mark.parametrize(
    "wait",
    [
        "future.get()",
        "producer.flush()",
        "producer.send('no-such-topic', b'v')",
        "[producer.send('t', bytes(5000)) for _ in range(100)]",
        "producer.close()",
    ],
)
def test_ctrl_c_ends_a_wait_promptly(cluster: MockCluster, wait: str) -> None:
    process = start(
        f"""
        import sys
        from kprod import KafkaProducer
        producer = KafkaProducer(bootstrap_servers=sys.argv[1], buffer_memory=100_000)
        producer.send("t", b"warm").get(10)
        print("ready", flush=True)
        sys.stdin.readline()
        future = producer.send("t", b"v")
        try:
            print("waiting", flush=True)
            {wait}
        except KeyboardInterrupt:
            print("interrupted", flush=True)
            producer.close(0)
        """,
        cluster.bootstrap_servers,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    cluster.set_unreachable(1)
    assert process.stdin is not None
    process.stdin.write("go\n")
    process.stdin.flush()
    assert process.stdout.readline() == "waiting\n"
    # It may take a moment from there to the wait itself.
    deadline = time.monotonic() + 10
    said = ""
    while "interrupted" not in said and time.monotonic() < deadline:
        process.send_signal(signal.SIGINT)
        readable, _, _ = select.select([process.stdout], [], [], 0.3)
        if readable:
            said += process.stdout.readline()
            break
    assert said == "interrupted\n"
    code, _, err = finish(process, timeout=10)
    assert code == 0, err


# --- threads


def test_many_threads_share_a_producer(cluster: MockCluster, make_producer: MakeProducer) -> None:
    cluster.create_topic("many", partitions=5)
    producer = make_producer(linger_ms=1, batch_size=4000)
    reported: list[RecordMetadata] = []
    futures: dict[int, list[DeliveryFuture]] = {}

    def report(error: KafkaError | None, metadata: RecordMetadata) -> None:
        assert error is None
        reported.append(metadata)

    def send(number: int) -> None:
        futures[number] = [
            producer.send("many", b"%d %d" % (number, i), key=b"%d" % number, on_delivery=report)
            for i in range(1000)
        ]

    threads = [threading.Thread(target=send, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    producer.flush(20)
    records = cluster.records("many")
    assert len(records) == len(reported) == 8000
    for number in range(8):
        mine = [record.value for record in records if record.key == b"%d" % number]
        assert mine == [b"%d %d" % (number, i) for i in range(1000)]
        offsets = [future.get().offset for future in futures[number]]
        assert offsets == sorted(offsets)


def test_threads_that_send_flush_add_callbacks_and_close_at_once(
    cluster: MockCluster, make_producer: MakeProducer
) -> None:
    producer = make_producer(linger_ms=1, batch_size=1000)
    futures: list[DeliveryFuture] = []
    calls: list[object] = []
    raised: list[BaseException] = []

    def run(action: int) -> None:
        try:
            for i in range(300):
                if action == 0:
                    producer.flush(5)
                elif action == 1:
                    producer.metrics()
                else:
                    future = producer.send("t", b"%d" % i)
                    futures.append(future)
                    future.add_both(calls.append)
        except errors.ProducerClosedError:
            pass
        except BaseException as error:
            raised.append(error)

    threads = [threading.Thread(target=run, args=(action,)) for action in (0, 1, 2, 3, 4, 5)]
    for thread in threads:
        thread.start()
    while len(futures) < 500:
        assert not raised
    producer.close()
    for thread in threads:
        thread.join(20)
    assert raised == []
    assert all(future.done() for future in futures)
    assert len(calls) == len(futures)
    assert cluster.count("t") == sum(future.succeeded() for future in futures) == len(futures)


def test_many_producers_in_one_process(cluster: MockCluster, make_producer: MakeProducer) -> None:
    producers = [make_producer() for _ in range(10)]
    futures = [producer.send("t", b"v") for producer in producers for _ in range(10)]
    assert sorted(future.get(10).offset for future in futures) == list(range(100))


def test_producers_that_come_and_go_leave_nothing_behind(cluster: MockCluster) -> None:
    def open_files() -> int:
        return len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0

    def once() -> None:
        with KafkaProducer(bootstrap_servers=cluster.bootstrap_servers) as producer:
            producer.send("t", b"v").get(10)

    once()
    threads, files = threading.active_count(), open_files()
    for _ in range(20):
        once()
    assert threading.active_count() == threads
    # The cluster is in this process too, and may close its ends a moment later.
    deadline = time.monotonic() + 10
    while open_files() > files and time.monotonic() < deadline:
        time.sleep(0.01)
    assert open_files() <= files
