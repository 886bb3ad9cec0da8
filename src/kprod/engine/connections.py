"""Connections to brokers: setting them up, ending them, and the control requests on them."""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from kprod import delivery, threads
from kprod.cluster.metadata import ClusterSnapshot
from kprod.cluster.node import Address, Node, State
from kprod.engine import sockets
from kprod.engine.nodes import Nodes
from kprod.engine.shared import Shared
from kprod.engine.tokens import HELLO, SASL_TOKEN
from kprod.errors import IllegalSaslStateError, KafkaError
from kprod.protocol import METADATA, PRODUCE, Api, Body, ProtocolError, decode_response, encode_request
from kprod.protocol.checks import check_response
from kprod.values import Value

if TYPE_CHECKING:
    from kprod.engine.authentication import Authenticator
    from kprod.engine.tls_pump import TlsPump
    from kprod.engine.tls_setup import Attempt

logger = logging.getLogger("kprod.engine")

_BEING_SET_UP: Final = frozenset(
    {State.RESOLVING, State.CONNECTING, State.HANDSHAKE, State.AUTHENTICATING, State.REAUTHENTICATING}
)

_UNANSWERED_MEANS_SASL: Final = 2
"""A broker that goes down may end one connection so."""

Handler = Callable[[Node, Body | None, str], None]
"""Gets the node, the response body (None: there is none) and then the reason in words."""


class _Request(Value):
    """A control request that is under way."""

    node: Node
    generation: int
    api: Api
    version: int
    body: Body
    handler: Handler


class Connections:
    """The connections to the nodes. Everything here is the control thread's.

    Args:
        shared: what the threads share.
        nodes: where to connect to.
        on_lost: called with its id when a broker cannot be reached (any more).
        on_ready: called when a connection can be used.
    """

    def __init__(
        self, shared: Shared, nodes: Nodes, on_lost: Callable[[int], None], on_ready: Callable[[], None]
    ) -> None:
        self._shared = shared
        self._config = shared.config
        self._loop = shared.loop
        self._nodes = nodes
        self._on_lost = on_lost
        self._on_ready = on_ready
        self._requests: dict[int, _Request] = {}
        self._last_token = HELLO
        self._all_lost_at: float | None = None
        self._attempts: dict[int, Attempt] = {}
        """TLS connections that are being set up, by node id."""
        self._pumps: dict[int, TlsPump] = {}
        """What encrypts a connection where the loop cannot, by node id."""
        self._unanswered: dict[str, int] = {}
        """Connections in a row to an address that ended at the first request after ApiVersions."""
        self.authenticator: Authenticator | None = None
        if shared.sasl is not None:
            from kprod.engine.authentication import Authenticator  # here: most producers do without it

            self.authenticator = Authenticator(
                shared, shared.sasl, self._set_up, self._enable, self._setup_failed
            )

    # -- which there should be

    def take_over_brokers(self, cluster: ClusterSnapshot) -> None:
        """The cluster has these brokers now."""
        for node_id, broker in cluster.broker_by_id.items():
            node = self._nodes.brokers.get(node_id)
            if node is None:
                self._nodes.add(node_id, broker.host, broker.port)
            elif node.moved_to(broker.host, broker.port) and node.state is not State.IDLE:
                self._setup_failed(node, "the broker moved to another address", time.monotonic())
            if self._config.partitioner_rack_aware:
                self._loop.set_in_rack(node_id, broker.rack == self._config.client_rack)
        for node_id in set(self._nodes.brokers) - set(cluster.broker_by_id):
            if self._nodes.brokers[node_id].state is State.IDLE:
                self._nodes.forget(node_id)
        # One answer is all that bootstrap addresses are for, as long as there are brokers.
        for node in self._nodes.bootstrap:
            self._nodes.wanted.discard(node.node_id)

    def deadline(self, now: float) -> float:
        """When :meth:`check`, or :meth:`connect_wanted`, has something to do."""
        moments = [now + 60.0]
        for node in self._nodes.by_id.values():
            if node.state in _BEING_SET_UP:
                moments.append(node.deadline)
            elif node.state is State.IDLE and node.node_id in self._nodes.wanted and not node.given_up:
                moments.append(node.next_attempt_at)
            elif node.state is State.READY:
                moments.append(now + min(self._config.connections_max_idle_ms / 4000, 30.0))
        if self.authenticator is not None:
            moments.append(self.authenticator.deadline(now))
        return min(moments)

    def check(self, now: float) -> None:
        """End attempts that take too long, and connections that nobody uses."""
        for node in list(self._nodes.by_id.values()):
            if node.state in _BEING_SET_UP and now >= node.deadline:
                self._setup_failed(node, f"no connection within {_setup_limit(node)}", now)
            elif node.state is State.READY:
                self._close_if_idle(node, now)
        if self.authenticator is not None:
            self.authenticator.check(now, self._close_idle)

    def ensure_usable(self, now: float) -> None:
        """See to it that there is somebody to ask; called while there is something to ask."""
        if any(node.is_up for node in self._nodes.by_id.values()):
            self._all_lost_at = None
            return
        if self._all_lost_at is None:
            self._all_lost_at = now
        brokers = list(self._nodes.brokers.values())
        self._nodes.wanted.update(node.node_id for node in brokers)
        # KIP-899: when no known broker can be reached, start again from the bootstrap servers.
        unreachable = all(node.failures > 0 for node in brokers)
        overdue = now - self._all_lost_at >= self._config.metadata_recovery_rebootstrap_trigger_ms / 1000
        if not brokers or (
            self._config.metadata_recovery_strategy == "rebootstrap" and (unreachable or overdue)
        ):
            self._nodes.rebootstrap()

    def connect_wanted(self, now: float) -> None:
        """Begin the attempts that the back-off allows."""
        for node_id in list(self._nodes.wanted):
            node = self._nodes.by_id.get(node_id)
            if node is None:
                self._nodes.wanted.discard(node_id)
            elif node.may_connect(now):
                self._connect(node, now)

    def _close_if_idle(self, node: Node, now: float) -> None:
        idle = self._loop.idle_since(node.node_id)
        # An answer can be on its way from the network loop to this thread: the connection looks idle then.
        if idle is None or any(request.node is node for request in self._requests.values()):
            return
        spare_bootstrap = node.node_id < 0 and any(
            other.state is State.READY for other in self._nodes.brokers.values()
        )
        limit = self._config.connections_max_idle_ms
        if spare_bootstrap or (limit > 0 and idle * 1000 >= limit):
            self._close_idle(node)

    def _close_idle(self, node: Node) -> None:
        generation = node.generation
        node.closed_idle()
        self._nodes.wanted.discard(node.node_id)
        self._loop.disconnect(node.node_id, generation, True)

    # -- setting a connection up

    def _connect(self, node: Node, now: float) -> None:
        address = node.begin(now)
        if address is not None:
            self._open(node, address, now)
            return
        numeric = sockets.numeric_address(node.host, node.port)
        if numeric is not None:
            self._open(node, node.resolved([numeric]), now)
            return

        attempt = node.attempts

        def look_up() -> None:
            found: list[Address] = []
            reason = ""
            try:
                found = sockets.resolve(node.host, node.port, self._config.client_dns_lookup)
            except (OSError, ValueError) as error:  # ValueError: cannot be a host name (IDNA)
                detail = getattr(error, "strerror", None) or error
                reason = f"host name {node.host!r} cannot be resolved: {detail}"
            self._shared.call_in_control(lambda: self._on_resolved(node, attempt, found, reason))

        # getaddrinfo() can hang for a long time: not on this thread.
        threads.thread(f"{self._config.client_id}-dns", look_up).start()

    def _on_resolved(self, node: Node, attempt: int, addresses: list[Address], reason: str) -> None:
        if node.state is not State.RESOLVING or node.attempts != attempt:
            return
        now = time.monotonic()
        if addresses:
            self._open(node, node.resolved(addresses), now)
        else:
            self._setup_failed(node, reason or f"host name {node.host!r} has no address", now)

    def _open(self, node: Node, address: Address, now: float) -> None:
        if self._shared.tls is not None:
            self._open_with_tls(node, address)
            return
        family, target = address
        try:
            sock: socket.socket = threads.original("socket", "socket")(family, socket.SOCK_STREAM)
        except OSError as error:
            self._setup_failed(node, f"no socket: {error.strerror or error}", now)
            return
        try:
            sockets.prepare(sock, self._config)
            try:
                sock.connect(target)
            except BlockingIOError:
                pass
        except OSError as error:
            sock.close()
            self._setup_failed(node, f"{sockets.show(target)}: {error.strerror or error}", now)
            return
        node.generation = self._loop.connect(node.node_id, sock.detach())

    def _open_with_tls(self, node: Node, address: Address) -> None:
        from kprod.engine.tls_setup import Attempt  # here: only who has TLS waits for ssl to be imported

        assert self._shared.tls is not None
        attempt = Attempt(self._config, self._shared.tls, address, node.host, str(node), node.deadline)
        self._attempts[node.node_id] = attempt

        def connect() -> None:
            attempt.run()
            self._shared.call_in_control(lambda: self._on_tls(node, attempt))

        # Certificates are checked there, and a broker may be slow to answer: not on this thread.
        threads.thread(f"{self._config.client_id}-connect", connect).start()

    def _on_tls(self, node: Node, attempt: Attempt) -> None:
        """An attempt to connect with TLS has ended."""
        if self._attempts.get(node.node_id) is not attempt or node.state is not State.CONNECTING:
            attempt.discard()
            return
        del self._attempts[node.node_id]
        established = attempt.established
        if established is None:
            self._setup_failed(node, attempt.reason, time.monotonic(), attempt.refusal)
            return
        logger.debug("%s: broker %s: %s", self._config.client_id, node, established.description)
        node.generation = self._loop.connect(node.node_id, established.fd, established.stream)
        self._pumps.pop(node.node_id, None)
        if established.pump is not None:
            self._pumps[node.node_id] = established.pump
            established.pump.start()

    def abandon_attempts(self) -> None:
        """The producer ends: let the threads that are connecting end too."""
        for attempt in self._attempts.values():
            attempt.abandon()

    def on_connected(self, node: Node) -> None:
        """The TCP connection is there."""
        node.deadline = time.monotonic() + self._config.request_timeout_ms / 1000
        self._say_hello(node, node.hello(self._config.client_id), 4)

    def _say_hello(self, node: Node, frame: bytes, version: int) -> None:
        timeout = self._config.request_timeout_ms / 1000
        self._loop.send(node.node_id, node.generation, frame, HELLO, version, timeout)

    def _on_hello(self, node: Node, version: int, frame: bytes) -> None:
        now = time.monotonic()
        try:
            again = node.learn_versions(version, frame)
            if again is not None:
                self._say_hello(node, node.hello(self._config.client_id, again), again)
                return
            if node.version_of(PRODUCE) is None or node.version_of(METADATA) is None:
                raise ProtocolError(
                    f"the broker speaks Produce {node.versions.get(PRODUCE.key)}, this client "
                    f"{PRODUCE.versions[0]}-{PRODUCE.versions[1]}: it needs Apache Kafka 2.1 or newer"
                )
        except ProtocolError as error:
            self._setup_failed(node, f"not a usable Kafka broker: {error}", now)
            return
        if self.authenticator is not None:
            self.authenticator.begin(node, now)
        else:
            self._set_up(node)

    def _set_up(self, node: Node) -> None:
        """The connection can be used."""
        node.ready(time.monotonic())
        self._on_ready()
        logger.info("%s: connected to broker %s", self._config.client_id, node)
        self._enable(node)

    def _enable(self, node: Node) -> None:
        """Let produce requests out."""
        version = node.version_of(PRODUCE)
        if node.node_id >= 0 and version is not None:
            self._loop.enable(node.node_id, node.generation, version)

    # -- the end of a connection, or of an attempt

    def _setup_failed(
        self,
        node: Node,
        reason: str,
        now: float,
        refusal: KafkaError | None = None,
        *,
        distrust: bool = False,
        lasting: bool = True,
    ) -> None:
        """This side ends it.

        Args:
            node: whose connection, or attempt.
            reason: why, in words.
            now: the time.
            refusal: the error for applications, where trying again alone will not help (see
                :meth:`Node.failed`).
            distrust: the reason is what the broker sent.
            lasting: see :meth:`Node.failed`.
        """
        generation = node.generation
        node.failed(now, reason, refusal, distrust=distrust, lasting=lasting)
        self._log_failure(node, reason)
        if generation >= 0:
            self._loop.disconnect(node.node_id, generation)
            self._drop_requests(node, generation, reason)
        self._lost(node)

    def _log_failure(self, node: Node, reason: str) -> None:
        level = logging.WARNING if node.refusals == 1 and node.refusal is not None else logging.INFO
        logger.log(level, "%s: broker %s: %s", self._config.client_id, node, reason)

    def on_closed(
        self, node: Node, reason: int, system_error: int, by_tls: bool = False, note: bytes | None = None
    ) -> None:
        """The network loop closed the connection.

        Args:
            node: whose.
            reason: one of the codes of :mod:`kprod.delivery`.
            system_error: an errno, or 0.
            by_tls: a TLS alert came where Kafka's answer was expected.
            note: what OpenSSL says about it.
        """
        now = time.monotonic()
        text = delivery.reason_text(reason)
        if system_error:
            text = f"{text}: {sockets.error_text(system_error)}"
        elif node.state is State.HANDSHAKE:
            text += " in answer to the first request: "
            if self._shared.tls is None:
                text += (
                    f"is this a Kafka listener, and its security protocol {self._config.security_protocol}?"
                )
            else:
                text += "did the broker refuse the client's certificate? See its log"
        elif node.state is State.AUTHENTICATING:
            text = f"{text} during SASL authentication; the broker's log says why"
        refusal = self._tls_refusal(node, by_tls, note)
        if refusal is None and not system_error and reason == delivery.DISCONNECTED:
            refusal = self._sasl_listener(node)
        if refusal is not None:
            text = str(refusal.args[0])
        generation = node.generation
        node.failed(now, text, refusal, distrust=reason in delivery.BROKEN_ANSWERS)
        self._log_failure(node, text)
        self._drop_requests(node, generation, text)
        self._lost(node)

    def _tls_refusal(self, node: Node, by_tls: bool, note: bytes | None) -> KafkaError | None:
        """The error for applications if TLS is why a connection ended."""
        from kprod.security import tls_errors

        tls = self._shared.tls
        if tls is None:
            return tls_errors.tls_listener(str(node), self._config.security_protocol) if by_tls else None
        pump = self._pumps.pop(node.node_id, None)
        if pump is not None and pump.error is not None:
            note = (pump.error.reason or str(pump.error)).encode()
        # With TLS 1.3 a client learns only after the handshake that its certificate was refused.
        if note is None or node.state is not State.HANDSHAKE:
            return None
        return tls_errors.from_reason(note.decode(errors="replace"), str(node), tls.has_certificate)

    def _sasl_listener(self, node: Node) -> KafkaError | None:
        """The error for applications if a listener seems to want SASL, which this client does not offer.

        Such a broker answers ApiVersions to anybody, and ends the connection at the next request. Once a
        broker has answered anything else it is taken for a broker that went away.
        """
        if (
            self.authenticator is not None
            or self._shared.refreshed_at
            or node.state is not State.READY
            or not any(request.node is node for request in self._requests.values())
        ):
            return None
        address = f"{node.host}:{node.port}"
        seen = self._unanswered[address] = self._unanswered.get(address, 0) + 1
        if seen < _UNANSWERED_MEANS_SASL:
            return None
        node.failures = node.refusals = seen - 1
        protocol = self._config.security_protocol
        return IllegalSaslStateError(
            "the broker ended the connection at the first request, as a listener does that wants SASL: with "
            f"security_protocol={protocol!r} nobody is authenticated. Set it to "
            f"{'SASL_SSL' if protocol == 'SSL' else 'SASL_PLAINTEXT'}, with sasl_mechanism and credentials, "
            "or bootstrap_servers to a port without SASL",
            broker=str(node),
        )

    def _lost(self, node: Node) -> None:
        if node.node_id >= 0:
            # Its partitions may have moved; as long as it cannot be reached, they may still do so.
            self._on_lost(node.node_id)
            if node.given_up:
                self._nodes.wanted.discard(node.node_id)
                self._loop.fail_broker(node.node_id, delivery.REFUSED)
        self._shared.notify()

    def _drop_requests(self, node: Node, generation: int, reason: str) -> None:
        """The requests on a connection that ended get no answer."""
        for token in [t for t, r in self._requests.items() if r.node is node and r.generation == generation]:
            request = self._requests.pop(token)
            request.handler(node, None, reason)

    # -- control requests

    def request(
        self, api: Api, body: Body, handler: Handler, at_most: int | None = None, node: Node | None = None
    ) -> bool:
        """Ask a broker.

        Args:
            api: what.
            body: the request.
            handler: gets the answer, or why there is none.
            at_most: the newest version to use.
            node: whom; None: the least loaded one.

        Returns:
            False: nobody can be asked now, and the handler is not called.
        """
        node = node or self._nodes.usable()
        if node is None or node.state is not State.READY:
            return False
        version = node.version_of(api, at_most)
        if version is None:
            handler(node, None, f"broker {node} does not know {api.name}")
            return True
        self._last_token += 1
        frame = encode_request(api, version, 0, self._config.client_id, body)
        timeout = self._config.request_timeout_ms / 1000
        if not self._loop.send(node.node_id, node.generation, frame, self._last_token, version, timeout):
            return False
        self._requests[self._last_token] = _Request(node, node.generation, api, version, body, handler)
        return True

    def on_frame(self, node: Node, token: int, version: int, frame: bytes) -> None:
        """An answer came."""
        if token == HELLO:
            self._on_hello(node, version, frame)
            return
        if token == SASL_TOKEN:
            if self.authenticator is not None:
                self.authenticator.on_frame(node, frame)
            return
        request = self._requests.pop(token, None)
        if request is None:
            return
        try:
            _, body = decode_response(request.api, request.version, frame)
            check_response(request.api, request.body, body)
        except ProtocolError as error:
            text = f"malformed {request.api.name} response: {error}"
            request.handler(request.node, None, text)
            self._setup_failed(request.node, text, time.monotonic(), distrust=True)
            return
        node.answered()
        request.handler(request.node, body, "")


def _setup_limit(node: Node) -> str:
    return {
        State.RESOLVING: "the time for resolving the host name",
        State.CONNECTING: "socket_connection_setup_timeout_ms",
    }.get(node.state, "the time for the first answer: is this a Kafka broker, and does it speak plaintext?")
