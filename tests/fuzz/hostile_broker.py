"""A Kafka broker that may answer anything: a plain socket server that a test gives its lines.

It answers as a broker of one node does, in as few words as possible, except where a test says otherwise. It
shares only the message schemas with the code under test, and none of MockCluster's honesty.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from kprod.protocol import (
    ADD_PARTITIONS_TO_TXN,
    API_VERSIONS,
    END_TXN,
    FIND_COORDINATOR,
    GET_TELEMETRY_SUBSCRIPTIONS,
    INIT_PRODUCER_ID,
    METADATA,
    PRODUCE,
    PUSH_TELEMETRY,
    Api,
    Body,
    decode_request,
    encode_response,
)
from kprod.protocol.frames import RequestHeader

APIS = {
    api.key: api
    for api in (
        API_VERSIONS,
        METADATA,
        PRODUCE,
        INIT_PRODUCER_ID,
        FIND_COORDINATOR,
        ADD_PARTITIONS_TO_TXN,
        END_TXN,
        GET_TELEMETRY_SUBSCRIPTIONS,
        PUSH_TELEMETRY,
    )
}
TELEMETRY = {GET_TELEMETRY_SUBSCRIPTIONS.name: (0, 0), PUSH_TELEMETRY.name: (0, 0)}
"""Versions of what is offered only where a test says so."""

TOPIC_ID = bytes(range(16))


@dataclass
class Question:
    """A request that came, and what a broker of good faith answers."""

    broker: HostileBroker
    connection: socket.socket
    api: Api
    header: RequestHeader
    body: Body

    @property
    def version(self) -> int:
        """Of the request."""
        return self.header.api_version

    def honest_body(self) -> Body:
        """The honest answer's body."""
        return self.broker.honest_body(self)

    def honest(self, **changes: Any) -> bytes:
        """The honest answer as a frame, with other values for some fields of its body."""
        return self.encode({**self.honest_body(), **changes})

    def encode(self, body: Mapping[str, Any], correlation_id: int | None = None) -> bytes:
        """A frame with any body that can be encoded."""
        number = self.header.correlation_id if correlation_id is None else correlation_id
        return encode_response(self.api, self.version, number, body)


Answer = Callable[[Question], "bytes | Iterable[bytes] | None"]
"""Bytes to send, in one piece or several; None ends the connection; an empty sequence says nothing."""


class HostileBroker:
    """One broker, node 1, with the topic ``t`` of one partition.

    Args:
        answers: by the name of the API, what takes the place of the honest answer.
        greeting: bytes to send as soon as a connection is there.
        versions: by the name of the API, the range to offer; the default is all that kprod knows, without
            :data:`TELEMETRY`.
        peers: more brokers to name in metadata: node id, host and port.
        leaders: node ids of the leaders of ``t``'s partitions.
        lifetime: called with a connection when it is accepted, before anything else.
    """

    def __init__(
        self,
        answers: Mapping[str, Answer] | None = None,
        *,
        greeting: bytes = b"",
        versions: Mapping[str, tuple[int, int]] | None = None,
        peers: Iterable[tuple[int, str, int]] = (),
        leaders: Iterable[int] = (1,),
        lifetime: Callable[[socket.socket], None] | None = None,
    ) -> None:
        self._answers = dict(answers or {})
        self._greeting = greeting
        self._versions = dict(versions or {})
        self.peers = list(peers)
        self.leaders = list(leaders)
        self._lifetime = lifetime
        self.asked: Counter[str] = Counter()
        """Requests that came, by API."""
        self.accepted = 0
        """Connections."""
        self.failure: BaseException | None = None
        """What a test's own answer raised."""
        self._offset = 0
        self._open: set[socket.socket] = set()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._threads = [threading.Thread(target=self._accept, name="hostile-accept", daemon=True)]
        self._threads[0].start()

    @property
    def address(self) -> str:
        """What to give as ``bootstrap_servers``."""
        return f"127.0.0.1:{self.port}"

    def __enter__(self) -> HostileBroker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
        if self.failure is not None and error is None:
            raise self.failure

    def close(self) -> None:
        """End it, and all its connections."""
        # shutdown() is what wakes a thread that is in accept().
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._threads[0].join(10)
        self._listener.close()
        for connection in list(self._open):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for thread in list(self._threads):
            thread.join(10)
        assert not any(thread.is_alive() for thread in self._threads), "the hostile broker hangs"

    # -- answering in good faith

    def honest_body(self, question: Question) -> Body:
        """What a broker of good faith answers."""
        api, body = question.api, question.body
        if api is API_VERSIONS:
            ranges = {
                key: self._versions.get(known.name, known.versions)
                for key, known in APIS.items()
                if known.name not in TELEMETRY or known.name in self._versions
            }
            return {
                "error_code": 0,
                "api_keys": [
                    {"api_key": key, "min_version": low, "max_version": high}
                    for key, (low, high) in ranges.items()
                ],
            }
        if api is METADATA:
            return {
                "error_code": 0,
                "brokers": [
                    {"node_id": node_id, "host": host, "port": port}
                    for node_id, host, port in [(1, "127.0.0.1", self.port), *self.peers]
                ],
                "cluster_id": "hostile",
                "topics": [self.topic_row(row["name"]) for row in body["topics"] or ()],
            }
        if api is PRODUCE:
            topics = []
            for topic in body["topic_data"]:
                rows = []
                for partition in topic["partition_data"]:
                    # Record count: the last four of the 61 bytes in front of the records.
                    (count,) = struct.unpack_from(">i", partition["records"], 57)
                    rows.append({"index": partition["index"], "error_code": 0, "base_offset": self._offset})
                    self._offset += count
                topics.append(
                    {"name": topic["name"], "topic_id": topic["topic_id"], "partition_responses": rows}
                )
            return {"responses": _all_fields(topics)}
        if api is INIT_PRODUCER_ID:
            return {"error_code": 0, "producer_id": 7, "producer_epoch": 0}
        if api is FIND_COORDINATOR:
            row = {"error_code": 0, "node_id": 1, "host": "127.0.0.1", "port": self.port}
            return {**row, "coordinators": [{"key": key, **row} for key in body["coordinator_keys"]]}
        if api is ADD_PARTITIONS_TO_TXN:
            return {
                "results_by_topic": [
                    {
                        "name": topic["name"],
                        "results_by_partition": [
                            {"partition_index": index, "partition_error_code": 0}
                            for index in topic["partitions"]
                        ],
                    }
                    for topic in body["topics"]
                ]
            }
        if api is GET_TELEMETRY_SUBSCRIPTIONS:
            return {
                "error_code": 0,
                "client_instance_id": TOPIC_ID,
                "subscription_id": 1,
                "accepted_compression_types": [4],
                "push_interval_ms": 100,
                "telemetry_max_bytes": 1 << 20,
                "delta_temporality": True,
                "requested_metrics": ["*"],
            }
        assert api in (END_TXN, PUSH_TELEMETRY)
        return {"error_code": 0}

    def topic_row(self, name: str, **changes: Any) -> Body:
        """The honest row of a topic in a metadata response."""
        row: Body = {
            "error_code": 0,
            "name": name,
            "topic_id": TOPIC_ID,
            "partitions": [
                {
                    "error_code": 0,
                    "partition_index": index,
                    "leader_id": leader,
                    "leader_epoch": 0,
                    "replica_nodes": [1],
                    "isr_nodes": [1],
                    "offline_replicas": [],
                }
                for index, leader in enumerate(self.leaders)
            ],
        }
        return {**row, **changes}

    # -- threads

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.accepted += 1
            self._open.add(connection)
            thread = threading.Thread(
                target=self._converse, args=(connection,), name="hostile-connection", daemon=True
            )
            self._threads.append(thread)
            thread.start()

    def _converse(self, connection: socket.socket) -> None:
        try:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._lifetime is not None:
                self._lifetime(connection)
            if self._greeting:
                connection.sendall(self._greeting)
            while (frame := _read_frame(connection)) is not None:
                api = APIS[int.from_bytes(frame[:2], "big")]
                header, body = decode_request(frame, api)
                self.asked[api.name] += 1
                question = Question(self, connection, api, header, body)
                pieces = self._answers.get(api.name, Question.honest)(question)
                if pieces is None:
                    return
                for piece in [pieces] if isinstance(pieces, bytes) else pieces:
                    connection.sendall(piece)
        except OSError:
            pass  # the producer closed the connection, as it should
        except BaseException as error:
            self.failure = error
        finally:
            self._open.discard(connection)
            connection.close()


def _read_frame(connection: socket.socket) -> bytes | None:
    size = _read(connection, 4)
    return None if size is None else _read(connection, int.from_bytes(size, "big"))


def _read(connection: socket.socket, size: int) -> bytes | None:
    data = bytearray()
    while len(data) < size:
        piece = connection.recv(size - len(data))
        if not piece:
            return None
        data += piece
    return bytes(data)


def _all_fields(topics: list[Body]) -> list[Body]:
    """Produce's rows with the fields that have no default."""
    for topic in topics:
        for row in topic["partition_responses"]:
            row.setdefault("record_errors", [])
    return topics
