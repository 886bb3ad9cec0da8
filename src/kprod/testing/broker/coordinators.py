"""Requests to coordinators: FindCoordinator, transactions and consumer groups."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from kprod.protocol import Body
from kprod.testing.broker.groups import CommittedOffset
from kprod.testing.broker.request import Later, Request
from kprod.testing.broker.transactions import INVALID_PRODUCER_EPOCH, INVALID_TXN_STATE, PRODUCER_FENCED

if TYPE_CHECKING:
    from kprod.testing.broker.cluster import ClusterState

UNKNOWN_TOPIC_OR_PARTITION: Final = 3
COORDINATOR_NOT_AVAILABLE: Final = 15
NOT_COORDINATOR: Final = 16
INVALID_REQUEST: Final = 42
TRANSACTIONAL_ID_AUTHORIZATION_FAILED: Final = 53
OPERATION_NOT_ATTEMPTED: Final = 55
UNSTABLE_OFFSET_COMMIT: Final = 88


def find_coordinator(cluster: ClusterState, request: Request) -> Body:
    """Handle a FindCoordinator request."""
    body = request.body
    keys = body["coordinator_keys"] if request.version >= 4 else [body["key"]]
    found = [_coordinator(cluster, request, key) for key in keys]
    return (
        {"coordinators": found} if request.version >= 4 else {k: v for k, v in found[0].items() if k != "key"}
    )


def _coordinator(cluster: ClusterState, request: Request, key: str) -> dict[str, Any]:
    node = cluster.coordinator_for(key)
    fault = request.fault_for()
    error = fault.error if fault is not None else 0 if node is not None else COORDINATOR_NOT_AVAILABLE
    return {
        "key": key,
        "node_id": node.id if node is not None and not error else -1,
        "host": node.host if node is not None and not error else "",
        "port": node.port if node is not None and not error else -1,
        "error_code": error,
        "error_message": fault.error_message if fault is not None else None,
    }


def _not_coordinator(cluster: ClusterState, request: Request, key: str) -> int:
    node = cluster.coordinator_for(key)
    return 0 if node is not None and node.id == request.node else NOT_COORDINATOR


# --- transactions ---------------------------------------------------------------------------------------


def _fenced(code: int, has_fenced_code: bool) -> int:
    """Versions before KIP-588 have INVALID_PRODUCER_EPOCH where later ones have PRODUCER_FENCED."""
    return INVALID_PRODUCER_EPOCH if code == PRODUCER_FENCED and not has_fenced_code else code


def init_producer_id(cluster: ClusterState, request: Request) -> Body:
    """Handle an InitProducerId request, idempotent or transactional."""
    body = request.body
    transactional_id = body["transactional_id"]
    code, producer_id, epoch = request.error_for(), -1, -1
    ongoing = -1, -1
    if code:
        pass
    elif transactional_id is None:
        producer_id, epoch = cluster.transactions.new_producer_id(), 0
    elif not transactional_id:
        code = INVALID_REQUEST
    else:
        code = _not_coordinator(cluster, request, transactional_id)
        if not code and body["enable2_pc"] and not cluster.two_phase_commit:
            code = TRANSACTIONAL_ID_AUTHORIZATION_FAILED
        if not code:
            code, producer_id, epoch = cluster.transactions.init_producer_id(
                transactional_id, body["transaction_timeout_ms"], body["producer_id"], body["producer_epoch"],
                two_phase_commit=body["enable2_pc"], keep_prepared=body["keep_prepared_txn"],
            )  # fmt: skip
        if not code and body["keep_prepared_txn"]:
            ongoing = cluster.transactions.ongoing(transactional_id)
    return {
        "error_code": _fenced(code, request.version >= 4),
        "producer_id": producer_id,
        "producer_epoch": epoch,
        "ongoing_txn_producer_id": ongoing[0],
        "ongoing_txn_producer_epoch": ongoing[1],
    }


def add_partitions_to_txn(cluster: ClusterState, request: Request) -> Body:
    """Handle an AddPartitionsToTxn request (versions for clients)."""
    body = request.body
    transactional_id = body["transactional_id"]
    code = _not_coordinator(cluster, request, transactional_id) or _fenced(
        cluster.transactions.check(transactional_id, body["producer_id"], body["producer_epoch"]),
        request.version >= 2,
    )
    partitions = {(t["name"], p) for t in body["topics"] for p in t["partitions"]}
    codes = {}
    for topic, index in partitions:
        error = request.error_for(topic, index) or code
        if not error and cluster.partition(topic, index) is None:
            error = UNKNOWN_TOPIC_OR_PARTITION
        codes[topic, index] = error
    if not code and any(codes.values()):
        # All or nothing: what is right in itself was not attempted.
        codes = {key: error or OPERATION_NOT_ATTEMPTED for key, error in codes.items()}
    elif not code:
        cluster.transactions.add_partitions(transactional_id, partitions, v2=False)
    return {
        "results_by_topic": [
            {
                "name": t["name"],
                "results_by_partition": [
                    {"partition_index": p, "partition_error_code": codes[t["name"], p]}
                    for p in t["partitions"]
                ],
            }
            for t in body["topics"]
        ]
    }


def add_offsets_to_txn(cluster: ClusterState, request: Request) -> Body:
    """Handle an AddOffsetsToTxn request."""
    body = request.body
    transactional_id = body["transactional_id"]
    code = (
        request.error_for()
        or _not_coordinator(cluster, request, transactional_id)
        or _fenced(
            cluster.transactions.check(transactional_id, body["producer_id"], body["producer_epoch"]),
            request.version >= 2,
        )
    )
    if not code:
        cluster.transactions.add_group(transactional_id, body["group_id"], v2=False)
    return {"error_code": code}


def end_txn(cluster: ClusterState, request: Request) -> Body:
    """Handle an EndTxn request."""
    body = request.body
    transactional_id = body["transactional_id"]
    fault = request.fault_for()
    code, producer_id, epoch = _not_coordinator(cluster, request, transactional_id), -1, -1
    if not code and (fault is None or fault.applied):
        code, producer_id, epoch = cluster.transactions.end(
            transactional_id,
            body["producer_id"],
            body["producer_epoch"],
            body["committed"],
            bump_epoch=request.version >= 5,
        )
    if fault is not None:
        code, producer_id, epoch = fault.error, -1, -1
    return {
        "error_code": _fenced(code, request.version >= 2),
        "producer_id": producer_id,
        "producer_epoch": epoch,
    }


def txn_offset_commit(cluster: ClusterState, request: Request) -> Body:
    """Handle a TxnOffsetCommit request; from version 5 it adds the group to the transaction (KIP-890)."""
    body = request.body
    transactional_id, group = body["transactional_id"], body["group_id"]
    transactions = cluster.transactions
    code = _not_coordinator(cluster, request, group) or transactions.check(
        transactional_id, body["producer_id"], body["producer_epoch"]
    )
    # This API never had PRODUCER_FENCED.
    code = _fenced(code, False)
    if not code and not transactions.has_group(transactional_id, group):
        if request.version >= 5 and cluster.transaction_version >= 2:
            transactions.add_group(transactional_id, group, v2=True)
        else:
            code = INVALID_TXN_STATE
    if not code and body["generation_id"] >= 0:
        code = cluster.groups.check_commit(group, body["generation_id"], body["member_id"])
    topics = []
    for t in body["topics"]:
        partitions = []
        for p in t["partitions"]:
            error = request.error_for(t["name"], p["partition_index"]) or code
            if not error and cluster.partition(t["name"], p["partition_index"]) is None:
                error = UNKNOWN_TOPIC_OR_PARTITION
            if not error:
                cluster.groups.commit_in_transaction(
                    group, transactional_id, t["name"], p["partition_index"], _committed(p)
                )
            partitions.append({"partition_index": p["partition_index"], "error_code": error})
        topics.append({"name": t["name"], "partitions": partitions})
    return {"topics": topics}


def _committed(p: dict[str, Any]) -> CommittedOffset:
    return CommittedOffset(p["committed_offset"], p["committed_leader_epoch"], p["committed_metadata"])


# --- groups ---------------------------------------------------------------------------------------------


def offset_commit(cluster: ClusterState, request: Request) -> Body:
    """Handle an OffsetCommit request."""
    body = request.body
    group = body["group_id"]
    code = _not_coordinator(cluster, request, group) or cluster.groups.check_commit(
        group, body["generation_id_or_member_epoch"], body["member_id"]
    )
    topics = []
    for t in body["topics"]:
        partitions = []
        for p in t["partitions"]:
            error = request.error_for(t["name"], p["partition_index"]) or code
            if not error and cluster.partition(t["name"], p["partition_index"]) is None:
                error = UNKNOWN_TOPIC_OR_PARTITION
            if not error:
                cluster.groups.commit(group, t["name"], p["partition_index"], _committed(p))
            partitions.append({"partition_index": p["partition_index"], "error_code": error})
        topics.append({"name": t["name"], "partitions": partitions})
    return {"topics": topics}


def offset_fetch(cluster: ClusterState, request: Request) -> Body:
    """Handle an OffsetFetch request."""
    body = request.body
    if request.version >= 8:
        return {
            "groups": [
                {
                    "group_id": g["group_id"],
                    "topics": _offsets(cluster, g["group_id"], g["topics"], body["require_stable"]),
                    "error_code": request.error_for() or _not_coordinator(cluster, request, g["group_id"]),
                }
                for g in body["groups"]
            ]
        }
    group = body["group_id"]
    return {
        "topics": _offsets(cluster, group, body["topics"], body["require_stable"]),
        "error_code": request.error_for() or _not_coordinator(cluster, request, group),
    }


def _offsets(
    cluster: ClusterState, group: str, asked: list[dict[str, Any]] | None, require_stable: bool
) -> list[dict[str, Any]]:
    offsets = cluster.groups.group(group).offsets
    if asked is None:
        names = sorted({topic for topic, _ in offsets})
        asked = [{"name": n, "partition_indexes": sorted(p for t, p in offsets if t == n)} for n in names]
    topics = []
    for t in asked:
        partitions = []
        for index in t["partition_indexes"]:
            committed = offsets.get((t["name"], index), CommittedOffset(-1))
            unstable = require_stable and cluster.groups.is_pending(group, t["name"], index)
            partitions.append(
                {
                    "partition_index": index,
                    "committed_offset": -1 if unstable else committed.offset,
                    "committed_leader_epoch": committed.leader_epoch,
                    "metadata": committed.metadata,
                    "error_code": UNSTABLE_OFFSET_COMMIT if unstable else 0,
                }
            )
        topics.append({"name": t["name"], "partitions": partitions})
    return topics


def join_group(cluster: ClusterState, request: Request) -> Later:
    """Handle a JoinGroup request; it is answered when all members have joined."""
    later = Later()
    code = request.error_for() or _not_coordinator(cluster, request, request.body["group_id"])
    if code:
        member_id = request.body["member_id"]
        later.set(
            {"error_code": code, "protocol_name": "", "leader": "", "member_id": member_id, "members": []}
        )
    else:
        cluster.groups.join(request.body, request.version, request.header.client_id, later.set)
    return later


def sync_group(cluster: ClusterState, request: Request) -> Later:
    """Handle a SyncGroup request; it is answered when the group's leader has made the assignment."""
    later = Later()
    code = request.error_for() or _not_coordinator(cluster, request, request.body["group_id"])
    if code:
        later.set({"error_code": code, "assignment": b""})
    else:
        cluster.groups.sync(request.body, later.set)
    return later


def heartbeat(cluster: ClusterState, request: Request) -> Body:
    """Handle a Heartbeat request."""
    code = request.error_for() or _not_coordinator(cluster, request, request.body["group_id"])
    return {"error_code": code or cluster.groups.heartbeat(request.body)}


def leave_group(cluster: ClusterState, request: Request) -> Body:
    """Handle a LeaveGroup request."""
    body = request.body
    code = request.error_for() or _not_coordinator(cluster, request, body["group_id"])
    if request.version < 3:
        return {"error_code": code or cluster.groups.leave(body["group_id"], body["member_id"], None)}
    members = [
        {
            "member_id": m["member_id"],
            "group_instance_id": m["group_instance_id"],
            "error_code": cluster.groups.leave(body["group_id"], m["member_id"], m["group_instance_id"]),
        }
        for m in (() if code else body["members"])
    ]
    return {"error_code": code, "members": members}
