"""How a connection to one address is set up: back-off, addresses, versions."""

from __future__ import annotations

import socket
from typing import Any

import pytest

from kprod.cluster.node import REFUSALS_BEFORE_GIVING_UP, Address, Backoff, Node, State
from kprod.errors import SaslAuthenticationFailedError
from kprod.protocol import (
    API_VERSIONS,
    METADATA,
    PRODUCE,
    ProtocolError,
    decode_request,
    decode_request_header,
    encode_response,
)

ONE: Address = (socket.AF_INET, ("10.0.0.1", 9092))
TWO: Address = (socket.AF_INET6, ("::1", 9092, 0, 0))


@pytest.fixture
def node() -> Node:
    return Node(1, "kafka-1", 9092, Backoff(0.1, 1.0), Backoff(10.0, 30.0))


# --- pauses


def test_pauses_double_up_to_the_limit_with_jitter() -> None:
    backoff = Backoff(0.1, 1.0)
    middle = [backoff.pause(n, lambda: 0.5) for n in range(7)]
    assert middle == pytest.approx([0, 0.1, 0.2, 0.4, 0.8, 1.0, 1.0])
    assert backoff.pause(1, lambda: 0.0) == pytest.approx(0.08)
    assert backoff.pause(1, lambda: 1.0) == pytest.approx(0.12)
    assert backoff.pause(10_000, lambda: 0.5) == pytest.approx(1.0)
    assert all(0.8 <= backoff.pause(9) <= 1.2 for _ in range(100))


def test_a_limit_below_the_base_does_not_shorten_it() -> None:
    assert Backoff(2.0, 1.0).pause(3, lambda: 0.5) == pytest.approx(2.0)


def test_no_pause_stays_none() -> None:
    assert Backoff(0.0, 0.0).pause(5) == 0


# --- attempts


def test_the_host_is_resolved_before_the_first_attempt(node: Node) -> None:
    assert node.may_connect(0.0)
    assert node.begin(0.0) is None
    states = [node.state]
    assert not node.may_connect(0.0)
    assert node.resolved([ONE]) == ONE
    states.append(node.state)
    assert states == [State.RESOLVING, State.CONNECTING]
    assert node.attempts == 1


def test_a_failure_waits_longer_each_time(node: Node) -> None:
    waits = []
    now = 100.0
    for _ in range(5):
        node.begin(now)
        node.resolved([ONE])
        node.failed(now, "refused")
        assert node.state is State.IDLE
        assert node.last_error == "refused"
        assert not node.may_connect(now)
        waits.append(node.next_attempt_at - now)
        now = node.next_attempt_at
        assert node.may_connect(now)
    for wait, expected in zip(waits, (0.1, 0.2, 0.4, 0.8, 1.0), strict=True):
        assert expected * 0.8 <= wait <= expected * 1.2
    assert node.failures == 5


def test_the_time_an_attempt_may_take_grows_with_failures(node: Node) -> None:
    limits = []
    for _ in range(4):
        node.begin(0.0)
        limits.append(node.deadline)
        node.resolved([ONE])
        node.failed(0.0, "slow")
    assert limits == pytest.approx([10, 20, 30, 30])


def test_the_next_address_of_a_host_is_tried_at_once(node: Node) -> None:
    node.begin(0.0)
    assert node.resolved([ONE, TWO]) == ONE
    node.failed(5.0, "refused")
    assert node.failures == 0, "the host has not failed yet"
    assert node.may_connect(5.0)
    assert node.begin(5.0) == TWO
    assert node.state is State.CONNECTING
    node.failed(6.0, "refused too")
    assert node.failures == 1
    assert not node.may_connect(6.0)
    assert node.begin(10.0) is None, "then it is resolved anew"


def test_being_ready_ends_the_back_off(node: Node) -> None:
    for _ in range(4):
        node.begin(0.0)
        node.resolved([ONE])
        node.failed(0.0, "refused")
    node.begin(9.0)
    node.resolved([ONE, TWO])
    node.ready(9.5)
    assert node.state is State.READY
    assert (node.failures, node.ready_at) == (0, 9.5)
    node.failed(20.0, "the connection was lost")
    assert node.next_attempt_at - 20.0 <= 0.12
    assert node.versions == {}


def test_a_connection_closed_for_idleness_is_made_again_without_a_pause(node: Node) -> None:
    node.begin(0.0)
    node.resolved([ONE])
    node.ready(0.0)
    node.closed_idle()
    assert node.may_connect(0.0)
    assert (node.failures, node.generation, node.ready_at) == (0, -1, None)


def test_a_new_address_is_tried_without_a_pause(node: Node) -> None:
    node.begin(0.0)
    node.resolved([ONE, TWO])
    node.failed(0.0, "refused")
    assert node.moved_to("kafka-1", 9092) is False
    assert node.moved_to("elsewhere", 9093) is True
    assert str(node) == "1 at elsewhere:9093"
    assert node.may_connect(0.0)
    assert node.begin(0.0) is None, "the old host's addresses mean nothing now"


def test_names() -> None:
    pause = Backoff(1, 1)
    assert str(Node(-1, "h", 1, pause, pause)) == "h:1"
    assert str(Node(3, "h", 1, pause, pause)) == "3 at h:1"
    assert "not connected" in repr(Node(3, "h", 1, pause, pause))


# --- versions


def answer(version: int, error: int, *ranges: tuple[int, int, int], **fields: Any) -> bytes:
    rows = [{"api_key": key, "min_version": low, "max_version": high} for key, low, high in ranges]
    return encode_response(API_VERSIONS, version, 0, {"error_code": error, "api_keys": rows, **fields})[4:]


def test_hello_is_the_newest_api_versions_request(node: Node) -> None:
    frame = node.hello("me")
    assert node.state is State.HANDSHAKE
    header = decode_request_header(frame[4:])
    assert (header.api_key, header.api_version, header.client_id) == (18, API_VERSIONS.versions[1], "me")
    _, body = decode_request(frame[4:])
    assert body["client_software_name"] == "kprod"


def test_ranges_are_learnt(node: Node) -> None:
    assert node.learn_versions(4, answer(4, 0, (0, 3, 99), (3, 0, 5))) is None
    assert node.version_of(PRODUCE) == PRODUCE.versions[1]
    assert node.version_of(PRODUCE, at_most=9) == 9
    assert node.version_of(METADATA) == 5
    assert node.version_of(METADATA, at_most=9) == 5
    assert node.version_of(API_VERSIONS) is None


def test_without_a_common_version_there_is_none(node: Node) -> None:
    node.learn_versions(4, answer(4, 0, (0, 0, PRODUCE.versions[0] - 1), (3, 1000, 1001)))
    assert node.version_of(PRODUCE) is None
    assert node.version_of(METADATA) is None


@pytest.mark.parametrize(
    ("sent", "highest", "again"),
    [(4, 3, 3), (4, 2, 2), (4, 0, 0), (3, 2, 2), (4, 4, 3), (1, 0, 0), (4, 9, 3)],
)
def test_an_older_broker_is_asked_again_in_its_own_version(
    node: Node, sent: int, highest: int, again: int
) -> None:
    assert node.learn_versions(sent, answer(0, 35, (18, 0, highest))) == again
    assert node.versions == {}


def test_a_broker_that_does_not_say_what_it_knows_is_asked_in_version_zero(node: Node) -> None:
    assert node.learn_versions(4, answer(0, 35)) == 0


def test_a_broker_that_refuses_version_zero_is_no_broker(node: Node) -> None:
    with pytest.raises(ProtocolError, match="error code 35"):
        node.learn_versions(0, answer(0, 35))


def test_an_error_is_reported(node: Node) -> None:
    with pytest.raises(ProtocolError, match="error code 58"):
        node.learn_versions(4, answer(4, 58))


@pytest.mark.parametrize(
    "frame", [b"", b"\0\0\0\0", b"\0\0\0\0\0", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\xff" * 40]
)
def test_what_is_no_answer_is_refused(node: Node, frame: bytes) -> None:
    with pytest.raises(ProtocolError):
        node.learn_versions(4, frame)


# --- refusals


def test_a_refusal_waits_longer_than_a_failure_and_ends_in_giving_up(node: Node) -> None:
    now = 0.0
    wrong = SaslAuthenticationFailedError("wrong password")
    for refusals in range(1, REFUSALS_BEFORE_GIVING_UP + 1):
        assert node.may_connect(now)
        node.begin(now)
        node.resolved([ONE, TWO])
        node.failed(now, "refused", wrong)
        assert (node.refusal, node.refusals) == (wrong, refusals)
        # Five times the usual pause; another address of the same broker is no way around it.
        assert not node.may_connect(now + 0.5 * 0.79)
        now += 100.0
    assert node.given_up
    assert not node.may_connect(now)
    node.demanded = True
    assert node.may_connect(now)
    node.begin(now)
    assert not node.demanded


def test_a_connection_that_becomes_ready_forgets_refusals(node: Node) -> None:
    node.failed(0.0, "refused", SaslAuthenticationFailedError("wrong password"))
    node.ready(1.0)
    assert (node.refusal, node.refusals) == (None, 0)
    node.failed(2.0, "the connection was lost")
    assert node.refusal is None
    assert isinstance(node.last_refusal, SaslAuthenticationFailedError)
