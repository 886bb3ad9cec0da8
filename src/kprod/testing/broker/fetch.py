"""Fetch, ListOffsets and OffsetForLeaderEpoch: what consumers need to read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from kprod.protocol import Body
from kprod.testing.broker.partition_log import READ_COMMITTED
from kprod.testing.broker.request import Later, Request

if TYPE_CHECKING:
    from kprod.testing.broker.cluster import ClusterState, Partition

OFFSET_OUT_OF_RANGE: Final = 1
UNKNOWN_TOPIC_OR_PARTITION: Final = 3
NOT_LEADER_OR_FOLLOWER: Final = 6
FENCED_LEADER_EPOCH: Final = 74
UNKNOWN_LEADER_EPOCH: Final = 75
UNKNOWN_TOPIC_ID: Final = 100

EARLIEST: Final = (-2, -4)
"""Time stamps of ListOffsets that mean the first offset (-4: the first local one, KIP-405)."""
LATEST: Final = -1
MAX_TIMESTAMP: Final = -3


def _check_leader(partition: Partition | None, request: Request, client_epoch: int) -> int:
    """The error code for a partition that this broker does not serve at that epoch (KIP-320), else 0."""
    if partition is None:
        return UNKNOWN_TOPIC_OR_PARTITION
    if partition.leader != request.node:
        return NOT_LEADER_OR_FOLLOWER
    if client_epoch >= 0 and client_epoch < partition.leader_epoch:
        return FENCED_LEADER_EPOCH
    if client_epoch > partition.leader_epoch:
        return UNKNOWN_LEADER_EPOCH
    return 0


def fetch(cluster: ClusterState, request: Request) -> Body | Later:
    """Handle a Fetch request; it waits up to `max_wait_ms` for `min_bytes`.

    Sessions (KIP-227) are never granted: session id 0 makes clients send full requests.
    """
    if request.error_for():
        top_level = next(f for f in request.faults if f.error)
        if top_level.topic is None and top_level.partition is None:
            return {"error_code": top_level.error, "responses": []}
    body = request.body
    watched: list[Partition] = []
    available = 0
    done = False
    for topic_request in body["topics"]:
        topic = cluster.find_topic(topic_request["topic"], topic_request["topic_id"])
        for p in topic_request["partitions"]:
            partition = cluster.partition(topic.name, p["partition"]) if topic is not None else None
            if partition is None or _check_leader(partition, request, p["current_leader_epoch"]):
                done = True
                continue
            if not 0 <= p["fetch_offset"] <= partition.log.next_offset:
                done = True
                continue
            if request.error_for(partition.topic, partition.index):
                done = True
            available += partition.log.readable_bytes(
                p["fetch_offset"], body["isolation_level"], max(body["min_bytes"], 1)
            )
            watched.append(partition)
    if done or available >= body["min_bytes"] or body["max_wait_ms"] <= 0:
        return _read(cluster, request)
    return _wait(cluster, request, watched)


def _wait(cluster: ClusterState, request: Request, watched: list[Partition]) -> Later:
    later = Later()
    epochs = {id(p): p.leader_epoch for p in watched}
    wanted = max(request.body["min_bytes"], 1)
    isolation = request.body["isolation_level"]
    positions = {
        (topic_request["topic"] or cluster.topic_name(topic_request["topic_id"]), p["partition"]): p[
            "fetch_offset"
        ]
        for topic_request in request.body["topics"]
        for p in topic_request["partitions"]
    }

    def finish() -> None:
        timer.cancel()
        for partition in watched:
            partition.unwatch(check)
        later.set(_read(cluster, request))

    def check() -> None:
        moved = any(p.leader_epoch != epochs[id(p)] or p.topic not in cluster.topics for p in watched)
        available = sum(p.log.readable_bytes(positions[p.topic, p.index], isolation, wanted) for p in watched)
        if moved or available >= wanted:
            finish()

    timer = cluster.schedule(request.body["max_wait_ms"] / 1000, finish)
    for partition in watched:
        partition.watch(check)
    return later


def _read(cluster: ClusterState, request: Request) -> Body:
    body = request.body
    left = body["max_bytes"]
    first = True
    responses = []
    for topic_request in body["topics"]:
        topic = cluster.find_topic(topic_request["topic"], topic_request["topic_id"])
        name = topic.name if topic is not None else topic_request["topic"]
        partitions = []
        for p in topic_request["partitions"]:
            partition = cluster.partition(name, p["partition"])
            answer = _partition_answer(cluster, request, partition, p, name)
            if partition is not None and not answer["error_code"]:
                limit = min(left, p["partition_max_bytes"])
                if limit > 0 or first:
                    chunks, size = partition.log.read(p["fetch_offset"], limit, body["isolation_level"])
                    # The very first batch of a response is sent whatever its size (KIP-74).
                    if size <= limit or (first and chunks):
                        answer["records"] = b"".join(chunks)
                        left -= size
                        first = first and not chunks
                        if body["isolation_level"] == READ_COMMITTED and chunks:
                            _add_aborted(answer, partition, p["fetch_offset"], chunks)
            partitions.append(answer)
        responses.append(
            {"topic": topic_request["topic"], "topic_id": topic_request["topic_id"], "partitions": partitions}
        )
    return {"error_code": 0, "session_id": 0, "responses": responses}


def _add_aborted(answer: dict[str, Any], partition: Partition, first: int, chunks: list[bytes]) -> None:
    last_batch = chunks[-1]
    last = int.from_bytes(last_batch[:8], "big") + int.from_bytes(last_batch[23:27], "big")
    answer["aborted_transactions"] = [
        {"producer_id": a.producer_id, "first_offset": a.first_offset}
        for a in partition.log.aborted_between(first, last)
    ]


def _partition_answer(
    cluster: ClusterState, request: Request, partition: Partition | None, p: dict[str, Any], name: str
) -> dict[str, Any]:
    error = request.error_for(name, p["partition"]) or _check_leader(
        partition, request, p["current_leader_epoch"]
    )
    if partition is None:
        if request.version >= 13 and not name:
            error = UNKNOWN_TOPIC_ID
        return {
            "partition_index": p["partition"],
            "error_code": error,
            "high_watermark": -1,
            "aborted_transactions": None,
            "records": b"",
        }
    log = partition.log
    if not error and not 0 <= p["fetch_offset"] <= log.next_offset:
        error = OFFSET_OUT_OF_RANGE
    answer: dict[str, Any] = {
        "partition_index": p["partition"],
        "error_code": error,
        "high_watermark": log.next_offset,
        "last_stable_offset": log.last_stable_offset,
        "log_start_offset": 0,
        "aborted_transactions": [] if request.body["isolation_level"] == READ_COMMITTED else None,
        "records": b"",
    }
    if error == NOT_LEADER_OR_FOLLOWER:
        answer["current_leader"] = {"leader_id": partition.leader, "leader_epoch": partition.leader_epoch}
    return answer


def list_offsets(cluster: ClusterState, request: Request) -> Body:
    """Handle a ListOffsets request."""
    topics = []
    for topic_request in request.body["topics"]:
        partitions = []
        for p in topic_request["partitions"]:
            name, index = topic_request["name"], p["partition_index"]
            partition = cluster.partition(name, index)
            error = request.error_for(name, index) or _check_leader(
                partition, request, p["current_leader_epoch"]
            )
            offset, timestamp = -1, -1
            if partition is not None and not error:
                offset, timestamp = _offset_at(partition, p["timestamp"], request.body["isolation_level"])
            partitions.append(
                {
                    "partition_index": index,
                    "error_code": error,
                    "timestamp": timestamp,
                    "offset": offset,
                    "leader_epoch": partition.leader_epoch if partition is not None and offset >= 0 else -1,
                }
            )
        topics.append({"name": topic_request["name"], "partitions": partitions})
    return {"topics": topics}


def _offset_at(partition: Partition, timestamp: int, isolation_level: int) -> tuple[int, int]:
    log = partition.log
    if timestamp in EARLIEST:
        return 0, -1
    if timestamp == LATEST:
        return (log.last_stable_offset if isolation_level == READ_COMMITTED else log.next_offset), -1
    if timestamp == MAX_TIMESTAMP:
        return log.max_timestamp()
    found = log.offset_for_timestamp(timestamp)
    return found if found is not None else (-1, -1)


def offset_for_leader_epoch(cluster: ClusterState, request: Request) -> Body:
    """Handle an OffsetForLeaderEpoch request: nothing is ever truncated, so every epoch ends at the log's
    end.
    """
    topics = []
    for topic_request in request.body["topics"]:
        partitions = []
        for p in topic_request["partitions"]:
            partition = cluster.partition(topic_request["topic"], p["partition"])
            error = _check_leader(partition, request, p["current_leader_epoch"])
            epoch, end = -1, -1
            if partition is not None and not error and p["leader_epoch"] <= partition.leader_epoch:
                epoch, end = p["leader_epoch"], partition.log.next_offset
            partitions.append(
                {
                    "error_code": error,
                    "partition": p["partition"],
                    "leader_epoch": epoch,
                    "end_offset": end,
                }
            )
        topics.append({"topic": topic_request["topic"], "partitions": partitions})
    return {"topics": topics}
