"""kprod.logging.KafkaHandler: what arrives, what is counted, and that logging never waits nor fails."""

from __future__ import annotations

import json
import logging
import logging.config
import logging.handlers
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from kprod import KafkaProducer
from kprod.errors import KafkaConfigurationError
from kprod.logging import JsonFormatter, KafkaHandler, LogQueueFullError
from kprod.testing import MockCluster

NOWHERE = {"bootstrap_servers": "127.0.0.1:1"}


@pytest.fixture
def logger(request: pytest.FixtureRequest) -> Iterator[logging.Logger]:
    """A logger of the test's own, whose handlers are closed at the end."""
    made = logging.getLogger(f"shop.{request.node.name}")
    made.setLevel(logging.DEBUG)
    made.propagate = False
    yield made
    for handler in made.handlers[:]:
        made.removeHandler(handler)
        handler.close()


class Blocked:
    """Stands for a producer whose send() waits, as it does when Kafka is away."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.go = threading.Event()
        self.sent: list[Any] = []

    def send(self, topic: str, value: bytes, **rest: Any) -> None:
        self.entered.set()
        assert self.go.wait(30)
        self.sent.append(value)

    def flush(self, timeout: float) -> None:
        pass


def options(cluster: MockCluster) -> dict[str, Any]:
    return {"bootstrap_servers": cluster.bootstrap_servers}


def test_records_arrive_as_json(cluster: MockCluster, logger: logging.Logger) -> None:
    handler = KafkaHandler(options(cluster), "t", formatter=JsonFormatter({"service": "shop"}))
    logger.addHandler(handler)
    logger.info("order %d", 17, extra={"order": 17, "tags": {1}})
    try:
        raise ValueError("broken")
    except ValueError:
        logger.exception("failed")
    handler.flush()
    assert handler.delivered == 2
    first, second = cluster.records("t")
    line = json.loads(first.value or b"")
    assert line["message"] == "order 17"
    assert (line["level"], line["service"], line["order"], line["tags"]) == ("INFO", "shop", 17, "{1}")
    assert line["logger"] == logger.name
    assert line["timestamp"].endswith("Z")
    assert "ValueError: broken" in json.loads(second.value or b"")["exception"]
    assert first.timestamp <= second.timestamp


def test_order_key_and_formatter(cluster: MockCluster, logger: logging.Logger) -> None:
    handler = KafkaHandler(
        options(cluster), "t", key=lambda record: record.name, formatter=logging.Formatter("%(message)s")
    )
    logger.addHandler(handler)
    for number in range(500):
        logger.info("%d", number)
    handler.close()
    records = cluster.records("t")
    assert [record.value for record in records] == [b"%d" % number for number in range(500)]
    assert {record.key for record in records} == {logger.name.encode()}


def test_a_producer_that_is_given_stays_open(cluster: MockCluster, logger: logging.Logger) -> None:
    with KafkaProducer(**options(cluster)) as producer:
        handler = KafkaHandler(producer, "t", key="k")
        logger.addHandler(handler)
        logger.info("x")
        handler.close()
        assert handler.delivered == 1
        producer.send("t", b"more").get(10)
    assert cluster.count("t") == 2


def test_a_full_queue_drops_and_counts(logger: logging.Logger) -> None:
    producer = Blocked()
    handler = KafkaHandler(producer, "t", queue_size=3)  # type: ignore[arg-type]
    logger.addHandler(handler)
    logger.info("0")
    assert producer.entered.wait(30)
    for number in range(1, 10):
        logger.info("%d", number)
    assert handler.dropped == 6
    producer.go.set()
    handler.flush()
    assert [json.loads(line)["message"] for line in producer.sent] == ["0", "1", "2", "3"]


def test_a_full_queue_raises_if_told_to(logger: logging.Logger) -> None:
    producer = Blocked()
    handler = KafkaHandler(producer, "t", queue_size=1, on_full="raise")  # type: ignore[arg-type]
    logger.addHandler(handler)
    logger.info("0")
    assert producer.entered.wait(30)
    logger.info("1")
    with pytest.raises(LogQueueFullError, match="queue_size=1 log records wait for topic t"):
        logger.info("2")
    assert handler.dropped == 1
    producer.go.set()


def test_without_kafka_nothing_is_raised_and_close_ends_in_time(logger: logging.Logger) -> None:
    handler = KafkaHandler(NOWHERE, "t", close_timeout_ms=100)
    logger.addHandler(handler)
    for _ in range(10):
        logger.error("x")
    handler.close()
    logger.error("late")
    assert not handler._thread.is_alive()
    assert (handler.delivered, handler.failed + handler.dropped) == (0, 11)


def test_kafka_may_come_up_after_the_program(
    cluster: MockCluster, logger: logging.Logger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kprod.logging._RECONNECT_S", 0.02)
    node = cluster.leader("t")
    cluster.stop_broker(node)
    handler = KafkaHandler(options(cluster), "t")
    logger.addHandler(handler)
    logger.info("early")
    cluster.start_broker(node)
    assert cluster.wait_for(1, "t") == 1
    handler.close()
    assert handler.delivered == 1


def test_what_cannot_be_delivered_is_counted(cluster: MockCluster, logger: logging.Logger) -> None:
    handler = KafkaHandler({**options(cluster), "max_request_size": 2000}, "t")
    logger.addHandler(handler)
    logger.info("x" * 5000)
    cluster.inject("Produce", error="TOPIC_AUTHORIZATION_FAILED", times=1)
    logger.info("refused")
    handler.flush()
    logger.info("good")
    handler.flush()
    assert (handler.failed, handler.delivered, handler.dropped) == (2, 1, 0)


def test_kprods_own_records_are_left_out(cluster: MockCluster) -> None:
    handler = KafkaHandler(options(cluster), "t")
    own = logging.getLogger("kprod.engine")
    root = logging.getLogger()
    root.addHandler(handler)
    try:
        own.error("trouble")
        logging.getLogger("kprodigy").error("another's")
        handler.flush()
    finally:
        root.removeHandler(handler)
        handler.close()
    assert [json.loads(record.value or b"")["message"] for record in cluster.records("t")] == ["another's"]


def test_a_serializer_that_logs_does_not_feed_itself(cluster: MockCluster, logger: logging.Logger) -> None:
    def serialize(value: bytes) -> bytes:
        logger.info("serializing")
        return value

    handler = KafkaHandler({**options(cluster), "value_serializer": serialize}, "t")
    logger.addHandler(handler)
    logger.info("once")
    handler.close()
    assert cluster.count("t") == 1


def test_a_record_that_cannot_be_formatted(
    cluster: MockCluster, logger: logging.Logger, capsys: pytest.CaptureFixture[str]
) -> None:
    handler = KafkaHandler(options(cluster), "t")
    logger.addHandler(handler)
    handler.handle(logging.makeLogRecord({"name": "shop", "msg": "%d", "args": ("no number",)}))
    logger.info("\ud800 alone")
    handler.flush()
    assert "--- Logging error ---" in capsys.readouterr().err
    assert handler.delivered == 1


def test_dict_config(cluster: MockCluster) -> None:
    logging.config.dictConfig(
        {
            "version": 1,
            "disable_existing_loggers": False,
            "formatters": {"json": {"()": "kprod.logging.JsonFormatter", "static": {"env": "test"}}},
            "handlers": {
                "kafka": {
                    "class": "kprod.logging.KafkaHandler",
                    "formatter": "json",
                    "level": "WARNING",
                    "producer": options(cluster),
                    "topic": "t",
                }
            },
            "loggers": {"shop.configured": {"handlers": ["kafka"], "level": "DEBUG"}},
        }
    )
    logger = logging.getLogger("shop.configured")
    (handler,) = logger.handlers
    logger.info("not this")
    logger.warning("this")
    handler.close()
    logger.removeHandler(handler)
    (record,) = cluster.records("t")
    assert json.loads(record.value or b"")["env"] == "test"


def test_behind_a_queue_handler(cluster: MockCluster, logger: logging.Logger) -> None:
    records: queue.Queue[Any] = queue.Queue()
    handler = KafkaHandler(options(cluster), "t")
    listener = logging.handlers.QueueListener(records, handler)
    logger.addHandler(logging.handlers.QueueHandler(records))
    listener.start()
    logger.info("order %d", 17)
    listener.stop()
    handler.close()
    (record,) = cluster.records("t")
    assert json.loads(record.value or b"")["message"] == "order 17"


def test_at_the_end_of_a_program_what_was_logged_is_delivered(cluster: MockCluster) -> None:
    program = (
        "import logging, kprod.logging\n"
        f"logging.getLogger().addHandler(kprod.logging.KafkaHandler({options(cluster)!r}, 't'))\n"
        "for number in range(100): logging.warning('%d', number)\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
    assert cluster.count("t") == 100


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork() on this platform")
def test_a_child_process_has_a_producer_of_its_own(cluster: MockCluster) -> None:
    program = (
        "import logging, os, kprod.logging\n"
        f"handler = kprod.logging.KafkaHandler({options(cluster)!r}, 't')\n"
        "logging.getLogger().addHandler(handler)\n"
        "logging.warning('parent')\n"
        "handler.flush()\n"
        "child = os.fork()\n"
        "logging.warning('child' if child == 0 else 'parent again')\n"
        "handler.close()\n"
        "if child == 0: os._exit(0)\n"
        "assert os.waitpid(child, 0)[1] == 0\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
    messages = sorted(json.loads(record.value or b"")["message"] for record in cluster.records("t"))
    assert messages == ["child", "parent", "parent again"]


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        ({"on_full": "block"}, "on_full='block': must be 'drop' or 'raise'"),
        ({"queue_size": 0}, "queue_size=0"),
        ({"close_timeout_ms": -1}, "close_timeout_ms=-1"),
        ({"topic": ""}, "topic=''"),
        ({"producer": "kafka:9092"}, "producer='kafka:9092': must be a KafkaProducer or a mapping"),
        ({"key": 3}, "key=3"),
        ({"producer": {"bootstrap_server": "x"}}, "bootstrap_servers"),
    ],
)
def test_arguments_that_are_not_accepted(arguments: dict[str, Any], what: str) -> None:
    with pytest.raises(KafkaConfigurationError, match=what):
        KafkaHandler(**{"producer": NOWHERE, "topic": "t", **arguments})
