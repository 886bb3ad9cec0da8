"""What an answer must satisfy beyond being well-formed, before anything is made of it.

A broker is not trusted: an answer can decode without an error and still name a partition that nobody asked
for, or a partition number that would take gigabytes to remember. What is refused here is what no Kafka broker
sends; an error code is never refused, whatever else stands beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from kprod.protocol.add_partitions_to_txn import ADD_PARTITIONS_TO_TXN
from kprod.protocol.cursor import ProtocolError
from kprod.protocol.end_txn import END_TXN
from kprod.protocol.find_coordinator import FIND_COORDINATOR
from kprod.protocol.init_producer_id import INIT_PRODUCER_ID
from kprod.protocol.metadata import METADATA
from kprod.protocol.schema import Api, Body
from kprod.protocol.txn_offset_commit import TXN_OFFSET_COMMIT

MAX_BROKERS: Final = 10_000
"""Most brokers accepted in one answer; the largest clusters that are known have some thousand."""

MAX_PARTITIONS: Final = 200_000
"""Most partitions accepted of one topic; ZooKeeper let a whole cluster have about as many."""

MAX_HOLES: Final = 1_000
"""Partitions of a topic that metadata may leave out: a broker with ZooKeeper may not know all of them yet."""

MAX_HOST_LENGTH: Final = 255
"""Longest host name accepted, in characters (RFC 1035)."""


def check_response(api: Api, request: Mapping[str, Any], body: Body) -> None:
    """Check a decoded answer against what was asked.

    Args:
        api: the API.
        request: the body of the request.
        body: the body of the answer.

    Raises:
        ProtocolError: no Kafka broker answers that; the message says what is wrong with it.
    """
    check = _CHECKS.get(api.key)
    if check is not None:
        check(request, body)


def check_brokers(rows: Iterable[tuple[int, str, int]]) -> None:
    """Check the brokers that an answer names.

    Args:
        rows: node id, host and port of each.

    Raises:
        ProtocolError: one cannot be a broker, there are too many, or two have one node id.
    """
    seen: dict[int, tuple[str, int]] = {}
    for node_id, host, port in rows:
        if node_id < 0:
            # Below 0 are the bootstrap servers, of which nobody else knows.
            raise ProtocolError(f"a broker with the node id {node_id}")
        if not 1 <= port <= 65535:
            raise ProtocolError(f"broker {node_id} with the port {port}: must be 1 to 65535")
        if not host or len(host) > MAX_HOST_LENGTH or not host.isprintable() or " " in host:
            shown = host if len(host) <= 80 else f"{host[:80]}..."
            raise ProtocolError(f"broker {node_id} with the host name {shown!r}, which is none")
        if seen.setdefault(node_id, (host, port)) != (host, port):
            raise ProtocolError(f"two brokers with the node id {node_id}")
        if len(seen) > MAX_BROKERS:
            raise ProtocolError(f"more than {MAX_BROKERS} brokers")


def _check_metadata(request: Mapping[str, Any], body: Body) -> None:
    check_brokers((row["node_id"], row["host"], row["port"]) for row in body["brokers"])
    if body["error_code"] or not body["brokers"]:
        return
    missing = {row["name"] for row in request["topics"] or ()}
    for topic in body["topics"]:
        name = topic["name"]
        missing.discard(name)
        rows = topic["partitions"]
        limit = min(len(rows) + MAX_HOLES, MAX_PARTITIONS)
        for row in rows:
            if not 0 <= row["partition_index"] < limit:
                raise ProtocolError(
                    f"partition {row['partition_index']} of topic {_shown(name)}, of which it names "
                    f"{len(rows)}"
                )
            if row["leader_id"] < -1 or row["leader_epoch"] < -1:
                raise ProtocolError(
                    f"leader {row['leader_id']} with the epoch {row['leader_epoch']} for partition "
                    f"{row['partition_index']} of topic {_shown(name)}"
                )
    if missing:
        raise ProtocolError(f"topic {_shown(min(missing))} was asked for and is not in it")


def _check_producer_id(request: Mapping[str, Any], body: Body) -> None:
    if not body["error_code"] and (body["producer_id"] < 0 or body["producer_epoch"] < 0):
        raise ProtocolError(f"producer id {body['producer_id']} with the epoch {body['producer_epoch']}")
    ongoing = body["ongoing_txn_producer_id"], body["ongoing_txn_producer_epoch"]
    if ongoing != (-1, -1) and min(ongoing) < 0:
        raise ProtocolError(f"an ongoing transaction of producer id {ongoing[0]} with the epoch {ongoing[1]}")


def _check_coordinator(request: Mapping[str, Any], body: Body) -> None:
    rows = body.get("coordinators")
    if rows:
        if [row["key"] for row in rows] != request["coordinator_keys"]:
            raise ProtocolError(f"not the coordinator of {request['key']!r}, which was asked for")
    else:
        rows = [body]
    check_brokers((row["node_id"], row["host"], row["port"]) for row in rows if not row["error_code"])


def _check_partitions_added(request: Mapping[str, Any], body: Body) -> None:
    _check_same_partitions(
        {(topic["name"], index) for topic in request["topics"] for index in topic["partitions"]},
        [
            (topic["name"], row["partition_index"])
            for topic in body["results_by_topic"]
            for row in topic["results_by_partition"]
        ],
    )


def _check_offsets_committed(request: Mapping[str, Any], body: Body) -> None:
    _check_same_partitions(
        {
            (topic["name"], row["partition_index"])
            for topic in request["topics"]
            for row in topic["partitions"]
        },
        [(topic["name"], row["partition_index"]) for topic in body["topics"] for row in topic["partitions"]],
    )


def _check_same_partitions(asked: set[tuple[str, int]], answered: list[tuple[str, int]]) -> None:
    for name, index in answered:
        if (name, index) not in asked:
            raise ProtocolError(f"partition {index} of topic {_shown(name)}, which was not asked for")
    missing = asked.difference(answered)
    if missing:
        name, index = min(missing)
        raise ProtocolError(f"partition {index} of topic {_shown(name)} was asked for and is not in it")


def _check_end(request: Mapping[str, Any], body: Body) -> None:
    if not body["error_code"] and body["producer_id"] >= 0 > body["producer_epoch"]:
        raise ProtocolError(f"producer id {body['producer_id']} with the epoch {body['producer_epoch']}")


def _shown(name: str | None) -> str:
    """A name for a message: what a broker sends may be long."""
    return repr(name if name is None or len(name) <= 80 else f"{name[:80]}...")


_CHECKS: Final[dict[int, Callable[[Mapping[str, Any], Body], None]]] = {
    METADATA.key: _check_metadata,
    INIT_PRODUCER_ID.key: _check_producer_id,
    FIND_COORDINATOR.key: _check_coordinator,
    ADD_PARTITIONS_TO_TXN.key: _check_partitions_added,
    TXN_OFFSET_COMMIT.key: _check_offsets_committed,
    END_TXN.key: _check_end,
}
