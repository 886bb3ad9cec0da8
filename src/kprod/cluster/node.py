"""One broker address and the connection to it: when to connect, to which address, and what is agreed on it.

A node does no input or output: the engine asks what to do and says what happened, with the time as an
argument (seconds of a monotonic clock).
"""

from __future__ import annotations

import enum
import random
from collections.abc import Callable, Mapping
from typing import Any, Final

from kprod._version import __version__
from kprod.errors import KafkaError
from kprod.protocol import API_VERSIONS, Api, ProtocolError, decode_response, encode_request
from kprod.values import Value

Address = tuple[int, Any]
"""An address family and what ``socket.connect`` takes for it."""

UNSUPPORTED_VERSION = 35

REFUSALS_BEFORE_GIVING_UP: Final = 5
"""After so many refusals in a row a broker is left alone until somebody asks for it, see :meth:`Node.failed`.

With the default back-off that is after about four seconds.
"""

_REFUSED_BACKOFF: Final = 5
"""The pause after a refusal is that of any failure, times this: asking again soon rarely helps."""


class State(enum.Enum):
    """Where a node's connection is."""

    IDLE = "not connected"
    RESOLVING = "resolving the host name"
    CONNECTING = "connecting"
    HANDSHAKE = "agreeing on API versions"
    AUTHENTICATING = "authenticating"
    READY = "ready"
    REAUTHENTICATING = "authenticating again"


class Backoff(Value):
    """Pauses that double from ``base`` to ``limit`` seconds, with 20 % jitter (KIP-144, KIP-580)."""

    base: float
    limit: float

    def pause(self, failures: int, jitter: Callable[[], float] = random.random) -> float:
        """The pause after so many failures in a row."""
        if failures <= 0:
            return 0.0
        pause = min(self.base * 2.0 ** min(failures - 1, 30), max(self.limit, self.base))
        return pause * (0.8 + 0.4 * jitter())


class Node:
    """A broker, or a bootstrap address (``node_id`` below 0).

    Args:
        node_id: the broker's id; bootstrap addresses count down from -1.
        host: name or address.
        port: TCP port.
        reconnect: pauses between attempts to connect.
        setup: how long an attempt may take; grows with failures (KIP-601).
    """

    def __init__(self, node_id: int, host: str, port: int, reconnect: Backoff, setup: Backoff) -> None:
        self.node_id = node_id
        self.host = host
        self.port = port
        self.state = State.IDLE
        self.generation = -1
        self.versions: Mapping[int, tuple[int, int]] = {}
        self.features: Mapping[str, int] = {}
        """Finalized feature levels of the cluster, as this broker knows them (KIP-584)."""
        self.features_epoch = -1
        self.failures = 0
        """Attempts and connections that failed since the last one that became ready; one that was ended for
        what the broker sent is forgotten only when it sends something that can be used."""
        self._distrusted = False
        self.attempts = 0
        self.begun_at = 0.0
        """When the last attempt began."""
        self.last_error: str | None = None
        self.refusal: KafkaError | None = None
        """Why the broker, or this side, refused the last attempt; None: it failed otherwise, or not."""
        self.last_refusal: KafkaError | None = None
        """The last refusal there was."""
        self.refusals = 0
        """Refusals since the last connection that became ready."""
        self.demanded = False
        """Somebody asks for it although it was given up; any thread may set it."""
        self.next_attempt_at = 0.0
        self.deadline = 0.0
        self.ready_at: float | None = None
        self._reconnect = reconnect
        self._refused = Backoff(reconnect.base * _REFUSED_BACKOFF, reconnect.limit * _REFUSED_BACKOFF)
        self._setup = setup
        self._addresses: list[Address] = []

    def __repr__(self) -> str:
        return f"<Node {self} {self.state.value}>"

    def __str__(self) -> str:
        where = f"{self.host}:{self.port}"
        return where if self.node_id < 0 else f"{self.node_id} at {where}"

    def moved_to(self, host: str, port: int) -> bool:
        """Take over a new address of the same broker. True: it changed."""
        if (host, port) == (self.host, self.port):
            return False
        self.host, self.port = host, port
        self._addresses = []
        self.next_attempt_at = 0.0
        return True

    # -- connecting

    @property
    def is_up(self) -> bool:
        """Whether the connection is set up."""
        return self.state in (State.READY, State.REAUTHENTICATING)

    @property
    def given_up(self) -> bool:
        """Whether it refused so often that it is not asked again by itself."""
        return self.refusal is not None and self.refusals >= REFUSALS_BEFORE_GIVING_UP and not self.demanded

    def may_connect(self, now: float) -> bool:
        """Whether an attempt may begin."""
        return self.state is State.IDLE and now >= self.next_attempt_at and not self.given_up

    def begin(self, now: float) -> Address | None:
        """Begin an attempt: the address to connect to; None: the host name must be resolved first."""
        self.attempts += 1
        self.begun_at = now
        self.demanded = False
        self.deadline = now + self._setup.pause(self.failures + 1, lambda: 0.5)
        if not self._addresses:
            self.state = State.RESOLVING
            return None
        self.state = State.CONNECTING
        return self._addresses.pop(0)

    def resolved(self, addresses: list[Address]) -> Address:
        """The host name has these addresses; returns the first to connect to, the others come in turn."""
        self._addresses = list(addresses)
        self.state = State.CONNECTING
        return self._addresses.pop(0)

    def failed(
        self,
        now: float,
        error: str,
        refusal: KafkaError | None = None,
        *,
        distrust: bool = False,
        lasting: bool = True,
    ) -> None:
        """An attempt failed, or a connection ended by an error.

        Args:
            now: the time.
            error: why, in words.
            refusal: the error to give to applications, where trying again alone will not help: wrong
                credentials, a certificate that is not trusted, a listener of another security protocol.
            distrust: because what the broker sent cannot be used. A broker may be ready each time and send
                the same again: attempts get rarer all the same.
            lasting: a refusal will be the same next time; otherwise the broker is not given up because of it.
        """
        self._distrusted = self._distrusted or distrust
        self.state = State.IDLE
        self.generation = -1
        self.versions = {}
        self.ready_at = None
        self.last_error = error
        self.refusal = refusal
        if refusal is not None:
            self.last_refusal = refusal
            self.failures += 1
            self.refusals += lasting
            self.next_attempt_at = now + self._refused.pause(self.failures)
            return
        if self._addresses:
            # The host has further addresses: try the next one at once (KIP-302).
            self.next_attempt_at = now
            return
        self.failures += 1
        self.next_attempt_at = now + self._reconnect.pause(self.failures)

    def closed_idle(self) -> None:
        """The connection was closed because nobody used it."""
        self.state = State.IDLE
        self.generation = -1
        self.ready_at = None
        self.next_attempt_at = 0.0

    def ready(self, now: float) -> None:
        """The connection can be used."""
        self.state = State.READY
        self.refusal = None
        self.refusals = 0
        self.ready_at = now
        self._addresses = []
        if not self._distrusted:
            self.failures = 0

    def answered(self) -> None:
        """It sent an answer that can be used, to another request than the first."""
        self._distrusted = False
        self.failures = 0
        self.last_error = None

    @property
    def condition(self) -> str:
        """Its state in words, and why the last attempt failed, if nothing came of one since."""
        if self.last_error is None:
            return self.state.value
        if self.state is State.READY:
            return f"{self.state.value}, but before: {self.last_error}"
        return self.last_error

    # -- agreeing on API versions (KIP-35, KIP-511)

    def hello(self, client_id: str | None, version: int = API_VERSIONS.versions[1]) -> bytes:
        """The first request on a connection."""
        self.state = State.HANDSHAKE
        body = {"client_software_name": "kprod", "client_software_version": __version__}
        return encode_request(API_VERSIONS, version, 0, client_id, body)

    def learn_versions(self, version: int, frame: bytes) -> int | None:
        """Take over the answer to :meth:`hello`.

        Returns:
            None, or the version to say hello with again because the broker does not know this one.

        Raises:
            ProtocolError: it is not an answer of a Kafka broker, or reports an error.
        """
        if len(frame) < 6:
            raise ProtocolError(f"ApiVersions response of {len(frame)} bytes")
        error = int.from_bytes(frame[4:6], "big", signed=True)
        # A broker that does not know the version answers in version 0 (KIP-511).
        _, body = decode_response(API_VERSIONS, 0 if error == UNSUPPORTED_VERSION else version, frame)
        ranges: dict[int, tuple[int, int]] = {
            row["api_key"]: (row["min_version"], row["max_version"]) for row in body["api_keys"]
        }
        if error == UNSUPPORTED_VERSION and version > 0:
            low, high = ranges.get(API_VERSIONS.key, (0, 0))
            again = max(low, min(high, version - 1))
            if not 0 <= again < version:
                # Saying hello once more would go on for ever.
                raise ProtocolError(
                    f"ApiVersions version {version} was refused, and versions {low} to {high} are offered"
                )
            return again
        if error:
            raise ProtocolError(f"ApiVersions was answered with error code {error}")
        self.versions = ranges
        self.features = {row["name"]: row["max_version_level"] for row in body["finalized_features"]}
        self.features_epoch = body["finalized_features_epoch"]
        return None

    def version_of(self, api: Api, at_most: int | None = None) -> int | None:
        """The newest version of an API that both sides know; None: there is none."""
        ranges = self.versions.get(api.key)
        if ranges is None:
            return None
        low, high = api.versions
        version = min(high, ranges[1], high if at_most is None else at_most)
        return version if version >= max(low, ranges[0]) else None
