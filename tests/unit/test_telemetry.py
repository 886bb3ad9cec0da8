"""Client telemetry without a network (KIP-714): the state machine, payloads, and their bytes."""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kprod import errors
from kprod._core import compression
from kprod.metric_names import GROUPS, NODE, PRODUCER, TOPIC, telemetry_name
from kprod.metrics import Figure
from kprod.protocol import GET_TELEMETRY_SUBSCRIPTIONS, PUSH_TELEMETRY, ZERO_UUID
from kprod.telemetry.collector import Collector, preferred_codec
from kprod.telemetry.otlp import Point, Series, metrics_data
from kprod.telemetry.reporter import DEFAULT_PUSH_INTERVAL_MS, TelemetryReporter
from kprod.telemetry.states import State
from tests.telemetry import Pushed, read_payload

STARTED_NS = 1_700_000_000_000_000_000
ASSIGNED = uuid.UUID("12345678-1234-5678-1234-567812345678")


class Producer:
    """Figures as a producer has them."""

    def __init__(self) -> None:
        self.sent = 0.0
        self.topics: dict[str, float] = {}

    def figures(self) -> Iterable[Figure]:
        yield Figure(PRODUCER, "record-send-total", self.sent, True, ())
        yield Figure(PRODUCER, "record-send-rate", 1.5, False, ())
        yield Figure(NODE, "request-total", 7, True, (("node-id", "node-1"),))
        for name, sent in self.topics.items():
            yield Figure(TOPIC, "record-send-total", sent, True, (("topic", name),))

    def collector(self, **resource: str) -> Collector:
        return Collector(self.figures, resource, STARTED_NS)


def subscribed(**fields: Any) -> dict[str, Any]:
    """The body of a GetTelemetrySubscriptions response."""
    return {
        "throttle_time_ms": 0,
        "error_code": 0,
        "client_instance_id": ASSIGNED.bytes,
        "subscription_id": -5,
        "accepted_compression_types": [],
        "push_interval_ms": 60_000,
        "telemetry_max_bytes": 1 << 20,
        "delta_temporality": True,
        "requested_metrics": ["*"],
        **fields,
    }


def pushed(error: str | None = None, throttle_time_ms: int = 0) -> dict[str, Any]:
    """The body of a PushTelemetry response."""
    return {"error_code": code(error) if error else 0, "throttle_time_ms": throttle_time_ms}


def code(name: str) -> int:
    return next(number for number, error in errors.BROKER_ERRORS.items() if error.name == name)


class Machine:
    """A reporter with the least random first push, and pauses of 1, 2, 3 ... s."""

    def __init__(self) -> None:
        self.producer = Producer()
        self.now_ns = STARTED_NS
        self.reporter = TelemetryReporter(
            self.producer.collector(),
            lambda failures: float(failures),
            lambda: self.now_ns,
            lambda low, high: low,
        )

    def expect(self, state: State) -> None:
        assert self.reporter.state is state

    def request(self, now: float) -> dict[str, Any]:
        """What is sent, which must be something; and nothing a moment earlier."""
        due_at = self.reporter.due_at()
        assert due_at is not None and due_at == pytest.approx(now)
        assert now == 0 or self.reporter.next_request(due_at - 0.001) is None
        request = self.reporter.next_request(due_at)
        assert request is not None and self.reporter.due_at() is None
        api, body = request
        assert api is (PUSH_TELEMETRY if "metrics" in body else GET_TELEMETRY_SUBSCRIPTIONS)
        return dict(body)

    def subscribe(self, now: float = 0.0, **fields: Any) -> None:
        self.request(now)
        self.reporter.on_subscriptions(subscribed(**fields), now)


def test_a_life() -> None:
    machine = Machine()
    reporter = machine.reporter
    machine.expect(State.SUBSCRIPTION_NEEDED)
    assert reporter.subscription is None
    assert machine.request(0) == {"client_instance_id": ZERO_UUID}
    machine.expect(State.SUBSCRIPTION_IN_PROGRESS)
    reporter.on_subscriptions(subscribed(accepted_compression_types=[9, 4, 1]), 10.0)
    assert reporter.subscription is not None
    assert reporter.subscription.client_instance_id == ASSIGNED
    machine.producer.sent = 3
    # The first push is jittered, and those after it are not.
    body = machine.request(10 + 30)
    metrics = body.pop("metrics")
    assert body == {
        "client_instance_id": ASSIGNED.bytes,
        "subscription_id": -5,
        "terminating": False,
        "compression_type": 4,
    }
    values = read_payload(compression.decompress(4, metrics, 1 << 20)).values
    assert values["producer.record.send.total",].value == 3
    machine.expect(State.PUSH_IN_PROGRESS)
    reporter.on_push(pushed(), 41.0, terminating=False)
    assert machine.request(41 + 60)["terminating"] is False
    reporter.on_push(pushed(throttle_time_ms=90_000), 102.0, terminating=False)
    assert reporter.due_at() == 102 + 90
    machine.request(192)
    reporter.least_interval_s = 200.0
    reporter.on_push(pushed(), 192.0, terminating=False)
    assert reporter.due_at() == 192 + 200
    reporter.begin_termination()
    assert machine.request(0)["terminating"] is True
    machine.expect(State.TERMINATING_PUSH_IN_PROGRESS)
    reporter.on_push(pushed("INVALID_RECORD"), 103.0, terminating=True)
    machine.expect(State.TERMINATED)
    assert reporter.next_request(1e9) is None
    assert reporter.subscription.client_instance_id == ASSIGNED


def test_the_first_push_is_between_half_and_one_and_a_half_intervals() -> None:
    moments = []
    for _ in range(50):
        reporter = TelemetryReporter(Producer().collector(), float, lambda: STARTED_NS)
        assert reporter.next_request(0.0) is not None
        reporter.on_subscriptions(subscribed(), 0.0)
        moments.append(reporter.due_at() or 0.0)
    assert 30 <= min(moments) < max(moments) <= 90
    assert len(set(moments)) > 40


def test_no_metrics_wanted_asks_again_after_the_interval() -> None:
    machine = Machine()
    machine.subscribe(requested_metrics=[])
    machine.expect(State.SUBSCRIPTION_NEEDED)
    assert machine.request(60) == {"client_instance_id": ASSIGNED.bytes}


@pytest.mark.parametrize(
    ("error", "pause"),
    [
        ("UNKNOWN_SUBSCRIPTION_ID", 0),
        ("UNSUPPORTED_COMPRESSION_TYPE", 0),
        ("TELEMETRY_TOO_LARGE", 60),
        ("THROTTLING_QUOTA_EXCEEDED", 60),
        ("INVALID_REQUEST", None),
        ("INVALID_RECORD", None),
        ("UNSUPPORTED_VERSION", None),
        ("CLUSTER_AUTHORIZATION_FAILED", None),
    ],
)
def test_errors_of_a_push(error: str, pause: float | None) -> None:
    machine = Machine()
    machine.subscribe()
    machine.request(30)
    machine.reporter.on_push(pushed(error), 31.0, terminating=False)
    assert machine.reporter.problem == f"the broker answers {error}"
    if pause is None:
        machine.expect(State.TERMINATED)
        machine.reporter.begin_termination()
        assert machine.reporter.due_at() is None
    else:
        assert machine.request(31 + pause) == {"client_instance_id": ASSIGNED.bytes}


def test_errors_of_the_subscription() -> None:
    machine = Machine()
    now = 0.0
    # At once the first time, but a broker that goes on saying so is asked more and more rarely.
    for pause in (0, 1, 2, 3, 300):
        machine.request(now)
        body = subscribed(error_code=code("UNKNOWN_SUBSCRIPTION_ID"), client_instance_id=ZERO_UUID)
        machine.reporter.on_subscriptions(body, now)
        now += pause
    machine.request(now)
    machine.reporter.on_subscriptions(subscribed(error_code=code("THROTTLING_QUOTA_EXCEEDED")), now)
    now += DEFAULT_PUSH_INTERVAL_MS / 1000
    machine.request(now)
    machine.reporter.on_subscriptions(subscribed(client_instance_id=ZERO_UUID), now)
    machine.expect(State.TERMINATED)
    assert machine.reporter.problem == "the broker assigns no client instance id"
    assert machine.reporter.subscription is None


def test_no_answer() -> None:
    machine = Machine()
    now = 0.0
    # Connections are not broken again and again by a broker that cannot answer.
    for pause in (1, 2, 3, 300, 300):
        machine.request(now)
        machine.reporter.on_no_answer("lost", now)
        assert machine.reporter.problem == "lost"
        now += pause
    machine.subscribe(now)
    machine.request(now + 30)
    machine.reporter.on_push(pushed(), now + 30, terminating=False)
    assert machine.reporter.problem is None
    machine.request(now + 90)
    machine.reporter.on_no_answer("lost", now + 100)
    assert machine.request(now + 101) == {"client_instance_id": ASSIGNED.bytes}


@pytest.mark.parametrize(
    ("told", "due"),
    [({"push_interval_ms": 0}, 150.0), ({"push_interval_ms": -1}, 150.0), ({"push_interval_ms": 1}, 0.05)],
)
def test_intervals_that_no_broker_has(told: dict[str, Any], due: float) -> None:
    machine = Machine()
    machine.subscribe(telemetry_max_bytes=-1, **told)
    machine.request(due)


def test_closed_at_any_moment() -> None:
    machine = Machine()
    machine.reporter.begin_termination()
    machine.expect(State.TERMINATED)
    machine = Machine()
    machine.request(0)
    machine.reporter.begin_termination()
    machine.expect(State.TERMINATED)
    machine.reporter.on_subscriptions(subscribed(), 1.0)
    machine.expect(State.TERMINATED)
    # While a push is under way: the last one is sent all the same, and the answer changes nothing.
    machine = Machine()
    machine.subscribe()
    machine.producer.sent = 5
    assert read_payload(machine.request(30)["metrics"]).values["producer.record.send.total",].value == 5
    machine.producer.sent = 7
    machine.reporter.begin_termination()
    last = machine.request(0)
    assert read_payload(last["metrics"]).values["producer.record.send.total",].value == 2
    machine.reporter.on_push(pushed("THROTTLING_QUOTA_EXCEEDED"), 31.0, terminating=False)
    machine.reporter.on_no_answer("lost", 31.0, terminating=False)
    machine.expect(State.TERMINATING_PUSH_IN_PROGRESS)
    machine.reporter.on_no_answer("lost", 31.0, terminating=True)
    machine.expect(State.TERMINATED)


ANSWERS = (
    "subscribed",
    "nothing wanted",
    "lost",
    "close",
    *(str(code) for code in (117, 118, 89, 42, 35, 9999)),
)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.sampled_from(ANSWERS), max_size=12))
def test_any_answers_keep_to_the_table(answers: list[str]) -> None:
    machine = Machine()
    reporter, now = machine.reporter, 0.0
    for answer in answers:
        if (due_at := reporter.due_at()) is not None:
            now = max(now, due_at)
        request = reporter.next_request(now)
        if answer == "close":
            reporter.begin_termination()
        elif request is not None:
            terminating = bool(request[1].get("terminating"))
            error = int(answer) if answer.isdigit() else 0
            if answer == "lost":
                reporter.on_no_answer("lost", now, terminating=terminating)
            elif request[0] is PUSH_TELEMETRY:
                reporter.on_push({"error_code": error, "throttle_time_ms": 0}, now, terminating=terminating)
            else:
                wanted = [] if answer == "nothing wanted" else ["*"]
                reporter.on_subscriptions(subscribed(error_code=error, requested_metrics=wanted), now)
        # A transition that is not in the table fails by itself. And either something is due, or an answer
        # is waited for, or it is over.
        under_way = reporter.state.value.endswith("in progress")
        assert (reporter.due_at() is None) == (under_way or reporter.state is State.TERMINATED)


# -- payloads


def collect(
    collector: Collector, requested: Iterable[str] = ("*",), **options: Any
) -> dict[tuple[str, ...], Pushed]:
    chosen: dict[str, Any] = {
        "delta": True,
        "accepted_compression_types": (),
        "max_bytes": 1 << 20,
        "now_ns": STARTED_NS + 1,
        **options,
    }
    payload = collector.collect(requested, **chosen)
    assert payload is not None and payload.compression_type == 0
    return read_payload(payload.data).values


def test_differences_and_totals() -> None:
    producer = Producer()
    collector = producer.collector()
    key = ("producer.record.send.total",)
    rate = ("producer.record.send.rate",)
    producer.sent = 10
    first = collect(collector, now_ns=STARTED_NS + 100)
    assert first[key] == Pushed(10, "delta", STARTED_NS, STARTED_NS + 100)
    assert first[rate] == Pushed(1.5, "", 0, STARTED_NS + 100)
    # What was refused is told the next time, with its time.
    collector.refused()
    producer.sent = 12
    producer.topics["t"] = 2
    assert collect(collector, now_ns=STARTED_NS + 200)[key] == Pushed(
        12, "delta", STARTED_NS, STARTED_NS + 200
    )
    collector.accepted()
    producer.sent = 15
    again = collect(collector, now_ns=STARTED_NS + 300)
    assert again[key] == Pushed(3, "delta", STARTED_NS + 200, STARTED_NS + 300)
    assert again["producer.topic.record.send.total", "topic", "t"].value == 0
    assert again["producer.node.request.total", "node_id", "node-1"].value == 0
    collector.accepted()
    totals = collect(collector, delta=False, now_ns=STARTED_NS + 400)
    assert totals[key] == Pushed(15, "cumulative", STARTED_NS, STARTED_NS + 400)
    collector.reset()
    assert collect(collector)[key].value == 15
    collector.accepted()
    # Counted from 0 again: it is no difference below 0.
    producer.sent = 4
    assert collect(collector)[key].value == 4


@pytest.mark.parametrize(
    ("requested", "names"),
    [
        (["*"], {"producer.record.send.total", "producer.record.send.rate", "producer.node.request.total"}),
        ([""], {"producer.record.send.total", "producer.record.send.rate", "producer.node.request.total"}),
        (["org.apache.kafka.producer.node."], {"producer.node.request.total"}),
        (["org.apache.kafka.producer.record.send.r", "other"], {"producer.record.send.rate"}),
        (["org.apache.kafka.consumer."], set()),
    ],
)
def test_requested_metrics_are_prefixes(requested: list[str], names: set[str]) -> None:
    assert {name for name, *_ in collect(Producer().collector(), requested)} == names


def test_too_many_metrics_leave_those_of_topics_out_first() -> None:
    producer = Producer()
    producer.sent = 5
    producer.topics = {f"topic-{number}": 1.0 for number in range(1000)}
    collector = producer.collector(transactional_id="payments")
    everything = len(collect(collector))
    assert everything == 1003
    kept = collect(collector, max_bytes=2000)
    assert {name for name, *_ in kept} == {
        "producer.record.send.total",
        "producer.record.send.rate",
        "producer.node.request.total",
    }
    collector.accepted()
    # What was left out is still to be told.
    assert collect(collector)["producer.topic.record.send.total", "topic", "topic-1"].value == 1
    options: dict[str, Any] = {"delta": True, "accepted_compression_types": (), "now_ns": 1}
    least = collector.collect(["*"], max_bytes=250, **options)
    assert least is not None and len(read_payload(least.data).values) == 2
    assert collector.collect(["*"], max_bytes=10, **options) is None
    # Compressed, all of them fit.
    payload = collector.collect(["*"], max_bytes=20_000, **{**options, "accepted_compression_types": (4,)})
    assert payload is not None
    assert len(read_payload(compression.decompress(4, payload.data, 1 << 20)).values) == everything


def test_metrics_that_do_not_fit_are_not_pushed() -> None:
    machine = Machine()
    machine.subscribe(telemetry_max_bytes=10)
    assert machine.reporter.next_request(30.0) is None
    assert machine.reporter.problem == "the metrics take more than the 10 bytes that brokers accept"
    # Brokers may want something else by then.
    machine.subscribe(90, telemetry_max_bytes=10)
    machine.reporter.begin_termination()
    assert machine.reporter.next_request(91.0) is None
    machine.expect(State.TERMINATED)


@pytest.mark.parametrize("codec", [1, 2, 3, 4])
def test_codecs(codec: int) -> None:
    payload = (
        Producer()
        .collector()
        .collect([""], delta=True, accepted_compression_types=[77, codec, 1], max_bytes=1 << 20, now_ns=1)
    )
    assert payload is not None and payload.compression_type == codec
    assert len(read_payload(compression.decompress(codec, payload.data, 1 << 20)).values) == 3


def test_the_codec_that_brokers_prefer() -> None:
    assert preferred_codec([]) == preferred_codec([77, -1]) == preferred_codec([0, 4]) == 0
    assert preferred_codec([3, 4]) == 3


@settings(max_examples=30, deadline=None)
@given(
    st.text(min_size=1, max_size=200),
    st.floats(allow_nan=False),
    st.dictionaries(st.text(), st.text(), max_size=3),
    st.integers(1, 2**63 - 1),
)
def test_what_is_written_is_what_is_read(
    name: str, value: float, attributes: dict[str, str], at: int
) -> None:
    points = [Point(value, tuple(attributes.items()), at), Point(-value, (("node_id", "1"),), at)]
    data = metrics_data(
        [
            Series(f"org.apache.kafka.{name}", points, True),
            Series("org.apache.kafka.gauge", points[:1], False),
        ],
        {"transactional_id": name},
        at,
        delta=False,
    )
    payload = read_payload(data)
    assert payload.resource == {"transactional_id": name}
    texts = [text for pair in attributes.items() for text in pair]
    key, gauge = (name, *texts), ("gauge", *texts)
    assert payload.values[key] == Pushed(value, "cumulative", at, at)
    assert payload.values[gauge] == Pushed(value, "", at, at)


def test_no_metrics_are_no_bytes() -> None:
    assert metrics_data([], {"transactional_id": "t"}, 1, delta=True) == b""


def test_the_standard_metrics_of_producers_are_there() -> None:
    """KIP-714, "Standard producer metrics"."""
    names = {telemetry_name(group, metric.name) for group, metrics in GROUPS.items() for metric in metrics}
    assert {
        f"org.apache.kafka.producer.{name}"
        for name in (
            "connection.creation.rate",
            "connection.creation.total",
            "node.request.latency.avg",
            "node.request.latency.max",
            "produce.throttle.time.avg",
            "produce.throttle.time.max",
            "record.queue.time.avg",
            "record.queue.time.max",
        )
    } <= names
