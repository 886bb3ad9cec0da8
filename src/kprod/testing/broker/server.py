"""The brokers on the network: listening sockets, dispatch of requests, faults, and the request log."""

from __future__ import annotations

import asyncio
import functools
import logging
import os
import socket
import ssl
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from kprod.protocol import (
    API_VERSIONS,
    APIS,
    Api,
    Body,
    BytesLeftOver,
    ProtocolError,
    RequestHeader,
    decode_request,
    decode_request_header,
    encode_response,
)
from kprod.testing.broker import coordinators, fetch, metadata, produce, telemetry
from kprod.testing.broker.cluster import ClusterState, Node
from kprod.testing.broker.connection import Connection
from kprod.testing.broker.request import CloseConnection, Later, Request
from kprod.testing.broker.sasl import SaslSettings
from kprod.testing.broker.telemetry import MockTelemetryPush, Subscription

_log = logging.getLogger("kprod.testing")

Handler = Callable[[ClusterState, Request], "Body | Later | None"]

HANDLERS: dict[str, Handler] = {
    "ApiVersions": metadata.api_versions,
    "Metadata": metadata.metadata,
    "DescribeCluster": metadata.describe_cluster,
    "CreateTopics": metadata.create_topics,
    "DeleteTopics": metadata.delete_topics,
    "CreatePartitions": metadata.create_partitions,
    "DescribeConfigs": metadata.describe_configs,
    "Produce": produce.produce,
    "Fetch": fetch.fetch,
    "ListOffsets": fetch.list_offsets,
    "OffsetForLeaderEpoch": fetch.offset_for_leader_epoch,
    "FindCoordinator": coordinators.find_coordinator,
    "InitProducerId": coordinators.init_producer_id,
    "AddPartitionsToTxn": coordinators.add_partitions_to_txn,
    "AddOffsetsToTxn": coordinators.add_offsets_to_txn,
    "EndTxn": coordinators.end_txn,
    "TxnOffsetCommit": coordinators.txn_offset_commit,
    "OffsetCommit": coordinators.offset_commit,
    "OffsetFetch": coordinators.offset_fetch,
    "JoinGroup": coordinators.join_group,
    "SyncGroup": coordinators.sync_group,
    "Heartbeat": coordinators.heartbeat,
    "LeaveGroup": coordinators.leave_group,
    "GetTelemetrySubscriptions": telemetry.get_telemetry_subscriptions,
    "PushTelemetry": telemetry.push_telemetry,
}

SASL_APIS = frozenset({"SaslHandshake", "SaslAuthenticate"})
"""APIs that are about the connection they come on."""

REQUEST_LOG_SIZE = 100_000
"""Requests that the log keeps; older ones are forgotten."""


class ClusterClosed(RuntimeError):
    """The mock cluster was used after it was closed, or closed while it was waited for."""

    def __init__(self, message: str = "this MockCluster is closed") -> None:
        super().__init__(message)


class MockRequest(NamedTuple):
    """One request that a broker received.

    Attributes:
        time: when, seconds since 1970.
        node: the broker.
        api: Kafka's name of the API, for instance ``'Produce'``.
        version: version of the request.
        correlation_id: as the client sent it.
        client_id: as the client sent it.
        client_address: ``host:port`` of the client, so the same value means the same connection.
        size: bytes of the frame.
        body: the decoded request; record data is replaced by its number of bytes.
    """

    time: float
    node: int
    api: str
    version: int
    correlation_id: int
    client_id: str | None
    client_address: str
    size: int
    body: dict[str, Any]

    @property
    def partitions(self) -> dict[tuple[str, int], int]:
        """Of a Produce request: bytes of records by (topic, partition). Names are '' from version 13 on."""
        return {
            (topic["name"], partition["index"]): partition["records"]
            for topic in self.body.get("topic_data", ())
            for partition in topic["partition_data"]
        }


class Broker:
    """One broker: a listening socket and its connections."""

    def __init__(self, cluster: BrokerServer, node: Node, sock: socket.socket) -> None:
        self.cluster = cluster
        self.node = node
        self.connections: set[Connection] = set()
        self.black_hole = False
        self.latency = 0.0
        self.slow_write_interval = 0.0
        self.slow_write_bytes = 1
        self._socket = sock
        self.accepting = False
        self._openings: set[asyncio.Task[Any]] = set()

    def start(self) -> None:
        """Accept connections."""
        self._socket.setblocking(False)
        self._socket.listen(128)
        self.accepting = True
        self.cluster.loop.add_reader(self._socket, self._accept)

    def _accept(self) -> None:
        # asyncio's own server drops a connection on the floor when it is closed while accepting; this does
        # not.
        while True:
            try:
                sock, _ = self._socket.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            sock.setblocking(False)
            # asyncio sets it only where it made the socket itself; small answers would wait for delayed ACKs.
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            opening = self.cluster.loop.create_task(self._open(sock))
            self._openings.add(opening)
            opening.add_done_callback(self._openings.discard)

    async def _open(self, sock: socket.socket) -> None:
        try:
            await self.cluster.loop.connect_accepted_socket(
                lambda: Connection(self), sock, ssl=self.cluster.ssl_context
            )
        except OSError as exc:  # also a TLS handshake that failed
            self.cluster.client_errors.append(f"broker {self.node.id}: connection not opened: {exc}")
            sock.close()

    def stop(self, keep_port: bool) -> None:
        """Close the listening socket and all connections.

        Args:
            keep_port: hold the port with a socket that does not listen. Connections are refused then, and
                nobody else can be given the port; not even a client that connects to it, by connecting to
                itself.
        """
        self.accepting = False
        self.cluster.loop.remove_reader(self._socket)
        self._socket.close()
        if keep_port:
            self._socket = bind(self.node.host, self.node.port)
        for connection in list(self.connections):
            connection.abort()

    async def closed(self) -> None:
        """Wait until nothing of it is left in the event loop."""
        while self._openings:
            await asyncio.wait(self._openings)
        for connection in list(self.connections):
            connection.abort()
        while self.connections:
            await asyncio.sleep(0)

    def handle(self, connection: Connection, frame: bytes | bytearray) -> None:
        """Handle one request frame."""
        self.cluster.handle(self, connection, frame)

    def report(self, connection: Connection, problem: str) -> None:
        """Note that a client sent something that is not a valid request."""
        self.cluster.client_errors.append(f"broker {self.node.id}, client {connection.address}: {problem}")
        _log.debug("mock broker %d, client %s: %s", self.node.id, connection.address, problem)


def bind(host: str, port: int) -> socket.socket:
    """A bound socket that does not listen yet; port 0 takes a free one."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        if os.name == "posix":
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((host, port))
    except BaseException:
        sock.close()
        raise
    return sock


class BrokerServer:
    """The whole cluster, running in the event loop of the current thread.

    Its methods, except :meth:`start` and :meth:`close`, are what tests can ask for; they are called by name
    from another thread or another process.
    """

    def __init__(
        self,
        sockets: list[socket.socket],
        host: str,
        loop: asyncio.AbstractEventLoop,
        *,
        racks: list[str | None] | None = None,
        ssl_context: ssl.SSLContext | None = None,
        sasl: tuple[Mapping[str, str], tuple[str, ...], int] | None = None,
        **options: Any,
    ) -> None:
        self.loop = loop
        self.ssl_context = ssl_context
        self.sasl = SaslSettings(*sasl) if sasl is not None else None
        nodes = [
            Node(number, host, sock.getsockname()[1], racks[number - 1] if racks else None)
            for number, sock in enumerate(sockets, 1)
        ]
        self.state = ClusterState(nodes, loop.call_later, **options)
        self.brokers = {node.id: Broker(self, node, sock) for node, sock in zip(nodes, sockets, strict=True)}
        self.log: deque[MockRequest] = deque(maxlen=REQUEST_LOG_SIZE)
        self.client_errors: list[str] = []
        self._waiters: list[tuple[int, str | None, asyncio.Future[int]]] = []
        self.state.on_append = self._wake_waiters

    def start(self) -> None:
        """Start all brokers."""
        for broker in self.brokers.values():
            broker.start()

    async def close(self) -> None:
        """Stop all brokers; after this nothing is left open."""
        for broker in self.brokers.values():
            broker.stop(keep_port=False)
        for _, _, future in self._waiters:
            future.set_exception(ClusterClosed())
        for broker in self.brokers.values():
            await broker.closed()

    # --- requests ---------------------------------------------------------------------------------------

    def handle(self, broker: Broker, connection: Connection, frame: bytes | bytearray) -> None:
        """Decode a request, let faults act, handle it and send the answer."""
        try:
            header = decode_request_header(frame)
            api = APIS.get(header.api_key)
            if (
                api is None
                or (api.name not in HANDLERS and api.name not in SASL_APIS)
                or api.key not in self.state.api_versions
            ):
                raise ProtocolError(f"API key {header.api_key} is not supported")
            if not connection.sasl.admits(api.name):
                # A broker ends the connection without an answer; it is no fault of the request's bytes.
                _log.debug("mock broker %d: %s without authentication", broker.node.id, api.name)
                self._note(broker, connection, header, api, len(frame), {})
                connection.abort()
                return
            low, high = self.state.api_versions[api.key]
            if not max(low, api.versions[0]) <= header.api_version <= high:
                if api is API_VERSIONS:
                    self._note(broker, connection, header, api, len(frame), {})
                    answer = metadata.unsupported_version_answer(self.state)
                    slot = connection.reserve(broker.latency)
                    connection.fill(slot, encode_response(api, 0, header.correlation_id, answer))
                    return
                raise ProtocolError(f"{api.name} version {header.api_version} is not supported")
            try:
                header, body = decode_request(frame, api)
            except BytesLeftOver as exc:
                # As a broker, which does not look at them; librdkafka has some behind its list_topics().
                broker.report(connection, str(exc))
                header, body = exc.header, exc.body
        except ProtocolError as exc:
            # A broker answers nothing to what it does not understand.
            broker.report(connection, str(exc))
            connection.abort()
            return
        request = Request(header, api, body, broker.node.id, connection.address)
        self._note(broker, connection, header, api, len(frame), request.summary())
        if self.state.faults:
            request.faults = self.state.faults.match(
                api.key, broker.node.id, request.touched(self.state.topic_name)
            )
        behind = max((fault.handle_after_ms for fault in request.faults), default=0) / 1000
        if behind:
            connection.postpone(behind, functools.partial(self._answer, broker, connection, request))
        else:
            self._answer(broker, connection, request)

    def _note(
        self,
        broker: Broker,
        connection: Connection,
        header: RequestHeader,
        api: Api,
        size: int,
        body: Body,
    ) -> None:
        self.log.append(
            MockRequest(
                time.time(),
                broker.node.id,
                api.name,
                header.api_version,
                header.correlation_id,
                header.client_id,
                connection.address,
                size,
                body,
            )
        )

    def _answer(self, broker: Broker, connection: Connection, request: Request) -> None:
        faults = request.faults
        close = next((f.close_connection for f in faults if f.close_connection), None)
        if close == "before":
            connection.abort()
            return
        result: Body | Later | None
        try:
            if request.api.name == "SaslHandshake":
                result = connection.sasl.handshake(request.body)
            elif request.api.name == "SaslAuthenticate":
                result = connection.sasl.authenticate(request.body)
            else:
                result = HANDLERS[request.api.name](self.state, request)
        except CloseConnection:
            connection.abort()
            return
        if any(f.drop_response for f in faults):
            connection.stall()
            return
        if close == "after":
            connection.abort()
            return
        if result is None:
            return
        delay = broker.latency + sum(f.delay_ms for f in faults) / 1000
        slot = connection.reserve(delay)
        throttle_ms = max((f.throttle_ms for f in faults), default=0)

        def send(body: Body) -> None:
            if throttle_ms:
                body = {**body, "throttle_time_ms": throttle_ms}
            frame = encode_response(request.api, request.version, request.header.correlation_id, body)
            if close == "mid_response":
                slot.close_after = max(len(frame) // 2, 1)
            elif connection.sasl.failed:
                slot.close_after = len(frame)
            connection.fill(slot, frame)

        if isinstance(result, Later):
            result.when_set(send)
        else:
            send(result)

    # --- what tests ask for -----------------------------------------------------------------------------

    def batches(self, topic: str, partition: int | None) -> list[tuple[int, list[bytes]]]:
        """(partition, its batches) of a topic; nothing for an unknown topic."""
        found = self.state.topics.get(topic)
        if found is None:
            return []
        return [
            (p.index, [batch.data for batch in p.log.batches])
            for p in found.partitions
            if partition is None or p.index == partition
        ]

    def count(self, topic: str | None, partition: int | None) -> int:
        """Records in a topic or a partition, or in all topics."""
        topics = self.state.topics.values() if topic is None else filter(None, [self.state.topics.get(topic)])
        return sum(
            p.log.record_count
            for t in topics
            for p in t.partitions
            if partition is None or p.index == partition
        )

    async def wait_for(self, count: int, topic: str | None, timeout: float) -> int:
        """Wait until there are `count` records; returns the number there are, fewer after the timeout."""
        have = self.count(topic, None)
        if have >= count:
            return have
        future: asyncio.Future[int] = self.loop.create_future()
        waiter = (count, topic, future)
        self._waiters.append(waiter)
        try:
            return await asyncio.wait_for(future, timeout)
        except asyncio.TimeoutError:
            return self.count(topic, None)
        finally:
            self._waiters.remove(waiter)

    def _wake_waiters(self) -> None:
        for count, topic, future in self._waiters:
            have = self.count(topic, None)
            if have >= count and not future.done():
                future.set_result(have)

    def requests(self) -> list[MockRequest]:
        """The request log."""
        return list(self.log)

    def problems(self) -> list[str]:
        """What clients sent that is not a valid request."""
        return list(self.client_errors)

    def topics(self) -> dict[str, int]:
        """Number of partitions by topic."""
        return {topic.name: len(topic.partitions) for topic in self.state.topics.values()}

    def topic_id(self, topic: str) -> bytes:
        """UUID of a topic."""
        return self.state.topics[topic].id

    def leader(self, topic: str, partition: int) -> int:
        """The broker that leads a partition, -1 for none."""
        return self.state.topics[topic].partitions[partition].leader

    def end_offset(self, topic: str, partition: int) -> int:
        """The offset that the next record of a partition gets."""
        return self.state.topics[topic].partitions[partition].log.next_offset

    def committed_offsets(self, group: str) -> dict[tuple[str, int], int]:
        """Offsets that a consumer group has stored, by (topic, partition)."""
        return {key: value.offset for key, value in self.state.groups.group(group).offsets.items()}

    def create_topic(
        self, name: str, partitions: int, replication_factor: int | None, config: Mapping[str, object]
    ) -> None:
        """Create a topic."""
        self.state.create_topic(name, partitions, replication_factor, config)

    def add_partitions(self, topic: str, total: int) -> None:
        """Raise the partitions of a topic to `total`."""
        self.state.add_partitions(topic, total)

    def delete_topic(self, topic: str) -> None:
        """Delete a topic."""
        self.state.delete_topic(topic)

    def move_leader(self, topic: str, partition: int, node: int) -> None:
        """Make another broker the leader of a partition."""
        self.state.move_leader(topic, partition, node)

    def stop_broker(self, node: int) -> None:
        """Stop a broker: connections break and new ones are refused."""
        broker = self.brokers[node]
        if broker.node.alive:
            broker.stop(keep_port=True)
            self.state.node_stopped(node)

    def start_broker(self, node: int) -> None:
        """Start a stopped broker on the same port."""
        broker = self.brokers[node]
        if not broker.node.alive:
            self.state.node_started(node)
            broker.start()

    def set_unreachable(self, node: int, unreachable: bool) -> None:
        """Let a broker swallow everything without an answer, or end that."""
        broker = self.brokers[node]
        if broker.black_hole == unreachable:
            return
        broker.black_hole = unreachable
        for connection in list(broker.connections):
            if unreachable:
                connection.pause()
            else:
                connection.resume()

    def _chosen(self, node: int | None) -> list[Broker]:
        return list(self.brokers.values()) if node is None else [self.brokers[node]]

    def set_latency(self, seconds: float, node: int | None) -> None:
        """Delay every response."""
        for broker in self._chosen(node):
            broker.latency = seconds

    def set_slow_writes(self, interval: float, size: int, node: int | None) -> None:
        """Send responses in pieces of `size` bytes every `interval` seconds; 0 ends it."""
        for broker in self._chosen(node):
            broker.slow_write_interval = interval
            broker.slow_write_bytes = size

    def disconnect_clients(self, node: int | None) -> int:
        """Break all connections; returns how many there were."""
        connections = [c for broker in self._chosen(node) for c in broker.connections]
        for connection in connections:
            connection.abort()
        return len(connections)

    def connection_count(self, node: int | None) -> int:
        """Open connections."""
        return sum(len(broker.connections) for broker in self._chosen(node))

    def set_release(self, release: str) -> None:
        """Pass for another Kafka release."""
        self.state.set_release(release)

    def set_api_versions(self, ranges: dict[int, tuple[int, int] | None]) -> None:
        """Change the advertised versions of some APIs; ``None`` takes an API away."""
        for key, versions in ranges.items():
            if versions is None:
                self.state.api_versions.pop(key, None)
            else:
                self.state.api_versions[key] = versions

    def add_fault(self, fields: dict[str, Any]) -> int:
        """Register a fault; returns its number."""
        return self.state.faults.add(**fields)

    def remove_fault(self, fault: int) -> None:
        """Take a fault out."""
        self.state.faults.remove(fault)

    def fault_hits(self, fault: int) -> int:
        """How many requests a fault has hit."""
        return self.state.faults.hits(fault)

    def set_password(self, user: str, password: str | None) -> None:
        """Change a user's password; ``None`` takes the user away."""
        if self.sasl is None:
            raise ValueError("this MockCluster was made without sasl_users")
        if password is None:
            self.sasl.users.pop(user, None)
        else:
            self.sasl.users[user] = password

    def subscribe_to_metrics(self, fields: dict[str, Any] | None) -> None:
        """Ask clients for metrics; ``None``: be brokers that cannot receive any."""
        self.state.subscribe_to_metrics(None if fields is None else Subscription(**fields))

    def telemetry_pushes(self) -> list[MockTelemetryPush]:
        """What clients pushed."""
        return list(self.state.client_metrics.pushes)

    def clear(self) -> None:
        """Forget records, faults, disturbances and logs; topics and their leaders stay."""
        self.state.clear_records()
        self.state.faults.clear()
        self.log.clear()
        self.state.client_metrics.pushes.clear()
        self.client_errors.clear()
        self.set_latency(0.0, None)
        self.set_slow_writes(0.0, 1, None)
        for node in self.brokers:
            self.set_unreachable(node, False)

    def ports(self) -> list[int]:
        """Ports of the brokers, by id."""
        return [broker.node.port for broker in self.brokers.values()]
