"""Client telemetry as a state machine (KIP-714): what to ask or tell the brokers, and when.

It does no input or output: the engine asks what is due, sends it, and says what came back, with the time as
an argument (seconds of a monotonic clock). The rules are those of Java's ``ClientTelemetryReporter``, except
where a comment says otherwise.
"""

from __future__ import annotations

import random
import uuid
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from kprod import errors
from kprod.protocol import GET_TELEMETRY_SUBSCRIPTIONS, PUSH_TELEMETRY, ZERO_UUID, Api, Body
from kprod.telemetry.collector import Collector
from kprod.telemetry.states import TRANSITIONS, State

DEFAULT_PUSH_INTERVAL_MS: Final = 5 * 60 * 1000
"""Java's, for brokers that name none."""

_LEAST_PUSH_INTERVAL_MS: Final = 100
"""Brokers accept no shorter one for a subscription (``ClientMetricsConfigs.MIN_INTERVAL_MS``)."""

_DEFAULT_MAX_BYTES: Final = 1 << 20
"""Brokers' default of ``telemetry.max.bytes``."""

_FIRST_PUSH: Final = (0.5, 1.5)
"""The first push comes after so many intervals: clients started together do not push together."""

_QUICK_RETRIES: Final = 3
"""After so many failures in a row the next attempt is as late as Java's first: a broker, or a proxy, that
cannot answer these requests ends connections that records need."""

_ASK_AGAIN_AT_ONCE: Final = frozenset({"UNKNOWN_SUBSCRIPTION_ID", "UNSUPPORTED_COMPRESSION_TYPE"})
_ASK_AGAIN_LATER: Final = frozenset({"TELEMETRY_TOO_LARGE", "THROTTLING_QUOTA_EXCEEDED"})
"""Any other error ends telemetry."""


class Subscription(NamedTuple):
    """What the brokers want of this client."""

    client_instance_id: uuid.UUID
    subscription_id: int
    accepted_compression_types: tuple[int, ...]
    push_interval_ms: int
    telemetry_max_bytes: int
    delta_temporality: bool
    requested_metrics: tuple[str, ...]


class TelemetryReporter:
    """Gets the subscription, pushes metrics in its interval, and a last time at the end.

    Args:
        collector: makes the payloads.
        retry_pause: seconds to wait after so many failures in a row.
        clock_ns: the wall clock, ns since 1970.
        uniform: a random number between two others.
    """

    def __init__(
        self,
        collector: Collector,
        retry_pause: Callable[[int], float],
        clock_ns: Callable[[], int],
        uniform: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self._collector = collector
        self._retry_pause = retry_pause
        self._clock_ns = clock_ns
        self._uniform = uniform
        self._state = State.SUBSCRIPTION_NEEDED
        self._due_at = 0.0
        self._failures = 0
        self.subscription: Subscription | None = None
        """The last one that a broker gave."""
        self.problem: str | None = None
        """Why telemetry has ended although the producer has not, or why the last request failed; in words."""

        self.least_interval_s = 0.0
        """Pushes are at least so far apart, whatever brokers ask for."""

    @property
    def state(self) -> State:
        """Where it is."""
        return self._state

    def due_at(self) -> float | None:
        """When :meth:`next_request` has something to send; None: not before something happens."""
        if self._state in (State.SUBSCRIPTION_NEEDED, State.PUSH_NEEDED):
            return self._due_at
        return 0.0 if self._state is State.TERMINATING_PUSH_NEEDED else None

    def next_request(self, now: float) -> tuple[Api, Body] | None:
        """What is due, as sent from now on.

        Args:
            now: the time.

        Returns:
            The API and the body of the request; None: nothing is due.
        """
        due_at = self.due_at()
        if due_at is None or now < due_at:
            return None
        subscription = self.subscription
        if self._state is State.SUBSCRIPTION_NEEDED or subscription is None:
            self._become(State.SUBSCRIPTION_IN_PROGRESS)
            known = subscription.client_instance_id.bytes if subscription is not None else ZERO_UUID
            return GET_TELEMETRY_SUBSCRIPTIONS, {"client_instance_id": known}
        payload = self._collector.collect(
            subscription.requested_metrics,
            delta=subscription.delta_temporality,
            accepted_compression_types=subscription.accepted_compression_types,
            max_bytes=subscription.telemetry_max_bytes,
            now_ns=self._clock_ns(),
        )
        terminating = self._state is State.TERMINATING_PUSH_NEEDED
        if payload is None:
            self.problem = (
                f"the metrics take more than the {subscription.telemetry_max_bytes} bytes that brokers accept"
            )
            if terminating:
                self._become(State.TERMINATED)
            else:
                # As if a broker had said so; by then it may want fewer, or accept more.
                self._become(State.SUBSCRIPTION_NEEDED)
                self._due_at = now + subscription.push_interval_ms / 1000
            return None
        self._become(State.TERMINATING_PUSH_IN_PROGRESS if terminating else State.PUSH_IN_PROGRESS)
        return PUSH_TELEMETRY, {
            "client_instance_id": subscription.client_instance_id.bytes,
            "subscription_id": subscription.subscription_id,
            "terminating": terminating,
            "compression_type": payload.compression_type,
            "metrics": payload.data,
        }

    # -- what came back

    def on_subscriptions(self, body: Body, now: float) -> None:
        """A broker answered GetTelemetrySubscriptions.

        Args:
            body: of the response.
            now: the time.
        """
        if self._state is not State.SUBSCRIPTION_IN_PROGRESS:
            return  # the producer was closed in the meantime
        if body["error_code"]:
            self._on_error(body, now)
            return
        if body["client_instance_id"] == ZERO_UUID:
            self._end("the broker assigns no client instance id")
            return
        before, after = self.subscription, _read(body)
        self.subscription = after
        if before is not None and before.delta_temporality != after.delta_temporality:
            self._collector.reset()
        interval_s = after.push_interval_ms / 1000
        if after.requested_metrics:
            self._become(State.PUSH_NEEDED)
            interval_s *= self._uniform(*_FIRST_PUSH)
        else:
            # Nothing is wanted now: that may change.
            self._become(State.SUBSCRIPTION_NEEDED)
            self._failures = 0
            self.problem = None
        self._due_at = now + max(interval_s, body["throttle_time_ms"] / 1000)

    def on_push(self, body: Body, now: float, *, terminating: bool) -> None:
        """A broker answered PushTelemetry.

        Args:
            body: of the response.
            now: the time.
            terminating: the request was the last push.
        """
        if self._ends(terminating):
            return
        if body["error_code"]:
            self._collector.refused()
            self._on_error(body, now)
            return
        assert self.subscription is not None
        self._collector.accepted()
        self._failures = 0
        self.problem = None
        self._become(State.PUSH_NEEDED)
        told_s = max(self.subscription.push_interval_ms, body["throttle_time_ms"]) / 1000
        self._due_at = now + max(told_s, self.least_interval_s)

    def on_no_answer(self, reason: str, now: float, *, terminating: bool = False) -> None:
        """A request got no answer: the connection was lost, or it timed out.

        Unlike Java, which waits for five minutes or gives up, this asks again soon a few times.

        Args:
            reason: why, in words.
            now: the time.
            terminating: the request was the last push.
        """
        if self._ends(terminating):
            return
        # It may have come all the same: what is counted twice is worse than what is not counted.
        self._collector.accepted()
        self.problem = reason
        self._failures += 1
        self._become(State.SUBSCRIPTION_NEEDED)
        self._due_at = now + self._pause(self._failures)

    def _pause(self, failures: int) -> float:
        if failures > _QUICK_RETRIES:
            return DEFAULT_PUSH_INTERVAL_MS / 1000
        return self._retry_pause(failures) if failures else 0.0

    def _ends(self, terminating: bool) -> bool:
        """Whether an answer has nothing to say any more, since the producer is being closed."""
        if terminating and self._state is State.TERMINATING_PUSH_IN_PROGRESS:
            self._become(State.TERMINATED)
        return self._state in (
            State.TERMINATING_PUSH_NEEDED,
            State.TERMINATING_PUSH_IN_PROGRESS,
            State.TERMINATED,
        )

    def _on_error(self, body: dict[str, Any], now: float) -> None:
        name = errors.name_for_code(body["error_code"])
        said = f"the broker answers {name}"
        if name in _ASK_AGAIN_AT_ONCE:
            # The first time at once; a broker that goes on like that is not asked without end.
            self._failures += 1
            pause = self._pause(self._failures - 1)
        elif name in _ASK_AGAIN_LATER:
            known = self.subscription
            pause = (DEFAULT_PUSH_INTERVAL_MS if known is None else known.push_interval_ms) / 1000
        else:
            self._end(said)
            return
        self.problem = said
        self._become(State.SUBSCRIPTION_NEEDED)
        self._due_at = now + max(pause, body["throttle_time_ms"] / 1000)

    # -- the end

    def begin_termination(self) -> None:
        """The producer is being closed: the last push is due at once, if metrics are subscribed to."""
        if self._state in (State.PUSH_NEEDED, State.PUSH_IN_PROGRESS):
            self._collector.accepted()  # what is under way is not sent twice
            self._become(State.TERMINATING_PUSH_NEEDED)
        elif self._state not in (State.TERMINATING_PUSH_NEEDED, State.TERMINATING_PUSH_IN_PROGRESS):
            self.terminate()

    def terminate(self) -> None:
        """Send nothing more."""
        if self._state is not State.TERMINATED:
            self._become(State.TERMINATED)

    def _end(self, problem: str) -> None:
        self.problem = problem
        self._become(State.TERMINATED)

    def _become(self, state: State) -> None:
        assert state in TRANSITIONS[self._state], f"{self._state} to {state}"
        self._state = state


def _read(body: Body) -> Subscription:
    interval_ms = body["push_interval_ms"]
    if interval_ms <= 0:
        interval_ms = DEFAULT_PUSH_INTERVAL_MS
    max_bytes = body["telemetry_max_bytes"]
    return Subscription(
        client_instance_id=uuid.UUID(bytes=bytes(body["client_instance_id"])),
        subscription_id=body["subscription_id"],
        accepted_compression_types=tuple(body["accepted_compression_types"]),
        push_interval_ms=max(interval_ms, _LEAST_PUSH_INTERVAL_MS),
        telemetry_max_bytes=max_bytes if max_bytes > 0 else _DEFAULT_MAX_BYTES,
        delta_temporality=body["delta_temporality"],
        requested_metrics=tuple(body["requested_metrics"]),
    )
