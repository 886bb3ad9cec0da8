"""SASL on connections: when they are set up, and again before a session expires (KIP-368)."""

from __future__ import annotations

import copy
import logging
import random
import time
from collections.abc import Callable
from typing import Any, Final, Protocol

from kprod import threads
from kprod.cluster.node import Node, State
from kprod.engine.shared import Shared
from kprod.engine.tokens import SASL_TOKEN
from kprod.errors import (
    AuthenticationFailedError,
    IllegalSaslStateError,
    KafkaError,
    TokenUnavailableError,
)
from kprod.protocol import SASL_AUTHENTICATE, SASL_HANDSHAKE, ProtocolError
from kprod.security.exchange import HANDSHAKE_VERSION, Exchange, Frame
from kprod.security.sasl import Sasl

logger = logging.getLogger("kprod.engine")

_SESSION_SHARE: Final = (0.85, 0.95)
"""After which share of its session a connection authenticates again: Java's ``SaslClientAuthenticator``."""

_RETRY_S: Final = 1.0
"""Brokers take no second authentication within a second of the last (``KafkaChannel``)."""


class Failed(Protocol):
    """How an authentication that failed is reported."""

    def __call__(
        self,
        node: Node,
        reason: str,
        now: float,
        refusal: KafkaError | None = None,
        *,
        distrust: bool = False,
        lasting: bool = True,
    ) -> None:
        """See ``Connections._setup_failed``."""


class _Run:
    """An authentication under way."""

    def __init__(self, node: Node, exchange: Exchange, again: bool) -> None:
        self.node = node
        self.generation = node.generation
        self.exchange = exchange
        self.again = again
        self.held_since = 0.0


class Authenticator:
    """Authenticates connections. Everything here is the control thread's but for :meth:`set_credentials`.

    The first authentication comes after ApiVersions, which brokers answer to anybody, so that versions are
    known. A later one goes on between requests: credentials are fetched while records flow; then no request
    but SASL's is written until the broker has accepted them, which its ``SaslServerAuthenticator`` demands.
    What was written before is answered as usual.

    Args:
        shared: what the threads share.
        sasl: makes mechanisms.
        on_done: called when a connection is authenticated for the first time.
        on_again: called when one is again, and may carry produce requests.
        on_failed: called when one is refused, or fails otherwise.
    """

    def __init__(
        self,
        shared: Shared,
        sasl: Sasl,
        on_done: Callable[[Node], None],
        on_again: Callable[[Node], None],
        on_failed: Failed,
    ) -> None:
        self._shared = shared
        self._config = shared.config
        self._loop = shared.loop
        self._sasl = sasl
        self._on_done = on_done
        self._on_again = on_again
        self._on_failed = on_failed
        self._runs: dict[Node, _Run] = {}
        self._again_at: dict[Node, tuple[int, float, float]] = {}
        """Of connections whose session ends: generation, when to authenticate again, and when it was done."""
        self._counters: dict[str, float] = dict.fromkeys(
            (
                "authentications",
                "failed_authentications",
                "reauthentications",
                "failed_reauthentications",
                "reauthentication_latency_sum_ms",
                "reauthentication_latency_max_ms",
            ),
            0,
        )

    # -- for any thread

    def set_credentials(self, username: Any, password: Any) -> None:
        """Use another user name and password from the next authentication on."""
        self._sasl.set_credentials(username, password)

    def counters(self) -> dict[str, float]:
        """Totals since the start."""
        return dict(self._counters)

    # -- the first time

    def begin(self, node: Node, now: float) -> None:
        """ApiVersions is answered: authenticate."""
        node.state = State.AUTHENTICATING
        node.deadline = now + self._config.request_timeout_ms / 1000
        self._start(node, now, again=False)

    def _start(self, node: Node, now: float, again: bool) -> None:
        version = node.version_of(SASL_AUTHENTICATE)
        if version is None or node.version_of(SASL_HANDSHAKE) != HANDSHAKE_VERSION:
            self._fail(node, IllegalSaslStateError("the broker knows no SASL"), again, now)
            return
        exchange = Exchange(self._sasl.mechanism(node.host), version, self._config.client_id)
        run = _Run(node, exchange, again)
        self._runs[node] = run
        self._do(run, exchange.prepare, lambda _: self._shake(run), slow=self._sasl.takes_time)

    def _shake(self, run: _Run) -> None:
        if run.again:
            run.held_since = time.monotonic()
            run.node.state = State.REAUTHENTICATING
            run.node.deadline = run.held_since + self._config.request_timeout_ms / 1000
            self._loop.hold(run.node.node_id, run.generation)
        self._send(run, run.exchange.handshake())

    def _send(self, run: _Run, frame: Frame) -> None:
        timeout = self._config.request_timeout_ms / 1000
        self._loop.send(run.node.node_id, run.generation, frame.data, SASL_TOKEN, frame.version, timeout)

    # -- again

    def deadline(self, now: float) -> float:
        """When :meth:`check` has something to do."""
        return min((at for _, at, _ in self._again_at.values()), default=now + 60.0)

    def check(self, now: float, close_idle: Callable[[Node], None]) -> None:
        """Authenticate again on connections whose session ends soon.

        Args:
            now: the time.
            close_idle: called for a connection that nobody has used since it authenticated: a new one costs
                no more than keeping it for ever.
        """
        for node, (generation, at, since) in list(self._again_at.items()):
            if node.generation != generation or not node.is_up:
                del self._again_at[node]
            elif now >= at and node.state is State.READY:
                del self._again_at[node]
                idle = self._loop.idle_since(node.node_id)
                if idle is not None and idle >= now - since:
                    close_idle(node)
                else:
                    self._start(node, now, again=True)

    # -- answers

    def on_frame(self, node: Node, frame: bytes) -> None:
        """The broker has answered a SASL request."""
        run = self._current(node)
        if run is None:
            return
        try:
            challenge = run.exchange.receive(frame)
            slow = challenge is not None and run.exchange.mechanism.is_slow(challenge)
        except (AuthenticationFailedError, ProtocolError) as error:
            self._failed(run, error)
            return
        if challenge is None:
            self._send(run, run.exchange.first())
            return
        token = challenge
        self._do(run, lambda: run.exchange.step(token), lambda following: self._step(run, following), slow)

    def _step(self, run: _Run, following: Frame | None) -> None:
        if following is not None:
            self._send(run, following)
            return
        del self._runs[run.node]
        now = time.monotonic()
        lifetime = run.exchange.session_lifetime_s
        if lifetime > 0:
            share = random.uniform(*_SESSION_SHARE)
            self._again_at[run.node] = (run.generation, now + lifetime * share, now)
        if not run.again:
            self._counters["authentications"] += 1
            self._on_done(run.node)
            return
        latency_ms = (now - run.held_since) * 1000
        self._counters["reauthentications"] += 1
        self._counters["reauthentication_latency_sum_ms"] += latency_ms
        self._counters["reauthentication_latency_max_ms"] = max(
            latency_ms, self._counters["reauthentication_latency_max_ms"]
        )
        logger.debug(
            "%s: broker %s: authenticated again in %.1f ms", self._config.client_id, run.node, latency_ms
        )
        run.node.state = State.READY
        self._on_again(run.node)

    def _current(self, node: Node) -> _Run | None:
        run = self._runs.get(node)
        if run is not None and run.generation == node.generation:
            return run
        self._runs.pop(node, None)
        return None

    def _do(self, run: _Run, work: Callable[[], Any], then: Callable[[Any], None], slow: bool) -> None:
        """Do a piece of work, on a thread of its own if it is slow, and go on with its result."""
        if not slow:
            try:
                result = work()
            except KafkaError as error:
                self._failed(run, error)
                return
            then(result)
            return

        def finish(result: Any, error: Exception | None) -> None:
            if self._current(run.node) is not run:
                return
            if error is not None:
                self._failed(run, error)
            else:
                then(result)

        def run_work() -> None:
            try:
                result, failure = work(), None
            except Exception as error:
                result, failure = None, error
            self._shared.call_in_control(lambda: finish(result, failure))

        # It may ask other servers, run the application's code or hash for a while: not on this thread.
        threads.thread(f"{self._config.client_id}-sasl", run_work).start()

    # -- failures

    def _failed(self, run: _Run, error: Exception) -> None:
        self._runs.pop(run.node, None)
        self._fail(run.node, error, run.again, time.monotonic())

    def _fail(self, node: Node, error: Exception, again: bool, now: float) -> None:
        self._counters["failed_reauthentications" if again else "failed_authentications"] += 1
        passing = isinstance(error, TokenUnavailableError)
        if again and node.state is State.READY:
            # Nothing was sent yet: the session lasts, and what is missing may be there in a moment.
            logger.warning("%s: broker %s: not authenticated again: %s", self._config.client_id, node, error)
            self._again_at[node] = (node.generation, now + _RETRY_S, now)
            return
        if isinstance(error, AuthenticationFailedError):
            refusal = self._explained(error, node)
            self._on_failed(node, str(refusal.args[0]), now, refusal, lasting=not passing)
        elif isinstance(error, ProtocolError):
            self._on_failed(node, f"not a usable answer to SASL: {error}", now, distrust=True)
        else:
            logger.error("%s: broker %s: SASL failed", self._config.client_id, node, exc_info=error)
            self._on_failed(node, f"SASL failed: {type(error).__name__}", now)

    def _explained(self, error: AuthenticationFailedError, node: Node) -> KafkaError:
        """The error with the broker, and what to change where the broker refused the credentials."""
        explained = copy.copy(error)
        text = str(error.args[0])
        if text.startswith("the broker refused"):
            explained.args = (f"{text}; {self._sasl.advice}",)
        explained.broker = str(node)
        explained.__cause__ = error.__cause__
        return explained
