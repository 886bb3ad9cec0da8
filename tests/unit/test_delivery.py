"""From error codes to exceptions: types, texts, and whether the record may have been written."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from kprod import delivery, errors
from kprod.delivery import DeliveryReporter
from kprod.errors import KafkaError

CORE = Path(delivery.__file__).parent / "_core"


class Fixture:
    fatal: KafkaError | None = None
    refusal: KafkaError | None = None

    def __init__(self) -> None:
        self.reporter = DeliveryReporter(
            lambda node: f"{node} at h:1" if node >= 0 else None,
            lambda topic, partition: f"<the leader of {topic}-{partition}>",
            lambda topic, partition: self.refusal,
            lambda: self.fatal,
            lambda: errors.IllegalStateError("no transaction"),
            buffer_memory=1000,
            max_block_ms=60.0,
            delivery_timeout_ms=120_000.0,
        )

    def error(self, code: int, message: str | None = None, **changes: Any) -> KafkaError:
        arguments: dict[str, Any] = {
            "topic": "t", "partition": 3, "node_id": 1, "persisted": "no", "attempts": 2, "age_ms": 120_001.4,
            "last_error": 0, "count": 5,
        }  # fmt: skip
        return self.reporter.delivery_error(code, message, **{**arguments, **changes})


@pytest.fixture
def reporter() -> Fixture:
    return Fixture()


def test_codes_are_those_of_the_core() -> None:
    structs = CORE / "structs.pxd"
    if not structs.exists():
        pytest.skip("a wheel has no Cython sources; the source tree's tests have checked this")
    values = dict(re.findall(r"^    ERROR_(\w+) = (-\d+)", structs.read_text(), re.MULTILINE))
    ours = {
        name: value for name, value in vars(delivery).items() if name.isupper() and isinstance(value, int)
    }
    for name, value in ours.items():
        if value < 0:
            assert int(values[name]) == value, name


@pytest.mark.parametrize("persisted", ["no", "possibly"])
def test_every_error_says_where_and_whether_it_was_written(reporter: Fixture, persisted: str) -> None:
    for code in (-1, 2, 6, 10, 87, *range(-1014, -1000)):
        error = reporter.error(code, persisted=persisted)
        assert isinstance(error, KafkaError), code
        assert (error.topic, error.partition, error.broker, error.persisted) == (
            "t",
            3,
            "1 at h:1",
            persisted,
        )
        assert str(error), code


def test_a_brokers_error_has_its_class_and_the_brokers_words(reporter: Fixture) -> None:
    assert type(reporter.error(10)) is errors.MessageSizeTooLargeError
    assert "too big" in str(reporter.error(10, "too big"))
    assert errors.MessageSizeTooLargeError.description in str(reporter.error(10))
    assert type(reporter.error(-1)) is errors.UnknownError


def test_a_code_that_nobody_knows_is_an_error_too(reporter: Fixture) -> None:
    assert "12345" in str(reporter.error(12345))


def test_expired(reporter: Fixture) -> None:
    error = reporter.error(delivery.EXPIRED, attempts=0)
    assert type(error) is errors.KafkaTimeoutError
    text = str(error)
    assert "5 record(s) for t-3 expired: 120001 ms have passed since their batch was opened" in text
    assert "delivery_timeout_ms is 120000" in text
    assert "never sent: <the leader of t-3>" in text


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"attempts": 1}, "sent once, no answer yet"),
        ({"attempts": 4}, "sent 4 times, no answer yet"),
        ({"attempts": 4, "last_error": 19}, "sent 4 times, last error: NOT_ENOUGH_REPLICAS"),
        ({"last_error": delivery.DISCONNECTED}, "sent 2 times, last error: the connection was lost"),
        ({"last_error": delivery.REQUEST_TIMED_OUT}, "last error: no answer within request_timeout_ms"),
        ({"last_error": delivery.BAD_RESPONSE}, "last error: the broker's answer was malformed"),
    ],
)
def test_the_history_of_a_batch_is_told(reporter: Fixture, changes: dict[str, Any], text: str) -> None:
    for code in (delivery.EXPIRED, delivery.CLOSED, delivery.WAIT_TIMED_OUT, delivery.TOO_MANY_RETRIES):
        assert text in str(reporter.error(code, **changes))


def test_too_many_retries_is_the_last_error(reporter: Fixture) -> None:
    assert type(reporter.error(delivery.TOO_MANY_RETRIES, last_error=19)) is errors.NotEnoughReplicasError
    lost = reporter.error(delivery.TOO_MANY_RETRIES, last_error=delivery.DISCONNECTED)
    assert type(lost) is errors.KafkaConnectionError
    assert "retries allows no more attempts" in str(lost)


@pytest.mark.parametrize(
    ("code", "kind", "text"),
    [
        (delivery.CLOSED, errors.ProducerClosedError, "closed before the record was acknowledged"),
        (delivery.PURGED_QUEUE, errors.PurgedError, "in the queue"),
        (delivery.PURGED_IN_FLIGHT, errors.PurgedError, "in flight"),
        (delivery.SIBLING_RECORD, errors.InvalidDifferentRecordError, "because of another record"),
        (delivery.DISCONNECTED, errors.KafkaConnectionError, "the connection was lost"),
        (delivery.WAIT_TIMED_OUT, errors.KafkaTimeoutError, "not decided yet"),
        (
            delivery.BUFFER_EXHAUSTED,
            errors.BufferExhaustedError,
            r"buffer_memory \(1000 bytes\) .*max_block_ms is 60",
        ),
    ],
)
def test_the_clients_own_errors(reporter: Fixture, code: int, kind: type[KafkaError], text: str) -> None:
    error = reporter.error(code)
    assert type(error) is kind
    assert re.search(text, str(error))


def test_after_a_fatal_error_records_fail_with_it(reporter: Fixture) -> None:
    reporter.fatal = errors.ClusterAuthorizationFailedError("not you")
    error = reporter.error(delivery.FATAL)
    assert type(error) is errors.ClusterAuthorizationFailedError
    assert "cannot send any more" in str(error)
    assert "not you" in str(error)
    refused = reporter.reporter.gate_error(delivery.GATE_FATAL)
    assert refused.__cause__ is reporter.fatal
    assert "close it" in str(refused)


def test_why_send_is_refused(reporter: Fixture) -> None:
    assert type(reporter.reporter.gate_error(delivery.GATE_CLOSED)) is errors.ProducerClosedError
    forked = reporter.reporter.gate_error(delivery.GATE_FORKED)
    assert type(forked) is errors.ForkedProcessError
    assert "make a new KafkaProducer in the child" in str(forked)


def test_without_a_transaction_the_state_machine_says_why(reporter: Fixture) -> None:
    assert "no transaction" in str(reporter.reporter.gate_error(delivery.GATE_NO_TRANSACTION))


def test_reasons_in_words() -> None:
    assert delivery.reason_text(6) == "NOT_LEADER_OR_FOLLOWER"
    assert delivery.reason_text(delivery.DISCONNECTED) == "the connection was lost"
