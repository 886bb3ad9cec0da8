"""Produce: check, append, answer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from kprod.protocol import Body
from kprod.testing.broker.partition_log import INVALID_RECORD, AppendError
from kprod.testing.broker.record_batch import InvalidBatch, read_header
from kprod.testing.broker.request import CloseConnection, Request
from kprod.testing.broker.transactions import INVALID_PRODUCER_EPOCH, PRODUCER_FENCED

if TYPE_CHECKING:
    from kprod.testing.broker.cluster import ClusterState, Partition

UNKNOWN_TOPIC_OR_PARTITION: Final = 3
NOT_LEADER_OR_FOLLOWER: Final = 6
NOT_ENOUGH_REPLICAS: Final = 19
INVALID_REQUIRED_ACKS: Final = 21
INVALID_TXN_STATE: Final = 48
UNSUPPORTED_COMPRESSION_TYPE: Final = 76
UNKNOWN_TOPIC_ID: Final = 100
TRANSACTION_ABORTABLE: Final = 120

ZSTD: Final = 4


def produce(cluster: ClusterState, request: Request) -> Body | None:
    """Handle a Produce request; ``None`` with acks=0, where no response is sent.

    Raises:
        CloseConnection: acks=0 and a batch was refused: the only way a broker can tell.
    """
    body = request.body
    responses = []
    moved: set[int] = set()
    failed = False
    for topic_data in body["topic_data"]:
        topic = cluster.find_topic(topic_data["name"], topic_data["topic_id"])
        name = topic.name if topic is not None else topic_data["name"]
        partition_responses = []
        for data in topic_data["partition_data"]:
            answer = _append(cluster, request, name, data["index"], data["records"])
            failed = failed or answer["error_code"] != 0
            leader = answer.get("current_leader")
            if leader is not None:
                moved.add(leader["leader_id"])
            partition_responses.append(answer)
        responses.append(
            {
                "name": topic_data["name"],
                "topic_id": topic_data["topic_id"],
                "partition_responses": partition_responses,
            }
        )
    if body["acks"] == 0:
        if failed:
            raise CloseConnection("a batch with acks=0 was refused")
        return None
    endpoints = [
        {"node_id": node.id, "host": node.host, "port": node.port, "rack": node.rack}
        for node in cluster.nodes.values()
        if node.id in moved
    ]
    return {"responses": responses, "node_endpoints": endpoints}


def _append(
    cluster: ClusterState, request: Request, topic: str, index: int, records: bytes | None
) -> dict[str, Any]:
    answer: dict[str, Any] = {
        "index": index,
        "error_code": 0,
        "base_offset": -1,
        "log_append_time_ms": -1,
        "log_start_offset": -1,
        "record_errors": [],
        "error_message": None,
    }
    fault = request.fault_for(topic, index)
    if fault is not None and not fault.applied:
        answer["error_code"] = fault.error
        answer["error_message"] = fault.error_message
        answer["record_errors"] = _record_errors(fault.record_errors)
        if fault.error == NOT_LEADER_OR_FOLLOWER:
            _name_leader(answer, cluster.partition(topic, index))
        return answer
    try:
        partition = _find_partition(cluster, request, topic, index, answer)
        batch = _single_batch(request, records)
        _check_transaction(cluster, request, batch, partition)
        appended = partition.log.append(batch, partition.leader_epoch, cluster.now_ms())
    except AppendError as exc:
        answer["error_code"] = exc.code
        answer["error_message"] = str(exc)
        answer["record_errors"] = _record_errors(exc.record_errors)
        return answer
    answer["base_offset"] = appended.base_offset
    answer["log_append_time_ms"] = appended.log_append_time
    answer["log_start_offset"] = 0
    if not appended.duplicate:
        cluster.appended(partition)
    if fault is not None:
        answer["error_code"] = fault.error
        answer["error_message"] = fault.error_message
        answer["base_offset"] = -1
    return answer


def _record_errors(errors: list[tuple[int, str | None]]) -> list[dict[str, Any]]:
    return [{"batch_index": index, "batch_index_error_message": message} for index, message in errors]


def _name_leader(answer: dict[str, Any], partition: Partition | None) -> None:
    # KIP-951: the client can go on without asking for metadata first.
    if partition is not None:
        answer["current_leader"] = {"leader_id": partition.leader, "leader_epoch": partition.leader_epoch}


def _find_partition(
    cluster: ClusterState, request: Request, topic: str, index: int, answer: dict[str, Any]
) -> Partition:
    body = request.body
    if body["acks"] not in (-1, 0, 1):
        raise AppendError(INVALID_REQUIRED_ACKS, f"acks must be -1, 0 or 1, not {body['acks']}")
    partition = cluster.partition(topic, index)
    if partition is None:
        unknown_id = request.version >= 13 and topic not in cluster.topics
        raise AppendError(UNKNOWN_TOPIC_ID if unknown_id else UNKNOWN_TOPIC_OR_PARTITION, "no such partition")
    if partition.leader != request.node:
        _name_leader(answer, partition)
        raise AppendError(NOT_LEADER_OR_FOLLOWER, f"broker {request.node} does not lead the partition")
    in_sync = len(partition.isr)
    needed = partition.log.config.min_insync_replicas
    if body["acks"] == -1 and in_sync < needed:
        raise AppendError(NOT_ENOUGH_REPLICAS, f"{in_sync} replicas are in sync, {needed} are needed")
    return partition


def _single_batch(request: Request, records: bytes | None) -> bytes:
    """What Kafka's ``ProduceRequest.validateRecords`` demands."""
    if not records:
        raise AppendError(INVALID_RECORD, "no record batch for the partition")
    try:
        codec = read_header(records).codec
    except InvalidBatch:
        return records  # The log says what is wrong with it.
    if codec == ZSTD and request.version < 7:
        raise AppendError(UNSUPPORTED_COMPRESSION_TYPE, "zstd needs produce version 7")
    return records


def _check_transaction(cluster: ClusterState, request: Request, batch: bytes, partition: Partition) -> None:
    try:
        header = read_header(batch)
    except InvalidBatch:
        return
    if not header.is_transactional or header.producer_id < 0:
        return
    transactions = cluster.transactions
    transactional_id = request.body["transactional_id"]
    if transactional_id is None:
        raise AppendError(INVALID_RECORD, "a transactional batch in a request without transactional id")
    error = transactions.check(transactional_id, header.producer_id, header.producer_epoch)
    if error == PRODUCER_FENCED:
        # Produce answers never have that code: partition leaders do not know who fenced whom.
        error = INVALID_PRODUCER_EPOCH
    if error:
        raise AppendError(
            error, f"producer {header.producer_id} is not the current one of {transactional_id!r}"
        )
    if transactions.has_partition(header.producer_id, partition.topic, partition.index):
        return
    if request.version >= 12 and cluster.transaction_version >= 2:
        # Transactions v2: producing adds the partition (KIP-890).
        transactions.add_partitions(transactional_id, {(partition.topic, partition.index)}, v2=True)
        return
    code = TRANSACTION_ABORTABLE if request.version >= 11 else INVALID_TXN_STATE
    raise AppendError(code, "the partition was not added to the transaction")
